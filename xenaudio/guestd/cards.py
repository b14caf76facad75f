# SPDX-License-Identifier: LGPL-2.1-or-later
"""The guest's vsnd devices, as XenStore has them now: their backends, streams and states.

All clients share one connection to XenStore and its watches: one on `device/vsnd` and one on each
backend directory that somebody watches. What was read is kept until a watch says that it changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from xenaudio.core.errors import NotFoundError, XenAudioError
from xenaudio.core.store import Store
from xenaudio.core.xenbus import XenbusState

from .nodes import FOLDER, is_frontends

log = logging.getLogger(__name__)

_DEVICE = re.compile(rf"{FOLDER}/([0-9]{{1,5}})(?:/(.*))?")


@dataclass
class _Card:
    """What is known of a device."""

    backend: tuple[int, str] | None = None
    """The backend's domain and directory."""
    streams: dict[tuple[int, int], bool] = field(default_factory=dict)


@dataclass
class _Followed:
    """A backend's directory that is watched."""

    path: str
    token: str


class Cards:
    """The devices of this domain. `changed(path)` is called for whatever changes there."""

    def __init__(self, store: Store, changed: Callable[[str], None]) -> None:
        self._store = store
        self._changed = changed
        self._domid: int | None = None
        self._known: dict[int, _Card] = {}
        self._followed: dict[int, _Followed] = {}
        self._following = asyncio.Lock()
        self._written: dict[int, str] = {}
        self._last_domid: int | None = None
        self.generation = 0
        """Counts how often the domain may have been saved and restored since the beginning.

        `look` finds out. Event channels of an earlier generation may have ceased to be ours.
        """

    async def start(self) -> None:
        """Begin to follow the devices."""
        await self._store.watch(FOLDER, self._fired)
        await self.domid()

    async def domid(self) -> int:
        """Return this domain's number; a restored domain has another one."""
        if self._domid is None:
            self._domid = await self._read_domid()
        return self._domid

    async def _read_domid(self) -> int:
        try:
            domid = int(await self._store.read("domid"))
        except (NotFoundError, ValueError):
            domid = 0  # a dom0 whose toolstack has not written it
        if self._last_domid not in (None, domid):
            log.info("this domain was %s and is %d: it was restored", self._last_domid, domid)
            self.generation += 1
        self._last_domid = domid
        return domid

    def _fired(self, path: str) -> None:
        found = _DEVICE.fullmatch(path)
        if found is None:
            self._domid = None
            self._known.clear()
        elif not is_frontends(found[2] or ""):
            self._domid = None
            self._known.pop(int(found[1]), None)
        self._changed(path)

    async def backend(self, device: int) -> tuple[int, str] | None:
        """Return the domain and the directory of a device's backend; None: there is no device.

        The directory is the one that libxl gives to it. A device that names another one has none.
        """
        known = self._known.get(device)
        if known is not None and known.backend is not None:
            return known.backend
        base = f"{FOLDER}/{device}"
        known = self._known.setdefault(device, _Card())
        domid = await self.domid()
        try:
            named, remote = await asyncio.gather(
                self._store.read(f"{base}/backend"), self._store.read(f"{base}/backend-id")
            )
        except NotFoundError:
            return None
        if not re.fullmatch("0|[1-9][0-9]{0,4}", remote):
            return None
        expected = f"/local/domain/{remote}/backend/vsnd/{domid}/{device}"
        if named != expected:
            log.warning("%s/backend is %s, not %s: nothing of it is let through",
                        base, named, expected)  # fmt: skip
            return None
        # Not kept if something changed meanwhile: then `known` is not what is looked up any more.
        known.backend = (int(remote), named)
        return known.backend

    async def is_backend(self, domid: int) -> bool:
        """Say whether a domain has the backend of one of the devices."""
        try:
            names = await self._store.directory(FOLDER)
        except NotFoundError:
            return False
        for name in names:
            if name.isdigit() and len(name) <= 5:
                backend = await self.backend(int(name))
                if backend is not None and backend[0] == domid:
                    return True
        return False

    async def has_stream(self, device: int, pcm: int, stream: int) -> bool:
        """Say whether a device has a stream."""
        known = self._known.setdefault(device, _Card())
        if (pcm, stream) not in known.streams:
            try:
                await self._store.read(f"{FOLDER}/{device}/{pcm}/{stream}/type")
            except NotFoundError:
                return False
            known.streams[pcm, stream] = True
        return True

    async def follow(self, device: int) -> None:
        """Watch the directory of a device's backend, if it is not watched yet."""
        async with self._following:
            backend = await self.backend(device)
            old = self._followed.get(device)
            if backend is None or (old is not None and old.path == backend[1]):
                return
            if old is not None:
                del self._followed[device]
                # It may have gone with the domain that was saved.
                with contextlib.suppress(XenAudioError):
                    await self._store.unwatch(old.token)
            token = await self._store.watch(backend[1], self._changed)
            self._followed[device] = _Followed(backend[1], token)

    # The frontends' states.

    async def write_state(self, device: int, state: str) -> None:
        """Write a device's state, for whoever owns it."""
        self.wrote(device, state)
        await self._store.write(f"{FOLDER}/{device}/state", state)

    def wrote(self, device: int, state: str) -> None:
        """Remember a state that is being written."""
        self._written[device] = state

    def forget(self, device: int) -> None:
        """Nobody owns the device any more: whoever likes may write its state."""
        self._written.pop(device, None)

    async def look(self) -> None:
        """Find out whether the domain may have been restored, as `generation` then says.

        Then it has another number, or a device is as a toolstack makes it, and not in the state in
        which its owner left it.
        """
        self._domid = await self._read_domid()
        for device in list(self._written):
            if not await self._is_as_left(device):
                log.info("vsnd %d was set up anew", device)
                self._written.pop(device, None)
                self.generation += 1

    async def _is_as_left(self, device: int) -> bool:
        while True:
            left = self._written.get(device)
            if left is None:
                return True
            state = await self.state(device)
            if state == left:
                return True
            # Only what was not written meanwhile can be compared.
            if self._written.get(device) == left:
                return False

    async def state(self, device: int) -> str | None:
        """Return a device's state; None: there is no device."""
        try:
            return await self._store.read(f"{FOLDER}/{device}/state")
        except NotFoundError:
            return None

    async def backend_state(self, device: int) -> XenbusState:
        """Return the state of a device's backend; UNKNOWN when there is none."""
        backend = await self.backend(device)
        if backend is None:
            return XenbusState.UNKNOWN
        try:
            return XenbusState.parse(await self._store.read(f"{backend[1]}/state"))
        except NotFoundError:
            return XenbusState.UNKNOWN

    def left_as(self, device: int) -> str | None:
        """Return the state that was written last for the device's owner."""
        return self._written.get(device)
