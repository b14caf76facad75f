# SPDX-License-Identifier: LGPL-2.1-or-later
"""The hypervisor: shared pages, mapped pages and event channels (csrc/hv/hv.h).

Objects are closed by `close()` or as context managers. Those that a Hypervisor made stand on their
own: they may outlive it. One object is used by one thread at a time.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Any, TypeVar

from xenaudio.core.errors import check, make_error
from xenaudio.core.ffi import ffi, lib

PAGE = 4096
"""Octets of a page, whatever the machine's page is."""

_Self = TypeVar("_Self", bound="_Closable")


class _Closable(ABC):
    @abstractmethod
    def close(self) -> None:
        """Free what this object holds. Once is enough; more is no error."""

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Memory(_Closable):
    """A range of pages."""

    _handle: Any
    memory: memoryview
    """The pages, as octets. Views made from it must not be used after `close()`: the addresses are
    no longer mapped then."""

    def _view(self, address: Any, pages: int, writable: bool) -> memoryview:
        view = memoryview(ffi.buffer(address, pages * PAGE)).cast("B")
        return view if writable else view.toreadonly()


class Share(_Memory):
    """Pages granted to another domain."""

    def __init__(self, handle: Any, grefs: list[int]) -> None:
        self._handle = handle
        self.grefs = grefs
        self.memory = self._view(lib.xa_share_memory(handle), len(grefs), True)

    def close(self) -> None:
        """End the grants and unmap."""
        if self._handle is not None:
            self.memory.release()
            lib.xa_share_free(self._handle)
            self._handle = None


class Map(_Memory):
    """Pages that another domain granted to this one."""

    def __init__(self, handle: Any, pages: int, writable: bool) -> None:
        self._handle = handle
        self.memory = self._view(lib.xa_map_memory(handle), pages, writable)

    def close(self) -> None:
        """Unmap."""
        if self._handle is not None:
            self.memory.release()
            lib.xa_map_free(self._handle)
            self._handle = None


class EventChannel(_Closable):
    """An event channel handle: any number of ports behind one file descriptor."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    @property
    def c(self) -> Any:
        """The `struct xa_evtchn *`, for other wrappers of the C core."""
        if self._handle is None:
            raise ValueError("the event channel handle is closed")
        return self._handle

    def fileno(self) -> int:
        """Return the descriptor that is readable while an event is pending on any port."""
        return int(lib.xa_evtchn_fd(self.c))

    def alloc_unbound(self, remote: int) -> int:
        """Make a port that domain `remote` may bind to."""
        port = ffi.new("uint32_t *")
        what = f"make an event channel for domain {remote}"
        check(lib.xa_evtchn_alloc_unbound(self.c, remote, port), what)
        return int(port[0])

    def bind_interdomain(self, remote: int, remote_port: int) -> int:
        """Bind to a port of domain `remote`. The new port fires once at once."""
        port = ffi.new("uint32_t *")
        what = f"bind to event channel {remote_port} of domain {remote}"
        check(lib.xa_evtchn_bind_interdomain(self.c, remote, remote_port, port), what)
        return int(port[0])

    def unbind(self, port: int) -> None:
        """Close one port."""
        check(lib.xa_evtchn_unbind(self.c, port), f"unbind port {port}")

    def notify(self, port: int) -> None:
        """Send an event. One that nobody is there to take is no error."""
        check(lib.xa_evtchn_notify(self.c, port), f"notify port {port}")

    def pending(self) -> int | None:
        """Take the next pending port; None when there is none. Never blocks."""
        port = ffi.new("uint32_t *")
        if check(lib.xa_evtchn_pending(self.c, port), "take an event") == 0:
            return None
        return int(port[0])

    def close(self) -> None:
        """Unbind every port and close the handle."""
        if self._handle is not None:
            lib.xa_evtchn_close(self._handle)
            self._handle = None


class Hypervisor(_Closable):
    """A hypervisor, real or the stand-in.

    `address` is "xen"; "guestd" or "guestd:PATH", the guest service; or the path of a stand-in
    domain's socket. A path has at most 107 octets. None: what the environment's XENAUDIO_HV says,
    else "guestd" where only that can be used, else "xen". Nothing is connected by opening it.
    """

    def __init__(self, address: str | None = None) -> None:
        what = f"open hypervisor {address!r}" if address is not None else "open the hypervisor"
        if address is not None and "\0" in address:
            raise ValueError(f"{what}: there is a 0 in it")
        text = ffi.NULL if address is None else ffi.new("char[]", os.fsencode(address))
        self._handle = lib.xa_hv_open(text)
        if self._handle == ffi.NULL:
            self._handle = None
            raise make_error(ffi.errno, what)

    @property
    def c(self) -> Any:
        """The `struct xa_hv *`, for other wrappers of the C core."""
        if self._handle is None:
            raise ValueError("the hypervisor is closed")
        return self._handle

    @property
    def address(self) -> str:
        """The address, as given or as the environment gave it."""
        return os.fsdecode(ffi.string(lib.xa_hv_address(self.c)))

    def connect_store(self) -> int:
        """Connect to XenStore: a file descriptor, which is the caller's to close."""
        return check(lib.xa_hv_connect_store(self.c), f"connect to XenStore on {self.address}")

    def share(self, remote: int, pages: int) -> Share:
        """Grant `pages` fresh zeroed pages to domain `remote`."""
        what = f"share {pages} pages with domain {remote}"
        share = ffi.new("struct xa_share **")
        grefs = ffi.new("uint32_t[]", max(pages, 0))
        check(lib.xa_share_new(self.c, remote, pages, grefs, share), what)
        return Share(share[0], list(grefs))

    def map(self, remote: int, grefs: Sequence[int], writable: bool = True) -> Map:
        """Map the pages that domain `remote` granted, in the order of `grefs`."""
        what = f"map {len(grefs)} pages of domain {remote}"
        made = ffi.new("struct xa_map **")
        refs = ffi.new("uint32_t[]", list(grefs))
        check(lib.xa_map_new(self.c, remote, len(grefs), refs, writable, made), what)
        return Map(made[0], len(grefs), writable)

    def event_channel(self) -> EventChannel:
        """Open an event channel handle."""
        made = ffi.new("struct xa_evtchn **")
        check(lib.xa_evtchn_open(self.c, made), f"open event channels on {self.address}")
        return EventChannel(made[0])

    def close(self) -> None:
        """Forget the hypervisor. What it made goes on."""
        if self._handle is not None:
            lib.xa_hv_close(self._handle)
            self._handle = None
