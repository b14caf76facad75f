# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service: takes connections in, and follows what concerns all of them."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import Sequence

from xenaudio.core.hv import Hypervisor
from xenaudio.core.store import Store
from xenaudio.core.xswire import WireError

from .cards import Cards
from .client import Client, Shared
from .devices import Devices, LocalDevices, XenDevices
from .limits import Limits
from .ownership import Ownership
from .sessions import Sessions

log = logging.getLogger(__name__)

CLIENTS_MAX = 256
"""Of all users."""
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid


class Service:
    """Serves clients on `sockets` until stopped. They are listening, and the caller's to close."""

    def __init__(self, hv: Hypervisor, sockets: Sequence[socket.socket]) -> None:
        self._hv = hv
        self._sockets = sockets
        self._clients: dict[Client, asyncio.Task[None]] = {}
        self.ready = asyncio.Event()
        """Set when clients are served."""

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set. Raises XenAudioError when XenStore is out of reach or lost,
        and OSError when one of Xen's devices is."""
        devices: Devices
        if self._hv.address == "xen":
            devices = XenDevices()
            devices.check()
        else:
            devices = LocalDevices(self._hv.address)
        store = await Store.open(self._hv)
        cards = Cards(store, self._changed)
        self._sessions = Sessions(self._sessions_changed)
        self._ownership = Ownership(cards, self._sessions.rank, devices.in_kernel)
        self._shared = Shared(store, cards, devices, self._ownership, Limits())
        accepting: list[asyncio.Task[None]] = []
        try:
            await cards.start()
            self._sessions.start()
            accepting += [asyncio.create_task(self._accept(sock)) for sock in self._sockets]
            log.info(
                "serving domain %d's vsnd devices through %s",
                await cards.domid(),
                self._hv.address,
            )
            self.ready.set()
            await store.until(stop)
            log.info("stopping")
        finally:
            for task in accepting:
                task.cancel()
            await asyncio.gather(*accepting, return_exceptions=True)
            await self._end_clients()
            await self._ownership.finish()
            self._sessions.stop()
            store.close()

    async def _end_clients(self) -> None:
        for client in self._clients:
            client.end()
        await asyncio.gather(*self._clients.values(), return_exceptions=True)

    async def _accept(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        sock.setblocking(False)
        while True:
            try:
                accepted, _ = await loop.sock_accept(sock)
            except OSError as error:
                # Such as too many open files.
                log.error("a connection cannot be taken: %s", error.strerror)
                await asyncio.sleep(1)
                continue
            self._take(accepted)

    def _take(self, accepted: socket.socket) -> None:
        credentials = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _gid = _CREDENTIALS.unpack(credentials)
        try:
            if len(self._clients) >= CLIENTS_MAX:
                raise WireError(errno.EBUSY)
            client = Client(self._shared, accepted, uid, pid)
        except WireError:
            log.warning("user %d (process %d): too many connections: this one is closed", uid, pid)
            accepted.close()
            return
        task = asyncio.create_task(client.run(), name=f"client {pid}")
        self._clients[client] = task
        task.add_done_callback(lambda task: self._gone(client, task))

    def _gone(self, client: Client, task: asyncio.Task[None]) -> None:
        del self._clients[client]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("process %d of user %d", client.pid, client.uid, exc_info=error)

    def _changed(self, path: str) -> None:
        self._ownership.changed()
        for client in self._clients:
            for connection in client.connections():
                connection.fire(path)

    def _sessions_changed(self) -> None:
        self._ownership.reconsider()
