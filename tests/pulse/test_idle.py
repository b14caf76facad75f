# SPDX-License-Identifier: LGPL-2.1-or-later
"""While nothing plays and nobody records, neither side's data path wakes up."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from conftest import StartPulse
from daemon import PulseAudio, thread_switches
from machine import HANG, Backend, Machine, wait_until
from pcm import counter
from sound import sound_file

from xenaudio.core.engine import StreamState

CARD = (
    "[['CARD, short-name=Main, buffer-size=1048576, sample-rates=48000', 'PCM, name=Front',"
    " 'STREAM, unique-id=p, type=p', 'STREAM, unique-id=c, type=c']]"
)
SECONDS = float(os.environ.get("XENAUDIO_IDLE_SECONDS", "5"))
"""How long nothing happens."""


def switches(daemon: PulseAudio, backend: Backend) -> tuple[int, int]:
    """Return how often each side's data path went to sleep by now."""
    return daemon.card_thread_switches(), thread_switches(backend.pid, "xa-engine")


@pytest.mark.timeout(SECONDS + 120)
def test_idle_devices_are_suspended_and_nothing_wakes_up(
    machine: Machine, backend: Backend, tmp_path: Path, pulse: StartPulse
) -> None:
    daemon = pulse(
        machine.create("guest", CARD),
        "load-module module-suspend-on-idle timeout=1",
        "load-module module-xenpv-sink sink_name=xen rate=48000",
        "load-module module-xenpv-source source_name=mic rate=48000",
        "set-default-source mic",
    )
    daemon.play(sound_file(tmp_path, counter(4800), 4800 * 4))
    daemon.record(tmp_path / "recorded.raw", 4800 * 4)

    def closed() -> bool:
        streams = [backend.last_stats("guest", stream=number) for number in (0, 1)]
        return all(each is not None and each["state"] == StreamState.CLOSED for each in streams)

    wait_until(closed, "the streams are closed")
    time.sleep(1)
    before = switches(daemon, backend)
    time.sleep(SECONDS)
    after = switches(daemon, backend)
    print(f"switches in {SECONDS:.0f} s: card's thread, engine: {before} to {after}")
    assert after == before
    # And it plays again, at once.
    daemon.play(sound_file(tmp_path, counter(4800), 4800 * 4))
    wait_until(
        lambda: (last := backend.last_stats("guest")) is not None and last["frames_in"] > 9600,
        "it plays again",
        HANG,
    )
    daemon.stop()
