# SPDX-License-Identifier: LGPL-2.1-or-later
"""What systemd hands to a service, and is told by it: sd_listen_fds(3) and sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket

_FIRST = 3


def listening() -> list[socket.socket]:
    """Return the sockets that systemd listens on for this process; without it, none."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    sockets = []
    for fd in range(_FIRST, _FIRST + count):
        os.set_inheritable(fd, False)
        sockets.append(socket.socket(fileno=fd))
    return sockets


def notify(*state: str) -> None:
    """Tell systemd, if it started this, such as `READY=1`, all at once.

    Nobody fails for want of a listener, nor waits for it longer than a second.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
        contextlib.suppress(OSError),
    ):
        sock.settimeout(1)
        sock.sendto("\n".join(state).encode(), address)


def watchdog_seconds() -> float | None:
    """Return within how many seconds systemd wants each next `WATCHDOG=1`; None: it does not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isdigit() and int(text) > 0 else None
