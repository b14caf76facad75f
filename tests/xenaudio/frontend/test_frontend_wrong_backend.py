# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a broken or hostile backend can say: each ends in a clean error, and a new connection."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

import pytest
from scripted_backend import (
    CLOSE,
    FRAME,
    QUERY,
    TRIGGER,
    WRITE,
    BackStream,
    Setting,
    samples,
    until,
)

from xenaudio.core.errors import XenAudioError
from xenaudio.core.ffi import ffi, lib
from xenaudio.core.frontend import CardState, Ranges, Stream, StreamState


async def one_write(stream: Stream, back: BackStream) -> int:
    await stream.write(samples(200 * FRAME))
    ident, _body = await back.next(WRITE)
    return ident


def unknown_id(back: BackStream, ident: int) -> None:
    back.respond(ident + 1, WRITE)


def answered_twice(back: BackStream, ident: int) -> None:
    back.respond(ident, WRITE)
    back.respond(ident, WRITE)


def other_operation(back: BackStream, ident: int) -> None:
    back.respond(ident, CLOSE)


def positive_status(back: BackStream, ident: int) -> None:
    back.respond(ident, WRITE, 5)


def absurd_status(back: BackStream, ident: int) -> None:
    back.respond(ident, WRITE, -(2**31))


def responses_beyond_requests(back: BackStream, ident: int) -> None:
    back.word(back.ring, 8, back.req_cons + 7)
    back.channel.notify(back.ring_port)


def responses_that_run_backwards(back: BackStream, ident: int) -> None:
    back.word(back.ring, 8, back.rsp_prod - 1)
    back.channel.notify(back.ring_port)


def events_beyond_the_page(back: BackStream, ident: int) -> None:
    back.word(back.page, 4, 64)
    back.channel.notify(back.evt_port)


def events_that_run_backwards(back: BackStream, ident: int) -> None:
    back.word(back.page, 4, -1)
    back.channel.notify(back.evt_port)


def skipped_event_id(back: BackStream, ident: int) -> None:
    back.event(4, ident=1)


def position_beyond_what_was_written(back: BackStream, ident: int) -> None:
    back.event((200 + 400) * FRAME + FRAME)


def huge_position(back: BackStream, ident: int) -> None:
    back.event(2**64 - 1)


def position_that_runs_backwards(back: BackStream, ident: int) -> None:
    back.event(100 * FRAME)
    back.event(99 * FRAME)


@pytest.mark.parametrize(
    "lie",
    [
        unknown_id,
        answered_twice,
        other_operation,
        positive_status,
        absurd_status,
        responses_beyond_requests,
        responses_that_run_backwards,
        events_beyond_the_page,
        events_that_run_backwards,
        skipped_event_id,
        position_beyond_what_was_written,
        huge_position,
        position_that_runs_backwards,
    ],
)
def test_a_lie_ends_the_connection_and_a_new_one_works(
    scene: Callable[..., None], lie: Callable[[BackStream, int], None]
) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.opened()
        lie(back, await one_write(stream, back))
        await until(lambda: s.card.state is not CardState.CONNECTED, "connection dropped")
        assert "broke the protocol" in s.card.reason
        with pytest.raises(XenAudioError) as caught:
            await stream.write(samples(FRAME))
        assert caught.value.errno == errno.ENOTCONN
        await s.back.front_reaches(5)
        await s.back.state(5)
        await s.back.front_reaches(6)
        await s.back.state(6)
        await s.back.front_reaches(1)
        await s.back.connect("0/0")
        await s.card.connected(10)
        assert stream.state is StreamState.CLOSED

    scene(test)


def test_an_empty_range_is_a_lie(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        await s.card.__aenter__()
        await s.back.connect("0/0")
        await s.card.connected(10)
        stream = s.card.find_stream(capture=False)
        asking = asyncio.create_task(stream.query(Ranges(4, (1, 2), (1, 2), (1, 2), (1, 2))))
        back = s.back.streams["0/0"]
        ident, body = await back.next(QUERY)
        back.respond(ident, QUERY, 0, body[:8] + b"\2\0\0\0\1" + body[13:])
        await until(lambda: s.card.state is not CardState.CONNECTED, "connection dropped")
        asking.cancel()

    scene(test)


def test_a_flood_of_good_events_does_not_keep_the_loop(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.opened()
        await one_write(stream, back)
        for _ in range(500):
            back.event(0)
            if back.evt_prod - back.word(back.page, 0) >= 62:
                await asyncio.sleep(0)
        await until(lambda: stream.stats.events == 500, "all events taken")

    scene(test)


def test_answers_that_come_at_once_do_not_keep_the_loop(scene: Callable[..., None]) -> None:
    """A request put from within a callback and answered there and then, again and again."""

    async def test(s: Setting) -> None:
        calls, answers = 0, []
        process = s.card._process

        def counted() -> None:
            nonlocal calls
            calls += 1
            process()

        s.card._process = counted  # type: ignore[method-assign]
        stream, back = await s.connected("0/0")
        ranges = ffi.new("struct xa_stream_ranges *")
        ranges.formats = 4
        take = stream._take

        def ask_again(event: int, error: int) -> None:
            take(event, error)
            if event != lib.XA_EVENT_QUERIED:
                return
            answers.append(calls)
            if len(answers) < 200:
                ask()

        def ask() -> None:
            assert lib.xa_stream_query(stream._handle, ranges) == 0
            ident, operation, body = back.take() or (0, 0, b"")
            assert operation == QUERY
            back.respond(ident, QUERY, 0, body)

        stream._take = ask_again  # type: ignore[method-assign]
        ask()
        await until(lambda: len(answers) == 200, "all answers taken")
        assert max(answers.count(call) for call in answers) == 32

    scene(test)


def test_a_refused_write_fails_the_stream_until_it_is_opened_again(
    scene: Callable[..., None],
) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.opened()
        ident = await one_write(stream, back)
        back.respond(ident, WRITE, -errno.EIO)
        await until(lambda: stream.room_frames == 0, "refusal noticed")
        with pytest.raises(XenAudioError) as caught:
            await stream.write(samples(2000 * FRAME))
        assert caught.value.errno == errno.EIO
        closing = asyncio.create_task(stream.close())
        operation = None
        while operation != CLOSE:
            ident, operation, _body = await until(back.take, "a request")
            back.respond(ident, operation)
        await closing
        assert s.card.state is CardState.CONNECTED

    scene(test)


def test_a_request_without_an_answer_times_out(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.opened()
        with pytest.raises(XenAudioError) as caught:
            await stream.start()
        assert caught.value.errno == errno.ETIMEDOUT
        assert stream.state is StreamState.DEAD
        assert [op for op, _ in back.seen][-1] != TRIGGER
        s.card.reconnect()
        await s.back.front_reaches(5)
        await s.back.state(6)
        await s.back.front_reaches(1)
        await s.back.connect("0/0")
        await s.card.connected(10)
        assert stream.state is StreamState.CLOSED

    scene(test)


def test_a_backend_that_goes_while_a_call_waits_ends_the_call(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        stream, back = await s.opened()
        playing = asyncio.create_task(stream.write(samples(2000 * FRAME)))
        await back.take_write()
        await back.answer(TRIGGER)
        await s.back.state(1)
        with pytest.raises(XenAudioError) as caught:
            await playing
        assert caught.value.errno == errno.ENOTCONN

    scene(test)
