# SPDX-License-Identifier: LGPL-2.1-or-later
"""The engine of ci/test counts what happened, goes on after a failure, and sums it all up."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CI = Path(__file__).resolve().parents[2] / "ci"
sys.path.insert(0, str(CI))

import parts  # noqa: E402
import runner  # noqa: E402
from runner import Part, Result  # noqa: E402


def part(name: str, *results: Result) -> Part:
    return Part(name, "made up", lambda: results)


def test_all_passed_is_exit_status_0_and_counts_stand_alone_on_the_last_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = runner.run([part("a", Result("x", "passed")), part("b", Result("y", "passed"))])
    assert status == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 passed, 0 failed, 0 skipped"


def test_a_failure_does_not_stop_what_follows_and_makes_the_exit_status_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = part("bad", Result("x", "failed", "it broke"), Result("y", "passed"))
    status = runner.run([bad, part("later", Result("z", "passed"))])
    output = capsys.readouterr().out
    assert status == 1
    assert output.splitlines()[-1] == "2 passed, 1 failed, 0 skipped"
    assert "  bad: x: it broke" in output.splitlines()


def test_a_part_that_raises_counts_as_one_failure_beside_what_it_had_yielded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def raises() -> Iterator[Result]:
        yield Result("x", "passed")
        raise ZeroDivisionError("by chance")

    status = runner.run([Part("bad", "made up", raises), part("later", Result("z", "passed"))])
    output = capsys.readouterr().out
    assert status == 1
    assert output.splitlines()[-1] == "2 passed, 1 failed, 0 skipped"
    assert "ZeroDivisionError: by chance" in output


def test_a_needed_command_that_fails_shows_what_it_said(capsys: pytest.CaptureFixture[str]) -> None:
    def needs() -> Iterator[Result]:
        runner.require([sys.executable, "-c", "import sys; print('no compiler'); sys.exit(3)"])
        yield Result("never", "passed")

    assert runner.run([Part("bad", "made up", needs)]) == 1
    output = capsys.readouterr().out
    assert "exit status 3" in output
    assert "no compiler" in output
    assert output.splitlines()[-1] == "0 passed, 1 failed, 0 skipped"


def test_each_skip_is_listed_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    status = runner.run([part("a", Result("x", "passed"), Result("y", "skipped", "no /dev/snd"))])
    output = capsys.readouterr().out
    assert status == 0
    assert "  a: y: no /dev/snd" in output.splitlines()
    assert output.splitlines()[-1] == "1 passed, 0 failed, 1 skipped"


@pytest.mark.parametrize("results", [(), (Result("x", "skipped", "no reason"),)])
def test_no_test_that_ran_is_not_a_success(results: tuple[Result, ...]) -> None:
    assert runner.run([part("a", *results)]) == 1


def test_a_terse_part_counts_what_passed_and_prints_only_the_rest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = (Result("quiet one", "passed"), Result("loud one", "skipped", "why"))
    runner.run([Part("a", "made up", lambda: results, terse=True)])
    output = capsys.readouterr().out
    assert "quiet one" not in output
    assert "loud one" in output
    assert output.splitlines()[-1] == "1 passed, 0 failed, 1 skipped"


def test_a_command_that_hangs_is_killed_with_its_children() -> None:
    script = "(sleep 20; echo late) & echo begun; wait"
    status, output = runner.command(["sh", "-c", script], timeout=0.5)
    assert status == 124
    assert output.startswith("begun\n")
    # The output ends when nobody holds its other end: a child left alive would have said it.
    assert "late" not in output


def test_meson_results_keep_skip_reasons_and_failure_output() -> None:
    entry = {"name": "core / test_ring", "result": "OK", "stdout": ""}
    assert parts.meson_result("c-gcc", entry) == Result("c-gcc: test_ring", "passed")
    entry |= {"result": "SKIP", "stdout": "SKIP: needs /dev/xen\n"}
    assert parts.meson_result("c-gcc", entry).detail == "SKIP: needs /dev/xen"
    for bad in ("FAIL", "TIMEOUT", "ERROR", "INTERRUPT", "UNEXPECTEDPASS"):
        entry |= {"result": bad, "stdout": "ring.c:3: 1 != 2\n"}
        result = parts.meson_result("c-gcc", entry)
        assert result.outcome == "failed"
        assert "ring.c:3: 1 != 2" in result.detail


def test_pytest_results_are_read_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "test_sample.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 1 == 2\n"
        "@pytest.fixture\n"
        "def broken(): raise OSError('no ring')\n"
        "def test_error(broken): pass\n"
        "@pytest.mark.skip(reason='no card')\n"
        "def test_skip(): pass\n"
    )
    report = tmp_path / "report.xml"
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null"]
    subprocess.run(
        [*argv, f"--rootdir={tmp_path}", f"--junit-xml={report}", str(tmp_path)],
        check=False,
        capture_output=True,
    )
    results = {r.name.rsplit("::", 1)[-1]: r for r in parts.pytest_results(report)}
    assert {name: result.outcome for name, result in results.items()} == {
        "test_good": "passed",
        "test_bad": "failed",
        "test_error": "failed",
        "test_skip": "skipped",
    }
    assert "assert 1 == 2" in results["test_bad"].detail
    assert "no ring" in results["test_error"].detail
    assert results["test_skip"].detail == "no card"


def test_an_unknown_part_is_a_usage_error_that_names_the_parts() -> None:
    done = subprocess.run(
        [sys.executable, str(CI / "parts.py"), "nonsense"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "nonsense" in done.stderr
    assert "coverage" in done.stderr
