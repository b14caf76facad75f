# SPDX-License-Identifier: LGPL-2.1-or-later
"""What goes wrong around guests with the kernel's driver: afterwards they play again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .dom0 import Backend, Dom0
from .domain.pattern import Pattern
from .guest import Guest, GuestConfig
from .machine import CommandFailed
from .test_lifecycle import LONG, await_nothing_left, plays_bit_exact, while_heard
from .test_ours import assert_continued

PERIOD = 2400
"""Frames that aplay writes at once."""


@pytest.mark.parametrize("how", ["KILL", "TERM"])
def test_restarted_backend_serves_a_stock_guest_that_was_playing(
    dom0: Dom0, backend: Backend, stock: Guest, how: str
) -> None:
    """Its player ends with an error, its card stays, and plays."""
    dom0.forget_played(stock)
    playing = stock.aplay(LONG)
    while_heard(dom0, {stock: playing}, f"kill -{how} $(cat /run/xenaudio.pid)")
    backend.ended()
    again = dom0.start_backend()
    again.await_log(f"{stock} vsnd 0: connected")
    assert playing.wait().exit != 0
    stock.await_card()
    plays_bit_exact(dom0, stock, 42)
    assert "BUG" not in stock.run("dmesg").out


def test_restarted_backend_serves_a_stock_guest_that_was_silent(
    dom0: Dom0, backend: Backend, stock: Guest
) -> None:
    plays_bit_exact(dom0, stock, 43)
    backend.kill()
    again = dom0.start_backend()
    again.await_log(f"{stock} vsnd 0: connected")
    stock.await_card()
    plays_bit_exact(dom0, stock, 44)


def test_stock_guest_goes_on_after_it_was_paused(dom0: Dom0, stock: Guest) -> None:
    pattern = Pattern(frames=5 * 48000, seed=49)
    dom0.forget_played(stock)
    playing = stock.aplay(pattern, period=PERIOD)
    pause = f"xl pause {stock.domid} && sleep 5 && xl unpause {stock.domid}"
    while_heard(dom0, {stock: playing}, pause)
    playing.done()
    # The samples of a write that is under way when ALSA finds the underrun have been sent, but the
    # player is told that they were not taken, and writes them again: a period, as aplay does.
    assert_continued(pattern, dom0.pieces(pattern, stock), again=PERIOD)


def test_stock_guest_is_saved_and_restored(dom0: Dom0, backend: Backend, stock: Guest) -> None:
    """While it is silent: Linux 6.1 begins anew with its card, and frees what a player holds."""
    before = dom0.holding()
    saved = stock.domid
    plays_bit_exact(dom0, stock, 54)
    dom0.save(stock)
    await_nothing_left(dom0, stock)
    dom0.restore(stock)
    assert stock.domid != saved
    backend.await_log(f"{stock} vsnd 0: connected")
    stock.await_card()
    plays_bit_exact(dom0, stock, 55)
    held = dom0.holding()
    assert (held.mappings, held.handles) == (before.mappings, before.handles)


@pytest.fixture
def unserved(dom0: Dom0) -> Iterator[Dom0]:
    """Give dom0 without a backend."""
    dom0.backend().stop()
    yield dom0
    dom0.backend()


def test_guest_without_a_backend_is_refused_and_created_once_there_is_one(unserved: Dom0) -> None:
    config = GuestConfig("own", "stock")  # test_stock.py's, from now on
    with pytest.raises(CommandFailed) as refusal:
        unserved.lasting(config)
    assert "unable to add vsnd devices" in str(refusal.value)
    unserved.backend()
    plays_bit_exact(unserved, unserved.lasting(config), 56)
