# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every attack of attacks.py against a backend that serves a neighbour meanwhile.

One machine serves all attacks, each of which comes from a domain of its own and is answered for on
its own: after it, the backend lives and has logged no failure of its own; the neighbour's stream is
whole; the attacker was shown nothing of it; and once the attacker is destroyed, the backend's file
descriptors, mapped pages, threads, grants and ports are what they were.

The neighbour is an ordinary process of a host that may be busy. A gap in its sound is its own when
it was kept from running meanwhile, as it tells itself; then only silence may be in the gap.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attacks import ATTACKS, Attack
from machine import HANG, Accounts, Backend, Domain, Machine, environment, wait_until, xenaudio
from neighbour import BUFFER, RATE, SECRET
from rawfrontend import RawFrontend

ATTACK_LIMIT = 60.0
"""Seconds after which an attack is taken for a hang."""


MEMORY_MOST = 400 * 1024
"""KiB that the backend may ever hold: one guest's share is 128 MiB."""


class Neighbour:
    """The domain whose sound must not suffer (neighbour.py)."""

    NAME = "neighbour"

    def __init__(self, machine: Machine, backend: Backend, played: Path) -> None:
        self._backend = backend
        self._said = machine.directory / "neighbour.out"
        self._late = 0
        self._silence = 0
        self._gaps = dict.fromkeys(("xruns", "frames_silent", "frames_lost"), 0)
        self._wav = played / f"{self.NAME}-0-0-0.wav"
        self._stats_read = 0
        self._stats: dict[str, Any] = {}
        self._samples_at = 0
        self._read = self._frames = 0
        self.domain = machine.create(self.NAME)
        script = Path(__file__).with_name("neighbour.py")
        with self._said.open("w") as out:
            self._process = subprocess.Popen(
                [sys.executable, str(script), self.domain.socket],
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=out,
            )
        wait_until(lambda: "playing" in self._lines(), "the neighbour plays")

    def _lines(self) -> list[str]:
        """What it said so far."""
        return self._said.read_text().splitlines()

    def _is_late(self) -> bool:
        """Whether it was, since the last check."""
        return self._lines().count("late") > self._late

    def stop(self) -> None:
        """Let it play to its end, and check it once more."""
        self._process.communicate(timeout=HANG)
        assert self._process.returncode == 0
        told = json.loads(self._lines()[-1])
        assert told["underruns"] == 0 or "late" in self._lines()
        if self._is_late():
            self._silence += RATE
        self._compare()
        assert self._frames == told["frames"] > 0

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(HANG)

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Fail unless it plays, and what it played since the last check is whole, or it was late
        itself."""
        assert self._process.poll() is None, "the neighbour ended"
        before = self._stats.get("frames_out", 0)
        wait_until(lambda: self._played() > before, "the neighbour's sound goes on")
        gaps = {key: self._stats[key] - self._gaps[key] for key in self._gaps}
        self._gaps = {key: self._stats[key] for key in self._gaps}
        assert not gaps["frames_lost"], f"the neighbour's frames were lost: {gaps}"
        if any(gaps.values()):
            # One that is still kept from running has yet to say so.
            wait_until(
                self._is_late, f"late itself, or its sound has gaps for no reason: {gaps}", 2
            )
            self._silence += gaps["frames_silent"]
        self._late = self._lines().count("late")
        self._compare()

    def _played(self) -> int:
        """Read the statistics written meanwhile; return how many frames were played by then."""
        for line in self._new_stats():
            entry = json.loads(line)
            if entry["guest"] == self.NAME and not entry["capture"]:
                self._stats = entry["stats"]
        played: int = self._stats.get("frames_out", 0)
        return played

    def _new_stats(self) -> list[bytes]:
        with self._backend.stats_file.open("rb") as file:
            file.seek(self._stats_read)
            new: bytes = file.read()
        whole = new.rfind(b"\n") + 1
        self._stats_read += whole
        return new[:whole].splitlines()

    def _compare(self) -> None:
        """Compare what was added to its file."""
        with self._wav.open("rb") as file:
            if not self._samples_at:
                self._samples_at = file.read(256).find(b"data") + 8
            file.seek(self._samples_at + self._read * 8)
            new = file.read()
        frames = np.frombuffer(new[: len(new) // 8 * 8], "<u4").reshape(-1, 2)
        self._read += len(frames)
        sounding = frames.any(axis=1)
        self._silence -= len(frames) - np.count_nonzero(sounding)
        assert self._silence >= 0, "there is silence in the neighbour's sound for no reason"
        frames = frames[sounding]
        expected = np.arange(self._frames, self._frames + len(frames), dtype="<u4")
        wrong = np.flatnonzero((frames[:, 0] != expected) | (frames[:, 1] != SECRET))
        assert not len(wrong), (
            f"the neighbour's frame {expected[wrong[0]]} is {frames[wrong[0]]}: "
            "frames were lost, repeated or changed"
        )
        self._frames += len(frames)


class Site:
    """The machine, the backend under attack, and the neighbour."""

    def __init__(self, machine: Machine, played: Path) -> None:
        self.machine = machine
        self.played = played
        # With fewer files than a hostile card takes, unless the backend sees to it.
        argv = ["prlimit", "--nofile=256:", *xenaudio("serve")]
        self.backend = machine.serve("--output", f"file:{played}/", argv=argv)
        self.neighbour = Neighbour(machine, self.backend, played)
        wait_until(
            lambda: "xa-job" not in self._threads(), "what opened the neighbour's stream ends"
        )
        self._log_read = 0
        self._attackers = 0

    def holdings(self) -> dict[str, Any]:
        """What the backend has of its guests."""
        accounts: Accounts = self.backend.accounts()
        return {
            "fds": accounts.fds,
            "mapped pages": accounts.mapped_pages,
            "threads": self._threads(),
            "grants": len(self.machine.grants()),
            "ports": len(self.machine.channels()),
        }

    def _threads(self) -> list[str]:
        """Names of the data plane's threads (asyncio keeps those of its pool)."""
        names = []
        for task in Path(f"/proc/{self.backend.pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # it ended just now
                names.append((task / "comm").read_text().strip())
        return sorted(name for name in names if name.startswith("xa-"))

    def attacker(self) -> Domain:
        """Make a domain with a card for one attack."""
        self._attackers += 1
        return self.machine.create(f"attacker{self._attackers}")

    def check_backend(self) -> None:
        """Fail unless the backend lives, and no failure was unforeseen."""
        assert not self.backend.ended(), "the backend died:\n" + self.backend.log()
        status = Path(f"/proc/{self.backend.pid}/status").read_text()
        peak = next(int(s.split()[1]) for s in status.splitlines() if s.startswith("VmHWM:"))
        assert peak < MEMORY_MOST, f"the backend has held {peak} KiB"
        log = self.backend.log()
        new, self._log_read = log[self._log_read :], len(log)
        for word in ("Traceback", "not served any more", "exception was never retrieved"):
            assert word not in new, new

    def check_secret(self, attacker: Domain) -> None:
        """Fail if anything that the attacker played holds what the neighbour plays."""
        secret = SECRET.to_bytes(4, "little")
        for wav in self.played.glob(f"{attacker.name}-*"):
            assert secret not in wav.read_bytes(), f"{wav.name} holds another guest's samples"
            wav.unlink()


@contextmanager
def working_site(played: Path) -> Iterator[Site]:
    """Give a machine with a backend and a neighbour that plays."""
    machine = Machine()
    made = None
    try:
        machine.wait_for_server()
        made = Site(machine, played)
        yield made
    finally:
        if made is not None:
            made.neighbour.kill()
        machine.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Give the machine of all attacks."""
    with working_site(tmp_path_factory.mktemp("played")) as made:
        yield made
        made.neighbour.stop()


async def _do(attack: Attack, attacker: Domain, secret: bytes) -> None:
    front = await RawFrontend.open(attacker.socket)
    try:
        await asyncio.wait_for(attack(front), ATTACK_LIMIT)
        for stream in front.streams:
            if stream.ring_share is None:
                continue
            shown = [stream.ring, stream.events, *(pcm.memory for pcm in stream.pcms if pcm.octets)]
            for memory in shown:
                try:
                    octets = bytes(memory)
                except ValueError:  # its grants were ended
                    continue
                assert secret not in octets, "the attacker was shown another guest's samples"
    finally:
        front.close()


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_answered_and_a_neighbour_is_whole(site: Site, name: str) -> None:
    before = site.holdings()
    attacker = site.attacker()
    try:
        asyncio.run(_do(ATTACKS[name], attacker, SECRET.to_bytes(4, "little")))
    finally:
        site.machine.destroy(attacker.name)
    site.check_backend()
    site.neighbour.check()
    site.check_secret(attacker)
    wait_until(
        lambda: site.holdings() == before,
        f"nothing of the attacker is left (before: {before}, now: {site.holdings()})",
        10,
    )


@pytest.mark.parametrize("name", ["state_storm", "heavy_streams"])
def test_a_guest_that_comes_during_an_attack_is_served(site: Site, name: str) -> None:
    attacker = site.attacker()
    secret = SECRET.to_bytes(4, "little")
    with ThreadPoolExecutor() as threads:
        attack = threads.submit(lambda: asyncio.run(_do(ATTACKS[name], attacker, secret)))
        served = 0
        while not attack.done():
            # Waits for the backend's state 2, as xl does.
            other = site.attacker()
            site.machine.destroy(other.name)
            served += 1
        attack.result()
    site.machine.destroy(attacker.name)
    assert served
    site.check_backend()
    site.neighbour.check()


def halt(pid: int) -> None:
    """Keep a process from running for twice as long as the neighbour's buffer lasts."""
    os.kill(pid, signal.SIGSTOP)
    time.sleep(2 * BUFFER / RATE)
    os.kill(pid, signal.SIGCONT)


def halted_is_blamed(site: Site) -> bool:
    """Halt the backend; return whether the gap is found not to be the neighbour's own."""
    halt(site.backend.pid)
    try:
        site.neighbour.check()
    except AssertionError as failure:
        return "gaps" in f"{failure}"
    return False


def test_a_gap_of_the_backends_is_told_from_one_of_the_neighbours(tmp_path: Path) -> None:
    with working_site(tmp_path) as site:
        site.neighbour.check()
        halt(site.neighbour.pid)
        site.neighbour.check()
        # The host may be busy just then, and the neighbour late as well.
        assert any(halted_is_blamed(site) for _ in range(20))


def test_the_list_is_long_and_says_what_must_happen() -> None:
    assert len(ATTACKS) >= 30
    assert all(attack.__doc__ for attack in ATTACKS.values())


def test_the_neighbour_has_the_buffer_that_the_attacks_are_measured_by() -> None:
    assert BUFFER == RATE // 5
