# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real PulseAudio without a desktop, as a process with folders of its own, and its clients."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from machine import HANG, wait_until

MODULES = "XENAUDIO_PULSE_MODULES"
"""Names the folder of the modules under test."""


def modules() -> Path | None:
    """Return the folder of the modules under test."""
    named = os.environ.get(MODULES)
    return Path(named).resolve() if named else None


def own_modules() -> str:
    """Return the folder of PulseAudio's own modules."""
    return subprocess.run(
        ["pkg-config", "--variable=modlibexecdir", "libpulse"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def thread_switches(pid: int, name: str) -> int:
    """Return how often a process's threads of this name went to sleep, and so woke up, by now."""
    switches = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = (task / "status").read_text()
        if f"Name:\t{name}\n" in status:
            found = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.M)
            assert found is not None
            switches += int(found[1])
    return switches


class SoundServer(ABC):
    """What clients of a PulseAudio server do, or of what passes for one."""

    env: dict[str, str]
    """The clients'."""

    @abstractmethod
    def end(self) -> None:
        """End it."""

    def pactl(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run pactl."""
        return subprocess.run(
            ["pactl", *argv],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=HANG,
            check=False,
        )

    def asked(self, *argv: str) -> str:
        """Run pactl, which must succeed; return its answer."""
        answer = self.pactl(*argv)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.strip()

    def load(self, module: str, *arguments: str) -> str:
        """Load a module; return its index."""
        return self.asked("load-module", module, *arguments)

    def client(
        self, file: Path, sample_spec: str = "s16le 2 48000", latency_ms: int = 1000, sink: str = ""
    ) -> subprocess.Popen[bytes]:
        """Begin to play a file of raw samples."""
        return self._stream("pacat", file, sample_spec, latency_ms, sink)

    def recorder(
        self,
        file: Path,
        sample_spec: str = "s16le 2 48000",
        latency_ms: int = 1000,
        source: str = "",
    ) -> subprocess.Popen[bytes]:
        """Begin to record to a file of raw samples."""
        return self._stream("parec", file, sample_spec, latency_ms, source)

    def _stream(
        self, program: str, file: Path, sample_spec: str, latency_ms: int, device: str
    ) -> subprocess.Popen[bytes]:
        format, channels, rate = sample_spec.split()
        options = [f"--format={format}", f"--channels={channels}", f"--rate={rate}"]
        options += ["--no-remap", f"--latency-msec={latency_ms}"]
        options += [f"--device={device}"] if device else []
        return subprocess.Popen([program, "--raw", *options, str(file)], env=self.env)

    def record(
        self,
        file: Path,
        octets: int,
        sample_spec: str = "s16le 2 48000",
        latency_ms: int = 1000,
    ) -> bytes:
        """Record until there are so many octets; return them and perhaps more."""
        with self.recorder(file, sample_spec, latency_ms) as recorder:
            try:
                wait_until(
                    lambda: file.exists() and file.stat().st_size >= octets, "it is recorded"
                )
            finally:
                recorder.kill()
        return file.read_bytes()

    def play(self, file: Path, sample_spec: str = "s16le 2 48000", latency_ms: int = 1000) -> None:
        """Play a file of raw samples to its end."""
        with self.client(file, sample_spec, latency_ms) as client:
            assert client.wait(HANG) == 0


class PulseAudio(SoundServer):
    """One daemon."""

    def __init__(
        self,
        folder: Path,
        modules: Path,
        hypervisor: str,
        *script: str,
        prefix: Sequence[str] = (),
    ) -> None:
        for name in ("home", "runtime", "state"):
            (folder / name).mkdir(parents=True, mode=0o700)
        self._log = folder / "log"
        (folder / "default.pa").write_text(
            "\n".join(("load-module module-native-protocol-unix auth-anonymous=1", *script, ""))
        )
        self.env = {
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(folder / "home"),
            "XDG_RUNTIME_DIR": str(folder / "runtime"),
            "PULSE_RUNTIME_PATH": str(folder / "runtime"),
            "PULSE_STATE_PATH": str(folder / "state"),
            "XENAUDIO_HV": hypervisor,
        }
        options = {
            "daemonize": "no",
            "use-pid-file": "no",
            "exit-idle-time": "-1",
            "high-priority": "no",
            "realtime": "yes",
            "log-level": "debug",
            "log-target": f"file:{self._log}",
            "dl-search-path": f"{modules}:{own_modules()}",
            "file": str(folder / "default.pa"),
        }
        self.process = subprocess.Popen(
            [
                *prefix,
                "pulseaudio",
                "-n",
                "--fail=yes",
                *(f"--{k}={v}" for k, v in options.items()),
            ],
            env=self.env,
            stdin=subprocess.DEVNULL,
        )
        self.socket = folder / "runtime/native"

    def wait(self) -> None:
        """Wait until clients can connect."""

        def ready() -> bool:
            assert self.process.poll() is None, f"PulseAudio ended:\n{self.log()}"
            return self.socket.exists() and self.pactl("info").returncode == 0

        wait_until(ready, "PulseAudio is up")

    def log(self) -> str:
        """Return what it said."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def stop(self) -> None:
        """End it in order."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(HANG) == 0, self.log()

    def end(self) -> None:
        """End it, in whatever state it is."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(HANG)
        # pytest shows it when the test failed.
        print(f"---- log of PulseAudio\n{self.log()}")

    def refusal(self, module: str, *arguments: str) -> str:
        """Load a module that must refuse; return what the log then says."""
        before = len(self.log())
        assert self.pactl("load-module", module, *arguments).returncode != 0
        return self.log()[before:]

    def wait_for_clients(self, count: int) -> None:
        """Wait until so many clients are left, and what the others held is closed."""

        def left() -> bool:
            # pactl itself is one.
            return len(self.asked("list", "short", "clients").splitlines()) == count + 1

        wait_until(left, f"{count} clients are left")

    def fds(self) -> dict[str, int]:
        """Count its open file descriptors by kind, when those of clients that ended are closed."""
        seen: list[dict[str, int]] = []

        def at_rest() -> bool:
            time.sleep(0.1)
            seen.append(self._fds_now())
            return len(seen) > 3 and all(now == seen[-1] for now in seen[-3:])

        wait_until(at_rest, "its file descriptors stay the same")
        return seen[-1]

    def _fds_now(self) -> dict[str, int]:
        kinds: dict[str, int] = {}
        for fd in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                kind = re.sub(r"\d+", "N", os.readlink(fd))
                kinds[kind] = kinds.get(kind, 0) + 1
        return kinds

    def card_thread_switches(self) -> int:
        """Return how often the threads of cards went to sleep, and so woke up, by now."""
        return thread_switches(self.process.pid, "xenpv")
