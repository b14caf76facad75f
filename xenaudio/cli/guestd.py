# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xenaudio guestd`: the guest service, which gives a guest's users sound, and nothing else."""

from __future__ import annotations

import argparse
import asyncio
import errno
import logging
import os
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

from xenaudio.backend.logformat import set_up
from xenaudio.core.errors import XenAudioError
from xenaudio.core.hv import Hypervisor
from xenaudio.core.systemd import listening, notify
from xenaudio.core.unixsocket import listening_at
from xenaudio.guestd.service import Service
from xenaudio.guestd.wire import SOCKET

DESCRIPTION = """\
Give the users of this guest its sound cards (vsnd), and nothing else of Xen, until stopped with
SIGTERM or Ctrl-C. Each card belongs to one program at a time: that of a user who is active at the
machine comes first, others wait.

Programs reach it at its usual socket by themselves, or at another one with --hv guestd:PATH. It
needs root's rights on /dev/xen/xenbus, gntalloc and evtchn, and listens on the sockets that systemd
hands to it, if any.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "guestd",
        help="give a guest's users its sound cards: the guest service",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--hv",
        metavar="ADDRESS",
        default="xen",
        help="'xen', or the socket of a guest of the stand-in (default: xen)",
    )
    parser.add_argument(
        "--socket",
        metavar="PATH",
        type=Path,
        help=f"listen there, open to all users (default: systemd's sockets, else {SOCKET})",
    )
    parser.add_argument("--json-log", action="store_true", help="log JSON objects, one a line")
    parser.set_defaults(run=run)


async def _serve(hv: Hypervisor, sockets: list[socket.socket]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    service = Service(hv, sockets)

    async def tell() -> None:
        await service.ready.wait()
        notify("READY=1")

    telling = asyncio.create_task(tell())
    try:
        await service.run(stop)
    finally:
        telling.cancel()


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    set_up(args.json_log, logging.DEBUG if args.verbose > 0 else logging.INFO)
    # Sockets are for all users whatever the shell's mask says.
    os.umask(0o022)
    with ExitStack() as stack:
        hv = stack.enter_context(Hypervisor(args.hv))
        sockets = [stack.enter_context(sock) for sock in listening()]
        if args.socket is not None or not sockets:
            # Who may have what is not the socket's to decide.
            path = args.socket or Path(SOCKET)
            sockets.append(stack.enter_context(listening_at(path, 0o666)))
        try:
            asyncio.run(_serve(hv, sockets))
        except OSError as error:
            if error.errno not in (errno.ENODEV, errno.ENOENT) or hv.address != "xen":
                raise
            what = str(error) if isinstance(error, XenAudioError) else f"{error.filename}: missing"
            print(
                f"xenaudio guestd: {what}: is this a Xen guest, with the kernel's modules"
                " xen-gntalloc and xen-evtchn loaded? (With the stand-in: --hv SOCKET)",
                file=sys.stderr,
            )
            return 1
    return 0
