# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xenaudio play`: plays a sound file, or a pipe, on a guest's card, bit for bit."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import sys
from collections import deque
from typing import Protocol

from xenaudio.cli.streamclient import (
    TRACE_MOST,
    ClientError,
    Progress,
    StreamClient,
    add_stream_options,
    check_allowed,
    choose_stream,
    format_by_name,
    formats_text,
    open_stream,
    percentile,
    run_client,
    write_stats,
)
from xenaudio.core.errors import XenAudioError
from xenaudio.core.format import Format
from xenaudio.core.frontend import Card, Stream
from xenaudio.core.hv import Hypervisor
from xenaudio.core.soundfile import SoundFileInfo, SoundReader
from xenaudio.core.wavstream import WavError, WavHeader, read_header, unpack_24

DESCRIPTION = """\
Play FILE (WAV, FLAC and whatever else libsndfile reads) on a sound card of this guest, or - for a
pipe: a WAV stream, or raw samples with --rate, --channels and --format.

Samples go to the backend as they are; where the card lacks the file's format they go in a wider one
that it has. Nothing that loses anything is done: then it is refused, and the message says what the
card takes.

When the backend goes away, play waits for it and goes on with the first frame that was not reported
as heard. So nothing is left out; what the backend took, but had not played, is played again.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "play",
        help="play a sound file in a guest",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="the sound file, or - for standard input")
    add_stream_options(parser)
    parser.set_defaults(run=run)


class Source(Protocol):
    """Where the samples come from."""

    name: str
    rate: int
    channels: int
    frames: int | None
    """How many there are, None: not known."""

    def choose_format(self, stream: Stream) -> Format:
        """Return the format in which the samples go to a stream. ClientError."""

    async def read(self, frames: int) -> bytes:
        """Return the next frames in the format chosen; none at the end."""

    def close(self) -> None:
        """Close it."""


class FileSource:
    """A sound file."""

    def __init__(self, path: str) -> None:
        try:
            info = SoundFileInfo(path)
        except FileNotFoundError:
            raise ClientError(f"{path}: there is no such file") from None
        except PermissionError:
            raise ClientError(f"{path}: you may not read it") from None
        except OSError:
            raise ClientError(
                f"{path}: not a sound file (expected WAV, FLAC or another that libsndfile reads)"
            ) from None
        if info.native is None:
            raise ClientError(
                f"{path}: its encoding is a lossy one, which is not decoded here;"
                " convert it to WAV or FLAC first"
            )
        self._info = info
        self._native = info.native
        self._reader: SoundReader | None = None
        self.name = path
        self.rate = info.rate
        self.channels = info.channels
        self.frames: int | None = info.frames

    def choose_format(self, stream: Stream) -> Format:
        """Choose the file's own format, else the smallest that holds it exactly."""
        formats = stream.formats
        candidates = [f for f in formats if f.code == self._native.code]
        candidates += sorted(
            (f for f in formats if self._info.reads_as(f)),
            key=lambda f: (f.sample_octets, f.big_endian, f.code),
        )
        if not candidates:
            raise ClientError(
                f"this stream takes {formats_text(stream)}; {self.name} has {self._native.name},"
                " which none of them holds exactly: convert the file, or let the card's"
                " sample-formats have it"
            )
        if self._reader is None:
            self._reader = SoundReader(self._info.path, candidates[0])
        return candidates[0]

    async def read(self, frames: int) -> bytes:
        """Return the next frames."""
        assert self._reader is not None
        return self._reader.read(frames)

    def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()


class _RawPipe:
    """A descriptor read without reading ahead."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def read(self, octets: int) -> bytes:
        """Wait for so many octets, fewer at the end."""
        parts = bytearray()
        while len(parts) < octets:
            part = os.read(self.fd, octets - len(parts))
            if not part:
                break
            parts += part
        return bytes(parts)


class PipeSource:
    """Standard input: WAV, or raw samples."""

    name = "standard input"

    def __init__(self, args: argparse.Namespace) -> None:
        self._pipe = _RawPipe(sys.stdin.fileno())
        self._left: int | None = None
        self._packed = False
        self.rate = 0
        self.channels = 0
        self.frames: int | None = None
        head = self._pipe.read(4)
        if head == b"RIFF":
            self._take_header(head)
            self._rest = b""
            return
        if args.rate is None or args.channels is None or args.format is None:
            raise ClientError(
                "standard input is no WAV stream: raw samples need --rate, --channels and --format"
            )
        self.rate, self.channels = args.rate, args.channels
        self._format = format_by_name(args.format)
        self._rest = head

    def _take_header(self, head: bytes) -> None:
        try:
            header: WavHeader = read_header(self._pipe, head)
        except WavError as error:
            raise ClientError(f"standard input: {error}") from None
        self.rate, self.channels, self._format = header.rate, header.channels, header.format
        self._packed = header.packed
        self._left = header.octets
        self.frames = None if header.octets is None else header.octets // self._frame_in_pipe

    @property
    def _frame_in_pipe(self) -> int:
        return 3 * self.channels if self._packed else self._format.frame_octets(self.channels)

    def choose_format(self, stream: Stream) -> Format:
        """Return the pipe's format, which the stream must take as it is."""
        if all(f.code != self._format.code for f in stream.formats):
            raise ClientError(
                f"this stream takes {formats_text(stream)}; {self.name} has {self._format.name}"
            )
        return self._format

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        try:
            loop.add_reader(self._pipe.fd, ready.set)
        except PermissionError:
            return  # a regular file: always readable
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._pipe.fd)

    async def read(self, frames: int) -> bytes:
        """Return what there is of the next frames, at least one."""
        frame = self._frame_in_pipe
        wanted = frames * frame
        if self._left is not None:
            wanted = min(wanted, self._left)
        data = bytearray(self._rest)
        while len(data) < wanted and len(data) < frame:
            await self._readable()
            part = os.read(self._pipe.fd, wanted - len(data))
            if not part:
                break
            data += part
        whole = len(data) // frame * frame
        self._rest = bytes(data[whole:])
        if self._left is not None:
            self._left -= whole
        samples = bytes(data[:whole])
        return unpack_24(samples) if self._packed else samples

    def close(self) -> None:
        """Leave standard input open: it is not ours."""


class Player(StreamClient):
    """Plays a source to its end."""

    name = "play"

    def __init__(self, source: Source, args: argparse.Namespace, progress: Progress) -> None:
        super().__init__(args, progress)
        self._source = source
        self._heard = 0  # frames of the source before the first in _unheard
        self._unheard: deque[bytes] = deque()
        self._frame = 1
        self._taken = 0  # frames of this connection that have left _unheard
        self._format: Format | None = None
        self._trace: deque[tuple[int, int, int]] = deque(maxlen=TRACE_MOST)
        self._latency_max = 0.0
        self._counts = dict.fromkeys(("underruns", "events", "requests", "doorbells", "wakeups"), 0)
        self._usage_begin = resource.getrusage(resource.RUSAGE_SELF)

    async def _serve(self, card: Card) -> None:
        stream = choose_stream(card, self._args, capture=False)
        source = self._source
        check_allowed(stream, source.rate, source.channels, source.name)
        format = source.choose_format(stream)
        if self._format is not None and format != self._format:
            raise ClientError("the card has come back without the format that was being played")
        self._format = format
        self._frame = format.frame_octets(source.channels)
        self._taken = 0
        await open_stream(stream, format, source.rate, source.channels, self._args)
        self.stream = stream
        if self._args.stats:
            stream.trace = self._trace
        if self.reconnects == 0:
            self._usage_begin = resource.getrusage(resource.RUSAGE_SELF)
        for chunk in list(self._unheard):
            await stream.write(chunk)
        while chunk := await source.read(stream.period_frames):
            self._unheard.append(chunk)
            await stream.write(chunk)
            self._forget_heard()
            self._show(stream)
        await stream.drain()
        self._collect()
        await stream.close()

    def _forget_heard(self) -> None:
        """Let go of what needs never be played again."""
        stream = self.stream
        if stream is None:
            return
        heard = stream.heard_frames
        while self._unheard and self._taken < heard:
            frames = len(self._unheard[0]) // self._frame
            if self._taken + frames > heard:
                frames = heard - self._taken
                self._unheard[0] = self._unheard[0][frames * self._frame :]
            else:
                self._unheard.popleft()
            self._taken += frames
            self._heard += frames

    def _collect(self) -> None:
        stream = self.stream
        if stream is None:
            return
        self._forget_heard()
        stats = stream.stats
        for name in self._counts:
            self._counts[name] += getattr(stats, name)
        per_ms = stream.rate / 1000
        self._latency_max = max(self._latency_max, stream.latency_max_frames / per_ms)

    def _show(self, stream: Stream) -> None:
        rate = self._source.rate
        total = self._source.frames
        note = f"latency {1000 * max(0, stream.latency_frames) / rate:.0f} ms"
        underruns = self._counts["underruns"] + stream.stats.underruns
        if underruns:
            note += f", {underruns} underruns"
        self._progress.show(self._heard / rate, total / rate if total else None, note)

    @property
    def frames_sent(self) -> int:
        """Frames of the source that were given to the backend, each counted once."""
        return self._heard + sum(len(chunk) for chunk in self._unheard) // self._frame

    def statistics(self, stream: Stream | None) -> dict[str, object]:
        """Return what `--stats` writes."""
        rate = self._source.rate
        latency = [1000 * (written - heard) / rate for _time, written, heard in self._trace]
        usage = resource.getrusage(resource.RUSAGE_SELF)
        begin = self._usage_begin
        return {
            "file": self._source.name,
            "rate": rate,
            "channels": self._source.channels,
            "format": self._format.name if self._format else None,
            "period_frames": stream.period_frames if stream else 0,
            "buffer_frames": stream.buffer_frames if stream else 0,
            "frames_sent": self.frames_sent,
            "frames_heard": self._heard,
            "reconnects": self.reconnects,
            **self._counts,
            "latency_ms": {
                "p50": percentile(latency, 0.5),
                "p99": percentile(latency, 0.99),
                "max": max([self._latency_max, *latency]),
            },
            "cpu_s": (usage.ru_utime + usage.ru_stime) - (begin.ru_utime + begin.ru_stime),
            "voluntary_switches": usage.ru_nvcsw - begin.ru_nvcsw,
            # CLOCK_MONOTONIC nanoseconds, frames written, frames heard: at position events, writes
            "trace": list(self._trace),
        }


async def _play(args: argparse.Namespace, source: Source) -> None:
    progress = Progress(args.quiet)
    player = Player(source, args, progress)
    last: Stream | None = None
    with Hypervisor(args.hv) as hv:
        async with Card.open(hv, args.device) as card:
            try:
                await player.run(card)
            finally:
                progress.finish()
                last = card.find_stream(capture=False, pcm=args.pcm, index=args.stream)
                if args.stats:
                    write_stats(args.stats, player.statistics(last))
                if player.stream is not None:
                    # Interrupted: what was not heard yet is dropped.
                    with contextlib.suppress(XenAudioError, asyncio.TimeoutError):
                        await asyncio.wait_for(player.stream.close(), 1.0)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    try:
        source: Source = PipeSource(args) if args.file == "-" else FileSource(args.file)
        if args.file != "-":
            for option in ("rate", "channels", "format"):
                if getattr(args, option) is not None:
                    raise ClientError(f"--{option} is for raw samples from -; {args.file} says it")
    except ClientError as error:
        print(f"xenaudio play: {error}", file=sys.stderr)
        return 1
    try:
        return run_client("play", _play(args, source))
    finally:
        source.close()
