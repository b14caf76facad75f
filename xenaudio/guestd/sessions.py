# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whose turn it is at the machine: what logind says of users, through libsystemd.

Where there is no libsystemd or no logind, nobody comes before anybody.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
from collections.abc import Callable

log = logging.getLogger(__name__)

LIBRARY = "libsystemd.so.0"

NOWHERE = 0
ACTIVE = 1
AT_SEAT = 2


class Sessions:
    """The users' ranks, followed on the running loop: `changed()` is called when they may differ.

    A user who is active at a seat comes before one who is active elsewhere (over a network), and
    that one before those who are not. (An application's process need not be part of a session: the
    user's own systemd runs it. So users are asked about, not processes.)
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._library: ctypes.CDLL | None = None
        self._monitor = ctypes.c_void_p()
        self._fd = -1

    def start(self) -> None:
        """Begin to follow logind."""
        try:
            library = ctypes.CDLL(LIBRARY)
        except OSError:
            log.info("there is no %s: cards go to who comes first", LIBRARY)
            return
        result = library.sd_login_monitor_new(b"uid", ctypes.byref(self._monitor))
        if result < 0:
            log.info("there is no logind (%s): cards go to who comes first", os.strerror(-result))
            return
        self._library = library
        self._fd = library.sd_login_monitor_get_fd(self._monitor)
        asyncio.get_running_loop().add_reader(self._fd, self._ready)

    def stop(self) -> None:
        """Cease to follow it."""
        if self._library is not None:
            asyncio.get_running_loop().remove_reader(self._fd)
            self._library.sd_login_monitor_unref(self._monitor)
            self._library = None

    def _ready(self) -> None:
        if self._library is not None:
            self._library.sd_login_monitor_flush(self._monitor)
        self._changed()

    def rank(self, uid: int) -> int:
        """Return NOWHERE, ACTIVE or AT_SEAT."""
        if self._library is None:
            return NOWHERE
        if self._library.sd_uid_get_seats(ctypes.c_uint32(uid), 1, None) > 0:
            return AT_SEAT
        state = ctypes.c_char_p()
        if self._library.sd_uid_get_state(ctypes.c_uint32(uid), ctypes.byref(state)) < 0:
            return NOWHERE
        active = state.value == b"active"
        ctypes.CDLL(None).free(state)
        return ACTIVE if active else NOWHERE
