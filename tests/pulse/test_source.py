# SPDX-License-Identifier: LGPL-2.1-or-later
"""module-xenpv-source in a real PulseAudio: sound is recorded bit for bit, and nothing hangs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from conftest import StartPulse
from machine import Backend, Machine, wait_until
from pcm import counter, named, random_samples, write_wav
from sound import beginning_as, counted_frames, finish, sound_file
from undisturbed import undisturbed

CARD = (
    "[['CARD, short-name=Main, channels-min=1, channels-max=8, buffer-size=4194304,"
    " sample-rates=8000;44100;48000;96000', 'PCM, name=Front', 'STREAM, unique-id=p, type=p',"
    " 'STREAM, unique-id=c, type=c']]"
)
RATE = 48000
FRAME = 4
SLOW = "latency_msec=400"
"""Periods that outlast a busy machine."""


class Case(NamedTuple):
    """What a source has, and the wire's name for it."""

    format: str
    wire: str
    channels: int
    rate: int


CASES = [
    Case("s16le", "s16_le", 2, 48000),
    Case("s16le", "s16_le", 1, 8000),
    Case("s32le", "s32_le", 6, 44100),
    Case("float32le", "float_le", 2, 96000),
    Case("s24-32le", "s24_le", 2, 48000),
    Case("u8", "u8", 2, 48000),
    Case("s16be", "s16_be", 8, 48000),
]


def serve(
    machine: Machine, tmp_path: Path, wire: str, rate: int, channels: int, samples: bytes
) -> Backend:
    """Start a backend from which the guest records these samples, once each time it begins."""
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    write_wav(inputs / "guest-0-0-1.wav", named(wire), rate, channels, samples)
    played = tmp_path / "played"
    played.mkdir()
    return machine.serve("--input", f"file:{inputs}/", "--output", f"file:{played}/")


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_what_the_backend_captures_is_recorded_bit_for_bit(
    machine: Machine, tmp_path: Path, pulse: StartPulse, case: Case
) -> None:
    samples = random_samples(named(case.wire), case.rate * case.channels, seed=case.rate)
    serve(machine, tmp_path, case.wire, case.rate, case.channels, samples)
    domain = machine.create("guest", CARD)
    daemon = pulse(
        domain,
        "load-module module-xenpv-source source_name=xen"
        f" format={case.format} rate={case.rate} channels={case.channels} {SLOW}",
    )
    spec = f"{case.format} {case.channels} {case.rate}"
    file = tmp_path / "recorded.raw"

    def attempt() -> None:
        file.unlink(missing_ok=True)
        # Silence may be before it, when this machine takes its time to open the stream.
        got = daemon.record(file, 2 * len(samples), spec)
        assert beginning_as(got, samples) == samples

    undisturbed(daemon, attempt)
    daemon.stop()


@pytest.mark.parametrize("latency_ms", [5, 20, 100])
def test_at_a_low_latency_too_each_frame_comes_once(
    machine: Machine, tmp_path: Path, pulse: StartPulse, latency_ms: int
) -> None:
    samples = counter(2 * RATE)
    serve(machine, tmp_path, "s16_le", RATE, 2, samples)
    domain = machine.create("guest", CARD)
    daemon = pulse(domain, "load-module module-xenpv-source source_name=xen rate=48000")
    file = tmp_path / "recorded.raw"

    def attempt() -> None:
        file.unlink(missing_ok=True)
        got = daemon.record(file, 2 * len(samples), latency_ms=latency_ms)
        assert beginning_as(got, samples) == samples

    undisturbed(daemon, attempt)
    daemon.stop()


def test_a_sink_and_a_source_share_a_card(
    machine: Machine, tmp_path: Path, pulse: StartPulse
) -> None:
    captured = counter(4 * RATE, first=7)
    serve(machine, tmp_path, "s16_le", RATE, 2, captured)
    domain = machine.create("guest", CARD)
    daemon = pulse(
        domain,
        f"load-module module-xenpv-sink sink_name=out rate=48000 {SLOW}",
        f"load-module module-xenpv-source source_name=in rate=48000 {SLOW}",
        "set-default-source in",
    )
    sound = sound_file(tmp_path, counter(3 * RATE), RATE * FRAME)
    file, played = tmp_path / "recorded.raw", tmp_path / "played"

    def attempt() -> None:
        file.unlink(missing_ok=True)
        before = len(counted_frames(finish(daemon, "out", played)))
        with daemon.client(sound) as client:
            got = daemon.record(file, 2 * len(captured))
            assert client.wait(30) == 0
        assert beginning_as(got, captured) == captured
        heard = counted_frames(finish(daemon, "out", played))[before:]
        assert np.array_equal(heard, np.arange(1, 3 * RATE + 1))

    undisturbed(daemon, attempt)
    daemon.stop()


def test_the_stream_is_open_only_while_somebody_records(
    machine: Machine, backend: Backend, tmp_path: Path, pulse: StartPulse
) -> None:
    domain = machine.create("guest", CARD)
    daemon = pulse(domain, "load-module module-xenpv-source source_name=xen rate=48000")
    backend.wait_for("connected, card")
    idle = backend.accounts().mapped_pages
    with daemon.recorder(tmp_path / "recorded.raw") as recorder:
        wait_until(lambda: backend.accounts().mapped_pages > idle, "it is open")
        recorder.kill()
    wait_until(lambda: backend.accounts().mapped_pages == idle, "it is closed")
    time.sleep(0.5)
    before = daemon.card_thread_switches()
    time.sleep(2)
    assert daemon.card_thread_switches() == before
    daemon.stop()


def test_without_a_backend_there_is_silence_in_real_time(
    machine: Machine, tmp_path: Path, pulse: StartPulse
) -> None:
    domain = machine.create("guest", CARD, wait=False)
    daemon = pulse(domain, "load-module module-xenpv-source source_name=xen rate=48000")
    begin = time.monotonic()
    got = daemon.record(tmp_path / "recorded.raw", 2 * RATE * FRAME)
    assert time.monotonic() - begin > 1.5
    assert not any(got)
    daemon.stop()


def test_it_records_on_when_the_backend_was_killed_and_comes_back(
    machine: Machine, tmp_path: Path, pulse: StartPulse
) -> None:
    samples = counter(30 * RATE)
    backend = serve(machine, tmp_path, "s16_le", RATE, 2, samples)
    domain = machine.create("guest", CARD)
    daemon = pulse(domain, "load-module module-xenpv-source source_name=xen rate=48000")
    file = tmp_path / "recorded.raw"

    def grown(frames: int) -> None:
        wanted = (file.stat().st_size if file.exists() else 0) + frames * FRAME
        wait_until(lambda: file.exists() and file.stat().st_size >= wanted, "it is recorded")

    with daemon.recorder(file, latency_ms=50) as recorder:
        grown(RATE)
        backend.kill()
        grown(RATE)
        again = backend.restarted()
        grown(3 * RATE)
        recorder.kill()
    got = file.read_bytes()
    # The input begins anew with each OPEN: twice there is its first second, and silence between.
    first = counter(RATE // 2)
    second = got.find(first, got.index(first) + len(first))
    assert second > 0
    assert not any(got[second - RATE : second])
    assert got[second : second + 2 * len(first)] == counter(RATE)
    daemon.stop()
    again.stop()


def test_sources_come_and_go_under_load(
    machine: Machine, backend: Backend, tmp_path: Path, pulse: StartPulse
) -> None:
    domain = machine.create("guest", CARD)
    daemon = pulse(domain, "load-module module-null-sink")

    def once(number: int) -> None:
        index = daemon.load("module-xenpv-source", "source_name=xen")
        daemon.asked("set-default-source", "xen")
        with daemon.recorder(tmp_path / f"{number}.raw", latency_ms=10) as recorder:
            time.sleep(0.1)
            daemon.asked("unload-module", index)
            recorder.kill()
        daemon.wait_for_clients(0)

    once(0)
    before = daemon.fds()
    for number in range(20):
        once(number)
    wait_until(lambda: not machine.grants("guest"), "the pages are taken back")
    assert not machine.channels("guest")
    assert daemon.fds() == before
    daemon.stop()
    assert not backend.ended()


REFUSED = {"pcm=7": "no stream to record", "format=s24le": "s24-32le", "nonsense=1": "not one of"}


@pytest.mark.usefixtures("backend")
def test_what_cannot_be_is_refused_with_what_can(machine: Machine, pulse: StartPulse) -> None:
    domain = machine.create("guest", CARD)
    daemon = pulse(domain, "load-module module-null-sink")
    for argument, cure in REFUSED.items():
        assert cure in daemon.refusal("module-xenpv-source", argument), argument
    daemon.load("module-xenpv-source", "source_name=xen")
    assert "in use by another source" in daemon.refusal("module-xenpv-source", "source_name=again")
    assert "again" not in daemon.asked("list", "short", "sources")
    daemon.stop()
