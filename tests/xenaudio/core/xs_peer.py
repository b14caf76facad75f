# SPDX-License-Identifier: LGPL-2.1-or-later
"""The other end of a Store in tests: a test says octet by octet what the server answers."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from xenaudio.core.store import Store

DIRECTORY, READ, GET_PERMS, WATCH, UNWATCH = 1, 2, 3, 4, 5
TRANSACTION_START, TRANSACTION_END, GET_DOMAIN_PATH = 6, 7, 10
WRITE, MKDIR, RM, SET_PERMS, WATCH_EVENT, ERROR = 11, 12, 13, 14, 15, 16

HEADER = struct.Struct("=IIII")


class Request(NamedTuple):
    """One request as it came."""

    type: int
    id: int
    tx: int
    payload: bytes


class Peer:
    """A scripted server on one end of a socket pair."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self.received = b""

    async def request(self) -> Request:
        """Wait for the next request."""
        while True:
            if len(self.received) >= HEADER.size:
                kind, req_id, tx, length = HEADER.unpack_from(self.received)
                if len(self.received) >= HEADER.size + length:
                    payload = self.received[HEADER.size : HEADER.size + length]
                    self.received = self.received[HEADER.size + length :]
                    return Request(kind, req_id, tx, payload)
            octets = await asyncio.get_running_loop().sock_recv(self.socket, 65536)
            if not octets:
                raise EOFError
            self.received += octets

    def send(self, kind: int, req_id: int, payload: bytes) -> None:
        """Send one message."""
        self.socket.sendall(HEADER.pack(kind, req_id, 0, len(payload)) + payload)

    def answer(self, request: Request, payload: bytes = b"OK\0") -> None:
        """Answer a request."""
        self.send(request.type, request.id, payload)

    def refuse(self, request: Request, error: str) -> None:
        """Answer a request with an error's name."""
        self.send(ERROR, request.id, error.encode() + b"\0")


@asynccontextmanager
async def store_and_peer() -> AsyncIterator[tuple[Store, Peer]]:
    """Connect a Store to a Peer."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    store = Store(ours.detach())
    try:
        yield store, Peer(theirs)
    finally:
        store.close()
        theirs.close()
