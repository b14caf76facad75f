# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a hostile guest can do, done from a real one while another guest plays.

The list is that of tests/xenaudio/hostile/attacks.py, as it is; each attack says itself how it must
be answered. One guest does them all, and dies of the last ones.

The machine has one processor. So what the attacker does to shared memory while the backend reads it
comes between two of the backend's instructions only where Xen takes the processor from dom0.
"""

from __future__ import annotations

import ast
import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from .dom0 import PLAYED, Backend, Dom0, Holding
from .domain import neighbour
from .figures import Figures
from .guest import Guest, GuestConfig
from .images import TREE
from .machine import Job
from .test_lifecycle import eventually, plays_bit_exact

HOSTILE = TREE / "tests/xenaudio/hostile"
FOLDER = "/run/hostile"
ATTACKER = f"PYTHONPATH={FOLDER} exec python3 /harness/attacker.py"
LIMIT = 1500.0
"""Seconds for all attacks together: on an idle host an emulated machine takes two minutes, on one
with others at work five times that."""
MEMORY_MOST = 400 * 1024
"""KiB that the backend may ever hold: one guest's share is 128 MiB."""

ATTACKS = [
    node.name
    for node in ast.parse((HOSTILE / "attacks.py").read_text()).body
    if isinstance(node, ast.AsyncFunctionDef)
    and any(isinstance(mark, ast.Name) and mark.id == "attack" for mark in node.decorator_list)
]
DEADLY = [name for name in ATTACKS if name.startswith("dies_")]
"""They end with the guest's death: this guest dies in all of them at once, with a card for each."""
FINAL = "nodes_removed"
"""Only the toolstack can make a card's nodes again: it has the last card."""

CARD = (
    "CARD, short-name=Main, sample-rates=8000;44100;48000;96000, buffer-size=1048576",
    "PCM, name=Main",
    "STREAM, unique-id=p, type=p",
    "STREAM, unique-id=c, type=c",
)
"""The card that the attacks count on."""


@dataclass
class Attacked:
    """What was found when all attacks were done."""

    dom0: Dom0
    backend: Backend
    neighbour: Guest
    pid: int
    """The backend's process before them."""
    before: Holding
    """What was held before the attacker was created, while the neighbour did not play."""
    kernel: list[str]
    """Lines of dom0's kernel log before them."""
    answers: dict[str, str | None]
    """What was wrong with the answer to each attack."""
    said: str
    """What the neighbour's player said."""
    heard: bytes
    """What was heard of the neighbour, a WAV file."""
    shown: list[str]
    """What the attacker played: files that hold something of the neighbour's."""
    seconds: float
    """What the attacks took, by the attacker's clock."""


class Neighbour:
    """A stock guest that plays without an end."""

    # As large a buffer as its card has, a sixth of a second: the guest has to be on time itself.
    ALSA = "-D hw:0,0 -q -t raw -f S32_LE -r 48000 -c 2 --period-size=2048 --buffer-size=8192"

    def __init__(self, dom0: Dom0, guest: Guest) -> None:
        self._dom0 = dom0
        dom0.forget_played(guest)
        self._job: Job = guest.start(f"python3 /harness/neighbour.py | exec aplay {self.ALSA} -")
        self._file = f"{PLAYED}/{guest.name}-0-0-0.wav"

    def _played(self) -> int:
        return int(self._dom0.run(f"stat -c %s {self._file} 2>/dev/null || echo 0").out)

    def await_more(self) -> None:
        """Wait until a second more was played."""
        before = self._played()

        def more() -> bool:
            assert self._job.running, self._job.wait()
            return self._played() > before + neighbour.RATE * neighbour.OCTETS

        eventually(more, "the neighbour plays")

    def stop(self) -> str:
        """Have it end; return what aplay said."""
        assert self._job.running, self._job.wait()
        self._job.signal()
        return self._job.wait().err

    def heard(self) -> bytes:
        """Return what was heard of it, a WAV file."""
        (file,) = self._dom0.fetch(self._file)
        return file.read_bytes()


def attack(dom0: Dom0, attacker: Guest) -> Iterator[dict[str, Any]]:
    """Have a guest do all attacks, and die; give the answers."""
    first = " ".join(name for name in ATTACKS if name not in (*DEADLY, FINAL))
    last = " ".join(f"{name}@{card}" for card, name in enumerate(DEADLY))
    secret = neighbour.SECRET.to_bytes(4, "little").hex()
    answers = f"{FOLDER}/answers"
    attacker.run(f"mkfifo {answers}")
    attacking = attacker.start(
        f"{ATTACKER} {secret} {first} {FINAL}@{len(DEADLY)} -- {last} >{answers}"
    )
    yield from map(json.loads, attacker.run(f"cat {answers}", LIMIT).out.splitlines())
    # It tells of something at once, and then when a domain ends.
    ended = dom0.start("xenstore-watch -n 2 @releaseDomain")
    attacking.signal(signal.SIGUSR1)
    eventually(lambda: not attacking.running or not ended.running, "the attacker dies")
    if attacking.running:
        dom0.await_gone(attacker)
    else:
        dom0.destroy(attacker)
    error = None if attacking.running else f"{attacking.wait()}"
    yield from ({"name": name, "error": error, "seconds": 0} for name in DEADLY)


@pytest.fixture(scope="module")
def attacked(booted: Dom0) -> Iterator[Attacked]:
    """Have a guest do all attacks while another plays."""
    dom0 = booted
    dom0.stop_backend()
    # Nothing but silence to record, in any format.
    backend = dom0.start_backend(f"--output=file:{PLAYED}/")
    stock = dom0.lasting(GuestConfig("stock", "stock"))
    backend.await_log(f"{stock} vsnd 0: connected")
    stock.await_card()
    pid, before = backend.pid, dom0.holding()
    kernel = dom0.run("dmesg").out.splitlines()

    attacking = GuestConfig("attacker", "debian", CARD, cards=len(DEADLY) + 1, memory=192)
    attacker = dom0.create(attacking)
    # The most that this domain may share, in pages: nothing but the guest itself holds it back.
    attacker.run("echo 100000 >/sys/module/xen_gntalloc/parameters/limit")
    attacker.put([HOSTILE / "attacks.py", HOSTILE / "rawfrontend.py"], FOLDER)
    playing = Neighbour(dom0, stock)
    playing.await_more()
    done = list(attack(dom0, attacker))
    playing.await_more()
    said = playing.stop()

    theirs = f"{PLAYED}/{attacker.name}-*"
    octets = "".join(f"\\x{octet:02x}" for octet in neighbour.SECRET.to_bytes(4, "little"))
    shown = dom0.run(f"LC_ALL=C grep -lP '{octets}' {theirs} || true; rm {theirs}").out.split()
    yield Attacked(
        dom0,
        backend,
        stock,
        pid,
        before,
        kernel,
        answers={answer["name"]: answer["error"] for answer in done},
        said=said,
        heard=playing.heard(),
        shown=shown,
        seconds=sum(answer["seconds"] for answer in done),
    )
    backend.stop()


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_answered(attacked: Attacked, name: str) -> None:
    assert name in attacked.answers, "it was not done"
    assert attacked.answers[name] is None, attacked.answers[name]


def test_neighbour_is_whole(attacked: Attacked, figures: Figures) -> None:
    assert "underrun" not in attacked.said
    frames = neighbour.whole(attacked.heard[attacked.heard.index(b"data") + 8 :])
    assert frames > neighbour.RATE
    figures.add("attacks from a real guest: the neighbour's sound", "s", frames / neighbour.RATE)
    figures.add("attacks from a real guest: by its clock", "s", attacked.seconds)


def test_nothing_of_the_neighbour_was_played_for_the_attacker(attacked: Attacked) -> None:
    # What was shared with the backend for it to record into is looked through in the guest.
    assert not attacked.shown


def test_backend_is_well(attacked: Attacked, figures: Figures) -> None:
    assert attacked.backend.running
    assert attacked.backend.pid == attacked.pid
    log = attacked.backend.log()
    for word in ("Traceback", "not served any more", "exception was never retrieved"):
        assert word not in log, log
    status = attacked.dom0.run(f"grep VmHWM /proc/{attacked.pid}/status").out
    peak = int(status.split()[1])
    figures.add("attacks from a real guest: the backend's memory", "MiB", peak / 1024)
    assert peak < MEMORY_MOST


def test_nothing_is_left_of_the_attacker(attacked: Attacked) -> None:
    before = attacked.before
    eventually(lambda: attacked.dom0.holding() == before, f"what is held is as before, {before}")


def test_dom0_is_well(attacked: Attacked) -> None:
    new = attacked.dom0.run("dmesg").out.splitlines()[len(attacked.kernel) :]
    trouble = ("BUG", "Oops", "Call Trace", "WARNING", "hung task", "Out of memory", "lockup")
    assert not [line for line in new if any(word in line for word in trouble)]
    assert attacked.dom0.domains()


def test_neighbour_plays_bit_exact_afterwards(attacked: Attacked) -> None:
    plays_bit_exact(attacked.dom0, attacked.neighbour, 71)
