# SPDX-License-Identifier: LGPL-2.1-or-later
"""XenStore's requests on the wire: errors, watches, transactions, quotas, misbehaving clients."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from xenaudio.core.xswire import PAYLOAD_MAX, Type


@pytest.fixture
def guest(machine: Any) -> Any:
    return machine.create("guest")


@pytest.fixture
def dom0(machine: Any) -> Any:
    return machine.connect()


# Reading and writing.


def test_values_are_octets(dom0: Any) -> None:
    value = bytes(range(256))
    dom0.ask(Type.WRITE, b"/x\0" + value)
    assert dom0.ask(Type.READ, b"/x\0") == value


def test_write_makes_the_parents_that_are_missing(dom0: Any) -> None:
    dom0.write("/a/b/c", "1")
    assert dom0.directory("/a") == ["b"]
    assert dom0.read("/a/b") == ""


def test_mkdir_leaves_a_value_alone(dom0: Any) -> None:
    dom0.write("/a", "1")
    dom0.mkdir("/a")
    dom0.mkdir("/a/b")
    assert dom0.read("/a") == "1"
    assert dom0.read("/a/b") == ""


def test_rm_of_what_is_not_there(dom0: Any, refused: Any) -> None:
    dom0.mkdir("/a")
    dom0.rm("/a/b")
    with refused("ENOENT"):
        dom0.rm("/a/b/c")
    with refused("EINVAL"):
        dom0.rm("/")


def test_children_come_in_the_order_in_which_they_were_made(dom0: Any) -> None:
    for name in ("z", "a", "m"):
        dom0.mkdir(f"/d/{name}")
    dom0.write("/d/z", "again")
    assert dom0.directory("/d") == ["z", "a", "m"]


@pytest.mark.parametrize(
    "path",
    ["", "/a/", "//a", "/a//b", "/a b", "/a\x01", "/\u00e9", "/a+b", "/" + "x" * 2048, "@x"],
)
def test_a_path_that_is_none(dom0: Any, refused: Any, path: str) -> None:
    with refused("EINVAL"):
        dom0.read(path)
    with refused("EINVAL"):
        dom0.write(path, "")


def test_the_length_of_a_path_counts_from_the_domains_directory(guest: Any, dom0: Any) -> None:
    dom0.write("/local/domain/1/data/" + "x" * 2040, "1")
    assert dom0.read("/local/domain/1/data/" + "x" * 2040) == "1"


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (Type.READ, b""),
        (Type.READ, b"/tool"),
        (Type.READ, b"/tool\0x"),
        (Type.READ, b"/tool\0x\0"),
        (Type.WRITE, b"/x"),
        (Type.DIRECTORY, b"/"),
        (Type.DIRECTORY_PART, b"/\0"),
        (Type.SET_PERMS, b"/tool\0"),
        (Type.SET_PERMS, b"/tool\0x0\0"),
        (Type.SET_PERMS, b"/tool\0n\0"),
        (Type.SET_PERMS, b"@nothing\0n0\0"),
        (Type.WATCH, b"/x\0"),
        (Type.WATCH, b"/x\0a\0b\0"),
        (Type.WATCH, b"/x/\0a\0"),
        (Type.UNWATCH, b"/x"),
        (Type.GET_DOMAIN_PATH, b"1"),
        (Type.TRANSACTION_END, b"X\0"),
        (Type.INTRODUCE, b"1\0"),
    ],
)
def test_a_malformed_request(dom0: Any, refused: Any, kind: int, payload: bytes) -> None:
    with refused("EINVAL"):
        dom0.ask(kind, payload)
    assert dom0.read("/tool") == ""  # and the connection goes on


@pytest.mark.parametrize("kind", [Type.WATCH_EVENT, Type.ERROR, 20, 23, 0xFFFF, 0x1FFF, 1 << 31])
def test_an_unknown_request(dom0: Any, refused: Any, kind: int) -> None:
    with refused("ENOSYS"):
        dom0.ask(kind, b"/\0")


def test_control_is_not_had_here(machine: Any, guest: Any, dom0: Any, refused: Any) -> None:
    with refused("ENOSYS"):
        dom0.ask(Type.CONTROL, b"help\0")
    with refused("EACCES"):
        machine.connect(guest).ask(Type.CONTROL, b"help\0")


def test_a_reply_that_is_too_long(dom0: Any, refused: Any) -> None:
    for i in range(45):
        dom0.mkdir(f"/d/{i:0100}")
    with refused("E2BIG"):
        dom0.directory("/d")
    names, offset = b"", 0
    generations = set()
    while not names.endswith(b"\0\0"):
        reply = dom0.ask(Type.DIRECTORY_PART, b"/d\0%d\0" % offset)
        assert len(reply) <= PAYLOAD_MAX
        generation, _, part = reply.partition(b"\0")
        generations.add(generation)
        names += part
        offset += len(part)
    assert names[:-2].decode().split("\0") == [f"{i:0100}" for i in range(45)]
    assert len(generations) == 1


def test_who_may_not_read_the_parent_does_not_learn_what_is_there(
    machine: Any, guest: Any, dom0: Any, refused: Any
) -> None:
    dom0.write("/secret/there", "1")
    client = machine.connect(guest)
    for path in ("/secret/there", "/secret/not", "/secret/not/at/all"):
        with refused("EACCES"):
            client.read(path)
    with refused("ENOENT"):
        client.read("data/not")


def test_the_first_permission_is_everybodys(machine: Any, guest: Any, dom0: Any) -> None:
    dom0.write("/open", "1")
    dom0.chmod("/open", "b0", "n1")
    other = machine.create("other")
    machine.connect(other).write("/open", "2")
    with pytest.raises(Exception, match="EACCES"):
        machine.connect(guest).read("/open")


def test_an_owner_must_exist_and_a_guest_may_not_change_it(
    machine: Any, guest: Any, dom0: Any, refused: Any
) -> None:
    dom0.mkdir("/x")
    with refused("ENOENT"):
        dom0.chmod("/x", "n77")
    client = machine.connect(guest)
    client.mkdir("data/x")
    with refused("EPERM"):
        client.chmod("data/x", "n0")
    with refused("ENOSPC"):
        client.chmod("data/x", "n1", "r2", "r3", "r4", "r5", "r6")


def test_domains_are_introduced_by_the_toolstack_only(
    machine: Any, guest: Any, dom0: Any, refused: Any
) -> None:
    assert dom0.ask(Type.IS_DOMAIN_INTRODUCED, b"1\0") == b"T\0"
    assert dom0.ask(Type.IS_DOMAIN_INTRODUCED, b"2\0") == b"F\0"
    assert dom0.ask(Type.GET_DOMAIN_PATH, b"7\0") == b"/local/domain/7\0"
    client = machine.connect(guest)
    for kind, payload in (
        (Type.INTRODUCE, b"1\x001\x001\0"),
        (Type.RELEASE, b"1\0"),
        (Type.IS_DOMAIN_INTRODUCED, b"1\0"),
        (Type.RESUME, b"1\0"),
        (Type.SET_TARGET, b"1\x002\0"),
    ):
        with refused("EACCES"):
            client.ask(kind, payload)
    assert client.ask(Type.GET_DOMAIN_PATH, b"1\0") == b"/local/domain/1\0"


def test_release_cuts_the_domains_connections(machine: Any, guest: Any, dom0: Any) -> None:
    client = machine.connect(guest)
    client.read("name")
    assert dom0.ask(Type.RELEASE, b"1\0") == b"OK\0"
    assert client.closed_by_server()


# Watches.


def test_a_watch_fires_for_the_node_and_all_below_but_nothing_beside(dom0: Any) -> None:
    dom0.watch("/a/b", "tok")
    dom0.write("/a/b", "1")
    assert dom0.event() == ("/a/b", "tok")
    dom0.write("/a/b/c/d", "1")
    assert dom0.event() == ("/a/b/c/d", "tok")
    dom0.write("/a/bc", "1")
    dom0.write("/a", "1")
    assert dom0.no_event()
    dom0.chmod("/a/b", "r0")
    assert dom0.event() == ("/a/b", "tok")


def test_removal_of_a_parent_is_told_as_the_watched_path(dom0: Any) -> None:
    dom0.write("/a/b/c", "1")
    dom0.watch("/a/b", "tok")
    dom0.rm("/a")
    assert dom0.event() == ("/a/b", "tok")
    assert dom0.no_event()


def test_a_relative_watch_is_told_relative_paths(machine: Any, guest: Any, dom0: Any) -> None:
    client = machine.connect(guest)
    client.watch("data", "rel")
    dom0.write("/local/domain/1/data/x", "1")
    assert client.event() == ("data/x", "rel")


def test_a_watch_tells_nobody_what_they_may_not_read(machine: Any, guest: Any, dom0: Any) -> None:
    client = machine.connect(guest)
    client.watch("/", "all")
    dom0.write("/secret/x", "1")
    other = machine.create("other")
    machine.connect(other).write("data/x", "1")
    assert client.no_event()
    dom0.write("/local/domain/1/data/x", "1")
    assert client.event() == ("/local/domain/1/data/x", "all")
    dom0.chmod("/secret/x", "n0", "r1")
    assert client.event() == ("/secret/x", "all")
    dom0.chmod("/secret/x", "n0")  # the one who loses the right is told
    assert client.event() == ("/secret/x", "all")
    dom0.write("/secret/x", "2")
    assert client.no_event()


def test_a_watch_once_set_cannot_be_set_again_nor_removed_twice(dom0: Any, refused: Any) -> None:
    dom0.watch("/a", "1")
    dom0.watch("/a", "2")
    with refused("EEXIST"):
        dom0.ask(Type.WATCH, b"/a\x001\0")
    dom0.ask(Type.UNWATCH, b"/a\x001\0")
    with refused("ENOENT"):
        dom0.ask(Type.UNWATCH, b"/a\x001\0")
    dom0.write("/a", "x")
    assert dom0.event() == ("/a", "2")
    assert dom0.ask(Type.RESET_WATCHES, b"\0") == b"OK\0"
    dom0.write("/a", "y")
    assert dom0.no_event()


def test_a_watch_ends_with_its_connection(machine: Any, guest: Any) -> None:
    client = machine.connect(guest)
    for i in range(100):
        client.watch("data", str(i))
    client.close()
    again = machine.connect(guest)
    for i in range(100):
        again.watch("data", str(i))


def test_special_watches_tell_of_domains_that_come_and_go(
    machine: Any, guest: Any, dom0: Any
) -> None:
    dom0.watch("@introduceDomain", "in")
    dom0.watch("@releaseDomain", "out")
    client = machine.connect(guest)
    client.watch("@introduceDomain", "in")
    client.watch("@releaseDomain", "out")
    other = machine.create("other")
    assert dom0.event() == ("@introduceDomain", "in")
    machine.do(machine.hv.destroy, other)
    assert dom0.event() == ("@releaseDomain", "out")
    assert client.no_event()  # only who has been given the right is told
    dom0.chmod("@releaseDomain", "n0", "r1")
    machine.do(machine.hv.destroy, machine.create("third"))
    assert client.event() == ("@releaseDomain", "out")
    with pytest.raises(Exception, match="EACCES"):
        client.chmod("@introduceDomain", "r1")


# Transactions.


def test_changes_are_seen_and_told_at_the_commit_only(machine: Any, dom0: Any) -> None:
    other = machine.connect()
    other.watch("/a", "tok")
    tx = dom0.start()
    dom0.write("/a/b", "1", tx)
    dom0.write("/a/b", "2", tx)
    dom0.write("/a/c", "3", tx)
    assert dom0.read("/a/b", tx) == "2"
    assert other.no_event()
    with pytest.raises(Exception, match="ENOENT"):
        other.read("/a/b")
    dom0.end(tx)
    assert [other.event(), other.event()] == [("/a/b", "tok"), ("/a/c", "tok")]
    assert other.no_event()
    assert other.read("/a/b") == "2"


def test_an_abandoned_transaction_changes_nothing(dom0: Any, refused: Any) -> None:
    dom0.watch("/a", "tok")
    tx = dom0.start()
    dom0.write("/a", "1", tx)
    dom0.end(tx, commit=False)
    assert dom0.no_event()
    with refused("ENOENT"):
        dom0.read("/a")
    with refused("ENOENT"):
        dom0.read("/", tx)


def test_what_a_transaction_reads_is_as_it_was_when_it_began(machine: Any, dom0: Any) -> None:
    dom0.write("/a", "1")
    tx = dom0.start()
    machine.connect().write("/a", "2")
    assert dom0.read("/a", tx) == "1"


@pytest.mark.parametrize("number", ["0x1", "01", "+1", " 1"])
def test_a_domid_as_strtol_reads_it(guest: Any, dom0: Any, number: str) -> None:
    dom0.chmod("/tool", f"r{number}")
    assert dom0.perms("/tool") == "r1"


@pytest.mark.parametrize(
    ("perm", "error"),
    [
        ("n1 ", "EINVAL"),
        ("n08", "EINVAL"),
        ("n0x", "EINVAL"),
        ("n70000", "ENOENT"),
        ("n-1", "ENOENT"),
    ],
)
def test_a_domid_that_is_none(dom0: Any, refused: Any, perm: str, error: str) -> None:
    with refused(error):
        dom0.chmod("/tool", perm)


@pytest.mark.parametrize("change", ["write", "rm", "add a child", "chmod", "create"])
def test_a_conflict_is_eagain_and_nothing_is_changed(
    machine: Any, dom0: Any, refused: Any, change: str
) -> None:
    dom0.write("/a/b", "1")
    tx = dom0.start()
    if change == "create":
        with refused("ENOENT"):
            dom0.read("/a/new", tx)
    else:
        dom0.directory("/a/b", tx)
    dom0.write("/result", "mine", tx)
    other = machine.connect()
    if change == "write":
        other.write("/a/b", "2")
    elif change == "rm":
        other.rm("/a/b")
    elif change == "add a child":
        other.write("/a/b/c", "")
    elif change == "chmod":
        other.chmod("/a/b", "r0")
    else:
        other.write("/a/new", "")
    with refused("EAGAIN"):
        dom0.end(tx)
    with refused("ENOENT"):
        dom0.read("/result")


def test_changes_elsewhere_are_no_conflict(machine: Any, dom0: Any) -> None:
    dom0.write("/a/b", "1")
    dom0.write("/a/c", "1")
    tx = dom0.start()
    dom0.write("/a/b", dom0.read("/a/b", tx) + "1", tx)
    machine.connect().write("/a/c", "2")
    dom0.end(tx)
    assert (dom0.read("/a/b"), dom0.read("/a/c")) == ("11", "2")


def test_two_transactions_that_change_the_same_node(machine: Any, dom0: Any, refused: Any) -> None:
    dom0.write("/n", "0")
    other = machine.connect()
    first, second = dom0.start(), other.start()
    dom0.write("/n", "1", first)
    other.write("/n", "2", second)
    dom0.end(first)
    with refused("EAGAIN"):
        other.end(second)
    assert dom0.read("/n") == "1"


def test_removal_and_rights_in_a_transaction(dom0: Any, refused: Any) -> None:
    dom0.write("/a/b/c", "1")
    dom0.watch("/a/b/c", "c")
    tx = dom0.start()
    dom0.rm("/a/b", tx)
    dom0.write("/a/b", "new", tx)
    dom0.chmod("/a/b", "r0", tx=tx)
    dom0.end(tx)
    assert (dom0.read("/a/b"), dom0.perms("/a/b"), dom0.directory("/a/b")) == ("new", "r0", [])
    assert dom0.event() == ("/a/b/c", "c")


def test_a_transaction_is_its_connections_own(machine: Any, dom0: Any, refused: Any) -> None:
    tx = dom0.start()
    with refused("ENOENT"):
        machine.connect().read("/", tx)
    with refused("EBUSY"):
        dom0.ask(Type.TRANSACTION_START, b"\0", tx)
    with refused("ENOENT"):
        dom0.end(0)


# Quotas.


def test_nodes_of_a_guest(machine: Any, guest: Any, dom0: Any, refused: Any) -> None:
    client = machine.connect(guest)
    with refused("ENOSPC"):
        for i in range(1001):
            client.mkdir(f"data/{i // 100}/{i}")
    with refused("ENOSPC"):
        client.write("data/one/more", "")
    dom0.write("/local/domain/1/data/by-dom0", "fine")
    client.rm("data/0")
    client.mkdir("data/again")
    other = machine.create("other")
    machine.connect(other).mkdir("data/unharmed")


def test_the_size_of_a_guests_node(machine: Any, guest: Any, dom0: Any, refused: Any) -> None:
    client = machine.connect(guest)
    with refused("ENOSPC"):
        client.write("data/x", "x" * 2048)
    with refused("ENOENT"):
        client.read("data/x")
    client.write("data/x", "x" * 1900)
    with refused("ENOSPC"):
        client.write("data/x", "x" * 2048)
    assert client.read("data/x") == "x" * 1900
    with refused("ENOSPC"):
        for i in range(30):
            client.mkdir(f"data/y/{i:0100}")
    dom0.write("/x", "x" * 4000)


def test_watches_of_a_guest(machine: Any, guest: Any, refused: Any) -> None:
    first, second = machine.connect(guest), machine.connect(guest)
    with refused("E2BIG"):
        for i in range(200):
            (first if i % 2 else second).watch("data", str(i))
    first.ask(Type.RESET_WATCHES, b"\0")
    second.watch("data", "again")


def test_transactions_of_a_guest(machine: Any, guest: Any, refused: Any) -> None:
    client = machine.connect(guest)
    started = []
    with refused("ENOSPC"):
        for _ in range(20):
            started.append(client.start())
    assert len(started) == 11
    client.end(started[0], commit=False)
    tx = client.start()
    reads = 0
    answer = "ENOENT"
    while answer == "ENOENT":
        with pytest.raises(Exception, match=r"ENOENT|ENOSPC") as error:
            client.read(f"data/{reads}", tx)
        answer = error.value.args[0]
        reads += 1
    assert answer == "ENOSPC"
    assert 1000 < reads <= 1025
    with refused("ENOMEM"):
        client.end(tx)


def test_nodes_made_in_a_transaction_count(machine: Any, guest: Any, refused: Any) -> None:
    begun = []
    for half in range(2):
        client = machine.connect(guest)
        tx = client.start()
        for i in range(490):
            client.mkdir(f"data/{half}/{i // 50}/{i}", tx)
        begun.append((client, tx))
    (first, first_tx), (second, second_tx) = begun
    first.end(first_tx)
    with refused("ENOSPC"):
        second.end(second_tx)
    assert first.directory("data") == ["0"]


# Clients that misbehave.


def test_a_message_over_the_limit_costs_the_connection_and_nobody_else(
    machine: Any, guest: Any
) -> None:
    good, bad = machine.connect(guest), machine.connect(guest)
    bad.sock.sendall(struct.pack("=IIII", Type.READ, 1, 0, PAYLOAD_MAX + 1))
    assert bad.closed_by_server()
    assert good.read("domid") == "1"


def test_a_message_of_the_greatest_length(dom0: Any) -> None:
    dom0.ask(Type.WRITE, b"/x\0" + b"v" * (PAYLOAD_MAX - 3))
    assert len(dom0.read("/x")) == PAYLOAD_MAX - 3


def test_a_message_in_pieces_and_many_in_one(machine: Any) -> None:
    client = machine.connect()
    message = struct.pack("=IIII", Type.READ, 7, 0, 6) + b"/tool\0"
    for i in range(len(message)):
        client.sock.sendall(message[i : i + 1])
    assert client.receive() == (Type.READ, 7, 0, b"")
    client.sock.sendall(message * 500)
    for _ in range(500):
        assert client.receive() == (Type.READ, 7, 0, b"")


def test_an_end_in_the_middle_of_a_message(machine: Any, dom0: Any) -> None:
    client = machine.connect()
    client.sock.sendall(struct.pack("=IIII", Type.WRITE, 7, 0, 100) + b"/x\0")
    client.close()
    with pytest.raises(Exception, match="ENOENT"):
        dom0.read("/x")


def test_who_reads_no_events_is_cut_off(machine: Any, guest: Any, dom0: Any) -> None:
    slow, quick = machine.connect(guest), machine.connect(guest)
    slow.watch("data", "s" * 1000)
    quick.watch("data", "q")
    for i in range(4000):
        dom0.write(f"/local/domain/1/data/{i}", "")
        assert quick.event() == (f"data/{i}", "q")
    received = b""
    try:
        while part := slow.sock.recv(1 << 20):
            received += part
    except ConnectionResetError:
        pass
    assert len(received) < 4000 * 1000
    assert quick.read("domid") == "1"


def test_who_reads_no_replies_is_not_read_either(machine: Any, guest: Any) -> None:
    client = machine.connect(guest)
    client.write("data/x", "x" * 1900)
    client.sock.settimeout(1)
    message = struct.pack("=IIII", Type.READ, 1, 0, 7) + b"data/x\0"
    sent = 0
    try:
        while sent < 64 << 20:
            sent += client.sock.send(message * 1000)
    except TimeoutError:
        pass
    assert sent < 64 << 20
    assert machine.connect(guest).read("domid") == "1"


def test_equal_events_that_wait_are_one(machine: Any, guest: Any, dom0: Any) -> None:
    client = machine.connect(guest)
    client.watch("data", "t" * 500)
    for _ in range(6000):
        dom0.write("/local/domain/1/data/x", "")
    client.write("data/last", "")  # still connected
    seen = [event for event in client.events if event == ("data/x", "t" * 500)]
    assert 0 < len(seen) < 6000


def test_a_path_with_very_many_parts(machine: Any, guest: Any, dom0: Any) -> None:
    deep = "/d" * 1000
    dom0.write(deep, "1")
    dom0.watch(deep, "t")
    dom0.rm("/d")
    assert dom0.event() == (deep, "t")
    with pytest.raises(Exception, match="ENOSPC"):
        machine.connect(guest).write("data" + "/d" * 1000, "1")
