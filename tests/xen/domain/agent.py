# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs commands in a domain for the tests. Only the standard library; runs in dom0 and each guest.

dom0's agent talks with the tests over a virtio serial port, one JSON object a line:

    {"id": 1, "domain": 0, "argv": [...]}   run; {"id": 1, "exit": 0, "out": "", "err": ""} follows
    {"id": 1, "domain": 0, "signal": 15}    send a signal to that command's process group
    {"id": 2, "domain": 3, "await": true}   answered, with exit 0, when domain 3's agent is up

What is for another domain it passes on through XenStore, which a guest has whatever else works: a
message is a node below data/agent/in or out. Its value is how many parts are below it, a space, and
what is before those parts, which are there before it has a value.

An emulated processor needs seconds for what asyncio imports: this is a loop around poll(2), which
waits for nothing but the store's answers besides.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import select
import signal
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

PORT = "/dev/vport*p1"
SOCKET = "/run/xenstored/socket"
PART = 1500  # octets; a node holds 2048
OUTPUT_LIMIT = 200_000  # of a guest's command, octets


class Loop:
    """Waits for descriptors."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._readable: dict[int, Callable[[], None]] = {}

    def add(self, fd: int, readable: Callable[[], None]) -> None:
        """Call `readable` whenever there is something to read."""
        self._readable[fd] = readable
        self._poll.register(fd, select.POLLIN)

    def remove(self, fd: int) -> None:
        """Do so no more."""
        del self._readable[fd]
        self._poll.unregister(fd)

    def turn(self) -> None:
        """Wait for one of them at least."""
        for fd, _ in self._poll.poll():
            self._readable[fd]()


class StoreError(Exception):
    """XenStore refused; the error's name."""


class Store:
    """A XenStore connection. Watches are told of by `deliver`, never during a request."""

    READ, DIRECTORY, WATCH, WRITE, RM, EVENT, ERROR = 2, 1, 4, 11, 13, 15, 16

    def __init__(self, loop: Loop) -> None:
        """Connect to the daemon, or to the kernel where the daemon is in another domain."""
        self._read: Callable[[int], bytes]
        self._write: Callable[[bytes], Any]
        if os.path.exists(SOCKET):
            import socket

            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.connect(SOCKET)
            fd, self._read, self._write = sock.fileno(), sock.recv, sock.sendall
        else:
            fd = os.open("/dev/xen/xenbus", os.O_RDWR)
            self._read = lambda size: os.read(fd, size)
            self._write = lambda data: os.write(fd, data)
        self._buffer = b""
        self._reply: tuple[int, bytes] | None = None
        self._events: list[tuple[str, str]] = []
        self._watchers: dict[str, Callable[[str], None]] = {}
        loop.add(fd, self._receive)

    def _receive(self) -> None:
        self._buffer += self._read(4096)
        while len(self._buffer) >= 16:
            kind, _, _, length = struct.unpack_from("<4I", self._buffer)
            if len(self._buffer) < 16 + length:
                return
            body = self._buffer[16 : 16 + length]
            self._buffer = self._buffer[16 + length :]
            if kind == self.EVENT:
                path, token = body.decode().split("\0")[:2]
                self._events.append((path, token))
            else:
                self._reply = kind, body

    def _request(self, kind: int, *fields: bytes) -> bytes:
        body = b"".join(fields)
        self._write(struct.pack("<4I", kind, 0, 0, len(body)) + body)
        while self._reply is None:
            self._receive()
        (kind, body), self._reply = self._reply, None
        if kind == self.ERROR:
            raise StoreError(body.rstrip(b"\0").decode())
        return body

    def deliver(self) -> None:
        """Tell of the changes of what is watched, by their paths."""
        while self._events:
            path, token = self._events.pop(0)
            self._watchers[token](path)

    def read(self, path: str) -> str | None:
        with contextlib.suppress(StoreError):
            return self._request(self.READ, path.encode() + b"\0").decode()
        return None

    def directory(self, path: str) -> list[str]:
        with contextlib.suppress(StoreError):
            answer = self._request(self.DIRECTORY, path.encode() + b"\0")
            return [name.decode() for name in answer.split(b"\0") if name]
        return []

    def write(self, path: str, value: str) -> None:
        self._request(self.WRITE, path.encode() + b"\0", value.encode())

    def remove(self, path: str) -> None:
        with contextlib.suppress(StoreError):
            self._request(self.RM, path.encode() + b"\0")

    def watch(self, path: str, changed: Callable[[str], None]) -> None:
        token = f"{len(self._watchers)}"
        self._watchers[token] = changed
        self._request(self.WATCH, path.encode() + b"\0", token.encode() + b"\0")

    def post(self, path: str, message: dict[str, Any]) -> None:
        """Leave a message."""
        text = json.dumps(message)
        first, *others = (text[at : at + PART] for at in range(0, len(text), PART))
        for number, part in enumerate(others):
            self.write(f"{path}/{number}", part)
        self.write(path, f"{len(others)} {first}")

    def take(self, folder: str, changed: str) -> Iterator[dict[str, Any]]:
        """Take away the messages of a folder that are complete, as far as that has changed."""
        inside = changed.removeprefix(folder).strip("/").split("/")[0]
        for name in [inside] if inside else sorted(self.directory(folder)):
            value = self.read(f"{folder}/{name}")
            if value:
                count, _, first = value.partition(" ")
                others = [self.read(f"{folder}/{name}/{number}") for number in range(int(count))]
                self.remove(f"{folder}/{name}")
                yield json.loads(first + "".join(part or "" for part in others))


class Jobs:
    """The commands that run in this domain."""

    def __init__(self, loop: Loop, answer: Callable[[dict[str, Any]], None]) -> None:
        self._loop = loop
        self._answer = answer
        self._running: dict[int, int] = {}

    def take(self, message: dict[str, Any]) -> None:
        """Do what a message says."""
        number = message["id"]
        if "signal" not in message:
            self._start(number, message["argv"])
        elif number in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._running[number], message["signal"])

    def _start(self, number: int, argv: list[str]) -> None:
        out, err = f"/run/{number}.out", f"/run/{number}.err"
        writing = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        pid = self._running[number] = os.posix_spawn(
            argv[0],
            argv,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, out, writing, 0o600),
                (os.POSIX_SPAWN_OPEN, 2, err, writing, 0o600),
            ],
            setsid=True,
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
        )
        ended = os.pidfd_open(pid)

        def collect() -> None:
            _, status = os.waitpid(pid, 0)
            self._loop.remove(ended)
            os.close(ended)
            del self._running[number]
            answer = {"id": number, "exit": os.waitstatus_to_exitcode(status)}
            self._answer({**answer, "out": taken(out), "err": taken(err)})

        self._loop.add(ended, collect)


def taken(path: str) -> str:
    """Return what is in a file, which is removed."""
    with open(path, errors="replace") as file:
        text = file.read()
    os.unlink(path)
    return text


class Relay:
    """dom0's side of another domain's agent."""

    def __init__(self, store: Store, domain: int, answer: Callable[[dict[str, Any]], None]) -> None:
        self._store = store
        self._path = f"/local/domain/{domain}/data/agent"
        self._answer = answer
        self._awaiting: list[int] = []
        store.watch(f"{self._path}/up", lambda _: self._answer_awaiting())
        store.watch(f"{self._path}/out", self._pass_back)

    def take(self, message: dict[str, Any]) -> None:
        """Pass a message on."""
        if "await" in message:
            self._awaiting.append(message["id"])
            self._answer_awaiting()
            return
        kind = "signal" if "signal" in message else "run"
        self._store.post(f"{self._path}/in/{kind}-{message['id']}", message)

    def _answer_awaiting(self) -> None:
        if self._awaiting and self._store.read(f"{self._path}/up") is not None:
            for number in self._awaiting:
                self._answer({"id": number, "exit": 0, "out": "", "err": ""})
            self._awaiting.clear()

    def _pass_back(self, changed: str) -> None:
        for answer in self._store.take(f"{self._path}/out", changed):
            self._answer(answer)


def dom0() -> None:
    """Serve the tests, from dom0."""
    loop = Loop()
    store = Store(loop)
    port = os.open(glob.glob(PORT)[0], os.O_RDWR)
    relays: dict[int, Relay] = {}
    received = b""

    def answer(message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(port, data) :]

    jobs = Jobs(loop, answer)

    def receive() -> None:
        nonlocal received
        data = os.read(port, 65536)
        if not data:
            raise SystemExit("the tests have gone")
        *lines, received = (received + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            domain = message["domain"]
            if domain == 0:
                jobs.take(message)
                continue
            if domain not in relays:
                relays[domain] = Relay(store, domain, answer)
            relays[domain].take(message)

    loop.add(port, receive)
    answer({"id": 0, "exit": 0, "out": "", "err": ""})
    while True:
        loop.turn()
        store.deliver()


def guest() -> None:
    """Serve dom0's agent, from a guest."""
    loop = Loop()
    store = Store(loop)

    def answer(message: dict[str, Any]) -> None:
        for name in ("out", "err"):
            message[name] = message[name][-OUTPUT_LIMIT:]
        store.post(f"data/agent/out/{message['id']}", message)

    jobs = Jobs(loop, answer)

    def receive(changed: str) -> None:
        # Again after a restore: the store of the new domain knows nothing of us.
        if changed == "data/agent/in" and store.read("data/agent/up") is None:
            store.write("data/agent/up", "1")
        for message in store.take("data/agent/in", changed):
            jobs.take(message)

    store.watch("data/agent/in", receive)
    while True:
        store.deliver()
        loop.turn()


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if os.path.exists(SOCKET):
        dom0()
    else:
        guest()
