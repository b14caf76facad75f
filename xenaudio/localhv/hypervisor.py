# SPDX-License-Identifier: LGPL-2.1-or-later
"""The stand-in for Xen: domains with a socket each, on one store, grants and event channels.

For tests, in the test's own process and event loop:

    async with LocalHypervisor() as hv:                   # or LocalHypervisor(directory)
        guest = await hv.create("guest", vsnd=SPEC)       # waits for a backend, as xl create does
        guest = await hv.create("guest", vsnd=SPEC, wait=False)
        guest.socket, guest.domid, hv.dom0.socket         # for XENAUDIO_HV, XENSTORED_PATH
        await hv.attach(guest, SPEC); await hv.detach(guest, 0)
        await hv.pause(guest); await hv.unpause(guest)
        await hv.save(guest, path); guest = await hv.restore(path)
        hv.close_channels(guest); hv.end_grants(guest)
        hv.grant_rows(), hv.channel_rows()                # lists of dicts, as --json prints
        await hv.destroy(guest)

Clients must not block the event loop that serves them: run blocking ones in threads or processes.
A method that refuses raises `LocalHvError` (or `VsndError`) and has changed nothing.
`device_timeout` is xl's 10 s for a backend to reach a state.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import re
import resource
import shutil
import signal
import stat
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from . import vsnd as vsnd_syntax
from .connection import Connection
from .devices import Toolstack
from .domains import Domain, LocalHvError, check_socket_path
from .evtchn import EventChannels
from .grants import GrantTable, Party
from .store import INTRODUCE_DOMAIN, RELEASE_DOMAIN, Account, Session, Store, domain_path
from .vsnd import Card
from .wire import DOMID_FIRST_RESERVED

log = logging.getLogger(__name__)

CONTROL = "control"
_NAME = re.compile(r"(?=.*[^0-9])[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", re.ASCII)
_RESERVED_NAMES = ("dom0", "Domain-0", CONTROL)
_SAVE_FORMAT = "xenaudio-localhv-save"
_STOP_TIMEOUT = 2.0  # seconds that guests' processes get to end when the machine stops
_KILL_TIMEOUT = 5.0  # seconds for a killed process to be gone


def default_directory() -> Path:
    """Where the stand-in's sockets are when nobody says."""
    if "XENAUDIO_LOCALHV" in os.environ:
        return Path(os.environ["XENAUDIO_LOCALHV"])
    if "XDG_RUNTIME_DIR" in os.environ:
        return Path(os.environ["XDG_RUNTIME_DIR"]) / "xenaudio-localhv"
    return Path(f"/tmp/xenaudio-localhv-{os.getuid()}")


class LocalHypervisor:
    """One machine. Used from one event loop only."""

    def __init__(
        self, directory: str | os.PathLike[str] | None = None, *, device_timeout: float = 10.0
    ) -> None:
        self._temporary = directory is None
        self.directory = Path(directory) if directory is not None else Path()
        self.device_timeout = device_timeout
        self.store = Store()
        self.grants = GrantTable()
        self.channels = EventChannels()
        self._domains: dict[int, Domain] = {}
        self._names: dict[str, Domain] = {}  # saved ones too
        self._saved: dict[str, Domain] = {}  # by the token in the file
        self._next_domid = 1
        self._lock_fd = -1
        self._toolstack = Toolstack(
            self.store, Session(self.store, Account(0), lambda path, token: None)
        )

    # The machine.

    async def __aenter__(self) -> LocalHypervisor:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Makes the directory and domain 0. LocalHvError when another one serves there."""
        _raise_fd_limit()
        self._open_directory()
        try:
            dom0 = Domain(self, "Domain-0", 0, str(uuid.UUID(int=0)), self.directory / "dom0")
            dom0.introduced = True
            self._domains[0] = self._names[dom0.name] = dom0
            self.store.accounts[0] = dom0.account
            self._toolstack.add_dom0()
            dom0.listen()
        except BaseException:
            self._close_directory()
            raise

    async def stop(self) -> None:
        """The end of all domains: guests' processes are ended, all sockets removed."""
        domains = list(self._names.values())
        guests = [domain for domain in domains if domain.domid != 0]
        for domain in guests:
            domain.processes.signal(signal.SIGTERM)
            domain.processes.signal(signal.SIGCONT)
        for domain in domains:
            domain.close()
        for domain in guests:
            if not await domain.processes.gone(_STOP_TIMEOUT):
                domain.processes.kill()
        self._domains.clear()
        self._names.clear()
        self._saved.clear()
        await asyncio.sleep(0)  # callbacks of connections that ended just now
        self._close_directory()

    def _open_directory(self) -> None:
        if self._temporary:
            self.directory = Path(tempfile.mkdtemp(prefix="xa", dir="/tmp"))
        check_socket_path(self.directory / CONTROL)
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.directory.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                raise LocalHvError(
                    f"{self.directory}: expected a directory that belongs to user {os.geteuid()}"
                )
            self._lock_fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise LocalHvError(f"{self.directory}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock_fd)
            self._lock_fd = -1
            raise LocalHvError(
                f"{self.directory} is served already: stop that server or use another --dir"
            ) from error

    def _close_directory(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    # What connections ask of it (connection.Machine).

    def party_of(self, domid: int) -> Party | None:
        """The domain that has this domid now."""
        domain = self._domains.get(domid)
        return domain.party if domain is not None and domain.introduced else None

    def introduce(self, domid: int) -> None:
        """INTRODUCE: the domain's sessions begin anew."""
        domain = self._domains[domid]
        domain.each_connection(lambda connection: connection.session.reset_watches())

    def release(self, domid: int) -> None:
        """RELEASE: the domain loses its connections."""
        domain = self._domains[domid]
        for connection in domain.connections:
            # Not at once: one of them may be asking for it.
            asyncio.get_running_loop().call_soon(connection.close)
        self.store.fire_special(RELEASE_DOMAIN)

    # Domains.

    @property
    def dom0(self) -> Domain:
        """Domain 0."""
        return self._domains[0]

    @property
    def domains(self) -> list[Domain]:
        """All domains by domid, then the saved ones."""
        return [self._domains[domid] for domid in sorted(self._domains)] + [
            domain for domain in self._names.values() if domain.domid not in self._domains
        ]

    def find(self, name: str | int | Domain) -> Domain:
        """The domain of a name or domid. LocalHvError."""
        if isinstance(name, Domain):
            if self._names.get(name.name) is not name:
                raise LocalHvError(f"domain {name.name} is gone")
            return name
        text = str(name)
        domain = self._names.get("Domain-0" if text == "dom0" else text)
        if domain is None and text.isdigit():
            domain = self._domains.get(int(text))
        if domain is None:
            known = ", ".join(self._names)
            raise LocalHvError(f"no domain {text!r}: there are {known}")
        return domain

    async def create(
        self, name: str, vsnd: str | list[Card] | None = None, *, wait: bool = True
    ) -> Domain:
        """Makes a domain with its vsnd devices and, with `wait`, waits until each one's backend
        is in state 2; when one is not in time, the domain is not created."""
        cards = vsnd_syntax.parse(vsnd) if isinstance(vsnd, str) else list(vsnd or [])
        domain = self._new_domain(name, str(uuid.uuid4()))
        async with domain.lock:
            await self._build(domain, dict(enumerate(cards)), wait, "created")
        return domain

    def _new_domain(self, name: str, ident: str) -> Domain:
        if not _NAME.fullmatch(name) or name in _RESERVED_NAMES:
            raise LocalHvError(
                f"domain name {name!r}: expected 1 to 64 letters, digits or . _ + -, not only "
                f"digits, and none of {', '.join(_RESERVED_NAMES)}"
            )
        if name in self._names:
            raise LocalHvError(f"a domain {name!r} exists already: destroy it or use another name")
        path = self.directory / name
        check_socket_path(path)
        return Domain(self, name, self._new_domid(), ident, path)

    def _new_domid(self) -> int:
        if self._next_domid >= DOMID_FIRST_RESERVED:
            raise LocalHvError("no domid is left: restart the server")
        domid = self._next_domid
        self._next_domid += 1
        return domid

    def _resolve_backends(self, cards: dict[int, Card]) -> dict[int, int]:
        found = {}
        for devid, card in cards.items():
            try:
                backend = self.find(card.backend) if card.backend is not None else self.dom0
            except LocalHvError as error:
                raise LocalHvError(f"vsnd device {devid}, backend: {error}") from error
            if backend.state == "saved":
                raise LocalHvError(f"vsnd device {devid}, backend: {backend.name} is saved")
            found[devid] = backend.domid
        return found

    async def _build(self, domain: Domain, cards: dict[int, Card], wait: bool, done: str) -> None:
        """Brings a new domain, or a saved one with a new domid, to life."""
        backends = self._resolve_backends(cards)
        was_saved = domain.state == "saved"
        self._names[domain.name] = domain
        self._domains[domain.domid] = domain
        self.store.accounts[domain.domid] = domain.account
        try:
            self._toolstack.add_domain(domain.domid, domain.name, domain.uuid)
            domain.introduced = True
            self.store.fire_special(INTRODUCE_DOMAIN)
            for devid, card in cards.items():
                self._toolstack.add_device(domain.domid, devid, backends[devid], card)
                domain.cards[devid] = card
            if wait:
                await self._connect(domain, list(cards), f"domain {domain.name} is not {done}")
            if not was_saved:
                domain.listen()
        except BaseException:
            await self._tear_down(domain, wait=False)
            if not was_saved:
                self._forget(domain)
            raise

    async def _connect(self, domain: Domain, devids: list[int], consequence: str) -> None:
        waits = [
            self._toolstack.connect_device(domain.domid, devid, self.device_timeout)
            for devid in devids
        ]
        for devid, connected in zip(devids, await asyncio.gather(*waits), strict=True):
            if not connected:
                owner = self._domains.get(self._toolstack.backend_of(domain.domid, devid))
                raise LocalHvError(
                    f"{consequence}: the backend of vsnd device {devid} in "
                    f"{owner.name if owner else 'its domain'} did not reach state 2 within "
                    f"{self.device_timeout:g} s; is `xenaudio serve` running there?"
                )

    async def _tear_down(self, domain: Domain, *, wait: bool) -> None:
        """The end of a domid: devices, nodes, ports and grants; the sockets stay."""
        timeout = self.device_timeout if wait else 0.0
        devids = [d for d in domain.cards if self._toolstack.has_device(domain.domid, d)]
        await asyncio.gather(
            *(
                self._toolstack.remove_device(domain.domid, devid, timeout, force=True)
                for devid in devids
            )
        )
        domain.cards = {}
        self._toolstack.remove_domain(domain.domid, domain.uuid)
        for connection in domain.connections:
            self.grants.close(connection.grants)
            self.channels.close(connection.ports)
            connection.session.suspend()
        domain.introduced = False
        del self._domains[domain.domid]
        self.store.forget_domain(domain.domid)
        self.store.fire_special(RELEASE_DOMAIN)

    def _forget(self, domain: Domain) -> None:
        domain.state = "dead"
        domain.close()
        self._names.pop(domain.name, None)

    @asynccontextmanager
    async def _held(self, name: str | int | Domain, doing: str) -> AsyncIterator[Domain]:
        """A guest, which nobody else changes meanwhile."""
        domain = self.find(name)
        if domain.domid == 0:
            raise LocalHvError(f"domain 0 cannot be {doing}")
        async with domain.lock:
            self.find(domain)
            yield domain

    async def pause(self, name: str | int | Domain) -> None:
        """Stops a domain's processes, and whatever its connections ask."""
        async with self._held(name, "paused") as domain:
            if domain.state != "running":
                raise LocalHvError(f"domain {domain.name} is {domain.state}, not running")
            domain.stop("paused")

    async def unpause(self, name: str | int | Domain) -> None:
        """Lets them go on."""
        async with self._held(name, "unpaused") as domain:
            if domain.state != "paused":
                raise LocalHvError(f"domain {domain.name} is {domain.state}, not paused")
            domain.go()

    async def destroy(self, name: str | int | Domain, *, wait: bool = True) -> None:
        """Ends a domain at once. With `wait`, the backend gets its time to close, as with xl."""
        async with self._held(name, "destroyed") as domain:
            await self._destroy(domain, wait)

    async def _destroy(self, domain: Domain, wait: bool) -> None:
        if domain.state == "saved":
            self._saved = {token: d for token, d in self._saved.items() if d is not domain}
        else:
            domain.stop("paused")
            await self._tear_down(domain, wait=wait)
        domain.processes.kill()
        self._forget(domain)
        if not await domain.processes.gone(_KILL_TIMEOUT):
            log.warning("%s: processes remain: %s", domain.name, domain.processes.members())

    async def shutdown(self, name: str | int | Domain) -> None:
        """Asks a domain to power off: `control/shutdown`, SIGTERM; then takes it down."""
        async with self._held(name, "shut down") as domain:
            if domain.state == "saved":
                raise LocalHvError(f"domain {domain.name} is saved: destroy it instead")
            if domain.state == "paused":
                domain.go()
            self._toolstack.request_shutdown(domain.domid)
            domain.processes.signal(signal.SIGTERM)
            if not await domain.processes.gone(self.device_timeout):
                raise LocalHvError(
                    f"domain {domain.name}: processes {domain.processes.members()} did not end "
                    f"within {self.device_timeout:g} s of SIGTERM; destroy it"
                )
            await self._destroy(domain, True)

    async def save(self, name: str | int | Domain, path: str | os.PathLike[str]) -> None:
        """Saves a domain to a file and ends it. Its processes stop, and its connections wait, until
        it is restored or destroyed."""
        async with self._held(name, "saved") as domain:
            if domain.state == "saved":
                raise LocalHvError(f"domain {domain.name} is saved already")
            token = uuid.uuid4().hex
            content = {
                "format": _SAVE_FORMAT,
                "version": 1,
                "name": domain.name,
                "uuid": domain.uuid,
                "token": token,
                "vsnd": {str(devid): card.items for devid, card in domain.cards.items()},
            }
            try:
                _replace_file(Path(path), json.dumps(content, indent=2) + "\n")
            except OSError as error:
                raise LocalHvError(f"{path}: {error.strerror}; nothing is saved") from error
            domain.stop("saved")
            await self._tear_down(domain, wait=True)
            self._saved[token] = domain

    async def restore(self, path: str | os.PathLike[str], *, wait: bool = True) -> Domain:
        """Restores a saved domain under a new domid. Processes that were there go on, their ports
        and grants are dead, and all their watches fire."""
        name, ident, token, cards = _read_saved(Path(path))
        domain = self._saved.get(token)
        if domain is None:
            domain = self._new_domain(name, ident)
            async with domain.lock:
                await self._build(domain, cards, wait, "restored")
            return domain
        async with domain.lock:
            if self._saved.get(token) is not domain:
                raise LocalHvError(f"{path}: domain {name} is restored already")
            old_path = domain_path(domain.domid)
            domain.party.domid = domain.account.domid = self._new_domid()
            try:
                await self._build(domain, cards, wait, "restored")
            finally:
                # What is relative to the directory moves on, also when the new one is gone again.
                sessions = [connection.session for connection in domain.connections]
                for session in sessions:
                    session.move(old_path)
            del self._saved[token]
            for session in sessions:
                session.resume()
            domain.go()
            for session in sessions:
                session.fire_all()
        return domain

    # Devices.

    async def attach(self, name: str | int | Domain, vsnd: str, *, wait: bool = True) -> list[int]:
        """Adds vsnd devices to a running domain, as xl vsnd-attach: their numbers."""
        cards = vsnd_syntax.parse(vsnd)
        if not cards:
            raise LocalHvError("vsnd: no card given: nothing to attach")
        async with self._held(name, "attached to") as domain:
            if domain.state == "saved":
                raise LocalHvError(f"domain {domain.name} is saved")
            backends = self._resolve_backends(dict(enumerate(cards)))
            devids = []
            for number, card in enumerate(cards):
                devid = self._toolstack.next_devid(domain.domid)
                self._toolstack.add_device(domain.domid, devid, backends[number], card)
                domain.cards[devid] = card
                devids.append(devid)
            try:
                if wait:
                    await self._connect(domain, devids, "nothing is attached")
            except LocalHvError:
                for devid in devids:
                    await self._toolstack.remove_device(domain.domid, devid, 0, force=True)
                    del domain.cards[devid]
                raise
            return devids

    async def detach(self, name: str | int | Domain, devid: int) -> None:
        """Removes a vsnd device, as xl vsnd-detach: waits for the backend's state 6."""
        async with self._held(name, "detached from") as domain:
            if domain.state == "saved" or not self._toolstack.has_device(domain.domid, devid):
                raise LocalHvError(f"domain {domain.name} has no vsnd device {devid}")
            closed = await self._toolstack.remove_device(
                domain.domid, devid, self.device_timeout, force=False
            )
            domain.cards.pop(devid, None)
            if not closed:
                raise LocalHvError(
                    f"vsnd device {devid} of {domain.name} is removed by force: its backend did "
                    f"not reach state 6 within {self.device_timeout:g} s (or, being outside domain "
                    "0, did not remove its nodes then)"
                )

    # Faults, and what there is.

    def register(self, name: str | int | Domain, pid: int) -> Domain:
        """Makes a process, and what it starts, part of a domain."""
        domain = self.find(name)
        if domain.state == "saved":
            raise LocalHvError(f"domain {domain.name} is saved")
        try:
            domain.processes.register(pid)
        except ProcessLookupError as error:
            raise LocalHvError(str(error)) from error
        if domain.state == "paused":
            domain.processes.signal(signal.SIGSTOP)
        return domain

    def close_channels(self, name: str | int | Domain) -> int:
        """Closes a domain's ports, and the connections that held them: how many ports."""
        domain = self.find(name)
        count = sum(1 for _ in self.channels.listed(domain.party))
        domain.each_connection(_close_if_it_has_ports)
        return count

    def end_grants(self, name: str | int | Domain) -> int:
        """Ends all of a domain's grants; what is mapped stays mapped: how many."""
        domain = self.find(name)
        count = 0
        for connection in domain.connections:
            refs = list(connection.grants.grants)
            self.grants.end(connection.grants, refs)
            count += len(refs)
        return count

    def domain_rows(self) -> list[dict[str, Any]]:
        """The domains, one dict each."""
        return [
            {
                "name": domain.name,
                "domid": domain.domid if domain.state != "saved" else None,
                "state": domain.state,
                "uuid": domain.uuid,
                "socket": domain.socket,
                "vsnd": sorted(domain.cards),
                "connections": len(domain.connections),
                "processes": domain.processes.members(),
            }
            for domain in self.domains
        ]

    def grant_rows(self, name: str | int | Domain | None = None) -> list[dict[str, Any]]:
        """The grants of one domain or of all, one dict each. `mapped`: how often, by whom."""
        party = self.find(name).party if name is not None else None
        return [
            {
                "domain": grant.owner.name,
                "ref": grant.ref,
                "remote": grant.remote,
                "page": grant.page,
                "ended": grant.ended,
                "mapped": {mapper.name: times for mapper, times in grant.mapped.items()},
            }
            for grant in self.grants.listed(party)
        ]

    def channel_rows(self, name: str | int | Domain | None = None) -> list[dict[str, Any]]:
        """The ports of one domain or of all, one dict each. `peer` is None while unbound."""
        party = self.find(name).party if name is not None else None
        return [
            {
                "domain": port.owner.name,
                "port": port.number,
                "remote": port.remote,
                "peer": (
                    {"domain": port.peer.owner.name, "port": port.peer.number}
                    if port.peer is not None
                    else None
                ),
            }
            for port in self.channels.listed(party)
        ]


def _close_if_it_has_ports(connection: Connection) -> None:
    if connection.ports.ports:
        connection.close()


def _replace_file(path: Path, text: str) -> None:
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _read_saved(path: Path) -> tuple[str, str, str, dict[int, Card]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LocalHvError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise LocalHvError(f"{path}: not a saved domain: {error}") from error
    try:
        if content["format"] != _SAVE_FORMAT or content["version"] != 1:
            raise ValueError("another format or version")
        ident = str(uuid.UUID(content["uuid"]))
        cards = {
            int(devid): vsnd_syntax.parse_card([str(item) for item in items], int(devid) + 1)
            for devid, items in content["vsnd"].items()
        }
        return str(content["name"]), ident, str(content["token"]), cards
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise LocalHvError(f"{path}: not a saved domain: {error}") from error


def _raise_fd_limit() -> None:
    """Each grant and event channel takes a file descriptor or two of the server's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 1 << 20
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
