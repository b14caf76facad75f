# SPDX-License-Identifier: LGPL-2.1-or-later
"""Attempts that a busy machine may spoil.

When the backend comes too late, a sink or source does not have its clients wait: it goes by the
clock, says so, and what passes meanwhile is lost. That is as it should be, and tested elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable

from daemon import PulseAudio

ATTEMPTS = 5


def undisturbed(daemon: PulseAudio, attempt: Callable[[], None]) -> None:
    """Make an attempt, and another one for each that failed while a stream went by the clock."""
    for left in reversed(range(ATTEMPTS)):
        said = len(daemon.log())
        try:
            attempt()
        except AssertionError as error:
            if left == 0 or "it goes by the clock" not in daemon.log()[said:]:
                raise
            print(f"disturbed: {str(error).splitlines()[:1]}")
        else:
            return
