# SPDX-License-Identifier: LGPL-2.1-or-later
"""Our frontend goes on by itself: whatever happens to it, the rest of a sound arrives, in order."""

from __future__ import annotations

import itertools

from .dom0 import Backend, Dom0
from .domain.pattern import Pattern
from .guest import Guest
from .machine import Job
from .test_lifecycle import await_nothing_left, once_heard, while_heard

BUFFER = 48000 // 10
"""Frames of the buffer of `xenaudio play`: what the backend had of it is played again."""
UNSAVED = 48000 // 2
"""Frames that a backend may have played, but not written into its file yet, when it is killed: a
thread of its own writes them, four times a second."""


def assert_continued(
    pattern: Pattern, pieces: list[tuple[int, int]], *, again: int = 0, lost: int = 0
) -> None:
    """All of the pattern was played in order; at a break, so much at most again, or lost."""
    assert pieces
    assert pieces[0][0] == 0
    assert pieces[-1][1] == pattern.frames
    for (_, end), (begin, _) in itertools.pairwise(pieces):
        assert end - again <= begin <= end + lost, pieces


def begin(dom0: Dom0, guest: Guest, seed: int) -> tuple[Pattern, Job]:
    """Begin to play five seconds."""
    pattern = Pattern(frames=5 * 48000, seed=seed)
    dom0.forget_played(guest)
    return pattern, guest.play(pattern)


def test_goes_on_when_the_backend_is_killed_and_started_again(
    dom0: Dom0, backend: Backend, debian: Guest
) -> None:
    pattern, playing = begin(dom0, debian, 50)
    while_heard(dom0, {debian: playing}, "kill -KILL $(cat /run/xenaudio.pid)")
    backend.ended()
    dom0.start_backend()
    assert "waiting" in playing.done().err
    assert_continued(pattern, dom0.pieces(pattern, debian), again=BUFFER, lost=UNSAVED)


def test_goes_on_when_the_backend_is_stopped_and_started_again(
    dom0: Dom0, backend: Backend, debian: Guest
) -> None:
    pattern, playing = begin(dom0, debian, 51)
    while_heard(dom0, {debian: playing}, "kill $(cat /run/xenaudio.pid)")
    assert backend.ended().exit == 0
    dom0.start_backend()
    assert "waiting" in playing.done().err
    assert_continued(pattern, dom0.pieces(pattern, debian), again=BUFFER)


def test_goes_on_after_its_guest_was_paused(dom0: Dom0, debian: Guest) -> None:
    pattern, playing = begin(dom0, debian, 52)
    pause = f"xl pause {debian.domid} && sleep 5 && xl unpause {debian.domid}"
    while_heard(dom0, {debian: playing}, pause)
    playing.done()
    assert_continued(pattern, dom0.pieces(pattern, debian))


def test_goes_on_when_its_card_is_detached_and_attached_again(dom0: Dom0, debian: Guest) -> None:
    pattern, playing = begin(dom0, debian, 53)
    while_heard(dom0, {debian: playing}, f"xl vsnd-detach {debian.domid} 0")
    assert dom0.read(f"/local/domain/0/backend/vsnd/{debian.domid}/0/state") is None
    dom0.attach(debian)
    assert "waiting" in playing.done().err
    assert_continued(pattern, dom0.pieces(pattern, debian), again=BUFFER)


def test_goes_on_in_a_guest_saved_and_restored(dom0: Dom0, debian: Guest) -> None:
    before = dom0.holding()
    saved = debian.domid
    pattern, playing = begin(dom0, debian, 54)
    dom0.save(debian, after=once_heard(debian))
    await_nothing_left(dom0, debian)
    dom0.restore(debian)
    assert debian.domid != saved
    assert "waiting" in playing.done().err
    assert_continued(pattern, dom0.pieces(pattern, debian), again=BUFFER)
    held = dom0.holding()
    assert (held.mappings, held.handles) == (before.mappings, before.handles)
    # Linux stops with a BUG when an event channel is closed that was lost on the way.
    assert "BUG" not in debian.run("dmesg").out
