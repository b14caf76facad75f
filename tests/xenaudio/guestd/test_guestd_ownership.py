# SPDX-License-Identifier: LGPL-2.1-or-later
"""A card belongs to one program at a time: who has it, who waits, and how it changes hands."""

from __future__ import annotations

import pytest
from guestservice import Client, GuestService, Refused

CARD = "device/vsnd/0"


def frontend(guest: GuestService) -> Client:
    """A client that watches the card, as a frontend does before anything else."""
    client = guest.client()
    client.watch(CARD)
    client.await_event(CARD)
    client.events.clear()
    return client


def asks(client: Client) -> bool:
    """Whether it is given the card."""
    try:
        client.read(f"{CARD}/state")
    except Refused as refused:
        if refused.args[0] != "EBUSY":
            raise
        return False
    return True


def test_who_comes_first_has_the_card_and_others_wait(guest: GuestService) -> None:
    first, second = frontend(guest), frontend(guest)
    assert asks(first)
    assert not asks(second)
    assert asks(first)


def test_who_waits_is_told_when_the_owner_has_gone(guest: GuestService) -> None:
    first, second = frontend(guest), frontend(guest)
    assert asks(first)
    assert not asks(second)
    assert second.quiet()
    first.close()
    second.await_event(CARD)
    assert asks(second)


def test_who_waits_no_more_is_not_told(guest: GuestService) -> None:
    first, second, third = frontend(guest), frontend(guest), frontend(guest)
    assert asks(first)
    assert not asks(second)
    assert not asks(third)
    second.close()
    first.close()
    third.await_event(CARD)
    assert asks(third)


def test_who_only_looks_has_nothing(guest: GuestService) -> None:
    # Such as module-xenpv-detect, or a person with xenstore-ls.
    looker = guest.client()
    looker.watch("device/vsnd")
    assert looker.read(f"{CARD}/state") == "1"
    first = frontend(guest)
    assert asks(first)
    first.write(f"{CARD}/state", "3")
    assert looker.read(f"{CARD}/state") == "3"


def test_only_the_owner_writes(guest: GuestService) -> None:
    first, second = frontend(guest), guest.client()
    assert asks(first)
    for node, value in (("state", "6"), ("version", "2"), ("feature-renegotiate", "1")):
        with pytest.raises(Refused, match="EBUSY"):
            second.write(f"{CARD}/{node}", value)
    with pytest.raises(Refused, match="EBUSY"):
        second.write(f"{CARD}/version", "2", second.begin())


def test_who_writes_has_the_card(guest: GuestService) -> None:
    first, second = guest.client(), frontend(guest)
    first.write(f"{CARD}/version", "2")
    assert not asks(second)


def test_each_card_has_its_own_owner(guest: GuestService) -> None:
    first, second = frontend(guest), guest.client()
    assert asks(first)
    second.watch("device/vsnd/1")
    assert second.read("device/vsnd/1/state") == "1"
    second.write("device/vsnd/1/version", "2")
    with pytest.raises(Refused, match="EBUSY"):
        first.write("device/vsnd/1/version", "2")


def test_a_card_belongs_to_the_connection_not_to_the_client(guest: GuestService) -> None:
    client = guest.client()
    store = client.store()
    store.watch(CARD)
    assert asks(store)
    second = frontend(guest)
    assert not asks(second)
    store.close()
    second.await_event(CARD)
    assert asks(second)


def test_a_transaction_of_one_who_lost_the_card_is_refused(guest: GuestService) -> None:
    first, second = guest.client(), guest.client()
    early = first.begin()
    first.write(f"{CARD}/version", "2", early)
    late = second.begin()
    with pytest.raises(Refused, match="EBUSY"):
        second.write(f"{CARD}/version", "1", late)
    first.close()
    while True:
        try:
            second.write(f"{CARD}/version", "1", late)
            break
        except Refused:
            continue
    second.commit(late)
    assert second.read(f"{CARD}/version") == "1"


# How a card is closed. The test is the backend, octet by octet.


def connect(guest: GuestService, client: Client) -> None:
    """Have the client's frontend and a backend be in state 4."""
    assert asks(client)
    dom0 = guest.dom0()
    dom0.write(guest.backend() + "/state", "2")
    client.write(f"{CARD}/state", "3")
    dom0.write(guest.backend() + "/state", "4")
    client.write(f"{CARD}/state", "4")


def await_state(guest: GuestService, state: str) -> None:
    """Wait, in domain 0, for the frontend's state."""
    dom0, path = guest.dom0(), f"/local/domain/{guest.guest.domid}/{CARD}/state"
    dom0.watch(path)
    while dom0.read(path) != state:
        dom0.events.clear()
        dom0.await_event(path)


def test_a_dead_owners_card_is_closed_before_the_next_has_it(guest: GuestService) -> None:
    first, second = frontend(guest), frontend(guest)
    connect(guest, first)
    first.grant(count=2)
    first.handle()
    assert not asks(second)
    first.close()
    await_state(guest, "5")
    # The backend still has the pages.
    assert guest.granted() == 2
    assert not asks(second)
    guest.dom0().write(guest.backend() + "/state", "5")
    await_state(guest, "6")
    assert not asks(second)
    guest.dom0().write(guest.backend() + "/state", "6")
    while not asks(second):
        second.events.clear()
        second.await_event(CARD)
    assert second.read(f"{CARD}/state") == "6"
    assert (guest.granted(), guest.bound()) == (0, 0)


def test_a_backend_that_does_nothing_is_not_waited_for(guest: GuestService) -> None:
    first, second = frontend(guest), frontend(guest)
    connect(guest, first)
    assert not asks(second)
    first.close()
    await_state(guest, "6")
    second.events.clear()
    while not asks(second):
        second.events.clear()
        second.await_event(CARD)


def test_an_owner_that_closed_its_card_leaves_nothing_to_close(guest: GuestService) -> None:
    first = frontend(guest)
    connect(guest, first)
    first.write(f"{CARD}/state", "5")
    guest.dom0().write(guest.backend() + "/state", "5")
    first.write(f"{CARD}/state", "6")
    second = frontend(guest)
    assert not asks(second)
    first.close()
    second.await_event(CARD)
    assert asks(second)
    assert second.read(f"{CARD}/state") == "6"
    assert guest.dom0().read(guest.backend() + "/state") == "5"


def test_a_card_that_was_made_anew_is_left_as_it_is(guest: GuestService) -> None:
    first, second = frontend(guest), frontend(guest)
    connect(guest, first)
    assert not asks(second)
    # Detached and attached, or the guest was restored: a toolstack makes it in state 1.
    guest.root().write(f"{CARD}/state", "1")
    first.close()
    while not asks(second):
        second.events.clear()
        second.await_event(CARD)
    assert second.read(f"{CARD}/state") == "1"


def test_a_detached_card_of_a_dead_owner_stays_away(guest: GuestService) -> None:
    first = frontend(guest)
    connect(guest, first)
    guest.root().ask(13, f"{CARD}\0".encode())
    first.close()
    with guest.client() as other:
        while guest.bound() or guest.call(guest.service._ownership.owner, 0):
            other.directory("device/vsnd")
        assert other.directory("device/vsnd") == ["1"]


def test_when_the_service_stops_cards_are_closed(guest: GuestService) -> None:
    client = frontend(guest)
    connect(guest, client)
    guest.stop()
    assert client.ended()
    assert guest.root().read(f"{CARD}/state") == "6"
