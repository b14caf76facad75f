# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest: how xl creates it, and what its user does in it."""

from __future__ import annotations

import base64
import io
import itertools
import shlex
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .domain.pattern import Pattern
from .machine import KERNEL_OPTIONS, LIMIT, Done, Job, Machine

Role = Literal["stock", "debian"]

CARD = [
    "CARD, short-name=Main, sample-rates=8000;44100;48000;96000,"
    " sample-formats=u8;s16_le;s24_le;s32_le;f32_le, buffer-size=65536",
    "PCM, name=Main",
    "STREAM, unique-id=speaker, type=P, channels-min=1, channels-max=2",
    "STREAM, unique-id=microphone, type=C, channels-min=1, channels-max=2",
]
"""A card with PCM 0, which plays and captures."""

GUESTD_LOG = "/run/guestd.log"
"""What the guest service says."""

ALSA_FORMATS = {
    "u8": "U8",
    "s16_le": "S16_LE",
    "s24_le": "S24_LE",
    "s32_le": "S32_LE",
    "float_le": "FLOAT_LE",
}


def unit_command(service: str) -> str:
    """Return, for a shell, what an installed unit runs: the domains have no systemd to do so."""
    return f"$(sed -n s/^ExecStart=//p /lib/systemd/system/{service}.service)"


@dataclass(frozen=True)
class GuestConfig:
    """What goes into xl's configuration file."""

    name: str
    role: Role
    """`stock`: the kernel's own driver and nothing of ours; `debian`: our packages, no driver."""
    vsnd: Sequence[str] | None = tuple(CARD)
    """The lines of one card; None: the guest has no sound."""
    cards: int = 1
    """How many such cards it has."""
    memory: int = 160
    """MiB."""
    kind: Literal["pv", "pvh"] = "pv"
    options: str = ""
    """More for the kernel's command line, or domain/boot."""

    def text(self) -> str:
        """Return xl's configuration file."""
        disk = "format=raw, access=r, script=/harness/block, vdev=xvd{0}, target=/dev/vd{0}"
        disks = [disk.format(letter) for letter in ("ab" if self.role == "debian" else "a")]
        lines = [
            f'name = "{self.name}"',
            f'type = "{self.kind}"',
            'kernel = "/boot/vmlinux"',
            'ramdisk = "/boot/initramfs"',
            f'extra = "{KERNEL_OPTIONS} role={self.role} {self.options}"',
            f"memory = {self.memory}",
            "vcpus = 1",
            f"disk = {disks}",
            'on_crash = "destroy"',
            'on_reboot = "destroy"',
        ]
        if self.vsnd is not None:
            lines.append(f"vsnd = {[list(self.vsnd)] * self.cards}")
        return "\n".join(lines) + "\n"


class Guest:
    """A guest that runs. Everything that is played in it, or recorded, is a Pattern."""

    def __init__(self, machine: Machine, config: GuestConfig, domid: int) -> None:
        self.config = config
        self.name = config.name
        self.domid = domid
        self.lasts = False
        self.created_in = 0.0
        """Seconds that `xl create` took, on dom0's clock."""
        self._machine = machine
        self._numbers = itertools.count(1)
        self._made: dict[tuple[Pattern, str], str] = {}

    def __str__(self) -> str:
        return f"{self.name} ({self.domid})"

    def start(self, script: str) -> Job:
        """Begin a shell script."""
        return self._machine.start(script, self.domid)

    def run(self, script: str, limit: float = LIMIT) -> Done:
        """Run a shell script to its success."""
        return self.start(script).done(limit)

    def put(self, files: Iterable[Path], folder: str) -> None:
        """Copy files into one of its folders, which is made."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            for file in files:
                tar.add(file, file.name)
        text = base64.b64encode(packed.getvalue()).decode()
        self.run(f"mkdir -p {folder} && echo {text} | base64 -d | tar -C {folder} -xz")

    def await_agent(self) -> None:
        """Wait until commands can be run in it."""
        self._machine.await_domain(self.domid)

    @contextmanager
    def service(self) -> Iterator[None]:
        """Run the guest service meanwhile, to a clean end."""
        pid = "/run/guestd.pid"
        command = unit_command("xenaudio-guestd")
        service = self.start(f"echo $$ >{pid}; exec {command} >{GUESTD_LOG} 2>&1")
        self.run(f"until grep -q 'serving domain' {GUESTD_LOG}; do sleep 0.1; done")
        yield
        self.run(f"kill $(cat {pid})")
        ended = service.wait()
        said = self.run(f"cat {GUESTD_LOG}").out
        assert ended.exit == 0, said
        assert "Traceback" not in said, said

    def cards(self) -> str:
        """Return what ALSA says of the sound cards."""
        return self.run("cat /proc/asound/cards").out

    def await_card(self, tries: int = 50) -> None:
        """Wait until the kernel's driver has its card."""
        self.run(
            f"for i in $(seq {tries}); do [ -e /dev/snd/controlC0 ] && exit 0; sleep 0.1; done;"
            " cat /proc/asound/cards; exit 1"
        )

    def _file(self, suffix: str) -> str:
        return f"/run/{next(self._numbers)}.{suffix}"

    def make(self, pattern: Pattern, kind: Literal["raw", "wav"]) -> str:
        """Make a file of a pattern, unless there is one; returns its path in the guest."""
        if (pattern, kind) not in self._made:
            path = self._file(kind)
            self.run(f"python3 /harness/pattern.py {kind} {pattern} > {path}")
            self._made[pattern, kind] = path
        return self._made[pattern, kind]

    def check(self, pattern: Pattern, path: str) -> str:
        """Say where a pattern is in a file in the guest. CommandFailed if it is not, whole."""
        return self.run(f"python3 /harness/pattern.py check {pattern} {path}").out.strip()

    @staticmethod
    def alsa(pattern: Pattern, *, period: int = 2400, buffer: int = 9600) -> str:
        """Return aplay's and arecord's options for a pattern as raw samples; frames."""
        return (
            f"-D hw:0,0 -q -t raw -f {ALSA_FORMATS[pattern.format]} -r {pattern.rate}"
            f" -c {pattern.channels} --period-size={period} --buffer-size={buffer}"
        )

    def aplay(self, pattern: Pattern, *, period: int = 2400, buffer: int = 9600) -> Job:
        """Begin to play a pattern with ALSA; frames."""
        path = self.make(pattern, "raw")
        return self.start(f"exec aplay {self.alsa(pattern, period=period, buffer=buffer)} {path}")

    def arecord(
        self, pattern: Pattern, frames: int, *, period: int = 2400, buffer: int = 9600
    ) -> tuple[Job, str]:
        """Begin to record `frames` in a pattern's format with ALSA; returns the file's path too."""
        path = self._file("raw")
        options = self.alsa(pattern, period=period, buffer=buffer)
        return self.start(f"exec arecord {options} --samples={frames} {path}"), path

    def play(self, pattern: Pattern, *options: str) -> Job:
        """Begin to play a pattern with our frontend."""
        path = self.make(pattern, "wav")
        return self.start(f"exec xenaudio play -q {shlex.join(options)} {path}")

    def record(self, pattern: Pattern, seconds: float, *options: str) -> tuple[Job, str]:
        """Begin to record in a pattern's format with our frontend; returns the file's path too."""
        path = self._file("wav")
        command = [
            *("exec", "xenaudio", "record", "-q", "--rate", str(pattern.rate)),
            *("--channels", str(pattern.channels), "--format", pattern.format),
            *("--seconds", f"{seconds:g}", *options, path),
        ]
        return self.start(shlex.join(command)), path
