# SPDX-License-Identifier: LGPL-2.1-or-later
"""The states of a XenBus device (xen/io/xenbus.h, enum xenbus_state)."""

from __future__ import annotations

import enum


class XenbusState(enum.IntEnum):
    """What a `state` node holds, in decimal."""

    UNKNOWN = 0
    INITIALISING = 1
    INIT_WAIT = 2
    INITIALISED = 3
    CONNECTED = 4
    CLOSING = 5
    CLOSED = 6
    RECONFIGURING = 7
    RECONFIGURED = 8

    @classmethod
    def parse(cls, text: str | None) -> XenbusState:
        """Return the state that a node's value means; UNKNOWN for none or nonsense."""
        try:
            return cls(int(text or "0"))
        except ValueError:
            return cls.UNKNOWN
