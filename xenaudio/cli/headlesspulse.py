# SPDX-License-Identifier: LGPL-2.1-or-later
"""A PulseAudio daemon without a desktop, a sound card or D-Bus, with folders of its own.

What the demo and the measurements have in the guest, and the measurements at the far end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from xenaudio.cli.processes import Process, running

MODULES = "XENAUDIO_PULSE_MODULES"
"""Environment variable: the folder of module-xenpv-sink, when it is not PulseAudio's own."""

SINK = "module-xenpv-sink.so"


class PulseMissingError(Exception):
    """There is no PulseAudio, or it has no module-xenpv-sink."""


def own_modules() -> Path:
    """Return the folder of PulseAudio's own modules. PulseMissingError."""
    if shutil.which("pulseaudio") is None:
        raise PulseMissingError("there is no PulseAudio here: install the package pulseaudio")
    answer = subprocess.run(
        ["pulseaudio", "--dump-conf"], capture_output=True, text=True, check=False
    )
    for line in answer.stdout.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "dl-search-path":
            return Path(value.strip())
    raise PulseMissingError("`pulseaudio --dump-conf` does not tell where its modules are")


def sink_modules() -> Path:
    """Return the folder of module-xenpv-sink. PulseMissingError."""
    named = os.environ.get(MODULES)
    folder = Path(named) if named else own_modules()
    if not (folder / SINK).exists():
        raise PulseMissingError(
            f"{folder} has no {SINK}: build it (docs/pulseaudio.md says how), and name its folder"
            f" with {MODULES}"
        )
    return folder


@contextmanager
def headless_pulse(
    name: str,
    folder: Path,
    script: Sequence[str],
    *,
    modules: Path | None = None,
    hypervisor: str = "",
    prefix: Sequence[str] = (),
    log: Path | None = None,
) -> Iterator[tuple[Process, str]]:
    """Run a daemon with the lines of its default.pa; give its process and its address.

    `folder` is made; its path is to be short, as it holds a socket, and the log if no other place
    is named for it. ProcessError, PulseMissingError.
    """
    for part in ("home", "runtime", "state"):
        (folder / part).mkdir(parents=True, mode=0o700)
    socket = folder / "native"
    listen = f"load-module module-native-protocol-unix auth-anonymous=1 socket={socket}"
    (folder / "default.pa").write_text("\n".join((*script, listen, "")))
    env = {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "HOME": str(folder / "home"),
        "XDG_RUNTIME_DIR": str(folder / "runtime"),
        "PULSE_RUNTIME_PATH": str(folder / "runtime"),
        "PULSE_STATE_PATH": str(folder / "state"),
    }
    if hypervisor:
        env["XENAUDIO_HV"] = hypervisor
    path = [str(modules)] if modules is not None else []
    options = {
        "daemonize": "no",
        "use-pid-file": "no",
        "exit-idle-time": "-1",
        "realtime": "yes",
        "high-priority": "no",
        "log-target": "stderr",
        "dl-search-path": ":".join([*path, str(own_modules())]),
        "file": str(folder / "default.pa"),
    }
    command = ["pulseaudio", "-n", "--fail=yes", *(f"--{k}={v}" for k, v in options.items())]
    with running(name, log or folder / "log", [*prefix, *command], env) as process:
        # It listens when the lines before have succeeded.
        process.wait_for(socket.exists)
        yield process, f"unix:{socket}"
