# SPDX-License-Identifier: LGPL-2.1-or-later
"""Child processes of the demo and the measurements, each with a log that is shown when it fails."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

READY_SECONDS = 20.0
XENAUDIO = (sys.executable, "-m", "xenaudio.cli.main")


class ProcessError(Exception):
    """A process failed; with its log."""


class Process:
    """A process."""

    def __init__(
        self,
        name: str,
        log: Path,
        command: Sequence[str | os.PathLike[str]],
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=env
            )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._popen.pid

    def prefer(self) -> None:
        """Have it run before ordinary processes, as sound servers do, where that is allowed."""
        priority = os.sched_param(os.sched_get_priority_min(os.SCHED_RR))
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(self.pid, os.SCHED_RR | os.SCHED_RESET_ON_FORK, priority)

    def poll(self) -> int | None:
        """Return its exit status if it has ended."""
        return self._popen.poll()

    def check_alive(self) -> None:
        """Raise ProcessError if it has ended."""
        if self.poll() is not None:
            raise self.failed(f"ended with status {self.poll()}")

    def failed(self, why: str) -> ProcessError:
        """Return the error to raise, with its log."""
        log = self.log.read_text(errors="replace").rstrip()
        return ProcessError(f"the {self.name} {why}; its log:\n{log}")

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait until it is ready. ProcessError when it ends, or takes too long."""
        limit = time.monotonic() + READY_SECONDS
        while not condition():
            self.check_alive()
            if time.monotonic() > limit:
                raise self.failed(f"is not ready after {READY_SECONDS:.0f} s")
            time.sleep(0.01)

    def stop(self) -> None:
        """End it, in order if it does so within 10 s."""
        if self.poll() is None:
            self._popen.terminate()
            try:
                self._popen.wait(10)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()


@contextmanager
def running(
    name: str,
    log: Path,
    command: Sequence[str | os.PathLike[str]],
    env: Mapping[str, str] | None = None,
) -> Iterator[Process]:
    """Run a process for as long as the context."""
    process = Process(name, log, command, env)
    try:
        yield process
    finally:
        process.stop()
