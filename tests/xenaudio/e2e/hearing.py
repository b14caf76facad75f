# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a guest plays through a sound server, and what is heard there of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from daemon import SoundServer
from guest import open_card, open_stream, play, record, stream_of, until
from machine import Backend, Domain, Machine
from pcm import COUNTER_FORMAT, Gap, counter, gaps_in

from xenaudio.core.frontend import Stream

RATE = 48000
LEAD = bytes(4 * RATE // 2)
"""Silence before the sound: a sink that begins to play takes back silence that its monitor has told
of already, and so the monitor misses the first moment."""


MONITOR = "out.monitor"
"""Tells what the sink `out` plays."""

ATTEMPTS = 6
"""A sound has, to pass without a gap."""


@asynccontextmanager
async def heard(
    server: SoundServer, file: Path, spec: str = "s16le", monitor: str = MONITOR
) -> AsyncIterator[None]:
    """Record what a sink plays."""
    await asyncio.to_thread(file.unlink, missing_ok=True)
    # With a low latency the null sink renders no more than that ahead.
    with server.recorder(file, f"{spec} 2 {RATE}", latency_ms=20, source=monitor) as recorder:
        try:
            await until(lambda: file.exists() and file.stat().st_size, "it is recorded")
            yield
            await asyncio.sleep(0.5)
        finally:
            recorder.terminate()


def frames_of(file: Path) -> np.ndarray:
    """Return the counter's frames in a recording, without the silence."""
    octets = file.read_bytes()
    frames = np.frombuffer(octets[: len(octets) // 4 * 4], "<u4").astype(np.int64)
    return frames[frames != 0]


async def without_a_gap(
    backend: Backend, attempt: Callable[[], Awaitable[list[Gap]]], *, mixed: bool = False
) -> None:
    """Have a sound pass until it does so without a gap: a busy machine makes some.

    When a stream goes on after an underrun, PulseAudio takes back what it rendered in advance, the
    silence and frames before it, and its monitor misses as much; of a stream that is `mixed` with
    another one it does so too when the other one had the underrun. What is missing without such a
    cause, the backend must have told of.
    """
    for _ in range(ATTEMPTS):
        gaps = await attempt()
        if not gaps:
            return
        print(f"gaps: {gaps}")
        lost = sum(gap.missing for gap in gaps if not gap.silent and not mixed)

        def told() -> int:
            stats = backend.last_stats("guest")
            return stats["frames_lost"] + stats["frames_dropped"] if stats else 0

        await until(lambda lost=lost: told() >= lost, f"the backend tells of {lost} lost frames")
    pytest.fail(f"{ATTEMPTS} times there were gaps")


async def gaps_of_record(
    server: SoundServer, domain: Domain, folder: Path, sound: bytes
) -> list[Gap]:
    """Have a guest record what a client of the server plays; return the gaps in it."""
    file = folder / "sound.raw"
    file.write_bytes(LEAD + sound + LEAD)
    async with open_card(domain) as card:
        stream = stream_of(card, capture=True)
        await open_stream(stream)
        # The null sink renders seconds ahead until its monitor is recorded.
        await record(stream, RATE // 2)
        with server.client(file, latency_ms=200) as client:
            got = await record(stream, 5 * RATE)
            await asyncio.to_thread(client.wait)
        await stream.close()
    return gaps_in(got, sound, COUNTER_FORMAT.frame_octets(2))


async def to_be_heard(file: Path) -> None:
    """Wait until the sound is in a recording."""
    await until(lambda: file.exists() and len(frames_of(file)) > 0, "it is heard")


@asynccontextmanager
async def playing(machine: Machine, sound: bytes) -> AsyncIterator[Stream]:
    """Have a guest play; at the end wait until it has done."""
    domain = await asyncio.to_thread(machine.create, "guest")
    async with open_card(domain) as card:
        stream = stream_of(card)
        await open_stream(stream)
        player = asyncio.create_task(play(stream, LEAD + sound))
        yield stream
        await player


async def run_on(stream: Stream, seconds: float) -> None:
    """Wait until so much more was played, unheard or not."""
    end = stream.position_frames + seconds * RATE
    await until(lambda: stream.position_frames >= end, "the guest plays on")


async def heard_around_an_end(
    machine: Machine,
    backend: Backend,
    server: SoundServer,
    start: Callable[[], SoundServer],
    folder: Path,
) -> tuple[np.ndarray, np.ndarray]:
    """Have a guest play while a server ends and `start` brings it back.

    Return the frames heard before and after, of which none was heard twice.
    """
    first, second = folder / "first.raw", folder / "second.raw"
    async with heard(server, first), playing(machine, counter(8 * RATE)) as stream:
        await to_be_heard(first)
        await asyncio.to_thread(server.end)
        await asyncio.to_thread(backend.wait_for, "nothing is heard")
        await run_on(stream, 1)
        again = await asyncio.to_thread(start)
        back = time.monotonic()
        async with heard(again, second):
            await to_be_heard(second)
            print(f"heard {time.monotonic() - back:.2f} s after the server was back")
    await asyncio.to_thread(backend.wait_for, "is there again")
    before, after = frames_of(first), frames_of(second)
    assert np.all(np.diff(before) > 0)
    assert np.all(np.diff(after) > 0)
    assert after[0] > before[-1], "nothing is heard twice"
    return before, after
