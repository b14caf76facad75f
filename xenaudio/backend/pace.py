# SPDX-License-Identifier: LGPL-2.1-or-later
"""A limit on how often a guest can have something done: a token bucket."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Allows `burst` actions at once and then `rate` a second. `rate` may be set at any time."""

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate = rate
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._at = clock()

    def delay(self) -> float:
        """Take a token; return how many seconds to wait before the action may be done."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self.rate) - 1
        self._at = now
        return max(0.0, -self._tokens / self.rate)
