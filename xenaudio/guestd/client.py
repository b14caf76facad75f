# SPDX-License-Identifier: LGPL-2.1-or-later
"""A client: one process, its connections, and what it was given."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import os
import socket
import struct
from dataclasses import dataclass

from xenaudio.core.errors import XenAudioError
from xenaudio.core.store import Store
from xenaudio.core.xswire import WireError

from . import wire
from .cards import Cards
from .connection import Connection
from .devices import Devices, Grant, Handle
from .limits import Limit, Limits
from .ownership import Closing, Ownership
from .wire import Request

log = logging.getLogger(__name__)


@dataclass
class Shared:
    """What all clients share."""

    store: Store
    cards: Cards
    devices: Devices
    ownership: Ownership
    limits: Limits


@dataclass
class _Handle:
    handle: Handle
    generation: int
    """Of the domain's life (cards.py) in which it was made."""


class Client:
    """Serves a process's connection, and those it asked for beside it, to the end of the first.

    WireError from the beginning: its user has as many connections as a user may have.
    """

    def __init__(self, shared: Shared, sock: socket.socket, uid: int, pid: int) -> None:
        self.uid = uid
        self.pid = pid
        self.store = shared.store
        self.cards = shared.cards
        self.limits = shared.limits
        self.ownership = shared.ownership
        self._devices = shared.devices
        self._numbers = itertools.count(1)
        self._grants: dict[int, Grant] = {}
        self._handles: dict[int, _Handle] = {}
        self.limits.take(uid, Limit.CONNECTIONS, error=errno.EBUSY)
        self._first = Connection(self, sock)
        self._further: dict[Connection, asyncio.Task[None]] = {}
        self._closings: set[Closing] = set()

    def connections(self) -> list[Connection]:
        """Return the connections."""
        return [self._first, *self._further]

    def end(self) -> None:
        """Have `run` come to its end."""
        for connection in self.connections():
            connection.end()

    async def run(self) -> None:
        """Serve it to its end; then close its cards, and take back what it was given."""
        log.debug("process %d of user %d comes", self.pid, self.uid)
        try:
            await self._serve(self._first)
        finally:
            for connection in self._further:
                connection.end()
            await asyncio.gather(*self._further.values(), return_exceptions=True)
            # The backend uses the pages until it has let go of them.
            for closing in self._closings:
                await closing.disconnected.wait()
            await self._take_back()
            log.debug("process %d of user %d has gone", self.pid, self.uid)

    async def _serve(self, connection: Connection) -> None:
        try:
            await connection.run()
        finally:
            self.limits.give(self.uid, Limit.CONNECTIONS)
            self._closings |= set(self.ownership.end(connection))

    async def _take_back(self) -> None:
        for number in list(self._grants):
            self._end_grant(number)
        if self._handles:
            try:
                await self.cards.look()
            except XenAudioError as error:
                log.error("XenStore cannot be asked whether this guest was restored: %s", error)
        for number in list(self._handles):
            self._end_handle(number)

    # What it is given.

    def has_reference(self, reference: int) -> bool:
        """Say whether one of its pages has this reference."""
        return any(reference in grant.refs for grant in self._grants.values())

    def has_port(self, port: int) -> bool:
        """Say whether a port is one of its handles'."""
        return any(port in made.handle.ports for made in self._handles.values())

    async def request(self, kind: int, payload: bytes) -> tuple[bytes, list[int]]:
        """Do one of guestd_wire.h's requests: the reply, and descriptors that go with it."""
        if kind == Request.STORE:
            if payload:
                raise WireError(errno.EINVAL)
            return b"", [self._further_connection()]
        if kind == Request.GRANT:
            return await self._grant(*_unpack(wire.GRANT, payload))
        if kind == Request.GRANT_END:
            (number,) = _unpack(wire.U32, payload)
            if number not in self._grants:
                raise WireError(errno.ENOENT)
            self._end_grant(number)
            return b"", []
        if kind == Request.EVTCHN:
            return await self._event_channel(*_unpack(wire.EVTCHN, payload))
        if kind == Request.EVTCHN_END:
            (number,) = _unpack(wire.U32, payload)
            await self.cards.look()
            if number not in self._handles:
                raise WireError(errno.ENOENT)
            self._end_handle(number)
            return b"", []
        raise WireError(errno.ENOSYS)

    def _further_connection(self) -> int:
        self.limits.take(self.uid, Limit.CONNECTIONS, error=errno.EBUSY)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        connection = Connection(self, ours)
        task = asyncio.create_task(self._serve(connection))
        self._further[connection] = task
        task.add_done_callback(lambda _task: self._further.pop(connection, None))
        return theirs.detach()

    async def _check_backend(self, remote: int) -> None:
        if not await self.cards.is_backend(remote):
            raise WireError(errno.EACCES)

    async def _grant(self, remote: int, _reserved: int, count: int) -> tuple[bytes, list[int]]:
        if not 1 <= count <= wire.GRANT_MAX:
            raise WireError(errno.EINVAL)
        await self._check_backend(remote)
        self.limits.take(self.uid, Limit.GRANTS)
        try:
            self.limits.take(self.uid, Limit.PAGES, count)
            try:
                grant = await self._devices.grant(remote, count)
            except BaseException:
                self.limits.give(self.uid, Limit.PAGES, count)
                raise
        except BaseException:
            self.limits.give(self.uid, Limit.GRANTS)
            raise
        number = next(self._numbers)
        self._grants[number] = grant
        head = wire.GRANTED.pack(grant.offset, number, 0)
        return head + struct.pack(f"={count}I", *grant.refs), [os.dup(grant.fd)]

    def _end_grant(self, number: int) -> None:
        grant = self._grants.pop(number)
        grant.close()
        self.limits.give(self.uid, Limit.PAGES, len(grant.refs))
        self.limits.give(self.uid, Limit.GRANTS)

    async def _event_channel(
        self, remote: int, _reserved: int, count: int
    ) -> tuple[bytes, list[int]]:
        if not 1 <= count <= wire.PORTS_MAX:
            raise WireError(errno.EINVAL)
        await self._check_backend(remote)
        self.limits.take(self.uid, Limit.HANDLES)
        try:
            domid = await self.cards.domid()
            generation = self.cards.generation
            handle = await self._devices.event_channel(domid, remote, count)
        except BaseException:
            self.limits.give(self.uid, Limit.HANDLES)
            raise
        number = next(self._numbers)
        self._handles[number] = _Handle(handle, generation)
        reply = struct.pack(f"={1 + count}I", number, *handle.ports)
        return reply, [os.dup(fd) for fd in handle.fds]

    def _end_handle(self, number: int) -> None:
        made = self._handles.pop(number)
        made.handle.close(lost=made.generation != self.cards.generation)
        self.limits.give(self.uid, Limit.HANDLES)


def _unpack(form: struct.Struct, payload: bytes) -> tuple[int, ...]:
    if len(payload) != form.size:
        raise WireError(errno.EINVAL)
    return form.unpack(payload)
