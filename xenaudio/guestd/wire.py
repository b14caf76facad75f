# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service's own messages: csrc/hv/guestd_wire.h, whose other end this is.

They have XenStore's framing (core/xswire.py), and share its connection.
"""

from __future__ import annotations

import struct
from enum import IntEnum

SOCKET = "/run/xenaudio/guestd.sock"
"""Where the service listens if nothing else is said."""


class Request(IntEnum):
    """Message types: XA_GUESTD_* of guestd_wire.h."""

    STORE = 0x2001
    GRANT = 0x2002
    GRANT_END = 0x2003
    EVTCHN = 0x2004
    EVTCHN_END = 0x2005


GRANT = struct.Struct("=HHI")
GRANTED = struct.Struct("=QII")
GRANT_MAX = 1000
EVTCHN = struct.Struct("=HHI")
PORTS_MAX = 2
U32 = struct.Struct("=I")
