# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which of XenStore's nodes a client may ask for: pure functions of the request's octets.

What they let through is `device/vsnd`, what is below it, and what is below the path that libxl
gives the backend of a vsnd device of this domain. Whether there is such a device, with such a
backend, is for cards.py to know. Everything else is refused with EACCES, and what is no path with
EINVAL.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass

from xenaudio.core import xswire
from xenaudio.core.xswire import Type, WireError

FOLDER = "device/vsnd"

_CHARACTERS = re.compile(rb"[A-Za-z0-9/_@-]+")
_NUMBER = r"(0|[1-9][0-9]{0,4})"
_FRONTEND = re.compile(rf"{FOLDER}/{_NUMBER}(?:/(.+))?")
_BACKEND = re.compile(
    rf"/local/domain/{_NUMBER}/backend/vsnd/{_NUMBER}/{_NUMBER}(?:/(.+))?",
)

_U32 = re.compile(r"0|[1-9][0-9]{0,9}")
_STREAM = re.compile(r"([0-9]|[1-9][0-9])/([0-9]|[1-9][0-9])/([a-z-]+)")
_REFERENCES = frozenset({"ring-ref", "evt-ring-ref"})
_PORTS = frozenset({"event-channel", "evt-event-channel"})
_VALUES = {
    "state": re.compile(r"[13456]"),
    "version": re.compile(r"[12]"),
}
"""What a frontend writes of its device, beside the streams' nodes and features."""
_FEATURE = re.compile(r"feature-[a-z-]{1,40}")
_FEATURE_VALUE = re.compile(r"[01]")


@dataclass(frozen=True)
class Node:
    """A node that may be asked for."""

    path: str
    """As the store is asked: relative, or a backend's absolute one."""
    device: int | None
    """The number of the device; None: the folder of all."""
    inside: str
    """The path below the device's folder; "" is that folder itself."""
    backend: int | None = None
    """For a backend's node: the domain that it is in."""


@dataclass(frozen=True)
class Write:
    """A write that may be made, if the client has what it names."""

    node: Node
    value: str
    reference: int | None = None
    """A grant that it names."""
    port: int | None = None
    """An event channel that it names."""
    stream: tuple[int, int] | None = None
    """The PCM device and the stream that it is of."""

    @property
    def is_state(self) -> bool:
        """Whether it is the device's state."""
        return self.node.inside == "state"


def parse(path: bytes, domid: int) -> Node:
    """Return the node that a path means in domain `domid`, which is the own one."""
    limit = xswire.ABS_PATH_MAX if path.startswith(b"/") else xswire.REL_PATH_MAX
    if not 0 < len(path) <= limit or _CHARACTERS.fullmatch(path) is None:
        raise WireError(errno.EINVAL)
    text = path.decode("ascii")
    if "//" in text or text.removeprefix("/").endswith("/"):
        raise WireError(errno.EINVAL)
    text = text.removeprefix(f"/local/domain/{domid}/")
    if text == FOLDER:
        return Node(text, None, "")
    frontend = _FRONTEND.fullmatch(text)
    if frontend is not None:
        return Node(text, _device(frontend[1]), frontend[2] or "")
    backend = _BACKEND.fullmatch(text)
    if backend is not None and int(backend[2]) == domid:
        return Node(text, _device(backend[3]), backend[4] or "", int(backend[1]))
    raise WireError(errno.EACCES)


def _device(text: str) -> int:
    number = int(text)
    if number > 0xFFFF:
        raise WireError(errno.EACCES)
    return number


def parse_write(payload: bytes, domid: int) -> Write:
    """Return what a WRITE's payload asks for: a node that a vsnd frontend writes, and its value."""
    path, end, octets = payload.partition(b"\0")
    if not end:
        raise WireError(errno.EINVAL)
    node = parse(path, domid)
    if node.backend is not None or not node.inside:
        raise WireError(errno.EACCES)
    try:
        value = octets.decode("ascii")
    except UnicodeDecodeError:
        raise WireError(errno.EINVAL) from None
    of_device = _VALUES.get(node.inside)
    if of_device is None and _FEATURE.fullmatch(node.inside):
        of_device = _FEATURE_VALUE
    if of_device is not None:
        if of_device.fullmatch(value) is None:
            raise WireError(errno.EINVAL)
        return Write(node, value)
    of_stream = _STREAM.fullmatch(node.inside)
    if of_stream is None or of_stream[3] not in _REFERENCES | _PORTS:
        raise WireError(errno.EACCES)
    if _U32.fullmatch(value) is None or int(value) > 0xFFFFFFFF:
        raise WireError(errno.EINVAL)
    stream = (int(of_stream[1]), int(of_stream[2]))
    if of_stream[3] in _REFERENCES:
        return Write(node, value, reference=int(value), stream=stream)
    return Write(node, value, port=int(value), stream=stream)


def parse_path(payload: bytes, domid: int) -> Node:
    """Return the node that the payload of a READ or a DIRECTORY asks for."""
    return parse(xswire.one_string(payload), domid)


def parse_watch(payload: bytes, domid: int) -> tuple[Node, bytes, bytes]:
    """Return the node that a WATCH or UNWATCH is about, its path as given, and the token."""
    words = xswire.strings(payload)
    if len(words) != 2 or not payload.endswith(b"\0"):
        raise WireError(errno.EINVAL)
    return parse(words[0], domid), words[0], words[1]


def is_frontends(inside: str) -> bool:
    """Say whether a frontend writes a node (its path below the device's folder)."""
    if inside in _VALUES or _FEATURE.fullmatch(inside):
        return True
    of_stream = _STREAM.fullmatch(inside)
    return of_stream is not None and of_stream[3] in _REFERENCES | _PORTS


REFUSED = frozenset(
    {
        Type.CONTROL,
        Type.GET_PERMS,
        Type.INTRODUCE,
        Type.RELEASE,
        Type.GET_DOMAIN_PATH,
        Type.MKDIR,
        Type.RM,
        Type.SET_PERMS,
        Type.IS_DOMAIN_INTRODUCED,
        Type.RESUME,
        Type.SET_TARGET,
        Type.RESET_WATCHES,
    }
)
"""Requests of XenStore that no frontend makes: EACCES. What is no request at all: ENOSYS."""
