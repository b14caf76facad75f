# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xenaudio play` and `xenaudio record` as a person runs them, with `xenaudio serve` behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted_backend import Machine, samples

from xenaudio.core.format import Format, by_name
from xenaudio.core.soundfile import SoundFileInfo, SoundReader, SoundWriter

VSND = """[['CARD, sample-rates=8000;44100;48000;96000, buffer-size=1048576, channels-max=6',
            'PCM, sample-formats=u8;s16_le;s24_le;s32_le;f32_le',
            'STREAM, unique-id=play, type=p', 'STREAM, unique-id=mic, type=c',
            'PCM, sample-formats=s32_be', 'STREAM, unique-id=wide, type=p']]"""


# A buffer so large that a machine that is busy with other tests does not make it run dry.
SLOW_MACHINE = ("--buffer-ms", "300")


class Room:
    """A guest, a backend that plays into files and records from one, and a folder."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine, self.folder = machine, folder
        self.out = folder / "out"
        self.out.mkdir()
        self.mic = folder / "mic.wav"
        self._backend: subprocess.Popen[bytes] | None = None

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "xenaudio.cli.main", *args]

    def serve(self) -> None:
        self._backend = subprocess.Popen(
            self.command(
                *("serve", "--hv", str(self.machine.hv.dom0.socket)),
                *("--output", f"file:{self.out}", "--input", f"file:{self.mic}"),
            ),
            stderr=subprocess.DEVNULL,
        )

    def end_serve(self, number: int = signal.SIGTERM) -> None:
        if self._backend is not None:
            self._backend.send_signal(number)
            self._backend.wait(20)
            self._backend = None

    def create_guest(self) -> None:
        guest = asyncio.run(self.machine.do(self.machine.hv.create("guest", vsnd=VSND)))
        self.env = {**os.environ, "XENAUDIO_HV": str(guest.socket)}

    def run(self, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.command(*args), env=self.env, input=stdin, capture_output=True, timeout=60
        )

    def played(self, format: Format) -> list[bytes]:
        """What arrived, file by file."""
        files = sorted(self.out.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        return [whole(path, format) for path in files]


def whole(path: Path, format: Format) -> bytes:
    with SoundReader(str(path), format) as reader:
        return reader.read(10_000_000 // reader.frame_octets)


@pytest.fixture
def room(machine: Machine, tmp_path: Path) -> Iterator[Room]:
    room = Room(machine, tmp_path)
    write(room.mic, by_name("s16_le"), 48000, 2, 0.5)
    room.serve()
    try:
        room.create_guest()
        yield room
    finally:
        room.end_serve()


def write(path: Path, format: Format, rate: int, channels: int, seconds: float) -> bytes:
    """Make a sound file; returns its samples in `format`."""
    frames = round(rate * seconds)
    sound = bytearray(samples(frames * format.frame_octets(channels)))
    if format.name == "s24_le":
        sound[3::4] = bytes(0xFF if octet & 0x80 else 0 for octet in sound[2::4])
    if format.name == "float_le":
        sound[3::4] = bytes([0x3E]) * len(sound[3::4])  # neither infinite nor no number
    with SoundWriter(str(path), format, rate, channels) as writer:
        writer.write(sound)
    return bytes(sound)


@pytest.mark.parametrize(
    ("format", "rate", "channels", "period_ms", "ending"),
    [
        ("u8", 8000, 1, "100", "wav"),
        ("s16_le", 44100, 2, "20", "wav"),
        ("s16_le", 48000, 2, "2", "flac"),
        ("s24_le", 96000, 2, "10", "flac"),
        ("s32_le", 48000, 6, "10", "wav"),
        ("float_le", 48000, 6, "50", "wav"),
    ],
)
def test_a_file_arrives_bit_for_bit(
    room: Room, format: str, rate: int, channels: int, period_ms: str, ending: str
) -> None:
    path = room.folder / f"in.{ending}"
    sound = write(path, by_name(format), rate, channels, 0.4)
    stats = room.folder / "stats.json"
    geometry = ("--period-ms", period_ms, *SLOW_MACHINE)
    done = room.run("play", str(path), *geometry, "--stats", str(stats))
    assert done.returncode == 0, done.stderr
    room.end_serve()
    assert room.played(by_name(format)) == [sound]
    told = json.loads(stats.read_text())
    assert told["format"] == format
    assert told["frames_sent"] == told["frames_heard"] == round(rate * 0.4)
    assert told["trace"]


def test_a_format_that_the_card_lacks_goes_in_a_wider_one(room: Room) -> None:
    path = room.folder / "in.wav"
    write(path, by_name("s16_le"), 48000, 2, 0.2)
    assert room.run("play", str(path), "--pcm", "1", *SLOW_MACHINE).returncode == 0
    room.end_serve()
    assert room.played(by_name("s32_be")) == [whole(path, by_name("s32_be"))]


def test_a_format_that_nothing_holds_is_refused(room: Room) -> None:
    path = room.folder / "in.wav"
    write(path, by_name("float_le"), 48000, 2, 0.2)
    done = room.run("play", str(path), "--pcm", "1")
    assert done.returncode == 1
    assert b"this stream takes s32_be" in done.stderr
    assert b"has float_le" in done.stderr
    assert not list(room.out.iterdir())


def test_a_wav_from_a_pipe_and_raw_samples(room: Room) -> None:
    path = room.folder / "in.wav"
    sound = write(path, by_name("s24_le"), 48000, 2, 0.2)
    assert room.run("play", "-", *SLOW_MACHINE, stdin=path.read_bytes()).returncode == 0
    raw = ("--rate", "48000", "--channels", "2", "--format", "s24_le")
    assert room.run("play", "-", *raw, *SLOW_MACHINE, stdin=sound).returncode == 0
    room.end_serve()
    assert room.played(by_name("s24_le")) == [sound, sound]


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_a_recording_is_what_the_microphone_gave(room: Room, ending: str) -> None:
    path = room.folder / f"rec.{ending}"
    done = room.run("record", str(path), "--seconds", "0.3", "--period-ms", "10", *SLOW_MACHINE)
    assert done.returncode == 0, done.stderr
    got = whole(path, by_name("s16_le"))
    assert len(got) == round(0.3 * 48000) * 4
    assert got == whole(room.mic, by_name("s16_le"))[: len(got)]


def test_a_recording_ended_by_ctrl_c_is_whole(room: Room) -> None:
    path = room.folder / "rec.wav"
    recording = subprocess.Popen(room.command("record", str(path)), env=room.env)
    while not path.exists() or path.stat().st_size < 20000:
        assert recording.poll() is None
        time.sleep(0.01)
    recording.send_signal(signal.SIGINT)
    assert recording.wait(20) == 130
    info = SoundFileInfo(str(path))
    assert info.frames > 0
    with wave.open(str(path)) as file:
        assert file.getnframes() == info.frames


def test_play_goes_on_with_the_first_frame_not_heard_when_the_backend_returns(room: Room) -> None:
    path = room.folder / "in.wav"
    sound = write(path, by_name("s16_le"), 48000, 2, 2.0)
    playing = subprocess.Popen(
        room.command("play", str(path), "--buffer-ms", "1000"),
        env=room.env,
        stderr=subprocess.PIPE,
    )
    (first,) = wait_for_files(room, 1, 100_000)
    room.end_serve()
    before = whole(first, by_name("s16_le"))
    room.serve()
    _, stderr = playing.communicate(timeout=60)
    assert playing.returncode == 0
    assert b"waiting for the backend" in stderr
    room.end_serve()
    after = room.played(by_name("s16_le"))[-1]
    assert sound.startswith(before)
    assert sound.endswith(after)
    assert len(before) + len(after) >= len(sound)


def wait_for_files(room: Room, count: int, octets: int) -> list[Path]:
    while True:
        files = [path for path in room.out.iterdir() if path.stat().st_size >= octets]
        if len(files) >= count:
            return files
        time.sleep(0.01)


def test_ctrl_c_ends_playing_in_order(room: Room) -> None:
    path = room.folder / "in.wav"
    write(path, by_name("s16_le"), 48000, 2, 20.0)
    playing = subprocess.Popen(room.command("play", str(path)), env=room.env)
    wait_for_files(room, 1, 20_000)
    playing.send_signal(signal.SIGINT)
    assert playing.wait(20) == 130
    write(path, by_name("s16_le"), 48000, 2, 0.1)
    assert room.run("play", str(path)).returncode == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["/nonexistent.wav"], "there is no such file"),
        ([__file__], "not a sound file"),
        (["IN", "--pcm", "7"], "no playback stream --pcm 7; it has PCM 0 stream 0"),
        (["IN", "--buffer-ms", "9000"], "--buffer-ms 9000: this stream takes 40 to"),
        (["IN", "--period-ms", "9000"], "--period-ms 9000: this stream takes"),
        (["IN", "--device", "4", "--wait", "0.3"], "no sound card device/vsnd/4"),
        (["IN", "--hv", "/nonexistent", "--wait", "0.3"], "cannot be reached"),
        (["IN", "--rate", "8000"], "--rate is for raw samples"),
        (["-"], "raw samples need --rate, --channels and --format"),
        (["ODD"], "this stream takes 8000, 44100, 48000, 96000 Hz"),
        (["MANY"], "this stream takes 1 to 6 channels"),
    ],
)
def test_what_cannot_be_played_is_said_in_one_line(room: Room, args: list[str], said: str) -> None:
    write(room.folder / "IN", by_name("s16_le"), 48000, 2, 0.1)
    write(room.folder / "ODD", by_name("s16_le"), 22050, 1, 0.1)
    write(room.folder / "MANY", by_name("s16_le"), 48000, 8, 0.1)
    done = room.run("play", *[str(room.folder / a) if a.isupper() else a for a in args])
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert said in done.stderr.decode()


def test_what_a_file_cannot_hold_is_not_recorded(room: Room) -> None:
    path = room.folder / "rec.flac"
    done = room.run("record", str(path), "--format", "s32_le", "--seconds", "0.1")
    assert done.returncode == 1
    assert not path.exists()
