# SPDX-License-Identifier: LGPL-2.1-or-later
"""Grants of memory between domains, on sealed memfds.

A holder (a connection) makes and maps grants for its domain, and what it made ends with it. A page
that is mapped cannot be taken back: a grant that is to end stays, and can be mapped, until nobody
counts it as mapped, also when its domain is gone (Xen keeps that as a zombie, and Linux tries each
second to end the grant).

Nobody can take a file descriptor back, so who maps what is what the holders say of themselves:
an account for tests and people, not a barrier.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from xenaudio.core.xswire import WireError

from .wire import GNTALLOC_MAX

log = logging.getLogger(__name__)

PAGE = 4096
FIRST_REF = 8  # 0 to 7 are reserved, as on Xen
LAST_REF = 64 * 512 - 1  # Xen's default of 64 frames of grant table, 512 entries each
MAPPINGS_MAX = 64  # of one page: Linux in a PV domain maps it twice, and Xen counts up to 128


class Party:
    """A domain, as far as grants and event channels know it."""

    def __init__(self, name: str, domid: int) -> None:
        self.name = name
        self.domid = domid


class _Memory:
    """One memfd, closed with the last of its grants."""

    def __init__(self, pages: int) -> None:
        self.fd = os.memfd_create("xenaudio-grant", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, pages * PAGE)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)
        except OSError:
            os.close(self.fd)
            raise
        self.grants = pages

    def release(self) -> None:
        self.grants -= 1
        if self.grants == 0:
            os.close(self.fd)


@dataclass(eq=False)
class Grant:
    """One page, granted by `owner` to the domain `remote`."""

    owner: Party
    owner_domid: int  # when it was made: a restored domain has another one
    ref: int
    remote: int
    memory: _Memory
    page: int
    ended: bool = False  # or to end, once it is not mapped
    mapped: Counter[Party] = field(default_factory=Counter)


class Holder:
    """What one connection has made: grants and mappings."""

    def __init__(self, party: Party) -> None:
        self.party = party
        self.grants: dict[int, Grant] = {}
        self.mappings: Counter[Grant] = Counter()


class GrantTable:
    """The grants of all domains."""

    def __init__(self) -> None:
        self._tables: dict[int, dict[int, Grant]] = {}  # by the owner's domid
        self._next: dict[int, int] = {}

    def allocate(self, holder: Holder, remote: int, count: int) -> tuple[list[int], int]:
        """Grants `count` new pages to `remote`: their references, and the memfd (not the caller's
        to close). EINVAL, ENOSPC, ENOMEM."""
        if not 1 <= count <= GNTALLOC_MAX:
            raise WireError(errno.EINVAL)
        party = holder.party
        table = self._tables.setdefault(party.domid, {})
        if LAST_REF - FIRST_REF + 1 - len(table) < count:
            raise WireError(errno.ENOSPC)
        try:
            memory = _Memory(count)
        except OSError as error:
            log.warning("%s: cannot make %d pages to grant: %s", party.name, count, error)
            raise WireError(errno.ENOMEM) from error
        refs = []
        ref = self._next.get(party.domid, FIRST_REF)
        for page in range(count):
            while ref in table:
                ref = ref + 1 if ref < LAST_REF else FIRST_REF
            grant = Grant(party, party.domid, ref, remote, memory, page)
            table[ref] = holder.grants[ref] = grant
            refs.append(ref)
        self._next[party.domid] = ref + 1 if ref < LAST_REF else FIRST_REF
        return refs, memory.fd

    def end(self, holder: Holder, refs: list[int]) -> None:
        """Ends grants of this holder. ENOENT, and none is ended, when one is not."""
        if len(set(refs)) != len(refs) or any(ref not in holder.grants for ref in refs):
            raise WireError(errno.ENOENT)
        for ref in refs:
            self._end(holder.grants.pop(ref))

    def has_any(self, owner_domid: int) -> bool:
        """Whether there is a grant of this domain, which may be gone."""
        return bool(self._tables.get(owner_domid))

    def map(self, holder: Holder, owner_domid: int, refs: list[int]) -> list[Grant]:
        """Maps pages that a domain granted to the holder's, or none of them. EINVAL."""
        table = self._tables.get(owner_domid, {})
        grants = [table[ref] for ref in refs if ref in table]
        if len(grants) < len(refs) or any(g.remote != holder.party.domid for g in grants):
            raise WireError(errno.EINVAL)
        for grant, times in Counter(grants).items():
            if grant.mapped.total() + times > MAPPINGS_MAX:
                raise WireError(errno.EINVAL)
        for grant in grants:
            grant.mapped[holder.party] += 1
            holder.mappings[grant] += 1
        return grants

    def unmap(self, holder: Holder, owner_domid: int, refs: list[int]) -> None:
        """Counts pages as no longer mapped. ENOENT, and none is, when one was not."""
        wanted = Counter(refs)
        mapped = {grant.ref: grant for grant in holder.mappings if grant.owner_domid == owner_domid}
        for ref, times in wanted.items():
            if ref not in mapped or holder.mappings[mapped[ref]] < times:
                raise WireError(errno.ENOENT)
        for ref, times in wanted.items():
            self._unmap(holder, mapped[ref], times)

    def close(self, holder: Holder) -> None:
        """The holder is gone: its grants are ended, its mappings no longer counted."""
        for grant in holder.grants.values():
            self._end(grant)
        holder.grants.clear()
        for grant, times in tuple(holder.mappings.items()):
            self._unmap(holder, grant, times)

    def listed(self, party: Party | None = None) -> Iterator[Grant]:
        """All grants of a domain, or of all."""
        for table in self._tables.values():
            yield from (grant for grant in table.values() if party in (None, grant.owner))

    def _end(self, grant: Grant) -> None:
        grant.ended = True
        self._forget_if_done(grant)

    def _unmap(self, holder: Holder, grant: Grant, times: int) -> None:
        holder.mappings[grant] -= times
        if not holder.mappings[grant]:
            del holder.mappings[grant]
        grant.mapped[holder.party] -= times
        if not grant.mapped[holder.party]:
            del grant.mapped[holder.party]
        self._forget_if_done(grant)

    def _forget_if_done(self, grant: Grant) -> None:
        if grant.ended and not grant.mapped:
            grant.memory.release()
            table = self._tables[grant.owner_domid]
            del table[grant.ref]
            if not table:
                del self._tables[grant.owner_domid]
