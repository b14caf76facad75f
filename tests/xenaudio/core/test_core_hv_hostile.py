# SPDX-License-Identifier: LGPL-2.1-or-later
"""The stand-in's client against a server that lies: an error each time, and no descriptor, mapping
or connection is left behind."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from xenaudio.core.errors import (
    DeniedError,
    NotFoundError,
    ProtocolError,
    TimedOutError,
    XenAudioError,
)
from xenaudio.core.hv import PAGE, Hypervisor

HEADER = struct.Struct("=IIII")
ERROR = 16
GNTALLOC, GNTDEALLOC, GNTMAP, GNTUNMAP = 0x1001, 0x1002, 0x1003, 0x1004
ALLOC_UNBOUND, BIND_INTERDOMAIN, UNBIND = 0x1011, 0x1012, 0x1013


def u32(*numbers: int) -> bytes:
    return struct.pack(f"={len(numbers)}I", *numbers)


class Call(NamedTuple):
    """One request."""

    type: int
    id: int
    payload: bytes


class Reply(NamedTuple):
    """What a script answers. Descriptors are the script's, closed when they are sent."""

    payload: bytes = b""
    fds: tuple[int, ...] = ()
    type: int | None = None  # another than the request's
    id: int | None = None
    length: int | None = None  # in the header
    raw: bytes | None = None  # instead of all this
    hang_up: bool = False


Script = Callable[[Call], "Reply | None"]


def refuse(name: bytes) -> Script:
    return lambda call: Reply(name + b"\0", type=ERROR)


class Server:
    """Answers every connection by a script; None is no answer at all."""

    def __init__(self, path: Path) -> None:
        self.script: Script = lambda call: None
        self.calls: list[Call] = []
        self.path = path
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._spawn(self._accept)

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            self._spawn(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            while True:
                try:
                    head = connection.recv(HEADER.size, socket.MSG_WAITALL)
                    if len(head) < HEADER.size:
                        return
                    kind, req_id, _tx, length = HEADER.unpack(head)
                    payload = connection.recv(length, socket.MSG_WAITALL) if length else b""
                    call = Call(kind, req_id, payload)
                    self.calls.append(call)
                    reply = self.script(call)
                    if reply is None:
                        continue
                    self._send(connection, call, reply)
                    if reply.hang_up:
                        return
                except OSError:
                    return

    def _send(self, connection: socket.socket, call: Call, reply: Reply) -> None:
        length = len(reply.payload) if reply.length is None else reply.length
        kind = call.type if reply.type is None else reply.type
        octets = HEADER.pack(kind, call.id if reply.id is None else reply.id, 0, length)
        octets += reply.payload
        if reply.raw is not None:
            octets = reply.raw
        try:
            if octets:
                socket.send_fds(connection, [octets], list(reply.fds))
        finally:
            for fd in reply.fds:
                os.close(fd)

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            # accept() does not wake when its socket is merely closed.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(10)
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def server() -> Iterator[Server]:
    # pytest's own directories are too long for a socket's path.
    folder = Path(tempfile.mkdtemp(prefix="xa-", dir="/tmp"))
    made = Server(folder / "s")
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)


@pytest.fixture
def hv(server: Server) -> Iterator[Hypervisor]:
    with Hypervisor(str(server.path)) as opened:
        yield opened


def descriptors(kinds: tuple[str, ...]) -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue
        if any(kind in target for kind in kinds):
            found.append(target)
    return found


def held() -> tuple[int, int]:
    """Memfds, eventfds and epolls that are open, and memfds that are mapped."""
    maps = Path("/proc/self/maps").read_text()
    return len(descriptors(("memfd:xa-test", "[eventfd]", "[eventpoll]"))), maps.count(
        "memfd:xa-test"
    )


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    before = held()
    yield
    assert held() == before


def memfd(pages: int, seals: int = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW) -> int:
    fd = os.memfd_create("xa-test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, pages * PAGE)
    if seals:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def eventfd() -> int:
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def honest_share(call: Call) -> Reply:
    """Grant what is asked."""
    if call.type != GNTALLOC:
        return Reply()
    count = struct.unpack_from("=HHI", call.payload)[2]
    return Reply(u32(*range(8, 8 + count)), (memfd(count),))


def test_a_share_is_one_range_whatever_it_takes(server: Server, hv: Hypervisor) -> None:
    server.script = honest_share
    with hv.share(3, 2500) as share:
        asked = [struct.unpack("=HHI", call.payload) for call in server.calls]
        assert asked == [(3, 0, 1000), (3, 0, 1000), (3, 0, 500)]
        assert len(share.grefs) == 2500
        assert len(share.memory) == 2500 * PAGE
        share.memory[999 * PAGE : 1001 * PAGE] = b"x" * (2 * PAGE)
        server.calls.clear()
    assert [(call.type, len(call.payload) // 4) for call in server.calls] == [
        (GNTDEALLOC, 1000),
        (GNTDEALLOC, 1000),
        (GNTDEALLOC, 500),
    ]


LYING_SHARES: dict[str, Script] = {
    "no memory": lambda call: Reply(u32(8, 9)),
    "two memories": lambda call: Reply(u32(8, 9), (memfd(2), memfd(2))),
    "too small": lambda call: Reply(u32(8, 9), (memfd(1),)),
    "not sealed": lambda call: Reply(u32(8, 9), (memfd(2, 0),)),
    "sealed against growing only": lambda call: Reply(u32(8, 9), (memfd(2, fcntl.F_SEAL_GROW),)),
    "not a memfd": lambda call: Reply(u32(8, 9), (eventfd(),)),
    "too few references": lambda call: Reply(u32(8), (memfd(2),)),
    "too many references": lambda call: Reply(u32(8, 9, 10), (memfd(2),)),
    "a huge length": lambda call: Reply(u32(8, 9), (memfd(2),), length=0xFFFFFFFF),
    "another request's reply": lambda call: Reply(u32(8, 9), (memfd(2),), type=GNTMAP),
    "another id": lambda call: Reply(u32(8, 9), (memfd(2),), id=call.id + 1),
    "an error without its end": lambda call: Reply(b"EINVAL", (memfd(2),), type=ERROR),
    "an empty error": lambda call: Reply(b"", (memfd(2),), type=ERROR),
    "a long error": lambda call: Reply(b"E" * 4000 + b"\0", (memfd(2),), type=ERROR),
    "more descriptors than any reply has": lambda call: Reply(
        u32(8, 9), tuple(memfd(1) for _ in range(129))
    ),
}


@pytest.mark.parametrize("lie", LYING_SHARES)
def test_a_share_that_is_a_lie(server: Server, hv: Hypervisor, lie: str) -> None:
    server.script = LYING_SHARES[lie]
    with pytest.raises(ProtocolError):
        hv.share(1, 2)


def test_a_share_that_fails_half_way_is_undone(server: Server, hv: Hypervisor) -> None:
    def script(call: Call) -> Reply:
        if len(server.calls) == 1:
            return honest_share(call)
        return Reply(b"ENOSPC\0", (memfd(1),), type=ERROR)

    server.script = script
    with pytest.raises(XenAudioError) as caught:
        hv.share(1, 1500)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize(
    "reply",
    [
        Reply(raw=b"", hang_up=True),
        Reply(raw=b"half", hang_up=True),
        Reply(u32(8), length=8, hang_up=True),
    ],
)
def test_a_server_that_hangs_up(server: Server, hv: Hypervisor, reply: Reply) -> None:
    server.script = lambda call: reply
    with pytest.raises(BrokenPipeError):
        hv.share(1, 2)


@pytest.mark.parametrize("answer", [None, Reply(raw=b"half"), Reply(u32(8), length=8)])
def test_a_server_that_says_no_more(server: Server, hv: Hypervisor, answer: Reply | None) -> None:
    server.script = lambda call: answer
    with pytest.raises(TimedOutError):
        hv.share(1, 2)


@pytest.mark.parametrize("pages", [0, 2**20 + 1])
def test_how_much_can_be_shared(hv: Hypervisor, server: Server, pages: int) -> None:
    with pytest.raises(XenAudioError) as caught:
        hv.share(1, pages)
    assert caught.value.errno == errno.EINVAL
    assert server.calls == []


def pages_reply(count: int) -> bytes:
    """Page i of the one memfd, in order."""
    return u32(*(number for i in range(count) for number in (0, i)))


def test_a_map_puts_pages_where_they_belong(server: Server, hv: Hypervisor) -> None:
    """Two memfds, pages in runs and out of order, the same page twice."""
    order = [(0, 0), (0, 1), (1, 3), (0, 2), (1, 0), (1, 0)]

    def script(call: Call) -> Reply:
        if call.type != GNTMAP:
            return Reply()
        fds = (memfd(3), memfd(4))
        for which, fd in enumerate(fds):
            for page in range(os.fstat(fd).st_size // PAGE):
                os.pwrite(fd, bytes([16 * which + page]) * PAGE, page * PAGE)
        return Reply(u32(*(number for pair in order for number in pair)), fds)

    server.script = script
    with hv.map(5, [100, 101, 102, 103, 104, 105], writable=False) as mapped:
        want = b"".join(bytes([16 * fd + page]) * PAGE for fd, page in order)
        assert mapped.memory == want
        with pytest.raises(TypeError):
            mapped.memory[0] = 1
    request = struct.pack("=HHI", 5, 0, 6) + u32(100, 101, 102, 103, 104, 105)
    assert [(call.type, call.payload) for call in server.calls] == [
        (GNTMAP, request),
        (GNTUNMAP, request),
    ]


def test_a_map_asks_for_128_at_once(server: Server, hv: Hypervisor) -> None:
    def script(call: Call) -> Reply:
        if call.type != GNTMAP:
            return Reply()
        count = struct.unpack_from("=HHI", call.payload)[2]
        fd = memfd(count)
        os.pwrite(fd, bytes([len(server.calls)]), 0)
        return Reply(pages_reply(count), (fd,))

    server.script = script
    with hv.map(5, range(300)) as mapped:
        assert [mapped.memory[i * PAGE] for i in (0, 128, 256, 299)] == [1, 2, 3, 0]
        mapped.memory[299 * PAGE] = 9
    sent = [struct.unpack_from("=HHI", call.payload) for call in server.calls]
    assert sent == 2 * [(5, 1, 128), (5, 1, 128), (5, 1, 44)]


LYING_MAPS: dict[str, Script] = {
    "no memory": lambda call: Reply(pages_reply(2)),
    "a page past the end": lambda call: Reply(u32(0, 0, 0, 2), (memfd(2),)),
    "a page that wraps": lambda call: Reply(u32(0, 0, 0, 0xFFFFFFFF), (memfd(2),)),
    "a descriptor that did not come": lambda call: Reply(u32(0, 0, 1, 0), (memfd(2),)),
    "not sealed": lambda call: Reply(pages_reply(2), (memfd(2, 0),)),
    "one of two not sealed": lambda call: Reply(pages_reply(2), (memfd(2), memfd(2, 0))),
    "not memory": lambda call: Reply(pages_reply(2), (eventfd(),)),
    "too few pages": lambda call: Reply(u32(0, 0), (memfd(2),)),
    "half a page": lambda call: Reply(u32(0, 0, 0), (memfd(2),)),
}


@pytest.mark.parametrize("lie", LYING_MAPS)
def test_a_map_that_is_a_lie(server: Server, hv: Hypervisor, lie: str) -> None:
    server.script = LYING_MAPS[lie]
    with pytest.raises(ProtocolError):
        hv.map(1, [8, 9])


@pytest.mark.parametrize(("name", "kind"), [(b"ENOENT", NotFoundError), (b"EACCES", DeniedError)])
def test_a_refusal_keeps_its_reason(
    server: Server, hv: Hypervisor, name: bytes, kind: type[XenAudioError]
) -> None:
    server.script = refuse(name)
    with pytest.raises(kind, match="map 2 pages of domain 1"):
        hv.map(1, [8, 9])
    with hv.event_channel() as channel, pytest.raises(kind, match="event channel 4 of domain 1"):
        channel.bind_interdomain(1, 4)


def test_ports_of_one_handle(server: Server, hv: Hypervisor) -> None:
    numbers = iter((11, 12))
    peers: list[tuple[int, int]] = []

    def script(call: Call) -> Reply:
        if call.type == UNBIND:
            return Reply()
        rx, tx = eventfd(), eventfd()
        peers.append((os.dup(rx), os.dup(tx)))
        return Reply(u32(next(numbers)), (rx, tx))

    server.script = script
    with hv.event_channel() as channel:
        assert channel.alloc_unbound(3) == 11
        assert channel.bind_interdomain(4, 77) == 12
        assert [struct.unpack("=HHI", call.payload) for call in server.calls] == [
            (3, 0, 0),
            (4, 0, 77),
        ]
        assert channel.pending() is None
        for rx, _tx in peers:
            os.eventfd_write(rx, 3)
        assert {channel.pending(), channel.pending()} == {11, 12}
        assert channel.pending() is None
        channel.notify(12)
        assert os.eventfd_read(peers[1][1]) == 1
        # A full counter: the event is pending already.
        os.eventfd_write(peers[1][1], 2**64 - 2)
        channel.notify(12)
        # Its eventfd lives on in the peer; its events do not.
        os.eventfd_write(peers[0][0], 1)
        channel.unbind(11)
        assert channel.pending() is None
        for call in (channel.notify, channel.unbind):
            with pytest.raises(XenAudioError) as caught:
                call(11)
            assert caught.value.errno == errno.ENOTCONN
    for pair in peers:
        for fd in pair:
            os.close(fd)


LYING_PORTS: dict[str, Script] = {
    "no descriptor": lambda call: Reply(u32(1)),
    "one descriptor": lambda call: Reply(u32(1), (eventfd(),)),
    "three descriptors": lambda call: Reply(u32(1), (eventfd(), eventfd(), eventfd())),
    "one that blocks to read": lambda call: Reply(u32(1), (os.eventfd(0), eventfd())),
    "one that blocks to write": lambda call: Reply(u32(1), (eventfd(), os.eventfd(0))),
    "no port": lambda call: Reply(b"", (eventfd(), eventfd())),
}


@pytest.mark.parametrize("lie", LYING_PORTS)
def test_a_port_that_is_a_lie(server: Server, hv: Hypervisor, lie: str) -> None:
    server.script = LYING_PORTS[lie]
    with hv.event_channel() as channel, pytest.raises(ProtocolError):
        channel.alloc_unbound(1)


def test_a_port_that_cannot_be_waited_for(server: Server, hv: Hypervisor) -> None:
    server.script = lambda call: Reply(
        u32(1), (os.open("/dev/null", os.O_RDWR | os.O_NONBLOCK), eventfd())
    )
    with hv.event_channel() as channel:
        with pytest.raises(DeniedError):
            channel.alloc_unbound(1)
        assert server.calls[-1].type == UNBIND


def test_a_port_that_is_readable_for_ever_is_dropped(server: Server, hv: Hypervisor) -> None:
    def script(call: Call) -> Reply:
        reader, writer = os.pipe2(os.O_NONBLOCK)
        os.close(writer)
        return Reply(u32(1), (reader, eventfd()))

    server.script = script
    with hv.event_channel() as channel:
        channel.alloc_unbound(1)
        with pytest.raises(ProtocolError):
            channel.pending()
        assert channel.pending() is None


def test_ports_outlive_their_server(server: Server, hv: Hypervisor) -> None:
    """A broken connection is not used again; what is bound goes on."""
    replies = iter((Reply(u32(1), (eventfd(), eventfd())), Reply(raw=b"", hang_up=True)))
    server.script = lambda call: next(replies)
    with hv.event_channel() as channel:
        channel.alloc_unbound(1)
        for _ in range(2):
            with pytest.raises(BrokenPipeError):
                channel.alloc_unbound(1)
        channel.notify(1)
        assert channel.pending() is None


def test_a_domain_that_is_gone(server: Server, hv: Hypervisor) -> None:
    """Not ENOENT, which would say that the grant is not there."""
    with Hypervisor(str(server.path) + "x") as nobody:
        for call in (
            lambda: nobody.share(1, 1),
            lambda: nobody.map(1, [1]),
            nobody.event_channel,
        ):
            with pytest.raises(XenAudioError) as caught:
                call()
            assert caught.value.errno == errno.ENODEV
        with pytest.raises(NotFoundError):
            nobody.connect_store()


def test_connections_end_with_their_objects(server: Server, hv: Hypervisor) -> None:
    server.script = honest_share
    before = len(descriptors(("socket:",)))
    first, second = hv.share(1, 1), hv.share(1, 1)
    hv.close()
    assert first.memory[0] == second.memory[0] == 0
    first.close()
    first.close()
    second.close()
    server.stop()
    # The listener's is gone too.
    assert len(descriptors(("socket:",))) == before - 1


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XENAUDIO_HV", "/run/here")
    assert Hypervisor().address == "/run/here"
    assert Hypervisor("/run/there").address == "/run/there"
    assert Hypervisor("x" * 107).address == "x" * 107
    with pytest.raises(XenAudioError) as caught:
        Hypervisor("x" * 108)
    assert caught.value.errno == errno.ENAMETOOLONG
    with pytest.raises(ValueError, match="there is a 0 in it"):
        Hypervisor("a\0b")
    closed = Hypervisor("/run/here")
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        closed.share(1, 1)
