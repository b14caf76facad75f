# SPDX-License-Identifier: LGPL-2.1-or-later
"""The stand-in's own messages: csrc/hv/local_wire.h, whose other end this is.

They have XenStore's framing (core/xswire.py), and share its socket. Numbers within XenStore's
requests are read here as xenstored reads them.
"""

from __future__ import annotations

import errno
import re
import struct
from enum import IntEnum

from xenaudio.core.xswire import WireError


class Request(IntEnum):
    """Message types: XA_LOCAL_* of local_wire.h."""

    GNTALLOC = 0x1001
    GNTDEALLOC = 0x1002
    GNTMAP = 0x1003
    GNTUNMAP = 0x1004
    EVTCHN_ALLOC_UNBOUND = 0x1011
    EVTCHN_BIND_INTERDOMAIN = 0x1012
    EVTCHN_UNBIND = 0x1013


GNTALLOC = struct.Struct("=HHI")
GNTMAP = struct.Struct("=HHI")
GNTPAGE = struct.Struct("=II")
EVTCHN = struct.Struct("=HHI")
U32 = struct.Struct("=I")

GNTALLOC_MAX = 1000
GNTMAP_MAX = 128

DOMID_FIRST_RESERVED = 0x7FF0
DOMID_SELF = 0x7FF0

_INTEGER = re.compile(r"\s*([+-]?)(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))", re.ASCII)


def leading_int(text: bytes) -> int:
    """C's atoi, which XenStore's requests are read with: the leading decimal number, or 0."""
    text = text.lstrip()
    end = 1 if text[:1] in (b"-", b"+") else 0
    while end < len(text) and text[end : end + 1].isdigit():
        end += 1
    try:
        return int(text[:end])
    except ValueError:
        return 0


def whole_int(text: str) -> int | None:
    """C's strtol with base 0, if it reads all of the text: decimal, 0x hexadecimal or 0 octal."""
    match = _INTEGER.fullmatch(text)
    if match is None:
        return None
    sign, hexadecimal, octal, decimal = match.groups()
    number = int(hexadecimal or octal or decimal, 16 if hexadecimal else 8 if octal else 10)
    return -number if sign == "-" else number


def unpack_refs(head: struct.Struct, payload: bytes, most: int) -> tuple[int, int, list[int]]:
    """The first two fields of a xa_local_gntmap, then its references. EINVAL for a wrong size."""
    if len(payload) < head.size:
        raise WireError(errno.EINVAL)
    remote, flag, count = head.unpack_from(payload)
    if not 1 <= count <= most or len(payload) != head.size + count * U32.size:
        raise WireError(errno.EINVAL)
    return remote, flag, list(struct.unpack_from(f"={count}I", payload, head.size))
