# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a server has yet to send to one of XenStore's clients: replies, with descriptors, and watch
events.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from .xswire import Type, pack


@dataclass
class _Message:
    data: memoryview
    fds: list[int]
    event: bytes | None

    def close_fds(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()


class Output:
    """Messages that wait for room in a socket that does not block. For one thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._messages: deque[_Message] = deque()
        self._events: set[bytes] = set()
        self._closed = False
        self.octets = 0
        """That wait."""

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._messages)

    def put(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Queue a message. `fds` go with its first octet, and are the queue's to close."""
        self._put(_Message(memoryview(data), list(fds), None))

    def put_event(self, payload: bytes) -> None:
        """Queue a WATCH_EVENT."""
        self._put(_Message(memoryview(pack(Type.WATCH_EVENT, 0, 0, payload)), [], payload))

    def _put(self, message: _Message) -> None:
        if self._closed:
            message.close_fds()
            return
        if message.event is not None:
            self._events.add(message.event)
        self._messages.append(message)
        self.octets += len(message.data)

    def has_event(self, payload: bytes) -> bool:
        """Say whether an event waits of which the client has not got a single octet."""
        return payload in self._events

    def write(self) -> int:
        """Send what there is room for: how many octets. OSError: the client has gone."""
        before = self.octets
        while self._messages:
            message = self._messages[0]
            try:
                sent = socket.send_fds(self._sock, [message.data], message.fds, socket.MSG_NOSIGNAL)
            except (BlockingIOError, InterruptedError):
                break
            message.close_fds()
            if message.event is not None:
                self._events.discard(message.event)
                message.event = None
            self.octets -= sent
            message.data = message.data[sent:]
            if not message.data:
                self._messages.popleft()
        return before - self.octets

    def close(self) -> None:
        """Drop what waits, and what is put from now on."""
        self._closed = True
        for message in self._messages:
            message.close_fds()
        self._messages.clear()
        self._events.clear()
        self.octets = 0
