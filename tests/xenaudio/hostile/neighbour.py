# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest that plays a pattern, honestly, until its standard input ends.

48 kHz, s32_le, stereo, a buffer of 200 ms: the left sample counts the frames, the right one is the
secret that no other guest may ever see. It prints `playing` when the first frames are heard, `late`
whenever the processor was kept from it for so long that a gap may be its own, and, at the end, one
JSON object: frames played, underruns seen.

    neighbour.py ADDRESS (of its domain, for Hypervisor)
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import deque
from contextlib import suppress

import numpy as np

from xenaudio.core.format import by_name
from xenaudio.core.frontend import Card
from xenaudio.core.hv import Hypervisor

SECRET = 0x5EC2E75A
RATE = 48000
BUFFER = 9600
PERIOD = 960
LATE = BUFFER / RATE / 2
"""Seconds, of the last ones that a buffer lasts, for which it did not run although it should."""
TICK = 0.005


def pattern(first: int, count: int) -> bytes:
    """Frames `first` to `first + count - 1`."""
    frames = np.empty((count, 2), dtype="<u4")
    frames[:, 0] = np.arange(first, first + count)
    frames[:, 1] = SECRET
    return frames.tobytes()


async def watch_itself() -> None:
    """Tell when this loop was kept from running."""
    missed: deque[tuple[float, float]] = deque()
    due = time.monotonic() + TICK
    while True:
        await asyncio.sleep(due - time.monotonic())
        now = time.monotonic()
        missed.append((now, now - due))
        while missed[0][0] < now - BUFFER / RATE:
            missed.popleft()
        if sum(seconds for _, seconds in missed) > LATE:
            print("late", flush=True)
            missed.clear()
        due = now + TICK


async def play(address: str) -> dict[str, int]:
    """Play until standard input ends."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, ended.set)
    watching = asyncio.create_task(watch_itself())
    written = 0
    pcm_format = by_name("s32_le")
    assert pcm_format is not None
    with Hypervisor(address) as hv:
        async with Card.open(hv) as card:
            await card.connected(5)
            stream = card.find_stream(capture=False)
            assert stream is not None
            await stream.open(RATE, pcm_format, 2, period_frames=PERIOD, buffer_frames=BUFFER)
            told = False
            while not ended.is_set():
                await stream.write(pattern(written, PERIOD))
                written += PERIOD
                if not told and stream.position_frames:
                    told = True
                    print("playing", flush=True)
            await stream.drain()
            stats = stream.stats
            await stream.close()
    watching.cancel()
    return {"frames": written, "underruns": stats.underruns}


def main() -> None:
    """Be the neighbour."""
    # On Xen the attacker's CPU is its own; here it would be taken from this guest.
    with suppress(PermissionError):
        os.nice(-10)
    print(json.dumps(asyncio.run(play(sys.argv[1]))), flush=True)


if __name__ == "__main__":
    main()
