# SPDX-License-Identifier: LGPL-2.1-or-later
"""The processes that belong to a domain: stopped, continued and killed with it.

A process is registered by its pid. With it, these belong to the domain: its descendants; when it
leads them, the members of its process group and session; and whatever has `MARK` with the domain's
socket in its environment, which a daemon keeps that has left all of those. A pid is told from a
later one by the time at which the process began.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

MARK = "XENAUDIO_LOCALHV_RUN"


@dataclass(frozen=True)
class _Stat:
    pid: int
    state: str
    parent: int
    group: int
    session: int
    start: int


def _stat(pid: int) -> _Stat | None:
    """What /proc says of a process; None when it is gone (or dead, and only not waited for)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1")
    except OSError:
        return None
    words = text[text.rindex(")") + 2 :].split()
    if words[0] in "ZX":
        return None
    return _Stat(pid, words[0], int(words[1]), int(words[2]), int(words[3]), int(words[19]))


def _has_environment(pid: int, entry: bytes) -> bool:
    try:
        return entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _all() -> list[_Stat]:
    found = (_stat(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [stat for stat in found if stat is not None]


class Processes:
    """The processes of one domain."""

    def __init__(self, mark: str) -> None:
        self._entry = os.fsencode(f"{MARK}={mark}")
        self._roots: set[tuple[int, int]] = set()  # pid, start
        self._known: set[tuple[int, int]] = set()  # the same, of all that were ever seen

    def register(self, pid: int) -> None:
        """Adds a process. ProcessLookupError when there is none."""
        stat = _stat(pid)
        if stat is None:
            raise ProcessLookupError(f"no process {pid}")
        self._roots.add((pid, stat.start))

    def members(self) -> list[int]:
        """The pids of all that are alive."""
        if not self._roots and not self._known:
            return []
        everyone = _all()
        by_key = {(stat.pid, stat.start): stat for stat in everyone}
        # One that was a member stays one, also when its parent is gone.
        self._known = {key for key in self._known | self._roots if key in by_key}
        ids = {pid for pid, _ in self._known}
        # A group or session outlives its leader, and its id is not given out again before.
        leaders = {pid for pid, _ in self._roots}
        marked = {stat.pid for stat in everyone if _has_environment(stat.pid, self._entry)}
        grew = True
        while grew:
            grew = False
            for stat in everyone:
                if stat.pid in ids or stat.pid == os.getpid():
                    continue
                if (
                    stat.pid in marked
                    or stat.parent in ids
                    or stat.group in leaders
                    or stat.session in leaders
                ):
                    ids.add(stat.pid)
                    self._known.add((stat.pid, stat.start))
                    grew = True
        return sorted(ids)

    def signal(self, number: int) -> None:
        """Sends a signal to all of them."""
        for pid in self.members():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
            except PermissionError as error:
                log.warning("cannot send signal %d to process %d: %s", number, pid, error)

    def kill(self) -> None:
        """Kills all of them: stopped first, so that none can fork away meanwhile."""
        self.signal(signal.SIGSTOP)
        self.signal(signal.SIGKILL)

    async def gone(self, timeout: float) -> bool:
        """Waits until none is alive any more, for at most `timeout` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while self.members():
            # Looking for members is slow beside looking at those that are known.
            while any(_is_alive(*key) for key in self._known):
                if loop.time() >= deadline:
                    return False
                await asyncio.sleep(0.02)
        return True


def _is_alive(pid: int, start: int) -> bool:
    stat = _stat(pid)
    return stat is not None and stat.start == start
