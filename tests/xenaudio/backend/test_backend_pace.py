# SPDX-License-Identifier: LGPL-2.1-or-later
"""A limit on how often a guest can have something done."""

from __future__ import annotations

from xenaudio.backend.pace import Pace


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_free_and_then_each_waits_for_its_turn() -> None:
    clock = Clock()
    pace = Pace(rate=4, burst=3, clock=clock)
    assert [pace.delay() for _ in range(3)] == [0, 0, 0]
    assert pace.delay() == 0.25
    clock.now += 0.25
    assert pace.delay() == 0.25
    clock.now += 0.125
    assert pace.delay() == 0.375


def test_rest_restores_the_burst_and_no_more() -> None:
    clock = Clock()
    pace = Pace(rate=4, burst=3, clock=clock)
    for _ in range(5):
        pace.delay()
    clock.now += 3600
    assert [pace.delay() for _ in range(3)] == [0, 0, 0]
    assert pace.delay() > 0


def test_a_steady_guest_below_the_rate_never_waits() -> None:
    clock = Clock()
    pace = Pace(rate=4, burst=1, clock=clock)
    for _ in range(100):
        assert pace.delay() == 0
        clock.now += 0.25
