# SPDX-License-Identifier: LGPL-2.1-or-later
"""The latency that clients are told of is the one that they have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import StartPulse
from latency import TimedClient, build_client, compare
from machine import HANG, Backend, Machine

CARD = (
    "[['CARD, short-name=Main, buffer-size=1048576, sample-rates=48000', 'PCM, name=Front',"
    " 'STREAM, unique-id=p, type=p']]"
)
SECONDS = 6


@pytest.mark.parametrize("latency_ms", [5, 20, 100])
def test_what_is_reported_is_what_is_heard(
    machine: Machine,
    backend: Backend,
    played: Path,
    tmp_path: Path,
    pulse: StartPulse,
    latency_ms: int,
) -> None:
    daemon = pulse(
        machine.create("guest", CARD), "load-module module-xenpv-sink sink_name=xen rate=48000"
    )
    log = tmp_path / "client.log"
    client = TimedClient(build_client(tmp_path), daemon, log, latency_ms, SECONDS)
    assert client.process.wait(HANG) == 0
    daemon.stop()
    backend.stop()
    found = compare(client.log(), played, backend.stats())
    print(f"client {latency_ms} ms: {found}")
    # A machine that is late now and then makes outliers, not another median.
    assert len(found.error) > 0
    assert abs(float(np.median(found.error))) < 2
