# SPDX-License-Identifier: LGPL-2.1-or-later
"""The messages on a domain's socket: XenStore's framing and types, and the stand-in's own.

XenStore's part is xen/io/xs_wire.h; the rest is csrc/hv/local_wire.h, whose other end this is.
Integers have the machine's byte order, as both headers have it.
"""

from __future__ import annotations

import errno
import re
import struct
from enum import IntEnum
from typing import NamedTuple

PAYLOAD_MAX = 4096
ABS_PATH_MAX = 3072
REL_PATH_MAX = 2048

HEADER = struct.Struct("=IIII")


class Type(IntEnum):
    """Message types: `enum xsd_sockmsg_type`, then XA_LOCAL_* of local_wire.h."""

    CONTROL = 0
    DIRECTORY = 1
    READ = 2
    GET_PERMS = 3
    WATCH = 4
    UNWATCH = 5
    TRANSACTION_START = 6
    TRANSACTION_END = 7
    INTRODUCE = 8
    RELEASE = 9
    GET_DOMAIN_PATH = 10
    WRITE = 11
    MKDIR = 12
    RM = 13
    SET_PERMS = 14
    WATCH_EVENT = 15
    ERROR = 16
    IS_DOMAIN_INTRODUCED = 17
    RESUME = 18
    SET_TARGET = 19
    RESET_WATCHES = 21
    DIRECTORY_PART = 22

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

# The errors that xs_wire.h can name, and local_wire.h's own ESRCH. Any other one travels as EINVAL,
# as xenstored has it.
_ERRORS = frozenset(
    {
        errno.EINVAL,
        errno.EACCES,
        errno.EEXIST,
        errno.EISDIR,
        errno.ENOENT,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EIO,
        errno.ENOTEMPTY,
        errno.ENOSYS,
        errno.EROFS,
        errno.EBUSY,
        errno.EAGAIN,
        errno.EISCONN,
        errno.E2BIG,
        errno.EPERM,
        errno.ESRCH,
    }
)


_INTEGER = re.compile(r"\s*([+-]?)(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))", re.ASCII)


class WireError(Exception):
    """A request is refused with an errno of xs_wire.h; the connection goes on."""

    def __init__(self, code: int) -> None:
        super().__init__(errno.errorcode[code])
        self.code = code

    @property
    def name(self) -> str:
        """The errno's name as it travels."""
        return errno.errorcode[self.code] if self.code in _ERRORS else "EINVAL"


class Header(NamedTuple):
    """`struct xsd_sockmsg`."""

    type: int
    req_id: int
    tx_id: int
    length: int


def unpack_header(data: bytes | bytearray | memoryview) -> Header:
    """The header that `data` begins with (at least 16 octets)."""
    return Header(*HEADER.unpack_from(data))


def pack(kind: int, req_id: int, tx_id: int, payload: bytes) -> bytes:
    """One whole message."""
    return HEADER.pack(kind, req_id, tx_id, len(payload)) + payload


def one_string(payload: bytes) -> bytes:
    """The only string of a payload, which ends in its only 0. EINVAL otherwise."""
    if not payload or payload.find(b"\0") != len(payload) - 1:
        raise WireError(errno.EINVAL)
    return payload[:-1]


def strings(payload: bytes) -> list[bytes]:
    """All strings that end in a 0; what follows the last 0 is not one."""
    return payload.split(b"\0")[:-1]


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
