# SPDX-License-Identifier: LGPL-2.1-or-later
"""A stream's requests, samples and positions, against a backend that does right."""

from __future__ import annotations

import asyncio
import errno
import struct
from collections.abc import Callable

import pytest
from scripted_backend import (
    CLOSE,
    FRAME,
    OPEN,
    QUERY,
    READ,
    S16,
    START,
    STOP,
    TRIGGER,
    WRITE,
    Setting,
    samples,
    until,
)

from xenaudio.core.errors import XenAudioError
from xenaudio.core.format import by_name
from xenaudio.core.frontend import Ranges, StreamState


@pytest.mark.parametrize(
    "change",
    [
        {"rate": 44100},
        {"channels": 3},
        {"format": by_name("s32_le")},
        {"period_frames": 0},
        {"period_frames": 201},
        {"buffer_frames": 16385},
    ],
)
def test_open_refuses_what_the_card_does_not_allow(
    scene: Callable[..., None], change: dict[str, object]
) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.connected("0/0")
        asked = {
            "rate": 48000,
            "format": S16,
            "channels": 2,
            "period_frames": 100,
            "buffer_frames": 400,
            **change,
        }
        with pytest.raises(XenAudioError) as caught:
            await stream.open(**asked)
        assert caught.value.errno == errno.EINVAL
        assert back.take() is None

    scene(test)


def test_a_refused_open_leaves_the_stream_closed(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.connected("0/0")
        for _ in range(2):
            opening = asyncio.create_task(
                stream.open(48000, S16, 2, period_frames=100, buffer_frames=400)
            )
            await back.accept_open(-errno.EBUSY)
            with pytest.raises(XenAudioError) as caught:
                await opening
            assert caught.value.errno == errno.EBUSY
            assert stream.state is StreamState.CLOSED

    scene(test)


def test_the_order_and_the_samples_survive_every_wrap(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.opened(period=100, buffer=410)
        sound = samples(3333 * FRAME)
        playing = asyncio.create_task(stream.write(sound))
        got = b""
        started = False
        while len(got) < len(sound):
            request = back.take()
            if request is None:
                if started:
                    # heard all but one period of what was taken
                    heard = max(0, len(got) - 100 * FRAME)
                    if heard > stream.position_frames * FRAME:
                        back.event(heard)
                await asyncio.sleep(0.001)
                continue
            ident, operation, body = request
            if operation == TRIGGER:
                assert body[0] == START
                started = True
            else:
                assert operation == WRITE
                offset, length = struct.unpack_from("=II", body)
                assert 0 < length <= back.opened["buffer"] - offset
                got += bytes(back.buffer.memory[offset : offset + length])
            back.respond(ident, operation)
        await playing
        assert got == sound
        assert stream.transferred_frames == 3333

    scene(test)


def test_a_steady_stream_costs_one_request_a_period(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.opened(period=100, buffer=400)
        playing = asyncio.create_task(stream.write(samples(400 * FRAME)))
        assert len(await back.take_write()) == 400 * FRAME
        await playing
        playing = asyncio.create_task(stream.write(samples(1000 * FRAME)))
        await back.answer(TRIGGER)
        for period in range(1, 11):
            back.event(period * 100 * FRAME + FRAME)
            taken = len(await back.take_write())
            assert taken <= 101 * FRAME
            # Two at the buffer's end, where one write is two runs.
            while (more := back.take()) is not None:
                ident, operation, body = more
                back.respond(ident, operation)
                assert struct.unpack_from("=I", body) == (0,)
                taken += struct.unpack_from("=II", body)[1]
            assert 99 * FRAME <= taken <= 101 * FRAME
        await playing

    scene(test)


def test_nothing_is_overwritten_that_a_write_without_response_covers(
    scene: Callable[..., None],
) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.opened(period=100, buffer=400)
        await stream.write(samples(300 * FRAME))
        ident, _body = await back.next(WRITE)
        starting = asyncio.create_task(stream.start())
        await back.answer(TRIGGER)
        await starting
        back.event(200 * FRAME)
        await until(lambda: stream.position_frames >= 200, "the position")
        assert stream.room_frames == 100
        back.respond(ident, WRITE)
        back.event(201 * FRAME)
        await until(lambda: stream.room_frames >= 301, "the position")

    scene(test)


def test_latency_is_written_minus_heard(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.opened()
        stream.trace = []
        await stream.write(samples(250 * FRAME))
        await back.take_write()
        assert stream.latency_frames == 250
        starting = asyncio.create_task(stream.start())
        await back.answer(TRIGGER)
        await starting
        back.event(101 * FRAME)
        await until(lambda: stream.latency_frames < 250, "a position")
        assert stream.latency_frames == 149
        assert [(w, h) for _time, w, h in stream.trace] == [(250, 0), (250, 101)]

    scene(test)


def test_drain_waits_for_the_last_frame_and_counts_no_underrun(
    scene: Callable[..., None],
) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.opened()
        await stream.write(samples(150 * FRAME))
        await back.take_write()
        draining = asyncio.create_task(stream.drain())
        assert (await back.answer(TRIGGER))[0] == START
        back.event(149 * FRAME)
        await until(lambda: stream.position_frames >= 149, "the position")
        assert not draining.done()
        back.event(201 * FRAME)  # dry: it ran on
        await draining
        assert stream.stats.underruns == 0

    scene(test)


def test_an_underrun_is_counted_and_the_buffer_is_whole_again(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.opened()
        await stream.write(samples(100 * FRAME))
        await back.take_write()
        starting = asyncio.create_task(stream.start())
        await back.answer(TRIGGER)
        await starting
        back.event(101 * FRAME)
        back.event(200 * FRAME)
        await until(lambda: stream.position_frames >= 200, "the position")
        assert stream.stats.underruns == 1
        assert stream.latency_frames == -100
        assert stream.room_frames == 400

    scene(test)


def test_silence_that_a_dry_backend_counts_is_not_taken_for_what_was_written(
    scene: Callable[..., None],
) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.opened()

        async def hears(position: int, heard: int) -> None:
            back.event(position * FRAME)
            await until(lambda: stream.position_frames == position, "the position")
            assert stream.heard_frames == heard

        await stream.write(samples(200 * FRAME))
        await back.take_write()
        starting = asyncio.create_task(stream.start())
        await back.answer(TRIGGER)
        await starting
        await hears(101, 101)
        await stream.write(samples(100 * FRAME))  # too late, or not seen yet
        await hears(203, 200)
        await back.take_write()
        await hears(203, 200)
        await hears(204, 204)

    scene(test)


def test_what_stop_drops_need_not_be_played_again(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.opened()
        await stream.write(samples(200 * FRAME))
        await back.take_write()
        for trigger in (stream.start, stream.stop):
            asking = asyncio.create_task(trigger())
            await back.answer(TRIGGER)
            await asking
        assert stream.heard_frames == stream.transferred_frames == 200

    scene(test)


def test_close_and_open_again_begins_at_0(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.opened()
        grants = len(await s.machine.call(s.machine.hv.grant_rows))
        await stream.write(samples(100 * FRAME))
        await back.take_write()
        closing = asyncio.create_task(stream.close())
        back.event(50 * FRAME)
        await back.answer(CLOSE)
        await closing
        opening = asyncio.create_task(
            stream.open(8000, S16, 1, period_frames=80, buffer_frames=160)
        )
        await back.accept_open()
        await opening
        assert (stream.position_frames, stream.transferred_frames) == (0, 0)
        assert len(await s.machine.call(s.machine.hv.grant_rows)) == grants
        await stream.write(samples(160 * 2))
        assert await back.take_write() == samples(160 * 2)

    scene(test)


def test_an_open_that_was_given_up_hinders_no_later_one(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.connected("0/0")
        geometry = {"period_frames": 100, "buffer_frames": 400}
        opening = asyncio.create_task(stream.open(48000, S16, 2, **geometry))
        await until(lambda: stream.state is StreamState.OPENING, "OPEN sent")
        opening.cancel()
        closing = asyncio.create_task(stream.close())
        await until(lambda: stream.state is StreamState.CLOSING, "CLOSE sent")
        await back.accept_open()
        await back.answer(CLOSE)
        await closing
        again = asyncio.create_task(stream.open(48000, S16, 2, **geometry))
        await back.accept_open()
        await asyncio.wait_for(again, 10)
        assert stream.state is StreamState.OPEN

    scene(test)


@pytest.mark.parametrize("order", [(OPEN, CLOSE), (CLOSE, OPEN)])
def test_an_open_that_is_closed_meanwhile_says_so_whichever_is_answered_first(
    scene: Callable[..., None], order: tuple[int, int]
) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.connected("0/0")
        geometry = {"period_frames": 100, "buffer_frames": 400}
        opening = asyncio.create_task(stream.open(48000, S16, 2, **geometry))
        await until(lambda: stream.state is StreamState.OPENING, "OPEN sent")
        closing = asyncio.create_task(stream.close())
        ids = {operation: (await back.next(operation))[0] for operation in (OPEN, CLOSE)}
        back.respond(ids[order[0]], order[0])
        if order[0] == CLOSE:
            await closing
            again = asyncio.create_task(stream.open(48000, S16, 2, **geometry))
            await until(lambda: stream.state is StreamState.OPENING, "OPEN sent again")
        back.respond(ids[order[1]], order[1])
        with pytest.raises(XenAudioError) as caught:
            await opening
        assert caught.value.errno == errno.ECANCELED
        await closing
        if order[0] == CLOSE:
            assert stream.state is StreamState.OPENING
            await back.accept_open()
            await again

    scene(test)


def test_a_query_narrows(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.connected("0/0")
        wide = Ranges(4, (8000, 48000), (1, 2), (2, 16384), (1, 8192))
        asking = asyncio.create_task(stream.query(wide))
        ident, body = await back.next(QUERY)
        assert struct.unpack_from("=Q8I", body) == (4, 8000, 48000, 1, 2, 2, 16384, 1, 8192)
        narrow = (4, 48000, 48000, 2, 2, 96, 9600, 48, 4800)
        back.respond(ident, QUERY, 0, struct.pack("=Q8I", *narrow))
        answer = await asking
        assert answer == Ranges(4, (48000, 48000), (2, 2), (96, 9600), (48, 4800))

    scene(test)


def test_capture_fetches_what_was_captured_in_order(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.connected("0/1")
        opening = asyncio.create_task(
            stream.open(8000, S16, 1, period_frames=80, buffer_frames=250)
        )
        await back.accept_open()
        await opening
        sound = samples(2000)
        given = 0
        reading = asyncio.create_task(stream.read(10))
        assert (await back.answer(TRIGGER))[0] == START
        got = b""
        for position in range(160, 2001, 160):
            back.event(position)
            while given < position:
                ident, body = await back.next(READ)
                offset, length = struct.unpack_from("=II", body)
                assert length <= position - given
                back.buffer.memory[offset : offset + length] = sound[given : given + length]
                given += length
                back.respond(ident, READ)
                while len(got) < given:
                    if reading.done():
                        got += await reading
                        reading = asyncio.create_task(stream.read(1000))
                    await asyncio.sleep(0.001)
        reading.cancel()
        assert got == sound[: len(got)]
        assert len(got) == 1920

    scene(test)


def test_a_capture_that_is_not_read_loses_and_says_how_much(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.connected("0/1")
        opening = asyncio.create_task(
            stream.open(8000, S16, 1, period_frames=80, buffer_frames=160)
        )
        await back.accept_open()
        await opening
        starting = asyncio.create_task(stream.start())
        await back.answer(TRIGGER)
        await starting
        back.event(500 * 2)
        _ident, body = await back.next(READ)
        assert struct.unpack_from("=II", body) == (0, 320)
        assert stream.stats.overrun_octets == 680

    scene(test)


def test_a_stop_is_told(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.opened()
        stopping = asyncio.create_task(stream.stop())
        assert (await back.answer(TRIGGER))[0] == STOP
        await stopping
        assert OPEN in [operation for operation, _ in back.seen]

    scene(test)


def test_protocol_1_is_paced_by_the_clock(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        await s.back.store.write(f"{s.back.back}/versions", "1")
        stream, back = await s.opened(period=480, buffer=1920)
        playing = asyncio.create_task(stream.write(samples(4000 * FRAME)))
        taken = 0
        while taken < 4000 * FRAME:
            request = back.take()
            if request is None:
                await asyncio.sleep(0.001)
                continue
            ident, operation, body = request
            if operation == WRITE:
                taken += struct.unpack_from("=II", body)[1]
            back.respond(ident, operation)
        await playing
        await stream.drain()
        assert stream.position_frames == 4000

    scene(test)


def test_a_stream_of_a_closed_card_is_an_error_not_a_crash(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.opened()
        playing = asyncio.create_task(stream.write(samples(1000 * FRAME)))
        await back.take_write()
        await s.card.close()
        for call in (playing, stream.write(samples(FRAME)), stream.drain(), s.card.connected()):
            with pytest.raises(XenAudioError) as caught:
                await call
            assert caught.value.errno == errno.ENOTCONN

    scene(test)


def test_it_rings_for_samples_when_asked_to_and_for_all_else_in_any_case(
    scene: Callable[..., None],
) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.opened()
        assert await s.back.store.read(f"{s.back.front}/feature-hold-off") == "1"
        await stream.write(samples(100 * FRAME))
        await back.take_write()
        await asyncio.gather(stream.start(), back.answer(TRIGGER))
        # As a backend leaves it that looks at the ring in time without being told.
        back.word(back.ring, 4, back.req_cons)
        rung = stream.stats.doorbells
        await stream.write(samples(100 * FRAME))
        assert stream.stats.doorbells == rung
        stopping = asyncio.create_task(stream.stop())
        await back.take_write()
        await back.answer(TRIGGER)
        await stopping
        assert stream.stats.doorbells == rung + 1

    scene(test)
