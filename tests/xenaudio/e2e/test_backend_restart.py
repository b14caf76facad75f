# SPDX-License-Identifier: LGPL-2.1-or-later
"""The backend ends, in order or not, and another one takes over the running guests."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import numpy as np
import pytest
from guest import open_card, open_stream, play, stream_of, until, until_state
from machine import Backend, Machine, Program, wait_until, xenaudio
from pcm import COUNTER_FORMAT, counter, judge_wav, read_wav, write_wav

from xenaudio.core.frontend import CardState

RATE = 48000
FRAMES = 4 * RATE
STATE = "/local/domain/0/backend/vsnd/1/0/state"


def start_player(machine: Machine, tmp_path: Path, domain: str = "guest") -> Program:
    """Start `xenaudio play` of the counter in a domain."""
    file = tmp_path / "counter.wav"
    write_wav(file, COUNTER_FORMAT, RATE, 2, counter(FRAMES))
    command = xenaudio("play", "-q", "--buffer-ms", "1000", str(file))
    return machine.run("player", *command, domain=domain)


def has_played(backend: Backend, frames: int, guest: str = "guest") -> bool:
    stats = backend.last_stats(guest)
    return stats is not None and stats["frames_out"] >= frames


def numbers(path: Path) -> list[int]:
    """Return the counter's numbers in a file, which must be a run of them without a gap."""
    values = np.frombuffer(read_wav(path).octets, "<u4")
    assert len(values)
    assert (np.diff(values.astype(np.int64)) == 1).all(), f"{path} has a gap"
    return [int(values[0]), int(values[-1])]


def assert_player_succeeds(player: Program) -> None:
    assert player.process.wait(30) == 0, player.log()


def test_a_guest_plays_on_when_the_backend_was_killed_and_another_one_comes(
    machine: Machine, backend: Backend, played: Path, tmp_path: Path
) -> None:
    machine.create("guest")
    player = start_player(machine, tmp_path)
    wait_until(lambda: has_played(backend, RATE), "a second is played")
    backend.kill()
    assert not player.ended()
    second = backend.restarted()
    assert_player_succeeds(player)
    second.stop()
    first, last = numbers(played / "guest-0-0-0-2.wav")
    # Not from the beginning, and no frame beyond those that the killed one may have taken.
    assert 1 < first <= FRAMES - RATE
    assert last == FRAMES


def test_a_guest_plays_on_after_a_clean_stop_and_no_frame_is_left_out(
    machine: Machine, backend: Backend, played: Path, tmp_path: Path
) -> None:
    machine.create("guest")
    player = start_player(machine, tmp_path)
    wait_until(lambda: has_played(backend, RATE), "a second is played")
    backend.stop()
    assert machine.xenstore("xenstore-read", STATE).strip() == "6"
    second = backend.restarted()
    assert_player_succeeds(player)
    second.stop()
    begin, end = numbers(played / "guest-0-0-0.wav")
    begin_anew, end_anew = numbers(played / "guest-0-0-0-2.wav")
    assert (begin, end_anew) == (1, FRAMES)
    assert begin < begin_anew <= end + 1, "nothing lies between the two files"


@pytest.mark.asyncio
async def test_the_frontend_follows_the_backends_stop_and_return(
    machine: Machine, backend: Backend, played: Path
) -> None:
    domain = await asyncio.to_thread(machine.create, "guest")
    async with open_card(domain) as card:
        stream = stream_of(card)
        await open_stream(stream)
        await stream.write(counter(RATE))
        await asyncio.to_thread(backend.stop)
        assert "playback 0/0 ended" in backend.log()
        await until(lambda: card.state is not CardState.CONNECTED, "the card knows")
        second = await asyncio.to_thread(backend.restarted)
        await until_state(card, CardState.CONNECTED)
        await open_stream(stream)
        await play(stream, counter(RATE))
        assert "was left in state 6" in second.log()
    assert judge_wav(played / "guest-0-0-0-2.wav", RATE).whole


@pytest.mark.asyncio
async def test_an_idle_card_comes_back_after_the_backend_was_killed(
    machine: Machine, backend: Backend, played: Path
) -> None:
    domain = await asyncio.to_thread(machine.create, "guest")
    async with open_card(domain) as card:
        for _ in range(5):
            await asyncio.to_thread(backend.kill)
            backend = await asyncio.to_thread(backend.restarted)
            # It may not have noticed yet that the backend went away.
            await until(lambda b=backend: "connected, card" in b.log(), "it is served again")
            await until_state(card, CardState.CONNECTED)
        stream = stream_of(card)
        await open_stream(stream)
        await play(stream, counter(RATE))
    assert judge_wav(played / "guest-0-0-0.wav", RATE).whole


@pytest.mark.asyncio
async def test_a_backend_serves_the_guests_that_were_there_before_it(
    machine: Machine, played: Path
) -> None:
    names = ("one", "two", "three")
    domains = [await asyncio.to_thread(machine.create, name, wait=False) for name in names]

    async def play_when_served(index: int) -> None:
        async with open_card(domains[index]) as card:
            stream = stream_of(card)
            await open_stream(stream)
            await play(stream, counter(RATE))

    playing = [asyncio.create_task(play_when_served(i)) for i in range(len(names))]
    await asyncio.sleep(0.3)
    await asyncio.to_thread(machine.serve, "--output", f"file:{played}/")
    await asyncio.gather(*playing)
    for name in names:
        assert judge_wav(played / f"{name}-0-0-0.wav", RATE).whole


def test_the_backend_stops_in_order_whatever_its_guests_do(
    machine: Machine, backend: Backend, tmp_path: Path
) -> None:
    """One plays, one is stopped in its tracks, one never had a frontend, one has just begun."""
    for name in ("plays", "paused", "without"):
        machine.create(name)
    start_player(machine, tmp_path, "plays")
    start_player(machine, tmp_path, "paused")
    for name in ("plays", "paused"):
        wait_until(lambda n=name: has_played(backend, 1, n), f"{name} plays")
    machine.ask("pause", name="paused")
    machine.create("begins", wait=False)
    start_player(machine, tmp_path, "begins")
    backend.stop()
    states = machine.xenstore("xenstore-ls", "-f", "/local/domain/0/backend/vsnd")
    for line in states.splitlines():
        if "/state = " in line:
            assert line.endswith(('"6"', '"1"')), states


def test_a_second_signal_does_not_end_it_out_of_order(machine: Machine, backend: Backend) -> None:
    machine.create("guest")
    backend.process.send_signal(signal.SIGINT)
    backend.process.send_signal(signal.SIGTERM)
    assert backend.process.wait(30) == 0
    assert "Traceback" not in backend.log()


def test_it_says_so_and_fails_when_xenstore_is_lost(
    machine: Machine, backend: Backend, tmp_path: Path
) -> None:
    machine.create("guest")
    player = start_player(machine, tmp_path)
    wait_until(lambda: has_played(backend, 1), "it plays")
    player.kill()
    assert machine.server.terminate() == 0
    assert backend.process.wait(30) == 1
    log = backend.log()
    assert "xenaudio: the connection to XenStore is lost" in log
    assert "Traceback" not in log
