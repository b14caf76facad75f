# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs the demo's processes, shows how it goes, and gathers what they measured."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from xenaudio.cli.demo.clip import Clip
from xenaudio.cli.demo.guest import CLIENTS, Guest
from xenaudio.cli.demo.report import Measured, finish_report, played_files
from xenaudio.cli.processes import Process
from xenaudio.cli.procusage import Usage
from xenaudio.cli.standin import stand_in
from xenaudio.core.format import by_name

GUEST = "guest"
RESULTS = ("played.wav", "report.json", "picture.png", "backend.jsonl", "guest.json")
LOOK_SECONDS = 0.1
BUFFER_OCTETS = 4 << 20  # of the card: any buffer in milliseconds that makes sense fits


class DemoError(Exception):
    """The demo cannot go on."""


@dataclass(frozen=True)
class Settings:
    """What the demo is to do."""

    out: Path
    """The folder of the results, and the processes' logs."""
    client: str = "pulse"
    """What plays in the guest, of guest.CLIENTS."""
    output: str | None = None
    """Where the backend plays to; None: to played.wav, which is then compared."""
    period_ms: float = 10.0
    """Of the direct client."""
    buffer_ms: float | None = None
    """Of the direct client; or the latency that a client of PulseAudio asks for. None: theirs."""


def _vsnd(clip: Clip) -> str:
    """Describe the guest's card, in xl's syntax."""
    format = by_name(clip.sample_format)
    assert format is not None
    return (
        f"[['CARD, short-name=Demo, sample-rates={clip.rate}, channels-max={clip.channels},"
        f" sample-formats={format.libxl_name or format.name}, buffer-size={BUFFER_OCTETS}',"
        " 'PCM, name=Speech', 'STREAM, unique-id=speech, type=p']]"
    )


class _Watcher:
    """Reads the backend's statistics as they are written, and shows them."""

    def __init__(self, stats: TextIO, clip: Clip) -> None:
        self._stats = stats
        self._clip = clip
        self._rest = ""
        self._tty = sys.stderr.isatty()
        self._said = 0.0
        self._before: int | None = None
        self.trace: list[list[int]] = []
        self.last: dict[str, Any] = {}

    @property
    def playing(self) -> bool:
        return bool(self.trace)

    @property
    def played(self) -> int:
        """Frames played since `begin`."""
        return int(self.last["frames_out"]) - (self._before or 0) if self.last else 0

    def begin(self) -> None:
        """From here on it is the clip: before, a sink may have played silence."""
        self.look()
        self._before = self.last["frames_out"] if self.last else 0

    def look(self) -> None:
        """Take the lines written since the last call."""
        *lines, self._rest = (self._rest + self._stats.read()).split("\n")
        for line in lines:
            entry = json.loads(line)
            if entry["stats"]["opens"]:
                self.trace += entry["trace"]
                self.last = entry["stats"]
        if lines and self.playing and self._before is not None:
            self._show()

    def _show(self) -> None:
        done = min(1.0, self.played / self._clip.frames)
        peak = self.last["peak"]
        seconds = done * self._clip.seconds
        if self._tty:
            bar = "#" * round(30 * done)
            level = "=" * round(20 * peak**0.5)
            print(
                f"\r[{bar:<30}] {seconds:5.1f} of {self._clip.seconds:.1f} s  level [{level:<20}]",
                end="",
                file=sys.stderr,
                flush=True,
            )
        elif time.monotonic() - self._said >= 1:
            self._said = time.monotonic()
            print(
                f"demo: {seconds:.1f} of {self._clip.seconds:.1f} s, level {peak:.2f}",
                file=sys.stderr,
            )

    def finish(self) -> None:
        """End the line."""
        self.look()
        if self._tty:
            print(file=sys.stderr)


def run_demo(clip: Clip, settings: Settings) -> dict[str, Any]:
    """Play the clip and report. DemoError, ProcessError, PulseMissingError."""
    begin = time.monotonic()
    out = settings.out
    for name in RESULTS:
        if (out / name).exists() and (out / name).samefile(clip.path):
            raise DemoError(f"{clip.path}: a result is to be written there; copy it, or take --out")
    out.mkdir(parents=True, exist_ok=True)
    for path in (*(out / name for name in RESULTS), *played_files(out)):
        path.unlink(missing_ok=True)
    # Socket paths are short; the folder of the results may not be.
    with ExitStack() as stack:
        scratch = Path(tempfile.mkdtemp(prefix="xenaudio-"))
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        (out / "backend.jsonl").touch()
        serve = ["--output", settings.output or f"file:{out / 'played.wav'}"]
        serve += ["--stats", str(out / "backend.jsonl")]
        machine = stack.enter_context(stand_in(scratch / "hv", out, serve))
        address = machine.create(GUEST, _vsnd(clip))
        guest = stack.enter_context(
            CLIENTS[settings.client](
                clip=clip,
                address=address,
                scratch=scratch,
                out=out,
                period_ms=settings.period_ms,
                buffer_ms=settings.buffer_ms,
            )
        )
        with (out / "backend.jsonl").open() as stats:
            measured = _follow(clip, stats, guest, machine.backend)
    measured.begin_s = begin - float(os.environ.get("XENAUDIO_SETUP_S", "0"))
    guest.finish(measured)
    return finish_report(clip, out, measured, compared=settings.output is None)


def _follow(clip: Clip, stats: TextIO, guest: Guest, backend: Process) -> Measured:
    """Play, and watch until all was heard."""
    watcher = _Watcher(stats, clip)
    watcher.begin()
    started: dict[str, Usage] = {}
    used: dict[str, Usage] = {}
    player = guest.play()
    carrier = player.pid if guest.pid is None else guest.pid
    try:
        while player.poll() is None:
            backend.check_alive()
            watcher.look()
            if watcher.playing and not started:
                started = {"guest": Usage.of(carrier), "backend": Usage.of(backend.pid)}
                print(f"demo: playing {clip.title}, through {guest.through}", file=sys.stderr)
            elif started and watcher.played < clip.frames:
                used = {
                    "guest": Usage.of(carrier).since(started["guest"]),
                    "backend": Usage.of(backend.pid).since(started["backend"]),
                }
            time.sleep(LOOK_SECONDS)
    finally:
        player.stop()
    if player.poll() != 0:
        raise player.failed(f"ended with status {player.poll()}")
    # What is under way is still heard, and one more interval brings the last statistics.
    time.sleep(guest.tail_s + 2 * LOOK_SECONDS)
    watcher.finish()
    if not watcher.last:
        raise backend.failed("tells nothing of what it played")
    return Measured(
        usage=used,
        backend=watcher.last,
        trace=watcher.trace,
        through=guest.through,
    )
