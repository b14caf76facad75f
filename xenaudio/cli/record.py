# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xenaudio record`: records from a guest's card into a sound file, or a pipe, bit for bit."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import os
import sys
from typing import Protocol

from xenaudio.cli.streamclient import (
    ClientError,
    Progress,
    StreamClient,
    add_stream_options,
    check_allowed,
    choose_stream,
    format_by_name,
    formats_text,
    open_stream,
    positive,
    run_client,
    write_stats,
)
from xenaudio.core.errors import XenAudioError
from xenaudio.core.format import Format
from xenaudio.core.frontend import Card, Stream
from xenaudio.core.hv import Hypervisor
from xenaudio.core.soundfile import SoundWriter

DESCRIPTION = """\
Record from a sound card of this guest into FILE until Ctrl-C, or for --seconds: a FLAC file when
its name ends in .flac, else a WAV file; raw samples to standard output for -.

Samples are written as the backend gives them, in the format asked for. When the backend goes away,
record waits for it and goes on; what was to be heard meanwhile is missing, and it says so.
"""

DEFAULT_RATE = 48000
DEFAULT_CHANNELS = 2
DEFAULT_FORMAT = "s16_le"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "record",
        help="record from a guest's card",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="the sound file, or - for standard output")
    parser.add_argument("--seconds", type=positive, metavar="S", help="how much to record")
    add_stream_options(parser)
    parser.set_defaults(run=run)


class Sink(Protocol):
    """Where the samples go."""

    def write(self, data: bytes) -> None:
        """Append whole frames."""

    def close(self) -> None:
        """Close it."""


class _RawSink:
    """Standard output."""

    def write(self, data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def close(self) -> None:
        pass


def _choose(stream: Stream, args: argparse.Namespace) -> tuple[Format, int, int]:
    """Return format, rate and channels: what is asked for, else the default or the nearest."""
    formats = stream.formats
    format = format_by_name(args.format or DEFAULT_FORMAT)
    if all(f.code != format.code for f in formats):
        if args.format:
            raise ClientError(f"this stream gives {formats_text(stream)}; not {format.name}")
        format = formats[0]
    rate = args.rate or DEFAULT_RATE
    if not args.rate and rate not in stream.rates:
        rate = max(stream.rates)
    low, high = stream.channels
    channels = args.channels or min(max(DEFAULT_CHANNELS, low), high)
    check_allowed(stream, rate, channels, "what is asked for")
    return format, rate, channels


class Recorder(StreamClient):
    """Records until the frames asked for are there."""

    name = "record"

    def __init__(self, args: argparse.Namespace, progress: Progress) -> None:
        super().__init__(args, progress)
        self._sink: Sink | None = None
        self._kind: tuple[Format, int, int] | None = None
        self._left: int | None = None
        self.frames = 0
        self.overruns = 0
        self.frames_lost = 0

    def _open_sink(self, format: Format, rate: int, channels: int) -> Sink:
        if self._args.file == "-":
            return _RawSink()
        try:
            return SoundWriter(self._args.file, format, rate, channels)
        except XenAudioError as error:
            if error.errno == errno.ENOTSUP:
                raise ClientError(
                    f"{self._args.file}: such a file cannot hold {channels} channels of"
                    f" {format.name} at {rate} Hz exactly; use .wav, or --format s16_le"
                ) from None
            raise

    async def _serve(self, card: Card) -> None:
        stream = choose_stream(card, self._args, capture=True)
        if self._kind is None:
            self._kind = _choose(stream, self._args)
        format, rate, channels = self._kind
        check_allowed(stream, rate, channels, "the recording")
        await open_stream(stream, format, rate, channels, self._args)
        self.stream = stream
        if self._sink is None:
            self._sink = self._open_sink(format, rate, channels)
            if self._args.seconds:
                self._left = round(self._args.seconds * rate)
        frame = format.frame_octets(channels)
        while self._left is None or self._left > 0:
            wanted = stream.buffer_frames
            data = await stream.read(wanted if self._left is None else min(wanted, self._left))
            self._sink.write(data)
            frames = len(data) // frame
            self.frames += frames
            if self._left is not None:
                self._left -= frames
            self._show(rate)
        await stream.stop()
        self._collect()
        await stream.close()

    def _collect(self) -> None:
        if self.stream is not None:
            stats = self.stream.stats
            self.overruns += stats.overruns
            self.frames_lost += stats.overrun_octets // self.stream.frame_octets

    def _show(self, rate: int) -> None:
        note = "recording"
        if self.overruns:
            note += f", {self.overruns} overruns"
        self._progress.show(self.frames / rate, self._args.seconds, note)

    def close(self) -> None:
        """Finish the file."""
        if self._sink is not None:
            sink, self._sink = self._sink, None
            sink.close()

    def statistics(self) -> dict[str, object]:
        """Return what `--stats` writes."""
        format, rate, channels = self._kind or (None, 0, 0)
        return {
            "file": self._args.file,
            "rate": rate,
            "channels": channels,
            "format": format.name if format else None,
            "frames_received": self.frames,
            "overruns": self.overruns,
            "frames_lost": self.frames_lost,
            "reconnects": self.reconnects,
        }


async def _record(args: argparse.Namespace) -> None:
    progress = Progress(args.quiet)
    recorder = Recorder(args, progress)
    with Hypervisor(args.hv) as hv:
        async with Card.open(hv, args.device) as card:
            try:
                await recorder.run(card)
            finally:
                progress.finish()
                if recorder.stream is not None:
                    with contextlib.suppress(XenAudioError, asyncio.TimeoutError):
                        await asyncio.wait_for(recorder.stream.close(), 1.0)
                recorder.close()
                if args.stats:
                    write_stats(args.stats, recorder.statistics())
    if recorder.frames_lost:
        progress.say(
            f"xenaudio record: {recorder.frames_lost} frames are missing: this guest was too slow"
            f" {recorder.overruns} times"
        )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    folder = os.path.dirname(args.file)
    if args.file != "-" and folder and not os.path.isdir(folder):
        print(f"xenaudio record: {args.file}: there is no folder {folder}", file=sys.stderr)
        return 1
    return run_client("record", _record(args))
