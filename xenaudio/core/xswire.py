# SPDX-License-Identifier: LGPL-2.1-or-later
"""XenStore's messages, as a server takes and sends them: xen/io/xs_wire.h.

Integers have the machine's byte order, as the header has it. (The client is in C: csrc/hv/store.h,
store.py.)
"""

from __future__ import annotations

import errno
import struct
from enum import IntEnum
from typing import NamedTuple

PAYLOAD_MAX = 4096
ABS_PATH_MAX = 3072
REL_PATH_MAX = 2048

HEADER = struct.Struct("=IIII")


class Type(IntEnum):
    """Message types: `enum xsd_sockmsg_type`."""

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


# The errors that xs_wire.h can name, and ESRCH, which csrc/hv/rpc.c knows beside them. Any other
# one travels as EINVAL, as xenstored has it.
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
