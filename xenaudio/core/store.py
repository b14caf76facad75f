# SPDX-License-Identifier: LGPL-2.1-or-later
"""XenStore for asyncio: the C client (csrc/hv/store.h) on the running event loop.

A request is sent when it is made; awaiting it waits for the reply. Requests made together share
their round trips: `asyncio.gather(store.read(a), store.read(b))` takes one. (Where xenstored is in
another domain each has its own: the kernel's device takes one request at a time.)
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, Union

from xenaudio.core.errors import ConflictError, NotFoundError, XenAudioError, check, make_error
from xenaudio.core.ffi import ffi, lib
from xenaudio.core.hv import Hypervisor

log = logging.getLogger(__name__)

_T = TypeVar("_T")

Tree = dict[str, Union[str, "Tree"]]
"""A node's children: one without children of its own is its value, one with children is a Tree. A
value that such a node has beside its children (few have) is under the name ""."""

TRANSACTIONS_MAX = 4
"""Transactions of one connection at once: xenstored lets a domain that is not dom0 have 10."""

TREE_NODES_MAX = 4096
"""Nodes that read_tree reads unless told otherwise: the other end may own the tree."""


class _Request:
    """One request that waits for its reply."""

    def __init__(self, store: Store, what: str, future: asyncio.Future[bytes]) -> None:
        self.store = store
        self.what = what
        self.future = future
        self.handle = ffi.new_handle(self)


@ffi.def_extern()  # type: ignore[untyped-decorator, unused-ignore]
def xa_py_store_reply(user: Any, error: int, data: Any, length: int) -> None:
    """Take a reply from C."""
    request: _Request = ffi.from_handle(user)
    request.store._requests.discard(request)
    if request.future.done():
        return
    if error < 0:
        request.future.set_exception(make_error(error, request.what))
    else:
        request.future.set_result(bytes(ffi.buffer(data, length)))


@ffi.def_extern()  # type: ignore[untyped-decorator, unused-ignore]
def xa_py_store_watch(user: Any, path: Any, token: Any) -> None:
    """Take a watch from C."""
    store: Store = ffi.from_handle(user)
    store._fired.append((_decode(ffi.string(path)), _decode(ffi.string(token))))


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def _encode(text: str, what: str) -> bytes:
    if "\0" in text:
        raise make_error(errno.EINVAL, f"{what}: there is a 0 in it")
    return text.encode("utf-8", "surrogateescape")


def _join(path: str, name: str) -> str:
    return f"/{name}" if path == "/" else f"{path}/{name}"


class Store:
    """A connection to XenStore.

    Paths are absolute, or relative to the domain's own. Values are text; octets that are not UTF-8
    survive as surrogates (PEP 383). `tx` is a transaction's id, or 0. Every request raises a
    XenAudioError: the server's error, or ClosedError when the connection ended.
    """

    def __init__(self, fd: int) -> None:
        """Speak over `fd`, and take it over: it is closed also when this raises."""
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._ended.add_done_callback(_look_at)
        self._requests: set[_Request] = set()
        self._fired: deque[tuple[str, str]] = deque()
        self._watches: dict[str, tuple[str, Callable[[str], None]]] = {}
        self._tokens = itertools.count(1)
        self._transactions = asyncio.Semaphore(TRANSACTIONS_MAX)
        self._self = ffi.new_handle(self)
        self._store = lib.xa_store_new(fd, lib.xa_py_store_watch, self._self)
        if self._store == ffi.NULL:
            self._store = None
            error = make_error(ffi.errno, f"use file descriptor {fd} for XenStore")
            if error.errno != errno.EBADF:
                os.close(fd)
            raise error
        self._fd = fd
        self._writing = False
        try:
            self._loop.add_reader(fd, self._process)
        except BaseException:
            lib.xa_store_free(self._store)
            self._store = None
            raise

    @classmethod
    async def open(cls, hv: Hypervisor) -> Store:
        """Connect to a hypervisor's XenStore."""
        return cls(hv.connect_store())

    @property
    def closed(self) -> bool:
        """Whether the connection is over."""
        return self._store is None

    async def until(self, stop: asyncio.Event) -> None:
        """Wait until `stop` is set. Raises what ended the connection when that is, or was, first.

        Every waiting request has got its ClosedError by then.
        """
        stopping = asyncio.ensure_future(stop.wait())
        either: set[asyncio.Future[Any]] = {stopping, self._ended}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if self._ended.done():
            self._ended.result()

    def close(self) -> None:
        """End the connection. Requests that still wait raise ClosedError."""
        if self._store is None:
            return
        self._end(make_error(errno.EPIPE, "the connection to XenStore was closed"))
        for request in self._requests:
            if not request.future.done():
                request.future.set_exception(make_error(errno.EPIPE, request.what))
        self._requests.clear()

    def _end(self, error: XenAudioError) -> None:
        self._loop.remove_reader(self._fd)
        if self._writing:
            self._loop.remove_writer(self._fd)
        lib.xa_store_free(self._store)
        self._store = None
        self._watches.clear()
        self._ended.set_exception(error)

    def _process(self) -> None:
        if self._store is None:
            return
        result = lib.xa_store_process(self._store)
        # Not from within C: a callback may close the store.
        while self._fired:
            path, token = self._fired.popleft()
            if token not in self._watches:
                continue
            watched, callback = self._watches[token]
            try:
                callback(path)
            except Exception:
                log.exception("the callback for a watch on %s failed", watched)
        if self._store is None:
            return
        if result < 0:
            error = make_error(result, "the connection to XenStore is lost")
            log.debug("%s", error)
            self._end(error)
            return
        self._update_writer()

    def _update_writer(self) -> None:
        wanted = bool(lib.xa_store_wants_write(self._store))
        if wanted and not self._writing:
            self._loop.add_writer(self._fd, self._process)
        elif self._writing and not wanted:
            self._loop.remove_writer(self._fd)
        self._writing = wanted

    def _ask(
        self,
        what: str,
        function: Any,
        *arguments: Any,
    ) -> asyncio.Future[bytes]:
        if self._store is None:
            raise make_error(errno.EPIPE, what)
        request = _Request(self, what, self._loop.create_future())
        request.future.add_done_callback(_look_at)
        result = function(self._store, *arguments, lib.xa_py_store_reply, request.handle)
        if result == -errno.EPIPE:
            # Writing failed, and nothing need become readable: collect the error.
            self._loop.call_soon(self._process)
        check(result, what)
        self._requests.add(request)
        self._update_writer()
        return request.future

    async def read(self, path: str, tx: int = 0) -> str:
        """Return a node's value."""
        what = f"read {path}"
        return _decode(await self._ask(what, lib.xa_store_read, tx, _encode(path, what)))

    async def directory(self, path: str, tx: int = 0) -> list[str]:
        """Return the names of a node's children."""
        what = f"list {path}"
        data = await self._ask(what, lib.xa_store_directory, tx, _encode(path, what))
        return _strings(data)

    async def write(self, path: str, value: str, tx: int = 0) -> None:
        """Set a node's value, making it and its parents as needed."""
        what = f"write {path}"
        arguments = (tx, _encode(path, what), _encode(value, what))
        await self._ask(what, lib.xa_store_write, *arguments)

    async def mkdir(self, path: str, tx: int = 0) -> None:
        """Make a node; one that exists is no error."""
        what = f"make {path}"
        await self._ask(what, lib.xa_store_mkdir, tx, _encode(path, what))

    async def rm(self, path: str, tx: int = 0) -> None:
        """Remove a node and what is below it; one that does not exist is no error."""
        what = f"remove {path}"
        await self._ask(what, lib.xa_store_rm, tx, _encode(path, what))

    async def get_perms(self, path: str, tx: int = 0) -> list[str]:
        """Return a node's permissions, the owner's first: ["n1", "r0"]."""
        what = f"get the permissions of {path}"
        return _strings(await self._ask(what, lib.xa_store_get_perms, tx, _encode(path, what)))

    async def set_perms(self, path: str, perms: Sequence[str], tx: int = 0) -> None:
        """Set a node's permissions: letter (n, r, w, b) and domain, the owner's first."""
        what = f"set the permissions of {path}"
        texts = [ffi.new("char[]", _encode(perm, what)) for perm in perms]
        array = ffi.new("char *[]", texts)
        arguments = (tx, _encode(path, what), array, len(texts))
        await self._ask(what, lib.xa_store_set_perms, *arguments)

    async def get_domain_path(self, domid: int) -> str:
        """Return a domain's own path, /local/domain/<domid>."""
        what = f"get the path of domain {domid}"
        return _decode(await self._ask(what, lib.xa_store_get_domain_path, domid))

    async def watch(self, path: str, callback: Callable[[str], None]) -> str:
        """Call `callback` with the changed path whenever something at or below `path` changes.

        It is also called once, with `path`, when the watch is set. Paths that begin with "@" are
        XenStore's special ones. Returns the token for `unwatch`.
        """
        what = f"watch {path}"
        token = str(next(self._tokens))
        # Before the reply: the first event may come before it.
        self._watches[token] = (path, callback)
        try:
            await self._ask(what, lib.xa_store_watch, _encode(path, what), token.encode())
        except BaseException:
            self._watches.pop(token, None)
            raise
        return token

    async def unwatch(self, token: str) -> None:
        """End a watch. Its callback is not called again, from this moment."""
        if token not in self._watches:
            raise NotFoundError(errno.ENOENT, f"end the watch {token!r}")
        path, _callback = self._watches.pop(token)
        what = f"end the watch on {path}"
        await self._ask(what, lib.xa_store_unwatch, _encode(path, what), token.encode())

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[int]:
        """Begin a transaction and give its id; commit it at the end, or abort it on an exception.

        ConflictError at the end: begin again (or use `run_transaction`).
        """
        async with self._transactions:
            started = self._ask("begin a transaction", lib.xa_store_transaction_start)
            try:
                tx = _transaction_id(await asyncio.shield(started))
            except asyncio.CancelledError:
                started.add_done_callback(self._abort_started)
                raise
            try:
                yield tx
            except BaseException:
                self._abort(tx)
                raise
            await self._ask("commit a transaction", lib.xa_store_transaction_end, tx, True)

    def _abort(self, tx: int) -> None:
        # Nobody waits for it: what ended the transaction is to be heard at once.
        if self._store is not None:
            lib.xa_store_transaction_end(self._store, tx, False, ffi.NULL, ffi.NULL)
            self._update_writer()

    def _abort_started(self, started: asyncio.Future[bytes]) -> None:
        if not started.cancelled() and started.exception() is None:
            self._abort(_transaction_id(started.result()))

    async def run_transaction(
        self, function: Callable[[int], Awaitable[_T]], attempts: int = 100
    ) -> _T:
        """Run `function` with a transaction's id until its commit succeeds; return its result.

        ConflictError after `attempts` conflicts.
        """
        for attempt in itertools.count(1):
            try:
                async with self.transaction() as tx:
                    result = await function(tx)
            except ConflictError:
                if attempt >= attempts:
                    raise
            else:
                return result
        raise AssertionError("unreachable")

    async def read_tree(
        self,
        path: str,
        tx: int = 0,
        limit: int = TREE_NODES_MAX,
        is_folder: Callable[[str], bool] = lambda _name: True,
    ) -> Tree:
        """Read everything below a node, in as many round trips as it has levels.

        A node below `path` whose name is not `is_folder`'s is its value, whatever is below it.
        Nodes that go away meanwhile are left out; NotFoundError when `path` itself is not there.
        E2BIG when there are more than `limit` nodes. Without a transaction it is no snapshot.
        """
        root: Tree = {}
        # Each with its place: the tree that it is part of, None for the root.
        level: list[tuple[str, str, Tree | None]] = [(path, "", None)]
        nodes = 1
        nothing: asyncio.Future[bytes] = self._loop.create_future()
        nothing.set_result(b"")
        while level:
            asked = []
            for node, name, parent in level:
                what = f"read the tree {node}"
                text = _encode(node, what)
                if parent is None or is_folder(name):
                    asked.append(self._ask(what, lib.xa_store_directory, tx, text))
                else:
                    asked.append(nothing)
                asked.append(self._ask(what, lib.xa_store_read, tx, text))
            replies = await asyncio.gather(*asked, return_exceptions=True)
            below: list[tuple[str, str, Tree | None]] = []
            for i, (node, name, parent) in enumerate(level):
                entries, value = replies[2 * i], replies[2 * i + 1]
                if isinstance(entries, BaseException) or isinstance(value, BaseException):
                    gone = isinstance(entries, NotFoundError) or isinstance(value, NotFoundError)
                    if gone and parent is not None:
                        continue
                    raise next(r for r in (entries, value) if isinstance(r, BaseException))
                names = _strings(entries)
                nodes += len(names)
                if nodes > limit:
                    raise make_error(errno.E2BIG, f"read the tree {path}: over {limit} nodes")
                if parent is None:
                    tree = root
                elif names:
                    tree = parent[name] = {}
                else:
                    parent[name] = _decode(value)
                    continue
                if value:
                    tree[""] = _decode(value)
                below += [(_join(node, child), child, tree) for child in names]
            level = below
        return root


def _look_at(future: asyncio.Future[Any]) -> None:
    """Keep asyncio from complaining of an error that nobody awaits, or not any more."""
    if not future.cancelled():
        future.exception()


def _transaction_id(data: bytes) -> int:
    if not data.isdigit() or not 0 < int(data) <= 0xFFFFFFFF:
        raise make_error(errno.EPROTO, f"begin a transaction: its id is {data!r}")
    return int(data)


def _strings(data: bytes) -> list[str]:
    return [_decode(part) for part in data.split(b"\0")[:-1]]
