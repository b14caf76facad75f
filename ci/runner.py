# SPDX-License-Identifier: LGPL-2.1-or-later
"""The engine of ci/test: runs test parts one after the other and sums them up.

A part is a name and a function that yields one Result for each test. A failure, or an exception,
does not stop the parts after it. The last line printed is `N passed, N failed, N skipped`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Result:
    """How one test ended; `detail` is the reason of a failure or a skip, or a figure to print."""

    name: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True)
class Part:
    """A group of tests that is run by name; `doc` is one line for `--list`.

    With `terse`, tests that passed are counted and not printed; `on_demand` is run only when named.
    """

    name: str
    doc: str
    run: Callable[[], Iterable[Result]]
    terse: bool = False
    on_demand: bool = False


@dataclass
class Tally:
    """What a part's results add up to."""

    part: str
    seconds: float = 0.0
    results: list[Result] = field(default_factory=list)

    def count(self, outcome: Outcome) -> int:
        """Return how many tests ended so."""
        return sum(result.outcome == outcome for result in self.results)


class CommandError(Exception):
    """A command that a part cannot go on without has failed."""


def command(
    argv: Sequence[str],
    *,
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 600.0,
) -> tuple[int, str]:
    """Run a command without input; return its exit status and all that it wrote.

    Its process group is killed after `timeout` seconds, or when this is interrupted; the status is
    then 124. `log` is a file that keeps what it wrote.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(env or {})},
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
        status = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        output += f"\nkilled after {timeout:.0f} s\n"
        status = 124
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(output)
    return status, output


def require(
    argv: Sequence[str],
    *,
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a command and return its output; CommandError with the output's end when it fails."""
    status, output = command(argv, log=log, env=env)
    if status != 0:
        raise CommandError(f"{' '.join(argv)}: exit status {status}\n{tail(output)}")
    return output


def tail(text: str, lines: int = 40) -> str:
    """Return the last lines of a command's output."""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def run(parts: Sequence[Part]) -> int:
    """Run the parts, print results and then the summary; returns the exit status."""
    tallies = [_run_part(part) for part in parts]
    _summary(tallies)
    failed = sum(tally.count("failed") for tally in tallies)
    passed = sum(tally.count("passed") for tally in tallies)
    return 1 if failed or not passed else 0


def _run_part(part: Part) -> Tally:
    print(f"== {part.name}: {part.doc}", flush=True)
    tally = Tally(part.name)
    begin = time.monotonic()
    for result in _guarded(part):
        tally.results.append(result)
        if part.terse and result.outcome == "passed":
            continue
        print(f"   {result.outcome:<7} {result.name}", end="")
        print(f": {result.detail}" if result.detail else "", flush=True)
    tally.seconds = time.monotonic() - begin
    return tally


def _guarded(part: Part) -> Iterator[Result]:
    """Yield a part's results, and a failed one for an exception that ends it."""
    try:
        yield from part.run()
    except CommandError as error:
        yield Result(part.name, "failed", str(error))
    except Exception:
        yield Result(part.name, "failed", traceback.format_exc())


def _summary(tallies: Sequence[Tally]) -> None:
    failed = [(t.part, r) for t in tallies for r in t.results if r.outcome == "failed"]
    skipped = [(t.part, r) for t in tallies for r in t.results if r.outcome == "skipped"]
    print(f"\n{'part':<10} {'seconds':>8} {'passed':>7} {'failed':>7} {'skipped':>8}")
    for tally in tallies:
        counts = [tally.count(outcome) for outcome in ("passed", "failed", "skipped")]
        print(
            f"{tally.part:<10} {tally.seconds:>8.1f} {counts[0]:>7} {counts[1]:>7} {counts[2]:>8}"
        )
    for title, chosen in (("failed", failed), ("skipped", skipped)):
        if chosen:
            print(f"\n{title}:")
        for part, result in chosen:
            reason = result.detail.strip().splitlines() or ["no reason given"]
            print(f"  {part}: {result.name}: {reason[0]}")
    passed = sum(tally.count("passed") for tally in tallies)
    print(f"\n{passed} passed, {len(failed)} failed, {len(skipped)} skipped", flush=True)
