# SPDX-License-Identifier: LGPL-2.1-or-later
"""STOP: what was not heard is gone, and the count goes on from wherever the backend says.

A backend may take a stream's position up to a whole number of buffers at STOP and tell so before
its response, after it, or only when START is under way already; another does nothing of the kind.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

import pytest
from scripted_backend import (
    FRAME,
    READ,
    S16,
    START,
    STOP,
    TRIGGER,
    BackStream,
    Setting,
    samples,
    until,
)

from xenaudio.core.frontend import CardState, Stream

BUFFER = 400

ORDERS = ["before the response", "after the response", "after START is sent", "never"]


async def trigger(stream: Stream, back: BackStream, type: int) -> None:
    asked = asyncio.create_task(stream.start() if type == START else stream.stop())
    assert (await back.answer(TRIGGER))[0] == type
    await asked


async def heard(stream: Stream, back: BackStream, frames: int, frame: int = FRAME) -> None:
    """Tell a position and wait until it has arrived."""
    back.event(frames * frame)
    await until(lambda: stream.position_frames == frames, f"position {frames}")


async def halted(
    stream: Stream, back: BackStream, order: str, jump: int, frame: int = FRAME
) -> int:
    """STOP, and START again, in this order with the jump; returns the position then."""
    stopping = asyncio.create_task(stream.stop())
    ident, body = await back.next(TRIGGER)
    assert body[0] == STOP
    if order == "before the response":
        await heard(stream, back, jump, frame)
        assert stream.latency_frames == 0
    back.respond(ident, TRIGGER)
    await stopping
    if order == "after the response":
        await heard(stream, back, jump, frame)
    starting = asyncio.create_task(stream.start())
    ident, body = await back.next(TRIGGER)
    assert body[0] == START
    if order == "after START is sent":
        await heard(stream, back, jump, frame)
    back.respond(ident, TRIGGER)
    await starting
    return stream.position_frames


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("written", "at_stop"),
    [
        (300, 101),  # with something dropped
        (402, 401),  # the jump goes past what was written by nearly a buffer
        (100, 150),  # dry: the position has run on
    ],
)
def test_playing_begins_evenly_after_a_stop(
    scene: Callable[..., None], order: str, written: int, at_stop: int
) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.opened(buffer=BUFFER)
        await stream.write(samples(min(written, BUFFER) * FRAME))
        await back.take_write()
        await trigger(stream, back, START)
        await heard(stream, back, 101)
        if written > BUFFER:
            await stream.write(samples((written - BUFFER) * FRAME))
            await back.take_write()
        if at_stop != 101:
            await heard(stream, back, at_stop)
        underruns = stream.stats.underruns
        told = BUFFER if at_stop < BUFFER else 2 * BUFFER
        begin = await halted(stream, back, order, told)
        assert begin == (at_stop if order == "never" else told)
        assert stream.latency_frames == 0
        assert stream.room_frames == BUFFER
        await stream.write(samples(250 * FRAME))
        assert stream.latency_frames == 250
        for _ in range(2 if written % BUFFER + 250 > BUFFER else 1):
            await back.take_write()
        await heard(stream, back, begin + 101)
        assert stream.latency_frames == 149
        assert stream.room_frames == BUFFER - 149
        draining = asyncio.create_task(stream.drain())
        await heard(stream, back, begin + 250)
        await draining
        assert stream.stats.underruns == underruns

    scene(test)


@pytest.mark.parametrize("order", ORDERS[:3])
def test_what_is_written_before_the_jump_is_told_counts_after_it(
    scene: Callable[..., None], order: str
) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.opened(buffer=BUFFER)
        await stream.write(samples(300 * FRAME))
        await back.take_write()
        await trigger(stream, back, START)
        await heard(stream, back, 101)
        stopping = asyncio.create_task(stream.stop())
        stop, _body = await back.next(TRIGGER)
        await stream.write(samples(50 * FRAME))
        if order == "before the response":
            await heard(stream, back, BUFFER)
        back.respond(stop, TRIGGER)
        await stopping
        await stream.write(samples(30 * FRAME))
        if order == "after the response":
            await heard(stream, back, BUFFER)
        starting = asyncio.create_task(stream.start())
        await until(lambda: back.word(back.ring, 0) == back.req_cons + 3, "START sent")
        if order == "after START is sent":
            await heard(stream, back, BUFFER)
        await back.take_write()
        await back.take_write()
        await back.answer(TRIGGER)
        await starting
        assert stream.position_frames == BUFFER
        assert stream.latency_frames == 80
        assert stream.stats.underruns == 0

    scene(test)


def test_a_stop_that_is_refused_drops_nothing(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.opened(buffer=BUFFER)
        await stream.write(samples(300 * FRAME))
        await back.take_write()
        await trigger(stream, back, START)
        await heard(stream, back, 101)
        stopping = asyncio.create_task(stream.stop())
        await back.answer(TRIGGER, -5)
        with pytest.raises(OSError, match="stop"):
            await stopping
        assert stream.latency_frames == 199

    scene(test)


def test_an_underrun_after_the_start_is_counted_again(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.opened(buffer=BUFFER)
        await stream.write(samples(300 * FRAME))
        await back.take_write()
        await trigger(stream, back, START)
        await heard(stream, back, 101)
        begin = await halted(stream, back, "before the response", BUFFER)
        await stream.write(samples(100 * FRAME))
        await back.take_write()
        await heard(stream, back, begin + 101)
        assert stream.stats.underruns == 1

    scene(test)


@pytest.mark.parametrize("when", ["asked", "done"])
def test_a_jump_of_more_than_a_buffer_is_a_lie(scene: Callable[..., None], when: str) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.opened(buffer=BUFFER)
        await stream.write(samples(300 * FRAME))
        await back.take_write()
        await trigger(stream, back, START)
        await heard(stream, back, 101)
        stopping = asyncio.create_task(stream.stop())
        ident, _body = await back.next(TRIGGER)
        if when == "done":
            back.respond(ident, TRIGGER)
            await stopping
        back.event((300 + 2 * BUFFER + 1) * FRAME)
        await until(lambda: s.card.state is not CardState.CONNECTED, "connection dropped")
        assert "position that cannot be true" in s.card.reason
        stopping.cancel()

    scene(test)


@pytest.mark.parametrize("order", ORDERS)
def test_capture_goes_on_with_what_is_captured_after_a_stop(
    scene: Callable[..., None], order: str
) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.connected("0/1")
        opening = asyncio.create_task(
            stream.open(8000, S16, 1, period_frames=80, buffer_frames=240)
        )
        await back.accept_open()
        await opening
        await trigger(stream, back, START)
        await heard(stream, back, 81, 2)
        assert struct.unpack_from("=II", await back.answer(READ)) == (0, 162)
        assert len(await stream.read(240)) == 162
        begin = await halted(stream, back, order, 240, 2)
        assert begin == (81 if order == "never" else 240)
        assert stream.latency_frames == 0
        await heard(stream, back, begin + 81, 2)
        # Not what the position was taken on by: only what was captured since.
        assert struct.unpack_from("=II", await back.answer(READ)) == (162, 162)
        assert len(await stream.read(240)) == 162
        assert stream.latency_frames == 0
        assert stream.stats.overruns == 0

    scene(test)
