# SPDX-License-Identifier: LGPL-2.1-or-later
"""A service with a configuration file: who is heard where, who may record, and how much one has."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from guest import open_card, open_stream, play, record, stream_of
from machine import Backend, Domain, Machine, run_xenaudio
from pcm import COUNTER_FORMAT, assert_same, counter, judge_wav, write_wav

from xenaudio.core.frontend import Card, CardNotReadyError

pytestmark = pytest.mark.asyncio

RATE = 48000


@pytest.fixture
def file(machine: Machine) -> Path:
    """Give the path of a configuration file."""
    return machine.directory / "xenaudio.toml"


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Give a file to record from, of a tenth of a second."""
    path = tmp_path / "in.wav"
    write_wav(path, COUNTER_FORMAT, RATE, 2, counter(RATE // 10))
    return path


async def serve(machine: Machine, file: Path, text: str) -> Backend:
    await asyncio.to_thread(file.write_text, text)
    return await asyncio.to_thread(machine.serve, "--config", str(file))


async def reload(backend: Backend, file: Path, text: str, says: str) -> None:
    """Change the file, and have it read again."""
    since = len(backend.log())
    await asyncio.to_thread(file.write_text, text)
    os.kill(backend.pid, signal.SIGHUP)
    await asyncio.to_thread(backend.wait_for, says, since)


async def play_to_end(domain: Domain, frames: int) -> None:
    async with open_card(domain) as card:
        stream = stream_of(card)
        await open_stream(stream)
        await play(stream, counter(frames))


async def recorded(domain: Domain, frames: int) -> bytes:
    async with open_card(domain) as card:
        stream = stream_of(card, capture=True)
        await open_stream(stream)
        got = await record(stream, frames)
        await stream.close()
    return got


async def test_each_guest_is_heard_where_its_route_says(
    machine: Machine, file: Path, tmp_path: Path
) -> None:
    text = f"""
        [[route]]
        guest = "desk-*"
        unique-id = "p"
        output = "file:{tmp_path}/desk.wav"
        [[route]]
        output = "file:{tmp_path}/others.wav"
        """
    await serve(machine, file, text)
    desk, web = [await asyncio.to_thread(machine.create, name) for name in ("desk-1", "web")]
    await asyncio.gather(play_to_end(desk, RATE // 2), play_to_end(web, RATE // 4))
    assert judge_wav(tmp_path / "desk.wav", RATE // 2).whole
    assert judge_wav(tmp_path / "others.wav", RATE // 4).whole


async def test_who_is_denied_the_microphone_records_silence_and_is_not_stalled(
    machine: Machine, file: Path, sound: Path
) -> None:
    text = f"""
        [[route]]
        guest = "trusted"
        microphone = "allow"
        [[route]]
        input = "loop:{sound}"
        """
    backend = await serve(machine, file, text)
    trusted, other = [
        await asyncio.to_thread(machine.create, name) for name in ("trusted", "other")
    ]
    frames = RATE // 5
    heard, silence = await asyncio.gather(recorded(trusted, frames), recorded(other, frames))
    assert_same(heard, 2 * counter(RATE // 10), 4, "trusted")
    # All frames that it asked for, at their time, and nothing in them.
    assert silence == bytes(4 * frames)
    assert "capture 0/1 from null (microphone denied)" in backend.log()
    stats = backend.last_stats("other", stream=1)
    assert stats is not None
    assert (stats["frames_out"] >= frames, stats["xruns"], stats["bad_requests"]) == (True, 0, 0)


async def test_a_changed_file_counts_when_a_card_connects_next(
    machine: Machine, file: Path, tmp_path: Path
) -> None:
    backend = await serve(machine, file, f'[[route]]\noutput = "file:{tmp_path}/old.wav"\n')
    domain = await asyncio.to_thread(machine.create, "guest")
    async with open_card(domain) as card:
        stream = stream_of(card)
        await open_stream(stream)
        await reload(
            backend,
            file,
            f'[[route]]\noutput = "file:{tmp_path}/new.wav"\n',
            "the configuration was read",
        )
        goes_on = f"playback 0/0 goes on with file:{tmp_path}/old.wav until its card connects anew"
        assert goes_on in backend.log()
        assert "capture 0/1 goes on" not in backend.log()
        await play(stream, counter(1000))
    await play_to_end(domain, 2000)
    assert judge_wav(tmp_path / "old.wav", 1000).whole
    assert judge_wav(tmp_path / "new.wav", 2000).whole


async def test_a_bad_file_is_refused_and_the_old_one_stays_in_force(
    machine: Machine, file: Path, tmp_path: Path
) -> None:
    good = f'[[route]]\noutput = "file:{tmp_path}/good.wav"\n'
    backend = await serve(machine, file, good)
    await reload(
        backend,
        file,
        '[[route]]\noutput = "null"\ncard = -1\n[[limits]]\ncards = -1\n',
        "the configuration is not taken: what was in force before stays",
    )
    # All that is wrong is in the log.
    assert f"{file}:3: card = -1: expected a whole number from 0 to 65535" in backend.log()
    assert f"{file}:5: cards = -1: expected a whole number from 0 to 1024" in backend.log()
    since = len(backend.log())
    os.unlink(file)
    os.kill(backend.pid, signal.SIGHUP)
    await asyncio.to_thread(backend.wait_for, f"{file}: No such file or directory", since)
    await play_to_end(await asyncio.to_thread(machine.create, "guest"), 1000)
    assert judge_wav(tmp_path / "good.wav", 1000).whole
    await reload(backend, file, good, "the configuration was read")


async def test_a_card_beyond_the_limit_waits_and_the_others_play_on(
    machine: Machine, file: Path, tmp_path: Path
) -> None:
    rest = f'[[route]]\noutput = "file:{tmp_path}/out.wav"\n'
    backend = await serve(machine, file, f"[[limits]]\ncards = 1\n{rest}")
    domain = await asyncio.to_thread(machine.create, "guest")
    await asyncio.to_thread(machine.attach, "guest")
    async with open_card(domain) as card:
        stream = stream_of(card)
        await open_stream(stream)
        playing = asyncio.create_task(play(stream, counter(RATE)))
        with domain.hypervisor() as hv:
            async with Card.open(hv, 1) as second:
                with pytest.raises(CardNotReadyError):
                    await second.connected(1)
                assert "vsnd 1: refused: the guest has 1 cards connected" in backend.log()
                # Allowed, it is served as soon as it tries again.
                await reload(
                    backend, file, f"[[limits]]\ncards = 2\n{rest}", "the configuration was read"
                )
        await playing
    async with open_card(domain, 1) as second:
        await open_stream(stream_of(second))
    verdict = judge_wav(tmp_path / "out.wav", RATE)
    assert verdict.whole, verdict


async def test_a_buffer_is_as_large_as_its_guest_may_have(machine: Machine, file: Path) -> None:
    await serve(machine, file, '[[limits]]\nguest = "small"\nbuffer-octets = 16384\n')
    small, large = [await asyncio.to_thread(machine.create, name) for name in ("small", "large")]
    async with open_card(small) as card:
        with pytest.raises(OSError, match="open the stream"):
            await open_stream(stream_of(card), buffer_ms=400)
        await open_stream(stream_of(card), buffer_ms=80)
    async with open_card(large) as card:
        await open_stream(stream_of(card), buffer_ms=400)


async def test_the_file_and_the_options_exclude_each_other(tmp_path: Path) -> None:
    done = await asyncio.to_thread(
        run_xenaudio, "serve", "--config", tmp_path / "x", "--output", "null"
    )
    assert done.returncode == 2
    assert done.stderr == (
        "xenaudio serve: --config FILE, or --output and --input: expected one or the other\n"
    )


async def test_a_service_with_a_bad_file_does_not_start(tmp_path: Path) -> None:
    file = tmp_path / "xenaudio.toml"
    file.write_text("[[route]]\nguest = 1.5\n[[limits]]\nkards = 1\n")
    done = await asyncio.to_thread(run_xenaudio, "serve", "--config", file)
    checked = await asyncio.to_thread(run_xenaudio, "check", file)
    assert (done.returncode, checked.returncode) == (1, 1)
    # `check` says the same, and changes nothing.
    assert done.stderr == f"xenaudio serve: {checked.stderr}"
    assert len(checked.stderr.splitlines()) == 4
    missing = await asyncio.to_thread(run_xenaudio, "serve", "--config", tmp_path / "none")
    assert missing.returncode == 1
    assert missing.stderr == f"xenaudio serve: {tmp_path}/none: No such file or directory\n"
