# SPDX-License-Identifier: LGPL-2.1-or-later
"""A XenStore that does its clients no good: a socket where one is looked for, and its ways."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

from xenaudio.core.xswire import HEADER, Type, pack, unpack_header

WAYS = ["accepts nothing", "answers nothing", "answers half", "closes in the middle"]


class BadStore:
    """Listens on `path` until `gone`. Whatever it is asked, it never gives a whole answer."""

    def __init__(self, path: Path, way: str) -> None:
        self._path = path
        self._way = way
        self._connections: list[socket.socket] = []
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(path))
        self._listening.listen(0 if way == "accepts nothing" else 16)
        if way == "accepts nothing":
            # With that the backlog is full: to connect takes as long as one is willing to wait.
            self._connections.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            self._connections[0].connect(str(path))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while self._way != "accepts nothing":
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._connections.append(connection)
            if self._way != "answers nothing":
                self._answer_half(connection)

    def _answer_half(self, connection: socket.socket) -> None:
        request = unpack_header(connection.recv(HEADER.size, socket.MSG_WAITALL))
        reply = pack(Type(request.type), request.req_id, request.tx_id, b"OK\0")
        connection.sendall(reply[: len(reply) // 2])
        if self._way == "closes in the middle":
            # With what was sent read or not: its descriptor stays until the end, as the others do.
            connection.shutdown(socket.SHUT_RDWR)

    def gone(self, keeps_connections: bool) -> None:
        """Listen no longer; its connections end too, or go on without an answer."""
        self._path.unlink()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()
        if not keeps_connections:
            self.close()

    def close(self) -> None:
        """End its connections."""
        for connection in self._connections:
            # At once, whatever was not read.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
            connection.close()
        self._connections.clear()


@contextlib.contextmanager
def bad_store(path: Path, way: str) -> Iterator[BadStore]:
    """Have such a store at `path`, for the time being."""
    store = BadStore(path, way)
    try:
        yield store
    finally:
        if path.exists() and not path.is_symlink():
            store.gone(keeps_connections=False)
        store.close()
