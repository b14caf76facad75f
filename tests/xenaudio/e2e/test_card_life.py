# SPDX-License-Identifier: LGPL-2.1-or-later
"""A card's life: attached and detached, saved and restored, taken over from a killed frontend."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from guest import open_card, open_stream, play, stream_of, until, until_state, within
from machine import Backend, Machine, wait_until, xenaudio
from pcm import COUNTER_FORMAT, counter, judge_wav, read_wav, write_wav

from tests.xenaudio.hostile.rawfrontend import CLOSE, OPEN, START, RawFrontend, open_payload
from xenaudio.core.errors import XenAudioError
from xenaudio.core.frontend import CardState
from xenaudio.core.hv import Hypervisor
from xenaudio.core.store import Store

RATE = 48000
BACKEND = "/local/domain/0/backend/vsnd"


@pytest.mark.asyncio
async def test_cards_come_and_go_while_another_one_plays(
    machine: Machine, backend: Backend, played: Path
) -> None:
    frames = 4 * RATE
    domain = await asyncio.to_thread(machine.create, "guest")
    async with open_card(domain) as card:
        stream = stream_of(card)
        await open_stream(stream)
        playing = asyncio.create_task(play(stream, counter(frames)))
        await until(lambda: stream.position_frames > 0, "it plays")
        before = backend.accounts()

        assert await asyncio.to_thread(machine.attach, "guest") == [1]
        async with open_card(domain, 1) as second:
            other = stream_of(second)
            await open_stream(other)
            await play(other, counter(RATE // 4))

            await open_stream(other)
            await other.write(counter(RATE // 2))
            await asyncio.to_thread(machine.detach, "guest", 1)
            with pytest.raises(XenAudioError):
                await other.write(counter(RATE))
            await until_state(second, CardState.ABSENT)
        await until(lambda: backend.accounts() == before, "the second card is gone for good")
        assert not playing.done()
        await playing
    assert judge_wav(played / "guest-1-0-0.wav", RATE // 4).whole
    assert judge_wav(played / "guest-0-0-0.wav", frames).whole


def test_a_card_is_attached_and_detached_again_and_again(
    machine: Machine, backend: Backend
) -> None:
    machine.create("guest", None)
    for _ in range(10):
        # The same number each time: the new device follows the old one on its heels.
        assert machine.attach("guest") == [0]
        machine.detach("guest", 0)
    assert "ERROR" not in backend.log()
    assert machine.ask("list")[1]["vsnd"] == []
    assert "vsnd" not in machine.xenstore("xenstore-ls", "-f", "/local/domain/0")
    assert backend.log().count("1) vsnd 0: ready") == backend.log().count(": detached") == 10


@pytest.mark.asyncio
async def test_a_device_made_anew_at_once_in_anothers_place_is_served(
    machine: Machine, backend: Backend
) -> None:
    domain = await asyncio.to_thread(machine.create, "guest")
    path = f"{BACKEND}/{domain.domid}/0"
    with Hypervisor(machine.dom0) as hv:
        store = await Store.open(hv)
        nodes = {name: await store.read(f"{path}/{name}") for name in await store.directory(path)}
        perms = await store.get_perms(path)
        assert nodes.pop("versions") == "1,2"
        assert nodes["state"] == "2"
        for gap in (0, 0, 0.0005, 0.001, 0.002, 0.005, 0):

            async def remake(tx: int) -> None:
                await store.rm(path, tx)
                await store.mkdir(path, tx)
                await store.set_perms(path, perms, tx)
                for name, value in {**nodes, "state": "1"}.items():
                    await store.write(f"{path}/{name}", value, tx)

            if gap:
                await store.rm(path)
                await asyncio.sleep(gap)
            await store.run_transaction(remake)

            async def offered() -> None:
                while await store.read(f"{path}/state") != "2":  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

            await within(offered(), "it is offered")
            assert await store.read(f"{path}/versions") == "1,2"
        store.close()
    async with open_card(domain) as card:
        stream = stream_of(card)
        await open_stream(stream)
        await play(stream, counter(1000))


@pytest.mark.asyncio
async def test_a_removed_device_does_not_come_back_to_life(
    machine: Machine, backend: Backend
) -> None:
    with Hypervisor(machine.dom0) as hv:
        store = await Store.open(hv)
        for i in range(20):
            domain = await asyncio.to_thread(machine.create, f"guest{i}", wait=False)
            await asyncio.sleep(i / 4000)
            await store.rm(f"{BACKEND}/{domain.domid}")
            await asyncio.sleep(0.05)
            assert str(domain.domid) not in await store.directory(BACKEND)
        store.close()


def test_a_guest_is_saved_while_it_plays_and_plays_on_when_restored(
    machine: Machine, backend: Backend, played: Path, tmp_path: Path
) -> None:
    frames = 4 * RATE
    sound = tmp_path / "counter.wav"
    write_wav(sound, COUNTER_FORMAT, RATE, 2, counter(frames))
    before = backend.accounts()
    machine.create("guest")
    command = xenaudio("play", "-q", "--buffer-ms", "1000", str(sound))
    player = machine.run("player", *command, domain="guest")

    def is_heard() -> bool:
        stats = backend.last_stats("guest")
        return stats is not None and stats["frames_out"] > RATE

    wait_until(is_heard, "it plays")
    saved = tmp_path / "saved"
    machine.save("guest", saved)
    assert backend.accounts() == before, "nothing of a saved guest is held"
    assert machine.restore(saved).domid == 2
    assert player.process.wait(30) == 0, player.log()
    first = np.frombuffer(read_wav(played / "guest-0-0-0.wav").octets, "<u4")
    second = np.frombuffer(read_wav(played / "guest-0-0-0-2.wav").octets, "<u4")
    assert np.array_equal(first[: RATE // 2], np.arange(1, RATE // 2 + 1))
    assert second[0] <= first.max() + 1, "nothing lies between the two files"
    assert np.array_equal(second, np.arange(second[0], frames + 1))


def test_a_frontend_takes_over_from_one_that_was_killed(
    machine: Machine, backend: Backend, played: Path, tmp_path: Path
) -> None:
    frames = RATE
    sound = tmp_path / "counter.wav"
    write_wav(sound, COUNTER_FORMAT, RATE, 2, counter(frames))
    before = backend.accounts()
    machine.create("guest")
    state = f"{BACKEND}/1/0/state"

    def is_heard() -> bool:
        stats = backend.last_stats("guest")
        return stats is not None and stats["frames_out"] > 0

    for _ in range(3):
        # A buffer of its own, which must not be mapped for ever.
        victim = machine.run(
            "victim", *xenaudio("play", "-q", "--buffer-ms", "1000", str(sound)), domain="guest"
        )
        wait_until(lambda: machine.grants("guest") and is_heard(), "it plays")
        victim.kill()
    assert machine.xenstore("xenstore-read", "/local/domain/1/device/vsnd/0/state").strip() == "4"
    player = machine.run(
        "player", *xenaudio("play", "-q", "--buffer-ms", "1000", str(sound)), domain="guest"
    )
    assert player.process.wait(30) == 0, player.log()
    newest = max(played.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert judge_wav(newest, frames).whole
    assert machine.xenstore("xenstore-read", state).strip() in ("2", "6")
    wait_until(lambda: backend.accounts() == before, "nothing of the killed ones is left")
    assert machine.grants("guest") == []
    assert machine.channels("guest") == []


@pytest.mark.asyncio
async def test_a_frontend_of_protocol_1_plays_without_events(
    machine: Machine, backend: Backend, played: Path
) -> None:
    domain = await asyncio.to_thread(machine.create, "guest")
    front = await RawFrontend.open(domain.socket)
    try:
        await front.prepare()
        for stream in front.streams:
            for node in ("evt-ring-ref", "evt-event-channel"):
                await front.store.rm(f"{stream.path}/{node}")
        await front.set_state(3)
        await front.backend_reaches(4)
        await front.set_state(4)
        await play_raw(front, backend, period=3840)
        assert front.playback.take_events() == []
        await front.disconnect()
    finally:
        front.close()
    assert judge_wav(played / "guest-0-0-0.wav", RAW_FRAMES).whole


@pytest.mark.asyncio
async def test_a_stream_with_a_period_of_0_plays_without_events(
    machine: Machine, backend: Backend, played: Path
) -> None:
    domain = await asyncio.to_thread(machine.create, "guest")
    front = await RawFrontend.open(domain.socket)
    try:
        await front.connect()
        await play_raw(front, backend, period=0)
        assert front.playback.take_events() == []
        # The same stream with events, and their ids in step with what was never sent.
        await front.playback.works()
        await front.disconnect()
    finally:
        front.close()
    assert judge_wav(played / "guest-0-0-0.wav", RAW_FRAMES).whole


RAW_FRAMES = 2 * RATE


async def play_raw(front: RawFrontend, backend: Backend, *, period: int) -> None:
    """Play two buffers of a second, by statistics instead of events."""

    def frames_out() -> int:
        stats = backend.last_stats("guest")
        return 0 if stats is None else int(stats["frames_out"])

    octets = 4 * RATE
    stream = front.playback
    pcm = stream.pcm(octets)
    await stream.succeed(
        OPEN, open_payload(buffer_sz=octets, gref_directory=pcm.gref, period_sz=period)
    )
    whole = counter(RAW_FRAMES)
    half = octets // 2
    for at in range(0, len(whole), half):
        await until(lambda end=at: frames_out() * 4 >= end + half - octets, "there is room")
        offset = at % octets
        pcm.memory[offset : offset + half] = whole[at : at + half]
        assert await stream.rw(offset, half) == 0
        if at == half:
            await stream.trigger(START)
    await until(lambda: frames_out() == RAW_FRAMES, "all of it is played")
    await stream.succeed(CLOSE)
