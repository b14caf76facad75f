# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xenaudio demo`: the whole path in one command, its results and its refusals."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import pytest
from pcm import named, random_samples, write_wav

from xenaudio.cli import main as command
from xenaudio.cli.demo import clip as demo_clip

RATE = 48000
BUFFER = ("--buffer-ms", "300")  # the tests' machine is busy


def make(path: Path, frames: int) -> Path:
    """Make a clip of noise, 48 kHz s16 stereo."""
    format = named("s16_le")
    write_wav(path, format, RATE, 2, random_samples(format, 2 * frames, frames))
    return path


def demo(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "xenaudio.cli.main", "demo", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def decode(path: Path) -> tuple[int, int, int, bytes]:
    """Read a WAV file by Python's own means."""
    with wave.open(str(path)) as file:
        frames = file.readframes(file.getnframes())
        return file.getframerate(), file.getnchannels(), file.getsampwidth(), frames


def report_of(out: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def test_what_a_guest_plays_arrives_bit_for_bit(tmp_path: Path) -> None:
    frames = RATE * 3 // 2
    clip, out = make(tmp_path / "clip.wav", frames), tmp_path / "new" / "out"
    ended = demo(clip, "--out", out, *BUFFER)
    assert ended.returncode == 0, ended.stdout + ended.stderr

    assert decode(out / "played.wav") == decode(clip)

    report = report_of(out)
    assert report["bit_exact"] is True
    assert report["frames_sent"] == report["frames_received"] == frames
    assert report["frames_lost"] == report["frames_repeated"] == 0
    assert report["underruns"] == 0
    # The guest keeps its buffer of 300 ms full: a frame waits for it all, less a period at most.
    # (This limits no speed: with less, frames were heard before they were written.)
    latency = report["latency_ms"]
    assert 280 < latency["p50"] <= latency["p99"] <= latency["max"]
    for figure in ("cpu_s_per_60s", "wakeups_per_s"):
        assert set(report[figure]) == {"guest", "backend"}
        assert all(value > 0 for value in report[figure].values())
    assert report["setup_s"] > 0

    picture = (out / "picture.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack_from(">II", picture, 16)
    assert 600 <= width <= 3000
    assert 300 <= height <= 3000

    for said in ("bit-exact  yes", f"{frames} sent, {frames} received, 0 lost, 0 repeated"):
        assert said in ended.stdout


@pytest.mark.parametrize("name", ["float_le", "float64_le", "s24_le", "u8"])
def test_a_clip_of_any_format_arrives_bit_for_bit(tmp_path: Path, name: str) -> None:
    format, clip, out = named(name), tmp_path / "clip.wav", tmp_path / "out"
    write_wav(clip, format, 44100, 6, random_samples(format, 6 * 22050, 1))
    ended = demo(clip, "--out", out, *BUFFER)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert report_of(out)["bit_exact"] is True


@pytest.mark.parametrize("frames", [1, 1440])
def test_a_clip_that_ends_before_it_is_looked_at(tmp_path: Path, frames: int) -> None:
    clip = make(tmp_path / "clip.wav", frames)
    ended = demo(clip, "--out", tmp_path, *BUFFER)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert decode(tmp_path / "played.wav") == decode(clip)
    report = report_of(tmp_path)
    assert report["bit_exact"] is True
    for figure in ("cpu_s_per_60s", "wakeups_per_s"):
        assert set(report[figure]) == {"guest", "backend"}


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    return line


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert command.main(["demo", str(tmp_path / "none.wav"), "--out", str(out)]) == 1
    assert one_line(capsys).endswith("none.wav: there is no such file")
    assert not out.exists()


def test_a_file_that_is_no_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong, out = tmp_path / "letter.txt", tmp_path / "out"
    wrong.write_text("Dear Sir or Madam\n")
    assert command.main(["demo", str(wrong), "--out", str(out)]) == 1
    assert one_line(capsys).endswith("letter.txt: not a sound file (expected WAV or FLAC)")
    assert not out.exists()


def test_a_file_without_a_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = make(tmp_path / "empty.wav", 0)
    assert command.main(["demo", str(empty), "--out", str(tmp_path / "out")]) == 1
    assert one_line(capsys).endswith("empty.wav: there is no sound in it")


def test_voices_that_are_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(demo_clip, "VOICES", tmp_path / "nowhere")
    assert command.main(["demo", "--out", str(out)]) == 1
    line = one_line(capsys)
    assert "nowhere/Front_Left.wav is missing" in line
    assert "alsa-utils" in line
    assert not out.exists()


def test_voices_are_joined_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_clip, "VOICES", tmp_path)
    for i, name in enumerate(demo_clip.ORDER):
        make(tmp_path / f"{name}.wav", 10 + i)
    clip = demo_clip.make_clip(None, tmp_path / "new" / "clip.wav")
    assert clip.frames == sum(10 + i for i in range(len(demo_clip.ORDER)))
    assert decode(clip.path)[3] == b"".join(
        decode(tmp_path / f"{name}.wav")[3] for name in demo_clip.ORDER
    )


def test_results_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip, occupied = make(tmp_path / "clip.wav", 100), tmp_path / "occupied"
    occupied.write_text("mine")
    for out in (occupied, occupied / "below"):
        assert command.main(["demo", str(clip), "--out", str(out)]) == 1
        assert str(occupied) in one_line(capsys)
    assert occupied.read_text() == "mine"


def test_a_clip_in_the_place_of_a_result_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = make(tmp_path / "played.wav", 100)
    before = clip.read_bytes()
    assert command.main(["demo", str(clip), "--out", str(tmp_path)]) == 1
    assert "a result is to be written there" in one_line(capsys)
    assert clip.read_bytes() == before


def test_a_guest_that_fails_is_told_with_its_log(tmp_path: Path) -> None:
    clip = make(tmp_path / "clip.wav", 100)
    ended = demo(clip, "--out", tmp_path / "out", "--period-ms", "5000")
    assert ended.returncode == 1
    assert "the guest ended with status 1" in ended.stderr
    assert "this stream takes" in ended.stderr
    assert "Traceback" not in ended.stderr
