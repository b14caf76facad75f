# SPDX-License-Identifier: LGPL-2.1-or-later
"""Our frontend goes on by itself: whatever happens to it, the rest of a sound arrives, in order."""

from __future__ import annotations

import itertools

from .dom0 import Dom0
from .domain.pattern import Pattern
from .guest import Guest
from .test_lifecycle import await_sound

# The output's file lags what it reports as heard: a killed backend's file lacks so much.
UNSAVED = 48000 // 2
BUFFER = 48000 // 10
"""The buffer of `xenaudio play`."""


def assert_continued(
    pattern: Pattern, pieces: list[tuple[int, int]], *, again: int = 0, lost: int = 0
) -> None:
    """All of the pattern was played in order; at a break, so much at most again, or lost."""
    assert pieces
    assert pieces[0][0] == 0
    assert pieces[-1][1] == pattern.frames
    for (_, end), (begin, _) in itertools.pairwise(pieces):
        assert end - again <= begin <= end + lost, pieces


def test_goes_on_when_the_backend_is_killed_and_started_again(dom0: Dom0, debian: Guest) -> None:
    pattern = Pattern(frames=6 * 48000, seed=50)
    dom0.forget_played(debian)
    playing = debian.play(pattern)
    await_sound(dom0, debian, playing)
    dom0.backend().kill()
    dom0.start_backend()
    assert "waiting" in playing.done().err
    pieces = dom0.pieces(pattern, debian)
    assert_continued(pattern, pieces, again=BUFFER, lost=UNSAVED)


def test_goes_on_after_its_guest_was_paused(dom0: Dom0, debian: Guest) -> None:
    pattern = Pattern(frames=6 * 48000, seed=51)
    dom0.forget_played(debian)
    playing = debian.play(pattern)
    await_sound(dom0, debian, playing)
    dom0.run(f"xl pause {debian.domid}; sleep 5; xl unpause {debian.domid}")
    playing.done()
    assert_continued(pattern, dom0.pieces(pattern, debian))


def test_goes_on_when_its_card_is_detached_and_attached_again(dom0: Dom0, debian: Guest) -> None:
    pattern = Pattern(frames=6 * 48000, seed=52)
    dom0.forget_played(debian)
    playing = debian.play(pattern)
    await_sound(dom0, debian, playing)
    dom0.detach(debian)
    assert dom0.read(f"/local/domain/0/backend/vsnd/{debian.domid}/0/state") is None
    dom0.attach(debian)
    assert "waiting" in playing.done().err
    assert_continued(pattern, dom0.pieces(pattern, debian), again=BUFFER)
