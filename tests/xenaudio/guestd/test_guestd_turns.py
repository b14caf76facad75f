# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whose turn it is, by users' ranks (sessions.py); and when event channels may be lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from guestservice import CARDS

from xenaudio.core.hv import Hypervisor
from xenaudio.core.store import Store
from xenaudio.guestd.cards import Cards
from xenaudio.guestd.ownership import Ownership
from xenaudio.localhv import Domain, LocalHypervisor

pytestmark = pytest.mark.asyncio

CARD = "device/vsnd/0"


class Asker:
    """A connection of a user."""

    def __init__(self, uid: int) -> None:
        self.uid = uid
        self.fired = asyncio.Event()

    def fire(self, path: str) -> None:
        assert path == CARD
        self.fired.set()

    async def told(self) -> None:
        await asyncio.wait_for(self.fired.wait(), 20)
        self.fired.clear()


class Seat:
    """Users' ranks, and the cards of a guest."""

    def __init__(self, hv: LocalHypervisor, guest: Domain, store: Store) -> None:
        self.hv, self.guest, self.store = hv, guest, store
        self.ranks: dict[int, int] = {}
        self.kernels: set[int] = set()
        self.cards = Cards(store, lambda _path: self.ownership.changed())
        self.ownership = Ownership(
            self.cards, lambda uid: self.ranks.get(uid, 0), self.kernels.__contains__
        )

    def switch(self, **ranks: int) -> None:
        """Have users come to the seat, or leave it."""
        self.ranks = {int(uid.removeprefix("user")): rank for uid, rank in ranks.items()}
        self.ownership.reconsider()

    async def has_it(self, asker: Asker) -> None:
        """Wait, as a frontend does, until it has the card."""
        while not self.ownership.ask(asker, 0):
            await asker.told()


@pytest_asyncio.fixture
async def seat() -> AsyncIterator[Seat]:
    async with LocalHypervisor() as hv:
        guest = await hv.create("guest", vsnd=CARDS, wait=False)
        store = await Store.open(Hypervisor(str(guest.socket)))
        seat = Seat(hv, guest, store)
        await seat.cards.start()
        yield seat
        await seat.ownership.finish()
        store.close()


async def test_the_user_at_the_seat_takes_the_card(seat: Seat) -> None:
    seat.ranks = {1001: 2}
    away, at_seat = Asker(1000), Asker(1001)
    assert seat.ownership.ask(away, 0)
    assert not seat.ownership.ask(at_seat, 0)
    await at_seat.told()
    assert seat.ownership.ask(at_seat, 0)
    await away.told()
    assert not seat.ownership.ask(away, 0)


async def test_users_of_the_same_rank_do_not_take_it_from_each_other(seat: Seat) -> None:
    seat.ranks = {1000: 2, 1001: 2}
    first, second = Asker(1000), Asker(1001)
    assert seat.ownership.ask(first, 0)
    assert not seat.ownership.ask(second, 0)
    assert seat.ownership.owner(0) is first


async def test_when_the_seat_is_switched_the_card_goes_along(seat: Seat) -> None:
    seat.switch(user1000=2)
    first, second = Asker(1000), Asker(1001)
    assert seat.ownership.ask(first, 0)
    assert not seat.ownership.ask(second, 0)
    for _ in range(3):
        seat.switch(user1001=2)
        await seat.has_it(second)
        assert not seat.ownership.ask(first, 0)
        seat.switch(user1000=2)
        await seat.has_it(first)
        assert not seat.ownership.ask(second, 0)


async def test_nobody_loses_a_card_that_nobody_wants(seat: Seat) -> None:
    seat.switch(user1000=2)
    owner = Asker(1000)
    assert seat.ownership.ask(owner, 0)
    seat.switch(user1001=2)
    assert seat.ownership.owner(0) is owner


async def test_the_highest_rank_is_told_first(seat: Seat) -> None:
    seat.ranks = {1001: 1, 1002: 2}
    told: list[int] = []

    class Told(Asker):
        def fire(self, path: str) -> None:
            told.append(self.uid)
            super().fire(path)

    owner, others = Told(1002), [Told(1000), Told(1001), Told(1002)]
    assert seat.ownership.ask(owner, 0)
    for other in others:
        assert not seat.ownership.ask(other, 0)
    seat.ownership.end(owner)
    await others[0].told()
    assert told == [1002, 1001, 1000]


async def test_the_card_is_closed_before_it_goes_to_another(seat: Seat) -> None:
    seat.ranks = {1001: 2}
    away, at_seat = Asker(1000), Asker(1001)
    assert seat.ownership.ask(away, 0)
    await seat.cards.write_state(0, "4")
    assert not seat.ownership.ask(at_seat, 0)
    await at_seat.told()
    assert await seat.cards.state(0) == "6"
    assert seat.ownership.ask(at_seat, 0)


async def test_the_kernels_card_is_nobodys(seat: Seat, caplog: pytest.LogCaptureFixture) -> None:
    seat.kernels.add(0)
    asker = Asker(1000)
    assert not seat.ownership.ask(asker, 0)
    assert "snd_xen_front does: unload that" in caplog.text
    seat.kernels.clear()
    assert seat.ownership.ask(asker, 0)


# Event channels that may be lost: cards.py's generation.


async def test_a_restored_domain_is_noticed(seat: Seat, tmp_path: Path) -> None:
    await seat.cards.look()
    before = seat.cards.generation
    await seat.hv.save(seat.guest, tmp_path / "saved")
    await seat.hv.restore(tmp_path / "saved", wait=False)
    await seat.cards.look()
    assert seat.cards.generation > before


async def test_a_device_made_anew_is_noticed(seat: Seat) -> None:
    await seat.cards.write_state(0, "3")
    before = seat.cards.generation
    await seat.cards.look()
    assert seat.cards.generation == before
    await seat.store.write("device/vsnd/0/state", "1")
    await seat.cards.look()
    assert seat.cards.generation == before + 1
    await seat.cards.look()
    assert seat.cards.generation == before + 1


async def test_a_state_being_written_is_no_sign(seat: Seat) -> None:
    before = seat.cards.generation
    for _ in range(20):
        writes = [seat.cards.write_state(0, state) for state in "34561"]
        await asyncio.gather(*writes, *(seat.cards.look() for _ in range(5)))
    assert seat.cards.generation == before
