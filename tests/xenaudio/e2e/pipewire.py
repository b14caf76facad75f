# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real PipeWire without a desktop: its server, session manager and PulseAudio's protocol."""

from __future__ import annotations

import subprocess
from pathlib import Path

from daemon import SoundServer
from machine import HANG, wait_until


class PipeWire(SoundServer):
    """Four processes with folders of their own; its socket for PulseAudio's clients is `address`.

    `folder` is to have a short path, as it holds sockets.
    """

    def __init__(self, folder: Path) -> None:
        runtime = folder / "runtime"
        for part in ("home", "state", "runtime"):
            (folder / part).mkdir(parents=True, mode=0o700)
        socket = runtime / "pulse/native"
        self.address = f"unix:{socket}"
        self.env = {
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(folder / "home"),
            "XDG_CONFIG_HOME": str(folder / "home"),
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_RUNTIME_DIR": str(runtime),
            "PIPEWIRE_RUNTIME_DIR": str(runtime),
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus",
            "PULSE_SERVER": self.address,
            "PIPEWIRE_DEBUG": "2,pw.node:3",
        }
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        # As its own module would have it, if there were a desktop to ask for that.
        on_time = ["chrt", "--rr", "1"]
        allowed = subprocess.run([*on_time, "true"], capture_output=True, check=False)
        self._prefix = on_time if allowed.returncode == 0 else []
        # The session manager does not live without a bus.
        bus = ["dbus-daemon", "--session", "--nofork", "--nopidfile"]
        try:
            self._run([*bus, f"--address=unix:path={runtime}/bus"], runtime / "bus")
            self._run(["pipewire"], runtime / "pipewire-0")
            self._run(["wireplumber"])
            self._run(["pipewire-pulse"], socket)
        except BaseException:
            self.end()
            raise

    def _run(self, argv: list[str], socket: Path | None = None) -> None:
        """Start a process, and wait for the socket that it listens on."""
        with (self._folder / "log").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    [*self._prefix, *argv],
                    env=self.env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )
        if socket is not None:
            wait_until(socket.exists, f"{argv[0]} listens")

    def log(self) -> str:
        """Return what all of it said."""
        return (self._folder / "log").read_text(errors="replace")

    def end(self) -> None:
        """End it; pytest shows what it said if the test failed."""
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            process.wait(HANG)
        print(f"---- log of PipeWire\n{self.log()}")
