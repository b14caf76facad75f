# SPDX-License-Identifier: LGPL-2.1-or-later
"""The backend service: finds the guests' vsnd devices in XenStore and serves each."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from dataclasses import dataclass, field

from xenaudio.backend.config import Config
from xenaudio.backend.device import Device
from xenaudio.backend.driverdomain import Remover
from xenaudio.backend.limits import GuestShare
from xenaudio.backend.statslog import JsonStatsLog
from xenaudio.core.engine import Engine
from xenaudio.core.errors import ClosedError, NotFoundError, XenAudioError
from xenaudio.core.hv import Hypervisor
from xenaudio.core.store import Store

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
STATS_SECONDS = 0.1


@dataclass
class _Served:
    """A backend directory, whatever device is in it."""

    device: Device | None = None
    noticed: bool = False  # something changed there since it was last looked at
    task: asyncio.Task[None] | None = None


@dataclass
class Service:
    """Serves every device of every guest until stopped.

    `ready` is set when the devices that were there at the start are found.
    """

    hv: Hypervisor
    config: Config
    stats_log: JsonStatsLog | None = None
    domid: int = 0
    """Our own domain's, once ready."""
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    _devices: dict[str, _Served] = field(default_factory=dict)
    _shares: dict[int, GuestShare] = field(default_factory=dict)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _remover: Remover | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set. Raises XenAudioError when XenStore is out of reach."""
        self._store = await Store.open(self.hv)
        try:
            self._engine = Engine()
        except XenAudioError:
            self._store.close()
            raise
        if refused := self._engine.refused_realtime:
            log.warning(
                "no real-time priority (%s): guests' sound may have gaps while this machine is"
                " busy; `ulimit -r`, or LimitRTPRIO= in a unit, must be 10 or more",
                refused,
            )
        loop = asyncio.get_running_loop()
        loop.add_reader(self._engine.fd, self._engine_told)
        stats_task = asyncio.create_task(self._log_stats()) if self.stats_log else None
        try:
            domid = await self._own_domid()
            self._root = f"/local/domain/{domid}/backend/vsnd"
            self.domid = domid
            if domid != 0:
                self._remover = Remover(self._store)
            token = await self._store.watch(self._root, self._noticed)
            await self._scan()
            log.info("serving %s through %s", self._root, self.hv.address)
            self.ready.set()
            await self._store.until(stop)
            log.info("stopping")
            await self._store.unwatch(token)
        finally:
            if stats_task:
                stats_task.cancel()
            await self._stop_devices()
            if self._remover is not None:
                await self._remover.stop()
            loop.remove_reader(self._engine.fd)
            self._engine.close()
            self._store.close()

    @property
    def devices(self) -> list[Device]:
        """The devices that are served, in the order of guests and cards."""
        found = [served.device for served in self._devices.values() if served.device is not None]
        return sorted(found, key=lambda device: (device.guest_id, device.devid))

    def reconfigure(self, config: Config) -> None:
        """Go by another configuration: each card from its next connection on."""
        self.config = config
        for device in self.devices:
            device.reconfigure(config)
            for stream in device.outdated():
                log.warning(
                    "%s: %s goes on with %s until its card connects anew (when its guest starts,"
                    " or the card is detached and attached, or this service restarts)",
                    device,
                    stream,
                    "silence: its microphone was denied"
                    if stream.microphone_denied
                    else stream.route,
                )

    async def _own_domid(self) -> int:
        try:
            return int(await self._store.read("domid"))
        except (NotFoundError, ValueError):
            # A dom0 whose toolstack has not written it.
            return 0

    def _noticed(self, path: str) -> None:
        """Something changed at or below the root: serve the device if it is a new one."""
        found = re.fullmatch(re.escape(self._root) + r"/(\d{1,5})/(\d{1,5})(/.*)?", path)
        if found is None or self._stopping.is_set():
            return
        directory = f"{self._root}/{found[1]}/{found[2]}"
        served = self._devices.get(directory)
        if served is None:
            served = self._devices[directory] = _Served()
            served.task = asyncio.create_task(self._serve(directory, served), name=directory)
        served.noticed = True
        if served.device is not None:
            served.device.wake()
        if self._remover is not None:
            self._remover.notice(directory)

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

    async def _serve(self, path: str, served: _Served) -> None:
        """Serve the device at `path`, and each that is made there after it, while there is one."""
        domid = int(path.split("/")[-2])
        share = self._shares.setdefault(domid, GuestShare())
        # What changes while a device ends, or while it is looked for, may be a new one.
        while served.noticed and not self._stopping.is_set():
            served.noticed = False
            try:
                if not await self._is_device(path):
                    continue
                if self._stopping.is_set():
                    break
                served.device = Device(
                    self._store, self.hv, self._engine, self.config, path, share, self.stats_log
                )
                await served.device.run()
            except ClosedError:
                break  # told once, for all
            except XenAudioError as error:
                # Such as a quota of xenstored's, which others may have used up for a moment.
                log.error(
                    "%s: %s; it is tried again in %.0f s",
                    served.device or path,
                    error,
                    RETRY_SECONDS,
                )
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), RETRY_SECONDS)
                served.noticed = True
            except Exception:
                log.exception("%s: not served any more", served.device or path)
                break
            finally:
                served.device = None
        if self._devices.get(path) is served:
            del self._devices[path]
        if not any(int(other.split("/")[-2]) == domid for other in self._devices):
            self._shares.pop(domid, None)

    async def _is_device(self, path: str) -> bool:
        try:
            await asyncio.gather(
                self._store.read(f"{path}/frontend"), self._store.read(f"{path}/state")
            )
        except NotFoundError:
            return False
        return True

    def _engine_told(self) -> None:
        self._engine.clear()
        for served in self._devices.values():
            if served.device is not None:
                served.device.suspect()

    async def _log_stats(self) -> None:
        assert self.stats_log is not None
        while True:
            await asyncio.sleep(STATS_SECONDS)
            for served in self._devices.values():
                for stream in served.device.streams if served.device is not None else ():
                    self.stats_log.record(stream)

    async def _stop_devices(self) -> None:
        self._stopping.set()
        for served in self._devices.values():
            if served.device is not None:
                served.device.end()
        await asyncio.gather(*(s.task for s in self._devices.values() if s.task is not None))
