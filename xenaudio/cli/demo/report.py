# SPDX-License-Identifier: LGPL-2.1-or-later
"""The demo's figures: from what the processes measured to report.json, text and a picture."""

from __future__ import annotations

import bisect
import json
import sys
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
    for it, for a side's `usage`, and for `setup_s` (None): they are looked at now and then.
    """

    setup_s: float | None
    usage: dict[str, Usage]
    backend: dict[str, Any]
    trace: list[list[int]]
    guest: dict[str, Any] = field(default_factory=dict)


def _format(clip: Clip) -> Format:
    format = by_name(clip.sample_format)
    assert format is not None
    return format


def _samples(path: Path, format: Format) -> bytes:
    with SoundReader(str(path), format) as reader:
        data = bytearray()
        while part := reader.read(1 << 16):
            data += part
        return bytes(data)


def _silent_frame(format: Format, channels: int) -> bytes:
    """Return a frame of silence. (A clip's samples have one octet, or a sign.)"""
    level = {SampleType.UNSIGNED: 0x80, SampleType.MU_LAW: 0xFF, SampleType.A_LAW: 0xD5}
    return bytes([level.get(format.type, 0)]) * format.frame_octets(channels)


def compare(clip: Clip, played: Path) -> tuple[Alignment, str | None]:
    """Compare the clip with what was played; also say what is wrong with the header, if anything.

    Never bit-exact with a wrong header: the same octets at another rate are another sound.
    """
    format = _format(clip)
    info = SoundFileInfo(str(played))
    has = (info.rate, info.channels, info.native.name if info.native else "a lossy encoding")
    wrong = None
    if has != (clip.rate, clip.channels, clip.sample_format):
        wrong = (
            "{} has {} Hz, {} channel(s), {}".format(played.name, *has)
            + f"; the clip {clip.rate} Hz, {clip.channels} channel(s), {clip.sample_format}"
        )
    result = align(
        _samples(clip.path, format),
        _samples(played, format) if info.reads_as(format) else b"",
        format.frame_octets(clip.channels),
        clip.rate,
        _silent_frame(format, clip.channels),
    )
    return replace(result, received=info.frames, bit_exact=result.bit_exact and not wrong), wrong


def _latencies(measured: Measured) -> list[tuple[int, int]]:
    """Return (time heard, latency), nanoseconds, for a frame of each of the backend's steps.

    The guest noted when it had written how many frames, the backend when it had played how many, by
    the same clock: a frame's latency is the time from the one to the other.
    """
    written = [(frames, at) for at, frames, _heard in measured.guest["trace"]]
    written.sort()
    counts = [frames for frames, _at in written]
    found = []
    for at, frames, _fill, _open in measured.trace:
        # The guest's first entry that covers the frame just heard.
        i = bisect.bisect_left(counts, frames)
        if frames > 0 and i < len(written):
            # The guest notes what it has written a moment after the backend can have it.
            found.append((at, max(0, at - written[i][1])))
    return found


def _quantile(values: list[float], share: float) -> float | None:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3) if ordered else None


def finish_report(clip: Clip, out: Path, measured: Measured) -> dict[str, Any]:
    """Compare, write report.json and picture.png, and print the report.

    What could not be measured is null in report.json.
    """
    result, wrong_header = compare(clip, out / "played.wav")
    latency = _latencies(measured)
    ms = [value / 1e6 for _at, value in latency]
    report: dict[str, Any] = {
        "frames_sent": result.sent,
        "frames_received": result.received,
        "frames_lost": result.lost,
        "frames_repeated": result.repeated,
        "frames_silent": result.silent,
        "frames_altered": result.altered,
        "bit_exact": result.bit_exact,
        "wrong_header": wrong_header,
        "underruns": measured.backend["xruns"],
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
        "setup_s": None if measured.setup_s is None else round(measured.setup_s, 3),
        "rate": clip.rate,
        "channels": clip.channels,
        "format": clip.sample_format,
        "period_frames": measured.backend["period_octets"] // measured.backend["frame_octets"],
        "buffer_frames": measured.backend["buffer_octets"] // measured.backend["frame_octets"],
    }
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    begin = measured.trace[0][0] if measured.trace else 0
    buffer_ms = 1000 * report["buffer_frames"] / clip.rate
    picture = out / "picture.png"
    try:
        draw(
            picture,
            f"{clip.title}: {clip.seconds:.1f} s, {clip.rate} Hz, {clip.channels} ch, "
            f"{clip.sample_format}; bit-exact: {'yes' if result.bit_exact else 'no'}",
            [
                ((at - begin) / 1e9, 1000 * fill / clip.rate)
                for at, _frames, fill, _ in measured.trace
            ],
            [((at - begin) / 1e9, value / 1e6) for at, value in latency],
            buffer_ms,
        )
    except ModuleNotFoundError as error:
        # The samples matter more: whoever has not asked for pictures (extra `plot`) gets the rest.
        print(f"demo: no {picture}: the Python package {error.name} is missing", file=sys.stderr)
    _print(clip, out, report, buffer_ms)
    return report


def _print(clip: Clip, out: Path, report: dict[str, Any], buffer_ms: float) -> None:
    period_ms = 1000 * report["period_frames"] / clip.rate
    latency, cpu, wakeups = (
        report[key] for key in ("latency_ms", "cpu_s_per_60s", "wakeups_per_s")
    )
    said = {
        "bit-exact": "yes" if report["bit_exact"] else "NO",
        "latency": TOO_SHORT,
        "CPU": TOO_SHORT,
        "wake-ups": TOO_SHORT,
        "set-up": TOO_SHORT,
    }
    if report["wrong_header"]:
        said["bit-exact"] += f": {report['wrong_header']}"
    if latency["p50"] is not None:
        said["latency"] = (
            f"{latency['p50']:.1f} ms median, {latency['p99']:.1f} ms p99, {latency['max']:.1f} ms"
            " at most (written to heard; the guest keeps its buffer full)"
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
    picture = f"  {out}/picture.png" if (out / "picture.png").exists() else ""
    print(f"""\
played     {clip.title}: {clip.seconds:.1f} s, {clip.rate} Hz, {clip.channels} channel(s), \
{clip.sample_format}
through    the stand-in for Xen: periods of {period_ms:g} ms, buffer of {buffer_ms:g} ms
frames     {report["frames_sent"]} sent, {report["frames_received"]} received, \
{report["frames_lost"]} lost, {report["frames_repeated"]} repeated, \
{report["frames_silent"]} silent, {report["frames_altered"]} altered
bit-exact  {said["bit-exact"]}
underruns  {report["underruns"]}
latency    {said["latency"]}
CPU        {said["CPU"]}
wake-ups   {said["wake-ups"]}
set-up     {said["set-up"]}
results    {out}/played.wav  {out}/report.json{picture}""")
