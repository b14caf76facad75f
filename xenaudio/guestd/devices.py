# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the service makes for clients: granted pages and event channel handles.

On Xen these are open files of /dev/xen/gntalloc and /dev/xen/evtchn. A handle's ports are bound
here, then it is restricted to the domain's own number, after which it binds no other port. On the
stand-in they are what the guest's own socket hands out (csrc/hv/local_wire.h), never the socket
itself.

The service keeps every descriptor that it hands out. So pages stay granted until the card is
closed, however their owner ended; and an event channel that the domain lost, because it was saved
and restored, is not closed by anyone: Linux (6.1) stops with a BUG when one is, or closes the port
of another driver that has its number now. Such a one is left to a process that sleeps for ever.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import socket
import struct
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass

from xenaudio.core import xswire
from xenaudio.core.xswire import Type, WireError
from xenaudio.localhv import wire as local

log = logging.getLogger(__name__)

GNTALLOC = "/dev/xen/gntalloc"
EVTCHN = "/dev/xen/evtchn"

# xen/gntalloc.h and xen/evtchn.h of Linux: _IOC(_IOC_NONE, letter, number, octets).
_ALLOC_GREF = struct.Struct("=HHIQ")  # domid, flags, count, index; then the references
_DEALLOC_GREF = struct.Struct("=QII")  # index, count, padding
_FLAG_WRITABLE = 1
_IOCTL_ALLOC_GREF = 24 << 16 | ord("G") << 8 | 5
_IOCTL_DEALLOC_GREF = 16 << 16 | ord("G") << 8 | 6
_IOCTL_BIND_UNBOUND_PORT = 4 << 16 | ord("E") << 8 | 2
_IOCTL_RESTRICT_DOMID = 2 << 16 | ord("E") << 8 | 6


@dataclass(eq=False)
class Grant:
    """Pages granted to a domain."""

    refs: list[int]
    fd: int
    """To be mapped at `offset` octets."""
    offset: int
    connection: socket.socket | None = None
    """To the stand-in: what was made through it ends with it."""

    def close(self) -> None:
        """End the grants; of a page that the other domain maps, when it has let go."""
        if self.connection is None:
            # What a client still maps stays granted until it unmaps it.
            request = _DEALLOC_GREF.pack(self.offset, len(self.refs), 0)
            try:
                fcntl.ioctl(self.fd, _IOCTL_DEALLOC_GREF, request)
            except OSError as error:
                log.debug("end grants: %s", error)
        else:
            self.connection.close()
        os.close(self.fd)


@dataclass(eq=False)
class Handle:
    """An event channel handle with its ports."""

    ports: list[int]
    fds: list[int]
    """What the client gets: the device; or for each port two eventfds."""
    connection: socket.socket | None = None
    """To the stand-in: what was made through it ends with it."""

    def close(self, lost: bool) -> None:
        """Let go of it. `lost`: the ports may have ceased to be this domain's."""
        if self.connection is not None:
            self.connection.close()
        elif lost:
            _leave(self.fds)
        for fd in self.fds:
            os.close(fd)


def _leave(fds: list[int]) -> None:
    log.info("an event channel was lost when this guest was saved: it is left open")
    # systemd lets a process live whose name begins so until the machine is off.
    subprocess.Popen(
        ["@xenaudio-left-event-channels", "infinity"],
        executable="/bin/sleep",
        pass_fds=fds,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )


class Devices(ABC):
    """Where grants and event channels come from. Failures are WireErrors."""

    @abstractmethod
    async def grant(self, remote: int, count: int) -> Grant:
        """Grant fresh zeroed pages to a domain."""

    @abstractmethod
    async def event_channel(self, domid: int, remote: int, count: int) -> Handle:
        """Make a handle with ports that domain `remote` may bind to; the own one is `domid`."""

    @abstractmethod
    def in_kernel(self, device: int) -> bool:
        """Say whether the kernel's own sound driver has a device."""


class XenDevices(Devices):
    """On Xen."""

    def check(self) -> None:
        """Raise OSError, which names the file, when a device cannot be opened."""
        for path in (GNTALLOC, EVTCHN):
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))

    async def grant(self, remote: int, count: int) -> Grant:
        """Grant fresh zeroed pages to a domain."""
        request = bytearray(_ALLOC_GREF.size + max(2, count) * local.U32.size)
        _ALLOC_GREF.pack_into(request, 0, remote, _FLAG_WRITABLE, count, 0)
        fd = _open(GNTALLOC)
        try:
            fcntl.ioctl(fd, _IOCTL_ALLOC_GREF, request)
        except OSError as error:
            os.close(fd)
            raise _refused("grant pages", error) from error
        offset = _ALLOC_GREF.unpack_from(request)[3]
        refs = struct.unpack_from(f"={count}I", request, _ALLOC_GREF.size)
        return Grant(list(refs), fd, offset)

    async def event_channel(self, domid: int, remote: int, count: int) -> Handle:
        """Make a handle, bind its ports, and lock it."""
        fd = _open(EVTCHN)
        try:
            # (For octets that cannot be changed, Python would return them, not the port.)
            bind = bytearray(struct.pack("=I", remote))
            ports = [fcntl.ioctl(fd, _IOCTL_BIND_UNBOUND_PORT, bind) for _ in range(count)]
            fcntl.ioctl(fd, _IOCTL_RESTRICT_DOMID, struct.pack("=H", domid))
        except OSError as error:
            os.close(fd)
            raise _refused("make event channels", error) from error
        return Handle(ports, [fd])

    def in_kernel(self, device: int) -> bool:
        """Say whether snd_xen_front has it: there is no sign of that in XenStore."""
        return os.path.exists(f"/sys/bus/xen/devices/vsnd-{device}/driver")


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(f"open {path}", error) from error


def _refused(what: str, error: OSError) -> WireError:
    log.error("cannot %s: %s", what, error.strerror)
    return WireError(error.errno if error.errno in (errno.ENOSPC, errno.ENOMEM) else errno.EIO)


class LocalDevices(Devices):
    """On the stand-in: through the guest's own socket, with a connection for each."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connection, self._address)
        except OSError as error:
            connection.close()
            raise _refused(f"connect to {self._address}", error) from error
        return connection

    async def grant(self, remote: int, count: int) -> Grant:
        """Grant fresh zeroed pages to a domain."""
        connection = await self._connect()
        try:
            request = local.GNTALLOC.pack(remote, 0, count)
            reply, fds = await _call(
                connection, local.Request.GNTALLOC, request, count * local.U32.size, 1
            )
        except BaseException:
            connection.close()
            raise
        refs = struct.unpack(f"={count}I", reply)
        return Grant(list(refs), fds[0], 0, connection)

    async def event_channel(self, domid: int, remote: int, count: int) -> Handle:
        """Make a handle and bind its ports. Nothing can be bound with what the client gets."""
        handle = Handle([], [], await self._connect())
        try:
            for _ in range(count):
                request = local.EVTCHN.pack(remote, 0, 0)
                reply, fds = await _call(
                    handle.connection,
                    local.Request.EVTCHN_ALLOC_UNBOUND,
                    request,
                    local.U32.size,
                    2,
                )
                handle.ports.append(local.U32.unpack(reply)[0])
                handle.fds += fds
        except BaseException:
            handle.close(False)
            raise
        return handle

    def in_kernel(self, device: int) -> bool:
        """There is no kernel."""
        return False


async def _call(
    connection: socket.socket | None, kind: int, request: bytes, octets: int, count: int
) -> tuple[bytes, list[int]]:
    """Make one request of local_wire.h: a reply of so many octets and descriptors."""
    assert connection is not None
    loop = asyncio.get_running_loop()
    fds: list[int] = []
    try:
        await loop.sock_sendall(connection, xswire.pack(kind, 1, 0, request))
        header = xswire.unpack_header(await _receive(connection, xswire.HEADER.size, fds, count))
        payload = await _receive(connection, min(header.length, xswire.PAYLOAD_MAX), fds, count)
        if header.type == Type.ERROR:
            name = payload.rstrip(b"\0").decode("ascii", "replace")
            raise WireError(getattr(errno, name, errno.EIO))
        if header.type != kind or len(payload) != octets or len(fds) != count:
            raise WireError(errno.EIO)
    except BaseException as error:
        for fd in fds:
            os.close(fd)
        if isinstance(error, OSError):
            raise _refused("use the stand-in", error) from error
        raise
    return payload, fds


async def _receive(connection: socket.socket, octets: int, fds: list[int], most: int) -> bytes:
    data = b""
    while len(data) < octets:
        try:
            part, came, _, _ = socket.recv_fds(connection, octets - len(data), most)
        except BlockingIOError:
            await _readable(connection)
            continue
        fds += came
        if not part:
            raise WireError(errno.EIO)
        data += part
    return data


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    # Once: the descriptor stays readable until this goes on.
    loop.add_reader(connection, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(connection)
