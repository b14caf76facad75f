# SPDX-License-Identifier: LGPL-2.1-or-later
"""When the machine itself stood still, as those of others' processors do now and then.

A process on each processor does nothing but sleep for a moment, again and again; what it overslept
is what the machine did to everybody there. Run as a program, this is that process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SLEEP_NS = 2_000_000
NOTED_NS = 10_000_000


class Standstill:
    """What the watchers of all processors wrote so far."""

    def __init__(self, logs: Sequence[Path]) -> None:
        self._logs = logs

    def within(self, begin_ns: int, end_ns: int) -> float:
        """Return for how much of a time a processor stood still, the one that did so most; s."""
        most = 0
        for log in self._logs:
            stood = 0
            for line in log.read_text().split("\n")[:-1]:
                asleep_ns, awake_ns = map(int, line.split())
                stood += max(0, min(awake_ns, end_ns) - max(asleep_ns, begin_ns))
            most = max(most, stood)
        return most / 1e9


@contextmanager
def watched_standstill(folder: Path) -> Iterator[Standstill]:
    """Watch all processors meanwhile."""
    logs = {cpu: folder / f"standstill-{cpu}" for cpu in os.sched_getaffinity(0)}
    watchers = []
    try:
        for cpu, log in logs.items():
            with log.open("wb") as file:
                command = [sys.executable, "-S", __file__, str(cpu)]
                watchers.append(subprocess.Popen(command, stdout=file))
        yield Standstill(list(logs.values()))
    finally:
        for watcher in watchers:
            watcher.kill()
            watcher.wait()


def watch(cpu: int) -> None:
    """Write when this processor stood still: from, until."""
    os.sched_setaffinity(0, {cpu})
    asleep = time.monotonic_ns()
    while True:
        time.sleep(SLEEP_NS / 1e9)
        awake = time.monotonic_ns()
        if awake - asleep > NOTED_NS:
            print(asleep + SLEEP_NS, awake, flush=True)
        asleep = time.monotonic_ns()


if __name__ == "__main__":
    watch(int(sys.argv[1]))
