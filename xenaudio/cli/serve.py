# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xenaudio serve`: the backend service, in dom0 or a sound domain."""

from __future__ import annotations

import argparse
import asyncio
import errno
import hashlib
import logging
import os
import resource
import signal
import socket
import sys
from contextlib import ExitStack

from xenaudio.backend.logformat import set_up
from xenaudio.backend.routes import RouteError, Routes, parse_route
from xenaudio.backend.service import Service
from xenaudio.backend.statslog import JsonStatsLog
from xenaudio.core.errors import XenAudioError
from xenaudio.core.hv import Hypervisor

DESCRIPTION = """\
Serve the sound devices (vsnd) of all guests until stopped with SIGTERM or Ctrl-C.

A route is `null` (nowhere; silence), `file:PATH` or `pulse`.

`file:PATH`: what guests play goes to a WAV file at PATH or, when PATH is a folder, to
GUEST-DEVICE-PCM-STREAM.wav in it. Nothing is overwritten: -2, -3, ... is put before .wav. What
guests record comes from the WAV or FLAC file at PATH, or the file of such a name in a folder,
followed by silence; with `loop:PATH` it begins again.

`pulse`: the PulseAudio server of the user who runs this (PipeWire's is one too), where each guest
is a client by its name. `pulse:SERVER` is another one (as in PULSE_SERVER), `pulse:SERVER,DEVICE`
or `pulse:,DEVICE` a certain sink or source. While the server is away guests play on unheard, and
record silence.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "serve",
        help="serve the guests' sound devices: the backend",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--hv",
        metavar="ADDRESS",
        help="'xen', or the socket of a domain of the stand-in (default: $XENAUDIO_HV, else xen)",
    )
    parser.add_argument(
        "--output", metavar="ROUTE", default="null", help="where guests play to (default: null)"
    )
    parser.add_argument(
        "--input", metavar="ROUTE", default="null", help="what guests record from (default: null)"
    )
    parser.add_argument("--json-log", action="store_true", help="log JSON objects, one a line")
    parser.add_argument(
        "--stats", metavar="FILE", help="append the streams' statistics to FILE, as JSON lines"
    )
    parser.set_defaults(run=run)


def _allow_many_files() -> None:
    """Raise the soft limit of open files to the hard one.

    A stream takes about ten. With the 1024 that systemd and shells give, one guest's card of 64
    streams would leave too few for the others.
    """
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _claim(address: str) -> socket.socket | None:
    """Be the one backend of this domain for as long as the socket is open; None: there is one.

    Two would take each guest's streams from each other. The name is the kernel's, and goes with the
    process however it ends.
    """
    domain = address if address == "xen" else os.path.realpath(address)
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(b"\0xenaudio-backend-" + hashlib.sha256(domain.encode()).hexdigest().encode())
    except OSError as error:
        claim.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return claim


async def _serve(hv: Hypervisor, routes: Routes, stats_log: JsonStatsLog | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await Service(hv, routes, stats_log).run(stop)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    set_up(args.json_log, logging.DEBUG if args.verbose > 0 else logging.INFO)
    try:
        routes = Routes(parse_route(args.output, False), parse_route(args.input, True))
    except RouteError as error:
        print(f"xenaudio serve: {error}", file=sys.stderr)
        return 1
    _allow_many_files()
    with ExitStack() as stack:
        hv = stack.enter_context(Hypervisor(args.hv))
        claim = _claim(hv.address)
        if claim is None:
            print(
                f"xenaudio serve: another backend serves {hv.address} already: stop that one first",
                file=sys.stderr,
            )
            return 1
        stack.enter_context(claim)
        stats_log = None
        if args.stats:
            stats_log = JsonStatsLog(stack.enter_context(open(args.stats, "a", encoding="utf-8")))
        try:
            asyncio.run(_serve(hv, routes, stats_log))
        except XenAudioError as error:
            if error.errno != errno.ENODEV or hv.address != "xen":
                raise
            print(
                f"xenaudio serve: {error}: is this machine running on Xen, and its xenstored?"
                " (With the stand-in: `xenaudio localhv run dom0 --` before the command, or"
                " --hv SOCKET)",
                file=sys.stderr,
            )
            return 1
    return 0
