# SPDX-License-Identifier: LGPL-2.1-or-later
"""Guests and cards that come and go while the backend serves.

What is left of a guest is counted from outside: mappings and handles of the backend's process in
/proc, dom0's bound event channels (lsevtchn), nodes below backend/vsnd, and xl's list, in which a
domain stays as a zombie while any page of it is mapped.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from .dom0 import Backend, Dom0
from .domain.pattern import Pattern
from .guest import Guest, GuestConfig, Role
from .machine import Job, MachineError


def eventually(holds: Callable[[], bool], what: str, limit: float = 60.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + limit
    while not holds():
        if time.monotonic() > end:
            raise MachineError(f"not after {limit:g} s: {what}")
        time.sleep(0.2)


def play(guest: Guest, pattern: Pattern) -> Job:
    """Begin to play, with what the guest has."""
    return guest.aplay(pattern) if guest.config.role == "stock" else guest.play(pattern)


def await_sound(dom0: Dom0, guest: Guest, playing: Job) -> None:
    """Wait until something of what a guest plays has arrived."""
    script = f"find /run/played -name '{guest.name}-*' -size +100k | grep -q ."

    def heard() -> bool:
        assert playing.running, playing.wait()
        return dom0.machine.run(script).exit == 0

    eventually(heard, f"{guest} plays")


@pytest.mark.parametrize("role", ["stock", "debian"])
def test_nothing_is_left_of_a_guest_destroyed_while_playing(
    dom0: Dom0, backend: Backend, role: Role
) -> None:
    before = dom0.holding()
    first = dom0.create(GuestConfig(f"{role}-doomed", role))
    playing = play(first, Pattern(frames=30 * 48000))
    await_sound(dom0, first, playing)
    assert dom0.holding().mappings > before.mappings
    dom0.destroy(first)
    eventually(lambda: dom0.holding() == before, f"what is held is as before, {before}")
    assert backend.running
    next_one = dom0.create(GuestConfig(f"{role}-next", role))
    pattern = Pattern(frames=48000, seed=21)
    play(next_one, pattern).done()
    dom0.check(pattern, dom0.played(next_one))


def test_card_is_attached_and_detached_live(dom0: Dom0, backend: Backend) -> None:
    guest = dom0.create(GuestConfig("hotplug", "stock", vsnd=None))
    guest.run("modprobe snd_xen_front")
    before = dom0.holding()
    for seed in (31, 32):
        dom0.attach(guest)
        guest.await_card()
        pattern = Pattern(frames=48000, seed=seed)
        guest.aplay(pattern).done()
        dom0.check(pattern, dom0.played(guest))
        dom0.detach(guest)
        guest.run("! grep -q vsnd /proc/asound/cards")
        # The kernel's driver takes a second to let go of the device: no new one before that.
        guest.run("while [ -e /sys/devices/vsnd-0 ]; do sleep 0.1; done")
        eventually(lambda: dom0.holding() == before, f"what is held is as before, {before}")


def test_stock_guest_shuts_down_without_waiting_for_its_card(dom0: Dom0, backend: Backend) -> None:
    guest = dom0.create(GuestConfig("leaving", "stock"))
    dom0.shut_down(guest)
    console = dom0.run(f"cat /var/log/xen/console/guest-{guest.name}.log").out
    assert "timeout closing device" not in console
    assert "reboot: " in console
