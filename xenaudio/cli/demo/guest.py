# SPDX-License-Identifier: LGPL-2.1-or-later
"""What plays in the demo's guest: a client of a PulseAudio, or a program right on the card."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from xenaudio.cli.demo.clip import Clip, ClipError
from xenaudio.cli.demo.report import Measured, samples_of
from xenaudio.cli.headlesspulse import headless_pulse, sink_modules
from xenaudio.cli.processes import XENAUDIO, Process, running
from xenaudio.core.format import PULSE_FORMATS

PULSE_LATENCY_MS = 300.0
DIRECT_BUFFER_MS = 80.0


@dataclass(frozen=True)
class Guest:
    """A guest that is ready to play."""

    through: str
    """What the sound goes through there, in words."""
    pid: int | None
    """Whose processor time and wake-ups are the guest's; None: the player's."""
    tail_s: float
    """How long sound is still under way when the player has ended."""
    play: Callable[[], Process]
    """Starts the player, which ends when it has played the clip."""
    finish: Callable[[Measured], None]
    """Adds what the guest measured, when all has ended."""


def _sink_share(latency_ms: float) -> float:
    """Return what PulseAudio asks of its sink for a client's latency.

    (protocol-native.c, fix_playback_buffer_attr.) With as much and no more the sink's stream is
    opened once.
    """
    return (latency_ms - 2 * min(20.0, latency_ms / 4)) / 2


def _read_latencies(log: Path) -> list[tuple[float, float]]:
    """Return what pacat -v told: seconds since it began, and milliseconds."""
    told = re.findall(r"Time: ([\d.]+) sec; Latency: (\d+) usec", log.read_text(errors="replace"))
    return [(float(at), int(us) / 1000) for at, us in told]


@contextmanager
def _pulse(
    *,
    clip: Clip,
    address: str,
    scratch: Path,
    out: Path,
    period_ms: float,
    buffer_ms: float | None,
) -> Iterator[Guest]:
    """A client of a headless PulseAudio, which has the card through the guest service."""
    del period_ms  # the sink chooses its own
    latency = PULSE_LATENCY_MS if buffer_ms is None else buffer_ms
    format = PULSE_FORMATS.get(clip.sample_format)
    if format is None:
        raise ClipError(
            f"{clip.path}: PulseAudio does not have its format, {clip.sample_format}:"
            " take --client direct"
        )
    raw = scratch / "clip.raw"
    raw.write_bytes(samples_of(clip.path, clip.sample_format))
    form = f"format={format} rate={clip.rate} channels={clip.channels}"
    with ExitStack() as stack:
        service = scratch / "guestd"
        argv = [*XENAUDIO, "guestd", "--hv", address, "--socket", str(service)]
        stack.enter_context(running("guest service", out / "guestd.log", argv)).wait_for(
            service.exists
        )
        daemon, server = stack.enter_context(
            headless_pulse(
                "guest's PulseAudio",
                scratch / "pulse",
                [f"load-module module-xenpv-sink {form} latency_msec={_sink_share(latency):.0f}"],
                modules=sink_modules(),
                hypervisor=f"guestd:{service}",
                log=out / "pulse.log",
            )
        )
        daemon.prefer()
        log = out / "guest.log"

        def play() -> Process:
            options = [f"--format={format}", f"--rate={clip.rate}", f"--channels={clip.channels}"]
            options += ["--raw", "--no-remap", "--no-remix", "--verbose"]
            options += [f"--latency-msec={latency:g}", f"--server={server}"]
            env = {"PATH": os.defpath, "HOME": str(scratch), "LANG": "C.UTF-8"}
            player = Process("guest", log, ["pacat", *options, str(raw)], env)
            player.prefer()
            return player

        def finish(measured: Measured) -> None:
            measured.latencies = _read_latencies(log)

        yield Guest(
            "PulseAudio and the guest service",
            daemon.pid,
            latency / 1000,
            play,
            finish,
        )


@contextmanager
def _direct(
    *,
    clip: Clip,
    address: str,
    scratch: Path,
    out: Path,
    period_ms: float,
    buffer_ms: float | None,
) -> Iterator[Guest]:
    """`xenaudio play`, right on the card."""
    del scratch
    stats = out / "guest.json"
    buffer = DIRECT_BUFFER_MS if buffer_ms is None else buffer_ms
    argv = [*XENAUDIO, "play", str(clip.path), "--quiet", "--stats", str(stats)]
    argv += ["--period-ms", str(period_ms), "--buffer-ms", str(buffer), "--hv", address]

    def play() -> Process:
        player = Process("guest", out / "guest.log", argv)
        player.prefer()
        return player

    def finish(measured: Measured) -> None:
        measured.guest = json.loads(stats.read_text())

    yield Guest("no PulseAudio", None, 0.0, play, finish)


CLIENTS: dict[str, Callable[..., AbstractContextManager[Guest]]] = {
    "pulse": _pulse,
    "direct": _direct,
}
