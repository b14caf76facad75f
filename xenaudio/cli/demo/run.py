# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs the demo's processes, shows how it goes, and gathers what they measured."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from xenaudio.cli.demo.clip import Clip
from xenaudio.cli.demo.report import Measured, finish_report
from xenaudio.cli.procusage import Usage
from xenaudio.core.format import by_name
from xenaudio.localhv import LocalHvError
from xenaudio.localhv.control import request

GUEST = "guest"
RESULTS = ("played.wav", "report.json", "picture.png", "backend.jsonl", "guest.json")
READY_SECONDS = 20.0
LOOK_SECONDS = 0.1
BUFFER_OCTETS = 4 << 20  # of the card: any buffer in milliseconds that makes sense fits
COMMAND = (sys.executable, "-m", "xenaudio.cli.main")


class DemoError(Exception):
    """The demo cannot go on."""


class _Process:
    """A process of the demo, with a log that is shown when it fails."""

    def __init__(self, name: str, log: Path, *arguments: str) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                [*COMMAND, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def prefer(self) -> None:
        """Have it run before ordinary processes, as sound servers do, where that is allowed."""
        priority = os.sched_param(os.sched_get_priority_min(os.SCHED_RR))
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(self.pid, os.SCHED_RR | os.SCHED_RESET_ON_FORK, priority)

    def poll(self) -> int | None:
        return self._popen.poll()

    def check_alive(self) -> None:
        if self.poll() is not None:
            raise self.failed(f"ended with status {self.poll()}")

    def failed(self, why: str) -> DemoError:
        return DemoError(f"the {self.name} {why}; its log:\n{self.log.read_text().rstrip()}")

    def stop(self) -> None:
        if self.poll() is None:
            self._popen.terminate()
            try:
                self._popen.wait(10)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()


@contextmanager
def _running(name: str, log: Path, *arguments: str) -> Iterator[_Process]:
    process = _Process(name, log, *arguments)
    try:
        yield process
    finally:
        process.stop()


def _wait_for(what: Path, process: _Process) -> None:
    limit = time.monotonic() + READY_SECONDS
    while not what.exists():
        process.check_alive()
        if time.monotonic() > limit:
            raise process.failed(f"is not ready after {READY_SECONDS:.0f} s")
        time.sleep(0.01)


def _vsnd(clip: Clip) -> str:
    """Describe the guest's card, in xl's syntax."""
    format = by_name(clip.sample_format)
    assert format is not None
    return (
        f"[['CARD, short-name=Demo, sample-rates={clip.rate}, channels-max={clip.channels},"
        f" sample-formats={format.libxl_name or format.name}, buffer-size={BUFFER_OCTETS}',"
        " 'PCM, name=Speech', 'STREAM, unique-id=speech, type=p']]"
    )


class _Watcher:
    """Reads the backend's statistics as they are written, and shows them."""

    def __init__(self, stats: TextIO, clip: Clip) -> None:
        self._stats = stats
        self._clip = clip
        self._rest = ""
        self._tty = sys.stderr.isatty()
        self._said = 0.0
        self.trace: list[list[int]] = []
        self.last: dict[str, Any] = {}

    @property
    def playing(self) -> bool:
        return bool(self.trace)

    def look(self) -> None:
        """Take the lines written since the last call."""
        *lines, self._rest = (self._rest + self._stats.read()).split("\n")
        for line in lines:
            entry = json.loads(line)
            if entry["stats"]["opens"]:
                self.trace += entry["trace"]
                self.last = entry["stats"]
        if lines and self.playing:
            self._show()

    def _show(self) -> None:
        done = self.last["frames_out"] / self._clip.frames
        peak = self.last["peak"]
        seconds = self.last["frames_out"] / self._clip.rate
        if self._tty:
            bar = "#" * round(30 * done)
            level = "=" * round(20 * peak**0.5)
            print(
                f"\r[{bar:<30}] {seconds:5.1f} of {self._clip.seconds:.1f} s  level [{level:<20}]",
                end="",
                file=sys.stderr,
                flush=True,
            )
        elif time.monotonic() - self._said >= 1:
            self._said = time.monotonic()
            print(
                f"demo: {seconds:.1f} of {self._clip.seconds:.1f} s, level {peak:.2f}",
                file=sys.stderr,
            )

    def finish(self) -> None:
        """End the line."""
        self.look()
        if self._tty:
            print(file=sys.stderr)


def run_demo(clip: Clip, out: Path, period_ms: float, buffer_ms: float) -> dict[str, Any]:
    """Play the clip and report. DemoError."""
    begin = time.monotonic()
    for name in RESULTS:
        if (out / name).exists() and (out / name).samefile(clip.path):
            raise DemoError(f"{clip.path}: a result is to be written there; copy it, or take --out")
    out.mkdir(parents=True, exist_ok=True)
    for name in RESULTS:
        (out / name).unlink(missing_ok=True)
    # Socket paths are short; the folder of the results may not be.
    with ExitStack() as stack:
        machine = Path(tempfile.mkdtemp(prefix="xenaudio-"))
        stack.callback(shutil.rmtree, machine, ignore_errors=True)
        xen = stack.enter_context(
            _running(
                "stand-in for Xen", out / "localhv.log", "localhv", "serve", "--dir", str(machine)
            )
        )
        _wait_for(machine / "control", xen)
        (out / "backend.jsonl").touch()
        backend = stack.enter_context(
            _running(
                "backend",
                out / "backend.log",
                "serve",
                *("--hv", str(machine / "dom0")),
                *("--output", f"file:{out / 'played.wav'}"),
                *("--stats", str(out / "backend.jsonl")),
            )
        )
        try:
            request(machine, "create", name=GUEST, vsnd=_vsnd(clip))
        except LocalHvError as error:
            backend.check_alive()
            raise DemoError(str(error)) from error
        guest = stack.enter_context(
            _running(
                "guest",
                out / "guest.log",
                *("localhv", "run", "--dir", str(machine), GUEST, "--"),
                *COMMAND,
                *("play", str(clip.path), "--quiet", "--stats", str(out / "guest.json")),
                *("--period-ms", str(period_ms), "--buffer-ms", str(buffer_ms)),
            )
        )
        guest.prefer()
        with (out / "backend.jsonl").open() as stats:
            measured = _follow(clip, stats, guest, backend, begin)
    measured.guest = json.loads((out / "guest.json").read_text())
    return finish_report(clip, out, measured)


def _follow(
    clip: Clip, stats: TextIO, guest: _Process, backend: _Process, begin: float
) -> Measured:
    """Watch until the guest has played the clip."""
    watcher = _Watcher(stats, clip)
    started: dict[str, Usage] = {}
    used: dict[str, Usage] = {}
    while guest.poll() is None:
        backend.check_alive()
        watcher.look()
        if watcher.playing and not started:
            started = {"guest": Usage.of(guest.pid), "backend": Usage.of(backend.pid)}
            print(f"demo: playing {clip.title}", file=sys.stderr)
        elif started and watcher.last["frames_out"] < clip.frames:
            used = {
                "guest": Usage.of(guest.pid).since(started["guest"]),
                "backend": Usage.of(backend.pid).since(started["backend"]),
            }
        time.sleep(LOOK_SECONDS)
    if guest.poll() != 0:
        raise guest.failed(f"ended with status {guest.poll()}")
    # The device is still there: one more interval brings the last statistics.
    time.sleep(2 * LOOK_SECONDS)
    watcher.finish()
    if not watcher.last:
        raise backend.failed("tells nothing of what it played")
    setup_s = None
    if watcher.trace:
        # By the backend's clock, which is time.monotonic's: it is looked at only now and then.
        setup_s = watcher.trace[0][0] / 1e9 - begin
        setup_s += float(os.environ.get("XENAUDIO_SETUP_S", "0"))
    return Measured(
        setup_s=setup_s,
        usage=used,
        backend=watcher.last,
        trace=watcher.trace,
    )
