# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a domain does for the checks, whether it is the one in which they run or another one.

`Hands` does things in its own domain. A `Peer` has them done by `serve`, which runs in another
domain and is asked through XenStore. Both give what came of it: a value, or an error as "!ENOENT".
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
import signal
import struct
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

from xenaudio.core.errors import NotFoundError, XenAudioError
from xenaudio.core.hv import EventChannel, Hypervisor, Map, Share
from xenaudio.core.store import Store

FOLDER = "data/conformance"
ANSWER_LIMIT = 60.0
"""Seconds for one thing to be done: a guard against hanging."""
EVENT_LIMIT = 10.0
"""Seconds for an event that must come."""
NO_EVENT = 0.3
"""Seconds in which an event that must not come would have come."""


class _AbortError(Exception):
    """Ends a transaction without committing it."""


class _Connection:
    """A connection to XenStore, and the watch events that it got."""

    def __init__(self, store: Store, sentinel: str) -> None:
        self.store = store
        self.sentinel = sentinel
        self.settled = asyncio.Event()
        self.events: list[str] = []
        self.tokens: dict[str, str] = {}
        self.transactions: dict[int, AbstractAsyncContextManager[int]] = {}


class Hands:
    """Does things in this domain: `await hands("read", path)`."""

    def __init__(self) -> None:
        self.hv = Hypervisor()
        self._connections: dict[int, _Connection] = {}
        self._numbers = itertools.count()
        self._things: dict[int, Any] = {}

    async def __call__(self, name: str, *arguments: Any, **more: Any) -> Any:
        try:
            return await getattr(self, name)(*arguments, **more)
        except XenAudioError as error:
            return f"!{errno.errorcode[error.errno or 0]}"
        except (asyncio.TimeoutError, LookupError, ValueError) as error:
            return f"!!{error!r}"  # a check went on after a surprise

    # XenStore. `c` is the connection: 0 is always there.

    async def connect(self) -> int:
        """Make a connection to XenStore."""
        number = len(self._connections)
        store = await Store.open(self.hv)
        # Events keep their order: once this one's is there, so are all before it.
        connection = _Connection(store, f"{FOLDER}/sentinel-{number}")
        self._connections[number] = connection
        await store.write(connection.sentinel, "")
        await store.watch(connection.sentinel, lambda path: connection.settled.set())
        return number

    async def disconnect(self, c: int) -> None:
        """End a connection."""
        self._connections[c].store.close()

    async def read(self, path: str, *, tx: int = 0, c: int = 0) -> str:
        return await self._connections[c].store.read(path, tx)

    async def directory(self, path: str, *, tx: int = 0, c: int = 0) -> list[str]:
        return await self._connections[c].store.directory(path, tx)

    async def count_children(self, path: str) -> int:
        return len(await self._connections[0].store.directory(path))

    async def write(self, path: str, value: str, *, tx: int = 0, c: int = 0) -> None:
        await self._connections[c].store.write(path, value, tx)

    async def write_octets(self, path: str, count: int) -> None:
        """Write a value of so many octets."""
        await self._connections[0].store.write(path, "x" * count)

    async def mkdir(self, path: str, *, tx: int = 0, c: int = 0) -> None:
        await self._connections[c].store.mkdir(path, tx)

    async def rm(self, path: str, *, tx: int = 0, c: int = 0) -> None:
        await self._connections[c].store.rm(path, tx)

    async def get_perms(self, path: str, *, tx: int = 0, c: int = 0) -> list[str]:
        return await self._connections[c].store.get_perms(path, tx)

    async def set_perms(self, path: str, perms: list[str], *, tx: int = 0, c: int = 0) -> None:
        await self._connections[c].store.set_perms(path, perms, tx)

    async def get_domain_path(self, domid: int) -> str:
        return await self._connections[0].store.get_domain_path(domid)

    async def watch(self, path: str, *, c: int = 0) -> None:
        connection = self._connections[c]
        connection.tokens[path] = await connection.store.watch(path, connection.events.append)

    async def unwatch(self, path: str, *, c: int = 0) -> None:
        connection = self._connections[c]
        await connection.store.unwatch(connection.tokens.pop(path))

    async def events(self, *, c: int = 0) -> list[str]:
        """Return the watch events since the last call; equal ones in a row count once."""
        connection = self._connections[c]
        connection.settled.clear()
        await connection.store.write(connection.sentinel, "")
        await asyncio.wait_for(connection.settled.wait(), EVENT_LIMIT)
        found = [path for path, _ in itertools.groupby(connection.events)]
        connection.events.clear()
        return found

    async def begin(self, *, c: int = 0) -> int:
        """Begin a transaction."""
        connection = self._connections[c]
        transaction = connection.store.transaction()
        tx = await transaction.__aenter__()
        connection.transactions[tx] = transaction
        return tx

    async def commit(self, tx: int, *, c: int = 0) -> None:
        await self._connections[c].transactions.pop(tx).__aexit__(None, None, None)

    async def abort(self, tx: int, *, c: int = 0) -> None:
        await self._connections[c].transactions.pop(tx).__aexit__(_AbortError, _AbortError(), None)
        await self._connections[c].store.read("domid")  # it was not waited for

    async def begin_many(self, most: int) -> str:
        """Begin transactions, each on a connection of its own, until one is refused."""
        begun: list[int] = []
        try:
            while len(begun) < most:
                begun.append(await self.connect())
                await self.begin(c=begun[-1])
        except XenAudioError as error:
            return f"{len(begun) - 1}, then !{errno.errorcode[error.errno or 0]}"
        finally:
            for c in begun:
                await self.disconnect(c)
        return f"{len(begun)}"

    async def watch_many(self, path: str, most: int) -> None:
        """Watch nodes below a path; the watches end again."""
        store = await Store.open(self.hv)
        try:
            for number in range(most):
                await store.watch(f"{path}/{number}", lambda path: None)
        finally:
            store.close()

    # Grants.

    def _keep(self, thing: Any) -> int:
        number = next(self._numbers)
        self._things[number] = thing
        return number

    async def share(self, remote: int, pages: int = 1) -> dict[str, Any]:
        """Share pages: a handle, and references."""
        share: Share = self.hv.share(remote, pages)
        return {"handle": self._keep(share), "grefs": share.grefs}

    async def shares(self, remote: int, pages: int) -> str:
        """Say whether pages can be shared."""
        with self.hv.share(remote, pages) as share:
            return f"{len(set(share.grefs))} pages"

    async def map(self, remote: int, grefs: list[int], writable: bool = True) -> int:
        """Map pages: a handle."""
        mapped: Map = self.hv.map(remote, grefs, writable)
        return self._keep(mapped)

    async def maps(self, remote: int, grefs: list[int], writable: bool = True) -> str:
        """Say whether pages can be mapped."""
        self.hv.map(remote, grefs, writable).close()
        return "mapped"

    async def load(self, handle: int, offset: int) -> int:
        """Read a word of shared or mapped pages."""
        word: int = struct.unpack_from("=I", self._things[handle].memory, offset)[0]
        return word

    async def store(self, handle: int, offset: int, word: int) -> None:
        """Write a word of shared or mapped pages."""
        struct.pack_into("=I", self._things[handle].memory, offset, word)

    async def end(self, handle: int) -> None:
        """Close a share, a map or an event channel handle."""
        self._things.pop(handle).close()

    # Another process of this domain.

    def _process(self, work: Callable[[Hypervisor], Any]) -> dict[str, Any]:
        """Have a process do something and stay: its pid, and what came of it."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                with Hypervisor() as hv:
                    kept = work(hv)
                os.write(writing, json.dumps(kept[0]).encode() + b"\n")
                signal.pause()
            finally:
                os._exit(1)
        os.close(writing)
        with open(reading, "rb") as pipe:
            return {"pid": pid, "result": json.loads(pipe.readline())}

    async def offering_process(self, remote: int) -> dict[str, Any]:
        """Start a process that shares a page, with 4711 in it, and makes a port."""

        def work(hv: Hypervisor) -> Any:
            share, channels = hv.share(remote, 1), hv.event_channel()
            struct.pack_into("=I", share.memory, 0, 4711)
            return [share.grefs, channels.alloc_unbound(remote)], share, channels

        return self._process(work)

    async def using_process(self, remote: int, grefs: list[int], port: int) -> dict[str, Any]:
        """Start a process that maps pages and binds a port."""

        def work(hv: Hypervisor) -> Any:
            mapped, channels = hv.map(remote, grefs), hv.event_channel()
            return channels.bind_interdomain(remote, port), mapped, channels

        return self._process(work)

    async def kill(self, pid: int) -> None:
        """Kill a process."""
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(os.waitpid, pid, 0)

    # Event channels.

    async def channels(self) -> int:
        """Open an event channel handle."""
        return self._keep(self.hv.event_channel())

    async def alloc(self, handle: int, remote: int) -> int:
        port: int = self._things[handle].alloc_unbound(remote)
        return port

    async def bind(self, handle: int, remote: int, remote_port: int) -> int:
        port: int = self._things[handle].bind_interdomain(remote, remote_port)
        return port

    async def unbind(self, handle: int, port: int) -> None:
        self._things[handle].unbind(port)

    async def notify(self, handle: int, port: int) -> None:
        self._things[handle].notify(port)

    async def fires(self, handle: int, expected: bool) -> list[int]:
        """Take what is pending on a handle's ports, waiting for it (longer if it must come)."""
        channels: EventChannel = self._things[handle]
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(channels.fileno(), ready.set)
        try:
            await asyncio.wait_for(ready.wait(), EVENT_LIMIT if expected else NO_EVENT)
        except asyncio.TimeoutError:
            return []
        finally:
            loop.remove_reader(channels.fileno())
        ports = []
        while (port := channels.pending()) is not None:
            ports.append(port)
        return ports


class Peer:
    """Has another domain do things: `await peer("read", path)`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._path = ""
        self._numbers = itertools.count(1)
        self._answered = asyncio.Event()

    async def await_domain(self, domid: int) -> None:
        """Wait until `serve` runs in a domain: this is a peer in it from then on."""
        self._path = f"/local/domain/{domid}/{FOLDER}"
        await self._store.watch(f"{self._path}/answer", lambda path: self._answered.set())
        await asyncio.wait_for(self._answer(0), ANSWER_LIMIT)

    async def __call__(self, name: str, *arguments: Any, **more: Any) -> Any:
        number = next(self._numbers)
        asked = {"id": number, "name": name, "arguments": arguments, "more": more}
        await self._store.write(f"{self._path}/ask", json.dumps(asked))
        return await asyncio.wait_for(self._answer(number), ANSWER_LIMIT)

    async def _answer(self, number: int) -> Any:
        while True:
            self._answered.clear()
            with suppress(NotFoundError):
                answer = json.loads(await self._store.read(f"{self._path}/answer"))
                if answer["id"] == number:
                    return answer["result"]
            await self._answered.wait()


async def serve() -> None:
    """Do what a Peer in domain 0 asks."""
    hands = Hands()
    await hands.connect()
    store = await Store.open(hands.hv)
    asked = asyncio.Event()
    await store.watch(f"{FOLDER}/ask", lambda path: asked.set())
    last = 0
    await store.write(f"{FOLDER}/answer", json.dumps({"id": 0, "result": None}))
    while True:
        await asked.wait()
        asked.clear()
        with suppress(NotFoundError):
            request = json.loads(await store.read(f"{FOLDER}/ask"))
            if request["id"] == last:
                continue
            last = request["id"]
            result = await hands(request["name"], *request["arguments"], **request["more"])
            await store.write(f"{FOLDER}/answer", json.dumps({"id": last, "result": result}))
