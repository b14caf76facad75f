# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sound for a guest's ordinary users, through the guest service and Linux's gntalloc and evtchn."""

from __future__ import annotations

import shlex

import pytest

from .dom0 import Backend, Dom0
from .domain.pattern import Pattern
from .guest import GUESTD_LOG, Guest
from .images import TREE
from .machine import Job
from .test_lifecycle import await_nothing_left, await_sound, eventually, once_heard
from .test_ours import BUFFER, assert_continued

PROBE = TREE / "tests/xenaudio/guestd"
FOLDER = "/run/users"
"""What any user may write."""
NOBODY = 65534
AS_NOBODY = f"exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups"


@pytest.fixture(scope="module")
def guest(serviced: Guest) -> Guest:
    """Give a guest in which the service runs. It lasts for further tests: leave it as it was."""
    serviced.run(f"mkdir -p {FOLDER} && chmod 777 {FOLDER}")
    return serviced


def play(guest: Guest, pattern: Pattern, *options: str) -> Job:
    """Begin to play as a user without rights, who need not say where."""
    path = guest.make(pattern, "wav")
    return guest.start(f"{AS_NOBODY} xenaudio play -q {shlex.join(options)} {path}")


def held(dom0: Dom0) -> tuple[int, int]:
    """Return what the backend's process has of guests: mappings, and handles of Xen's devices."""
    holding = dom0.holding()
    return holding.mappings, holding.handles


def test_an_ordinary_user_plays_and_records_bit_exact(dom0: Dom0, guest: Guest) -> None:
    pattern = Pattern(frames=48000, seed=90)
    play(guest, pattern).done()
    dom0.check(pattern, dom0.played(guest))

    offered = Pattern(frames=2 * 48000, seed=91)
    dom0.offer(offered)
    out = f"{FOLDER}/recorded.wav"
    record = f"xenaudio record -q --rate 48000 --channels 2 --format s16_le --seconds 3 {out}"
    guest.run(f"{AS_NOBODY} {record}")
    guest.check(offered, out)


def test_an_ordinary_user_opens_no_node_of_xen_and_writes_no_other_path(guest: Guest) -> None:
    guest.put([PROBE / "probe.py", PROBE / "guestservice.py"], f"{FOLDER}/probe")
    probe = f"python3 {FOLDER}/probe/probe.py {NOBODY}"
    guest.run(f"{probe} /run/xenaudio/guestd.sock")


def test_a_killed_users_card_is_closed_and_the_next_plays(
    dom0: Dom0, backend: Backend, guest: Guest
) -> None:
    before = held(dom0)
    for attempt in range(2):
        dom0.forget_played(guest)
        playing = play(guest, Pattern(frames=30 * 48000, seed=92))
        await_sound(dom0, guest, playing)
        playing.signal(9)
        playing.wait()
        path = f"/local/domain/{guest.domid}/device/vsnd/0/state"
        eventually(lambda: dom0.read(path) == "6", "the card is closed")  # noqa: B023
        eventually(lambda: held(dom0) == before, f"what is held is as before, {before}")
        pattern = Pattern(frames=48000, seed=93 + attempt)
        play(guest, pattern).done()
        dom0.check(pattern, dom0.played(guest))
    assert "BUG" not in guest.run("dmesg").out


def test_who_waits_plays_when_the_other_has_ended(dom0: Dom0, guest: Guest) -> None:
    dom0.forget_played(guest)
    first, second = Pattern(frames=3 * 48000, seed=96), Pattern(frames=48000, seed=97)
    guest.make(second, "wav")
    playing = play(guest, first)
    await_sound(dom0, guest, playing)
    waiting = play(guest, second, "--wait", "200")
    playing.done()
    waiting.done()
    dom0.check(second, dom0.played(guest))


def test_a_user_plays_on_in_a_guest_saved_and_restored(dom0: Dom0, guest: Guest) -> None:
    before = held(dom0)
    dom0.forget_played(guest)
    pattern = Pattern(frames=5 * 48000, seed=98)
    playing = play(guest, pattern)
    dom0.save(guest, after=once_heard(guest))
    await_nothing_left(dom0, guest)
    dom0.restore(guest)
    assert "waiting" in playing.done().err
    assert_continued(pattern, dom0.pieces(pattern, guest), again=BUFFER)
    # Again, with channels of this life.
    after = Pattern(frames=48000, seed=99)
    play(guest, after).done()
    dom0.check(after, dom0.played(guest))
    assert held(dom0) == before
    assert "it was restored" in guest.run(f"cat {GUESTD_LOG}").out
    # Linux stops with a BUG when an event channel is closed that was lost on the way: a process
    # that sleeps has them.
    assert "BUG" not in guest.run("dmesg").out
    guest.run("grep -aq '^@xenaudio-left-event-channels' /proc/[0-9]*/cmdline")
