# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an ordinary user can do in a guest: probe.py UID SOCKET FORBIDDEN...

Exits with 0 when the user has the sound cards at SOCKET, and nothing else: no device of Xen, none
of the FORBIDDEN sockets, no other path of the store, no event channel but those given to it.
"""

from __future__ import annotations

import fcntl
import glob
import os
import socket
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from guestservice import Client, Refused

from xenaudio.core.xswire import Type

READ = ["name", "domid", "memory/target", "device", "/", "/local/domain/0/name", "/vm"]
WRITE = [
    "name",
    "data/x",
    "control/shutdown",
    "device/vbd/51712/state",
    "device/vsnd/0/backend",
    "device/vsnd/0/backend-id",
    "device/vsnd/1/state",
    "/local/domain/0/backend/vsnd/{domid}/0/state",
    "/local/domain/0/name",
]
BIND = {
    0: struct.pack("=I", 0),  # a virtual interrupt: the timer
    1: struct.pack("=II", 0, 1),  # a port of domain 0
    2: struct.pack("=I", 0),  # one for domain 0
    6: struct.pack("=H", 0x7FF0),  # and the lock itself
}
"""What binds ports: ioctl numbers, and what they are asked for."""


def main() -> None:
    """Try everything; fails with an AssertionError."""
    uid, address, *forbidden = sys.argv[1:]
    os.setgroups([])
    os.setresgid(int(uid), int(uid), int(uid))
    os.setresuid(int(uid), int(uid), int(uid))

    for path in [*glob.glob("/dev/xen/*"), "/proc/xen/xenbus", "/run/xenstored/socket"]:
        for mode in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
            try:
                os.close(os.open(path, mode))
            except OSError:
                continue
            raise AssertionError(f"{path} can be opened")
    for path in forbidden:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            assert probe.connect_ex(path) != 0, f"{path} can be connected to"

    with Client(address) as client:
        assert "0" in client.directory("device/vsnd")
        backend = client.read("device/vsnd/0/backend")
        domid = backend.split("/")[-2]
        assert client.read(f"{backend}/state")
        for path in READ:
            for kind in (Type.READ, Type.DIRECTORY):
                refuses(client, kind, f"{path}\0")
        for path in WRITE:
            path = path.format(domid=domid)
            refuses(client, Type.WRITE, f"{path}\x001")
            refuses(client, Type.MKDIR, f"{path}\0")
            refuses(client, Type.RM, f"{path}\0")
            refuses(client, Type.SET_PERMS, f"{path}\0b0\0")
        client.handle()
        if len(client.fds) == 1:
            binds_nothing(client.fds[0])


def binds_nothing(device: int) -> None:
    """Fail unless an open /dev/xen/evtchn is locked (<xen/evtchn.h> of Linux)."""
    for number, request in BIND.items():
        try:
            fcntl.ioctl(device, len(request) << 16 | ord("E") << 8 | number, bytearray(request))
        except PermissionError:
            continue
        raise AssertionError(f"request {number} of the event channel's device is let through")


def refuses(client: Client, kind: int, payload: str) -> None:
    """Fail unless a request is refused."""
    try:
        client.ask(kind, payload.encode())
    except Refused as refused:
        if refused.args[0] in ("EACCES", "ENOENT"):
            return
        raise AssertionError(f"{payload!r}: {refused.args[0]}") from None
    raise AssertionError(f"{payload!r} is let through")


if __name__ == "__main__":
    main()
