# SPDX-License-Identifier: LGPL-2.1-or-later
"""Plays a pattern as a frontend of protocol version 1 does: without an event page, by the clock.

    version1.py SPEC       SPEC is pattern.py's; 16 bits and two channels at 48 kHz

Runs in a guest beside rawfrontend.py. Its exit status is 0 only when the backend took everything.
"""

from __future__ import annotations

import asyncio
import sys
import time

import rawfrontend as raw
from pattern import Pattern
from rawfrontend import RawFrontend, RawStream, require

RATE, FRAME = 48000, 4
PERIOD = RATE // 10 * FRAME
BUFFER = 3 * PERIOD


async def connect() -> RawFrontend:
    """Go through the states, with nothing published of what version 2 added."""
    front = await RawFrontend.open("xen")
    await front.prepare()
    for stream in front.streams:
        for node in ("evt-ring-ref", "evt-event-channel"):
            await front.store.rm(f"{stream.path}/{node}")
    await front.set_state(raw.INITIALISED)
    await front.backend_reaches(raw.CONNECTED)
    await front.set_state(raw.CONNECTED)
    return front


async def play(stream: RawStream, samples: bytes) -> None:
    """Play: a buffer first, then a period whenever the clock says that one is over."""
    pcm = await stream.open(BUFFER, PERIOD)
    begin = time.monotonic()
    for number, at in enumerate(range(0, len(samples), PERIOD)):
        if number == BUFFER // PERIOD:
            await stream.trigger(raw.START)
            begin = time.monotonic()
        # A little later than that, so that the backend's clock says so too.
        room_at = (at + PERIOD - BUFFER) / FRAME / RATE + 0.01
        await asyncio.sleep(max(0.0, begin + room_at - time.monotonic()))
        some = samples[at : at + PERIOD]
        pcm.memory[at % BUFFER :][: len(some)] = some
        require(await stream.rw(at % BUFFER, len(some)) == 0, f"octet {at} was refused")
    over_at = len(samples) / FRAME / RATE + 0.1
    await asyncio.sleep(max(0.0, begin + over_at - time.monotonic()))
    await stream.succeed(raw.CLOSE)


async def main() -> None:
    """Run the command."""
    pattern = Pattern.parse(sys.argv[1])
    front = await connect()
    await play(front.playback, pattern.raw())
    await front.set_state(raw.CLOSING)
    await front.backend_reaches(raw.CLOSING, raw.CLOSED)
    for stream in front.streams:
        stream.free()
    await front.set_state(raw.CLOSED)
    front.close()


if __name__ == "__main__":
    asyncio.run(main())
