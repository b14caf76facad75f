# SPDX-License-Identifier: LGPL-2.1-or-later
"""The backend on PipeWire, as a client of its PulseAudio server: bit for bit both ways."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from guest import open_card, open_stream, play, stream_of
from hearing import ATTEMPTS, MONITOR, RATE, gaps_of_record, heard, heard_around_an_end
from machine import Backend, Machine
from pcm import COUNTER_FORMAT, Gap, gaps_in, named, random_samples
from pipewire import PipeWire

StartPipeWire = Callable[[], PipeWire]


@pytest.fixture
def pipewire(machine: Machine) -> Iterator[StartPipeWire]:
    """Give what starts a PipeWire with the sink `out`, ever again at one address."""
    for program in ("pipewire", "pipewire-pulse", "wireplumber", "dbus-daemon"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} here")
    made: list[PipeWire] = []
    place = machine.directory / "pipewire"

    def start() -> PipeWire:
        if made:
            shutil.rmtree(place)
        made.append(PipeWire(place))
        made[-1].load("module-null-sink", "sink_name=out", f"rate={RATE}", "channels=2")
        return made[-1]

    try:
        yield start
    finally:
        for each in made:
            each.end()


def serve(machine: Machine, server: PipeWire) -> Backend:
    # No monitor is a default source here.
    return machine.serve(
        "--output", f"pulse:{server.address}", "--input", f"pulse:{server.address},{MONITOR}"
    )


async def undisturbed(server: PipeWire, attempt: Callable[[], Awaitable[list[Gap]]]) -> None:
    """Have a sound pass until it does so whole.

    On a busy machine somebody is too late now and then, and there is a gap. Where PipeWire itself
    is, it says so, and may then play something twice.
    """
    for _ in range(ATTEMPTS):
        before = len(server.log())
        try:
            gaps = await attempt()
        except AssertionError as error:
            if "XRun!" not in server.log()[before:]:
                raise
            print(error)
            continue
        if not gaps:
            return
        print(f"gaps: {gaps}")
    pytest.fail(f"{ATTEMPTS} times it was disturbed")


@pytest.mark.asyncio
@pytest.mark.parametrize("format", ["s16_le", "float_le"])
async def test_what_a_guest_plays_is_heard_bit_for_bit(
    machine: Machine, tmp_path: Path, pipewire: StartPipeWire, format: str
) -> None:
    wire = named(format)
    spec = {"s16_le": "s16le", "float_le": "float32le"}[format]
    server = await asyncio.to_thread(pipewire)
    serve(machine, server)
    domain = await asyncio.to_thread(machine.create, "guest")
    sound = random_samples(wire, 2 * 2 * RATE, 1)
    frame = wire.frame_octets(2)
    file = tmp_path / "heard.raw"

    async def play_it() -> list[Gap]:
        async with heard(server, file, spec), open_card(domain) as card:
            stream = stream_of(card)
            await open_stream(stream, wire)
            # PipeWire (0.3.65) plays less than it takes at once only with what follows.
            silence = bytes(RATE // 2 * frame)
            await play(stream, silence + sound + silence)
        return gaps_in(file.read_bytes(), sound, frame)

    await undisturbed(server, play_it)


@pytest.mark.asyncio
async def test_what_a_server_plays_is_recorded_bit_for_bit(
    machine: Machine, tmp_path: Path, pipewire: StartPipeWire
) -> None:
    server = await asyncio.to_thread(pipewire)
    serve(machine, server)
    domain = await asyncio.to_thread(machine.create, "guest")
    sound = random_samples(COUNTER_FORMAT, 2 * 2 * RATE, 1)

    async def record_it() -> list[Gap]:
        return await gaps_of_record(server, domain, tmp_path, sound)

    await undisturbed(server, record_it)


@pytest.mark.asyncio
async def test_a_server_that_ends_and_comes_back_is_played_on(
    machine: Machine, tmp_path: Path, pipewire: StartPipeWire
) -> None:
    server = await asyncio.to_thread(pipewire)
    backend = serve(machine, server)
    await heard_around_an_end(machine, backend, server, pipewire, tmp_path)
