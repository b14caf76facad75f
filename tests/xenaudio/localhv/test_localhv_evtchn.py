# SPDX-License-Identifier: LGPL-2.1-or-later
"""Event channels between domains: who may bind, what is pending when, and when a port ends."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from xenaudio.localhv.wire import Request


@pytest.fixture
def guest(machine: Any) -> Any:
    return machine.create("guest")


@pytest.fixture
def front(machine: Any, guest: Any) -> Any:
    return machine.connect(guest)


@pytest.fixture
def back(machine: Any) -> Any:
    return machine.connect()


def rows(machine: Any) -> list[tuple[str, int, int, Any]]:
    return [
        (row["domain"], row["port"], row["remote"], row["peer"] and tuple(row["peer"].values()))
        for row in machine.do(machine.hv.channel_rows)
    ]


def test_events_go_both_ways(front: Any, back: Any) -> None:
    mine = front.alloc_unbound(0)
    theirs = back.bind(1, mine.port)
    assert theirs.pending()  # a port that was bound fires once
    assert not mine.pending()
    mine.notify()
    assert theirs.pending()
    assert not theirs.pending()
    theirs.notify()
    theirs.notify()
    assert mine.pending()
    assert not mine.pending()  # events are not counted


def test_what_was_sent_before_the_peer_bound_went_nowhere(front: Any, back: Any) -> None:
    mine = front.alloc_unbound(0)
    mine.notify()
    theirs = back.bind(1, mine.port)
    assert theirs.pending()
    assert not theirs.pending()


def test_who_may_bind(machine: Any, front: Any, back: Any, refused: Any) -> None:
    other = machine.connect(machine.create("other"))
    mine = front.alloc_unbound(0)
    with refused("EINVAL"):
        other.bind(1, mine.port)
    for domid, port in ((1, mine.port + 1), (0, 1), (1, 0xFFFFFFFF)):
        with refused("EINVAL"):
            back.bind(domid, port)
    for nobody in (9, 0x7FF1, 0xFFFF):
        with refused("ESRCH"):
            back.bind(nobody, 1)
    back.bind(1, mine.port)
    for who in (back, other):
        with refused("EINVAL"):
            who.bind(1, mine.port)


def test_a_bound_port_cannot_be_bound_to(front: Any, back: Any, refused: Any) -> None:
    mine = front.alloc_unbound(0)
    theirs = back.bind(1, mine.port)
    with refused("EINVAL"):
        front.bind(0, theirs.port)


def test_a_port_that_is_closed_is_gone(front: Any, back: Any, refused: Any) -> None:
    mine = front.alloc_unbound(0)
    front.unbind(mine.port)
    with refused("EINVAL"):
        back.bind(1, mine.port)
    with refused("ENOENT"):
        front.unbind(mine.port)


def test_a_port_whose_peer_closed_can_be_bound_again(
    machine: Any, front: Any, back: Any, refused: Any
) -> None:
    mine = front.alloc_unbound(0)
    theirs = back.bind(1, mine.port)
    back.unbind(theirs.port)
    assert rows(machine) == [("guest", mine.port, 0, None)]
    mine.notify()  # to nobody
    again = machine.connect().bind(1, mine.port)
    assert again.pending()
    assert not again.pending()
    mine.notify()
    assert again.pending()


def test_a_port_is_closed_by_its_own_connection_only(
    machine: Any, guest: Any, front: Any, refused: Any
) -> None:
    mine = front.alloc_unbound(0)
    with refused("ENOENT"):
        machine.connect(guest).unbind(mine.port)
    front.unbind(mine.port)


def test_ports_end_with_their_connection(machine: Any, guest: Any, back: Any, refused: Any) -> None:
    front = machine.connect(guest)
    mine = front.alloc_unbound(0)
    theirs = back.bind(1, mine.port)
    assert rows(machine) == [
        ("guest", mine.port, 0, ("Domain-0", theirs.port)),
        ("Domain-0", theirs.port, 1, ("guest", mine.port)),
    ]
    front.close()
    back.read("domid")
    assert rows(machine) == [("Domain-0", theirs.port, 1, None)]
    with refused("EINVAL"):
        back.bind(1, mine.port)
    theirs.notify()  # no error


@pytest.mark.parametrize("nobody", [9, 0x7FF4, 0xFFFF])
def test_a_port_for_nobody_can_be_made(front: Any, nobody: int) -> None:
    assert front.alloc_unbound(nobody).port == 1


def test_a_domain_with_itself(front: Any) -> None:
    mine = front.alloc_unbound(0x7FF0)
    assert front.bind(1, mine.port).pending()


def test_many_connections_and_ports(machine: Any, guest: Any) -> None:
    fronts = [machine.connect(guest) for _ in range(20)]
    backs = [machine.connect() for _ in range(20)]
    ends = [(f.alloc_unbound(0), b) for f, b in zip(fronts, backs, strict=True)]
    pairs = [(mine, b.bind(1, mine.port)) for mine, b in ends]
    for mine, theirs in pairs:
        assert theirs.pending()
        theirs.notify()
        assert [other.pending() for other, _ in pairs].count(True) == 1
        assert not mine.pending()


def test_ports_are_limited(machine: Any, front: Any, back: Any, refused: Any) -> None:
    with refused("ENOSPC"):
        for _ in range(2000):
            front.alloc_unbound(0)
            front.close_fds()
    assert len(rows(machine)) == 1023
    assert back.alloc_unbound(1)


def test_closing_channels_by_command(machine: Any, guest: Any, front: Any, back: Any) -> None:
    mine = front.alloc_unbound(0)
    theirs = back.bind(1, mine.port)
    without = machine.connect(guest)
    assert machine.do(machine.hv.close_channels, guest) == 1
    assert front.closed_by_server()
    assert rows(machine) == [("Domain-0", theirs.port, 1, None)]
    assert without.read("domid") == "1"


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (Request.EVTCHN_ALLOC_UNBOUND, b""),
        (Request.EVTCHN_ALLOC_UNBOUND, struct.pack("=HHI", 0, 0, 5)),
        (Request.EVTCHN_BIND_INTERDOMAIN, struct.pack("=HHII", 0, 0, 1, 1)),
        (Request.EVTCHN_UNBIND, b""),
        (Request.EVTCHN_UNBIND, b"12345678"),
    ],
)
def test_a_malformed_request(front: Any, refused: Any, kind: int, payload: bytes) -> None:
    with refused("EINVAL"):
        front.ask(kind, payload)
    assert front.alloc_unbound(0)
