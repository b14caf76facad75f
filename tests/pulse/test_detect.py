# SPDX-License-Identifier: LGPL-2.1-or-later
"""module-xenpv-detect in a real PulseAudio: what the guest has is there, and what it has not is not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import StartPulse
from daemon import PulseAudio
from machine import Backend, Machine, wait_until
from pcm import counter, judge
from sound import files_of, played_octets, sound_file

RATE = 48000
MAIN = (
    "[['CARD, short-name=Main, long-name=Main sound card, buffer-size=1048576,"
    " sample-rates=48000', 'PCM, name=Front', 'STREAM, unique-id=p, type=p',"
    " 'STREAM, unique-id=c, type=c']]"
)
SINK, SOURCE, CARD = "xenpv_output.Main.Front.p", "xenpv_input.Main.Front.c", "xenpv_card.Main"
SPEAKERS = "[['CARD, short-name=Speakers', 'PCM, name=Rear', 'STREAM, unique-id=s, type=p']]"
DETECT = "load-module module-xenpv-detect"


def names(daemon: PulseAudio) -> set[str]:
    """Return the names of what the modules made: cards, sinks and sources."""
    return {
        line.split("\t")[1]
        for kind in ("cards", "sinks", "sources")
        for line in daemon.asked("list", "short", kind).splitlines()
        if "xenpv" in line and ".monitor" not in line
    }


def has(daemon: PulseAudio, *wanted: str) -> None:
    """Wait until PulseAudio has exactly these."""
    try:
        wait_until(lambda: names(daemon) == set(wanted), f"there are {wanted}")
    except AssertionError:
        assert names(daemon) == set(wanted), daemon.log()


def listed(daemon: PulseAudio, kind: str, name: str) -> dict[str, Any]:
    """Return what pactl tells of a card, sink or source."""
    found: list[dict[str, Any]] = json.loads(daemon.asked("--format=json", "list", kind))
    return next(each for each in found if each["name"] == name)


def test_a_card_that_is_there_has_a_sink_and_a_source_that_work(
    machine: Machine, backend: Backend, played: Path, tmp_path: Path, pulse: StartPulse
) -> None:
    daemon = pulse(machine.create("guest", MAIN), DETECT)
    has(daemon, CARD, SINK, SOURCE)
    frames = RATE
    file = sound_file(tmp_path, counter(frames), RATE * 4)
    with daemon.client(file, sink=SINK) as client:
        assert client.wait(30) == 0
    daemon.stop()
    backend.stop()
    verdict = judge(played_octets(files_of(played)), frames)
    assert (verdict.lost, verdict.repeated, verdict.corrupt) == (0, 0, 0)
