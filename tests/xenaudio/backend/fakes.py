# SPDX-License-Identifier: LGPL-2.1-or-later
"""A store and an engine made for tests of a device: what Device needs of the real ones."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from xenaudio.backend.cardconfig import StreamNodes
from xenaudio.backend.device import LiveStream
from xenaudio.backend.routes import StreamPlace
from xenaudio.core.engine import (
    Caps,
    ConnectError,
    StreamSetup,
    StreamState,
    StreamStats,
    TracePoint,
)
from xenaudio.core.errors import make_error

_T = TypeVar("_T")

BACK = "/local/domain/0/backend/vsnd/7/0"


class FakeStore:
    """Nodes in a dict. What is done in a transaction is done at once."""

    def __init__(self) -> None:
        self.nodes: dict[str, str] = {}
        self.watches: dict[str, tuple[str, Callable[[str], None]]] = {}
        self.states: list[str] = []
        self.lost = False
        self.before_transaction: Callable[[], None] = lambda: None

    def put(self, path: str, value: str) -> None:
        """Write a node as somebody else does."""
        self.nodes[path] = value
        for watched, callback in list(self.watches.values()):
            if path == watched or path.startswith(watched + "/"):
                callback(path)

    def remove(self, path: str) -> None:
        """Remove a directory."""
        for node in [n for n in self.nodes if n == path or n.startswith(path + "/")]:
            del self.nodes[node]
        for watched, callback in list(self.watches.values()):
            if watched.startswith(path):
                callback(watched)

    def _check(self, what: str) -> None:
        if self.lost:
            raise make_error(errno.EPIPE, what)

    async def read(self, path: str, _tx: int = 0) -> str:
        self._check(path)
        if path not in self.nodes:
            raise make_error(errno.ENOENT, path)
        return self.nodes[path]

    async def write(self, path: str, value: str, _tx: int = 0) -> None:
        self._check(path)
        if path == f"{BACK}/state":
            self.states.append(value)
        self.put(path, value)

    async def watch(self, path: str, callback: Callable[[str], None]) -> str:
        self._check(path)
        token = str(len(self.watches) + 1)
        self.watches[token] = (path, callback)
        callback(path)
        return token

    async def unwatch(self, token: str) -> None:
        self._check(token)
        del self.watches[token]

    async def run_transaction(
        self, function: Callable[[int], Awaitable[_T]], attempts: int = 100
    ) -> _T:
        self.before_transaction()
        return await function(1)

    async def read_tree(self, path: str, *, is_folder: Callable[[str], bool]) -> dict[str, Any]:
        self._check(path)
        tree: dict[str, Any] = {}
        for node, value in self.nodes.items():
            if node.startswith(path + "/"):
                *above, last = node[len(path) + 1 :].split("/")
                place = tree
                if not all(map(is_folder, above)):
                    continue
                for name in above:
                    place = place.setdefault(name, {})
                place[last] = value
        return tree


STATS = StreamStats(
    **{
        **{f.name: 0 for f in dataclasses.fields(StreamStats)},
        "state": StreamState.CLOSED,
        "broken": None,
        "trouble": None,
        "last_error_why": None,
    }
)


class FakeStream:
    """A stream of FakeEngine."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.broken: str | None = None
        self.refuses = False

    def refuse(self) -> None:
        self.refuses = True

    def stats(self) -> StreamStats:
        return dataclasses.replace(STATS, broken=self.broken)

    def trace(self) -> list[TracePoint]:
        return [TracePoint(1, 2, 3, 4, 5)]

    def disconnect(self) -> None:
        self.engine.streams.remove(self)


class FakeEngine:
    """Connects streams, or refuses the one of a direction."""

    def __init__(self) -> None:
        self.streams: list[FakeStream] = []
        self.setups: list[StreamSetup] = []
        self.refuses_capture = False

    def connect(self, _hv: object, setup: StreamSetup) -> FakeStream:
        if setup.capture and self.refuses_capture:
            raise ConnectError(errno.EACCES, "its request ring (ring-ref) cannot be used")
        self.setups.append(setup)
        self.streams.append(FakeStream(self))
        return self.streams[-1]


def live_stream(engine: FakeEngine) -> LiveStream:
    """Make a stream as a connected device has it."""
    caps = Caps((), (48000,), 1, 2, 65536)
    nodes = StreamNodes(0, 0, "p", False, caps, 1, 2, 3, 4)
    stream: Any = FakeStream(engine)
    return LiveStream(StreamPlace("guest", 0, 0, 0), nodes, "null", stream)
