# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a client is told about latency, held against when its frames were heard.

timed_client.c plays a counter and logs each figure that PulseAudio gives it. When a frame was
heard is known to a tenth of a millisecond or so from the backend's trace, as a file output has no
delay of its own.
"""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from daemon import PulseAudio
from pcm import read_wav
from sound import files_of

RATE = 48000
SETTLED = 30
"""Figures of a stream's beginning that do not count: its first half second."""


def build_client(folder: Path) -> Path:
    """Compile timed_client."""
    program = folder / "timed_client"
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "libpulse"], capture_output=True, text=True, check=True
    )
    source = Path(__file__).with_name("timed_client.c")
    subprocess.run(
        ["cc", "-D_GNU_SOURCE", "-O2", "-o", program, source, *shlex.split(flags.stdout)],
        check=True,
    )
    return program


@dataclass(frozen=True)
class ClientLog:
    """What a timed client wrote."""

    latency: np.ndarray
    """Rows: when (ns), frames written by then, latency (us)."""
    asked_ns: np.ndarray
    """When the server asked for more."""

    @classmethod
    def read(cls, file: Path) -> ClientLog:
        """Read it; the last line may be half written."""
        rows: dict[str, list[list[int]]] = {"latency": [], "asked": []}
        text = file.read_text() if file.exists() else ""
        for line in text.split("\n")[:-1]:
            kind, *numbers = line.split()
            rows[kind].append([int(number) for number in numbers])
        return cls(
            np.array(rows["latency"], np.int64).reshape(-1, 3),
            np.array(rows["asked"], np.int64).reshape(-1, 2)[:, 0],
        )

    def longest_waits(self, count: int) -> list[tuple[int, int]]:
        """Return the longest times between two requests for more, from when until when (ns)."""
        longest = np.argsort(np.diff(self.asked_ns))[-count:]
        return [(int(self.asked_ns[i]), int(self.asked_ns[i + 1])) for i in longest]


class TimedClient:
    """A running timed_client."""

    def __init__(
        self,
        program: Path,
        daemon: PulseAudio,
        log: Path,
        latency_ms: int,
        seconds: float,
        sink: str = "xen",
    ) -> None:
        self._log = log
        self.process = subprocess.Popen(
            [program, sink, str(latency_ms), str(seconds), log], env=daemon.env
        )

    def log(self) -> ClientLog:
        """Return what it wrote so far."""
        return ClientLog.read(self._log)


@dataclass(frozen=True)
class Comparison:
    """Latencies in milliseconds, one for each figure that could be checked."""

    measured: np.ndarray
    error: np.ndarray
    """Reported less measured."""

    def __str__(self) -> str:
        def at(values: np.ndarray, percent: float) -> str:
            return f"{np.percentile(values, percent):.2f}"

        return (
            f"{len(self.error)} figures, measured p50 {at(self.measured, 50)} p99"
            f" {at(self.measured, 99)} ms, reported - measured p5 {at(self.error, 5)} p50"
            f" {at(self.error, 50)} p95 {at(self.error, 95)}, absolute p95"
            f" {at(abs(self.error), 95)} ms"
        )


def _frames_of(file: Path) -> np.ndarray:
    return np.frombuffer(read_wav(file).octets, "<u4").astype(np.int64)


def compare(
    log: ClientLog, played: Path, stats: list[dict[str, Any]], stream: int = 0
) -> Comparison:
    """Compare what was reported with what the backend played, into files in `played`.

    Frames that nobody heard are left out: those of a sink without a backend.
    """
    lines = [line for line in stats if line["stream"] == stream]
    trace = np.array([point for line in lines for point in line["trace"]])
    measured, error = [], []
    # Each OPEN has a file, except a first one that is closed before its file is made.
    files = files_of(played)
    first = int(trace[:, 3].max()) - len(files) + 1
    for opened, file in enumerate(files, first):
        frames = _frames_of(file)
        points = trace[trace[:, 3] == opened]
        if not frames.any() or len(points) == 0:
            continue
        place_of = np.full(int(frames.max()) + 2, -1)
        place_of[frames[frames != 0]] = np.flatnonzero(frames)
        times, places = points[:, 0], points[:, 1] + points[:, 4]
        # When the clock of the file began, as each point has it. A backend may look at it late,
        # never early; and while the clock stands, nothing is played.
        began = np.minimum.accumulate((times - places * 1e9 / RATE)[::-1])[::-1]
        for at, written, latency_us in log.latency[SETTLED:].tolist():
            place = place_of[written + 1] if written + 1 < len(place_of) else -1
            after = np.searchsorted(places, place)
            if place >= 0 and after < len(places):
                measured.append((began[after] + place * 1e9 / RATE - at) / 1e6)
                error.append(latency_us / 1e3 - measured[-1])
    assert measured, (
        f"no figure can be checked: {len(log.latency)} figures, {len(trace)} points of OPENs"
        f" {sorted(set(trace[:, 3].tolist()))}, files of"
        f" {[np.count_nonzero(_frames_of(file)) for file in files]} frames"
    )
    return Comparison(np.array(measured), np.array(error))
