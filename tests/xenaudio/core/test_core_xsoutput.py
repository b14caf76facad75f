# SPDX-License-Identifier: LGPL-2.1-or-later
"""What waits for a client of XenStore: it comes whole and in order, or is let go of."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from xenaudio.core.xsoutput import Output
from xenaudio.core.xswire import HEADER, Type, unpack_header

EVENT = b"device/vsnd\0token\0"


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's end, which does not block, and the client's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def received(end: socket.socket, octets: int) -> bytes:
    data = b""
    while len(data) < octets:
        data += end.recv(octets - len(data))
    return data


def test_messages_come_in_order_however_often_there_is_no_room(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    output = Output(ours)
    messages = [bytes([number]) * 4096 for number in range(200)]
    for message in messages:
        output.put(message)
    assert output.octets == 200 * 4096
    came = b""
    while output:
        sent = output.write()
        assert sent > 0
        came += received(theirs, sent)
    assert came == b"".join(messages)
    assert output.octets == 0


def test_descriptors_go_with_their_message_and_are_closed_here(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    output = Output(ours)
    reading, writing = os.pipe()
    output.put(b"one")
    output.put(b"two", [writing])
    output.write()
    assert not is_open(writing)
    assert theirs.recv(3) == b"one"
    data, fds, _, _ = socket.recv_fds(theirs, 3, 1)
    assert data == b"two"
    os.write(fds[0], b"x")
    assert os.read(reading, 1) == b"x"
    for fd in (reading, *fds):
        os.close(fd)


def test_an_event_is_known_until_its_first_octet_is_sent(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    output = Output(ours)
    output.put_event(EVENT)
    assert output.has_event(EVENT)
    output.write()
    assert not output.has_event(EVENT)
    header = unpack_header(received(theirs, HEADER.size))
    assert (header.type, header.length) == (Type.WATCH_EVENT, len(EVENT))
    assert received(theirs, header.length) == EVENT


def test_what_is_closed_keeps_nothing(ends: tuple[socket.socket, socket.socket]) -> None:
    output = Output(ends[0])
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(2)]
    output.put(b"before", fds[:1])
    output.put_event(EVENT)
    output.close()
    output.put(b"after", fds[1:])
    assert not any(is_open(fd) for fd in fds)
    assert not output
    assert output.octets == 0
    assert not output.has_event(EVENT)


def test_a_client_that_has_gone_is_an_error(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    output = Output(ours)
    theirs.close()
    output.put(b"x")
    with pytest.raises(BrokenPipeError):
        output.write()
