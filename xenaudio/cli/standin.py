# SPDX-License-Identifier: LGPL-2.1-or-later
"""A stand-in for Xen and a backend in its domain 0: what demo and measurements play over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from xenaudio.cli.processes import XENAUDIO, Process, ProcessError, running
from xenaudio.localhv import LocalHvError
from xenaudio.localhv.control import request


@dataclass(frozen=True)
class StandIn:
    """Both run."""

    directory: Path
    xen: Process
    backend: Process

    def create(self, guest: str, vsnd: str) -> str:
        """Make a guest; return its address. ProcessError."""
        try:
            made = request(self.directory, "create", name=guest, vsnd=vsnd)
        except LocalHvError as error:
            self.backend.check_alive()
            raise ProcessError(str(error)) from error
        return str(made["socket"])


@contextmanager
def stand_in(
    directory: Path, logs: Path, serve: Sequence[str], prefix: Sequence[str] = ()
) -> Iterator[StandIn]:
    """Run a stand-in in `directory`, whose path is to be short, and `xenaudio serve` on it.

    `prefix` is put before their commands. ProcessError.
    """
    command = [*prefix, *XENAUDIO]
    argv = [*command, "localhv", "serve", "--dir", str(directory)]
    with running("stand-in for Xen", logs / "localhv.log", argv) as xen:
        xen.wait_for((directory / "control").exists)
        argv = [*command, "serve", "--hv", str(directory / "dom0"), *serve]
        with running("backend", logs / "backend.log", argv) as backend:
            yield StandIn(directory, xen, backend)
