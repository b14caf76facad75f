# SPDX-License-Identifier: LGPL-2.1-or-later
"""A limit on how often a guest can have something done: a token bucket."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

# A guest's handshakes, and how often its devices are looked at: so many at once, then so many a
# second.
HANDSHAKE_BURST = 20
HANDSHAKES_PER_SECOND = 4.0
LOOK_BURST = 100
LOOKS_PER_SECOND = 50.0


class Pace:
    """Allows `burst` actions at once and then `rate` a second."""

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._at = clock()

    def delay(self) -> float:
        """Take a token; return how many seconds to wait before the action may be done."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate) - 1
        self._at = now
        return max(0.0, -self._tokens / self._rate)


@dataclass
class GuestPace:
    """What all devices of one guest share."""

    handshakes: Pace = field(default_factory=lambda: Pace(HANDSHAKES_PER_SECOND, HANDSHAKE_BURST))
    looks: Pace = field(default_factory=lambda: Pace(LOOKS_PER_SECOND, LOOK_BURST))
