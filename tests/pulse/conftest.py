# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests of the PulseAudio modules share: a machine, a backend, and a PulseAudio in a guest."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

# The machine, its backends and its samples are those of the tests of the whole path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "xenaudio"))

import daemon
from fixtures import backend, machine, played
from machine import Domain, Machine

__all__ = ["backend", "machine", "played", "pulse"]

StartPulse = Callable[..., daemon.PulseAudio]


@pytest.fixture
def pulse(machine: Machine) -> Iterator[StartPulse]:
    """Give what starts a PulseAudio in a domain: with the lines of its default.pa.

    `modules` names the folder of other modules, `prefix` is what the command line begins with.
    """
    folder = daemon.modules()
    if folder is None:
        pytest.skip(f"{daemon.MODULES} does not name the folder of the modules")
    assert (folder / "module-xenpv-sink.so").exists(), f"{folder}: no modules"
    made: list[daemon.PulseAudio] = []

    def start(
        domain: Domain, *script: str, modules: Path = folder, prefix: Sequence[str] = ()
    ) -> daemon.PulseAudio:
        place = machine.directory / f"pulse-{len(made)}"
        made.append(daemon.PulseAudio(place, modules, domain.socket, *script, prefix=prefix))
        made[-1].wait()
        return made[-1]

    try:
        yield start
    finally:
        for each in made:
            each.end()
