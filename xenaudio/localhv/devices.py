# SPDX-License-Identifier: LGPL-2.1-or-later
"""What libxl does in XenStore for a domain and its vsnd devices: nodes, rights, waiting for states.

The nodes of a domain are those of `xl create` for a PV guest that matter to sound, drivers and the
xenstore tools; those of a device are all that libxl writes.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from contextlib import suppress

from xenaudio.core.xswire import WireError

from .store import Session, Store, domain_path, perms_of
from .vsnd import Card

INIT_WAIT = "2"  # XenbusState of xen/io/xenbus.h
CLOSING = "5"
CLOSED = "6"


def frontend_path(domid: int, devid: int) -> str:
    """The frontend's directory of a vsnd device."""
    return f"{domain_path(domid)}/device/vsnd/{devid}"


def backend_path(backend: int, domid: int, devid: int) -> str:
    """The backend's directory of a vsnd device of domain `domid`."""
    return f"{domain_path(backend)}/backend/vsnd/{domid}/{devid}"


def libxl_path(domid: int, devid: int) -> str:
    """Where libxl keeps its own record of a vsnd device."""
    return f"/libxl/{domid}/device/vsnd/{devid}"


class Toolstack:
    """The toolstack in domain 0, at work in the store."""

    def __init__(self, store: Store, session: Session) -> None:
        self._store = store
        self._session = session
        self._waits: dict[bytes, asyncio.Event] = {}
        self._next_wait = 0
        session.deliver = self._fired

    def write(self, path: str, value: str, perms: tuple[str, ...] = (), tx: int = 0) -> None:
        """Writes a node and, if given, its permissions."""
        self._session.write(path, value.encode("utf-8", "surrogateescape"), tx)
        if perms:
            self._session.set_perms(path, perms_of(*perms), tx)

    def read(self, path: str, tx: int = 0) -> str | None:
        """A node's value, or None when there is no such node."""
        try:
            return self._session.read(path, tx).decode("utf-8", "surrogateescape")
        except WireError as error:
            if error.code != errno.ENOENT:
                raise
            return None

    def add_dom0(self) -> None:
        """Domain 0's nodes, as xen-init-dom0 writes them."""
        self.write("/local/domain/0/domid", "0")
        self.write("/local/domain/0/name", "Domain-0")

    def add_domain(self, domid: int, name: str, uuid: str) -> None:
        """A new domain's nodes."""
        own = (f"n{domid}",)
        seen = ("n0", f"r{domid}")
        base = domain_path(domid)
        vm = f"/vm/{uuid}"
        tx = self._session.transaction_start()
        self.write(base, "", seen, tx)
        self.write(vm, "", seen, tx)
        self.write(f"/libxl/{domid}", "", ("n0",), tx)
        self.write(f"/libxl/{domid}/device", "", ("n0",), tx)
        self.write(f"{base}/vm", vm, tx=tx)
        self.write(f"{base}/name", name, tx=tx)
        for node in ("cpu", "memory", "device"):
            self.write(f"{base}/{node}", "", seen, tx)
        self.write(f"{base}/device/suspend/event-channel", "", own, tx)
        self.write(f"{base}/control", "", seen, tx)
        for node in ("shutdown", "feature-poweroff", "feature-reboot", "feature-suspend", "sysrq"):
            self.write(f"{base}/control/{node}", "", own, tx)
        for node in ("data", "drivers", "feature", "attr", "error"):
            self.write(f"{base}/{node}", "", own, tx)
        self.write(f"{vm}/uuid", uuid, tx=tx)
        self.write(f"{vm}/name", name, tx=tx)
        for node in ("multiprocessor-suspend", "xs_reset_watches"):
            self.write(f"{base}/control/platform-feature-{node}", "1", tx=tx)
        self.write(f"/libxl/{domid}/type", "pv", tx=tx)
        self.write(f"{base}/domid", str(domid), tx=tx)
        self.write(f"{base}/cpu/0/availability", "online", tx=tx)
        self._session.transaction_end(tx, True)

    def remove_domain(self, domid: int, uuid: str) -> None:
        """Takes a domain's nodes away."""
        for path in (f"/vm/{uuid}", domain_path(domid), f"/libxl/{domid}"):
            self._session.rm(path)

    def next_devid(self, domid: int) -> int:
        """The number of the domain's next vsnd device: one more than the one made last."""
        try:
            devices = self._session.directory(f"/libxl/{domid}/device/vsnd")
        except WireError:
            devices = []
        return int(devices[-1]) + 1 if devices else 0

    def has_device(self, domid: int, devid: int) -> bool:
        """Whether the domain has such a vsnd device."""
        return self.read(libxl_path(domid, devid) + "/backend") is not None

    def backend_of(self, domid: int, devid: int) -> int:
        """The domid of an existing device's backend."""
        path = self.read(libxl_path(domid, devid) + "/backend") or domain_path(0) + "/"
        return int(path.split("/")[3])

    def add_device(self, domid: int, devid: int, backend: int, card: Card) -> None:
        """Writes the nodes of a vsnd device, in one transaction."""
        front, back = frontend_path(domid, devid), backend_path(backend, domid, devid)
        record = libxl_path(domid, devid)
        front_perms = (f"n{domid}", f"r{backend}")
        tx = self._session.transaction_start()
        self.write(f"{record}/frontend", front, tx=tx)
        self.write(f"{record}/backend", back, tx=tx)
        for path in (front, back):
            with suppress(WireError):
                self._session.rm(path, tx)
        self._session.mkdir(front, tx)
        self._session.set_perms(front, perms_of(*front_perms), tx)
        self.write(f"{front}/backend", back, tx=tx)
        for name, value in (("backend-id", str(backend)), ("state", "1"), *card.nodes()):
            self.write(f"{front}/{name}", value, front_perms, tx)
        self._session.mkdir(back, tx)
        self._session.set_perms(back, perms_of(f"n{backend}", f"r{domid}"), tx)
        self.write(f"{back}/frontend", front, tx=tx)
        for path in (back, record):
            for name, value in (("frontend-id", str(domid)), ("online", "1"), ("state", "1")):
                self.write(f"{path}/{name}", value, tx=tx)
        self._session.transaction_end(tx, True)

    async def connect_device(self, domid: int, devid: int, timeout: float) -> bool:
        """Waits until the backend's state is exactly 2, for at most `timeout` seconds."""
        path = backend_path(self.backend_of(domid, devid), domid, devid) + "/state"
        return await self._wait_state(path, INIT_WAIT, timeout)

    async def remove_device(self, domid: int, devid: int, timeout: float, force: bool) -> bool:
        """Asks the backend to close, waits for its state 6, and removes the nodes.

        A backend outside domain 0 is to remove its own ones. `force`: remove the frontend's nodes
        first, as when the domain is destroyed. False when the backend did not do its part; the
        nodes are gone all the same.
        """
        backend = self.backend_of(domid, devid)
        back = backend_path(backend, domid, devid)
        state = f"{back}/state"
        closed = True
        for forced in (True,) if force else (False, True):
            tx = self._session.transaction_start()
            if forced:
                self._clean_up(frontend_path(domid, devid), tx)
            now = self.read(state, tx)
            if now is not None:
                self.write(f"{back}/online", "0", tx=tx)
                if now != CLOSED:
                    self.write(state, CLOSING, tx=tx)
            self._session.transaction_end(tx, True)
            # A backend that nobody runs closes nothing: where nobody looks, do not wait.
            watched = self._store.watched(state, self._session)
            closed = now is None or await self._wait_state(state, CLOSED, timeout if watched else 0)
            if closed:
                break
        if closed and backend != 0:
            watched = self._store.watched(back, self._session)
            closed = await self._wait(back, lambda found: found is None, timeout if watched else 0)
        tx = self._session.transaction_start()
        for path in (frontend_path(domid, devid), libxl_path(domid, devid), back):
            self._clean_up(path, tx)
        self._session.transaction_end(tx, True)
        return closed

    def request_shutdown(self, domid: int) -> None:
        """Tells the guest to power off."""
        self.write(f"{domain_path(domid)}/control/shutdown", "poweroff")

    def _clean_up(self, path: str, tx: int) -> None:
        """Removes a node, and the parents that are then empty, as libxl does."""
        try:
            self._session.rm(path, tx)
        except WireError:
            return
        parent = path.rpartition("/")[0]
        while parent and self.read(parent, tx) == "" and not self._session.directory(parent, tx):
            self._session.rm(parent, tx)
            parent = parent.rpartition("/")[0]

    def _fired(self, path: str, token: bytes) -> None:
        event = self._waits.get(token)
        if event is not None:
            event.set()

    async def _wait_state(self, path: str, wanted: str, timeout: float) -> bool:
        """Waits for a backend's state. One that is gone (not new) has reached 6, too."""
        gone = wanted == CLOSED
        return await self._wait(
            path, lambda found: found == wanted or (gone and found is None), timeout
        )

    async def _wait(self, path: str, wanted: Callable[[str | None], bool], timeout: float) -> bool:
        """Waits for what a node holds, None when there is none."""
        token = b"%d" % self._next_wait
        self._next_wait += 1
        event = self._waits[token] = asyncio.Event()
        self._session.watch(path, token)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        try:
            while True:
                event.clear()
                if wanted(self.read(path)):
                    return True
                left = deadline - loop.time()
                if left <= 0:
                    return False
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(event.wait(), left)
        finally:
            self._session.unwatch(path, token)
            del self._waits[token]
