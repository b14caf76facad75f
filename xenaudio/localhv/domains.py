# SPDX-License-Identifier: LGPL-2.1-or-later
"""One domain: its name and domid, its socket and connections, its devices and its processes."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .connection import Connection, Machine
from .grants import Party
from .processes import Processes
from .store import Account
from .vsnd import Card

log = logging.getLogger(__name__)

PATH_MAX = 107  # octets: sockaddr_un's sun_path, less its final 0
CONNECTIONS_GUEST = 1024
CONNECTIONS_DOM0 = 4096


class LocalHvError(Exception):
    """A command cannot be done; the message is for people."""


def check_socket_path(path: Path) -> None:
    """LocalHvError when a path is too long for a Unix socket."""
    octets = len(os.fsencode(path))
    if octets > PATH_MAX:
        raise LocalHvError(
            f"socket path {path} has {octets} octets, a Unix socket's has at most {PATH_MAX}: "
            "use a shorter directory (--dir) or name"
        )


class Domain:
    """A domain of the stand-in. Made and changed by `LocalHypervisor` only.

    `socket` is what XENAUDIO_HV and XENSTORED_PATH are to be for its processes.
    """

    def __init__(self, machine: Machine, name: str, domid: int, uuid: str, path: Path) -> None:
        self.name = name
        self.uuid = uuid
        self.socket = str(path)
        self.party = Party(name, domid)
        self.account = Account(domid)
        self.cards: dict[int, Card] = {}  # by device number
        self.processes = Processes(self.socket)
        self.connections: set[Connection] = set()
        self.lock = asyncio.Lock()  # held while the domain is made, changed or taken down
        self.state = "running"  # or "paused", "saved", "dead"
        self.introduced = False
        self._machine = machine
        self._path = path
        self._listener: socket.socket | None = None
        self._accepting = False

    @property
    def domid(self) -> int:
        """The domid that it has now; another one after a restore."""
        return self.party.domid

    def listen(self) -> None:
        """Opens the domain's socket. LocalHvError."""
        check_socket_path(self._path)
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(self._path.lstat().st_mode):
                raise LocalHvError(f"{self._path} exists and is not a socket: remove it")
            self._path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(self.socket)
            listener.listen(128)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            raise LocalHvError(f"cannot listen on {self.socket}: {error.strerror}") from error
        self._listener = listener
        self._update()

    def close(self) -> None:
        """Removes the socket and cuts all connections."""
        if self._listener is not None:
            listener, self._listener = self._listener, None
            if self._accepting:
                asyncio.get_running_loop().remove_reader(listener)
                self._accepting = False
            listener.close()
            with suppress(FileNotFoundError):
                self._path.unlink()
        self.each_connection(Connection.close)

    def each_connection(self, act: Callable[[Connection], None]) -> None:
        """Does something to every connection; it may end them."""
        for connection in tuple(self.connections):
            act(connection)

    def stop(self, state: str) -> None:
        """Lets nothing of the domain run."""
        self.state = state
        self.processes.signal(signal.SIGSTOP)
        self.each_connection(lambda connection: connection.freeze(True))
        self._update()

    def go(self) -> None:
        """Lets it run again."""
        self.state = "running"
        self.each_connection(lambda connection: connection.freeze(False))
        self.processes.signal(signal.SIGCONT)
        self._update()

    def _update(self) -> None:
        accepting = self.state == "running"
        if self._listener is None or accepting == self._accepting:
            return
        self._accepting = accepting
        loop = asyncio.get_running_loop()
        if accepting:
            loop.add_reader(self._listener, self._accept)
        else:
            loop.remove_reader(self._listener)

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                raise
            log.warning("%s: cannot accept a connection: %s", self.name, error.strerror)
            # The listener stays readable: without a pause this would be a busy loop.
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._listener)
            self._accepting = False
            loop.call_later(0.5, self._update)
            return
        most = CONNECTIONS_DOM0 if self.domid == 0 else CONNECTIONS_GUEST
        if not self.introduced or len(self.connections) >= most:
            if self.introduced:
                log.warning("%s: more than %d connections: one refused", self.name, most)
            sock.close()
            return
        self.connections.add(Connection(self._machine, self, sock, self.connections.discard))
