# SPDX-License-Identifier: LGPL-2.1-or-later
"""A whole machine for tests: the stand-in and backends on it, each a process of its own.

Everything here blocks. In a test that plays from its own event loop, call what waits for the guest
or for the backend through `asyncio.to_thread`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xenaudio.core.hv import Hypervisor
from xenaudio.localhv.control import request

TREE = Path(__file__).resolve().parents[2]
HANG = 30.0
"""Seconds after which something that should happen at once is taken for a hang."""

STEREO = (
    "[['CARD, short-name=Main, sample-rates=8000;44100;48000;96000, buffer-size=1048576',"
    " 'PCM, name=Main', 'STREAM, unique-id=p, type=p', 'STREAM, unique-id=c, type=c']]"
)
"""A card with a stream to play (0/0) and one to record (0/1)."""


def environment() -> dict[str, str]:
    """What our own programs need to be found by a child process."""
    path = os.pathsep.join(filter(None, [str(TREE), os.environ.get("PYTHONPATH")]))
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("XENAUDIO_", "XENSTORED_"))}
    return {**clean, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def xenaudio(*args: str | os.PathLike[str]) -> list[str]:
    """Return the command line of `xenaudio ARGS`."""
    return [sys.executable, "-m", "xenaudio.cli.main", *map(os.fspath, args)]


def run_xenaudio(*args: str | os.PathLike[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `xenaudio ARGS` to its end."""
    return subprocess.run(
        xenaudio(*args),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
        **options,
    )


def wait_until(condition: Callable[[], object], what: str, limit: float = HANG) -> None:
    """Wait until a condition holds; fail when it does not within the limit."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {limit} s"
        time.sleep(0.01)


class Program:
    """A process whose output goes to a file."""

    def __init__(self, name: str, argv: list[str], log: Path) -> None:
        self.name = name
        self._log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(argv, env=environment(), stdout=out, stderr=out)

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        """Return everything that it and its predecessors on the same file said."""
        return self._log.read_text(errors="replace")

    def wait_for(self, words: str, since: int = 0) -> None:
        """Wait until it has said so, at or after the character `since` of its log."""

        def said() -> bool:
            assert self.process.poll() is None or words in self.log()[since:], (
                f"{self.name} ended with {self.process.returncode} before it said {words!r}:\n"
                + self.log()
            )
            return words in self.log()[since:]

        wait_until(said, f"{self.name} says {words!r}")

    def terminate(self) -> int:
        """Send SIGTERM; return its exit status."""
        self.process.terminate()
        return self.process.wait(HANG)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.process.kill()
        self.process.wait(HANG)

    def ended(self) -> bool:
        return self.process.poll() is not None


@dataclass(frozen=True)
class Accounts:
    """What a backend's process holds; compare it before and after."""

    fds: dict[str, int]
    """Open file descriptors by kind."""
    mapped_pages: int
    """Pages of guests in its address space."""


class Backend(Program):
    """`xenaudio serve` on a machine's domain 0 (or another one)."""

    def __init__(
        self, machine: Machine, hv: str, args: list[str], argv: list[str] | None = None
    ) -> None:
        number = next(machine.numbers)
        self.stats_file = machine.directory / f"stats-{number}"
        self._arguments = (machine, hv, args, argv)
        command = argv if argv is not None else xenaudio("serve")
        # What is configured on this machine is not what is tested.
        routed = {"--output", "--input", "--config"}.intersection(args)
        routes = [] if routed else ["--output", "null"]
        command = [*command, "--hv", hv, "--stats", str(self.stats_file), *routes, *args]
        super().__init__("the backend", command, machine.directory / f"backend-{number}.log")

    def restarted(self) -> Backend:
        """Start another one like this one, which must have ended."""
        assert self.ended()
        machine, hv, args, argv = self._arguments
        return machine.serve(*args, hv=hv, argv=argv)

    def stop(self) -> None:
        """End it with SIGTERM: it must do so in order."""
        if self.ended():
            return
        assert self.terminate() == 0, self.log()
        assert "Traceback" not in self.log(), self.log()

    def stats(self) -> list[dict[str, Any]]:
        """Return the statistics it wrote so far (xenaudio/backend/statslog.py)."""
        text = self.stats_file.read_text() if self.stats_file.exists() else ""
        # The last line may be half written.
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def last_stats(self, guest: str, pcm: int = 0, stream: int = 0) -> dict[str, Any] | None:
        """Return the latest statistics of one stream."""
        for entry in reversed(self.stats()):
            if (entry["guest"], entry["pcm"], entry["stream"]) == (guest, pcm, stream):
                stats: dict[str, Any] = entry["stats"]
                return stats
        return None

    def accounts(self) -> Accounts:
        """Count its file descriptors and what it has mapped of guests."""
        fds: dict[str, int] = {}
        for fd in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                kind = re.sub(r"\d+", "N", os.readlink(fd))
                fds[kind] = fds.get(kind, 0) + 1
        pages = 0
        for line in Path(f"/proc/{self.pid}/maps").read_text().splitlines():
            if "memfd:" in line:
                first, last = (int(address, 16) for address in line.split()[0].split("-"))
                pages += (last - first) // 4096
        return Accounts(fds, pages)


@dataclass(frozen=True)
class Domain:
    """A guest of the stand-in."""

    name: str
    domid: int
    socket: str

    def hypervisor(self) -> Hypervisor:
        """Open the hypervisor as this domain sees it."""
        return Hypervisor(self.socket)


class Machine:
    """A stand-in for Xen in a directory of its own (`xenaudio localhv serve`)."""

    def __init__(self) -> None:
        # Not tmp_path: socket paths are short.
        self.directory = Path(tempfile.mkdtemp(prefix="xa", dir="/tmp"))
        self.backends: list[Backend] = []
        self.programs: list[Program] = []
        self.numbers: Iterator[int] = iter(range(1000))
        self._hv = self.directory / "hv"
        self.server = Program(
            "the stand-in",
            xenaudio("localhv", "serve", "--dir", self._hv),
            self.directory / "localhv.log",
        )

    @property
    def dom0(self) -> str:
        """Domain 0's address."""
        return str(self._hv / "dom0")

    @property
    def control_directory(self) -> Path:
        """What `xenaudio localhv --dir` wants."""
        return self._hv

    def wait_for_server(self) -> None:
        """Wait until it can be used; `close` it also when this fails."""
        self.server.wait_for("ready:")

    def serve(self, *args: str, hv: str | None = None, argv: list[str] | None = None) -> Backend:
        """Start a backend and wait until it is ready; `argv` replaces `xenaudio serve`."""
        backend = Backend(self, hv or self.dom0, list(args), argv)
        self.backends.append(backend)
        backend.wait_for("serving /local/domain/")
        return backend

    def run(self, name: str, *argv: str, domain: str | None = None) -> Program:
        """Start a program whose output is kept, as a part of a domain when one is given."""
        line = list(argv)
        if domain is not None:
            line = xenaudio("localhv", "run", "--dir", self._hv, domain, "--", *argv)
        log = self.directory / f"{name}-{next(self.numbers)}.log"
        program = Program(name, line, log)
        self.programs.append(program)
        return program

    # The control commands (xenaudio/localhv/control.py). LocalHvError when refused.

    def ask(self, command: str, **arguments: object) -> Any:
        """Have the stand-in do something."""
        return request(self._hv, command, **arguments)

    def create(self, name: str, vsnd: str | None = STEREO, *, wait: bool = True) -> Domain:
        """Make a domain; wait until its backends are at 2."""
        made = self.ask("create", name=name, vsnd=vsnd, wait=wait)
        return Domain(made["name"], made["domid"], str(made["socket"]))

    def destroy(self, name: str) -> None:
        """End a domain, as `xl destroy`."""
        self.ask("destroy", name=name, wait=True)

    def attach(self, name: str, vsnd: str = STEREO) -> list[int]:
        """Add cards to a running domain; returns their device numbers."""
        devids: list[int] = self.ask("attach", name=name, vsnd=vsnd, wait=True)
        return devids

    def detach(self, name: str, devid: int) -> None:
        """Remove a card from a running domain."""
        self.ask("detach", name=name, devid=devid)

    def save(self, name: str, file: Path) -> None:
        """Save a domain."""
        self.ask("save", name=name, file=str(file))

    def restore(self, file: Path) -> Domain:
        """Restore a domain, with a new domid."""
        made = self.ask("restore", file=str(file), wait=True)
        return Domain(made["name"], made["domid"], str(made["socket"]))

    def grants(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the pages granted by a domain, or by all."""
        rows: list[dict[str, Any]] = self.ask("grants", name=name)
        return rows

    def channels(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the event channel ports of a domain, or of all."""
        rows: list[dict[str, Any]] = self.ask("channels", name=name)
        return rows

    def xenstore(self, *argv: str) -> str:
        """Run one of Debian's xenstore-* commands as domain 0."""
        return subprocess.run(
            argv,
            env={**environment(), "XENSTORED_PATH": self.dom0},
            capture_output=True,
            text=True,
            timeout=HANG,
            check=True,
        ).stdout

    def close(self) -> None:
        """End everything, in order where it still can; pytest shows the logs of a failed test."""
        try:
            for program in self.programs:
                if not program.ended():
                    program.kill()
            for backend in self.backends:
                backend.stop()
            assert self.server.terminate() == 0, self.server.log()
        finally:
            for program in (*self.programs, *self.backends, self.server):
                if not program.ended():
                    program.process.send_signal(signal.SIGKILL)
                    program.process.wait(HANG)
                print(f"---- log of {program.name}\n{program.log()}")
            shutil.rmtree(self.directory)
