# SPDX-License-Identifier: LGPL-2.1-or-later
"""One connection of a client: its requests one after the other, its watches and transactions.

A request is read when the one before it was answered and its reply written, so a client makes the
service hold one request for it, and a bounded number of watch events. Writes of a transaction are
kept here and made in one of XenStore's when it is committed: no client holds one open there, where
a domain has few. (What a transaction reads is what is there now, and what it writes itself.)
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xenaudio.core import xswire
from xenaudio.core.errors import XenAudioError
from xenaudio.core.xsoutput import Output
from xenaudio.core.xswire import Header, Type, WireError

from . import nodes
from .limits import Limit
from .nodes import Node, Write

if TYPE_CHECKING:
    from .client import Client

log = logging.getLogger(__name__)

REPLY_LIMIT = 64 * 1024
"""Octets of output at which a connection's requests wait."""
TRANSACTION_WRITES = 512
"""Of one transaction: a card of 64 streams takes 259."""

_OK = b"OK\0"


class _Ended(Exception):
    """The connection is over."""


@dataclass
class _Transaction:
    writes: list[Write] = field(default_factory=list)


class Connection:
    """A socket that speaks xs_wire. `run` serves it to its end."""

    def __init__(self, client: Client, sock: socket.socket) -> None:
        self._client = client
        self._sock = sock
        sock.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._in = bytearray()
        self._out = Output(sock)
        self._counted = 0  # octets of it
        self._room = asyncio.Event()
        self._room.set()
        self._writing = False
        self._watches: dict[tuple[bytes, bytes], Node] = {}
        self._transactions: dict[int, _Transaction] = {}
        self._numbers = itertools.count(1)

    @property
    def uid(self) -> int:
        """The user."""
        return self._client.uid

    async def run(self) -> None:
        """Serve requests until the client ends, or breaks the protocol."""
        try:
            while True:
                header, payload = await self._receive()
                await self._answer(header, payload)
                await self._room.wait()
        except _Ended as end:
            if end.args:
                log.warning("user %d: %s: connection closed", self.uid, end.args[0])
        finally:
            self._close()

    # The socket.

    async def _receive(self) -> tuple[Header, bytes]:
        await self._fill(xswire.HEADER.size)
        header = xswire.unpack_header(self._in)
        if header.length > xswire.PAYLOAD_MAX:
            raise _Ended(f"a message of {header.length} octets, the most is {xswire.PAYLOAD_MAX}")
        end = xswire.HEADER.size + header.length
        await self._fill(end)
        payload = bytes(self._in[xswire.HEADER.size : end])
        del self._in[:end]
        return header, payload

    async def _fill(self, octets: int) -> None:
        while len(self._in) < octets:
            try:
                data = await self._loop.sock_recv(self._sock, 4096)
            except OSError:
                raise _Ended from None
            if not data:
                raise _Ended
            self._in += data

    def _queued(self) -> None:
        """Something was put in the queue."""
        if self._writing:
            self._count()
        else:
            self._flush()

    def _count(self) -> None:
        """Have the user's limit know what waits here."""
        octets = self._out.octets
        try:
            if octets > self._counted:
                self._client.limits.take(self.uid, Limit.OCTETS, octets - self._counted)
            else:
                self._client.limits.give(self.uid, Limit.OCTETS, self._counted - octets)
            self._counted = octets
        except WireError:
            log.warning("user %d: it does not read what it is sent: connection closed", self.uid)
            self.end()
            self._out.close()
            self._count()
        if self._out.octets <= REPLY_LIMIT:
            self._room.set()
        else:
            self._room.clear()

    def _flush(self) -> None:
        try:
            self._out.write()
        except OSError:
            self.end()
            self._out.close()
        self._count()
        wanted = bool(self._out)
        if wanted and not self._writing:
            self._loop.add_writer(self._sock, self._flush)
        elif self._writing and not wanted:
            self._loop.remove_writer(self._sock)
        self._writing = wanted

    def end(self) -> None:
        """Have `run` come to its end."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            log.debug("the other end has gone already")
        self._room.set()

    def _close(self) -> None:
        if self._writing:
            self._loop.remove_writer(self._sock)
        self._out.close()
        self._count()
        limits = self._client.limits
        limits.give(self.uid, Limit.WATCHES, len(self._watches))
        for transaction in self._transactions.values():
            self._drop(transaction)
        self._watches.clear()
        self._transactions.clear()
        self._sock.close()

    # Requests.

    async def _answer(self, header: Header, payload: bytes) -> None:
        fds: list[int] = []
        fired: Node | None = None
        try:
            if header.type >= 0x1000:
                if header.tx_id:
                    raise WireError(errno.EINVAL)
                reply, fds = await self._client.request(header.type, payload)
            elif header.type == Type.WATCH:
                reply, fired = _OK, await self._watch(payload)
            else:
                reply = await self._store(header, payload)
            if len(reply) > xswire.PAYLOAD_MAX:
                raise WireError(errno.E2BIG)
        except (WireError, XenAudioError) as error:
            name = (error if isinstance(error, WireError) else _as_wire(error)).name
            reply = name.encode() + b"\0"
            header = header._replace(type=Type.ERROR)
        self._out.put(xswire.pack(header.type, header.req_id, header.tx_id, reply), fds)
        self._queued()
        if fired is not None:
            self._fire_watch(payload)

    async def _store(self, header: Header, payload: bytes) -> bytes:
        kind, tx = header.type, header.tx_id
        if kind in nodes.REFUSED:
            raise WireError(errno.EACCES)
        if kind == Type.UNWATCH:
            self._unwatch(payload)
            return _OK
        if kind == Type.TRANSACTION_START:
            if tx:
                raise WireError(errno.EBUSY)
            return b"%d\0" % self._begin()
        if tx and tx not in self._transactions:
            raise WireError(errno.ENOENT)
        if kind == Type.TRANSACTION_END:
            if payload not in (b"T\0", b"F\0"):
                raise WireError(errno.EINVAL)
            await self._commit(tx, payload == b"T\0")
            return _OK
        domid = await self._client.cards.domid()
        if kind == Type.WRITE:
            await self._write(nodes.parse_write(payload, domid), tx)
            return _OK
        if kind not in (Type.READ, Type.DIRECTORY):
            raise WireError(errno.ENOSYS)
        node = nodes.parse_path(payload, domid)
        await self._check_backend(node)
        if kind == Type.DIRECTORY:
            names = await self._client.store.directory(node.path)
            return b"".join(name.encode("utf-8", "surrogateescape") + b"\0" for name in names)
        for write in reversed(self._transactions[tx].writes if tx else []):
            if write.node == node:
                return write.value.encode()
        if node.inside == "state" and node.backend is None:
            self._check_turn(node)
        value = await self._client.store.read(node.path)
        return value.encode("utf-8", "surrogateescape")

    async def _check_backend(self, node: Node) -> None:
        if node.backend is None or node.device is None:
            return
        backend = await self._client.cards.backend(node.device)
        if backend is None or backend[0] != node.backend:
            raise WireError(errno.EACCES)

    # Cards.

    def _check_turn(self, node: Node) -> None:
        """Who watches a device and reads its state is its frontend, or wants to be."""
        watched = any(
            watch.device == node.device and watch.backend is None and not watch.inside
            for watch in self._watches.values()
        )
        if watched and node.device is not None:
            self._ask(node.device)

    def _ask(self, device: int) -> None:
        if not self._client.ownership.ask(self, device):
            raise WireError(errno.EBUSY)

    async def _write(self, write: Write, tx: int) -> None:
        device = write.node.device
        assert device is not None
        await self._check_device(device)
        self._ask(device)
        if write.reference is not None and not self._client.has_reference(write.reference):
            raise WireError(errno.EACCES)
        if write.port is not None and not self._client.has_port(write.port):
            raise WireError(errno.EACCES)
        if write.stream is not None and not await self._client.cards.has_stream(
            device, *write.stream
        ):
            raise WireError(errno.EACCES)
        if not tx:
            # It may have lost the card meanwhile.
            self._ask(device)
            if write.is_state:
                await self._client.cards.write_state(device, write.value)
            else:
                await self._client.store.write(write.node.path, write.value)
            return
        transaction = self._transactions.get(tx)
        if transaction is None or write.is_state:
            # A state says that all the rest is there, and follows it.
            raise WireError(errno.EINVAL)
        if len(transaction.writes) == TRANSACTION_WRITES:
            raise WireError(errno.ENOSPC)
        self._client.limits.take(self.uid, Limit.WRITES)
        transaction.writes.append(write)

    async def _check_device(self, device: int) -> None:
        """A device that is not there is not made by writing to it."""
        if await self._client.cards.backend(device) is None:
            raise WireError(errno.ENOENT)

    # Transactions.

    def _begin(self) -> int:
        self._client.limits.take(self.uid, Limit.TRANSACTIONS)
        number = next(self._numbers)
        self._transactions[number] = _Transaction()
        return number

    def _drop(self, transaction: _Transaction) -> None:
        self._client.limits.give(self.uid, Limit.TRANSACTIONS)
        self._client.limits.give(self.uid, Limit.WRITES, len(transaction.writes))

    async def _commit(self, number: int, wanted: bool) -> None:
        transaction = self._transactions.pop(number, None)
        if transaction is None:
            raise WireError(errno.EINVAL)
        self._drop(transaction)
        if not wanted or not transaction.writes:
            return
        for device in {write.node.device for write in transaction.writes}:
            assert device is not None
            await self._check_device(device)
            self._ask(device)
        store = self._client.store

        async def write_all(tx: int) -> None:
            for write in transaction.writes:
                await store.write(write.node.path, write.value, tx)

        await store.run_transaction(write_all)

    # Watches.

    async def _watch(self, payload: bytes) -> Node:
        node, path, token = nodes.parse_watch(payload, await self._client.cards.domid())
        await self._check_backend(node)
        if (path, token) in self._watches:
            raise WireError(errno.EEXIST)
        if node.backend is not None and node.device is not None:
            await self._client.cards.follow(node.device)
        self._client.limits.take(self.uid, Limit.WATCHES, error=errno.E2BIG)
        self._watches[path, token] = node
        return node

    def _unwatch(self, payload: bytes) -> None:
        words = xswire.strings(payload)
        if len(words) != 2:
            raise WireError(errno.EINVAL)
        if self._watches.pop((words[0], words[1]), None) is None:
            raise WireError(errno.ENOENT)
        self._client.limits.give(self.uid, Limit.WATCHES)

    def _fire_watch(self, payload: bytes) -> None:
        self._deliver(*xswire.strings(payload))

    def fire(self, path: str) -> None:
        """Have the watches fire that a change of `path` concerns."""
        for (shown, token), node in self._watches.items():
            if path == node.path:
                self._deliver(shown, token)
            elif path.startswith(node.path + "/"):
                below = path[len(node.path) :]
                self._deliver(shown + below.encode("utf-8", "surrogateescape"), token)
            elif node.path.startswith(path + "/"):
                # What is above it may have been removed, and it with that.
                self._deliver(shown, token)

    def _deliver(self, path: bytes, token: bytes) -> None:
        payload = path + b"\0" + token + b"\0"
        if len(payload) <= xswire.PAYLOAD_MAX and not self._out.has_event(payload):
            self._out.put_event(payload)
            self._queued()


def _as_wire(error: XenAudioError) -> WireError:
    # A store that is lost is nothing that the client could mend.
    code = error.errno or errno.EIO
    return WireError(errno.EIO if code in (errno.EPIPE, errno.EPROTO) else code)
