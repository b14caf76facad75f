# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the C core's negative errno values become in Python.

Every error is a XenAudioError and an OSError with `errno` set; the common ones are also what Python
calls them, so that `except FileNotFoundError` works.
"""

from __future__ import annotations

import errno
import os


class XenAudioError(OSError):
    """A call of the C core failed. `errno` is positive; the text says what was attempted."""

    def __init__(self, code: int, what: str) -> None:
        super().__init__(code, f"{what}: {os.strerror(code)}")

    def __str__(self) -> str:
        return str(self.strerror)


class NotFoundError(XenAudioError, FileNotFoundError):
    """ENOENT: no such node or socket."""


class DeniedError(XenAudioError, PermissionError):
    """EACCES, EPERM: this domain or user may not."""


class ConflictError(XenAudioError, BlockingIOError):
    """EAGAIN: somebody else changed what a transaction read. Begin it again."""


class ClosedError(XenAudioError, BrokenPipeError):
    """EPIPE: the connection is over."""


class ProtocolError(XenAudioError):
    """EPROTO: the other end sent what it must not."""


class TimedOutError(XenAudioError, TimeoutError):
    """ETIMEDOUT: the other end did not answer in time."""


_CLASSES: dict[int, type[XenAudioError]] = {
    errno.ENOENT: NotFoundError,
    errno.EACCES: DeniedError,
    errno.EPERM: DeniedError,
    errno.EAGAIN: ConflictError,
    errno.EPIPE: ClosedError,
    errno.EPROTO: ProtocolError,
    errno.ETIMEDOUT: TimedOutError,
}


def make_error(code: int, what: str) -> XenAudioError:
    """Make the exception for an errno value, of either sign. `what` is what was attempted."""
    code = abs(code)
    return _CLASSES.get(code, XenAudioError)(code, what)


def check(result: int, what: str) -> int:
    """Return a C function's result, or raise the exception that a negative one means."""
    if result < 0:
        raise make_error(result, what)
    return result
