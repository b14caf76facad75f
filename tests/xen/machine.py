# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine with Xen on it: a QEMU process, its serial log, and commands in its domains.

Machine boots dom0. `start` begins a command in dom0 or, once `await_domain` has returned, in a
guest; `run` waits for its end too. Everything blocks; commands can run at the same time.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .images import Images

BOOT_LIMIT = 400.0
"""Seconds within which dom0 is up, on a machine that is busy."""
LIMIT = 200.0
"""Seconds within which a command ends, when nothing else is said."""

# EPYC, because PVH guests need nested pages. Without what does not work here: with XSAVE, Xen's
# lazy FPU switching mixes up the domains' registers; dom0 dies of SMAP; Xen uses MWAIT in a way
# that QEMU answers with a fault, when all domains are idle for long enough.
CPU = "EPYC,smap=off,rdtscp=off,xsave=off,monitor=off"

KERNEL_OPTIONS = (
    "console=hvc0 loglevel=6 cryptomgr.notests rodata=off mitigations=off init_on_alloc=0"
)
"""For dom0 and guests: without self-tests that take an emulated processor two seconds, and without
what keeps secrets from an attacker whose processor is a real one."""

XEN_OPTIONS = (
    "dom0_max_vcpus=1 loglvl=info guest_loglvl=info com1=115200,8n1 console=com1"
    " spec-ctrl=no,eager-fpu"
)


class MachineError(Exception):
    """The machine, or a domain in it, does not do what it should."""


class CommandFailed(Exception):
    """A command in a domain ended with another status than 0."""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    command: str
    exit: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"{self.command}\nexit status {self.exit}\n{self.out}{self.err}".rstrip()

    def check(self) -> Done:
        """Raise CommandFailed unless it succeeded."""
        if self.exit != 0:
            raise CommandFailed(str(self))
        return self


class Job:
    """A command that was started."""

    def __init__(self, machine: Machine, number: int, domain: int, command: str) -> None:
        self.command = command
        self._machine = machine
        self._number = number
        self.domain = domain
        """Where it runs."""
        self._ended = threading.Event()
        self._answer: dict[str, Any] = {}

    def answered(self, answer: dict[str, Any]) -> None:
        """Take the agent's answer."""
        self._answer = answer
        self._ended.set()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return not self._ended.is_set()

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to the command and whatever it started."""
        self._machine.send({"id": self._number, "domain": self.domain, "signal": int(number)})

    def wait(self, limit: float = LIMIT) -> Done:
        """Wait for its end. MachineError, after killing it, if that takes over `limit` seconds."""
        if not self._ended.wait(limit):
            self.signal(signal.SIGKILL)
            self._ended.wait(5.0)
            so_far = f"{self._answer.get('out', '')}{self._answer.get('err', '')}"
            raise MachineError(f"not done after {limit:g} s: {self.command}\n{so_far}".rstrip())
        answer = self._answer
        return Done(self.command, answer["exit"], answer["out"], answer["err"])

    def done(self, limit: float = LIMIT) -> Done:
        """Wait for its success."""
        return self.wait(limit).check()


def qemu(
    images: Images, folder: Path, serial: str, *, idle: str, dom0_options: str = ""
) -> list[str]:
    """Return QEMU's command line; `folder` is for its sockets and holds `share`.

    The emulated clock counts instructions: a busy machine makes the tests slower, but never makes
    their sound late. While all domains are idle it jumps to the next timer (`idle` "jump"), for
    which the host's processor does not rest, or waits for it as a machine does ("wait").
    """
    sleep = {"jump": "off", "wait": "on"}[idle]
    dom0 = f"{KERNEL_OPTIONS} earlyprintk=xen role=dom0 {dom0_options}"
    disk = "if=none,format=raw,readonly=on,file.locking=off"
    disks = [
        *("-drive", f"file={images.root},id=root,{disk}", "-device", "virtio-blk-pci,drive=root"),
        *("-drive", f"file={images.ours},id=ours,{disk}", "-device", "virtio-blk-pci,drive=ours"),
    ]
    return [
        *("qemu-system-x86_64", "-M", "pc", "-cpu", CPU, "-m", "2048", "-smp", "1"),
        *("-accel", "tcg,thread=single,tb-size=256", "-icount", f"shift=1,sleep={sleep}"),
        *("-display", "none", "-vga", "none"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-net", "none", "-serial", serial),
        *("-kernel", str(images.xen), "-append", f"dom0_mem=640M,max:640M {XEN_OPTIONS}"),
        *("-initrd", f"{images.vmlinux} {dom0.replace(',', ',,')},{images.initramfs}"),
        *disks,
        *("-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent"),
        *("-chardev", f"socket,id=agent,path={folder}/agent,server=on,wait=off"),
        *("-virtfs", f"local,path={folder}/share,mount_tag=host,security_model=none"),
    ]


class Machine:
    """Xen and dom0, in QEMU."""

    def __init__(self, images: Images) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="xenaudio-xen-"))  # a socket's path is short
        self.share = self._folder / "share"
        """A folder that dom0 sees as /host."""
        self.share.mkdir()
        self.serial: list[str] = []
        """The serial console's lines, each with seconds since the start."""
        self._begin = time.monotonic()
        self._numbers = itertools.count(1)
        self._jobs: dict[int, Job] = {}
        self._up = threading.Event()
        self._socket: socket.socket | None = None
        self._sending = threading.Lock()
        # QEMU must not outlive the tests, however they end.
        command = qemu(images, self._folder, "stdio", idle="jump")
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._reading = threading.Thread(target=self._read_serial, daemon=True)
        self._reading.start()

    def boot(self, limit: float = BOOT_LIMIT) -> None:
        """Wait until commands can be run in dom0."""
        end = time.monotonic() + limit
        while self._socket is None and time.monotonic() < end and self._process.poll() is None:
            attempt = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                attempt.connect(str(self._folder / "agent"))
            except OSError:
                attempt.close()
                time.sleep(0.1)
                continue
            self._socket = attempt
            threading.Thread(target=self._read_answers, daemon=True).start()
        while time.monotonic() < end and self._process.poll() is None:
            if self._up.wait(0.5):
                return
            if any("harness: the agent ended" in line for line in self.serial):
                break
        status = self._process.poll()
        why = "not up" if status is None else f"QEMU ended, status {status}"
        raise MachineError(f"dom0: {why}\n{self.serial_end()}")

    def _read_serial(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            text = line.decode(errors="replace").rstrip("\r\n")
            self.serial.append(f"[{time.monotonic() - self._begin:7.2f}] {text}")

    def _read_answers(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(OSError), self._socket.makefile("rb") as lines:
            for line in lines:
                answer = json.loads(line)
                if answer["id"] == 0:
                    self._up.set()
                    continue
                job = self._jobs.pop(answer["id"], None)
                if job is not None:
                    job.answered(answer)

    def serial_end(self, lines: int = 60) -> str:
        """Return the serial log's end."""
        return "\n".join(self.serial[-lines:])

    def send(self, message: dict[str, Any]) -> None:
        """Send the agent a message."""
        if self._socket is None or self._process.poll() is not None:
            raise MachineError(f"QEMU has ended\n{self.serial_end()}")
        with self._sending:
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def _begin_job(self, domain: int, command: str, message: dict[str, Any]) -> Job:
        number = next(self._numbers)
        job = self._jobs[number] = Job(self, number, domain, command)
        self.send({"id": number, "domain": domain, **message})
        return job

    def start(self, script: str, domain: int = 0) -> Job:
        """Begin a shell script in a domain."""
        shown = f"domain {domain}: {script}"
        return self._begin_job(domain, shown, {"argv": ["/bin/sh", "-c", script]})

    def moved(self, domain: int, now: int) -> None:
        """Find the commands of a domain in another one from now on: it was saved and restored."""
        for job in self._jobs.values():
            if job.domain == domain:
                job.domain = now

    def run(self, script: str, domain: int = 0, limit: float = LIMIT) -> Done:
        """Run a shell script in a domain to its end, which may be a failure."""
        return self.start(script, domain).wait(limit)

    def await_domain(self, domain: int, limit: float = BOOT_LIMIT) -> None:
        """Wait until commands can be run in a guest."""
        self._begin_job(domain, f"domain {domain} is up", {"await": True}).wait(limit)

    def close(self) -> None:
        """Switch it off."""
        if self._process.poll() is None and self._up.is_set():
            with contextlib.suppress(MachineError):
                self.start("/harness/busybox poweroff -f")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reading.join(5)
        if self._socket is not None:
            self._socket.close()
        shutil.rmtree(self._folder)

    def kill(self) -> None:
        """End QEMU at once."""
        os.kill(self._process.pid, signal.SIGKILL)
