# SPDX-License-Identifier: LGPL-2.1-or-later
"""module-xenpv-sink in a real PulseAudio: sound passes bit for bit, and nothing hangs."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from conftest import StartPulse
from machine import Backend, Machine, wait_until
from pcm import counter, judge, named, random_samples, to_wav
from sound import beginning_as, counted_frames, files_of, finish, played_octets, sound_file
from undisturbed import undisturbed

CARD = (
    "[['CARD, short-name=Main, channels-min=1, channels-max=8, buffer-size=4194304,"
    " sample-rates=8000;44100;48000;96000', 'PCM, name=Front', 'STREAM, unique-id=f, type=p',"
    " 'PCM, name=Rear', 'STREAM, unique-id=r, type=p']]"
)
RATE = 48000
SLOW = "latency_msec=400"
"""A buffer that outlasts a busy machine."""


def counter_file(folder: Path, seconds: float) -> tuple[Path, int]:
    frames = int(RATE * seconds)
    return sound_file(folder, counter(frames), RATE * 4), frames


class Case(NamedTuple):
    """What a client plays, on which sink."""

    client: str
    sink: str
    wire: str
    channels: int
    rate: int


CASES = [
    Case("s16le", "s16le", "s16_le", 2, 48000),
    Case("s16le", "s16le", "s16_le", 1, 8000),
    Case("s32le", "s32le", "s32_le", 6, 44100),
    Case("float32le", "float32le", "float_le", 2, 96000),
    Case("s24-32le", "s24-32le", "s24_le", 2, 48000),
    Case("u8", "u8", "u8", 2, 48000),
    Case("s16be", "s16be", "s16_be", 8, 48000),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_what_a_client_plays_arrives_bit_for_bit(
    machine: Machine, backend: Backend, played: Path, tmp_path: Path, pulse: StartPulse, case: Case
) -> None:
    domain = machine.create("guest", CARD)
    daemon = pulse(
        domain,
        "load-module module-xenpv-sink sink_name=xen"
        f" format={case.sink} rate={case.rate} channels={case.channels} {SLOW}",
    )
    samples = random_samples(named(case.wire), case.rate * case.channels, seed=case.rate)
    # Half a second; what is silence of u8 samples matters to none.
    file = sound_file(tmp_path, samples, len(samples) // 2)
    expected = to_wav(named(case.wire), samples)

    def attempt() -> None:
        before = len(played_octets(finish(daemon, "xen", played)))
        daemon.play(file, f"{case.client} {case.channels} {case.rate}")
        heard = played_octets(finish(daemon, "xen", played))[before:]
        assert beginning_as(heard, expected) == expected

    undisturbed(daemon, attempt)
    daemon.stop()


def test_packed_24_bit_samples_are_converted_exactly(
    machine: Machine, backend: Backend, played: Path, tmp_path: Path, pulse: StartPulse
) -> None:
    domain = machine.create("guest", CARD)
    daemon = pulse(
        domain, f"load-module module-xenpv-sink sink_name=xen format=s24-32le rate=48000 {SLOW}"
    )
    packed = to_wav(named("s24_le"), random_samples(named("s24_le"), 2 * RATE, seed=24))
    file = sound_file(tmp_path, packed, len(packed) // 2)

    def attempt() -> None:
        before = len(played_octets(finish(daemon, "xen", played)))
        daemon.play(file, "s24le 2 48000")
        heard = played_octets(finish(daemon, "xen", played))[before:]
        assert beginning_as(heard, packed) == packed

    undisturbed(daemon, attempt)
    daemon.stop()


@pytest.mark.parametrize("latency_ms", [5, 20, 100])
def test_at_a_low_latency_too_no_frame_is_lost_or_comes_twice(
    machine: Machine,
    backend: Backend,
    played: Path,
    tmp_path: Path,
    pulse: StartPulse,
    latency_ms: int,
) -> None:
    domain = machine.create("guest", CARD)
    daemon = pulse(domain, "load-module module-xenpv-sink sink_name=xen rate=48000")
    file, frames = counter_file(tmp_path, 2)

    def attempt() -> None:
        before = len(counted_frames(finish(daemon, "xen", played)))
        daemon.play(file, latency_ms=latency_ms)
        # Only silence may be between them, where this machine is late.
        heard = counted_frames(finish(daemon, "xen", played))[before:]
        assert np.array_equal(heard, np.arange(1, frames + 1))

    undisturbed(daemon, attempt)
    daemon.stop()


def test_after_a_late_position_clients_have_time_to_send_more(
    machine: Machine, tmp_path: Path, pulse: StartPulse
) -> None:
    """A sound server as the output takes more at once then than a client of 10 ms has at hand."""
    server = pulse(machine.create("server", None), "load-module module-null-sink sink_name=out")
    backend = machine.serve("--output", f"pulse:unix:{server.socket}")
    daemon = pulse(
        machine.create("guest", CARD), "load-module module-xenpv-sink sink_name=xen rate=48000"
    )
    sound, rendered = counter_file(tmp_path, 10)[0], tmp_path / "rendered.raw"
    times = 10

    def holes() -> int:
        rendered.unlink(missing_ok=True)
        with daemon.client(sound, latency_ms=10) as client:
            with daemon.recorder(rendered, source="xen.monitor") as recorder:
                time.sleep(1.5)
                for _ in range(times):
                    backend.process.send_signal(signal.SIGSTOP)
                    time.sleep(0.03)
                    backend.process.send_signal(signal.SIGCONT)
                    time.sleep(0.2)
                recorder.terminate()
            client.kill()
        frames = np.frombuffer(rendered.read_bytes(), "<u4")
        heard = np.flatnonzero(frames)
        return int(np.count_nonzero(np.diff(heard) > 1))

    # A busy machine makes some, too.
    found = []
    while not found or (found[-1] >= times and len(found) < 5):
        found.append(holes())
    print(found)
    assert found[-1] < times, found


def test_a_client_that_wants_less_latency_costs_the_others_no_frame(
    machine: Machine, backend: Backend, played: Path, tmp_path: Path, pulse: StartPulse
) -> None:
    domain = machine.create("guest", CARD)
    daemon = pulse(domain, "load-module module-xenpv-sink sink_name=xen rate=48000")
    file, frames = counter_file(tmp_path, 4)
    silence = tmp_path / "silence.raw"
    silence.write_bytes(bytes(RATE * 4))

    def attempt() -> None:
        before = len(counted_frames(finish(daemon, "xen", played)))
        with daemon.client(file, latency_ms=400) as client:
            wait_until(lambda: len(counted_frames(files_of(played))) > before, "it plays")
            daemon.play(silence, latency_ms=10)
            assert client.wait(30) == 0
        heard = counted_frames(finish(daemon, "xen", played))[before:]
        assert np.array_equal(heard, np.arange(1, frames + 1))

    undisturbed(daemon, attempt)
    periods = {line["stats"]["period_octets"] for line in backend.stats()}
    assert len(periods - {0}) > 1  # or nothing changed, and nothing was tested
    daemon.stop()


def test_it_plays_on_when_the_backend_was_killed_and_comes_back(
    machine: Machine, backend: Backend, played: Path, tmp_path: Path, pulse: StartPulse
) -> None:
    domain = machine.create("guest", CARD)
    daemon = pulse(domain, "load-module module-xenpv-sink sink_name=xen rate=48000")
    file, frames = counter_file(tmp_path, 6)
    with daemon.client(file) as client:
        wait_until(lambda: len(counted_frames(files_of(played))) > RATE // 2, "it plays")
        backend.kill()
        before = files_of(played)
        time.sleep(1)
        again = backend.restarted()
        assert client.wait(30) == 0
    daemon.stop()
    again.stop()
    after = [file for file in files_of(played) if file not in before]
    heard = counted_frames(after)
    # Nothing is late and nothing comes twice: it is the sound's end, from some frame on.
    assert len(heard) > RATE
    assert np.array_equal(heard, np.arange(frames - len(heard) + 1, frames + 1))
    # The application went on meanwhile.
    assert heard[0] > 1.5 * RATE


def test_without_a_backend_applications_go_on_in_real_time(
    machine: Machine, tmp_path: Path, pulse: StartPulse
) -> None:
    domain = machine.create("guest", CARD, wait=False)
    daemon = pulse(domain, "load-module module-xenpv-sink sink_name=xen rate=48000")
    file, _frames = counter_file(tmp_path, 2)
    begin = time.monotonic()
    daemon.play(file)
    assert time.monotonic() - begin > 1.5
    daemon.stop()


def test_a_suspended_sink_closes_its_stream_and_sleeps(
    machine: Machine, backend: Backend, tmp_path: Path, pulse: StartPulse
) -> None:
    domain = machine.create("guest", CARD)
    daemon = pulse(domain, "load-module module-xenpv-sink sink_name=xen rate=48000")
    file, _frames = counter_file(tmp_path, 0.5)
    daemon.play(file)

    def pages() -> int:
        return backend.accounts().mapped_pages

    playing = pages()
    daemon.asked("suspend-sink", "xen", "1")
    wait_until(lambda: pages() < playing, "the buffer is given back")
    time.sleep(0.5)
    before = daemon.card_thread_switches()
    time.sleep(2)
    assert daemon.card_thread_switches() == before
    daemon.asked("suspend-sink", "xen", "0")
    wait_until(lambda: pages() == playing, "it is open again")
    daemon.stop()


def test_sinks_come_and_go_beside_one_that_plays(
    machine: Machine, backend: Backend, played: Path, tmp_path: Path, pulse: StartPulse
) -> None:
    domain = machine.create("guest", CARD)
    daemon = pulse(
        domain,
        "load-module module-xenpv-sink sink_name=front pcm=0 rate=48000",
        # Where PulseAudio moves what played on a sink that is gone.
        "load-module module-null-sink sink_name=elsewhere",
        "set-default-sink elsewhere",
    )
    file, frames = counter_file(tmp_path, 15)
    silence = tmp_path / "silence.raw"
    silence.write_bytes(bytes(10 * RATE * 4))

    def attempt() -> None:
        before: dict[str, int] = {}
        heard = len(played_octets(finish(daemon, "front", played)))
        with daemon.client(file, sink="front") as client:
            for _ in range(20):
                index = daemon.load("module-xenpv-sink", "sink_name=rear", "pcm=1")
                with daemon.client(silence, sink="rear", latency_ms=10) as other:
                    if not before:  # the stream keeps the buffer that its first OPEN makes
                        wait_until(lambda: backend.last_stats("guest", pcm=1), "it plays")
                    time.sleep(0.1)
                    daemon.asked("unload-module", index)
                    other.kill()
                daemon.wait_for_clients(1)
                before = before or daemon.fds()
            assert daemon.fds() == before
            assert client.wait(30) == 0
        verdict = judge(played_octets(finish(daemon, "front", played))[heard:], frames)
        assert (verdict.lost, verdict.repeated, verdict.corrupt) == (0, 0, 0)

    undisturbed(daemon, attempt)
    daemon.stop()


def test_the_last_sink_unloaded_leaves_nothing_behind(
    machine: Machine, backend: Backend, tmp_path: Path, pulse: StartPulse
) -> None:
    domain = machine.create("guest", CARD)
    daemon = pulse(domain, "load-module module-null-sink")
    file, _frames = counter_file(tmp_path, 10)

    def once() -> None:
        index = daemon.load("module-xenpv-sink", "sink_name=xen")
        with daemon.client(file, sink="xen") as client:
            time.sleep(0.1)
            daemon.asked("unload-module", index)
            client.kill()
        daemon.wait_for_clients(0)

    once()
    wait_until(lambda: not machine.grants("guest"), "the pages are taken back")
    before = daemon.fds()
    for _ in range(20):
        once()
    wait_until(lambda: not machine.grants("guest"), "the pages are taken back")
    assert not machine.channels("guest")
    assert daemon.fds() == before
    daemon.stop()


REFUSED = {
    "device=3": "vsnd-attach",
    "pcm=7": "no stream to play",
    "format=s24le": "s24-32le",
    "rate=22050": "8000 44100 48000 96000",
    "channels=9": "1 to 8",
    "nonsense=1": "not one of this module's: nonsense=1 (it takes",
    "device=abc": "0 to 65535, not abc",
    "latency_msec=1": "2 to 2000, not 1",
    "pcm=x": "0 to 255, not x",
    "channel_map=nonsense": "channel_map=nonsense is not",
    "rate=nonsense": "rate=nonsense",
    "channels=2 channel_map=mono": "channel_map= has 1 channels",
}


@pytest.mark.usefixtures("backend")
def test_what_cannot_be_is_refused_with_what_can(machine: Machine, pulse: StartPulse) -> None:
    domain = machine.create("guest", CARD)
    daemon = pulse(domain, "load-module module-null-sink")
    for arguments, cure in REFUSED.items():
        assert cure in daemon.refusal("module-xenpv-sink", *arguments.split()), arguments
    index = daemon.load("module-xenpv-sink", "sink_name=xen")
    assert "xen" in daemon.asked("list", "short", "sinks")
    assert "in use by another sink" in daemon.refusal("module-xenpv-sink", "sink_name=again")
    assert "again" not in daemon.asked("list", "short", "sinks")
    daemon.asked("unload-module", index)
    daemon.stop()


def test_a_card_of_the_kernels_driver_is_refused_with_what_to_do(
    machine: Machine, pulse: StartPulse
) -> None:
    # What Linux shows of a device that snd_xen_front has, in a /sys/bus of this daemon's own.
    driver = "/sys/bus/xen/devices/vsnd-0/driver"
    show = f'mount -t tmpfs none /sys/bus && mkdir -p {driver} && exec "$@"'
    prefix = ["unshare", "--mount", "--", "sh", "-c", show, "sh"]
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    daemon = pulse(machine.create("guest", None), "load-module module-null-sink", prefix=prefix)
    for module in ("module-xenpv-sink", "module-xenpv-source"):
        said = daemon.refusal(module, "hypervisor=xen")
        assert "snd_xen_front holds this card: unload it" in said
        assert "modprobe -r snd_xen_front" in said
    daemon.stop()


MAPS = {
    1: "mono",
    2: "front-left,front-right",
    3: "front-left,front-right,lfe",
    4: "front-left,front-right,rear-left,rear-right",
    5: "front-left,front-right,rear-left,rear-right,front-center",
    6: "front-left,front-right,rear-left,rear-right,front-center,lfe",
    7: "front-left,front-right,rear-left,rear-right,front-center,lfe,rear-center",
    8: "front-left,front-right,rear-left,rear-right,front-center,lfe,side-left,side-right",
}


@pytest.mark.usefixtures("backend")
def test_channels_lie_as_alsa_has_them(machine: Machine, pulse: StartPulse) -> None:
    domain = machine.create("guest", CARD)
    daemon = pulse(domain, "load-module module-null-sink")
    for channels, expected in MAPS.items():
        index = daemon.load("module-xenpv-sink", "sink_name=xen", f"channels={channels}")
        assert f"Channel Map: {expected}\n" in daemon.asked("list", "sinks")
        daemon.asked("unload-module", index)
    daemon.stop()
