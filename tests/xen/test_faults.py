# SPDX-License-Identifier: LGPL-2.1-or-later
"""What goes wrong around guests with the kernel's driver: afterwards they play again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .dom0 import Backend, Dom0
from .domain.pattern import Pattern
from .guest import Guest, GuestConfig
from .machine import CommandFailed
from .test_lifecycle import await_sound, play
from .test_ours import assert_continued

PERIOD = 2400
"""Frames that aplay writes at once."""


def plays_bit_exact(dom0: Dom0, guest: Guest, seed: int) -> None:
    """Play a second of noise, and find it whole."""
    pattern = Pattern(frames=48000, seed=seed)
    play(guest, pattern).done()
    dom0.check(pattern, dom0.played(guest))


def test_restarted_backend_serves_a_stock_guest_again(
    dom0: Dom0, backend: Backend, stock: Guest
) -> None:
    # Its card is not in use: where a player holds it, Linux 6.1 frees what the player still uses.
    plays_bit_exact(dom0, stock, 42)
    backend.kill()
    again = dom0.start_backend()
    again.await_log(f"{stock} vsnd 0: connected")
    stock.await_card()
    plays_bit_exact(dom0, stock, 43)


def test_stock_guest_goes_on_after_it_was_paused(dom0: Dom0, stock: Guest) -> None:
    pattern = Pattern(frames=6 * 48000, seed=49)
    dom0.forget_played(stock)
    playing = stock.aplay(pattern)
    await_sound(dom0, stock, playing)
    dom0.run(f"xl pause {stock.domid}; sleep 5; xl unpause {stock.domid}")
    playing.done()
    # The samples of a write that is under way when ALSA finds the underrun have been sent, but the
    # player is told that they were not taken, and writes them again: a period, as aplay does.
    assert_continued(pattern, dom0.pieces(pattern, stock), again=PERIOD)


@pytest.fixture
def unserved(dom0: Dom0) -> Iterator[Dom0]:
    """Give dom0 without a backend."""
    dom0.backend().stop()
    yield dom0
    dom0.backend()


def test_guest_without_a_backend_is_refused_and_created_once_there_is_one(unserved: Dom0) -> None:
    config = GuestConfig("too-early", "stock")
    with pytest.raises(CommandFailed) as refusal:
        unserved.create(config)
    assert "unable to add vsnd devices" in str(refusal.value)
    unserved.backend()
    plays_bit_exact(unserved, unserved.create(config), 56)
