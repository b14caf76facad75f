# SPDX-License-Identifier: LGPL-2.1-or-later
"""XenStore, or the guest service before it, is dead or stuck: PulseAudio and its clients are not.

`-rP` shows how long PulseAudio took to do what it was asked.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bad_store import WAYS, bad_store
from conftest import StartPulse
from daemon import PulseAudio
from machine import Backend, Domain, Machine, Program, wait_until, xenaudio
from pcm import counter
from sound import counted_frames, files_of, sound_file

RATE = 48000
FRAME = 4
CARDS = (
    "[['CARD, short-name=Main, buffer-size=1048576, sample-rates=48000', 'PCM, name=Front',"
    " 'STREAM, unique-id=p, type=p', 'STREAM, unique-id=c, type=c'],"
    " ['CARD, short-name=Other', 'PCM, name=Rear', 'STREAM, unique-id=o, type=p']]"
)
DETECTED = "xenpv_output.Other.Rear.o"


def script(hypervisor: object) -> list[str]:
    """Load a sink and a source of the first card, and all of what else there is."""
    return [
        f"load-module module-xenpv-sink sink_name=xen rate=48000 hypervisor={hypervisor}",
        f"load-module module-xenpv-source source_name=in rate=48000 hypervisor={hypervisor}",
        f"load-module module-xenpv-detect hypervisor={hypervisor}",
        "set-default-source in",
    ]


@contextlib.contextmanager
def reported(what: str) -> Iterator[None]:
    """Print how long it takes."""
    begin = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - begin:.3f} s")


@contextlib.contextmanager
def stopped(program: Program) -> Iterator[None]:
    """Have a program stuck."""
    os.kill(program.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(program.pid, signal.SIGCONT)


def moves_in_real_time(daemon: PulseAudio, folder: Path) -> None:
    """Play and record for two seconds, with nobody there to hear or speak."""
    file = sound_file(folder, counter(2 * RATE), 0)
    begin = time.monotonic()
    with daemon.client(file, sink="xen") as client:
        got = daemon.record(folder / f"silence-{begin}.raw", 2 * RATE * FRAME)
        assert client.wait(30) == 0
    assert time.monotonic() - begin > 1.5
    assert not any(got)


def plays(daemon: PulseAudio, folder: Path, backend: Backend, played: Path) -> None:
    """Play something that the backend hears."""
    file = sound_file(folder, counter(RATE), RATE * FRAME)
    with daemon.client(file, sink="xen") as client:
        assert client.wait(30) == 0
    daemon.stop()
    backend.stop()
    frames = counted_frames(files_of(played))
    # The stream may have been opened in the middle of it; each frame comes once.
    assert len(frames) > 0
    assert (np.diff(frames) > 0).all()


@pytest.mark.parametrize("way", WAYS)
def test_a_store_that_is_no_good_costs_nothing_and_is_left_for_a_good_one(
    machine: Machine,
    backend: Backend,
    played: Path,
    tmp_path: Path,
    pulse: StartPulse,
    way: str,
) -> None:
    domain = machine.create("guest", CARDS)
    address = machine.directory / "store"
    with bad_store(address, way) as store:
        with reported("the daemon's start"):
            daemon = pulse(domain, *script(address))
        moves_in_real_time(daemon, tmp_path)
        with reported("unloading the sink and the source"):
            daemon.asked("unload-module", "module-xenpv-sink")
            daemon.asked("unload-module", "module-xenpv-source")
        with reported("unloading module-xenpv-detect"):
            daemon.asked("unload-module", "module-xenpv-detect")
        assert "xenpv" not in daemon.asked("list", "short", "modules")
        with reported("loading all three"):
            for line in script(address)[:3]:
                daemon.asked(*line.split())
        # One that owes an answer is given up without being told; where it has gone too, at once.
        store.gone(keeps_connections=way == "answers nothing")
        address.symlink_to(domain.socket)
        backend.wait_for("connected, card")
    wait_until(lambda: DETECTED in daemon.asked("list", "short", "sinks"), "the cards are found")
    plays(daemon, tmp_path, backend, played)


def guest_service(machine: Machine, domain: Domain) -> tuple[Program, Path]:
    """Start the guest service, on the same socket each time."""
    socket = machine.directory / "guestd"
    service = machine.run("guestd", *xenaudio("guestd", "--hv", domain.socket, "--socket", socket))
    service.wait_for("serving")
    return service, socket


def test_a_guest_service_that_is_stuck_delays_no_start_and_no_end(
    machine: Machine, backend: Backend, played: Path, tmp_path: Path, pulse: StartPulse
) -> None:
    domain = machine.create("guest", CARDS)
    service, socket = guest_service(machine, domain)
    with stopped(service):
        with reported("the daemon's start"):
            daemon = pulse(domain, *script(f"guestd:{socket}"))
        moves_in_real_time(daemon, tmp_path)
        with reported("unloading the sink"):
            daemon.asked("unload-module", "module-xenpv-sink")
        daemon.asked(*script(f"guestd:{socket}")[0].split())
    backend.wait_for("connected, card")
    wait_until(lambda: DETECTED in daemon.asked("list", "short", "sinks"), "the cards are found")
    plays(daemon, tmp_path, backend, played)


def test_what_plays_does_not_need_the_guest_service(
    machine: Machine, backend: Backend, played: Path, tmp_path: Path, pulse: StartPulse
) -> None:
    domain = machine.create("guest", CARDS)
    service, socket = guest_service(machine, domain)
    daemon = pulse(domain, "load-module module-null-sink", *script(f"guestd:{socket}"))
    wait_until(lambda: DETECTED in daemon.asked("list", "short", "sinks"), "the cards are found")
    file = sound_file(tmp_path, counter(4 * RATE), RATE * FRAME)
    with daemon.client(file, sink="xen") as client:
        wait_until(lambda: len(counted_frames(files_of(played))) > RATE, "it plays")
        with stopped(service):
            assert client.wait(30) == 0
            with reported("unloading the sink and the source that had their rings"):
                daemon.asked("unload-module", "module-xenpv-sink")
                daemon.asked("unload-module", "module-xenpv-source")
            with reported("unloading module-xenpv-detect"):
                daemon.asked("unload-module", "module-xenpv-detect")
    wait_until(lambda: not machine.grants("guest"), "the pages are taken back")
    assert not machine.channels("guest")
    daemon.stop()
    backend.stop()
    assert np.array_equal(counted_frames(files_of(played)), np.arange(1, 4 * RATE + 1))


def test_a_guest_service_that_is_killed_is_followed_to_its_successor(
    machine: Machine, backend: Backend, played: Path, tmp_path: Path, pulse: StartPulse
) -> None:
    domain = machine.create("guest", CARDS)
    service, socket = guest_service(machine, domain)
    daemon = pulse(domain, *script(f"guestd:{socket}"))
    backend.wait_for("connected, card")
    service.kill()
    moves_in_real_time(daemon, tmp_path)
    before = len(backend.log())
    guest_service(machine, domain)
    backend.wait_for("connected, card", before)
    plays(daemon, tmp_path, backend, played)
