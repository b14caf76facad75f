# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real PulseAudio of an ordinary user's, in a guest, with our modules and the guest service."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator

import pytest

from .dom0 import Backend, Dom0
from .domain.pattern import Pattern
from .guest import GUESTD_LOG, Guest
from .machine import Job
from .test_lifecycle import await_nothing_left, once_heard, while_heard
from .test_ours import assert_continued

USER = 1000
RUNTIME = "/run/pulse-user"
"""The user's folder."""
LOG = f"{RUNTIME}/log"
SAMPLES = "--raw --format=s16le --rate=48000 --channels=2 --latency-msec=200"


class PulseAudio:
    """A daemon in a guest, and its clients; all of them the user's."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        guest.run(
            f"install -d -m 700 -o {USER} {RUNTIME} &&"
            f" printf 'default-sample-rate = 48000\\n' >{RUNTIME}/daemon.conf"
        )
        options = ["-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1"]
        options += ["--log-level=info", f"--log-target=file:{LOG}"]
        options += ["-L", f"module-native-protocol-unix socket={RUNTIME}/native"]
        options += ["-F", "/etc/pulse/default.pa.d/xenaudio-guest.pa"]
        self._job = self.start(f"exec pulseaudio {shlex.join(options)}")

    def run(self, script: str) -> str:
        """Run a shell script as the user; returns what it printed."""
        return self.start(script).done().out

    def start(self, script: str) -> Job:
        """Begin a shell script as the user."""
        names = ("HOME", "XDG_RUNTIME_DIR", "PULSE_RUNTIME_PATH")
        environment = [f"{name}={RUNTIME}" for name in names]
        environment += [
            f"PULSE_SERVER=unix:{RUNTIME}/native",
            f"PULSE_CONFIG={RUNTIME}/daemon.conf",
        ]
        who = f"setpriv --reuid={USER} --regid={USER} --clear-groups"
        return self.guest.start(
            f"exec env {shlex.join(environment)} {who} sh -c {shlex.quote(script)}"
        )

    def await_sink(self, *, there: bool = True) -> None:
        """Wait until clients can play to a card, or cannot any more."""
        so = "" if there else "!"
        self.run(
            f"for i in $(seq 60); do {so} pactl list short sinks | grep -q xenpv_output && exit 0;"
            f" sleep 0.5; done; cat {LOG} {GUESTD_LOG}; exit 1"
        )

    def play(self, pattern: Pattern) -> Job:
        """Begin to play a pattern, and a second of silence."""
        path = self.guest.make(pattern, "raw")
        silence = f"head -c {4 * pattern.rate} /dev/zero"
        return self.start(f"(cat {path}; {silence}) | exec pacat {SAMPLES}")

    def record(self, frames: int) -> str:
        """Record to the end; returns the file's path."""
        path = f"{RUNTIME}/recorded.raw"
        self.run(f"parec {SAMPLES} | head -c {4 * frames} >{path}")
        return path

    def stop(self) -> None:
        """End it."""
        self._job.signal()
        self._job.wait()


@pytest.fixture(scope="module")
def pulse(serviced: Guest) -> Iterator[PulseAudio]:
    """Give PulseAudio in the guest with our code: one, which stands all that is done to it."""
    pulse = PulseAudio(serviced)
    try:
        pulse.await_sink()
        yield pulse
    finally:
        pulse.stop()


def plays_whole(dom0: Dom0, pulse: PulseAudio, pattern: Pattern) -> None:
    """A pattern arrived bit by bit; in several files, if the stream was opened anew meanwhile."""
    assert_continued(pattern, dom0.pieces(pattern, pulse.guest))


def test_plays_and_records_bit_exact_beside_a_stock_guest(
    dom0: Dom0, stock: Guest, pulse: PulseAudio
) -> None:
    ours, kernels, spoken = (Pattern(frames=2 * 48000, seed=seed) for seed in (81, 82, 83))
    dom0.offer(spoken)
    dom0.forget_played(pulse.guest)
    jobs = [pulse.play(ours), stock.aplay(kernels)]
    path = pulse.record(spoken.frames + 48000)
    for job in jobs:
        job.done()
    plays_whole(dom0, pulse, ours)
    dom0.check(kernels, dom0.played(stock))
    pulse.guest.check(spoken, path)


def goes_on(pattern: Pattern, pieces: list[tuple[int, int]]) -> None:
    """What was played while there was no backend was not heard; the rest was, in order and once."""
    assert pieces
    assert all(begin >= end for (_, end), (begin, _) in itertools.pairwise(pieces)), pieces
    assert pieces[-1][1] == pattern.frames


def test_goes_on_when_the_backend_is_killed_and_started_again(
    dom0: Dom0, backend: Backend, pulse: PulseAudio
) -> None:
    pattern = Pattern(frames=8 * 48000, seed=84)
    dom0.forget_played(pulse.guest)
    playing = pulse.play(pattern)
    while_heard(dom0, {pulse.guest: playing}, "kill -KILL $(cat /run/xenaudio.pid)")
    backend.ended()
    dom0.start_backend()
    playing.done()
    goes_on(pattern, dom0.pieces(pattern, pulse.guest))


def test_goes_on_in_a_guest_saved_and_restored(dom0: Dom0, pulse: PulseAudio) -> None:
    pattern = Pattern(frames=8 * 48000, seed=85)
    dom0.forget_played(pulse.guest)
    playing = pulse.play(pattern)
    dom0.save(pulse.guest, after=once_heard(pulse.guest))
    await_nothing_left(dom0, pulse.guest)
    dom0.restore(pulse.guest)
    playing.done()
    goes_on(pattern, dom0.pieces(pattern, pulse.guest))
    # Linux stops with a BUG when an event channel is closed that was lost on the way.
    assert "BUG" not in pulse.guest.run("dmesg").out


def test_follows_its_card_as_it_is_detached_and_attached(dom0: Dom0, pulse: PulseAudio) -> None:
    dom0.detach(pulse.guest)
    pulse.await_sink(there=False)
    dom0.attach(pulse.guest)
    pulse.await_sink()
    pattern = Pattern(frames=48000, seed=86)
    dom0.forget_played(pulse.guest)
    pulse.play(pattern).done()
    plays_whole(dom0, pulse, pattern)
