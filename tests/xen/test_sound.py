# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is played and recorded in guests, bit by bit: by the kernel's driver and by our frontend."""

from __future__ import annotations

from .dom0 import Dom0
from .domain.pattern import Pattern
from .guest import Guest

SECONDS = 3


def test_stock_guest_has_the_card_as_configured(stock: Guest) -> None:
    assert "vsnd" in stock.cards()
    listed = stock.run("cat /proc/asound/pcm").out
    assert "playback 1" in listed
    assert "capture 1" in listed


def test_stock_guest_plays_bit_exact(dom0: Dom0, stock: Guest) -> None:
    pattern = Pattern(frames=SECONDS * 48000, seed=11)
    stock.aplay(pattern, period=2400, buffer=9600).done()
    dom0.check(pattern, dom0.played(stock))


def test_stock_guest_records_bit_exact(dom0: Dom0, stock: Guest) -> None:
    pattern = Pattern(frames=SECONDS * 48000, seed=12)
    dom0.offer(pattern)
    job, path = stock.arecord(pattern, pattern.frames + 24000, period=2400, buffer=9600)
    job.done()
    stock.check(pattern, path)


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
