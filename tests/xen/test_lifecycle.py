# SPDX-License-Identifier: LGPL-2.1-or-later
"""Guests and cards that come and go while the backend serves, and while others play.

What is left of a guest is counted from outside: mappings and handles of the backend's process in
/proc, dom0's bound event channels (lsevtchn), nodes below backend/vsnd, and xl's list, in which a
domain stays as a zombie while any page of it is mapped.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from .dom0 import PLAYED, Backend, Dom0
from .domain.pattern import Pattern
from .guest import Guest, GuestConfig
from .machine import Done, Job, MachineError

LONG = Pattern(frames=30 * 48000)
"""What is played until something ends it."""


def eventually(holds: Callable[[], bool], what: str, limit: float = 200.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + limit
    while not holds():
        if time.monotonic() > end:
            raise MachineError(f"not after {limit:g} s: {what}")
        time.sleep(0.2)


def play(guest: Guest, pattern: Pattern) -> Job:
    """Begin to play, with what the guest has."""
    return guest.aplay(pattern) if guest.config.role == "stock" else guest.play(pattern)


def plays_bit_exact(dom0: Dom0, guest: Guest, seed: int) -> None:
    """Play a second of noise, and find it whole."""
    pattern = Pattern(frames=48000, seed=seed)
    play(guest, pattern).done()
    dom0.check(pattern, dom0.played(guest))


def once_heard(*guests: Guest) -> str:
    """Return a script that waits in dom0 until half a second of what each guest plays has arrived.

    What they played before must be forgotten.
    """
    file = f"{PLAYED}/$1-0-0-0.wav"
    wait = f"timeout 60 tail -c +100000 -F {file} 2>/dev/null | head -c 1 | wc -c"
    return f'heard() {{ [ "$({wait})" = 1 ]; }};' + " &&".join(f" heard {g.name}" for g in guests)


def while_heard(dom0: Dom0, playing: dict[Guest, Job], script: str) -> Done:
    """Run a script in dom0 as soon as all of these are heard, who have begun to play.

    One script: the emulated clock runs on, and may be fast, between two commands of the tests.
    """
    done = dom0.machine.run(f"{once_heard(*playing)} && {script}")
    ended = [str(job.wait()) for job in playing.values() if not job.running]
    assert done.exit == 0, "\n".join([str(done), *ended])
    return done


def await_sound(dom0: Dom0, guest: Guest, playing: Job) -> None:
    """Wait until something of what a guest plays has arrived."""
    while_heard(dom0, {guest: playing}, "true")


def await_nothing_left(dom0: Dom0, guest: Guest) -> None:
    """Wait until dom0 has no event channel and no node of a guest's that is gone."""
    eventually(lambda: not dom0.left_of(guest), f"nothing is left of {guest}")


@pytest.fixture
def hotplug(dom0: Dom0, backend: Backend) -> Guest:
    """Give a stock guest without a card, created so. The last of these tests ends it."""
    guest = dom0.lasting(GuestConfig("hotplug", "stock", vsnd=None))
    guest.run("modprobe snd_xen_front")
    return guest


def await_detached(guest: Guest) -> None:
    """Wait until a guest's kernel has let go of its card, for which it takes two seconds.

    A card that is attached before that is not looked at by Linux.
    """
    guest.run("while [ -e /sys/devices/vsnd-0 ]; do sleep 0.1; done")


def test_card_is_attached_and_detached_live(dom0: Dom0, backend: Backend, hotplug: Guest) -> None:
    before = dom0.holding()
    for seed in (31, 32):
        dom0.attach(hotplug)
        hotplug.await_card()
        plays_bit_exact(dom0, hotplug, seed)
        dom0.detach(hotplug)
        hotplug.run("! grep -q vsnd /proc/asound/cards")
        await_detached(hotplug)
        eventually(lambda: dom0.holding() == before, f"what is held is as before, {before}")


def test_card_is_detached_while_it_plays(
    dom0: Dom0, backend: Backend, hotplug: Guest, debian: Guest
) -> None:
    """Its player gets an error, and others play on; attached again, it plays."""
    before = dom0.holding()
    dom0.attach(hotplug)
    hotplug.await_card()
    for guest in (hotplug, debian):
        dom0.forget_played(guest)
    theirs = Pattern(frames=6 * 48000, seed=33)
    playing = {hotplug: play(hotplug, LONG), debian: debian.play(theirs, "--buffer-ms", "300")}
    # xl waits ten seconds for state 6, and fails without it.
    while_heard(dom0, playing, f"xl vsnd-detach {hotplug.domid} 0")
    assert playing[hotplug].wait().exit != 0
    playing[debian].done()
    dom0.check(theirs, dom0.played(debian))
    await_detached(hotplug)
    held = dom0.holding()
    assert (held.mappings, held.handles) == (before.mappings, before.handles)
    assert not [node for node in held.nodes if f"/vsnd/{hotplug.domid}/" in node]
    dom0.attach(hotplug)
    hotplug.await_card()
    plays_bit_exact(dom0, hotplug, 34)
    dom0.detach(hotplug)
    await_detached(hotplug)


def test_nothing_is_left_of_guests_destroyed_while_playing(
    dom0: Dom0, backend: Backend, hotplug: Guest, stock: Guest
) -> None:
    """One with the kernel's driver, one with ours. Another guest plays on; the next is served."""
    doomed = [hotplug, dom0.lasting(GuestConfig("debian", "debian"))]
    before = dom0.holding()  # nothing of theirs: one has no card, the other does not use its own
    dom0.attach(hotplug)
    hotplug.await_card()
    for guest in (*doomed, stock):
        dom0.forget_played(guest)
    theirs = Pattern(frames=12 * 48000, seed=35)
    playing = {guest: play(guest, LONG) for guest in doomed}
    playing[stock] = stock.aplay(theirs, period=4096, buffer=16384)
    while_heard(dom0, playing, f"xl destroy {doomed[0].domid} && xl destroy {doomed[1].domid}")
    assert playing[stock].running, "the other guest has played to its end before"
    for guest in doomed:
        dom0.await_gone(guest)
        await_nothing_left(dom0, guest)
    playing[stock].done()
    dom0.check(theirs, dom0.played(stock))
    held = dom0.holding()
    assert (held.mappings, held.handles) == (before.mappings, before.handles)
    assert backend.running
    plays_bit_exact(dom0, dom0.lasting(GuestConfig("debian", "debian")), 36)
