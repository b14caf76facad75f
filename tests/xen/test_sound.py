# SPDX-License-Identifier: LGPL-2.1-or-later
"""What our frontend plays and records, bit by bit, and beside a guest with Linux's driver."""

from __future__ import annotations

from .dom0 import Dom0
from .domain.pattern import Pattern
from .guest import Guest

SECONDS = 3


def test_our_frontend_plays_bit_exact(dom0: Dom0, debian: Guest) -> None:
    pattern = Pattern(frames=SECONDS * 48000, seed=13)
    debian.play(pattern).done()
    dom0.check(pattern, dom0.played(debian))


def test_our_frontend_records_bit_exact(dom0: Dom0, debian: Guest) -> None:
    pattern = Pattern(frames=SECONDS * 48000, seed=14)
    dom0.offer(pattern)
    job, path = debian.record(pattern, SECONDS + 0.5)
    job.done()
    debian.check(pattern, path)


def test_both_guests_play_at_once(dom0: Dom0, stock: Guest, debian: Guest) -> None:
    kernel = Pattern(frames=SECONDS * 48000, seed=15)
    ours = Pattern(frames=SECONDS * 48000, seed=16)
    jobs = [stock.aplay(kernel), debian.play(ours)]
    for job in jobs:
        job.done()
    dom0.check(kernel, dom0.played(stock))
    dom0.check(ours, dom0.played(debian))
