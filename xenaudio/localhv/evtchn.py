# SPDX-License-Identifier: LGPL-2.1-or-later
"""Event channels between domains, on eventfds.

A channel is two eventfds, one for each direction; each end of it is a port of its domain. The
server makes and hands out the eventfds and is out of the way: an event goes from process to
process. So a closed port cannot be taken out of a process's hands: one that goes on writing to its
eventfd still wakes a peer that has not closed its end (on Xen the event would go nowhere).
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from xenaudio.core.xswire import WireError

from .grants import Party

log = logging.getLogger(__name__)

PORTS_GUEST = 1023  # libxl's default for `event_channels`
PORTS_DOM0 = 4095  # the two-level interface's, which has the most that any domain had for long


class _Channel:
    """The two eventfds, closed when neither end is a port any more."""

    def __init__(self) -> None:
        self.first = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            self.second = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError:
            os.close(self.first)
            raise
        self.ends = 1

    def release(self) -> None:
        self.ends -= 1
        if self.ends == 0:
            os.close(self.first)
            os.close(self.second)


@dataclass(eq=False)
class Port:
    """One end. `pending_fd` is readable while an event is pending; `notify_fd` goes to the peer.

    `remote` is the domain that may bind, or that the peer belongs to.
    """

    owner: Party
    number: int
    remote: int
    channel: _Channel
    pending_fd: int
    notify_fd: int
    peer: Port | None = None


class PortHolder:
    """The ports of one connection."""

    def __init__(self, party: Party) -> None:
        self.party = party
        self.ports: dict[int, Port] = {}


class EventChannels:
    """The ports of all domains."""

    def __init__(self) -> None:
        self._tables: dict[Party, dict[int, Port]] = {}

    def alloc_unbound(self, holder: PortHolder, remote: int) -> Port:
        """A port that domain `remote` may bind to. ENOSPC, ENOMEM."""
        number = self._free(holder.party)
        try:
            channel = _Channel()
        except OSError as error:
            log.warning("%s: cannot make an event channel: %s", holder.party.name, error)
            raise WireError(errno.ENOMEM) from error
        port = Port(holder.party, number, remote, channel, channel.first, channel.second)
        return self._add(holder, port)

    def bind_interdomain(self, holder: PortHolder, owner: Party | None, number: int) -> Port:
        """A port bound to port `number` of `owner`, and pending at once.

        EINVAL: no such port, or for another domain, or bound already; ENOSPC.
        """
        peer = self._tables.get(owner, {}).get(number) if owner else None
        if peer is None or peer.remote != holder.party.domid or peer.peer is not None:
            raise WireError(errno.EINVAL)
        mine = self._free(holder.party)
        port = Port(
            holder.party,
            mine,
            peer.owner.domid,
            peer.channel,
            peer.notify_fd,
            peer.pending_fd,
            peer,
        )
        peer.peer = port
        peer.channel.ends += 1
        with suppress(BlockingIOError):
            os.eventfd_read(port.pending_fd)  # what was sent while nobody was bound went nowhere
        with suppress(BlockingIOError):
            os.eventfd_write(port.pending_fd, 1)
        return self._add(holder, port)

    def unbind(self, holder: PortHolder, number: int) -> None:
        """Closes a port of this holder; its peer, if any, is unbound again. ENOENT."""
        port = holder.ports.pop(number, None)
        if port is None:
            raise WireError(errno.ENOENT)
        self._close(port)

    def close(self, holder: PortHolder) -> None:
        """The holder is gone: its ports are closed."""
        for port in holder.ports.values():
            self._close(port)
        holder.ports.clear()

    def listed(self, party: Party | None = None) -> Iterator[Port]:
        """All ports of a domain, or of all."""
        for owner, table in self._tables.items():
            if party in (None, owner):
                yield from table.values()

    def _free(self, party: Party) -> int:
        table = self._tables.get(party, {})
        last = PORTS_DOM0 if party.domid == 0 else PORTS_GUEST
        if len(table) < last:
            for number in range(1, last + 1):
                if number not in table:
                    return number
        raise WireError(errno.ENOSPC)

    def _add(self, holder: PortHolder, port: Port) -> Port:
        self._tables.setdefault(holder.party, {})[port.number] = port
        holder.ports[port.number] = port
        return port

    def _close(self, port: Port) -> None:
        if port.peer is not None:
            port.peer.peer = None
        port.channel.release()
        table = self._tables[port.owner]
        del table[port.number]
        if not table:
            del self._tables[port.owner]
