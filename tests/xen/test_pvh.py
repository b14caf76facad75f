# SPDX-License-Identifier: LGPL-2.1-or-later
"""PVH guests, which need another processor than PV ones have here: a boot of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import images
from .conftest import booted_machine
from .dom0 import Dom0
from .domain.pattern import Pattern
from .guest import GuestConfig
from .machine import PVH_CPU, Machine


@pytest.fixture(scope="module")
def booted() -> Iterator[Dom0]:
    """Boot Xen and dom0 on a processor for PVH guests; the other machine rests meanwhile."""
    with booted_machine(Machine(images.make(), PVH_CPU), "xen-pvh-serial.log") as dom0:
        yield dom0


def test_our_frontend_plays_and_records_bit_exact_in_a_pvh_guest(dom0: Dom0) -> None:
    dom0.backend()
    guest = dom0.create(GuestConfig("pvh-debian", "debian", kind="pvh"))
    guest.run("dmesg | grep 'Booting kernel on Xen PVH'")
    pattern = Pattern(frames=2 * 48000, seed=61)
    guest.play(pattern).done()
    dom0.check(pattern, dom0.played(guest))
    spoken = Pattern(frames=2 * 48000, seed=62)
    dom0.offer(spoken)
    job, path = guest.record(spoken, 2.5)
    job.done()
    guest.check(spoken, path)


def test_stock_pvh_guest_plays_and_records_bit_exact(dom0: Dom0) -> None:
    dom0.backend()
    guest = dom0.create(GuestConfig("pvh-stock", "stock", kind="pvh"))
    pattern = Pattern(frames=2 * 48000, seed=63)
    guest.aplay(pattern).done()
    dom0.check(pattern, dom0.played(guest))
    spoken = Pattern(frames=2 * 48000, seed=64)
    dom0.offer(spoken)
    job, path = guest.arecord(spoken, spoken.frames + 24000)
    job.done()
    guest.check(spoken, path)
