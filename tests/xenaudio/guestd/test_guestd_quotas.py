# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a user may have of the guest service at once, and what happens beyond that."""

from __future__ import annotations

import os
import select
from contextlib import suppress

import pytest
from guestservice import Client, GuestService, Refused

from xenaudio.core.xswire import Type
from xenaudio.guestd.connection import TRANSACTION_WRITES
from xenaudio.guestd.limits import Limit
from xenaudio.guestd.wire import GRANT_MAX, Request


@pytest.fixture
def client(guest: GuestService) -> Client:
    return guest.client()


def test_connections_of_a_user_are_limited(guest: GuestService) -> None:
    clients = [guest.client() for _ in range(Limit.CONNECTIONS.most)]
    for client in clients:
        assert client.read("device/vsnd/0/state") == "1"
    assert guest.client().ended()
    with pytest.raises(Refused, match="EBUSY"):
        clients[0].store()
    clients[-1].close()
    # Its end is noticed before what a connection asks later.
    clients[0].read("device/vsnd/0/state")
    assert clients[0].store().read("device/vsnd/0/state") == "1"


def test_a_clients_further_connections_count(guest: GuestService, client: Client) -> None:
    stores = [client.store() for _ in range(Limit.CONNECTIONS.most - 1)]
    with pytest.raises(Refused, match="EBUSY"):
        client.store()
    assert guest.client().ended()
    stores.pop().close()
    client.read("device/vsnd/0/state")
    stores.append(client.store())
    for store in stores:
        store.close()


def test_watches_are_limited(guest: GuestService, client: Client) -> None:
    for number in range(Limit.WATCHES.most):
        client.watch("device/vsnd/0/state", str(number))
    with pytest.raises(Refused, match="E2BIG"):
        client.watch("device/vsnd/0/state", "more")
    with pytest.raises(Refused, match="E2BIG"):
        guest.client().watch("device/vsnd/0/state")
    client.unwatch("device/vsnd/0/state", "0")
    guest.client().watch("device/vsnd/0/state")


def test_transactions_are_limited(guest: GuestService, client: Client) -> None:
    open_ones = [client.begin() for _ in range(Limit.TRANSACTIONS.most)]
    for other in (client, guest.client()):
        with pytest.raises(Refused, match="ENOSPC"):
            other.begin()
    client.commit(open_ones.pop())
    guest.client().begin()


def test_a_client_with_transactions_holds_none_in_the_store(
    guest: GuestService, client: Client
) -> None:
    for _ in range(Limit.TRANSACTIONS.most):
        client.write("device/vsnd/0/version", "2", client.begin())
    root = guest.root()
    # As many as a domain may have.
    assert len({root.begin() for _ in range(10)}) == 10


def test_the_writes_of_a_transaction_are_limited(client: Client) -> None:
    tx = client.begin()
    for _ in range(TRANSACTION_WRITES):
        client.write("device/vsnd/0/version", "2", tx)
    with pytest.raises(Refused, match="ENOSPC"):
        client.write("device/vsnd/0/version", "2", tx)
    client.commit(tx)
    client.write("device/vsnd/0/version", "2", client.begin())


def test_the_writes_of_all_transactions_are_limited(client: Client) -> None:
    left = Limit.WRITES.most
    while left:
        tx = client.begin()
        for _ in range(min(left, TRANSACTION_WRITES)):
            client.write("device/vsnd/0/version", "2", tx)
            left -= 1
    with pytest.raises(Refused, match="ENOSPC"):
        client.write("device/vsnd/0/version", "2", client.begin())


def test_granted_pages_are_limited(guest: GuestService, client: Client) -> None:
    numbers = []
    for _ in range(Limit.PAGES.most // GRANT_MAX):
        numbers.append(client.grant(count=GRANT_MAX)[0])
    rest = Limit.PAGES.most % GRANT_MAX
    for other in (client, guest.client()):
        with pytest.raises(Refused, match="ENOSPC"):
            other.grant(count=rest + 1)
    client.grant(count=rest)
    assert guest.granted() == Limit.PAGES.most
    client.end_grant(numbers.pop())
    guest.client().grant(count=GRANT_MAX)


def test_grants_are_limited(guest: GuestService, client: Client) -> None:
    first, _ = client.grant()
    for _ in range(Limit.GRANTS.most - 1):
        client.grant()
    for other in (client, guest.client()):
        with pytest.raises(Refused, match="ENOSPC"):
            other.grant()
    client.end_grant(first)
    client.grant()


def test_event_channel_handles_are_limited(guest: GuestService, client: Client) -> None:
    first, _ = client.handle()
    for _ in range(Limit.HANDLES.most - 1):
        client.handle()
    for other in (client, guest.client()):
        with pytest.raises(Refused, match="ENOSPC"):
            other.handle()
    client.end_handle(first)
    client.handle()


def test_a_grant_that_fails_does_not_count(guest: GuestService, client: Client) -> None:
    for _ in range(Limit.GRANTS.most + 1):
        with pytest.raises(Refused, match="EACCES"):
            client.grant(remote=5)
    client.grant()
    assert guest.granted() == 1


def test_who_does_not_read_is_not_read_from(guest: GuestService, client: Client) -> None:
    request = b"device/vsnd/0/state\0"
    client.sock.settimeout(0.5)
    # Until the service has as many answers as it keeps, and the sockets are full.
    with suppress(TimeoutError):
        for _ in range(1_000_000):
            client.send(Type.READ, request)
    used = guest.call(guest.service._shared.limits.used, client_uid(), Limit.OCTETS)
    assert used < 128 * 1024
    assert guest.client().read("device/vsnd/0/state") == "1"


def client_uid() -> int:
    """The user that all clients here are."""
    return os.getuid()


def test_who_does_not_read_its_events_is_cut_off(guest: GuestService) -> None:
    lazy = [guest.client() for _ in range(2)]
    for number, client in enumerate(lazy):
        # Long tokens, so that few events are many octets.
        for i in range(Limit.WATCHES.most // 2):
            client.watch("device/vsnd/0", f"{number}-{i}-" + 3000 * "x")
        client.events.clear()
    root = guest.root()
    attempt = 0
    while all(cut_off(client) is False for client in lazy):
        attempt += 1
        # Another path each time: the same event is not kept twice.
        root.write(f"device/vsnd/0/new{attempt}", "1")
        assert attempt < 1000
    assert guest.client().read("device/vsnd/0/state") == "1"


def cut_off(client: Client) -> bool:
    """Whether the connection was ended, without reading what is in it."""
    poll = select.poll()
    poll.register(client.sock, select.POLLRDHUP)
    return any(event & (select.POLLRDHUP | select.POLLHUP) for _, event in poll.poll(10))


def test_nothing_counts_that_has_ended(guest: GuestService, client: Client) -> None:
    with guest.client() as other:
        store = other.store()
        store.watch("device/vsnd/0")
        store.write("device/vsnd/0/version", "2", store.begin())
        other.grant(count=5)
        other.handle()
        store.close()

    def counted() -> dict[str, int]:
        uses = {
            limit.what: guest.service._shared.limits.used(client_uid(), limit) for limit in Limit
        }
        return {what: count for what, count in uses.items() if count}

    # Itself.
    while guest.call(counted) != {Limit.CONNECTIONS.what: 1}:
        client.read("device/vsnd/0/state")


def test_a_store_request_has_no_payload(client: Client) -> None:
    with pytest.raises(Refused, match="EINVAL"):
        client.ask(Request.STORE, b"\0")
