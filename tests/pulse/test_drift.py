# SPDX-License-Identifier: LGPL-2.1-or-later
"""The output's clock is another one than the guest's: what is stored neither grows nor shrinks."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import StartPulse
from latency import RATE, TimedClient, build_client
from machine import HANG, Machine, xenaudio

CARD = (
    "[['CARD, short-name=Main, buffer-size=1048576, sample-rates=48000', 'PCM, name=Front',"
    " 'STREAM, unique-id=p, type=p']]"
)
SECONDS = float(os.environ.get("XENAUDIO_DRIFT_SECONDS", "15"))
"""How long it plays. At 500 ppm, a period of 15 ms is gained in 30 s."""
PPM = 500
LATENCY_MS = 100


@pytest.mark.timeout(SECONDS + 120)
def test_the_fill_stays_where_it_is_when_the_output_is_fast(
    machine: Machine, tmp_path: Path, pulse: StartPulse
) -> None:
    backend = machine.serve(argv=["env", f"XENAUDIO_CLOCK_PPM={PPM}", *xenaudio("serve")])
    daemon = pulse(
        machine.create("guest", CARD), "load-module module-xenpv-sink sink_name=xen rate=48000"
    )
    client = TimedClient(build_client(tmp_path), daemon, tmp_path / "log", LATENCY_MS, 2 + SECONDS)
    assert client.process.wait(2 + SECONDS + HANG) == 0
    # With its client gone, the sink opens the stream anew.
    last_ns = client.log().asked_ns[-1]
    daemon.stop()
    backend.stop()
    lines = [line for line in backend.stats() if line["time_ns"] < last_ns]
    period = lines[-1]["stats"]["period_octets"] // 4
    # Not of the stream that an idle sink had before.
    same = {
        s["opens"] for s in (line["stats"] for line in lines) if s["period_octets"] // 4 == period
    }
    trace = np.array([p for line in lines for p in line["trace"] if p[3] in same])
    trace = trace[trace[:, 0] > trace[0, 0] + 1e9]
    # A period is what is there when one was heard, and before it is made up for.
    fill = trace[:, 2]
    opens = [trace[trace[:, 3] == number] for number in np.unique(trace[:, 3])]
    played = sum(each[-1, 1] + each[-1, 4] - each[0, 1] - each[0, 4] for each in opens)
    lasted = sum(each[-1, 0] - each[0, 0] for each in opens) / 1e9
    passed = (trace[-1, 0] - trace[0, 0]) / 1e9
    within = np.mean(abs(fill - period) <= period)
    tenths = [int(np.median(part)) for part in np.array_split(fill, 10)]
    print(
        f"{passed:.0f} s: the output was {(played / RATE / lasted - 1) * 1e6:+.0f} ppm fast, period"
        f" {period} frames, fill median {np.median(fill):.0f} p0.1 {np.percentile(fill, 0.1):.0f}"
        f" p99.9 {np.percentile(fill, 99.9):.0f}, within a period of it {within:.3%}, medians of"
        f" tenths {tenths}, {len(opens)} times open, xruns {lines[-1]['stats']['xruns']}"
    )
    assert abs(np.median(fill) - period) <= period / 2
    assert abs(tenths[-1] - tenths[0]) <= period / 2
