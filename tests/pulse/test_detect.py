# SPDX-License-Identifier: LGPL-2.1-or-later
"""module-xenpv-detect in a real PulseAudio: there is what the guest has, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sanitized
from conftest import StartPulse
from daemon import PulseAudio
from machine import Backend, Machine, wait_until, xenaudio
from pcm import counter
from sound import counted_frames, files_of, sound_file

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


def heard_in_order(played: Path) -> bool:
    """Whether a counter was heard, each frame once. (None may be missing: that is test_sink's.)"""
    frames = counted_frames(files_of(played))
    return len(frames) > 0 and bool(np.all(np.diff(frames) > 0))


def listed(daemon: PulseAudio, kind: str, name: str) -> dict[str, Any]:
    """Return what pactl tells of a card, sink or source."""
    found: list[dict[str, Any]] = json.loads(daemon.asked("--format=json", "list", kind))
    return next(each for each in found if each["name"] == name)


def test_a_card_that_is_there_has_a_sink_and_a_source_that_work(
    machine: Machine, backend: Backend, played: Path, tmp_path: Path, pulse: StartPulse
) -> None:
    daemon = pulse(machine.create("guest", MAIN), DETECT)
    has(daemon, CARD, SINK, SOURCE)
    file = sound_file(tmp_path, counter(RATE), RATE * 4)
    with daemon.client(file, sink=SINK) as client:
        assert client.wait(30) == 0
    daemon.stop()
    backend.stop()
    assert heard_in_order(played)


@pytest.mark.usefixtures("backend")
def test_mixers_are_told_what_it_is(machine: Machine, pulse: StartPulse) -> None:
    daemon = pulse(machine.create("guest", MAIN), DETECT)
    has(daemon, CARD, SINK, SOURCE)
    card, sink, source = (
        listed(daemon, kind, name)
        for kind, name in (("cards", CARD), ("sinks", SINK), ("sources", SOURCE))
    )
    described = [each["properties"]["device.description"] for each in (card, sink, source)]
    assert described == ["Main sound card", "Main sound card Front", "Main sound card Front"]
    for each in (card, sink, source):
        assert each["properties"]["device.api"] == "xenpv"
        assert each["properties"]["device.class"] == "sound"
        assert each["properties"]["device.bus"] == "xen"
    assert card["properties"]["device.string"] == "vsnd 0"
    assert sink["properties"]["device.string"] == "vsnd 0 p"
    assert [
        (each["properties"]["device.icon_name"], each["properties"]["device.form_factor"])
        for each in (card, sink, source)
    ] == [
        ("audio-card", "internal"),
        ("audio-card", "internal"),
        ("audio-input-microphone", "microphone"),
    ]
    # What is no hardware is hidden by mixers that show hardware.
    assert "HARDWARE" in sink["flags"]
    assert "HARDWARE" in source["flags"]
    daemon.stop()


@pytest.mark.usefixtures("backend")
def test_streams_that_would_be_called_the_same_are_told_apart(
    machine: Machine, pulse: StartPulse
) -> None:
    twice = (
        "[['CARD', 'PCM', 'STREAM, unique-id=a, type=p', 'STREAM, unique-id=b, type=p'],"
        " ['CARD, short-name=Ä/B', 'PCM', 'STREAM, unique-id=a, type=p'],"
        " ['CARD, short-name=Ä/B', 'PCM', 'STREAM, unique-id=a, type=p']]"
    )
    daemon = pulse(machine.create("guest", twice), DETECT)
    wait_until(lambda: len(names(daemon)) == 7, "each has a name")
    found = names(daemon)
    # Without names there are numbers; what is no letter is none in a name.
    assert {"xenpv_card.0", "xenpv_output.0.0.a", "xenpv_output.0.0.b"} < found
    assert {"xenpv_card.___B", "xenpv_output.___B.0.a"} < found
    assert len({name for name in found if name.startswith("xenpv_output.___B.0.a.")}) == 1
    described = {
        listed(daemon, "sinks", name)["properties"]["device.description"]
        for name in ("xenpv_output.0.0.a", "xenpv_output.0.0.b")
    }
    assert described == {"Xen sound card (a)", "Xen sound card (b)"}
    daemon.stop()


@pytest.mark.usefixtures("backend")
def test_cards_come_and_go_with_those_of_the_guest(machine: Machine, pulse: StartPulse) -> None:
    daemon = pulse(machine.create("guest", None), DETECT)
    has(daemon)
    speakers = {"xenpv_card.Speakers", "xenpv_output.Speakers.Rear.s"}
    [main] = machine.attach("guest", MAIN)
    has(daemon, CARD, SINK, SOURCE)
    machine.attach("guest", SPEAKERS)
    has(daemon, CARD, SINK, SOURCE, *speakers)
    machine.detach("guest", main)
    has(daemon, *speakers)
    # Names are for good; numbers are not.
    [again] = machine.attach("guest", MAIN)
    assert again != main
    has(daemon, CARD, SINK, SOURCE, *speakers)
    daemon.stop()


@pytest.mark.usefixtures("backend")
def test_a_card_that_comes_back_with_other_streams_has_those(
    machine: Machine, pulse: StartPulse
) -> None:
    daemon = pulse(machine.create("guest", MAIN), DETECT)
    has(daemon, CARD, SINK, SOURCE)
    machine.detach("guest", 0)
    machine.attach("guest", MAIN.replace(", 'STREAM, unique-id=c, type=c'", ""))
    has(daemon, CARD, SINK)
    assert set(listed(daemon, "cards", CARD)["profiles"]) == {"output", "off"}
    daemon.stop()


@pytest.mark.usefixtures("backend")
def test_beside_what_a_desktop_loads_its_sound_is_the_default_and_sleeps(
    machine: Machine, pulse: StartPulse
) -> None:
    usual = ["device-restore", "stream-restore", "card-restore", "switch-on-port-available"]
    usual += ["always-sink", "intended-roles", "suspend-on-idle timeout=1", "filter-apply"]
    script = [f"load-module module-{module}" for module in usual]
    daemon = pulse(machine.create("guest", None), *script, DETECT)
    wait_until(lambda: "auto_null" in daemon.asked("list", "short", "sinks"), "a sink is made up")
    machine.attach("guest", MAIN)
    has(daemon, CARD, SINK, SOURCE)
    assert daemon.asked("get-default-sink") == SINK
    assert daemon.asked("get-default-source") == SOURCE
    wait_until(lambda: "auto_null" not in daemon.asked("list", "short", "sinks"), "it is gone")
    for kind, name in (("sinks", SINK), ("sources", SOURCE)):
        wait_until(lambda k=kind, n=name: listed(daemon, k, n)["state"] == "SUSPENDED", "idle")
    before = daemon.card_thread_switches()
    time.sleep(2)
    assert daemon.card_thread_switches() == before
    daemon.stop()


def test_what_plays_goes_on_elsewhere_when_its_card_is_detached(
    machine: Machine, backend: Backend, tmp_path: Path, pulse: StartPulse
) -> None:
    daemon = pulse(
        machine.create("guest", MAIN), "load-module module-null-sink sink_name=null", DETECT
    )
    has(daemon, CARD, SINK, SOURCE)
    silence = tmp_path / "silence.raw"
    silence.write_bytes(bytes(6 * RATE * 4))
    with daemon.client(silence) as client:
        wait_until(lambda: backend.last_stats("guest"), "it plays")
        machine.detach("guest", 0)
        has(daemon)
        assert client.wait(30) == 0
    wait_until(lambda: not machine.grants("guest"), "the pages are taken back")
    daemon.stop()


@pytest.mark.usefixtures("backend")
def test_a_profile_has_the_directions_that_it_says(machine: Machine, pulse: StartPulse) -> None:
    daemon = pulse(machine.create("guest", MAIN), DETECT)
    has(daemon, CARD, SINK, SOURCE)
    card = listed(daemon, "cards", CARD)
    assert card["active_profile"] == "duplex"
    assert {name: (each["sinks"], each["sources"]) for name, each in card["profiles"].items()} == {
        "duplex": (1, 1),
        "output": (1, 0),
        "input": (0, 1),
        "off": (0, 0),
    }
    for profile, devices in {
        "output": [SINK],
        "input": [SOURCE],
        "off": [],
        "duplex": [SINK, SOURCE],
    }.items():
        daemon.asked("set-card-profile", CARD, profile)
        has(daemon, CARD, *devices)
        assert listed(daemon, "cards", CARD)["active_profile"] == profile
    daemon.stop()


def test_a_profile_that_keeps_the_sink_does_not_disturb_it(
    machine: Machine, backend: Backend, played: Path, tmp_path: Path, pulse: StartPulse
) -> None:
    daemon = pulse(machine.create("guest", MAIN), DETECT)
    has(daemon, CARD, SINK, SOURCE)
    file = sound_file(tmp_path, counter(3 * RATE), RATE * 4)
    index = listed(daemon, "sinks", SINK)["index"]
    with daemon.client(file) as client:
        wait_until(lambda: backend.last_stats("guest"), "it plays")
        for profile in ("output", "duplex", "output"):
            daemon.asked("set-card-profile", CARD, profile)
        assert client.wait(30) == 0
    assert listed(daemon, "sinks", SINK)["index"] == index
    daemon.stop()
    backend.stop()
    assert heard_in_order(played)


@pytest.mark.usefixtures("backend")
def test_a_profile_is_remembered_when_the_card_comes_back(
    machine: Machine, pulse: StartPulse
) -> None:
    daemon = pulse(machine.create("guest", MAIN), "load-module module-card-restore", DETECT)
    has(daemon, CARD, SINK, SOURCE)
    daemon.asked("set-card-profile", CARD, "output")
    machine.detach("guest", 0)
    has(daemon)
    machine.attach("guest", MAIN)
    has(daemon, CARD, SINK)
    daemon.stop()


@pytest.mark.usefixtures("backend")
def test_unloading_it_leaves_nothing_behind(machine: Machine, pulse: StartPulse) -> None:
    daemon = pulse(machine.create("guest", MAIN), "load-module module-null-sink")

    def once() -> None:
        index = daemon.load("module-xenpv-detect")
        has(daemon, CARD, SINK, SOURCE)
        daemon.asked("unload-module", index)
        assert not names(daemon)
        assert "xenpv" not in daemon.asked("list", "short", "modules")

    once()
    before = daemon.fds()
    for _ in range(5):
        once()
    assert daemon.fds() == before
    wait_until(lambda: not machine.grants("guest"), "the pages are taken back")
    assert not machine.channels("guest")
    daemon.stop()


@pytest.mark.usefixtures("backend")
def test_what_others_load_and_unload_does_not_end_the_daemon(
    machine: Machine, pulse: StartPulse
) -> None:
    daemon = pulse(machine.create("guest", MAIN), "load-module module-null-sink")
    index = daemon.load("module-xenpv-detect")
    has(daemon, CARD, SINK, SOURCE)
    # A sink of its own is unloaded by hand, and another one loaded for its card.
    daemon.asked("unload-module", "module-xenpv-sink")
    has(daemon, CARD, SOURCE)
    daemon.load("module-xenpv-sink", "sink_name=xenpv.mine", f"card={CARD}")
    has(daemon, CARD, "xenpv.mine", SOURCE)
    assert "should be loaded once" in daemon.refusal("module-xenpv-detect")
    daemon.asked("unload-module", index)
    has(daemon)
    daemon.load("module-xenpv-sink", "sink_name=xenpv.mine")
    daemon.load("module-xenpv-detect")
    # What somebody else has is left out, and the rest is there.
    has(daemon, CARD, "xenpv.mine", SOURCE)
    assert "PCM device 0, stream 0 is left out" in daemon.log()
    daemon.stop()


def test_a_daemon_that_was_killed_finds_the_cards_again(
    machine: Machine, backend: Backend, played: Path, tmp_path: Path, pulse: StartPulse
) -> None:
    domain = machine.create("guest", MAIN)
    first = pulse(domain, DETECT)
    silence = tmp_path / "silence.raw"
    silence.write_bytes(bytes(20 * RATE * 4))
    has(first, CARD, SINK, SOURCE)
    with first.client(silence) as client:
        wait_until(lambda: backend.last_stats("guest"), "it plays")
        first.process.kill()
        first.process.wait()
        client.wait(30)
    said = len(backend.log())
    daemon = pulse(domain, DETECT)
    has(daemon, CARD, SINK, SOURCE)
    # The card of the first one is closed, and connected anew.
    backend.wait_for("connected, card", said)
    daemon.play(sound_file(tmp_path, counter(RATE), RATE * 4))
    daemon.stop()
    backend.stop()
    assert heard_in_order(played)


def test_a_card_whose_backend_is_not_there_is_there(machine: Machine, pulse: StartPulse) -> None:
    daemon = pulse(machine.create("guest", MAIN, wait=False), DETECT)
    has(daemon, CARD, SINK, SOURCE)
    daemon.stop()


def test_a_card_whose_backend_is_stuck_is_there(
    machine: Machine, backend: Backend, pulse: StartPulse
) -> None:
    domain = machine.create("guest", MAIN)
    os.kill(backend.pid, signal.SIGSTOP)
    try:
        daemon = pulse(domain, DETECT)
        has(daemon, CARD, SINK, SOURCE)
    finally:
        os.kill(backend.pid, signal.SIGCONT)
    daemon.stop()


@contextlib.contextmanager
def stuck(machine: Machine) -> Iterator[None]:
    """Have the store answer nothing, like all of the stand-in."""
    os.kill(machine.server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(machine.server.pid, signal.SIGCONT)


@pytest.mark.usefixtures("backend")
def test_a_store_that_is_stuck_delays_nothing(machine: Machine, pulse: StartPulse) -> None:
    domain = machine.create("guest", MAIN)
    with stuck(machine):
        daemon = pulse(domain, "load-module module-null-sink", DETECT)
        has(daemon)
    has(daemon, CARD, SINK, SOURCE)
    with stuck(machine):
        daemon.asked("set-card-profile", CARD, "off")
        daemon.asked("set-card-profile", CARD, "duplex")
        has(daemon, CARD, SINK, SOURCE)
        daemon.asked("unload-module", "module-xenpv-detect")
        has(daemon)
    daemon.stop()


@pytest.mark.usefixtures("backend")
def test_a_store_that_is_not_there_yet_is_found_later(machine: Machine, pulse: StartPulse) -> None:
    domain = machine.create("guest", MAIN)
    later = machine.directory / "later"
    daemon = pulse(domain, f"{DETECT} hypervisor={later}")
    has(daemon)
    wait_until(lambda: "cannot be looked for" in daemon.log(), "it says so")
    later.symlink_to(domain.socket)
    has(daemon, CARD, SINK, SOURCE)
    daemon.stop()


def test_through_the_guest_service_it_is_the_same(
    machine: Machine, backend: Backend, played: Path, tmp_path: Path, pulse: StartPulse
) -> None:
    domain = machine.create("guest", MAIN)
    socket = machine.directory / "guestd"
    service = machine.run("guestd", *xenaudio("guestd", "--hv", domain.socket, "--socket", socket))
    service.wait_for("serving")
    daemon = pulse(domain, f"{DETECT} hypervisor=guestd:{socket}")
    has(daemon, CARD, SINK, SOURCE)
    backend.wait_for("connected, card")
    daemon.play(sound_file(tmp_path, counter(RATE), RATE * 4))
    machine.detach("guest", 0)
    has(daemon)
    machine.attach("guest", MAIN)
    has(daemon, CARD, SINK, SOURCE)
    # Restarted, it finds the cards in use; PulseAudio finds it.
    service.kill()
    before = len(backend.log())
    service = machine.run("guestd", *xenaudio("guestd", "--hv", domain.socket, "--socket", socket))
    backend.wait_for("connected, card", before)
    has(daemon, CARD, SINK, SOURCE)
    daemon.stop()
    backend.stop()
    assert heard_in_order(played)


@pytest.mark.usefixtures("backend")
def test_what_cannot_be_is_refused(machine: Machine, pulse: StartPulse) -> None:
    daemon = pulse(machine.create("guest", MAIN), "load-module module-null-sink")
    assert "not one of this module's" in daemon.refusal("module-xenpv-detect", "nonsense=1")
    assert "File name too long" in daemon.refusal("module-xenpv-detect", f"hypervisor=/{'x' * 200}")
    daemon.stop()


def test_200_loads_and_unloads_under_load_corrupt_nothing(
    machine: Machine, backend: Backend, tmp_path: Path, pulse: StartPulse
) -> None:
    folder = sanitized.modules()
    if folder is None:
        pytest.skip(f"{sanitized.MODULES} does not name the folder of the modules")
    daemon = pulse(
        machine.create("guest", MAIN),
        "load-module module-null-sink",
        modules=folder,
        prefix=sanitized.command_prefix(tmp_path),
    )
    endless = Path("/dev/zero")
    with (
        daemon.client(endless, latency_ms=20) as player,
        daemon.recorder(Path("/dev/null"), latency_ms=20) as recorder,
    ):
        try:
            for number in range(200):
                module = ("detect", "sink", "detect", "source")[number % 4]
                index = daemon.load(f"module-xenpv-{module}")
                # At once, or with everything there and the clients moved to it.
                if module == "detect" and number % 8:
                    has(daemon, CARD, SINK, SOURCE)
                daemon.asked("unload-module", index)
            assert player.poll() is None
            assert recorder.poll() is None
        finally:
            player.kill()
            recorder.kill()
    daemon.stop()
    assert not backend.ended()
