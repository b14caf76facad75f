# SPDX-License-Identifier: LGPL-2.1-or-later
"""Guests beside each other: each has its own file, and none notices the end of another."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from guest import open_card, open_stream, play, stream_of, until
from machine import Backend, Domain, Machine, xenaudio
from pcm import COUNTER_FORMAT, assert_holds, counter, judge_wav, random_samples, write_wav

RATE = 48000


async def play_alone(domain: Domain, samples: bytes) -> None:
    async with open_card(domain) as card:
        stream = stream_of(card)
        await open_stream(stream)
        await play(stream, samples)


@pytest.mark.asyncio
async def test_two_guests_play_into_two_files(
    machine: Machine, backend: Backend, played: Path
) -> None:
    samples = {name: random_samples(COUNTER_FORMAT, 2 * RATE, i) for i, name in enumerate("ab")}
    domains = [await asyncio.to_thread(machine.create, name) for name in samples]
    await asyncio.gather(*(play_alone(domain, samples[domain.name]) for domain in domains))
    for name, sound in samples.items():
        assert_holds(played / f"{name}-0-0-0.wav", COUNTER_FORMAT, RATE, 2, sound)


@pytest.mark.asyncio
async def test_two_cards_of_a_guest_and_two_streams_of_a_card_play_at_once(
    machine: Machine, backend: Backend, played: Path
) -> None:
    card = (
        "['CARD, buffer-size=1048576', 'PCM, name=one', 'STREAM, unique-id=a, type=p',"
        " 'STREAM, unique-id=b, type=p']"
    )
    domain = await asyncio.to_thread(machine.create, "guest", f"[{card}, {card}]")
    places = [(device, index) for device in (0, 1) for index in (0, 1)]

    async def play_card(device: int) -> None:
        async with open_card(domain, device) as card:

            async def play_stream(index: int) -> None:
                stream = card.streams[index]
                await open_stream(stream)
                await play(stream, random_samples(COUNTER_FORMAT, RATE, 10 * device + index))

            await asyncio.gather(play_stream(0), play_stream(1))

    await asyncio.gather(play_card(0), play_card(1))
    for device, index in places:
        assert_holds(
            played / f"guest-{device}-0-{index}.wav",
            COUNTER_FORMAT,
            RATE,
            2,
            random_samples(COUNTER_FORMAT, RATE, 10 * device + index),
        )


@pytest.mark.asyncio
async def test_a_guest_destroyed_while_playing_leaves_nothing_and_disturbs_nobody(
    machine: Machine, backend: Backend, played: Path, tmp_path: Path
) -> None:
    frames = 4 * RATE
    survivor = await asyncio.to_thread(machine.create, "survivor")
    long = tmp_path / "long.wav"
    write_wav(long, COUNTER_FORMAT, RATE, 2, counter(60 * RATE))

    def doomed_is_heard() -> bool:
        stats = backend.last_stats("doomed")
        return stats is not None and stats["frames_out"] > 0

    async with open_card(survivor) as card:
        stream = stream_of(card)
        await open_stream(stream)
        playing = asyncio.create_task(play(stream, counter(frames)))
        await until(lambda: stream.position_frames > 0, "the survivor is heard")
        before = backend.accounts(), machine.grants(), machine.channels()

        await asyncio.to_thread(machine.create, "doomed")
        player = machine.run("player", *xenaudio("play", "-q", str(long)), domain="doomed")
        await until(doomed_is_heard, "the doomed guest is heard")
        during = backend.accounts()
        assert during.mapped_pages > before[0].mapped_pages
        assert during.fds != before[0].fds
        assert machine.grants("doomed")
        assert machine.channels("doomed")

        await asyncio.to_thread(machine.destroy, "doomed")
        await until(player.ended, "its player ends with it")
        assert (backend.accounts(), machine.grants(), machine.channels()) == before
        assert not playing.done(), "the survivor was to play on beyond this"
        await playing
    assert judge_wav(played / "survivor-0-0-0.wav", frames).whole
