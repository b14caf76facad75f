# SPDX-License-Identifier: LGPL-2.1-or-later
"""One connection to a domain's socket: framing, dispatch, a bounded queue of replies and events.

A request that cannot be understood gets EINVAL. A length over the limit, or a client that lets
more than `EVENT_LIMIT` octets of watch events wait, costs it its connection. Requests are not read
while replies wait to be read, so that no client can make the server hold more than that for it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Protocol

from xenaudio.core import xswire
from xenaudio.core.xsoutput import Output
from xenaudio.core.xswire import Header, Type, WireError

from . import wire
from .evtchn import EventChannels, PortHolder
from .grants import GrantTable, Holder, Party
from .store import Account, Session, Store, domain_path, parse_perm
from .wire import Request

log = logging.getLogger(__name__)

INPUT_LIMIT = 128 * 1024  # octets of requests that wait to be served
REPLY_LIMIT = 64 * 1024  # octets of output that stop the reading of requests
EVENT_LIMIT = 1024 * 1024  # octets of output at which a client that does not read is cut off
BURST = 64  # requests served before the others get their turn


class Guest(Protocol):
    """The domain that a connection belongs to."""

    party: Party
    account: Account


class Machine(Protocol):
    """What connections need of the whole."""

    store: Store
    grants: GrantTable
    channels: EventChannels

    def party_of(self, domid: int) -> Party | None:
        """The domain that has this domid now."""

    def introduce(self, domid: int) -> None:
        """INTRODUCE of an existing domain."""

    def release(self, domid: int) -> None:
        """RELEASE of an existing domain."""


class Connection:
    """One accepted connection. `closed(connection)` is called once, when it has ended."""

    def __init__(
        self,
        machine: Machine,
        guest: Guest,
        sock: socket.socket,
        closed: Callable[[Connection], None],
    ) -> None:
        self.guest = guest
        self._machine = machine
        self._sock = sock
        self._closed_fn = closed
        self._loop = asyncio.get_running_loop()
        self._in = bytearray()
        self._out = Output(sock)
        self._frozen = False
        self._reading = False
        self._writing = False
        self._scheduled = False
        self.is_closed = False
        self.session = Session(machine.store, guest.account, self._deliver)
        self.grants = Holder(guest.party)
        self.ports = PortHolder(guest.party)
        sock.setblocking(False)
        self._update()

    def close(self) -> None:
        """Cuts the connection; what it made ends with it."""
        if self.is_closed:
            return
        self.is_closed = True
        self._update()
        self.session.close()
        self._machine.grants.close(self.grants)
        self._machine.channels.close(self.ports)
        self._sock.close()
        self._out.close()
        self._closed_fn(self)

    def freeze(self, frozen: bool) -> None:
        """Whether the domain is stopped: its requests then wait."""
        self._frozen = frozen
        self._update()
        if not frozen:
            self._schedule()

    # Sockets.

    def _update(self) -> None:
        """Listens for what can be dealt with now."""
        alive = not self.is_closed
        reading = (
            alive
            and not self._frozen
            and self._out.octets <= REPLY_LIMIT
            and len(self._in) <= INPUT_LIMIT
        )
        if reading != self._reading:
            self._reading = reading
            if reading:
                self._loop.add_reader(self._sock, self._readable)
            else:
                self._loop.remove_reader(self._sock)
        writing = alive and bool(self._out)
        if writing != self._writing:
            self._writing = writing
            if writing:
                self._loop.add_writer(self._sock, self._writable)
            else:
                self._loop.remove_writer(self._sock)

    def _readable(self) -> None:
        try:
            data = self._sock.recv(65536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._in += data
        self._serve()

    def _schedule(self) -> None:
        if not self._scheduled and not self.is_closed:
            self._scheduled = True
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        self._scheduled = False
        self._serve()

    def _serve(self) -> None:
        served = 0
        while not self.is_closed and not self._frozen and self._out.octets <= REPLY_LIMIT:
            if len(self._in) < xswire.HEADER.size:
                break
            header = xswire.unpack_header(self._in)
            if header.length > xswire.PAYLOAD_MAX:
                log.warning(
                    "%s: a message of %d octets, the most is %d: connection closed",
                    self.guest.party.name,
                    header.length,
                    xswire.PAYLOAD_MAX,
                )
                self.close()
                return
            end = xswire.HEADER.size + header.length
            if len(self._in) < end:
                break
            if served == BURST:
                self._schedule()
                break
            payload = bytes(self._in[xswire.HEADER.size : end])
            del self._in[:end]
            self._request(header, payload)
            served += 1
        self._update()

    def _sent(self) -> None:
        """Something was put in the queue."""
        if not self._writing:
            self._flush()
            self._update()

    def _writable(self) -> None:
        self._flush()
        self._update()
        self._schedule()

    def _flush(self) -> None:
        try:
            self._out.write()
        except OSError:
            # Perhaps within another session's request: it must not see this one's end.
            self._loop.call_soon(self.close)

    # Requests.

    def _request(self, header: Header, payload: bytes) -> None:
        after: list[tuple[str, bytes]] = []
        fds: list[int] = []
        try:
            if header.type >= Request.GNTALLOC:
                if header.tx_id:
                    raise WireError(errno.EINVAL)
                reply, fds = self._local(header, payload)
            else:
                reply = self._store(header, payload, after)
            if len(reply) > xswire.PAYLOAD_MAX:
                raise WireError(errno.E2BIG)
        except WireError as error:
            self._reply(header, Type.ERROR, error.name.encode() + b"\0")
            return
        self._reply(header, header.type, reply, fds)
        for path, token in after:
            self._deliver(path, token)

    def _reply(self, header: Header, kind: int, payload: bytes, fds: Sequence[int] = ()) -> None:
        self._out.put(xswire.pack(kind, header.req_id, header.tx_id, payload), fds)
        self._sent()

    def _deliver(self, path: str, token: bytes) -> None:
        payload = path.encode("latin-1") + b"\0" + token + b"\0"
        if len(payload) > xswire.PAYLOAD_MAX or self.is_closed:
            return
        if self._out.has_event(payload) and not path.startswith("@"):
            return
        if self._out.octets > EVENT_LIMIT:
            log.warning(
                "%s: a client lets %d octets wait and does not read: connection closed",
                self.guest.party.name,
                self._out.octets,
            )
            self._loop.call_soon(self.close)
            return
        self._out.put_event(payload)
        self._sent()

    def _store(self, header: Header, payload: bytes, after: list[tuple[str, bytes]]) -> bytes:
        """One of XenStore's requests. What is put in `after` is delivered behind the reply."""
        session = self.session
        tx = header.tx_id
        kind = header.type

        def path() -> str:
            return xswire.one_string(payload).decode("latin-1")

        if kind not in (Type.WATCH, Type.UNWATCH):
            self._check_right(kind)
            session.check_transaction(tx)
        if kind == Type.READ:
            return session.read(path(), tx)
        if kind == Type.WRITE:
            name, end, value = payload.partition(b"\0")
            if not end:
                raise WireError(errno.EINVAL)
            session.write(name.decode("latin-1"), value, tx)
        elif kind == Type.DIRECTORY:
            return b"".join(name.encode() + b"\0" for name in session.directory(path(), tx))
        elif kind == Type.DIRECTORY_PART:
            words = xswire.strings(payload)
            if len(words) != 2:
                raise WireError(errno.EINVAL)
            return session.directory_part(
                words[0].decode("latin-1"), wire.leading_int(words[1]), tx
            )
        elif kind == Type.GET_PERMS:
            return b"".join(str(perm).encode() + b"\0" for perm in session.get_perms(path(), tx))
        elif kind == Type.SET_PERMS:
            words = xswire.strings(payload)
            if len(words) < 2:
                raise WireError(errno.EINVAL)
            perms = tuple(parse_perm(word.decode("latin-1")) for word in words[1:])
            session.set_perms(words[0].decode("latin-1"), perms, tx)
        elif kind == Type.MKDIR:
            session.mkdir(path(), tx)
        elif kind == Type.RM:
            session.rm(path(), tx)
        elif kind in (Type.WATCH, Type.UNWATCH):
            words = xswire.strings(payload)
            if len(words) != 2:
                raise WireError(errno.EINVAL)
            if kind == Type.WATCH:
                watch = session.watch(words[0].decode("latin-1"), words[1])
                after.append((watch.shown(watch.path), watch.token))
            else:
                session.unwatch(words[0].decode("latin-1"), words[1])
        elif kind == Type.RESET_WATCHES:
            session.reset_watches()
        elif kind == Type.TRANSACTION_START:
            if tx:
                raise WireError(errno.EBUSY)
            return b"%d\0" % session.transaction_start()
        elif kind == Type.TRANSACTION_END:
            if payload not in (b"T\0", b"F\0"):
                raise WireError(errno.EINVAL)
            session.transaction_end(tx, payload == b"T\0")
        elif kind == Type.GET_DOMAIN_PATH:
            return domain_path(wire.leading_int(xswire.one_string(payload))).encode() + b"\0"
        elif kind == Type.IS_DOMAIN_INTRODUCED:
            domid = wire.leading_int(xswire.one_string(payload))
            known = domid == wire.DOMID_SELF or self._machine.party_of(domid) is not None
            return b"T\0" if known else b"F\0"
        else:
            self._toolstack(kind, payload)
        return b"OK\0"

    def _check_right(self, kind: int) -> None:
        privileged = (
            Type.CONTROL,
            Type.INTRODUCE,
            Type.RELEASE,
            Type.IS_DOMAIN_INTRODUCED,
            Type.RESUME,
            Type.SET_TARGET,
        )
        if kind in privileged and not self.guest.account.privileged:
            raise WireError(errno.EACCES)

    def _toolstack(self, kind: int, payload: bytes) -> None:
        """What only a toolstack asks for. CONTROL and SET_TARGET are not had here: ENOSYS."""
        if kind not in (Type.INTRODUCE, Type.RELEASE, Type.RESUME):
            raise WireError(errno.ENOSYS)
        words = xswire.strings(payload)
        if len(words) != (3 if kind == Type.INTRODUCE else 1):
            raise WireError(errno.EINVAL)
        domid = wire.leading_int(words[0])
        if domid == 0:
            raise WireError(errno.EINVAL)
        if self._machine.party_of(domid) is None:
            raise WireError(errno.ENOENT)
        if kind == Type.INTRODUCE:
            self._machine.introduce(domid)
        elif kind == Type.RELEASE:
            self._machine.release(domid)

    def _local(self, header: Header, payload: bytes) -> tuple[bytes, list[int]]:
        """One of local_wire.h's requests: the reply, and file descriptors to send and to close."""
        kind = header.type
        if kind == Request.GNTALLOC:
            if len(payload) != wire.GNTALLOC.size:
                raise WireError(errno.EINVAL)
            remote, _, count = wire.GNTALLOC.unpack(payload)
            refs, fd = self._machine.grants.allocate(self.grants, self._domid(remote), count)
            try:
                fds = [os.dup(fd)]
            except OSError as error:
                self._machine.grants.end(self.grants, refs)
                raise WireError(errno.ENOMEM) from error
            return struct.pack(f"={len(refs)}I", *refs), fds
        if kind == Request.GNTDEALLOC:
            if not payload or len(payload) % wire.U32.size:
                raise WireError(errno.EINVAL)
            self._machine.grants.end(self.grants, [ref for (ref,) in wire.U32.iter_unpack(payload)])
            return b"", []
        if kind == Request.GNTMAP:
            return self._map(payload)
        if kind == Request.GNTUNMAP:
            remote, _, refs = wire.unpack_refs(wire.GNTMAP, payload, wire.GNTMAP_MAX)
            self._machine.grants.unmap(self.grants, self._domid(remote), refs)
            return b"", []
        if kind in (Request.EVTCHN_ALLOC_UNBOUND, Request.EVTCHN_BIND_INTERDOMAIN):
            if len(payload) != wire.EVTCHN.size:
                raise WireError(errno.EINVAL)
            remote, _, remote_port = wire.EVTCHN.unpack(payload)
            remote = self._domid(remote)
            channels = self._machine.channels
            if kind == Request.EVTCHN_ALLOC_UNBOUND:
                if remote_port:
                    raise WireError(errno.EINVAL)
                port = channels.alloc_unbound(self.ports, remote)
            else:
                party = self._machine.party_of(remote)
                if party is None and not self._machine.grants.has_any(remote):
                    raise WireError(errno.ESRCH)
                port = channels.bind_interdomain(self.ports, party, remote_port)
            fds = []
            try:
                for fd in (port.pending_fd, port.notify_fd):
                    fds.append(os.dup(fd))
            except OSError as error:
                for fd in fds:
                    os.close(fd)
                channels.unbind(self.ports, port.number)
                raise WireError(errno.ENOMEM) from error
            return wire.U32.pack(port.number), fds
        if kind == Request.EVTCHN_UNBIND:
            if len(payload) != wire.U32.size:
                raise WireError(errno.EINVAL)
            self._machine.channels.unbind(self.ports, wire.U32.unpack(payload)[0])
            return b"", []
        raise WireError(errno.ENOSYS)

    def _domid(self, domid: int) -> int:
        return self.guest.party.domid if domid == wire.DOMID_SELF else domid

    def _map(self, payload: bytes) -> tuple[bytes, list[int]]:
        remote, writable, refs = wire.unpack_refs(wire.GNTMAP, payload, wire.GNTMAP_MAX)
        remote = self._domid(remote)
        grants = self._machine.grants.map(self.grants, remote, refs)
        index: dict[int, int] = {}
        fds: list[int] = []
        pages = []
        try:
            for grant in grants:
                fd = grant.memory.fd
                if fd not in index:
                    index[fd] = len(fds)
                    fds.append(os.dup(fd) if writable else _open_read_only(fd))
                pages.append(wire.GNTPAGE.pack(index[fd], grant.page))
        except OSError as error:
            for fd in fds:
                os.close(fd)
            self._machine.grants.unmap(self.grants, remote, refs)
            raise WireError(errno.ENOMEM) from error
        return b"".join(pages), fds


def _open_read_only(fd: int) -> int:
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
