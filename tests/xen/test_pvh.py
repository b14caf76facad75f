# SPDX-License-Identifier: LGPL-2.1-or-later
"""A PVH guest, which has other event channels and grants than a PV one has."""

from __future__ import annotations

from .dom0 import Backend, Dom0
from .domain.pattern import Pattern
from .guest import GuestConfig


def test_our_frontend_plays_and_records_bit_exact_in_a_pvh_guest(
    dom0: Dom0, backend: Backend
) -> None:
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
