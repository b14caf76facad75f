# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests of the backend on a sound server share: a real PulseAudio without a sound card."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# The daemon is that of the tests of the PulseAudio modules.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "pulse"))

import daemon
from machine import Machine

StartServer = Callable[..., daemon.PulseAudio]

NULL_SINK = "load-module module-null-sink sink_name=out rate=48000 channels=2 format=s16le"


def address_of_server(machine: Machine) -> str:
    """Return where `sound_server` listens, each time that it is started."""
    return f"unix:{machine.directory}/sound"


@pytest.fixture
def sound_server(machine: Machine) -> Iterator[StartServer]:
    """Give what starts a PulseAudio with the lines of its default.pa, ever again at one address."""
    made: list[daemon.PulseAudio] = []
    listen = "load-module module-native-protocol-unix auth-anonymous=1 socket="

    def start(*script: str) -> daemon.PulseAudio:
        folder = machine.directory / f"sound-{len(made)}"
        server = daemon.PulseAudio(
            folder,
            Path(daemon.own_modules()),
            "",
            listen + address_of_server(machine).removeprefix("unix:"),
            *script,
        )
        made.append(server)
        server.wait()
        return server

    try:
        yield start
    finally:
        for each in made:
            each.end()
