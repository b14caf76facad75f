# SPDX-License-Identifier: LGPL-2.1-or-later
"""Either side is killed while it plays: it plays again, nothing comes twice, nothing is left.

XENAUDIO_KILLS says how often (3); `-rP` shows the figures.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import StartPulse
from latency import TimedClient, build_client
from machine import HANG, Backend, Machine, wait_until
from sound import counted_frames, files_of
from standstill import watched_standstill

CARD = (
    "[['CARD, short-name=Main, buffer-size=1048576, sample-rates=48000', 'PCM, name=Front',"
    " 'STREAM, unique-id=p, type=p']]"
)
SINK = "load-module module-xenpv-sink sink_name=xen rate=48000"
KILLS = int(os.environ.get("XENAUDIO_KILLS", "3"))
LATENCY_MS = 50
LIMIT = KILLS * 10 + 120


def first_sound_ns(backend: Backend, since_ns: int = 0) -> int | None:
    """Return when a guest's samples were first played since some time."""
    for line in backend.stats():
        for at, frames, *_ in line["trace"]:
            if frames > 0 and at > since_ns:
                return int(at)
    return None


def holding(machine: Machine, backend: Backend) -> tuple[int, int, int, int]:
    """Count file descriptors and guests' pages of the backend, grants and ports of the guest."""
    accounts = backend.accounts()
    return (
        sum(accounts.fds.values()),
        accounts.mapped_pages,
        len(machine.grants("guest")),
        len(machine.channels("guest")),
    )


def summary(seconds: list[float]) -> str:
    return f"median {np.median(seconds):.3f} s, longest {max(seconds):.3f} s"


@pytest.mark.timeout(LIMIT)
def test_a_killed_backend_costs_the_guest_nothing_but_its_sound_meanwhile(
    machine: Machine, backend: Backend, played: Path, tmp_path: Path, pulse: StartPulse
) -> None:
    daemon = pulse(machine.create("guest", CARD), SINK)
    client = TimedClient(build_client(tmp_path), daemon, tmp_path / "log", LATENCY_MS, LIMIT)
    wait_until(lambda: first_sound_ns(backend), "it plays")
    held: list[object] = []
    waits = []
    with watched_standstill(tmp_path) as standstill:
        for _ in range(KILLS + 1):
            time.sleep(0.3)  # the stream that was begun for an idle sink is opened anew
            backend.kill()
            time.sleep(0.1)
            backend = backend.restarted()
            ready_ns = time.monotonic_ns()
            wait_until(lambda: first_sound_ns(backend), "it plays again")  # noqa: B023
            waits.append(((first_sound_ns(backend) or 0) - ready_ns) / 1e9)
            # From the second time on: before, the stream had the buffer of an idle sink.
            held.append((daemon.fds(), *holding(machine, backend)))
    assert held[1:] == held[:-1]
    client.process.kill()
    client.process.wait(HANG)
    daemon.stop()
    backend.stop()
    heard = counted_frames(files_of(played))
    times = client.log().longest_waits(KILLS)
    waited = np.array([(end - begin) / 1e9 for begin, end in times])
    stood = np.array([standstill.within(begin, end) for begin, end in times])
    print(
        f"{KILLS} kills of the backend: plays again after it is up, {summary(waits)}; the client's"
        f" {KILLS} longest waits to be asked for more, {summary(waited.tolist())},"
        f" {int((waited > 0.1).sum())} over 0.1 s, {int((waited - stood > 0.1).sum())} less what"
        f" the machine stood still in them ({stood.max():.3f} s at most);"
        f" {len(heard)} frames heard,"
        f" {int((np.diff(heard) <= 0).sum())} twice"
    )
    assert len(heard) > KILLS
    assert (np.diff(heard) > 0).all()


@pytest.mark.timeout(LIMIT)
def test_a_killed_pulseaudio_plays_again_and_leaves_nothing(
    machine: Machine, backend: Backend, played: Path, tmp_path: Path, pulse: StartPulse
) -> None:
    domain = machine.create("guest", CARD)
    program = build_client(tmp_path)
    waits = []
    held: list[object] = []
    for number in range(KILLS + 1):
        daemon = pulse(domain, SINK)
        ready_ns = time.monotonic_ns()
        client = TimedClient(program, daemon, tmp_path / f"log-{number}", LATENCY_MS, LIMIT)
        wait_until(lambda: first_sound_ns(backend, ready_ns), "it plays")  # noqa: B023
        wait_until(lambda: len(client.log().asked_ns) > 10, "its client does")  # noqa: B023
        waits.append(((first_sound_ns(backend, ready_ns) or 0) - ready_ns) / 1e9)
        held.append(holding(machine, backend))
        daemon.process.kill()
        daemon.process.wait(HANG)
        client.process.wait(HANG)
    assert held[2:] == held[1:-1]
    # What a killed one granted is the next one's to close.
    pulse(domain, SINK).stop()
    wait_until(lambda: not machine.grants("guest"), "the pages are taken back")
    assert not machine.channels("guest")
    backend.stop()
    heard = [counted_frames([file]) for file in files_of(played)]
    files = sum(len(frames) > 0 for frames in heard)
    print(
        f"{KILLS} kills of PulseAudio: plays after it is up, {summary(waits)}; {files} times heard"
    )
    # Each client counts from 1.
    assert all((np.diff(frames) > 0).all() for frames in heard)
    assert files > KILLS
