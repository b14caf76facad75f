# SPDX-License-Identifier: LGPL-2.1-or-later
"""The demo's figures: from what the processes measured to report.json, text and a picture."""

from __future__ import annotations

import bisect
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xenaudio.cli.demo.alignment import align
from xenaudio.cli.demo.clip import Clip
from xenaudio.cli.demo.picture import draw
from xenaudio.cli.procusage import Usage
from xenaudio.core.format import by_name
from xenaudio.core.soundfile import SoundReader


@dataclass
class Measured:
    """What was measured. `trace` is the backend's: lists of time_ns, frames played, fill, open."""

    setup_s: float
    usage: dict[str, Usage]
    backend: dict[str, Any]
    trace: list[list[int]]
    guest: dict[str, Any] = field(default_factory=dict)


def _samples(path: Path, sample_format: str) -> tuple[bytes, int]:
    format = by_name(sample_format)
    assert format is not None
    with SoundReader(str(path), format) as reader:
        data = bytearray()
        while part := reader.read(1 << 16):
            data += part
        return bytes(data), reader.frame_octets


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
            found.append((at, at - written[i][1]))
    return found


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def finish_report(clip: Clip, out: Path, measured: Measured) -> dict[str, Any]:
    """Compare, write report.json and picture.png, and print the report."""
    sent, frame = _samples(clip.path, clip.sample_format)
    received, _ = _samples(out / "played.wav", clip.sample_format)
    result = align(sent, received, frame, clip.rate)
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
        "underruns": measured.backend["xruns"],
        "latency_ms": {
            "p50": round(_quantile(ms, 0.5), 3),
            "p99": round(_quantile(ms, 0.99), 3),
            "max": round(max(ms, default=0.0), 3),
        },
        "cpu_s_per_60s": {
            side: round(usage.cpu_s_per_60s, 3) for side, usage in measured.usage.items()
        },
        "wakeups_per_s": {
            side: round(usage.wakeups_per_s, 1) for side, usage in measured.usage.items()
        },
        "setup_s": round(measured.setup_s, 3),
        "rate": clip.rate,
        "channels": clip.channels,
        "format": clip.sample_format,
        "period_frames": measured.backend["period_octets"] // measured.backend["frame_octets"],
        "buffer_frames": measured.backend["buffer_octets"] // measured.backend["frame_octets"],
    }
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    begin = measured.trace[0][0]
    buffer_ms = 1000 * report["buffer_frames"] / clip.rate
    draw(
        out / "picture.png",
        f"{clip.title}: {clip.seconds:.1f} s, {clip.rate} Hz, {clip.channels} ch, "
        f"{clip.sample_format}; bit-exact: {'yes' if result.bit_exact else 'no'}",
        [((at - begin) / 1e9, 1000 * fill / clip.rate) for at, _frames, fill, _ in measured.trace],
        [((at - begin) / 1e9, value / 1e6) for at, value in latency],
        buffer_ms,
    )
    _print(clip, out, report, buffer_ms)
    return report


def _print(clip: Clip, out: Path, report: dict[str, Any], buffer_ms: float) -> None:
    period_ms = 1000 * report["period_frames"] / clip.rate
    latency, cpu, wakeups = (
        report[key] for key in ("latency_ms", "cpu_s_per_60s", "wakeups_per_s")
    )
    print(f"""\
played     {clip.title}: {clip.seconds:.1f} s, {clip.rate} Hz, {clip.channels} channel(s), \
{clip.sample_format}
through    the stand-in for Xen: periods of {period_ms:g} ms, buffer of {buffer_ms:g} ms
frames     {report["frames_sent"]} sent, {report["frames_received"]} received, \
{report["frames_lost"]} lost, {report["frames_repeated"]} repeated
bit-exact  {"yes" if report["bit_exact"] else "NO"}
underruns  {report["underruns"]}
latency    {latency["p50"]:.1f} ms median, {latency["p99"]:.1f} ms p99, \
{latency["max"]:.1f} ms at most (written to heard; the guest keeps its buffer full)
CPU        guest {cpu.get("guest", 0):.2f} s, backend {cpu.get("backend", 0):.2f} s, \
for each 60 s of sound
wake-ups   guest {wakeups.get("guest", 0):.0f}, backend {wakeups.get("backend", 0):.0f} a second
set-up     {report["setup_s"]:.1f} s until it played
results    {out}/played.wav  {out}/report.json  {out}/picture.png""")
