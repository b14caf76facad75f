# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs commands in a domain for the tests. Only the standard library; runs in dom0 and each guest.

dom0's agent talks with the tests over a virtio serial port, one JSON object a line:

    {"id": 1, "domain": 0, "argv": [...]}   run; {"id": 1, "exit": 0, "out": "", "err": ""} follows
    {"id": 1, "domain": 0, "signal": 15}    send a signal to that command's process group
    {"id": 2, "domain": 3, "await": true}   answered, with exit 0, when domain 3's agent is up

What is for another domain it passes on through XenStore, which a guest has whatever else works: a
message is a directory of parts below data/agent/in or out, complete once `count` is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import json
import os
import signal
import struct
import sys
from collections.abc import Callable
from typing import Any

PORT = "/dev/vport*p1"
SOCKET = "/run/xenstored/socket"
PART = 1500  # octets; a node holds 2048
OUTPUT_LIMIT = 200_000  # of a guest's command, octets

Message = dict[str, Any]


class StoreError(Exception):
    """XenStore refused; the error's name."""


class Store:
    """A XenStore connection."""

    READ, DIRECTORY, WATCH, WRITE, RM, EVENT, ERROR = 2, 1, 4, 11, 13, 15, 16

    def __init__(
        self, reader: Callable[[int], bytes], writer: Callable[[bytes], Any], fd: int
    ) -> None:
        self._read, self._write = reader, writer
        self._buffer = b""
        self._replies: dict[int, asyncio.Future[bytes]] = {}
        self._last = 0
        self._asking = asyncio.Lock()
        self._watchers: dict[str, Callable[[], None]] = {}
        asyncio.get_running_loop().add_reader(fd, self._readable)

    @classmethod
    def open(cls) -> Store:
        """Connect to the daemon, or to the kernel where the daemon is in another domain."""
        if os.path.exists(SOCKET):
            import socket

            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.connect(SOCKET)
            return cls(sock.recv, sock.sendall, sock.fileno())
        fd = os.open("/dev/xen/xenbus", os.O_RDWR)
        return cls(lambda size: os.read(fd, size), lambda data: os.write(fd, data), fd)

    def _readable(self) -> None:
        self._buffer += self._read(4096)
        while len(self._buffer) >= 16:
            kind, request, _, length = struct.unpack_from("<4I", self._buffer)
            if len(self._buffer) < 16 + length:
                return
            body = self._buffer[16 : 16 + length]
            self._buffer = self._buffer[16 + length :]
            if kind == self.EVENT:
                self._watchers[body.split(b"\0")[1].decode()]()
                continue
            reply = self._replies.pop(request)
            if kind == self.ERROR:
                reply.set_exception(StoreError(body.rstrip(b"\0").decode()))
            else:
                reply.set_result(body)

    async def _request(self, kind: int, *fields: bytes) -> bytes:
        body = b"".join(fields)
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        # The kernel mixes up requests that are not answered yet.
        async with self._asking:
            self._last += 1
            self._replies[self._last] = reply
            self._write(struct.pack("<4I", kind, self._last, 0, len(body)) + body)
            return await reply

    async def read(self, path: str) -> str | None:
        with contextlib.suppress(StoreError):
            return (await self._request(self.READ, path.encode() + b"\0")).decode()
        return None

    async def directory(self, path: str) -> list[str]:
        with contextlib.suppress(StoreError):
            answer = await self._request(self.DIRECTORY, path.encode() + b"\0")
            return [name.decode() for name in answer.split(b"\0") if name]
        return []

    async def write(self, path: str, value: str) -> None:
        await self._request(self.WRITE, path.encode() + b"\0", value.encode())

    async def remove(self, path: str) -> None:
        with contextlib.suppress(StoreError):
            await self._request(self.RM, path.encode() + b"\0")

    async def watch(self, path: str, changed: Callable[[], None]) -> None:
        token = f"{len(self._watchers)}"
        self._watchers[token] = changed
        await self._request(self.WATCH, path.encode() + b"\0", token.encode() + b"\0")

    async def post(self, path: str, message: Message) -> None:
        """Leave a message."""
        text = json.dumps(message)
        parts = [text[at : at + PART] for at in range(0, len(text), PART)]
        for number, part in enumerate(parts):
            await self.write(f"{path}/{number}", part)
        await self.write(f"{path}/count", str(len(parts)))

    async def take(self, path: str) -> Message | None:
        """Take a message away, if it is complete."""
        count = await self.read(f"{path}/count")
        if count is None:
            return None
        parts = [await self.read(f"{path}/{number}") or "" for number in range(int(count))]
        await self.remove(path)
        answer: Message = json.loads("".join(parts))
        return answer


class Jobs:
    """The commands that run in this domain."""

    def __init__(self, answer: Callable[[Message], None]) -> None:
        self._answer = answer
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, message: Message) -> None:
        """Do what a message says."""
        process = self._running.get(message["id"])
        if "signal" in message:
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, message["signal"])
            return
        task = asyncio.create_task(self._run(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, message: Message) -> None:
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *message["argv"],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=pipe,
                stderr=pipe,
                start_new_session=True,
            )
        except OSError as error:
            self._answer({"id": message["id"], "exit": 127, "out": "", "err": str(error)})
            return
        self._running[message["id"]] = process
        out, err = await process.communicate()
        del self._running[message["id"]]
        self._answer(
            {
                "id": message["id"],
                "exit": process.returncode,
                "out": out.decode(errors="replace"),
                "err": err.decode(errors="replace"),
            }
        )


class Relay:
    """dom0's side of another domain's agent."""

    def __init__(self, store: Store, domain: int, answer: Callable[[Message], None]) -> None:
        self._store = store
        self._path = f"/local/domain/{domain}/data/agent"
        self._answer = answer
        self._changed = asyncio.Event()
        self._awaiting: list[int] = []
        self._task = asyncio.create_task(self._run())

    def take(self, message: Message) -> None:
        """Pass a message on."""
        if "await" in message:
            self._awaiting.append(message["id"])
            self._changed.set()
            return
        kind = "signal" if "signal" in message else "run"
        self._post = asyncio.create_task(
            self._store.post(f"{self._path}/in/{kind}-{message['id']}", message)
        )

    async def _run(self) -> None:
        await self._store.watch(self._path, self._changed.set)
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._awaiting and await self._store.read(f"{self._path}/up") is not None:
                for number in self._awaiting:
                    self._answer({"id": number, "exit": 0, "out": "", "err": ""})
                self._awaiting.clear()
            for name in await self._store.directory(f"{self._path}/out"):
                answer = await self._store.take(f"{self._path}/out/{name}")
                if answer is not None:
                    self._answer(answer)


async def dom0() -> None:
    """Serve the tests, from dom0."""
    loop = asyncio.get_running_loop()
    store = Store.open()
    port = os.open(glob.glob(PORT)[0], os.O_RDWR)
    # The port carries octets; blocking writes are what holds a talkative command back.
    writing = os.dup(port)

    def answer(message: Message) -> None:
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(writing, data) :]

    jobs = Jobs(answer)
    relays: dict[int, Relay] = {}
    received = b""
    incoming: asyncio.Queue[bytes] = asyncio.Queue()

    loop.add_reader(port, lambda: incoming.put_nowait(os.read(port, 65536)))
    answer({"id": 0, "exit": 0, "out": "", "err": ""})
    while data := await incoming.get():
        received += data
        *lines, received = received.split(b"\n")
        for line in lines:
            message = json.loads(line)
            domain = message["domain"]
            if domain == 0:
                jobs.take(message)
                continue
            if domain not in relays:
                relays[domain] = Relay(store, domain, answer)
            relays[domain].take(message)


async def guest() -> None:
    """Serve dom0's agent, from a guest."""
    store = Store.open()
    changed = asyncio.Event()
    answers: asyncio.Queue[Message] = asyncio.Queue()

    async def send_answers() -> None:
        while True:
            message = await answers.get()
            message["out"] = message["out"][-OUTPUT_LIMIT:]
            message["err"] = message["err"][-OUTPUT_LIMIT:]
            await store.post(f"data/agent/out/{message['id']}", message)

    jobs = Jobs(answers.put_nowait)
    sending = asyncio.create_task(send_answers())
    await store.watch("data/agent/in", changed.set)
    while not sending.done():
        # Again after a restore: the store of the new domain knows nothing of us.
        if await store.read("data/agent/up") is None:
            await store.write("data/agent/up", "1")
        for name in sorted(await store.directory("data/agent/in")):
            message = await store.take(f"data/agent/in/{name}")
            if message is not None:
                jobs.take(message)
        await changed.wait()
        changed.clear()
    sending.result()


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(dom0() if os.path.exists(SOCKET) else guest())
    sys.exit(1)
