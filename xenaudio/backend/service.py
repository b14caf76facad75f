# SPDX-License-Identifier: LGPL-2.1-or-later
"""The backend service: finds the guests' vsnd devices in XenStore and serves each."""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass, field
from typing import Any

from xenaudio.backend.device import Device
from xenaudio.backend.pace import Pace
from xenaudio.backend.routes import Routes
from xenaudio.backend.statslog import JsonStatsLog
from xenaudio.core.engine import Engine
from xenaudio.core.errors import NotFoundError, XenAudioError
from xenaudio.core.hv import Hypervisor
from xenaudio.core.store import Store

log = logging.getLogger(__name__)

# Handshakes of one guest: so many at once, then so many a second.
HANDSHAKE_BURST = 20
HANDSHAKES_PER_SECOND = 4.0
STATS_SECONDS = 0.1


@dataclass
class _Served:
    device: Device
    task: asyncio.Task[None]


@dataclass
class Service:
    """Serves every device of every guest until stopped.

    `ready` is set when the devices that were there at the start are found.
    """

    hv: Hypervisor
    routes: Routes
    stats_log: JsonStatsLog | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    _devices: dict[str, _Served] = field(default_factory=dict)
    _paces: dict[int, Pace] = field(default_factory=dict)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set. Raises XenAudioError when XenStore is out of reach."""
        # Done when the service is to stop; failed when XenStore is lost.
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_closed(error: XenAudioError) -> None:
            if not lost.done():
                lost.set_exception(error)

        self._store = await Store.open(self.hv, on_closed)
        self._engine = Engine()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._engine.fd, self._engine_told)
        stats_task = asyncio.create_task(self._log_stats()) if self.stats_log else None
        try:
            self._root = f"/local/domain/{await self._own_domid()}/backend/vsnd"
            log.info("serving %s through %s", self._root, self.hv.address)
            token = await self._store.watch(self._root, self._noticed)
            await self._scan()
            self.ready.set()
            stopping = asyncio.create_task(stop.wait())
            either: set[asyncio.Future[Any]] = {stopping, lost}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if lost.done():
                lost.result()
            log.info("stopping")
            await self._store.unwatch(token)
        finally:
            if stats_task:
                stats_task.cancel()
            await self._stop_devices()
            loop.remove_reader(self._engine.fd)
            self._engine.close()
            self._store.close()

    async def _own_domid(self) -> int:
        try:
            return int(await self._store.read("domid"))
        except (NotFoundError, ValueError):
            # A dom0 whose toolstack has not written it.
            return 0

    def _noticed(self, path: str) -> None:
        """Something changed at or below the root: serve the device if it is a new one."""
        found = re.fullmatch(re.escape(self._root) + r"/(\d{1,5})/(\d{1,5})(/.*)?", path)
        if found is None:
            return
        device = f"{self._root}/{found[1]}/{found[2]}"
        if device not in self._devices:
            self._serve(device)

    async def _scan(self) -> None:
        try:
            guests = await self._store.directory(self._root)
        except NotFoundError:
            return
        for guest in guests:
            try:
                for device in await self._store.directory(f"{self._root}/{guest}"):
                    self._noticed(f"{self._root}/{guest}/{device}")
            except NotFoundError:
                continue

    def _serve(self, path: str) -> None:
        domid = int(path.split("/")[-2])
        pace = self._paces.setdefault(domid, Pace(HANDSHAKES_PER_SECOND, HANDSHAKE_BURST))
        device = Device(self._store, self.hv, self._engine, self.routes, path, pace, self.stats_log)
        task = asyncio.create_task(device.run(), name=path)
        self._devices[path] = _Served(device, task)
        task.add_done_callback(lambda task: self._ended(path, task))

    def _ended(self, path: str, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        served = self._devices.pop(path)
        error = task.exception()
        if error is not None:
            log.error("%s: not served any more", served.device, exc_info=error)
        domid = served.device.guest_id
        if not any(s.device.guest_id == domid for s in self._devices.values()):
            self._paces.pop(domid, None)

    def _engine_told(self) -> None:
        self._engine.clear()
        for served in self._devices.values():
            served.device.suspect()

    async def _log_stats(self) -> None:
        assert self.stats_log is not None
        while True:
            await asyncio.sleep(STATS_SECONDS)
            for served in self._devices.values():
                for stream in served.device.streams:
                    self.stats_log.record(stream)

    async def _stop_devices(self) -> None:
        served, self._devices = list(self._devices.values()), {}
        for one in served:
            one.task.cancel()
        await asyncio.gather(*(one.task for one in served), return_exceptions=True)
        await asyncio.gather(*(one.device.stop() for one in served))
