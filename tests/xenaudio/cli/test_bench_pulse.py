# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xenaudio bench pulse`: what it measures and prints. How fast anything is, is not tested."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from xenaudio.cli import main as command
from xenaudio.cli.bench.pulsemeasure import Heard, Mark, Report, errors, latencies
from xenaudio.cli.headlesspulse import MODULES
from xenaudio.core.ffi import ffi, lib

MS = 1_000_000  # nanoseconds
TUNNEL = ["--path=tunnel 20 ms", "--client-ms=20", "--rounds=1", "--seconds=1"]
ROW = {
    *("path", "client_latency_ms", "latency_ms", "cpu_s_per_60s", "wakeups_per_s", "gaps"),
    *("reported_minus_measured_ms", "frames_compared", "processes"),
}


def test_a_frame_is_out_when_the_chunk_that_holds_it_arrives() -> None:
    heard = Heard([Mark(30 * MS, 0, 480), Mark(40 * MS, 480, 480), Mark(60 * MS, 1440, 480)])
    played = [Mark(10 * MS, 0, 240), Mark(20 * MS, 500, 240), Mark(21 * MS, 1000, 9)]
    assert latencies(played, heard, 0) == [20.0, 20.0]  # the third was lost
    assert latencies(played, heard, 1) == [20.0]


def test_what_is_reported_is_held_against_when_the_frame_is_heard() -> None:
    heard = Heard([Mark(30 * MS, 0, 480)])
    # Frame 240 is heard 5 ms after the chunk arrived: 25 ms after the report.
    assert errors([Report(10 * MS, 240, 27_000)], heard, 0) == [2.0]
    assert errors([Report(10 * MS, 240, 27_000)], heard, 241) == []
    assert errors([Report(10 * MS, 480, 27_000)], heard, 0) == []


def test_what_arrives_with_another_chunk_or_late_is_heard_by_the_far_sinks_clock() -> None:
    report = Report(10 * MS, 480, 34_000)
    # Frame 480 is heard at 40 ms: it came with the chunk before it,
    assert errors([report], Heard([Mark(30 * MS, 0, 480), Mark(30 * MS, 480, 480)]), 0) == [4.0]
    # or a little late, as the one after it was not.
    late = [Mark(30 * MS, 0, 480), Mark(45 * MS, 480, 240), Mark(45 * MS, 720, 240)]
    assert errors([report], Heard(late), 0) == [4.0]
    # Long before and after that the clock may have been another one.
    long_before = [Mark(30 * MS, 0, 480), Mark(245 * MS, 480, 480)]
    assert errors([Report(10 * MS, 480, 239_000)], Heard(long_before), 0) == [4.0]


def test_json_has_each_figure(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    chart = tmp_path / "chart.png"
    assert command.main(["bench", "pulse", "--json", f"--png={chart}", *TUNNEL]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert set(row) == ROW
    assert (row["path"], row["client_latency_ms"]) == ("tunnel 20 ms", 20)
    assert 0 < row["latency_ms"]["p50"] <= row["latency_ms"]["p99"]
    assert row["cpu_s_per_60s"] > 0
    assert row["wakeups_per_s"] > 0
    assert row["frames_compared"] > 10
    assert set(row["processes"]) == {"first PulseAudio", "second PulseAudio"}
    assert chart.read_bytes().startswith(b"\x89PNG")


def test_the_table_has_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["bench", "pulse", *TUNNEL]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("1 round(s) of 2 x 1 s, all paths alternately;")
    assert shown[1].split()[:3] == ["path", "client", "latency"]
    assert shown[2].startswith("tunnel 20 ms    20 ms")


def test_paths_are_measured_at_once_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    both = [*TUNNEL, "--path=pipe", "--together"]
    assert command.main(["bench", "pulse", "--json", *both]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["together"] is True
    assert [row["path"] for row in result["rows"]] == ["tunnel 20 ms", "pipe"]
    assert all(row["frames_compared"] > 10 for row in result["rows"])
    assert {line.split(": ")[-1] for line in printed.err.splitlines()} == {
        *("tunnel 20 ms, client 20 ms", "pipe, client 20 ms"),
    }


def test_our_path_is_measured_where_the_module_is(capsys: pytest.CaptureFixture[str]) -> None:
    if MODULES not in os.environ:
        pytest.skip(f"{MODULES} does not name the folder of the modules")
    own = ["--path=xenaudio", *TUNNEL[1:]]
    assert command.main(["bench", "pulse", "--json", *own]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["frames_compared"] > 10
    assert set(row["processes"]) == {
        *("first PulseAudio", "stand-in", "backend", "second PulseAudio"),
    }


def test_without_the_module_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(MODULES, str(tmp_path))
    assert command.main(["bench", "pulse", "--path=xenaudio"]) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path} has no module-xenpv-sink.so: build it" in said


@pytest.mark.parametrize("option", ["--rounds=0", "--seconds=x", "--client-ms=-1", "--path=radio"])
def test_a_wrong_option_is_refused(option: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["bench", "pulse", option])
    assert stopped.value.code == 2


def test_a_server_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/none".encode()
    marks = ffi.new("struct xa_bench_mark[]", 10)
    reported, reports = ffi.new("uint32_t *", 1), ffi.new("struct xa_bench_report[]", 1)
    result = lib.xa_bench_pulse_play(address, b"x", 20000, 100, marks, 10, reports, reported)
    assert result == -errno.ECONNREFUSED
    heard = ffi.new("struct xa_bench_heard *")
    result = lib.xa_bench_pulse_listen(address, b"x", 5000, 100, 0, -1, marks, 10, heard)
    assert result == -errno.ECONNREFUSED
