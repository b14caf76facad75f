# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sound through the guest service: bit for bit, for ordinary users, from one to the next."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from guestservice import Client, Refused
from machine import HANG, Backend, Domain, Machine, Program, environment, wait_until, xenaudio
from pcm import COUNTER_CHANNELS, COUNTER_FORMAT, counter, judge_wav, read_wav, write_wav

from xenaudio.core.xswire import Type

RATE = 48000
SECONDS = 1.5
MORE_SECONDS = 4
LONG_SECONDS = 60

NOBODY = 65534
SOMEBODY = 65533
"""Users without a name, a home or a right."""

as_root = pytest.mark.skipif(os.getuid() != 0, reason="becomes other users: needs root")


class Room:
    """A guest with the service in it, and a folder that all users can reach."""

    def __init__(self, machine: Machine, *prefix: str) -> None:
        self.machine = machine
        self.folder = Path(tempfile.mkdtemp(prefix="xu", dir="/tmp"))
        self.folder.chmod(0o777)
        self.socket = self.folder / "guestd.sock"
        self.guest: Domain = machine.create("guest")
        self._prefix = prefix
        self._programs: list[Program] = []
        self.service = self.start()

    def start(self) -> Program:
        """Start the service."""
        command = xenaudio("guestd", "--hv", self.guest.socket, "--socket", self.socket)
        service = self.machine.run("the guest service", *self._prefix, *command)
        service.wait_for("serving domain")
        return service

    def close(self) -> None:
        for program in self._programs:
            if not program.ended():
                program.kill()
        shutil.rmtree(self.folder)

    def sound(self, name: str, seconds: float) -> tuple[Path, int]:
        """Make a file to play; returns the number of frames too."""
        frames, path = round(seconds * RATE), self.folder / f"{name}.wav"
        write_wav(path, COUNTER_FORMAT, RATE, COUNTER_CHANNELS, counter(frames))
        path.chmod(0o644)
        return path, frames

    def command(self, uid: int | None, *args: object) -> list[str]:
        """The line of `xenaudio ARGS` as a user of the guest; None: as who runs the tests."""
        words = [str(arg) for arg in args]
        if uid is None:
            return xenaudio(*words)
        return [sys.executable, str(Path(__file__).with_name("as_user.py")), str(uid), *words]

    def begin(self, uid: int | None, command: str, *args: object) -> Program:
        """Start `xenaudio play` or `record`."""
        line = self.command(uid, command, "--hv", f"guestd:{self.socket}", *args)
        program = self.machine.run(command, *line)
        self._programs.append(program)
        return program

    def run(self, uid: int | None, command: str, *args: object) -> None:
        """Run it to its end."""
        program = self.begin(uid, command, *args)
        assert program.process.wait(HANG) == 0, program.log()

    def state(self) -> str:
        """The frontend's."""
        path = f"/local/domain/{self.guest.domid}/device/vsnd/0/state"
        return self.machine.xenstore("xenstore-read", path).strip()

    def await_playing(self, path: Path) -> None:
        """Wait until something has been heard."""
        wait_until(lambda: path.exists() and path.stat().st_size > 100_000, f"{path} is heard")


@pytest.fixture
def room(machine: Machine, backend: Backend) -> Iterator[Room]:
    made = Room(machine)
    yield made
    made.close()


def assert_heard(frames: int, *paths: Path) -> None:
    """Fail unless every frame was heard, in the first file or, after a break, in the next."""
    parts = [np.frombuffer(read_wav(path).octets, "<u4") for path in paths]
    sound = [part[part != 0] for part in parts]
    for part in sound:
        assert np.all(np.diff(part.astype(np.int64)) == 1)
    assert sound[0][0] == 1
    assert sound[-1][-1] == frames
    for before, after in itertools.pairwise(sound):
        # What was buffered may be heard twice.
        assert after[0] <= before[-1] + 1


def buffered(*args: object) -> tuple[object, ...]:
    """With a buffer that outlasts a busy machine."""
    return ("--buffer-ms", "300", *args)


@as_root
def test_an_ordinary_user_plays_bit_for_bit(room: Room, played: Path) -> None:
    path, frames = room.sound("all", SECONDS)
    room.run(NOBODY, "play", *buffered(path))
    assert judge_wav(played / "guest-0-0-0.wav", frames).whole


@as_root
def test_an_ordinary_user_records_bit_for_bit(machine: Machine, tmp_path: Path) -> None:
    microphone = tmp_path / "microphone.wav"
    samples = counter(MORE_SECONDS * RATE)
    write_wav(microphone, COUNTER_FORMAT, RATE, COUNTER_CHANNELS, samples)
    machine.serve("--input", f"file:{microphone}")
    room = Room(machine)
    try:
        out = room.folder / "recorded.wav"
        room.run(NOBODY, "record", *buffered("--seconds", SECONDS, "--rate", RATE), out)
        verdict = judge_wav(out, round(SECONDS * RATE))
        assert (verdict.lost, verdict.repeated, verdict.corrupt) == (0, 0, 0), verdict
    finally:
        room.close()


@as_root
def test_an_ordinary_user_opens_no_node_of_xen_and_writes_no_other_path(room: Room) -> None:
    probe = subprocess.run(
        [
            *(sys.executable, str(Path(__file__).with_name("probe.py")), str(NOBODY)),
            *(str(room.socket), str(room.guest.socket), str(room.machine.dom0)),
        ],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert probe.returncode == 0, probe.stdout + probe.stderr


def test_what_a_user_is_given_reaches_no_store(room: Room) -> None:
    """No descriptor that comes with a reply speaks the stand-in's, or XenStore's, protocol."""
    with Client(room.socket) as client:
        client.grant(count=2)
        client.handle()
        assert len(client.fds) == 5
        for fd in client.fds:
            with pytest.raises(OSError, match="on non-socket"):
                socket.socket(fileno=os.dup(fd)).getsockname()
        with client.store() as store, pytest.raises(Refused, match="EACCES"):
            store.ask(Type.READ, b"name\0")


def test_who_waits_says_so_and_plays_when_the_owner_has_ended(room: Room, played: Path) -> None:
    first, frames = room.sound("first", SECONDS)
    second, others = room.sound("second", SECONDS)
    owner = room.begin(None, "play", *buffered(first))
    room.await_playing(played / "guest-0-0-0.wav")
    waiting = room.begin(None, "play", *buffered("--wait", HANG, second))
    assert owner.process.wait(HANG) == 0, owner.log()
    assert waiting.process.wait(HANG) == 0, waiting.log()
    assert judge_wav(played / "guest-0-0-0.wav", frames).whole
    assert judge_wav(played / "guest-0-0-0-2.wav", others).whole


def test_who_does_not_wait_is_told_why(room: Room, played: Path) -> None:
    path, _ = room.sound("long", LONG_SECONDS)
    room.begin(None, "play", *buffered(path))
    room.await_playing(played / "guest-0-0-0.wav")
    other = room.begin(None, "play", "--wait", 0.5, path)
    assert other.process.wait(HANG) == 1
    assert "another program of this guest has the card" in other.log()
    assert "is `xenaudio serve` running" not in other.log()
    assert "Traceback" not in other.log()


def test_a_killed_owners_card_is_closed_and_the_next_plays(
    room: Room, backend: Backend, played: Path
) -> None:
    path, frames = room.sound("all", SECONDS)
    long, _ = room.sound("long", LONG_SECONDS)
    before = backend.accounts()
    for attempt in range(3):
        owner = room.begin(None, "play", *buffered(long))
        name = "guest-0-0-0.wav" if attempt == 0 else f"guest-0-0-0-{2 * attempt + 1}.wav"
        room.await_playing(played / name)
        owner.kill()
        wait_until(lambda: room.state() == "6", "the card is closed")
        wait_until(lambda: not room.machine.grants("guest"), "its pages are given back")
        wait_until(lambda: not room.machine.channels("guest"), "its channels are given back")
        wait_until(lambda: backend.accounts() == before, "the backend has let go of them")
        room.run(None, "play", *buffered(path))
        assert judge_wav(played / f"guest-0-0-0-{2 * attempt + 2}.wav", frames).whole


def test_a_stopped_service_closes_the_card_and_players_go_on_with_the_next(
    room: Room, played: Path
) -> None:
    path, frames = room.sound("all", MORE_SECONDS)
    player = room.begin(None, "play", *buffered("--wait", HANG, path))
    room.await_playing(played / "guest-0-0-0.wav")
    assert room.service.terminate() == 0
    assert not room.socket.exists()
    assert room.state() == "6"
    assert not room.machine.grants("guest")
    room.start()
    assert player.process.wait(HANG) == 0, player.log()
    assert_heard(frames, played / "guest-0-0-0.wav", played / "guest-0-0-0-2.wav")


def test_a_killed_service_is_replaced_and_players_go_on(room: Room, played: Path) -> None:
    path, frames = room.sound("all", MORE_SECONDS)
    player = room.begin(None, "play", *buffered("--wait", HANG, path))
    room.await_playing(played / "guest-0-0-0.wav")
    room.service.kill()
    room.start()
    assert player.process.wait(HANG) == 0, player.log()
    assert_heard(frames, played / "guest-0-0-0.wav", played / "guest-0-0-0-2.wav")


def test_a_restored_guest_plays_on(room: Room, played: Path, tmp_path: Path) -> None:
    path, frames = room.sound("all", MORE_SECONDS)
    player = room.begin(None, "play", *buffered("--wait", HANG, path))
    room.await_playing(played / "guest-0-0-0.wav")
    room.machine.save("guest", tmp_path / "saved")
    room.guest = room.machine.restore(tmp_path / "saved")
    assert player.process.wait(HANG) == 0, player.log()
    assert_heard(frames, played / "guest-0-0-0.wav", played / "guest-0-0-0-2.wav")
    assert "it was restored" in room.service.log()
    wait_until(lambda: not room.machine.channels("guest"), "its channels are given back")


def test_a_card_detached_and_attached_again_plays_on(room: Room, played: Path) -> None:
    path, frames = room.sound("all", MORE_SECONDS)
    player = room.begin(None, "play", *buffered("--wait", HANG, path))
    room.await_playing(played / "guest-0-0-0.wav")
    room.machine.detach("guest", 0)
    room.machine.ask("attach", name="guest", vsnd=f"[{CARD_ZERO}]", wait=True)
    assert player.process.wait(HANG) == 0, player.log()
    assert_heard(frames, played / "guest-0-0-0.wav", played / "guest-0-0-0-2.wav")


CARD_ZERO = "['CARD, sample-rates=48000', 'PCM', 'STREAM, type=p', 'STREAM, type=c']"


# With logind: libsystemd reads what it says of users from files, which here the test writes, in a
# /run/systemd that only the service sees.


class Logind:
    """Says who is at the seat."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("users", "seats", "sessions", "machines"):
            (folder / name).mkdir(parents=True)

    def at_seat(self, present: int, *absent: int) -> None:
        """Switch the seat to a user."""
        for uid in absent:
            self._user(uid, "STATE=online\nACTIVE_SEATS=\nONLINE_SEATS=seat0\n")
        self._user(present, "STATE=active\nACTIVE_SEATS=seat0\nONLINE_SEATS=seat0\n")

    def _user(self, uid: int, text: str) -> None:
        # As logind does: libsystemd waits for files that are put in place.
        new = self.folder / "users" / f".{uid}"
        new.write_text(text)
        new.rename(self.folder / "users" / str(uid))


def can_unshare() -> bool:
    """Whether a process can have mounts of its own here."""
    probe = ["unshare", "--mount", "--propagation", "private", "true"]
    return (
        os.getuid() == 0
        and shutil.which("unshare") is not None
        and subprocess.run(probe, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not can_unshare(), reason="needs root and mounts of its own")
def test_the_card_follows_the_seat(
    machine: Machine, backend: Backend, played: Path, tmp_path: Path
) -> None:
    logind = Logind(tmp_path / "systemd")
    logind.at_seat(NOBODY)
    script = 'mkdir -p /run/systemd && mount --bind "$0" /run/systemd && exec "$@"'
    room = Room(
        machine,
        *("unshare", "--mount", "--propagation", "private", "sh", "-c", script),
        str(logind.folder),
    )
    try:
        first, frames = room.sound("first", MORE_SECONDS)
        second, others = room.sound("second", SECONDS)
        owner = room.begin(NOBODY, "play", *buffered("--wait", HANG, first))
        room.await_playing(played / "guest-0-0-0.wav")
        waiting = room.begin(SOMEBODY, "play", *buffered("--wait", HANG, second))
        room.service.wait_for(f"user {SOMEBODY} waits for user {NOBODY}")
        logind.at_seat(SOMEBODY, NOBODY)
        assert waiting.process.wait(HANG) == 0, waiting.log()
        assert judge_wav(played / "guest-0-0-0-2.wav", others).whole
        # The other one goes on when the card is free.
        assert owner.process.wait(HANG) == 0, owner.log()
        assert "another program of this guest has the card" in owner.log()
        assert_heard(frames, played / "guest-0-0-0.wav", played / "guest-0-0-0-3.wav")
    finally:
        room.close()
