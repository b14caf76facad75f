# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xenaudio demo`: the whole path in one command, its results and its refusals."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
import wave
from pathlib import Path
from typing import Any

import pytest
from pcm import named, random_samples, write_wav

from xenaudio.cli import main as command
from xenaudio.cli.demo import clip as demo_clip
from xenaudio.cli.headlesspulse import MODULES, headless_pulse

RATE = 48000
DIRECT = ("--client", "direct")
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
    ended = demo(clip, "--out", out, *DIRECT, *BUFFER)
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


@pytest.fixture
def _modules() -> None:
    if MODULES not in os.environ:
        pytest.skip(f"{MODULES} does not name the folder of the modules")


@pytest.mark.usefixtures("_modules")
@pytest.mark.parametrize("name", ["s16_le", "s24_le", "float_le"])
def test_what_a_client_of_pulseaudio_plays_arrives_bit_for_bit(tmp_path: Path, name: str) -> None:
    format, clip, out = named(name), tmp_path / "clip.wav", tmp_path / "out"
    frames = RATE * 3 // 2
    write_wav(clip, format, RATE, 2, random_samples(format, 2 * frames, 1))
    ended = demo(clip, "--out", out, "--buffer-ms", "600")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = report_of(out)
    assert report["bit_exact"] is True
    assert report["frames_sent"] == report["frames_received"] == frames
    assert report["latency_ms"]["p50"] > 0
    for said in (
        "through    PulseAudio and the guest service; the stand-in for Xen",
        "bit-exact  yes",
        "as PulseAudio told its client",
    ):
        assert said in ended.stdout


@pytest.mark.usefixtures("_modules")
def test_a_format_that_pulseaudio_lacks(tmp_path: Path) -> None:
    clip = tmp_path / "clip.wav"
    write_wav(clip, named("float64_le"), RATE, 1, bytes(8 * 100))
    ended = demo(clip, "--out", tmp_path / "out")
    assert ended.returncode == 1
    assert "PulseAudio does not have its format, float64_le: take --client direct" in ended.stderr


def test_without_the_module_it_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODULES, str(tmp_path))
    ended = demo(make(tmp_path / "clip.wav", 100), "--out", tmp_path / "out")
    assert ended.returncode == 1
    assert "has no module-xenpv-sink.so" in ended.stderr
    assert "or take --client direct" in ended.stderr


def test_aloud_it_plays_on_a_sound_server_and_compares_nothing(tmp_path: Path) -> None:
    clip, out = make(tmp_path / "clip.wav", RATE), tmp_path / "out"
    script = ["load-module module-null-sink sink_name=loud"]
    # Socket paths are short; tmp_path is not.
    with tempfile.TemporaryDirectory(prefix="xa") as folder:
        place = Path(folder) / "pulse"
        with headless_pulse("sound server", place, script) as (_process, address):
            ended = demo(clip, "--out", out, *DIRECT, *BUFFER, "--output", f"pulse:{address}")
    report = report_of(out)
    assert ended.returncode == (1 if report["frames_dropped"] else 0), ended.stderr
    assert report["bit_exact"] is None
    assert report["frames_received"] is None
    assert "bit-exact  not compared: it went to a sound server" in ended.stdout
    assert not (out / "played.wav").exists()


def test_without_its_sound_server_it_fails(tmp_path: Path) -> None:
    clip, out = make(tmp_path / "clip.wav", RATE // 2), tmp_path / "out"
    ended = demo(clip, "--out", out, *DIRECT, "--output", f"pulse:unix:{tmp_path}/none")
    assert ended.returncode == 1
    assert report_of(out)["frames_dropped"] == RATE // 2


def test_an_output_that_is_not_heard_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["demo", "--output", "null", "--out", str(tmp_path / "out")]) == 1
    assert one_line(capsys).endswith("expected 'pulse' or 'pulse:SERVER,DEVICE'")


@pytest.mark.parametrize("name", ["float_le", "float64_le", "s24_le", "u8"])
def test_a_clip_of_any_format_arrives_bit_for_bit(tmp_path: Path, name: str) -> None:
    format, clip, out = named(name), tmp_path / "clip.wav", tmp_path / "out"
    write_wav(clip, format, 44100, 6, random_samples(format, 6 * 22050, 1))
    ended = demo(clip, "--out", out, *DIRECT, *BUFFER)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert report_of(out)["bit_exact"] is True


@pytest.mark.parametrize("frames", [1, 1440])
def test_a_clip_that_ends_before_it_is_looked_at(tmp_path: Path, frames: int) -> None:
    clip = make(tmp_path / "clip.wav", frames)
    ended = demo(clip, "--out", tmp_path, *DIRECT, *BUFFER)
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
    ended = demo(clip, "--out", tmp_path / "out", *DIRECT, "--period-ms", "5000")
    assert ended.returncode == 1
    assert "the guest ended with status 1" in ended.stderr
    assert "this stream takes" in ended.stderr
    assert "Traceback" not in ended.stderr
