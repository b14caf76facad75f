# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xenaudio bench ring`: what it prints, and the counts it takes. How fast it is, is not tested."""

from __future__ import annotations

import errno
import json
import os
import resource

import pytest

from xenaudio.cli import main as command
from xenaudio.cli.bench import ring
from xenaudio.core.ffi import ffi, lib


@pytest.fixture(autouse=True)
def _few_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "COPY_ROUNDS", 1)


def open_files() -> set[str]:
    # The listing's own descriptor is among the names, but closed by the time it is looked for.
    return {
        name for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")
    }


def test_json_has_each_figure(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["bench", "ring", "--json", "--round-trips", "500"]) == 0
    found = json.loads(capsys.readouterr().out)
    for times in (found["round_trip_us"], found["baseline_us"]):
        assert set(times) == {"p50", "p99"}
        assert 0 < times["p50"] <= times["p99"]
    assert found["ratio_p50"] > 0
    assert found["copy_ratio"] > 0
    ratio = found["round_trip_us"]["p50"] / found["baseline_us"]["p50"]
    assert found["ratio_p50"] == pytest.approx(ratio, abs=0.001)


def test_the_table_has_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["bench", "ring", "--round-trips", "1"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("500 round trips of each kind")
    for row in ("round trip p50", "round trip p99", "in and out"):
        assert f"\n{row} " in shown
    assert "baseline" in shown


@pytest.mark.parametrize("count", ["0", "-1", "1.5", "many", "", "10000001", "\u0663"])
def test_a_wrong_count_is_refused(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["bench", "ring", f"--round-trips={count}"])
    assert stopped.value.code == 2
    assert "expected a number from 1 to 10000000" in capsys.readouterr().err


def test_the_core_refuses_what_it_cannot_measure() -> None:
    nanoseconds = ffi.new("uint32_t[]", 500)
    for count in (0, 1, 499, 501):
        assert lib.xa_bench_round_trips(count, nanoseconds, nanoseconds) == -errno.EINVAL
    seconds = ffi.new("double[2]")
    for octets in (0, 65537):
        assert lib.xa_bench_copy(octets, 1, seconds, seconds + 1) == -errno.EINVAL


def test_nothing_stays_open() -> None:
    nanoseconds = ffi.new("uint32_t[]", 500)
    before = open_files()
    assert lib.xa_bench_round_trips(500, nanoseconds, nanoseconds) == 0
    assert open_files() == before


@pytest.mark.parametrize("room", [0, 1])
def test_nothing_stays_open_when_it_cannot_begin(room: int) -> None:
    nanoseconds = ffi.new("uint32_t[]", 500)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = open_files()
    # As many files as are open now, and `room` more: numbers are given out from the lowest on.
    free = (number for number in range(soft) if str(number) not in before)
    limit = [next(free) for _ in range(room + 1)][-1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        result = lib.xa_bench_round_trips(500, nanoseconds, nanoseconds)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert result == -errno.EMFILE
    assert open_files() == before
