# SPDX-License-Identifier: LGPL-2.1-or-later
"""A stand-in in a thread of its own, a raw client of its sockets, and Debian's xenstore tools."""

from __future__ import annotations

import array
import asyncio
import mmap
import os
import select
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from xenaudio.core.xswire import Type
from xenaudio.localhv import Domain, LocalHypervisor
from xenaudio.localhv.wire import Request

TIMEOUT = 20  # seconds: a guard against hanging, nothing is measured against it


class Refused(Exception):
    """The server's answer is XS_ERROR; `args[0]` is the errno's name."""


class Client:
    """One connection to a domain's socket; blocking, and as low-level as the wire."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(path)
        self.events: list[tuple[str, str]] = []
        self.fds: list[int] = []
        self._taken = 0
        self._next = 0

    def close(self) -> None:
        self.sock.close()
        self.close_fds()

    def close_fds(self) -> None:
        """Closes the file descriptors received so far."""
        while self.fds:
            os.close(self.fds.pop())
        self._taken = 0

    def send(self, kind: int, payload: bytes, tx: int = 0, req_id: int | None = None) -> int:
        self._next += 1
        req_id = self._next if req_id is None else req_id
        self.sock.sendall(struct.pack("=IIII", kind, req_id, tx, len(payload)) + payload)
        return req_id

    def receive(self) -> tuple[int, int, int, bytes]:
        head = self._exactly(16)
        kind, req_id, tx, length = struct.unpack("=IIII", head)
        return kind, req_id, tx, self._exactly(length)

    def ask(self, kind: int, payload: bytes = b"", tx: int = 0) -> bytes:
        """One request and its reply; watch events that come meanwhile are kept."""
        req_id = self.send(kind, payload, tx)
        while True:
            got_kind, got_id, got_tx, data = self.receive()
            if got_kind == Type.WATCH_EVENT:
                self._event(data)
                continue
            assert (got_id, got_tx) == (req_id, tx)
            if got_kind == Type.ERROR:
                raise Refused(data.rstrip(b"\0").decode())
            assert got_kind == kind
            return data

    def event(self) -> tuple[str, str]:
        """The next watch event: path and token."""
        if not self.events:
            kind, req_id, tx, data = self.receive()
            assert (kind, req_id, tx) == (Type.WATCH_EVENT, 0, 0)
            self._event(data)
        return self.events.pop(0)

    def no_event(self) -> bool:
        """Whether no watch event came before the answer to a request that is asked now."""
        self.ask(Type.GET_DOMAIN_PATH, b"0\0")
        return not self.events

    def take_fds(self) -> list[int]:
        """File descriptors received since the last call; closed with the client."""
        taken, self._taken = self.fds[self._taken :], len(self.fds)
        return taken

    def closed_by_server(self) -> bool:
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionResetError:
            pass
        except TimeoutError:
            return False
        return True

    def _event(self, data: bytes) -> None:
        path, token, rest = data.split(b"\0")
        assert rest == b""
        self.events.append((path.decode(), token.decode()))

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part, ancillary, _, _ = self.sock.recvmsg(count - len(data), 8192)
            for level, kind, fds in ancillary:
                assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
                self.fds += array.array("i", fds)
            if not part:
                raise ConnectionError("closed by the server")
            data += part
        return data

    # XenStore, for short.

    def read(self, path: str, tx: int = 0) -> str:
        return self.ask(Type.READ, path.encode() + b"\0", tx).decode()

    def write(self, path: str, value: str, tx: int = 0) -> None:
        assert self.ask(Type.WRITE, path.encode() + b"\0" + value.encode(), tx) == b"OK\0"

    def rm(self, path: str, tx: int = 0) -> None:
        assert self.ask(Type.RM, path.encode() + b"\0", tx) == b"OK\0"

    def mkdir(self, path: str, tx: int = 0) -> None:
        assert self.ask(Type.MKDIR, path.encode() + b"\0", tx) == b"OK\0"

    def directory(self, path: str, tx: int = 0) -> list[str]:
        return self.ask(Type.DIRECTORY, path.encode() + b"\0", tx).decode().split("\0")[:-1]

    def perms(self, path: str, tx: int = 0) -> str:
        return (
            self.ask(Type.GET_PERMS, path.encode() + b"\0", tx)
            .decode()
            .rstrip("\0")
            .replace("\0", ",")
        )

    def chmod(self, path: str, *perms: str, tx: int = 0) -> None:
        payload = b"".join(word.encode() + b"\0" for word in (path, *perms))
        assert self.ask(Type.SET_PERMS, payload, tx) == b"OK\0"

    def watch(self, path: str, token: str = "t") -> None:
        """Sets a watch and takes its first event."""
        assert self.ask(Type.WATCH, f"{path}\0{token}\0".encode()) == b"OK\0"
        assert self.event() == (path, token)

    def start(self) -> int:
        return int(self.ask(Type.TRANSACTION_START, b"\0").rstrip(b"\0"))

    def end(self, tx: int, commit: bool = True) -> None:
        assert self.ask(Type.TRANSACTION_END, b"T\0" if commit else b"F\0", tx) == b"OK\0"

    # Grants and event channels.

    def grant(self, remote: int, count: int = 1) -> tuple[list[int], mmap.mmap]:
        data = self.ask(Request.GNTALLOC, struct.pack("=HHI", remote, 0, count))
        (fd,) = self.take_fds()
        return list(struct.unpack(f"={count}I", data)), mmap.mmap(fd, count * 4096)

    def end_grants(self, refs: list[int]) -> None:
        assert self.ask(Request.GNTDEALLOC, struct.pack(f"={len(refs)}I", *refs)) == b""

    def map(self, remote: int, refs: list[int], writable: bool = True) -> list[tuple[int, int]]:
        """The pages as (file descriptor, page of it)."""
        payload = struct.pack(f"=HHI{len(refs)}I", remote, writable, len(refs), *refs)
        data = self.ask(Request.GNTMAP, payload)
        fds = self.take_fds()
        return [(fds[fd], page) for fd, page in struct.iter_unpack("=II", data)]

    def unmap(self, remote: int, refs: list[int]) -> None:
        payload = struct.pack(f"=HHI{len(refs)}I", remote, 0, len(refs), *refs)
        assert self.ask(Request.GNTUNMAP, payload) == b""

    def alloc_unbound(self, remote: int) -> End:
        return self._port(Request.EVTCHN_ALLOC_UNBOUND, remote, 0)

    def bind(self, remote: int, port: int) -> End:
        return self._port(Request.EVTCHN_BIND_INTERDOMAIN, remote, port)

    def unbind(self, port: int) -> None:
        assert self.ask(Request.EVTCHN_UNBIND, struct.pack("=I", port)) == b""

    def _port(self, kind: int, remote: int, port: int) -> End:
        (number,) = struct.unpack("=I", self.ask(kind, struct.pack("=HHI", remote, 0, port)))
        return End(number, *self.take_fds())


class End:
    """One end of an event channel."""

    def __init__(self, port: int, pending_fd: int, notify_fd: int) -> None:
        self.port = port
        self._pending_fd = pending_fd
        self._notify_fd = notify_fd

    def pending(self) -> bool:
        """Whether an event is pending; takes it."""
        if not select.select([self._pending_fd], [], [], 0)[0]:
            return False
        os.eventfd_read(self._pending_fd)
        return True

    def notify(self) -> None:
        os.eventfd_write(self._notify_fd, 1)


class Machine:
    """A LocalHypervisor whose event loop runs in a thread, so that tests can block."""

    def __init__(self, directory: Path, device_timeout: float = 0.4) -> None:
        self.hv = LocalHypervisor(directory, device_timeout=device_timeout)
        self.clients: list[Client] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        try:
            self.do(self.hv.start)
        except BaseException:
            self._end_thread()
            raise

    def do(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls a method of the hypervisor in its thread."""
        return self.begin(method, *args, **kwargs).result(TIMEOUT)

    def begin(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """As above, without waiting: a future."""

        async def call() -> Any:
            result = method(*args, **kwargs)
            return await result if asyncio.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(call(), self._loop)

    def create(self, name: str, vsnd: str | None = None, wait: bool = False) -> Domain:
        domain: Domain = self.do(self.hv.create, name, vsnd, wait=wait)
        return domain

    def connect(self, domain: Domain | None = None) -> Client:
        """A connection; to domain 0 unless told."""
        client = Client((domain or self.hv.dom0).socket)
        self.clients.append(client)
        return client

    def tool(self, domain: Domain | None, *argv: str) -> subprocess.CompletedProcess[str]:
        """Runs one of Debian's xenstore tools in a domain."""
        env = {"PATH": os.environ["PATH"], "XENSTORED_PATH": (domain or self.hv.dom0).socket}
        return subprocess.run(
            argv, env=env, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )

    def stop(self) -> None:
        for client in self.clients:
            client.close()
        self.do(self.hv.stop)
        self._end_thread()

    def _end_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory with a path short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="xa", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def machine(short_dir: Path) -> Iterator[Machine]:
    """A machine with nothing but domain 0."""
    machine = Machine(short_dir)
    yield machine
    machine.stop()


@pytest.fixture
def new_machine() -> type[Machine]:
    """For tests that start one themselves."""
    return Machine


@pytest.fixture
def refused() -> Callable[[str], Any]:
    """`with refused("ENOENT"):` the server answers with this error."""

    def expect(name: str) -> Any:
        return pytest.raises(Refused, match=f"^{name}$")

    return expect
