# SPDX-License-Identifier: LGPL-2.1-or-later
"""dom0: the toolstack, the backend and what they hold."""

from __future__ import annotations

import shlex
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from .domain.pattern import Pattern
from .guest import CARD, Guest, GuestConfig, unit_command
from .machine import LIMIT, Done, Job, Machine, MachineError

PLAYED = "/run/played"
"""The folder in which the backend leaves what guests play."""
RECORDED = "/run/recorded.wav"
"""The file that guests record."""
LOG = "/var/log/xenaudio.log"
"""What the backend says."""
PID = "/run/xenaudio.pid"
"""The number of its process."""


class CheckFailed(Exception):
    """What was played is not there, or not whole."""


@dataclass(frozen=True)
class Holding:
    """What of guests' the backend's process and dom0's store hold."""

    mappings: int
    """Mappings of granted pages, /proc/PID/maps."""
    handles: int
    """Open /dev/xen/gntdev and /dev/xen/evtchn, /proc/PID/fd."""
    channels: int
    """Event channels of dom0 that are bound to a guest's, or wait for one (lsevtchn)."""
    nodes: tuple[str, ...]
    """Nodes below dom0's backend/vsnd."""


class Backend:
    """`xenaudio serve` in dom0, as the package's unit runs it."""

    def __init__(self, machine: Machine, job: Job) -> None:
        self._machine = machine
        self._job = job

    @property
    def pid(self) -> int:
        """Its process."""
        return int(self._machine.run(f"cat {PID}").check().out)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._job.running

    def log(self) -> str:
        """Return what it logged."""
        return self._machine.run(f"cat {LOG}").out

    def await_log(self, text: str, limit: float = LIMIT) -> None:
        """Wait until its log says something."""
        # In one script: the processor has more to do for a command than for the wait.
        alive = f"[ ! -s {PID} ] || kill -0 $(cat {PID})"
        waiting = f"until grep -qF {shlex.quote(text)} {LOG}; do {alive} || exit 1; sleep 0.2; done"
        if self._machine.run(waiting, limit=limit).exit != 0:
            raise MachineError(f"the backend's log does not say {text!r}:\n{self.log()}")

    def ended(self) -> Done:
        """Wait until it has ended."""
        return self._job.wait(LIMIT)

    def stop(self) -> Done:
        """Ask it to end, and wait until it has."""
        self._job.signal(signal.SIGTERM)
        return self.ended()

    def kill(self) -> None:
        """Kill it, without a chance to clean up."""
        self._job.signal(signal.SIGKILL)
        self.ended()


class Dom0:
    """What scenarios do in dom0."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._backend: Backend | None = None
        self._guests: dict[int, Guest] = {}
        self._offered: Pattern | None = None

    def start(self, script: str) -> Job:
        """Begin a shell script."""
        return self.machine.start(script)

    def run(self, script: str, limit: float = LIMIT) -> Done:
        """Run a shell script to its success."""
        return self.machine.run(script, limit=limit).check()

    def timed(self, script: str, limit: float = LIMIT) -> float:
        """Run a shell script to its success; returns how many seconds it took on dom0's clock.

        That clock does not run on while a busy host keeps the machine waiting, as the host's does.
        """
        clock = "date +%s%N >>/run/timed"
        self.run(f"rm -f /run/timed; {clock}; ({script}) && {clock}", limit)
        begin, end = self.run("cat /run/timed").out.split()
        return (int(end) - int(begin)) / 1e9

    def read(self, path: str) -> str | None:
        """Read a node of XenStore; None when there is none."""
        done = self.machine.run(f"xenstore-read {path}")
        return done.out.rstrip("\n") if done.exit == 0 else None

    # The backend

    def start_backend(self, *options: str, user: str = "root") -> Backend:
        """Start the backend, playing to PLAYED and recording from RECORDED, and wait for it.

        Another user than root, of the group of the same name, must have been given what it needs,
        but for the limits, which are the unit's.
        """
        self.run(f"mkdir -p {PLAYED}; rm -f {LOG} {PID}; touch {LOG}")
        routes = options or (f"--output=file:{PLAYED}/", f"--input=file:{RECORDED}")
        if not options:
            self.offer(Pattern())
        job = self.start(
            f"echo $$ >{PID};"
            f" exec prlimit --rtprio=10 setpriv --reuid={user} --regid={user} --clear-groups"
            f" {unit_command('xenaudiod')} {shlex.join(routes)} >{LOG} 2>&1"
        )
        self._backend = Backend(self.machine, job)
        self._backend.await_log("serving /local/domain/0/backend/vsnd")
        return self._backend

    def backend(self) -> Backend:
        """Return the backend; starts it when none runs."""
        if self._backend is None or not self._backend.running:
            return self.start_backend()
        return self._backend

    def stop_backend(self) -> None:
        """Stop the backend, if one runs; `backend` starts it again."""
        if self._backend is not None and self._backend.running:
            self._backend.stop()

    def offer(self, pattern: Pattern) -> None:
        """Have the guests record this pattern, and silence after it, from now on."""
        if pattern != self._offered:
            (self.machine.share / "recorded.wav").write_bytes(pattern.wav())
            self.run(f"cp /host/recorded.wav {RECORDED}")
            self._offered = pattern

    def played(self, guest: Guest) -> str:
        """Return the path of what a guest played last."""
        newest = self.run(f"ls -t {PLAYED}/{guest.name}-* | head -n 1").out.strip()
        if not newest:
            raise MachineError(f"{guest}: nothing was played\n{self.backend().log()}")
        return newest

    def check(self, pattern: Pattern, path: str) -> None:
        """Find a pattern in a file. CheckFailed unless it is there, whole."""
        (file,) = self.fetch(path)
        whole, found = pattern.check(str(file))
        if not whole:
            raise CheckFailed(f"{path}: {found}")

    def fetch(self, paths: str) -> list[Path]:
        """Copy files to the host, where looking into them costs nothing; the oldest is first."""
        folder = self.machine.share / "fetched"
        shutil.rmtree(folder, ignore_errors=True)
        self.run(f"mkdir /host/fetched && cp -p {paths} /host/fetched")
        return sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime_ns)

    def forget_played(self, guest: Guest) -> None:
        """Remove what a guest played until now."""
        self.run(f"rm -f {PLAYED}/{guest.name}-*")

    def pieces(self, pattern: Pattern, guest: Guest) -> list[tuple[int, int]]:
        """Return which pieces of a pattern a guest played, in order: first frames and ends.

        ValueError when it played anything else but silence.
        """
        files = self.fetch(f"{PLAYED}/{guest.name}-*")
        return [piece for file in files for piece in pattern.pieces(str(file))]

    # Guests

    def create(self, config: GuestConfig, *, wait: bool = True) -> Guest:
        """Create a guest and, unless told otherwise, wait until commands can be run in it."""
        (self.machine.share / f"{config.name}.cfg").write_text(config.text())
        created_in = self.timed(f"xl create /host/{config.name}.cfg", limit=300.0)
        domid = int(self.run(f"xl domid {config.name}").out)
        guest = self._guests[domid] = Guest(self.machine, config, domid)
        guest.created_in = created_in
        if wait:
            guest.await_agent()
            if config.role == "stock" and config.vsnd is not None:
                guest.await_card()
        return guest

    def adopt(self, config: GuestConfig, creating: Job, limit: float = 300.0) -> Guest:
        """Return a guest that a job creates, once commands can be run in it."""
        end = time.monotonic() + limit
        while (found := self.machine.run(f"xl domid {config.name}")).exit != 0:
            if not creating.running or time.monotonic() > end:
                raise MachineError(f"nobody creates {config.name}: {creating.wait(1.0)}")
            time.sleep(0.5)
        guest = self._guests[int(found.out)] = Guest(self.machine, config, int(found.out))
        guest.await_agent()
        return guest

    def destroy(self, guest: Guest) -> None:
        """Destroy a guest, and wait until nothing of it is left."""
        self.run(f"xl destroy {guest.domid}")
        self.await_gone(guest)

    def save(self, guest: Guest, *, after: str = "true") -> None:
        """Save a guest, which is gone then, once a script in dom0 has ended."""
        # Into dom0's memory: the shared folder takes no pages of another domain's.
        self.run(f"{after} && xl save {guest.domid} /run/{guest.name}.saved", limit=300.0)
        self.await_gone(guest)

    def restore(self, guest: Guest) -> None:
        """Restore a saved guest, as another domain, and wait until commands can be run in it."""
        self.run(f"xl restore /run/{guest.name}.saved && rm /run/{guest.name}.saved", limit=300.0)
        saved, guest.domid = guest.domid, int(self.run(f"xl domid {guest.name}").out)
        self.machine.moved(saved, guest.domid)
        self._guests[guest.domid] = guest
        guest.await_agent()

    def await_gone(self, guest: Guest, limit: float = LIMIT) -> None:
        """Wait until a domain is gone; one of which a page is mapped stays, as a zombie."""
        self.run(f"while xl list | grep '^[^ ]* *{guest.domid} '; do sleep 0.2; done", limit)
        self._guests.pop(guest.domid, None)

    def domains(self) -> list[str]:
        """Return xl's list, without its head: name, id, ..."""
        return self.run("xl list").out.splitlines()[1:]

    def lasting(self, config: GuestConfig) -> Guest:
        """Return the guest of this name, which outlives the test; create it if it is not there."""
        for guest in self._guests.values():
            if guest.name == config.name:
                return guest
        guest = self.create(config)
        guest.lasts = True
        return guest

    def destroy_all(self, *, lasting: bool = True) -> None:
        """Destroy all guests, or all but the lasting ones."""
        for guest in [guest for guest in self._guests.values() if lasting or not guest.lasts]:
            self.machine.run(f"xl destroy {guest.domid}")
            self.await_gone(guest)

    def attach(self, guest: Guest, card: list[str] | None = None) -> Done:
        """Attach a card live."""
        command = ["xl", "vsnd-attach", str(guest.domid), *(card or CARD)]
        return self.run(shlex.join(command))

    def detach(self, guest: Guest, device: int = 0) -> Done:
        """Detach a card live."""
        return self.run(f"xl vsnd-detach {guest.domid} {device}")

    # What is held

    def holding(self) -> Holding:
        """Count what the backend and the store hold."""
        pid = self.backend().pid
        answer = self.run(
            f"grep -c 'xen[:/]gntdev' /proc/{pid}/maps;"
            f" ls -l /proc/{pid}/fd | grep -c 'xen/\\(gntdev\\|evtchn\\)';"
            " /usr/lib/xen-[0-9]*/bin/lsevtchn 0 | grep -ci 'interdomain\\|unbound';"
            " xenstore-ls -f /local/domain/0/backend/vsnd 2>/dev/null || true"
        ).out.splitlines()
        mappings, handles, channels, *nodes = answer
        return Holding(int(mappings), int(handles), int(channels), tuple(nodes))

    def left_of(self, guest: Guest) -> str:
        """Return dom0's event channels that are a guest's, and nodes in its name, a line each."""
        return self.machine.run(
            f"/usr/lib/xen-[0-9]*/bin/lsevtchn 0 | grep -wi 'domain {guest.domid}';"
            f" xenstore-ls -f /local/domain/0/backend | grep '^[^=]*/{guest.domid}[/ ]';"
            f" xenstore-ls -f /local/domain/{guest.domid} 2>/dev/null"
        ).out

    def logs(self) -> str:
        """Return the ends of the backend's, the toolstack's and the guests' logs."""
        files = f"{LOG} /var/log/xen/*.log /var/log/xen/console/*.log"
        return self.machine.run(f"tail -n 40 {files}", limit=LIMIT).out
