# SPDX-License-Identifier: LGPL-2.1-or-later
"""The guest service before the stand-in, in a thread of its own, and a raw client of its socket."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from xenaudio.core.hv import Hypervisor
from xenaudio.core.xswire import HEADER, Type
from xenaudio.guestd.service import Service
from xenaudio.guestd.wire import EVTCHN, GRANT, U32, Request
from xenaudio.localhv import Domain, LocalHypervisor

T = TypeVar("T")

TIMEOUT = 30
"""Seconds: a guard against hanging, nothing is measured against it."""

CARDS = """[['CARD, short-name=Main', 'PCM, name=Main',
             'STREAM, unique-id=out, type=p', 'STREAM, unique-id=in, type=c'],
            ['CARD, short-name=Other', 'PCM, name=Other', 'STREAM, unique-id=other, type=p']]"""
"""Two cards: 0/0/0 and 0/0/1, 1/0/0."""


class Refused(Exception):
    """The answer is XS_ERROR; `args[0]` is the errno's name."""


class Client:
    """One connection; blocking, and as low-level as the wire."""

    def __init__(self, path: str | Path | socket.socket) -> None:
        if isinstance(path, socket.socket):
            self.sock = path
        else:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.connect(str(path))
        self.sock.settimeout(TIMEOUT)
        self.events: list[tuple[str, str]] = []
        self.fds: list[int] = []
        self._next = 0

    def close(self) -> None:
        self.sock.close()
        while self.fds:
            os.close(self.fds.pop())

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, kind: int, payload: bytes, tx: int = 0) -> int:
        self._next += 1
        self.sock.sendall(HEADER.pack(kind, self._next, tx, len(payload)) + payload)
        return self._next

    def receive(self) -> tuple[int, int, bytes]:
        """The next message: type, request and payload."""
        kind, number, _tx, length = HEADER.unpack(self._exactly(HEADER.size))
        return kind, number, self._exactly(length)

    def _exactly(self, octets: int) -> bytes:
        data = b""
        while len(data) < octets:
            part, fds, _, _ = socket.recv_fds(self.sock, octets - len(data), 16)
            self.fds += fds
            if not part:
                raise EOFError
            data += part
        return data

    def ask(self, kind: int, payload: bytes = b"", tx: int = 0) -> bytes:
        """One request and its reply; watch events that come meanwhile are kept."""
        number = self.send(kind, payload, tx)
        while True:
            got, to, data = self.receive()
            if got == Type.WATCH_EVENT:
                self._event(data)
                continue
            assert to == number
            if got == Type.ERROR:
                raise Refused(data.rstrip(b"\0").decode())
            assert got == kind
            return data

    def _event(self, data: bytes) -> None:
        path, token, end = data.split(b"\0")
        assert end == b""
        self.events.append((path.decode(), token.decode()))

    def await_event(self, path: str) -> None:
        """Wait until a watch has fired for a path."""
        while not any(path == fired for fired, _ in self.events):
            kind, _, data = self.receive()
            assert kind == Type.WATCH_EVENT
            self._event(data)

    def quiet(self) -> bool:
        """Whether nothing has come."""
        return not select.select([self.sock], [], [], 0)[0]

    def ended(self) -> bool:
        """Wait for what comes until the connection's end."""
        try:
            while True:
                self.receive()
        except (EOFError, ConnectionResetError):
            return True

    # XenStore's requests.

    def read(self, path: str, tx: int = 0) -> str:
        return self.ask(Type.READ, path.encode() + b"\0", tx).decode()

    def directory(self, path: str) -> list[str]:
        return self.ask(Type.DIRECTORY, path.encode() + b"\0").decode().split("\0")[:-1]

    def write(self, path: str, value: str, tx: int = 0) -> None:
        assert self.ask(Type.WRITE, f"{path}\0{value}".encode(), tx) == b"OK\0"

    def watch(self, path: str, token: str = "t") -> None:
        assert self.ask(Type.WATCH, f"{path}\0{token}\0".encode()) == b"OK\0"

    def unwatch(self, path: str, token: str = "t") -> None:
        assert self.ask(Type.UNWATCH, f"{path}\0{token}\0".encode()) == b"OK\0"

    def begin(self) -> int:
        return int(self.ask(Type.TRANSACTION_START, b"\0").rstrip(b"\0"))

    def commit(self, tx: int, wanted: bool = True) -> None:
        assert self.ask(Type.TRANSACTION_END, b"T\0" if wanted else b"F\0", tx) == b"OK\0"

    # The service's own.

    def store(self) -> Client:
        """Another connection of the same client."""
        assert self.ask(Request.STORE) == b""
        return Client(socket.socket(fileno=self.fds.pop()))

    def grant(self, remote: int = 0, count: int = 1) -> tuple[int, list[int]]:
        """The number and the references; the descriptor is in `fds`."""
        data = self.ask(Request.GRANT, GRANT.pack(remote, 0, count))
        _offset, number, _, *refs = struct.unpack(f"=QII{count}I", data)
        return number, refs

    def end_grant(self, number: int) -> None:
        assert self.ask(Request.GRANT_END, U32.pack(number)) == b""

    def handle(self, remote: int = 0, count: int = 2) -> tuple[int, list[int]]:
        """The number and the ports; the descriptors are in `fds`."""
        data = self.ask(Request.EVTCHN, EVTCHN.pack(remote, 0, count))
        number, *ports = struct.unpack(f"={1 + count}I", data)
        return number, ports

    def end_handle(self, number: int) -> None:
        assert self.ask(Request.EVTCHN_END, U32.pack(number)) == b""


class GuestService:
    """A guest with two cards whose backend nobody runs, and the service before it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.directory = Path(tempfile.mkdtemp(prefix="xg", dir="/tmp"))
        self.address = self.directory / "guestd"
        self.hv = LocalHypervisor()
        self._clients: list[Client] = []
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.run(self.hv.start())
            self.guest: Domain = self.run(self.hv.create("guest", vsnd=CARDS, wait=False))
            self._listening.bind(str(self.address))
            self._listening.listen()
            self._stop = asyncio.Event()
            self.service = Service(Hypervisor(str(self.guest.socket)), [self._listening])
            self._serving = asyncio.run_coroutine_threadsafe(
                self.service.run(self._stop), self._loop
            )
            self.run(asyncio.wait_for(self._ready(), TIMEOUT))
        except BaseException:
            self._end()
            raise

    async def _ready(self) -> None:
        await self.service.ready.wait()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something on the service's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT)

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function on the service's loop."""

        async def work() -> T:
            return function(*arguments)

        return self.run(work())

    def client(self) -> Client:
        """A new process, so to say."""
        made = Client(self.address)
        self._clients.append(made)
        return made

    def root(self) -> Client:
        """A connection to the guest's own XenStore, as its root has it."""
        made = Client(str(self.guest.socket))
        self._clients.append(made)
        return made

    def dom0(self) -> Client:
        """A connection to domain 0's."""
        made = Client(str(self.hv.dom0.socket))
        self._clients.append(made)
        return made

    def backend(self, device: int = 0) -> str:
        """The backend's directory."""
        return f"/local/domain/0/backend/vsnd/{self.guest.domid}/{device}"

    def granted(self) -> int:
        """How many pages the guest grants."""
        return len(self.call(self.hv.grant_rows))

    def bound(self) -> int:
        """How many event channel ports the guest has."""
        return len(self.call(self.hv.channel_rows))

    def stop(self) -> None:
        """Stop the service, in order."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._serving.result(TIMEOUT)

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.stop()
        self._end()

    def _end(self) -> None:
        self._listening.close()
        self.run(self.hv.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT)
        self._loop.close()
        shutil.rmtree(self.directory)
