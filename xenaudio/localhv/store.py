# SPDX-License-Identifier: LGPL-2.1-or-later
"""XenStore's tree, rights, watches and transactions, as xenstored of Xen 4.17 has them. No I/O.

`Store` is the tree; a `Session` is one connection's view of it, with the rights of its `Account`
(a domain). Paths are `str`, values and tokens `bytes`. A refused request raises `WireError`.

The tree is made of nodes that never change: a write replaces the nodes from the changed one up to
the root. So a transaction's snapshot is one reference to a root. Each node has the generation of
its last change (value, permissions or list of children); a transaction commits when every node that
it read still has the generation that its snapshot has, else it gets EAGAIN.
"""

from __future__ import annotations

import errno
import logging
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from xenaudio.core.xswire import PAYLOAD_MAX, REL_PATH_MAX, WireError

from .wire import whole_int

log = logging.getLogger(__name__)

# xenstored's defaults. The comparisons below are xenstored's own too, so that a guest may have one
# watch and one transaction more than the number says.
QUOTA_NODES = 1000
QUOTA_ENTRY_OCTETS = 2048
QUOTA_WATCHES = 128
QUOTA_TRANSACTIONS = 10
QUOTA_TRANSACTION_NODES = 1024
QUOTA_PERMS = 5

READ = 1
WRITE = 2
OWNER = 8
_LETTERS = {0: "n", READ: "r", WRITE: "w", READ | WRITE: "b"}
_BITS = {letter: bits for bits, letter in _LETTERS.items()}

INTRODUCE_DOMAIN = "@introduceDomain"
RELEASE_DOMAIN = "@releaseDomain"

_VALID = re.compile(r"[-A-Za-z0-9_@/]+", re.ASCII)
_DOMAIN_PATH = re.compile(r"/local/domain/[0-9]{1,5}/")
_ABSENT = 0  # the generation of a node that does not exist
_RECORD_HEADER = 24  # what xenstored counts for a node beside its permissions, value and children


class Perm(NamedTuple):
    """One entry of a node's permissions. The first entry names the owner and everybody's rights."""

    domid: int
    bits: int

    def __str__(self) -> str:
        return f"{_LETTERS[self.bits]}{self.domid}"


Perms = tuple[Perm, ...]


def parse_perm(text: str) -> Perm:
    """`n0`, `r1`, `w2` or `b3`, whether there is such a domain or not. EINVAL otherwise."""
    domid = whole_int(text[1:])
    if text[:1] not in _BITS or domid is None:
        raise WireError(errno.EINVAL)
    return Perm(domid, _BITS[text[0]])


def perms_of(*texts: str) -> Perms:
    """Permissions from their usual spelling: `perms_of("n1", "r0")`."""
    return tuple(parse_perm(text) for text in texts)


def rights(domid: int, perms: Perms) -> int:
    """The rights that permissions give to a domain: domain 0 and the owner have them all."""
    if domid in (0, perms[0].domid):
        return READ | WRITE | OWNER
    for perm in perms[1:]:
        if perm.domid == domid:
            return perm.bits
    return perms[0].bits


class Node(NamedTuple):
    """One node. Never changed: `children` is not written to after the node is made."""

    value: bytes
    perms: Perms
    children: Mapping[str, Node]
    generation: int

    def record_octets(self) -> int:
        """What xenstored would store for it: the size that the entry quota limits."""
        names = sum(len(name) + 1 for name in self.children)
        return _RECORD_HEADER + 8 * len(self.perms) + len(self.value) + names


class Account:
    """A domain, as far as the store knows it: who it is and what counts against its quotas."""

    def __init__(self, domid: int) -> None:
        self.domid = domid
        self.watches = 0
        self.transactions = 0

    @property
    def privileged(self) -> bool:
        """Whether rights and quotas do not bind it."""
        return self.domid == 0

    @property
    def path(self) -> str:
        """What its relative paths are relative to."""
        return domain_path(self.domid)


class Watch:
    """A watch of one session. `base` is what a relative one is relative to, else empty."""

    def __init__(self, session: Session, path: str, token: bytes, base: str) -> None:
        self.session = session
        self.path = path
        self.token = token
        self.base = base

    def shown(self, path: str) -> str:
        """A changed path as this watch's owner is told of it."""
        return path[len(self.base) :].removeprefix("/") if self.base else path


def domain_path(domid: int) -> str:
    """A domain's own directory."""
    return f"/local/domain/{domid}"


def valid_path(path: str) -> bool:
    """Whether a path may name a node."""
    if not path.startswith("/") or (path != "/" and path.endswith("/")) or "//" in path:
        return False
    match = _DOMAIN_PATH.match(path)
    offset = match.end() if match else 0
    return len(path) <= offset + REL_PATH_MAX and _VALID.fullmatch(path) is not None


def parent_of(path: str) -> str:
    """The parent's path; the root's is the root."""
    return path.rpartition("/")[0] or "/"


def _parts(path: str) -> list[str]:
    return path.split("/")[1:] if path != "/" else []


def _child_path(path: str, name: str) -> str:
    return f"/{name}" if path == "/" else f"{path}/{name}"


def _prefixes(path: str) -> Iterator[str]:
    yield "/"
    at = path.find("/", 1)
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)
    if path != "/":
        yield path


class _View(ABC):
    """A tree that requests work on: the live one, or a transaction's."""

    def __init__(self, store: Store, root: Node) -> None:
        self.store = store
        self.root = root

    def peek(self, path: str) -> Node | None:
        """The node at `path`, without a trace."""
        node: Node | None = self.root
        for name in _parts(path):
            if node is None:
                return None
            node = node.children.get(name)
        return node

    def get(self, account: Account, path: str) -> Node | None:
        """The node at `path`, which the requester has then read."""
        return self.note(account, path, self.peek(path))

    def note(self, account: Account, path: str, node: Node | None) -> Node | None:
        """The requester has read that `node` is at `path` (or none)."""
        return node

    def nearest(self, account: Account, path: str) -> tuple[int, Node]:
        """The nearest parent that exists: how many levels above `path`, and the node.

        One walk down: a path may have a thousand levels, and to look at each from the root would
        let one guest keep the server busy.
        """
        names = _parts(path)[:-1]
        node = self.root
        for depth, name in enumerate(names):
            child = node.children.get(name)
            if child is None:
                self.note(account, "/" + "/".join(names[: depth + 1]), None)
                break
            node = child
        else:
            depth = len(names)
        self.note(account, "/" + "/".join(names[:depth]), node)
        return len(names) + 1 - depth, node

    def _replace(self, path: str, change: Callable[[Node], Node]) -> None:
        names = _parts(path)
        chain = [self.root]
        for name in names:
            chain.append(chain[-1].children[name])
        node = change(chain.pop())
        for parent, name in zip(reversed(chain), reversed(names), strict=True):
            children = dict(parent.children)
            children[name] = node
            node = parent._replace(children=children)
        self.root = node

    def set(self, path: str, value: bytes, perms: Perms) -> None:
        """Gives an existing node its value and permissions."""
        generation = self.store.next_generation()

        def change(node: Node) -> Node:
            self.count(node.perms[0].domid, -1)
            self.count(perms[0].domid, 1)
            return Node(value, perms, node.children, generation)

        self._replace(path, change)

    def add(self, path: str, levels: int, value: bytes, perms: Perms) -> None:
        """Makes a node and the parents that it lacks: `levels` nodes in all. Its parent above
        those exists, the first of those does not."""
        generation = self.store.next_generation()
        names = _parts(path)
        above, made = names[:-levels], names[-levels:]
        self.count(perms[0].domid, levels)
        node = Node(value, perms, {}, generation)
        for name in reversed(made[1:]):
            node = Node(b"", perms, {name: node}, generation)

        def change(parent: Node) -> Node:
            children = dict(parent.children)
            children[made[0]] = node
            return parent._replace(children=children, generation=generation)

        self._replace("/" + "/".join(above), change)

    def drop(self, path: str) -> None:
        """Removes an existing node with all below it."""
        generation = self.store.next_generation()
        name = path.rpartition("/")[2]
        for _, node in self.walk(path):
            self.count(node.perms[0].domid, -1)

        def change(parent: Node) -> Node:
            children = dict(parent.children)
            del children[name]
            return parent._replace(children=children, generation=generation)

        self._replace(parent_of(path), change)

    def walk(self, path: str) -> list[tuple[str, Node]]:
        """The node at `path` and all below it, children before their parents."""
        node = self.peek(path)
        found: list[tuple[str, Node]] = []
        todo = [(path, node)] if node is not None else []
        while todo:
            at, node = todo.pop()
            found.append((at, node))
            todo += [(_child_path(at, name), child) for name, child in node.children.items()]
        found.reverse()
        return found

    @abstractmethod
    def count(self, domid: int, change: int) -> None:
        """Counts a node made for, or taken from, a domain."""

    @abstractmethod
    def owned(self, domid: int) -> int:
        """The number of nodes that a domain owns in this tree."""

    @abstractmethod
    def changed(self, path: str, exact: bool, seen: tuple[Perms, ...]) -> None:
        """Fires watches, now or at the commit. `seen`: the permissions that allow to be told."""

    @abstractmethod
    def fail(self) -> None:
        """A request failed half-way."""


class _Live(_View):
    """The tree that everybody sees."""

    def __init__(self, store: Store, root: Node) -> None:
        super().__init__(store, root)
        self._owned: Counter[int] = Counter()

    def count(self, domid: int, change: int) -> None:
        self._owned[domid] += change

    def owned(self, domid: int) -> int:
        return self._owned[domid]

    def changed(self, path: str, exact: bool, seen: tuple[Perms, ...]) -> None:
        self.store.fire(path, exact, seen)

    def fail(self) -> None:
        """What was done before stays done, as in xenstored."""


class _Transaction(_View):
    """A snapshot, what was read of it, and the changes to be made when it commits."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, store.live.root)
        self._start = store.live.root
        self._read: dict[str, int] = {}
        self._log: list[Callable[[_View], None]] = []
        self._fire: dict[str, tuple[bool, tuple[Perms, ...]]] = {}
        self._owned: Counter[int] = Counter()
        self._failed = False
        self._created = False
        self.doomed = False  # its domain was restored meanwhile: the commit gets EAGAIN

    def note(self, account: Account, path: str, node: Node | None) -> Node | None:
        if path not in self._read:
            if len(self._read) >= QUOTA_TRANSACTION_NODES and not account.privileged:
                self._failed = True
                raise WireError(errno.ENOSPC)
            self._read[path] = node.generation if node else _ABSENT
        return node

    def set(self, path: str, value: bytes, perms: Perms) -> None:
        super().set(path, value, perms)
        self._log.append(lambda live: live.set(path, value, perms))

    def add(self, path: str, levels: int, value: bytes, perms: Perms) -> None:
        super().add(path, levels, value, perms)
        self._created = True
        self._log.append(lambda live: live.add(path, levels, value, perms))

    def drop(self, path: str) -> None:
        super().drop(path)
        self._log.append(lambda live: live.drop(path))

    def count(self, domid: int, change: int) -> None:
        self._owned[domid] += change

    def owned(self, domid: int) -> int:
        return self.store.live.owned(domid) + self._owned[domid]

    def changed(self, path: str, exact: bool, seen: tuple[Perms, ...]) -> None:
        before = self._fire.get(path)
        if before is not None:
            exact = exact and before[0]
            seen = before[1] + seen
        self._fire[path] = (exact, seen)

    def fail(self) -> None:
        self._failed = True

    def commit(self, account: Account) -> None:
        """Makes the changes, or none of them: EAGAIN, or ENOMEM or ENOSPC when a quota was hit."""
        live = self.store.live
        if self._failed:
            raise WireError(errno.ENOMEM)
        if self._created and not account.privileged:
            for domid, more in self._owned.items():
                if more and live.owned(domid) + more >= QUOTA_NODES and domid != 0:
                    raise WireError(errno.ENOSPC)
        if self.doomed:
            raise WireError(errno.EAGAIN)
        if live.root is not self._start:
            for path, generation in self._read.items():
                node = live.peek(path)
                if (node.generation if node else _ABSENT) != generation:
                    raise WireError(errno.EAGAIN)
        for change in self._log:
            change(live)
        for path, (exact, seen) in self._fire.items():
            self.store.fire(path, exact, seen)


class Store:
    """The tree, the special watches' permissions, and everybody's watches."""

    def __init__(self) -> None:
        self._generation = 0
        owner = perms_of("n0")
        self.live: _View = _Live(self, Node(b"", owner, {}, self.next_generation()))
        self.live.count(0, 1)
        self.accounts: dict[int, Account] = {}
        self._special = {INTRODUCE_DOMAIN: owner, RELEASE_DOMAIN: owner}
        self._watches: dict[str, list[Watch]] = {}
        for path in ("/tool", "/tool/xenstored"):
            self.live.add(path, 1, b"", owner)

    def next_generation(self) -> int:
        """A generation later than any before."""
        self._generation += 1
        return self._generation

    def fire(self, path: str, exact: bool, seen: tuple[Perms, ...]) -> None:
        """Tells all who watch `path` or, unless `exact`, anything above it, and may know of it."""
        for at in (path,) if exact else _prefixes(path):
            for watch in tuple(self._watches.get(at, ())):
                domid = watch.session.account.domid
                if any(rights(domid, perms) & READ for perms in seen):
                    watch.session.deliver(watch.shown(path), watch.token)

    def fire_special(self, name: str) -> None:
        """Fires @introduceDomain or @releaseDomain."""
        self.fire(name, True, (self._special[name],))

    def special_perms(self, name: str) -> Perms | None:
        """The permissions of a special watch, or None when there is no such."""
        return self._special.get(name)

    def set_special_perms(self, name: str, perms: Perms) -> None:
        """Sets who may be told of a special watch."""
        self._special[name] = perms

    def add_watch(self, watch: Watch) -> None:
        """Begins to tell `watch` of changes."""
        self._watches.setdefault(watch.path, []).append(watch)

    def remove_watch(self, watch: Watch) -> None:
        """Ends it."""
        watches = self._watches[watch.path]
        watches.remove(watch)
        if not watches:
            del self._watches[watch.path]

    def watched(self, path: str, besides: Session) -> bool:
        """Whether any session but `besides` would be told of a change of `path`."""
        return any(
            watch.session is not besides
            for at in _prefixes(path)
            for watch in self._watches.get(at, ())
        )

    def forget_domain(self, domid: int) -> None:
        """Removes what a domain that is gone owned, wherever it is."""
        self.accounts.pop(domid, None)
        session = Session(self, Account(0), lambda path, token: None)
        for path, node in reversed(self.live.walk("/")):
            if node.perms[0].domid == domid and self.live.peek(path) is not None:
                session.rm(path)


class Session:
    """One connection's requests. `deliver(path, token)` is called for each watch event.

    `deliver` is called from within requests, of this session or of another one; it must not call
    back into the store. `tx` is 0 or the id of one of the session's own transactions.
    """

    def __init__(
        self, store: Store, account: Account, deliver: Callable[[str, bytes], None]
    ) -> None:
        self.store = store
        self.account = account
        self.deliver = deliver
        self._watches: list[Watch] = []
        self._transactions: dict[int, _Transaction] = {}
        self._next_transaction = 1
        self._suspended = False

    def close(self) -> None:
        """Ends the session's watches and transactions."""
        self.reset_watches()

    # Requests.

    def read(self, path: str, tx: int = 0) -> bytes:
        """The value of a node."""
        return self._node(self._view(tx), self.canonical(path), READ).value

    def directory(self, path: str, tx: int = 0) -> list[str]:
        """The names of a node's children, oldest first."""
        return list(self._node(self._view(tx), self.canonical(path), READ).children)

    def directory_part(self, path: str, offset: int, tx: int = 0) -> bytes:
        """The reply to DIRECTORY_PART: as much of the children's list as fits from `offset` on."""
        node = self._node(self._view(tx), self.canonical(path), READ)
        children = b"".join(name.encode() + b"\0" for name in node.children)
        generation = str(node.generation).encode() + b"\0"
        if not 0 <= offset < len(children):
            return generation + b"\0"
        room = PAYLOAD_MAX - len(generation) - 1
        part = children[offset : offset + room]
        if offset + len(part) == len(children):
            return generation + part + b"\0"
        return generation + part[: part.rfind(b"\0") + 1]

    def get_perms(self, path: str, tx: int = 0) -> Perms:
        """The permissions of a node."""
        return self._node(self._view(tx), self.canonical(path), READ).perms

    def write(self, path: str, value: bytes, tx: int = 0) -> None:
        """Sets a node's value; makes it, and the parents that it lacks."""
        view = self._view(tx)
        path = self.canonical(path)
        try:
            node = self._node(view, path, WRITE)
        except WireError as error:
            if error.code != errno.ENOENT:
                raise
            self._create(view, path, value)
        else:
            self._check_size(view, node._replace(value=value))
            view.set(path, value, node.perms)
        self._changed(view, path)

    def mkdir(self, path: str, tx: int = 0) -> None:
        """Makes sure that a node exists."""
        view = self._view(tx)
        path = self.canonical(path)
        try:
            self._node(view, path, WRITE)
        except WireError as error:
            if error.code != errno.ENOENT:
                raise
            self._create(view, path, b"")
            self._changed(view, path)

    def rm(self, path: str, tx: int = 0) -> None:
        """Removes a node with all below it; none there is no error if the parent exists."""
        view = self._view(tx)
        path = self.canonical(path)
        try:
            self._node(view, path, WRITE)
        except WireError as error:
            if error.code == errno.ENOENT and view.get(self.account, parent_of(path)) is not None:
                return
            raise
        if path == "/":
            raise WireError(errno.EINVAL)
        parent = view.get(self.account, parent_of(path))
        assert parent is not None
        gone = view.walk(path)
        for at, node in gone:
            view.note(self.account, at, node)
        above = {at: node.perms for at, node in gone}
        view.drop(path)
        for at, node in gone:
            holder = parent.perms if at == path else above[parent_of(at)]
            view.changed(at, at != path, (node.perms, holder))

    def set_perms(self, path: str, perms: Perms, tx: int = 0) -> None:
        """Sets a node's permissions (only its owner may, and only domain 0 may give it away)."""
        if not perms:
            raise WireError(errno.EINVAL)
        if not self.account.privileged and len(perms) > QUOTA_PERMS:
            raise WireError(errno.ENOSPC)
        if perms[0].domid not in self.store.accounts:
            raise WireError(errno.ENOENT)
        if path.startswith("@"):
            special = self.store.special_perms(path)
            if special is None:
                raise WireError(errno.EINVAL)
            if not rights(self.account.domid, special) & OWNER:
                raise WireError(errno.EACCES)
            self.store.set_special_perms(path, perms)
            return
        view = self._view(tx)
        path = self.canonical(path)
        node = self._node(view, path, WRITE | OWNER)
        if not self.account.privileged and perms[0].domid != node.perms[0].domid:
            raise WireError(errno.EPERM)
        self._check_size(view, node._replace(perms=perms))
        view.set(path, node.value, perms)
        self._changed(view, path, node.perms)

    def watch(self, path: str, token: bytes) -> Watch:
        """Adds a watch. The caller then delivers its first event, after the reply."""
        absolute, base = path, ""
        if path.startswith("@"):
            if len(path) > REL_PATH_MAX:
                raise WireError(errno.EINVAL)
        else:
            absolute = self.canonical(path)
            base = "" if path.startswith("/") else self.account.path
            if not valid_path(absolute):
                raise WireError(errno.EINVAL)
        if any(watch.path == absolute and watch.token == token for watch in self._watches):
            raise WireError(errno.EEXIST)
        if not self.account.privileged and self.account.watches > QUOTA_WATCHES:
            raise WireError(errno.E2BIG)
        watch = Watch(self, absolute, token, base)
        self._watches.append(watch)
        self.account.watches += 1
        self.store.add_watch(watch)
        return watch

    def unwatch(self, path: str, token: bytes) -> None:
        """Removes a watch."""
        path = self.canonical(path)
        for watch in self._watches:
            if watch.path == path and watch.token == token:
                self._watches.remove(watch)
                self.account.watches -= 1
                self.store.remove_watch(watch)
                return
        raise WireError(errno.ENOENT)

    def reset_watches(self) -> None:
        """Ends all of the session's watches and transactions."""
        self.suspend()
        self._suspended = False
        self.account.watches -= len(self._watches)
        self._watches.clear()
        self.account.transactions -= len(self._transactions)
        self._transactions.clear()

    def transaction_start(self) -> int:
        """Begins a transaction."""
        if not self.account.privileged and self.account.transactions > QUOTA_TRANSACTIONS:
            raise WireError(errno.ENOSPC)
        while self._next_transaction in self._transactions:
            self._next_transaction += 1
        tx = self._next_transaction
        self._next_transaction = tx % 0xFFFFFFFF + 1
        self._transactions[tx] = _Transaction(self.store)
        self.account.transactions += 1
        return tx

    def transaction_end(self, tx: int, commit: bool) -> None:
        """Ends a transaction, whatever becomes of it. EAGAIN: begin it again."""
        self._view(tx)
        if tx == 0:
            raise WireError(errno.ENOENT)
        transaction = self._transactions.pop(tx)
        self.account.transactions -= 1
        if commit:
            transaction.commit(self.account)

    def check_transaction(self, tx: int) -> None:
        """ENOENT unless `tx` is 0 or a transaction of this session."""
        self._view(tx)

    # The rest.

    def suspend(self) -> None:
        """The domain is gone, but may be restored: no watch fires meanwhile."""
        if not self._suspended:
            for watch in self._watches:
                self.store.remove_watch(watch)
        self._suspended = True

    def move(self, old_path: str) -> None:
        """The account has a new domid, and a transaction begun under the old one cannot commit.
        To be called while suspended."""
        for watch in self._watches:
            if watch.base == old_path:
                watch.path = self.account.path + watch.path[len(old_path) :]
                watch.base = self.account.path
        for transaction in self._transactions.values():
            transaction.doomed = True

    def resume(self) -> None:
        """The end of `suspend`; the caller then calls `fire_all`."""
        self._suspended = False
        for watch in self._watches:
            self.store.add_watch(watch)

    def fire_all(self) -> None:
        """Fires each watch once, as when it was set."""
        for watch in tuple(self._watches):
            self.deliver(watch.shown(watch.path), watch.token)

    def canonical(self, path: str) -> str:
        """The absolute path of one that may be relative to the domain's directory."""
        return path if path[:1] in ("/", "@") else f"{self.account.path}/{path}"

    def _view(self, tx: int) -> _View:
        if tx == 0:
            return self.store.live
        transaction = self._transactions.get(tx)
        if transaction is None:
            raise WireError(errno.ENOENT)
        return transaction

    def _node(self, view: _View, path: str, needed: int) -> Node:
        """The node, when it exists and the session has all `needed` rights.

        Whoever may not read (or write) the nearest parent is not told whether a node exists.
        """
        if not valid_path(path):
            raise WireError(errno.EINVAL)
        node = view.get(self.account, path)
        if node is not None and rights(self.account.domid, node.perms) & needed == needed:
            return node
        _, parent = view.nearest(self.account, path)
        known = rights(self.account.domid, parent.perms) & needed
        raise WireError(errno.ENOENT if known and node is None else errno.EACCES)

    def _create(self, view: _View, path: str, value: bytes) -> None:
        levels, parent = view.nearest(self.account, path)
        perms = parent.perms
        if not self.account.privileged:
            if view.owned(self.account.domid) + levels > QUOTA_NODES:
                view.fail()
                raise WireError(errno.ENOSPC)
            perms = (Perm(self.account.domid, perms[0].bits), *perms[1:])
            made = _parts(path)[-levels:]
            self._check_size(view, parent._replace(children={**parent.children, made[0]: parent}))
            for name in made[1:]:
                self._check_size(view, Node(b"", perms, {name: parent}, 0))
            self._check_size(view, Node(value, perms, {}, 0))
        view.add(path, levels, value, perms)

    def _check_size(self, view: _View, node: Node) -> None:
        if not self.account.privileged and node.record_octets() >= QUOTA_ENTRY_OCTETS:
            view.fail()
            raise WireError(errno.ENOSPC)

    def _changed(self, view: _View, path: str, *old: Perms) -> None:
        node = view.peek(path)
        parent = view.peek(parent_of(path))
        assert node is not None
        assert parent is not None
        view.changed(path, False, (*old, node.perms, parent.perms))
