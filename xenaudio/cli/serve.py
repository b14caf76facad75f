# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xenaudio serve`: the backend service, in dom0 or a sound domain.

systemd is told when it serves, what it does, and that it is alive (sd_notify(3)).
"""

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
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

from xenaudio.backend import config as config_file
from xenaudio.backend import control, status
from xenaudio.backend.config import Config
from xenaudio.backend.logformat import set_up
from xenaudio.backend.routes import RouteError, Routes, parse_route
from xenaudio.backend.service import Service
from xenaudio.backend.statslog import JsonStatsLog
from xenaudio.core.errors import XenAudioError
from xenaudio.core.hv import Hypervisor
from xenaudio.core.systemd import notify, watchdog_seconds
from xenaudio.core.tomlfile import TomlFileError

log = logging.getLogger(__name__)

TELL_SECONDS = 5.0  # between two times that systemd is told what is done

DESCRIPTION = """\
Serve the sound devices (vsnd) of all guests until stopped with SIGTERM or Ctrl-C.

Which guest plays where, may record, and how much it may have, is in a file: --config, or
/etc/xenaudio/xenaudio.toml if there is one (`xenaudio check` says what is wrong with it). SIGHUP
has it read again: a bad one is refused and what was before stays in force; a good one counts for
each card when it connects next, that is when its guest starts, or it is detached and attached.
Without a file all guests play to nowhere and record silence. --output and --input are instead of a
file: one output and one input for all guests, who all may record.

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
        "--config",
        metavar="FILE",
        type=Path,
        help=f"the configuration file (default: {config_file.DEFAULT_FILE} if there is one)",
    )
    parser.add_argument(
        "--output",
        metavar="ROUTE",
        help="where guests play to, instead of a file's routes (default: null)",
    )
    parser.add_argument(
        "--input",
        metavar="ROUTE",
        help="what guests record from, instead of a file's routes (default: null)",
    )
    parser.add_argument(
        "--control",
        metavar="PATH",
        type=Path,
        help="the control socket, for `xenaudio status`"
        f" (default: {control.SOCKET} with --hv xen, else none)",
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


class _Runner:
    """A service with its signals, its control socket and what systemd is told."""

    def __init__(
        self, service: Service, load: Callable[[], Config], socket_at: Path | None
    ) -> None:
        self._service = service
        self._load = load
        self._socket_at = socket_at
        self._began = time.monotonic()
        self._refused: str | None = None  # why the file was not taken when last read
        self._reloading: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve until a signal. As Service.run."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_soon)
        telling = asyncio.create_task(self._tell())
        try:
            async with AsyncExitStack() as stack:
                await self._answer_status(stack)
                await self._service.run(stop)
        finally:
            telling.cancel()
            notify("STOPPING=1", "STATUS=Stopped")

    async def _answer_status(self, stack: AsyncExitStack) -> None:
        """Answer on the control socket for as long as the stack lasts.

        Who asked for no socket, and may not have the usual one, is served without.
        """
        if self._socket_at is None and self._service.hv.address != "xen":
            return
        answering = control.serve(
            self._socket_at or control.SOCKET,
            lambda: status.describe(self._service, time.monotonic() - self._began, self._refused),
        )
        try:
            await stack.enter_async_context(answering)
        except OSError as error:
            if self._socket_at is not None:
                raise
            log.warning(
                "%s: %s: `xenaudio status` cannot ask this service; --control PATH names another"
                " place",
                error.filename,
                error.strerror,
            )

    async def _tell(self) -> None:
        await self._service.ready.wait()
        notify("READY=1", self._status())
        watchdog = watchdog_seconds()
        while True:
            await asyncio.sleep(TELL_SECONDS if watchdog is None else watchdog / 3)
            notify("WATCHDOG=1", self._status())

    def _status(self) -> str:
        devices = self._service.devices
        streams = sum(len(device.streams) for device in devices)
        guests = len({device.guest_id for device in devices})
        refused = "; the configuration file was refused, see the log" if self._refused else ""
        return (
            f"STATUS=Serving {len(devices)} cards of {guests} guests, {streams} streams connected"
            f"{refused}"
        )

    def _reload_soon(self) -> None:
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self._reload())

    async def _reload(self) -> None:
        notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            # A route may be on a disk that does not answer.
            config = await asyncio.to_thread(self._load)
        except (TomlFileError, OSError) as error:
            self._refused = _reason(error)
            for line in self._refused.splitlines():
                log.error("%s", line)
            log.error("the configuration is not taken: what was in force before stays")
        else:
            self._refused = None
            self._service.reconfigure(config)
            log.info(
                "the configuration was read: %s", config.file or "no file, what counts without"
            )
        notify("READY=1", self._status())


def _reason(error: TomlFileError | OSError) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _loader(args: argparse.Namespace) -> Callable[[], Config]:
    """Return what makes the configuration, at the start and at each SIGHUP. RouteError."""
    if args.output is not None or args.input is not None:
        config = Config(
            Routes(
                parse_route(args.output or "null", False), parse_route(args.input or "null", True)
            )
        )
        return lambda: config
    if args.config is not None:
        return lambda: config_file.read(args.config)
    return config_file.read_default


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    set_up(args.json_log, logging.DEBUG if args.verbose > 0 else logging.INFO)
    if args.config is not None and (args.output is not None or args.input is not None):
        print(
            "xenaudio serve: --config FILE, or --output and --input: expected one or the other",
            file=sys.stderr,
        )
        return 2
    try:
        load = _loader(args)
        config = load()
    except RouteError as error:
        print(f"xenaudio serve: {error}", file=sys.stderr)
        return 1
    except (TomlFileError, OSError) as error:
        print(f"xenaudio serve: {_reason(error)}", file=sys.stderr)
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
            asyncio.run(_Runner(Service(hv, config, stats_log), load, args.control).run())
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
