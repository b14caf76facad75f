# SPDX-License-Identifier: LGPL-2.1-or-later
"""A stream's life, as a guest's frontend lives it: opened, paused, stopped, closed, asked."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from guest import open_card, open_stream, play, record, stream_of, until
from machine import Backend, Domain, Machine
from pcm import COUNTER_FORMAT, assert_same, counter, judge_wav, named, read_wav

from xenaudio.core.errors import XenAudioError
from xenaudio.core.frontend import Card, CardState, Ranges

RATE = 48000
TOO_MUCH = 0xFFFFFFFF


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest_asyncio.fixture
async def card(machine: Machine, backend: Backend) -> AsyncIterator[Card]:
    """Give a connected card of a guest called `guest`."""
    domain: Domain = await asyncio.to_thread(machine.create, "guest")
    async with open_card(domain) as opened:
        yield opened


@pytest.mark.asyncio
async def test_fifty_opens_keep_the_event_ids_in_step(
    card: Card, played: Path, backend: Backend
) -> None:
    states: list[CardState] = []
    card._on_state = lambda state, _reason: states.append(state)
    stream = stream_of(card)
    frames = RATE // 20
    for number in range(50):
        # One event id out of step and the frontend takes the connection down.
        await open_stream(stream, period_ms=5, buffer_ms=100)
        await play(stream, counter(frames, number * frames))
        assert stream.stats.events > 0
    assert states == []
    assert len(files_in(played)) == 50
    whole = b"".join(
        read_wav(played / f"guest-0-0-0{f'-{n}' if n > 1 else ''}.wav").octets for n in range(1, 51)
    )
    assert_same(whole, counter(50 * frames), 4, "the fifty files in a row")

    def opens() -> tuple[int, int]:
        stats = backend.last_stats("guest") or {"opens": 0, "bad_requests": 0}
        return stats["opens"], stats["bad_requests"]

    await until(lambda: opens() == (50, 0), "the statistics say so too")


@pytest.mark.asyncio
async def test_a_second_open_without_a_close_begins_anew(card: Card, played: Path) -> None:
    stream = stream_of(card)
    await open_stream(stream)
    await play(stream, counter(1000))
    await open_stream(stream)
    assert (stream.position_frames, stream.transferred_frames) == (0, 0)
    await play(stream, counter(2000))
    assert judge_wav(played / "guest-0-0-0.wav", 1000).whole
    assert judge_wav(played / "guest-0-0-0-2.wav", 2000).whole


@pytest.mark.asyncio
async def test_pause_keeps_what_was_written_and_resume_plays_it(card: Card, played: Path) -> None:
    stream = stream_of(card)
    await open_stream(stream)
    await stream.write(counter(RATE // 2))
    await until(lambda: stream.position_frames > RATE // 10, "something is heard")
    await stream.pause()
    await asyncio.sleep(0.1)  # what was on its way has arrived
    paused_at = stream.position_frames
    await asyncio.sleep(0.3)
    assert stream.position_frames == paused_at < RATE // 2
    await stream.resume()
    await play(stream, counter(RATE // 2, RATE // 2))
    assert judge_wav(played / "guest-0-0-0.wav", RATE).whole


@pytest.mark.asyncio
async def test_stop_drops_what_was_written_and_the_position_goes_on(
    card: Card, played: Path
) -> None:
    stream = stream_of(card)
    await open_stream(stream, buffer_ms=400)
    await stream.write(counter(RATE))
    await stream.stop()
    stopped_at = stream.position_frames
    assert 0 < stopped_at < RATE
    await asyncio.sleep(0.3)
    assert stream.position_frames >= stopped_at, "it never goes back"
    second = counter(RATE // 4, RATE)
    await stream.write(second)
    await stream.start()
    await until(
        lambda: stream.position_frames >= stopped_at + RATE // 4, "the second part is heard"
    )
    await stream.close()
    octets = read_wav(played / "guest-0-0-0.wav").octets
    assert octets.endswith(second)
    first = octets[: -len(second)]
    assert first == counter(RATE)[: len(first)], "no gap, and nothing of what was dropped"


@pytest.mark.asyncio
async def test_a_stream_left_dry_and_written_again_goes_on(card: Card, played: Path) -> None:
    stream = stream_of(card)
    await open_stream(stream, buffer_ms=200)
    await stream.write(counter(RATE // 4))
    await stream.drain()
    await asyncio.sleep(1)
    await play(stream, counter(RATE // 4, RATE // 4))
    # The gap was heard, so it is in the file; every frame is there beside it.
    verdict = judge_wav(played / "guest-0-0-0.wav", RATE // 2)
    assert (verdict.lost, verdict.repeated, verdict.corrupt) == (0, 0, 0)
    assert verdict.silent <= stream.period_frames


@pytest.mark.asyncio
async def test_recording_goes_on_over_pause_and_stop(card: Card) -> None:
    stream = stream_of(card, capture=True)
    await open_stream(stream)
    silence = bytes(4 * RATE // 10)
    assert await record(stream, RATE // 10) == silence
    await stream.pause()
    await stream.resume()
    assert await record(stream, RATE // 10) == silence
    await stream.stop()
    await stream.start()
    assert await record(stream, RATE // 10) == silence
    await stream.close()


@pytest.mark.asyncio
async def test_what_is_asked_is_narrowed_to_what_can_be_opened(card: Card) -> None:
    stream = stream_of(card)
    everything = (1 << 64) - 1
    whole = (0, TOO_MUCH)
    first = await stream.query(Ranges(everything, whole, whole, whole, whole))
    assert first.rate == (8000, 96000)
    assert first.channels[0] == 1
    assert first.formats >> COUNTER_FORMAT.code & 1

    # As ALSA does: one parameter after the other, each answer the next question.
    answer = await stream.query(
        Ranges(1 << COUNTER_FORMAT.code, first.rate, first.channels, first.buffer, first.period)
    )
    answer = await stream.query(
        Ranges(answer.formats, (20000, 50000), answer.channels, answer.buffer, answer.period)
    )
    assert answer.rate == (44100, 48000)
    answer = await stream.query(
        Ranges(answer.formats, (RATE, RATE), (2, 2), answer.buffer, answer.period)
    )
    assert answer.buffer[1] == stream.buffer_octets_max // 4
    assert answer.period[1] == answer.buffer[1] // 2
    answer = await stream.query(
        Ranges(answer.formats, answer.rate, answer.channels, answer.buffer, (480, 480))
    )
    assert answer.buffer[0] == 960, "two periods"
    await stream.open(
        RATE, COUNTER_FORMAT, 2, period_frames=answer.period[0], buffer_frames=answer.buffer[0]
    )
    await stream.close()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "ranges",
    [
        Ranges(0, (RATE, RATE), (2, 2), (2, 48000), (1, 24000)),
        Ranges(1 << COUNTER_FORMAT.code, (1, 7999), (2, 2), (2, 48000), (1, 24000)),
        Ranges(1 << COUNTER_FORMAT.code, (RATE, RATE), (100, 200), (2, 48000), (1, 24000)),
        Ranges(1 << COUNTER_FORMAT.code, (RATE, RATE), (2, 2), (2, 100), (60, 100)),
    ],
    ids=["no format", "no rate", "no channels", "no room for two periods"],
)
async def test_a_question_that_leaves_nothing_is_refused(card: Card, ranges: Ranges) -> None:
    stream = stream_of(card)
    with pytest.raises(XenAudioError) as refused:
        await stream.query(ranges)
    assert refused.value.errno == errno.EINVAL
    assert card.state is CardState.CONNECTED


@pytest.mark.asyncio
async def test_the_backend_refuses_what_the_route_cannot_hold(card: Card, played: Path) -> None:
    stream = stream_of(card)
    iec958 = named("iec958_subframe_le")
    with pytest.raises(XenAudioError) as refused:
        await open_stream(stream, iec958)
    assert refused.value.errno in (errno.EINVAL, errno.EOPNOTSUPP)
    assert files_in(played) == []
    await open_stream(stream)
    await play(stream, counter(1000))
    assert judge_wav(played / "guest-0-0-0.wav", 1000).whole
