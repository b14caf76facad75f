# SPDX-License-Identifier: LGPL-2.1-or-later
"""No sample waits for Python: a thread that holds the interpreter costs not one frame."""

from __future__ import annotations

import asyncio
import os
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from guest import open_card, open_stream, play, stream_of
from machine import Backend, Machine
from pcm import counter, judge_wav

RATE = 48000
SECONDS = 20


@pytest.mark.asyncio
@pytest.mark.xdist_group("alone")
async def test_a_python_thread_burning_cpu_in_the_backend_loses_no_frame(
    machine: Machine, played: Path
) -> None:
    frames = SECONDS * RATE
    script = Path(__file__).with_name("busy_service.py")
    backend = machine.serve("--output", f"file:{played}/", argv=[sys.executable, str(script)])
    domain = await asyncio.to_thread(machine.create, "guest")
    before = cpu_seconds(backend.pid)
    async with open_card(domain) as card:
        stream = stream_of(card)
        # A second: this guest is Python too, and late on a busy host.
        await open_stream(stream, period_ms=20, buffer_ms=1000)
        await play(stream, counter(frames))
        underruns = stream.stats.underruns
    assert cpu_seconds(backend.pid) - before > SECONDS / 10, "the thread did burn"
    backend.stop()
    stats = backend.last_stats("guest")
    assert stats is not None
    outcome = (stats["frames_out"], stats["xruns"], stats["frames_lost"])
    assert outcome == (frames, 0, 0), story(backend)
    assert underruns == 0
    assert judge_wav(played / "guest-0-0-0.wav", frames).whole


def story(backend: Backend) -> str:
    """Tell who was late: the engine, or the guest."""
    points = [point for entry in backend.stats() for point in entry["trace"]]
    turns = [(after[0] - before[0]) / 1e6 for before, after in pairwise(points)]
    lowest = min(point[2] for point in points[: -len(points) // 20])
    return (
        f"longest time between two turns of the engine {max(turns):.1f} ms;"
        f" lowest fill {1000 * lowest / RATE:.1f} ms"
    )


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
