# SPDX-License-Identifier: LGPL-2.1-or-later
"""The backend on a real PulseAudio: bit for bit both ways, whatever befalls the server."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import NULL_SINK, StartServer, address_of_server
from guest import open_card, open_stream, play, record, stream_of, until
from hearing import (
    LEAD,
    RATE,
    frames_of,
    gaps_of_record,
    heard,
    heard_around_an_end,
    playing,
    run_on,
    to_be_heard,
    without_a_gap,
)
from machine import Backend, Machine
from pcm import COUNTER_FORMAT, Gap, counter, gaps_in, named, random_samples


def serve(machine: Machine) -> Backend:
    route = f"pulse:{address_of_server(machine)}"
    return machine.serve("--output", route, "--input", route)


@pytest.mark.asyncio
@pytest.mark.parametrize("format", ["s16_le", "s24_le", "float_le"])
async def test_what_a_guest_plays_is_heard_bit_for_bit(
    machine: Machine, tmp_path: Path, sound_server: StartServer, format: str
) -> None:
    wire = named(format)
    spec = {"s16_le": "s16le", "s24_le": "s24-32le", "float_le": "float32le"}[format]
    sink = f"load-module module-null-sink sink_name=out rate={RATE} format={spec}"
    server = await asyncio.to_thread(sound_server, sink)
    backend = serve(machine)
    domain = await asyncio.to_thread(machine.create, "guest")
    sound = random_samples(wire, 2 * 2 * RATE, 1)
    frame = wire.frame_octets(2)
    file = tmp_path / "heard.raw"

    def told(octets: bytes) -> bytes:
        """Leave out the highest of s24_le's four octets, of which nothing is told."""
        if format != "s24_le":
            return octets
        whole = np.frombuffer(octets[: len(octets) // 4 * 4], "<i4") & 0xFFFFFF
        return whole.astype("<u4").tobytes()

    async def play_it() -> list[Gap]:
        async with heard(server, file, spec), open_card(domain) as card:
            stream = stream_of(card)
            await open_stream(stream, wire)
            await play(stream, bytes(RATE // 2 * frame) + sound)
        return gaps_in(told(file.read_bytes()), told(sound), frame)

    await without_a_gap(backend, play_it)


@pytest.mark.asyncio
async def test_what_a_server_plays_is_recorded_bit_for_bit(
    machine: Machine, tmp_path: Path, sound_server: StartServer
) -> None:
    server = await asyncio.to_thread(sound_server, NULL_SINK)
    backend = serve(machine)
    domain = await asyncio.to_thread(machine.create, "guest")
    sound = random_samples(COUNTER_FORMAT, 2 * 2 * RATE, 1)

    async def record_it() -> list[Gap]:
        return await gaps_of_record(server, domain, tmp_path, sound)

    await without_a_gap(backend, record_it)


@pytest.mark.asyncio
async def test_a_server_that_is_killed_and_comes_back_is_played_on(
    machine: Machine, tmp_path: Path, sound_server: StartServer
) -> None:
    server = await asyncio.to_thread(sound_server, NULL_SINK)
    backend = serve(machine)
    _, after = await heard_around_an_end(
        machine, backend, server, lambda: sound_server(NULL_SINK), tmp_path
    )
    assert after[-1] > after[0] + RATE // 10


@pytest.mark.asyncio
async def test_without_a_server_a_guest_plays_and_records_in_real_time(machine: Machine) -> None:
    backend = serve(machine)
    domain = await asyncio.to_thread(machine.create, "guest")
    frames = RATE
    async with open_card(domain) as card:
        out, back = stream_of(card), stream_of(card, capture=True)
        await asyncio.gather(open_stream(out), open_stream(back))
        begin = time.monotonic()
        _, silence = await asyncio.gather(play(out, counter(frames)), record(back, frames))
        spent = time.monotonic() - begin
        await back.close()
    print(f"{frames / RATE} s took {spent:.3f} s")
    assert spent > 0.9, "it was not played faster than it is heard"
    assert not any(silence)
    stats = backend.last_stats("guest")
    assert stats is not None
    assert (stats["frames_out"], stats["frames_lost"], stats["xruns"]) == (frames, frames, 0)
    assert "Connection refused: nothing is heard" in backend.log()


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["suspended", "stopped"])
async def test_what_a_server_could_not_play_it_does_not_play_late(
    machine: Machine, tmp_path: Path, sound_server: StartServer, how: str
) -> None:
    server = await asyncio.to_thread(sound_server, NULL_SINK)
    serve(machine)
    file = tmp_path / "heard.raw"

    async def interrupt(on: bool) -> None:
        if how == "suspended":
            await asyncio.to_thread(server.asked, "suspend-sink", "out", str(int(on)))
        else:
            server.process.send_signal(signal.SIGSTOP if on else signal.SIGCONT)

    async with heard(server, file), playing(machine, counter(7 * RATE)) as stream:
        await to_be_heard(file)
        await interrupt(True)
        await asyncio.sleep(0.1)
        before = frames_of(file)[-1]
        await run_on(stream, 2)
        await interrupt(False)
        await until(lambda: frames_of(file)[-1] > before + 2 * RATE, "it is heard again")
    got = frames_of(file)
    assert np.all(np.diff(got) > 0), "nothing is heard twice, or out of turn"
    missed = int(np.diff(got).max())
    print(f"{missed} frames were not heard")
    assert missed > RATE


@pytest.mark.asyncio
@pytest.mark.parametrize("late_ms", [15, 200])
async def test_a_guest_that_was_late_is_heard_without_another_gap(
    machine: Machine, tmp_path: Path, sound_server: StartServer, late_ms: int
) -> None:
    server = await asyncio.to_thread(sound_server, NULL_SINK)
    backend = serve(machine)
    domain = await asyncio.to_thread(machine.create, "guest")
    file = tmp_path / "heard.raw"
    buffer_ms = 32  # of which the server is given half in advance
    sound = counter(RATE * buffer_ms // 1000)

    async def be_late() -> list[Gap]:
        async with heard(server, file), open_card(domain) as card:
            stream = stream_of(card)
            await open_stream(stream, period_ms=8, buffer_ms=buffer_ms)
            await stream.write(LEAD)
            await asyncio.sleep((buffer_ms + late_ms) / 1000)
            await play(stream, sound)
        # PulseAudio's monitor may miss the beginning (without_a_gap).
        found = gaps_in(file.read_bytes(), sound, COUNTER_FORMAT.frame_octets(2))
        return [gap for gap in found if gap.at]

    await without_a_gap(backend, be_late)


@pytest.mark.asyncio
async def test_a_sink_that_is_removed_hands_its_streams_to_another(
    machine: Machine, tmp_path: Path, sound_server: StartServer
) -> None:
    first, second = tmp_path / "first.raw", tmp_path / "second.raw"
    server = await asyncio.to_thread(
        sound_server, NULL_SINK, NULL_SINK.replace("=out", "=other"), "set-default-sink out"
    )
    backend = serve(machine)
    async with heard(server, first), playing(machine, counter(6 * RATE)):
        await to_be_heard(first)
        modules = await asyncio.to_thread(server.asked, "list", "short", "modules")
        (index,) = re.findall(r"^(\d+)\tmodule-null-sink\tsink_name=out", modules, re.M)
        await asyncio.to_thread(server.asked, "unload-module", index)
        async with heard(server, second, monitor="other.monitor"):
            await to_be_heard(second)
    before, after = frames_of(first), frames_of(second)
    assert np.all(np.diff(before) > 0)
    assert np.all(np.diff(after) > 0)
    assert "nothing is heard" not in backend.log()


@pytest.mark.asyncio
async def test_two_guests_are_heard_at_once_and_seen_by_their_names(
    machine: Machine, tmp_path: Path, sound_server: StartServer
) -> None:
    server = await asyncio.to_thread(sound_server, NULL_SINK)
    backend = serve(machine)
    file = tmp_path / "heard.raw"
    names = ["red", "blue"]
    domains = [await asyncio.to_thread(machine.create, name) for name in names]
    # Each on a channel of its own: what is mixed can be told apart again.
    sounds = [np.zeros((3 * RATE, 2), "<i2") for _ in names]
    for i, sound in enumerate(sounds):
        samples = random_samples(COUNTER_FORMAT, 3 * RATE, i)
        sound[:, i] = np.frombuffer(samples, "<i2")

    async def play_one(i: int) -> None:
        async with open_card(domains[i]) as card:
            stream = stream_of(card)
            await open_stream(stream)
            await play(stream, LEAD + sounds[i].tobytes())

    def seen() -> list[str]:
        text = server.asked("list", "sink-inputs")
        return sorted(re.findall(r'application.name = "(.*)"', text))

    async def play_both() -> list[Gap]:
        async with heard(server, file):
            players = asyncio.gather(*(play_one(i) for i in range(2)))
            await until(lambda: seen() == sorted(names), "both are seen")
            clients = await asyncio.to_thread(server.asked, "list", "clients")
            await players
        assert all(f'application.name = "{name}"' in clients for name in names)
        octets = file.read_bytes()
        got = np.frombuffer(octets[: len(octets) // 4 * 4], "<i2").reshape(-1, 2)
        return [
            gap
            for i, sound in enumerate(sounds)
            for gap in gaps_in(got[:, i].tobytes(), sound[:, i].tobytes(), 2)
        ]

    await without_a_gap(backend, play_both, mixed=True)


@pytest.mark.asyncio
async def test_a_guest_that_plays_nothing_costs_nobody_a_wake_up(
    machine: Machine, tmp_path: Path, sound_server: StartServer
) -> None:
    server = await asyncio.to_thread(sound_server, NULL_SINK)
    backend = serve(machine)
    domain = await asyncio.to_thread(machine.create, "guest")

    def sound_threads() -> dict[str, int]:
        """Count how often the threads that carry samples woke up."""
        woken: dict[str, int] = {}
        for task in Path(f"/proc/{backend.pid}/task").iterdir():
            status = (task / "status").read_text()
            name = re.search(r"^Name:\t(.*)$", status, re.M)
            count = re.search(r"^voluntary_ctxt_switches:\t(\d+)$", status, re.M)
            assert name is not None
            assert count is not None
            if name[1] in ("xa-engine", "xa-pulse"):
                woken[f"{name[1]} {task.name}"] = int(count[1])
        return woken

    async with open_card(domain) as card:
        stream = stream_of(card)
        await open_stream(stream)
        await stream.write(counter(RATE // 10))
        await stream.drain()
        await stream.stop()
        await until(
            lambda: "Corked: yes" in server.asked("list", "sink-inputs"), "its stream rests"
        )
        await asyncio.sleep(0.5)
        before = sound_threads()
        assert len(before) == 2
        await asyncio.sleep(2)
        assert sound_threads() == before
        await stream.close()
