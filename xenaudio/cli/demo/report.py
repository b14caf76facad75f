# SPDX-License-Identifier: LGPL-2.1-or-later
"""The demo's figures: from what the processes measured to report.json, text and a picture."""

from __future__ import annotations

import bisect
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from xenaudio.cli.demo.alignment import Alignment, align
from xenaudio.cli.demo.clip import Clip
from xenaudio.cli.demo.picture import draw
from xenaudio.cli.procusage import Usage
from xenaudio.core.format import Format, SampleType, by_name
from xenaudio.core.soundfile import SoundFileInfo, SoundReader

SIDES = ("guest", "backend")
TOO_SHORT = "not measured: the clip is too short"


@dataclass
class Measured:
    """What was measured.

    `trace` is the backend's: lists of time_ns, frames played, fill, open. A clip can be too short
    for it, and for a side's `usage`: they are looked at now and then.
    """

    usage: dict[str, Usage]
    backend: dict[str, Any]
    trace: list[list[int]]
    through: str = ""
    """What there was in the guest, in words."""
    begin_s: float = 0.0
    """When the demo began, with what was set up before it; CLOCK_MONOTONIC."""
    guest: dict[str, Any] = field(default_factory=dict)
    """The direct client's statistics."""
    latencies: list[tuple[float, float]] = field(default_factory=list)
    """What PulseAudio told its client: seconds since it began, and milliseconds."""


@dataclass(frozen=True)
class Comparison:
    """What arrived, held against the clip."""

    result: Alignment
    wrong_header: str | None
    before: int
    """Frames of silence before the clip's first: a sink plays it while no client does."""
    after: int
    """And after its last."""


def _format(name: str) -> Format:
    format = by_name(name)
    assert format is not None
    return format


def samples_of(path: Path, sample_format: str) -> bytes:
    """Return the samples of a file in one of sndif's formats, which must be able to hold them."""
    with SoundReader(str(path), _format(sample_format)) as reader:
        data = bytearray()
        while part := reader.read(1 << 16):
            data += part
        return bytes(data)


def played_files(out: Path) -> list[Path]:
    """Return what the backend wrote, in the order in which the stream was opened."""
    found = {int(p.stem[7:] or 1): p for p in out.glob("played*.wav") if _is_played(p.stem)}
    return [found[number] for number in sorted(found)]


def _is_played(stem: str) -> bool:
    return re.fullmatch(r"played(-\d+)?", stem) is not None


def _silent_frame(format: Format, channels: int) -> bytes:
    """Return a frame of silence. (A clip's samples have one octet, or a sign.)"""
    level = {SampleType.UNSIGNED: 0x80, SampleType.MU_LAW: 0xFF, SampleType.A_LAW: 0xD5}
    return bytes([level.get(format.type, 0)]) * format.frame_octets(channels)


def _silence(samples: bytes, silent: bytes) -> tuple[int, int]:
    """Return how many frames of silence there are at the beginning, and at the end."""
    frame = len(silent)
    total = len(samples) // frame
    block = 4096
    begin = 0
    while samples[begin * frame : (begin + block) * frame] == silent * block:
        begin += block
    while begin < total and samples[begin * frame : (begin + 1) * frame] == silent:
        begin += 1
    end = total
    while end - block > begin and samples[(end - block) * frame : end * frame] == silent * block:
        end -= block
    while end > begin and samples[(end - 1) * frame : end * frame] == silent:
        end -= 1
    return begin, total - end


def compare(clip: Clip, played: Sequence[Path]) -> Comparison:
    """Compare the clip with what was played; also say what is wrong with the header, if anything.

    Never bit-exact with a wrong header: the same octets at another rate are another sound.
    """
    format = _format(clip.sample_format)
    wrong, received, frames = None, b"", 0
    for file in played:
        info = SoundFileInfo(str(file))
        frames += info.frames
        has = (info.rate, info.channels, info.native.name if info.native else "a lossy encoding")
        if has != (clip.rate, clip.channels, clip.sample_format):
            wrong = (
                "{} has {} Hz, {} channel(s), {}".format(file.name, *has)
                + f"; the clip {clip.rate} Hz, {clip.channels} channel(s), {clip.sample_format}"
            )
        if info.reads_as(format):
            received += samples_of(file, clip.sample_format)
    sent = samples_of(clip.path, clip.sample_format)
    silent = _silent_frame(format, clip.channels)
    frame = len(silent)
    own, there = _silence(sent, silent), _silence(received, silent)
    before, after = max(0, there[0] - own[0]), max(0, there[1] - own[1])
    received = received[before * frame : len(received) - after * frame]
    result = align(sent, received, frame, clip.rate, silent)
    if wrong:
        result = replace(result, received=frames, bit_exact=False)
    return Comparison(result, wrong, before, after)


def _latencies(measured: Measured, begin_ns: int) -> list[tuple[float, float]]:
    """Return (time heard, latency) for a frame of each of the backend's steps; seconds, ms.

    The guest noted when it had written how many frames, the backend when it had played how many, by
    the same clock: a frame's latency is the time from the one to the other.
    """
    written = [(frames, at) for at, frames, _heard in measured.guest["trace"]]
    written.sort()
    counts = [frames for frames, _at in written]
    found = []
    for at, frames, *_ in measured.trace:
        # The guest's first entry that covers the frame just heard.
        i = bisect.bisect_left(counts, frames)
        if frames > 0 and i < len(written):
            # The guest notes what it has written a moment after the backend can have it.
            found.append(((at - begin_ns) / 1e9, max(0, at - written[i][1]) / 1e6))
    return found


def _quantile(values: list[float], share: float) -> float | None:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3) if ordered else None


def finish_report(
    clip: Clip, out: Path, measured: Measured, *, compared: bool = True
) -> dict[str, Any]:
    """Compare, write report.json and picture.png, and print the report.

    What could not be measured is null in report.json; so is what arrived when it was played where
    it cannot be compared.
    """
    found = compare(clip, played_files(out)) if compared else None
    before = found.before if found else 0
    # The first frames of the stream may be a sink's silence.
    first = next((at for at, frames, *_ in measured.trace if frames > before), None)
    begin = first or 0
    told = measured.latencies
    latency = _latencies(measured, begin) if measured.guest else told
    ms = [value for _at, value in latency]
    report: dict[str, Any] = {
        "frames_sent": clip.frames,
        "frames_received": found.result.received if found else None,
        "frames_lost": found.result.lost if found else None,
        "frames_repeated": found.result.repeated if found else None,
        "frames_silent": found.result.silent if found else None,
        "frames_altered": found.result.altered if found else None,
        "bit_exact": found.result.bit_exact if found else None,
        "wrong_header": found.wrong_header if found else None,
        "silence_before": found.before if found else None,
        "silence_after": found.after if found else None,
        "frames_dropped": measured.backend["frames_dropped"] + measured.backend["frames_lost"],
        "underruns": measured.backend["xruns"],
        "through": measured.through,
        "latency_ms": {
            "p50": _quantile(ms, 0.5),
            "p99": _quantile(ms, 0.99),
            "max": _quantile(ms, 1.0),
        },
        "cpu_s_per_60s": {
            side: round(measured.usage[side].cpu_s_per_60s, 3) if side in measured.usage else None
            for side in SIDES
        },
        "wakeups_per_s": {
            side: round(measured.usage[side].wakeups_per_s, 1) if side in measured.usage else None
            for side in SIDES
        },
        # By the backend's clock, which is time.monotonic's: it is looked at only now and then.
        "setup_s": None if first is None else round(first / 1e9 - measured.begin_s, 3),
        "rate": clip.rate,
        "channels": clip.channels,
        "format": clip.sample_format,
        "period_frames": measured.backend["period_octets"] // measured.backend["frame_octets"],
        "buffer_frames": measured.backend["buffer_octets"] // measured.backend["frame_octets"],
    }
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    buffer_ms = 1000 * report["buffer_frames"] / clip.rate
    picture = out / "picture.png"
    exact = {True: "yes", False: "no", None: "not compared"}[report["bit_exact"]]
    try:
        draw(
            picture,
            f"{clip.title}: {clip.seconds:.1f} s, {clip.rate} Hz, {clip.channels} ch, "
            f"{clip.sample_format}; bit-exact: {exact}",
            [
                ((at - begin) / 1e9, 1000 * fill / clip.rate)
                for at, _frames, fill, *_ in measured.trace
                if at >= begin
            ],
            latency,
            buffer_ms,
        )
    except ModuleNotFoundError as error:
        # The samples matter more: whoever has not asked for pictures (extra `plot`) gets the rest.
        print(f"demo: no {picture}: the Python package {error.name} is missing", file=sys.stderr)
    _print(clip, out, report, buffer_ms, told=bool(told))
    return report


def _print(clip: Clip, out: Path, report: dict[str, Any], buffer_ms: float, *, told: bool) -> None:
    period_ms = 1000 * report["period_frames"] / clip.rate
    latency, cpu, wakeups = (
        report[key] for key in ("latency_ms", "cpu_s_per_60s", "wakeups_per_s")
    )
    exact = {True: "yes", False: "NO", None: "not compared: it went to a sound server"}
    said = {
        "bit-exact": exact[report["bit_exact"]],
        "frames": f"{report['frames_sent']} sent",
        "latency": TOO_SHORT,
        "CPU": TOO_SHORT,
        "wake-ups": TOO_SHORT,
        "set-up": TOO_SHORT,
    }
    if report["wrong_header"]:
        said["bit-exact"] += f": {report['wrong_header']}"
    if report["bit_exact"] is None:
        said["frames"] += f"; {report['frames_dropped']} that the output could not take"
    else:
        said["frames"] += (
            f", {report['frames_received']} received, {report['frames_lost']} lost,"
            f" {report['frames_repeated']} repeated, {report['frames_silent']} silent,"
            f" {report['frames_altered']} altered"
        )
        if report["silence_before"] or report["silence_after"]:
            said["frames"] += (
                f"\n           (around these {report['silence_before'] / clip.rate:.1f} s and"
                f" {report['silence_after'] / clip.rate:.1f} s of silence, while no client played)"
            )
    if latency["p50"] is not None:
        whose = (
            "as PulseAudio told its client"
            if told
            else "written to heard; the guest keeps its buffer full"
        )
        said["latency"] = (
            f"{latency['p50']:.1f} ms median, {latency['p99']:.1f} ms p99, {latency['max']:.1f} ms"
            f" at most ({whose})"
        )
    if None not in cpu.values():
        said["CPU"] = (
            f"guest {cpu['guest']:.2f} s, backend {cpu['backend']:.2f} s, for each 60 s of sound"
        )
        said["wake-ups"] = (
            f"guest {wakeups['guest']:.0f}, backend {wakeups['backend']:.0f} a second"
        )
    if report["setup_s"] is not None:
        said["set-up"] = f"{report['setup_s']:.1f} s until it played"
    results = [*played_files(out), out / "report.json", out / "picture.png"]
    print(f"""\
played     {clip.title}: {clip.seconds:.1f} s, {clip.rate} Hz, {clip.channels} channel(s), \
{clip.sample_format}
through    {f"{report['through']}; " if report["through"] else ""}the stand-in for Xen: \
periods of {period_ms:g} ms, buffer of {buffer_ms:g} ms
frames     {said["frames"]}
bit-exact  {said["bit-exact"]}
underruns  {report["underruns"]}
latency    {said["latency"]}
CPU        {said["CPU"]}
wake-ups   {said["wake-ups"]}
set-up     {said["set-up"]}
results    {"  ".join(str(result) for result in results if result.exists())}""")
