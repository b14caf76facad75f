# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xenaudio serve` as a person or a service manager runs it: errors, logs, statistics, files."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from guest import open_card, open_stream, play, record, stream_of
from machine import Backend, Machine, run_xenaudio, xenaudio
from pcm import COUNTER_FORMAT, assert_same, counter, judge_wav, read_wav, write_wav

from xenaudio.core.frontend import Card, CardNotReadyError

RATE = 48000


def refusal(*args: str, **options: object) -> str:
    """Run a command that must fail in one line; return the line."""
    done = run_xenaudio("serve", *args, **options)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("option", "text", "words"),
    [
        ("--output", "alsa:hw", "'alsa:hw': not a route, expected 'null', 'file:PATH', 'pulse' or"),
        (
            "--output",
            "loop:/tmp",
            "'loop:/tmp': not a route, expected 'null', 'file:PATH', 'pulse' or",
        ),
        ("--output", "file:/nowhere/x.wav", "there is no folder /nowhere"),
        (
            "--input",
            "file",
            "'file': not a route, expected 'null', 'file:PATH', 'loop:PATH', 'pulse'",
        ),
        ("--input", "file:/nowhere.wav", "there is no such file"),
    ],
)
def test_a_route_that_cannot_be_is_refused(
    tmp_path: Path, option: str, text: str, words: str
) -> None:
    line = refusal("--hv", str(tmp_path / "none"), option, text)
    assert line.startswith("xenaudio serve: ")
    assert words in line


@pytest.fixture
def unwritable() -> Iterator[Path]:
    """Give a folder in which nobody but root can make a file."""
    with tempfile.TemporaryDirectory(prefix="xa", dir="/tmp") as folder:
        os.chmod(folder, 0o555)
        yield Path(folder)


def test_a_folder_that_cannot_be_written_is_refused(unwritable: Path) -> None:
    nobody = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    line = refusal("--hv", "/nowhere", "--output", f"file:{unwritable}/", **nobody)
    assert f"no file can be made in {unwritable}" in line


def policy(backend: Backend) -> int:
    """Return the scheduling policy of the thread that moves the samples."""
    (engine,) = (
        int(task.name)
        for task in Path(f"/proc/{backend.pid}/task").iterdir()
        if (task / "comm").read_text() == "xa-engine\n"
    )
    return os.sched_getscheduler(engine) & ~os.SCHED_RESET_ON_FORK


def test_it_says_that_it_has_no_real_time_priority(machine: Machine) -> None:
    refused = ["prlimit", "--rtprio=0"]
    if os.geteuid() == 0:
        refused += ["setpriv", "--bounding-set=-sys_nice"]
    backend = machine.serve(argv=[*refused, *xenaudio("serve")])
    assert policy(backend) == os.SCHED_OTHER
    assert backend.log().count("no real-time priority (Operation not permitted)") == 1
    backend.stop()
    backend = machine.serve()
    assert ("no real-time priority" in backend.log()) == (policy(backend) != os.SCHED_RR)


def test_an_unreachable_hypervisor_is_named(tmp_path: Path) -> None:
    nothing = str(tmp_path / "none")
    assert nothing in refusal("--hv", nothing)
    assert "No such file or directory" in refusal("--hv", nothing)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "stale"))
        assert "Connection refused" in refusal("--hv", str(tmp_path / "stale"))
    assert refusal("--hv", "/" + "x" * 200)


def test_a_statistics_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    file = str(tmp_path / "none" / "stats")
    assert refusal("--hv", str(tmp_path / "none"), "--stats", file) == (
        f"xenaudio: {file}: No such file or directory"
    )


def test_a_wrong_command_line_is_told_apart() -> None:
    done = run_xenaudio("serve", "--nonsense")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


async def play_once(machine: Machine, name: str, frames: int) -> None:
    domain = await asyncio.to_thread(machine.create, name)
    async with open_card(domain) as card:
        stream = stream_of(card)
        await open_stream(stream)
        await play(stream, counter(frames))
    await asyncio.to_thread(machine.destroy, name)


@pytest.mark.asyncio
async def test_json_log_is_json_in_every_line(machine: Machine) -> None:
    backend = await asyncio.to_thread(machine.serve, "--json-log")
    await play_once(machine, "guest", 1000)
    await asyncio.to_thread(backend.stop)
    entries = [json.loads(line) for line in backend.log().splitlines()]
    for entry in entries:
        assert entry.keys() == {"time", "level", "logger", "message"}
    messages = [entry["message"] for entry in entries]
    assert any(message.startswith("guest (1) vsnd 0: connected") for message in messages)
    assert any("playback 0/0 ended: 1000 frames, 0 gaps" in message for message in messages)
    assert messages[-1] == "stopping"


@pytest.mark.asyncio
async def test_nothing_is_ever_overwritten(
    machine: Machine, backend: Backend, played: Path
) -> None:
    """Neither by the same guest, nor by one of its name, nor by another backend."""
    (played / "guest-0-0-0.wav").write_bytes(b"precious")
    (played / "guest-0-0-0-3.wav").write_bytes(b"precious too")
    for _ in range(2):
        await play_once(machine, "guest", 1000)
    await asyncio.to_thread(backend.stop)
    await asyncio.to_thread(backend.restarted)
    await play_once(machine, "guest", 1000)
    assert (played / "guest-0-0-0.wav").read_bytes() == b"precious"
    assert (played / "guest-0-0-0-3.wav").read_bytes() == b"precious too"
    for number in (2, 4, 5):
        assert judge_wav(played / f"guest-0-0-0-{number}.wav", 1000).whole


@pytest.mark.asyncio
async def test_two_streams_with_one_file_get_two_files(machine: Machine, tmp_path: Path) -> None:
    await asyncio.to_thread(machine.serve, "--output", f"file:{tmp_path}/all.wav")
    await asyncio.gather(play_once(machine, "a", RATE // 2), play_once(machine, "b", RATE // 2))
    assert judge_wav(tmp_path / "all.wav", RATE // 2).whole
    assert judge_wav(tmp_path / "all-2.wav", RATE // 2).whole


@pytest.mark.asyncio
async def test_statistics_tell_a_streams_story(machine: Machine, backend: Backend) -> None:
    await play_once(machine, "guest", RATE)
    await asyncio.to_thread(backend.stop)
    entries = [e for e in backend.stats() if e["stream"] == 0]
    times = [entry["time_ns"] for entry in entries]
    assert times == sorted(times)
    for before, after in pairwise(entries):
        for counter_name in ("frames_in", "frames_out", "events", "requests", "opens"):
            assert before["stats"][counter_name] <= after["stats"][counter_name]
    last = entries[-1]
    assert (last["guest"], last["device"], last["pcm"], last["capture"]) == ("guest", 0, 0, False)
    stats = last["stats"]
    assert (stats["frames_in"], stats["frames_out"], stats["opens"]) == (RATE, RATE, 1)
    assert (stats["rate"], stats["channels"], stats["frame_octets"]) == (RATE, 2, 4)
    assert (stats["xruns"], stats["bad_requests"], stats["frames_lost"]) == (0, 0, 0)
    assert max(entry["stats"]["peak"] for entry in entries) > 0
    trace = [point for entry in entries for point in entry["trace"]]
    assert len(trace) > 10
    assert trace == sorted(trace)
    assert trace[-1][1] == RATE


@pytest.mark.asyncio
async def test_an_input_file_is_followed_by_silence_or_by_itself(
    machine: Machine, tmp_path: Path
) -> None:
    sound = tmp_path / "in.wav"
    frames = RATE // 10
    write_wav(sound, COUNTER_FORMAT, RATE, 2, counter(frames))
    for route, after in (("file", bytes(4 * frames)), ("loop", counter(frames))):
        backend = await asyncio.to_thread(machine.serve, "--input", f"{route}:{sound}")
        domain = await asyncio.to_thread(machine.create, route)
        async with open_card(domain) as card:
            stream = stream_of(card, capture=True)
            await open_stream(stream)
            got = await record(stream, 2 * frames)
            await stream.close()
        assert_same(got, counter(frames) + after, 4, route)
        await asyncio.to_thread(backend.stop)


@pytest.mark.asyncio
async def test_an_input_that_does_not_fit_the_card_is_told_and_the_guest_not_served(
    machine: Machine, tmp_path: Path
) -> None:
    sound = tmp_path / "in.wav"
    write_wav(sound, COUNTER_FORMAT, 22050, 2, counter(1000))
    backend = await asyncio.to_thread(machine.serve, "--input", f"file:{sound}")
    domain = await asyncio.to_thread(machine.create, "guest")
    with domain.hypervisor() as hv:
        async with Card.open(hv) as card:
            with pytest.raises(CardNotReadyError):
                await card.connected(1)
    assert f"stream 0/1: its route file:{sound} does not fit its configuration" in backend.log()


@pytest.mark.asyncio
async def test_a_file_that_cannot_be_made_refuses_the_open_and_no_more(
    machine: Machine, backend: Backend, played: Path
) -> None:
    domain = await asyncio.to_thread(machine.create, "guest")
    async with open_card(domain) as card:
        stream = stream_of(card)
        elsewhere = played.with_name("elsewhere")
        os.rename(played, elsewhere)
        with pytest.raises(OSError, match="open the stream"):
            await open_stream(stream)
        os.rename(elsewhere, played)
        await open_stream(stream)
        await play(stream, counter(1000))
    assert judge_wav(played / "guest-0-0-0.wav", 1000).whole
    assert read_wav(played / "guest-0-0-0.wav").rate == RATE
