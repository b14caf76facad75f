# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `xenaudio play` and `xenaudio record` share: a stream chosen, opened, shown, and kept."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import json
import math
import os
import re
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any

from xenaudio.core.errors import XenAudioError
from xenaudio.core.format import Format, all_formats
from xenaudio.core.frontend import (
    Card,
    CardNotReadyError,
    CardState,
    Ranges,
    Stream,
    StreamState,
)

TRACE_MOST = 100_000
"""Positions and writes that `--stats` keeps: half an hour's at the default period."""

PERIOD_MS = 20.0
PERIODS = 5
WAIT_S = 10.0

# What an error means that is not the request's fault but the connection's: it may come back.
_LOST = (errno.ENOTCONN, errno.ETIMEDOUT, errno.EPROTO, errno.EPIPE)


# A stream that the next try can open.
_AT_REST = (StreamState.OFFLINE, StreamState.CLOSED)


class ClientError(Exception):
    """What went wrong, for people, in one line."""


def positive(text: str) -> float:
    """Read a number above 0 from the command line."""
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError
    return value


def whole(low: int, high: int) -> Callable[[str], int]:
    """Make an option's type: a whole number within limits."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,10}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(
                f"{text!r}: expected a whole number from {low} to {high}"
            )
        return int(text)

    return read


def add_stream_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a stream and its geometry."""
    parser.add_argument(
        "--hv",
        metavar="ADDRESS",
        help="'xen', 'guestd' or 'guestd:SOCKET' (the guest service), or the socket of this domain"
        " of the stand-in (default: $XENAUDIO_HV, else xen, or guestd where only that can be used)",
    )
    parser.add_argument(
        "--device", type=whole(0, 65535), default=0, metavar="N", help="the card (default: 0)"
    )
    parser.add_argument(
        "--pcm", type=whole(0, 255), metavar="N", help="the PCM device (default: any)"
    )
    parser.add_argument(
        "--stream", type=whole(0, 255), metavar="N", help="the stream (default: the first)"
    )
    parser.add_argument(
        "--period-ms", type=positive, metavar="MS", help=f"period (default: {PERIOD_MS:g} ms)"
    )
    parser.add_argument(
        "--buffer-ms", type=positive, metavar="MS", help=f"buffer (default: {PERIODS} periods)"
    )
    parser.add_argument("--rate", type=whole(1, 768000), metavar="HZ", help="sample rate")
    parser.add_argument("--channels", type=whole(1, 255), metavar="N", help="channels")
    parser.add_argument(
        "--format", metavar="NAME", help="sample format: s16_le, s24_le (in four octets), ..."
    )
    parser.add_argument(
        "--wait",
        type=positive,
        metavar="S",
        help=f"how long to wait for a backend (default: {WAIT_S:g} s; once begun, for ever)",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    parser.add_argument(
        "--stats",
        metavar="FILE",
        help="write statistics to FILE, as JSON; play's trace and latency are those of the newest"
        f" {TRACE_MOST} positions and writes",
    )


def format_by_name(name: str) -> Format:
    """Return the format called `name`. ClientError naming them all."""
    for format in all_formats():
        if name in (format.name, format.libxl_name):
            return format
    known = ", ".join(format.name for format in all_formats())
    raise ClientError(f"--format {name}: no such format; there are {known}")


def is_lost(error: XenAudioError) -> bool:
    """Say whether the connection is what failed, so that waiting for the backend may help."""
    return error.errno in _LOST and not isinstance(error, CardNotReadyError)


async def wait_for_card(card: Card, limit_s: float | None) -> None:
    """Wait until the card is connected. ClientError with the reason when it is not in time."""
    try:
        await card.connected(limit_s)
    except CardNotReadyError as error:
        hint = ""
        if card.state is CardState.WAITING and "no backend" in error.reason:
            hint = "; is `xenaudio serve` running there?"
        elif card.state is CardState.ABSENT and "store of xen cannot be reached" in error.reason:
            hint = (
                "; is this a Xen guest? (With the stand-in: `xenaudio localhv run GUEST --` before"
                " the command, or --hv SOCKET)"
            )
        raise ClientError(f"sound card {card.device}: {error.reason}{hint}") from None


def choose_stream(card: Card, args: argparse.Namespace, *, capture: bool) -> Stream:
    """Return the stream that the options ask for. ClientError listing what there is."""
    found = card.find_stream(capture=capture, pcm=args.pcm, index=args.stream)
    if found is not None:
        return found
    kind = "capture" if capture else "playback"
    there = ", ".join(
        f"PCM {s.pcm} stream {s.index} ({'capture' if s.capture else 'playback'})"
        for s in card.streams
    )
    asked = "".join(
        f" --{name} {value}"
        for name, value in (("pcm", args.pcm), ("stream", args.stream))
        if value is not None
    )
    raise ClientError(f"sound card {card.device} has no {kind} stream{asked}; it has {there}")


def _range_text(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def check_allowed(stream: Stream, rate: int, channels: int, source: str) -> None:
    """Refuse a rate or number of channels that the stream is not configured for."""
    if rate not in stream.rates:
        allowed = ", ".join(str(r) for r in sorted(stream.rates))
        raise ClientError(f"this stream takes {allowed} Hz; {source} has {rate} Hz")
    low, high = stream.channels
    if not low <= channels <= high:
        raise ClientError(
            f"this stream takes {_range_text(low, high)} channels; {source} has {channels}"
        )


def formats_text(stream: Stream) -> str:
    """List the formats that a stream takes."""
    return ", ".join(format.name for format in stream.formats)


async def _ranges(stream: Stream, format: Format, rate: int, channels: int) -> Ranges:
    """Ask what buffers and periods the backend can do; what the card allows if it cannot say."""
    frames = stream.buffer_octets_max // format.frame_octets(channels)
    widest = Ranges(
        1 << format.code, (rate, rate), (channels, channels), (2, frames), (1, frames // 2)
    )
    if frames < 2:
        raise ClientError(
            f"this stream's buffer ({stream.buffer_octets_max} octets) is too small for"
            f" {channels} channels of {format.name}"
        )
    try:
        answer = await stream.query(widest)
    except XenAudioError as error:
        if is_lost(error):
            raise
        return widest
    return answer


async def open_stream(
    stream: Stream, format: Format, rate: int, channels: int, args: argparse.Namespace
) -> None:
    """Open a stream with the period and buffer that the options ask for, or the nearest by default.

    ClientError when they were asked for and cannot be had.
    """
    ranges = await _ranges(stream, format, rate, channels)
    period_ms = args.period_ms or PERIOD_MS
    period = max(1, round(rate * period_ms / 1000))
    low, high = ranges.period[0], min(ranges.period[1], ranges.buffer[1] // 2)
    if args.period_ms and not low <= period <= high:
        raise ClientError(
            f"--period-ms {args.period_ms:g}: this stream takes {_ms(low, rate)} to"
            f" {_ms(high, rate)} ms at {rate} Hz, {channels} channels, {format.name}"
        )
    period = min(max(period, low), high)
    buffer = round(rate * args.buffer_ms / 1000) if args.buffer_ms else PERIODS * period
    if args.buffer_ms and not max(ranges.buffer[0], 2 * period) <= buffer <= ranges.buffer[1]:
        raise ClientError(
            f"--buffer-ms {args.buffer_ms:g}: this stream takes"
            f" {_ms(max(ranges.buffer[0], 2 * period), rate)} to"
            f" {_ms(ranges.buffer[1], rate)} ms at {rate} Hz, {channels} channels,"
            f" {format.name}, periods of {_ms(period, rate)} ms"
        )
    buffer = min(max(buffer, ranges.buffer[0]), ranges.buffer[1])
    if not args.buffer_ms:
        # Whole periods, as real cards have them; unless the least that is allowed is no multiple.
        whole = buffer // period * period
        if whole >= max(ranges.buffer[0], 2 * period):
            buffer = whole
    try:
        await stream.open(rate, format, channels, period_frames=period, buffer_frames=buffer)
    except XenAudioError as error:
        if is_lost(error):
            raise
        raise ClientError(
            f"the backend refuses {rate} Hz, {channels} channels, {format.name}, period"
            f" {period}, buffer {buffer} frames: {error}"
        ) from error


def percentile(values: list[float], share: float) -> float:
    """Return the value below which `share` of the values lie (nearest rank); 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def write_stats(path: str, statistics: dict[str, object]) -> None:
    """Write what `--stats` asks for."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(statistics, file)
        file.write("\n")


def _ms(frames: int, rate: int) -> str:
    return f"{round(1000 * frames / rate, 2):g}"


class Progress:
    """Progress on standard error: on a terminal one line, drawn anew; else plain lines."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._tty = sys.stderr.isatty()
        self._every_s = 0.1 if self._tty else 5.0
        self._next = 0.0
        self._drawn = False

    def show(self, done_s: float, total_s: float | None, note: str) -> None:
        """Show how far it is, not more often than is useful."""
        now = time.monotonic()
        if self._quiet or now < self._next:
            return
        first = self._next == 0.0
        self._next = now + self._every_s
        if self._tty:
            line = f"{_clock(done_s)}"
            if total_s:
                filled = min(30, int(30 * done_s / total_s))
                line = f"{line} / {_clock(total_s)} [{'#' * filled}{'.' * (30 - filled)}]"
            sys.stderr.write(f"\r\x1b[K{line}  {note}")
            sys.stderr.flush()
            self._drawn = True
        elif not first:
            total = f" of {_clock(total_s)}" if total_s else ""
            print(f"{_clock(done_s)}{total}  {note}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Print a line of its own, also when quiet: it is about something that went wrong."""
        self.finish()
        print(text, file=sys.stderr, flush=True)

    def finish(self) -> None:
        """Leave the drawn line."""
        if self._drawn:
            sys.stderr.write("\n")
            sys.stderr.flush()
            self._drawn = False


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{seconds % 60:04.1f}"


class StreamClient(ABC):
    """A stream that is served to its end, over as many connections as it takes."""

    name: str
    """The subcommand, for people."""

    def __init__(self, args: argparse.Namespace, progress: Progress) -> None:
        self._args = args
        self._progress = progress
        self.stream: Stream | None = None
        """The stream of this connection, once it is open."""
        self.reconnects = 0

    @abstractmethod
    async def _serve(self, card: Card) -> None:
        """Open a stream of a connected card, set `stream`, and go on to the end."""

    @abstractmethod
    def _collect(self) -> None:
        """Take over what `stream`, which has ended or was lost, has to tell."""

    async def run(self, card: Card) -> None:
        """Serve the stream; when the connection is lost, wait for the backend and go on."""
        limit: float | None = self._args.wait or WAIT_S
        while True:
            await wait_for_card(card, limit)
            limit = self._args.wait
            try:
                await self._serve(card)
                return
            except XenAudioError as error:
                if not is_lost(error):
                    raise
                self._collect()
                self.reconnects += 1
                why = card.reason or str(error)
                self._progress.say(f"xenaudio {self.name}: {why}; waiting for the backend")
                if any(stream.state not in _AT_REST for stream in card.streams):
                    # Dead, or the backend has it open and does nothing: begin anew with it.
                    card.reconnect()
                # The card may not have noticed yet what the stream has.
                await asyncio.sleep(0.05)
                self.stream = None


EVENT_CHANNELS = "/dev/xen/evtchn"


def leave_event_channels(device: str = EVENT_CHANNELS) -> int | None:
    """Leave descriptors of `device` that are still open to a process that sleeps for ever.

    They are of event channels that the guest lost when it was saved: with the last descriptor of
    one, Linux stops with a BUG (csrc/hv/hv.h, xa_evtchn_abandon). Returns the process, if any.
    """
    folder, held = "/proc/self/fd", set()
    descriptors = [int(name) for name in os.listdir(folder)]
    for fd in descriptors:
        with contextlib.suppress(OSError):
            if os.readlink(f"{folder}/{fd}") == device:
                held.add(fd)
    if not held:
        return None
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for fd in descriptors:
            if fd in held:
                os.set_inheritable(fd, True)
            elif fd <= 2:
                os.dup2(nothing, fd)
            else:
                with contextlib.suppress(OSError):
                    os.close(fd)
        os.chdir("/")
        # systemd lets a process live whose name begins so until the machine is off.
        os.execvp("sleep", ["@xenaudio-left-event-channels", "infinity"])
    finally:
        # Without sleep this one stays, as large as it is.
        while True:
            signal.pause()


def run_client(name: str, main: Coroutine[Any, Any, None]) -> int:
    """Run a client; Ctrl-C and SIGTERM cancel it. Returns the exit status."""
    try:
        return _run_client(name, main)
    finally:
        leave_event_channels()


def _run_client(name: str, main: Coroutine[Any, Any, None]) -> int:
    interrupted: list[int] = []

    async def cancellable() -> None:
        task = asyncio.create_task(main)
        loop = asyncio.get_running_loop()

        def stop(number: int) -> None:
            interrupted.append(number)
            # A second one ends it the hard way.
            loop.remove_signal_handler(number)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        await task

    try:
        asyncio.run(cancellable())
    except asyncio.CancelledError:
        return 128 + (interrupted[0] if interrupted else signal.SIGINT)
    except (ClientError, OSError) as error:
        print(f"xenaudio {name}: {error}", file=sys.stderr)
        return 1
    return 0
