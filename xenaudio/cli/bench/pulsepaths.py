# SPDX-License-Identifier: LGPL-2.1-or-later
"""The paths that `xenaudio bench pulse` compares: from a first PulseAudio's sink to a second one's.

Every path ends in the null sink of the second one. Its processes are made anew for each
measurement, so that paths that are not measured cost nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from xenaudio.cli.headlesspulse import headless_pulse, sink_modules
from xenaudio.cli.processes import running
from xenaudio.cli.standin import stand_in

FORM = "rate=48000 channels=2 format=s16le"
FAR_SINK = "far"
NEAR_SINK = "near"
VSND = (
    "[['CARD, short-name=Bench, buffer-size=1048576, sample-rates=48000, sample-formats=s16_le,"
    " channels-max=2', 'PCM, name=Bench', 'STREAM, unique-id=bench, type=p']]"
)


@dataclass(frozen=True)
class Ends:
    """A path that runs: where a client plays, where it is heard, and who carries it."""

    near: str
    """The first PulseAudio's address."""
    far: str
    """The second one's."""
    pids: dict[str, int]
    """Its processes, by what they are."""


@dataclass(frozen=True)
class SoundPath:
    """A path."""

    name: str
    connect: Callable[[ExitStack, Path, str, int, tuple[str, ...]], tuple[str, dict[str, int]]]
    """Starts what leads to the second PulseAudio (its address, its TCP port, a command's prefix);
    returns where a client plays, and the processes."""

    @contextmanager
    def running(self, folder: Path, prefix: tuple[str, ...]) -> Iterator[Ends]:
        """Run it, in a folder that is made."""
        folder.mkdir()
        with ExitStack() as stack:
            port = _free_port()
            process, far = stack.enter_context(
                headless_pulse(
                    "second PulseAudio",
                    folder / "far",
                    [
                        f"load-module module-null-sink sink_name={FAR_SINK} {FORM}",
                        "load-module module-native-protocol-tcp auth-anonymous=1"
                        f" listen=127.0.0.1 port={port}",
                    ],
                    prefix=prefix,
                )
            )
            near, pids = self.connect(stack, folder, far, port, prefix)
            yield Ends(near, far, {**pids, "second PulseAudio": process.pid})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _xenaudio(
    stack: ExitStack, folder: Path, far: str, _port: int, prefix: tuple[str, ...]
) -> tuple[str, dict[str, int]]:
    route = f"pulse:{far},{FAR_SINK}"
    machine = stack.enter_context(
        stand_in(folder / "hv", folder, ["--output", route], prefix=prefix)
    )
    guest = machine.create("guest", VSND)
    process, near = stack.enter_context(
        headless_pulse(
            "first PulseAudio",
            folder / "near",
            [f"load-module module-xenpv-sink sink_name={NEAR_SINK} {FORM}"],
            modules=sink_modules(),
            hypervisor=guest,
            prefix=prefix,
        )
    )
    pids = {
        "first PulseAudio": process.pid,
        "backend": machine.backend.pid,
        "stand-in": machine.xen.pid,
    }
    return near, pids


def _tunnel(latency: str) -> Callable[..., tuple[str, dict[str, int]]]:
    def connect(
        stack: ExitStack, folder: Path, _far: str, port: int, prefix: tuple[str, ...]
    ) -> tuple[str, dict[str, int]]:
        process, near = stack.enter_context(
            headless_pulse(
                "first PulseAudio",
                folder / "near",
                [
                    f"load-module module-tunnel-sink server=tcp:127.0.0.1:{port} sink={FAR_SINK}"
                    f" sink_name={NEAR_SINK} {latency} {FORM}"
                ],
                prefix=prefix,
            )
        )
        return near, {"first PulseAudio": process.pid}

    return connect


def _pipe(
    stack: ExitStack, folder: Path, far: str, _port: int, prefix: tuple[str, ...]
) -> tuple[str, dict[str, int]]:
    pipe = folder / "pipe"
    process, near = stack.enter_context(
        headless_pulse(
            "first PulseAudio",
            folder / "near",
            [f"load-module module-pipe-sink file={pipe} sink_name={NEAR_SINK} {FORM}"],
            prefix=prefix,
        )
    )
    options = ["--raw", "--format=s16le", "--rate=48000", "--channels=2", "--latency-msec=20"]
    reader = stack.enter_context(
        running(
            "pipe's reader",
            folder / "pacat.log",
            [*prefix, "pacat", *options, f"--server={far}", f"--device={FAR_SINK}", str(pipe)],
            env={"PATH": os.defpath, "HOME": str(folder)},
        )
    )
    return near, {"first PulseAudio": process.pid, "pipe's reader": reader.pid}


XENAUDIO = SoundPath("xenaudio", _xenaudio)
PATHS = (
    XENAUDIO,
    SoundPath("tunnel", _tunnel("")),
    SoundPath("tunnel 20 ms", _tunnel("latency_msec=20")),
    SoundPath("tunnel 5 ms", _tunnel("latency_msec=5")),
    SoundPath("pipe", _pipe),
)
