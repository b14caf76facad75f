# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the guest service lets through to XenStore, and what it refuses."""

from __future__ import annotations

import pytest
from guestservice import Client, GuestService, Refused

from xenaudio.core.xswire import ABS_PATH_MAX, HEADER, PAYLOAD_MAX, Type
from xenaudio.guestd.wire import EVTCHN, GRANT, Request


@pytest.fixture
def client(guest: GuestService) -> Client:
    return guest.client()


def refused(client: Client, kind: int, payload: str | bytes, tx: int = 0) -> str:
    """The error's name."""
    with pytest.raises(Refused) as caught:
        client.ask(kind, payload if isinstance(payload, bytes) else payload.encode(), tx)
    return str(caught.value.args[0])


# Reading.


def test_the_cards_can_be_listed_and_read(guest: GuestService, client: Client) -> None:
    assert sorted(client.directory("device/vsnd")) == ["0", "1"]
    assert client.read("device/vsnd/0/0/0/unique-id") == "out"
    assert client.read("device/vsnd/1/state") == "1"
    assert client.read("device/vsnd/0/backend") == guest.backend()


def test_an_absolute_path_of_ones_own_is_the_same(guest: GuestService, client: Client) -> None:
    assert client.read(f"/local/domain/{guest.guest.domid}/device/vsnd/0/short-name") == "Main"


def test_the_backends_of_the_cards_can_be_read(guest: GuestService, client: Client) -> None:
    assert "state" in client.directory(guest.backend())
    assert client.read(guest.backend(1) + "/state") == "1"


def test_what_is_not_there_is_not_there(client: Client) -> None:
    assert refused(client, Type.READ, "device/vsnd/7/state\0") == "ENOENT"
    assert refused(client, Type.READ, "device/vsnd/0/nothing\0") == "ENOENT"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "device",
        "domid",
        "name",
        "vm",
        "memory/target",
        "console/tty",
        "device/vbd/51712/ring-ref",
        "device/vsnd-more",
        "device/vsnd/00",
        "device/vsnd/0x0/state",
        "device/vsnd/65536/state",
        "/device/vsnd",
        "/local/domain/0/device/vsnd",
        "/local/domain/0/name",
        "/local/domain/0/backend",
        "/local/domain/0/backend/vsnd",
        "/local/domain/0/backend/vbd/{own}/51712/params",
        "/local/domain/0/backend/vsnd/{own}",
        "/local/domain/0/backend/vsnd/{other}/0/state",
        "/local/domain/0/backend/vsnd/{own}/7/state",
        "/local/domain/3/backend/vsnd/{own}/0/state",
        "/local/domain/{other}/device/vsnd/0/state",
        "/libxl/{own}/device/vsnd/0",
        "/vm",
        "@releaseDomain",
    ],
)
@pytest.mark.parametrize("kind", [Type.READ, Type.DIRECTORY, Type.WATCH])
def test_nothing_else_can_be_read_listed_or_watched(
    guest: GuestService, client: Client, kind: Type, path: str
) -> None:
    path = path.format(own=guest.guest.domid, other=guest.guest.domid + 1)
    token = "t\0" if kind == Type.WATCH else ""
    assert refused(client, kind, f"{path}\0{token}") == "EACCES"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0",
        b"device/vsnd",
        b"device/vsnd\0\0",
        b"device/vsnd\0more\0",
        b"device/vsnd/\0",
        b"device//vsnd\0",
        b"device/vsnd/../vbd\0",
        b"device/vsnd/0/st ate\0",
        b"device/vsnd/0/\xff\0",
        b"device/vsnd/0/\n\0",
        b"/" + ABS_PATH_MAX * b"a" + b"\0",
    ],
)
@pytest.mark.parametrize("kind", [Type.READ, Type.DIRECTORY])
def test_what_is_no_path_is_invalid(client: Client, kind: Type, payload: bytes) -> None:
    assert refused(client, kind, payload) == "EINVAL"


def test_a_device_that_names_another_backend_has_none(guest: GuestService, client: Client) -> None:
    # As its root may write it, or a program that root had run by mistake.
    guest.root().write("device/vsnd/0/backend", "/local/domain/0/backend/vbd/1/51712")
    assert refused(client, Type.READ, guest.backend() + "/state\0") == "EACCES"
    assert refused(client, Type.READ, "/local/domain/0/backend/vbd/1/51712/params\0") == "EACCES"
    assert client.read(guest.backend(1) + "/state") == "1"


def test_an_attached_card_can_be_read_at_once(guest: GuestService, client: Client) -> None:
    guest.run(guest.hv.attach(guest.guest, "[['CARD', 'PCM', 'STREAM, type=p']]", wait=False))
    assert client.read(client.read("device/vsnd/2/backend") + "/state") == "1"


# Writing.


def test_a_frontend_can_write_what_a_frontend_writes(guest: GuestService, client: Client) -> None:
    _, (ring, events) = client.grant(count=2)
    _, (port, event_port) = client.handle()
    written = {
        "version": "2",
        "feature-renegotiate": "1",
        "0/0/ring-ref": str(ring),
        "0/0/event-channel": str(port),
        "0/0/evt-ring-ref": str(events),
        "0/0/evt-event-channel": str(event_port),
        "state": "3",
    }
    for node, value in written.items():
        client.write(f"device/vsnd/0/{node}", value)
    dom0 = guest.dom0()
    for node, value in written.items():
        assert dom0.read(f"/local/domain/{guest.guest.domid}/device/vsnd/0/{node}") == value


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        ("device/vsnd/0", "", "EACCES"),
        ("device/vsnd", "", "EACCES"),
        ("device/vsnd/0/backend", "/local/domain/0/backend/vbd/1/1", "EACCES"),
        ("device/vsnd/0/backend-id", "5", "EACCES"),
        ("device/vsnd/0/short-name", "x", "EACCES"),
        ("device/vsnd/0/sample-rates", "8000", "EACCES"),
        ("device/vsnd/0/0/0/type", "c", "EACCES"),
        ("device/vsnd/0/0/0/unique-id", "x", "EACCES"),
        ("device/vsnd/0/0/0", "", "EACCES"),
        ("device/vsnd/0/0/0/ring-ref/more", "1", "EACCES"),
        ("device/vsnd/0/0/2/ring-ref", "{ref}", "EACCES"),
        ("device/vsnd/0/7/0/event-channel", "{port}", "EACCES"),
        ("device/vsnd/0/new", "1", "EACCES"),
        ("device/vsnd/7/state", "3", "ENOENT"),
        ("device/vbd/0/state", "3", "EACCES"),
        ("data/x", "1", "EACCES"),
        ("control/shutdown", "", "EACCES"),
        ("device/vsnd/0/state", "2", "EINVAL"),
        ("device/vsnd/0/state", "44", "EINVAL"),
        ("device/vsnd/0/state", "", "EINVAL"),
        ("device/vsnd/0/state", "3\0", "EINVAL"),
        ("device/vsnd/0/version", "3", "EINVAL"),
        ("device/vsnd/0/feature-x", "yes", "EINVAL"),
        ("device/vsnd/0/0/0/ring-ref", "-1", "EINVAL"),
        ("device/vsnd/0/0/0/ring-ref", "4294967296", "EINVAL"),
        ("device/vsnd/0/0/0/ring-ref", "08", "EINVAL"),
        ("device/vsnd/0/0/0/event-channel", "1 ", "EINVAL"),
    ],
)
def test_nothing_else_can_be_written(
    guest: GuestService, client: Client, path: str, value: str, error: str
) -> None:
    _, (ref,) = client.grant()
    _, (port,) = client.handle(count=1)
    value = value.format(ref=ref, port=port)
    before = _tree(guest.dom0(), f"/local/domain/{guest.guest.domid}")
    assert refused(client, Type.WRITE, f"{path}\0{value}") == error
    assert _tree(guest.dom0(), f"/local/domain/{guest.guest.domid}") == before


def test_a_backends_node_cannot_be_written(guest: GuestService, client: Client) -> None:
    assert refused(client, Type.WRITE, guest.backend() + "/state\x006") == "EACCES"
    assert refused(client, Type.WRITE, guest.backend() + "/state\x004") == "EACCES"


def _tree(client: Client, path: str) -> dict[str, str]:
    nodes = {path: client.read(path)}
    for name in client.directory(path):
        nodes |= _tree(client, f"{path}/{name}")
    return nodes


def test_only_grants_that_the_service_made_for_the_client_can_be_named(
    guest: GuestService, client: Client
) -> None:
    _, (others,) = guest.client().grant()
    number, (own,) = client.grant()
    node = "device/vsnd/0/0/0/ring-ref"
    for wrong in (others, own + 100, 0):
        assert refused(client, Type.WRITE, f"{node}\0{wrong}") == "EACCES"
    client.write(node, str(own))
    client.end_grant(number)
    assert refused(client, Type.WRITE, f"{node}\0{own}") == "EACCES"


def test_only_event_channels_that_the_service_made_for_the_client_can_be_named(
    guest: GuestService, client: Client
) -> None:
    _, (others,) = guest.client().handle(count=1)
    number, (own, also) = client.handle()
    node = "device/vsnd/0/0/0/event-channel"
    for wrong in (others, own + 100, 0):
        assert refused(client, Type.WRITE, f"{node}\0{wrong}") == "EACCES"
    client.write(node, str(own))
    client.write(node, str(also))
    client.end_handle(number)
    assert refused(client, Type.WRITE, f"{node}\0{own}") == "EACCES"


# The rest of the protocol.


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (Type.MKDIR, b"device/vsnd/2\0"),
        (Type.MKDIR, b"device/vsnd/0/0/0/ring-ref\0"),
        (Type.RM, b"device/vsnd/0\0"),
        (Type.RM, b"device/vsnd/0/0/0/ring-ref\0"),
        (Type.SET_PERMS, b"device/vsnd/0/state\0b0\0"),
        (Type.GET_PERMS, b"device/vsnd/0/state\0"),
        (Type.GET_DOMAIN_PATH, b"0\0"),
        (Type.IS_DOMAIN_INTRODUCED, b"0\0"),
        (Type.INTRODUCE, b"5\x001\x002\0"),
        (Type.RELEASE, b"1\0"),
        (Type.RESUME, b"1\0"),
        (Type.SET_TARGET, b"1\x002\0"),
        (Type.CONTROL, b"help\0"),
        (Type.RESET_WATCHES, b"\0"),
    ],
)
def test_other_requests_are_refused(client: Client, kind: Type, payload: bytes) -> None:
    assert refused(client, kind, payload) == "EACCES"


@pytest.mark.parametrize("kind", [Type.DIRECTORY_PART, 15, 16, 20, 23, 999, 0x1001, 0x1011, 0x2006])
def test_what_is_no_request_is_not_known(client: Client, kind: int) -> None:
    # Among them the stand-in's own, with which pages could be mapped and ports bound.
    assert refused(client, kind, b"device/vsnd\0") == "ENOSYS"


def test_a_refusal_is_not_the_end(client: Client) -> None:
    assert refused(client, Type.READ, "name\0") == "EACCES"
    assert client.read("device/vsnd/0/state") == "1"


def test_too_long_a_message_is_the_end(guest: GuestService, client: Client) -> None:
    client.sock.sendall(HEADER.pack(Type.READ, 1, 0, PAYLOAD_MAX + 1))
    assert client.ended()
    assert guest.client().read("device/vsnd/0/state") == "1"


def test_a_message_may_come_octet_by_octet(client: Client) -> None:
    payload = b"device/vsnd/0/state\0"
    for octet in HEADER.pack(Type.READ, 1, 0, len(payload)) + payload:
        client.sock.send(bytes([octet]))
    assert client.receive() == (Type.READ, 1, b"1")


def test_requests_are_answered_in_their_order(client: Client) -> None:
    for _ in range(100):
        client.send(Type.READ, b"device/vsnd/0/state\0")
    assert [client.receive()[1] for _ in range(100)] == list(range(1, 101))


# Transactions.


def test_a_transaction_is_written_when_it_is_committed(guest: GuestService, client: Client) -> None:
    tx = client.begin()
    client.write("device/vsnd/0/version", "2", tx)
    assert client.read("device/vsnd/0/version", tx) == "2"
    assert refused(guest.client(), Type.READ, "device/vsnd/0/version\0") == "ENOENT"
    client.commit(tx)
    assert guest.client().read("device/vsnd/0/version") == "2"


def test_an_aborted_transaction_is_not(guest: GuestService, client: Client) -> None:
    tx = client.begin()
    client.write("device/vsnd/0/version", "2", tx)
    client.commit(tx, wanted=False)
    assert refused(client, Type.READ, "device/vsnd/0/version\0") == "ENOENT"


def test_a_transaction_writes_no_state(client: Client) -> None:
    assert refused(client, Type.WRITE, "device/vsnd/0/state\x003", client.begin()) == "EINVAL"


def test_a_transaction_is_its_connections_own(guest: GuestService, client: Client) -> None:
    tx = client.begin()
    other = guest.client()
    assert refused(other, Type.TRANSACTION_END, b"T\0", tx) == "ENOENT"
    assert refused(other, Type.READ, "device/vsnd/0/state\0", tx) == "ENOENT"
    assert refused(client, Type.TRANSACTION_START, b"\0", tx) == "EBUSY"
    assert refused(client, Type.TRANSACTION_END, b"maybe\0", tx) == "EINVAL"
    client.commit(tx)
    assert refused(client, Type.TRANSACTION_END, b"T\0", tx) == "ENOENT"


# Watches.


def test_a_watch_fires_at_once_and_at_changes_below(guest: GuestService, client: Client) -> None:
    client.watch("device/vsnd/0")
    client.await_event("device/vsnd/0")
    guest.root().write("device/vsnd/0/0/0/new", "1")
    client.await_event("device/vsnd/0/0/0/new")


def test_a_backends_state_can_be_watched(guest: GuestService, client: Client) -> None:
    client.watch(guest.backend() + "/state")
    client.await_event(guest.backend() + "/state")
    client.events.clear()
    guest.dom0().write(guest.backend() + "/state", "2")
    client.await_event(guest.backend() + "/state")


def test_a_watch_names_paths_as_it_was_set(guest: GuestService, client: Client) -> None:
    own = f"/local/domain/{guest.guest.domid}/device/vsnd/0"
    client.watch(own)
    client.await_event(own)
    guest.root().write("device/vsnd/0/new", "1")
    client.await_event(own + "/new")


def test_a_watch_hears_of_nothing_else(guest: GuestService, client: Client) -> None:
    client.watch("device/vsnd/1")
    client.await_event("device/vsnd/1")
    client.events.clear()
    root = guest.root()
    root.write("device/vsnd/0/new", "1")
    root.write("device/vsnd/1/new", "1")
    client.await_event("device/vsnd/1/new")
    assert client.events == [("device/vsnd/1/new", "t")]


def test_a_watch_hears_of_a_card_that_goes(guest: GuestService, client: Client) -> None:
    client.watch("device/vsnd/0/state")
    client.await_event("device/vsnd/0/state")
    client.events.clear()
    guest.root().ask(Type.RM, b"device/vsnd/0\0")
    client.await_event("device/vsnd/0/state")


def test_an_ended_watch_is_silent(guest: GuestService, client: Client) -> None:
    client.watch("device/vsnd/0")
    client.await_event("device/vsnd/0")
    client.unwatch("device/vsnd/0")
    guest.root().write("device/vsnd/0/new", "1")
    assert client.read("device/vsnd/0/new") == "1"
    assert client.quiet()
    assert refused(client, Type.UNWATCH, "device/vsnd/0\0t\0") == "ENOENT"


def test_the_same_watch_twice_is_refused(client: Client) -> None:
    client.watch("device/vsnd/0", "a")
    client.watch("device/vsnd/0", "b")
    assert refused(client, Type.WATCH, "device/vsnd/0\0a\0") == "EEXIST"


# Grants and event channels.


@pytest.mark.parametrize("remote", [1, 5, 0x7FF0, 0xFFFF])
def test_pages_are_granted_to_backends_only(client: Client, remote: int) -> None:
    with pytest.raises(Refused, match="EACCES"):
        client.grant(remote)
    with pytest.raises(Refused, match="EACCES"):
        client.handle(remote)


@pytest.mark.parametrize("count", [0, 1001, 0xFFFFFFFF])
def test_a_number_of_pages_is_within_its_bounds(client: Client, count: int) -> None:
    assert refused(client, Request.GRANT, GRANT.pack(0, 0, count)) == "EINVAL"


@pytest.mark.parametrize("count", [0, 3, 0xFFFFFFFF])
def test_a_number_of_ports_is_within_its_bounds(client: Client, count: int) -> None:
    assert refused(client, Request.EVTCHN, EVTCHN.pack(0, 0, count)) == "EINVAL"


@pytest.mark.parametrize("kind", [0x2002, 0x2003, 0x2004, 0x2005])
@pytest.mark.parametrize("payload", [b"", b"\0", 3 * b"\0", 64 * b"\0"])
def test_a_request_of_another_size_is_invalid(client: Client, kind: int, payload: bytes) -> None:
    assert refused(client, kind, payload) == "EINVAL"


def test_what_a_client_was_not_given_it_cannot_end(guest: GuestService, client: Client) -> None:
    other = guest.client()
    pages, _ = other.grant()
    handle, _ = other.handle()
    before = guest.granted(), guest.bound()
    for end, number in ((client.end_grant, pages), (client.end_handle, handle)):
        with pytest.raises(Refused, match="ENOENT"):
            end(number)
    assert (guest.granted(), guest.bound()) == before


def test_all_that_a_client_was_given_ends_with_it(guest: GuestService, client: Client) -> None:
    store = client.store()
    client.grant(count=3)
    client.handle()
    assert (guest.granted(), guest.bound()) == (3, 2)
    client.close()
    assert store.ended()
    store.close()
    with guest.client() as other:
        # Served when what came before it was.
        while guest.granted() or guest.bound():
            other.read("device/vsnd/0/state")
