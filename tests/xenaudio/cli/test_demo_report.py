# SPDX-License-Identifier: LGPL-2.1-or-later
"""The demo's report: a header that lies, damage, and clips too short to measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pcm import named, random_samples, write_wav

from xenaudio.cli.demo.clip import Clip, make_clip
from xenaudio.cli.demo.report import (
    TOO_SHORT,
    Measured,
    compare,
    finish_report,
    played_files,
)
from xenaudio.cli.procusage import Usage

RATE = 48000
FRAMES = 4800
SAMPLES = random_samples(named("s16_le"), 2 * FRAMES, 1)
BACKEND = {
    "xruns": 0,
    "period_octets": 1920,
    "buffer_octets": 15360,
    "frame_octets": 4,
    "frames_dropped": 0,
    "frames_lost": 0,
}


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    """Give a clip of 0.1 s."""
    path = tmp_path / "sent.wav"
    write_wav(path, named("s16_le"), RATE, 2, SAMPLES)
    return make_clip(str(path), tmp_path / "unused.wav")


def play(out: Path, samples: bytes, rate: int = RATE, channels: int = 2) -> Path:
    """Leave what a backend would have."""
    path = out / "played.wav"
    write_wav(path, named("s16_le"), rate, channels, samples)
    return path


def measured(**changes: Any) -> Measured:
    """Return what a demo measures."""
    values: dict[str, Any] = {
        "begin_s": 0.5,
        "usage": {"guest": Usage(2.0, 0.1, 200), "backend": Usage(2.0, 0.2, 400)},
        "backend": BACKEND,
        "trace": [[1_000_000_000, 0, 960, 1], [1_020_000_000, 960, 480, 1]],
        "guest": {"trace": [[1_001_000_000, 960, 0]]},
    }
    return Measured(**{**values, **changes})


@pytest.mark.parametrize(
    ("name", "channels"),
    [("u8", 1), ("s16_le", 2), ("s24_le", 2), ("s32_le", 1), ("float_le", 2), ("mu_law", 1)],
)
def test_the_same_samples_under_the_same_header_are_bit_exact(
    tmp_path: Path, name: str, channels: int
) -> None:
    format = named(name)
    samples = random_samples(format, channels * FRAMES, 2)
    for file in ("sent.wav", "played.wav"):
        write_wav(tmp_path / file, format, RATE, channels, samples)
    clip = make_clip(str(tmp_path / "sent.wav"), tmp_path / "unused.wav")
    found = compare(clip, [tmp_path / "played.wav"])
    result = found.result
    assert found.wrong_header is None
    assert (found.before, found.after) == (0, 0)
    assert result.bit_exact
    assert (result.sent, result.received) == (FRAMES, FRAMES)


@pytest.mark.parametrize(("name", "silence"), [("u8", 0x80), ("mu_law", 0xFF), ("s16_le", 0)])
def test_silence_is_the_formats_own(tmp_path: Path, name: str, silence: int) -> None:
    format = named(name)
    half = FRAMES // 2 * format.sample_octets
    samples = random_samples(format, FRAMES, 3)
    gap = bytes([silence]) * 100 * format.sample_octets
    write_wav(tmp_path / "sent.wav", format, RATE, 1, samples)
    write_wav(tmp_path / "played.wav", format, RATE, 1, samples[:half] + gap + samples[half:])
    clip = make_clip(str(tmp_path / "sent.wav"), tmp_path / "unused.wav")
    result = compare(clip, [tmp_path / "played.wav"]).result
    assert (result.lost, result.silent, result.altered) == (0, 100, 0)


@pytest.mark.parametrize(("rate", "channels"), [(44100, 2), (48000, 1), (48000, 4)])
def test_the_same_octets_under_another_header_are_another_sound(
    clip: Clip, tmp_path: Path, rate: int, channels: int
) -> None:
    found = compare(clip, [play(tmp_path, SAMPLES, rate, channels)])
    result, wrong = found.result, found.wrong_header
    assert not result.bit_exact
    assert wrong is not None
    assert f"{rate} Hz, {channels} channel(s)" in wrong
    assert "48000 Hz, 2 channel(s)" in wrong
    assert result.received == len(SAMPLES) // 2 // channels


@pytest.mark.parametrize("name", ["u8", "s24_le", "float_le"])
def test_another_encoding_is_not_bit_exact(clip: Clip, tmp_path: Path, name: str) -> None:
    format = named(name)
    path = tmp_path / "played.wav"
    write_wav(path, format, RATE, 2, random_samples(format, 2 * FRAMES, 1))
    found = compare(clip, [path])
    assert not found.result.bit_exact
    assert (wrong := found.wrong_header) is not None
    assert name in wrong


def test_a_wrong_header_is_in_the_report(
    clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    play(tmp_path, SAMPLES, rate=44100)
    report = finish_report(clip, tmp_path, measured())
    assert report["bit_exact"] is False
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert "bit-exact  NO: played.wav has 44100 Hz" in capsys.readouterr().out


def test_damage_is_in_the_report(
    clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    play(tmp_path, SAMPLES[: 1000 * 4] + SAMPLES[1010 * 4 :])
    report = finish_report(clip, tmp_path, measured())
    assert report["bit_exact"] is False
    assert (report["frames_lost"], report["frames_received"]) == (10, FRAMES - 10)
    shown = capsys.readouterr().out
    assert "bit-exact  NO\n" in shown
    assert "10 lost" in shown


def test_figures_are_what_was_measured(clip: Clip, tmp_path: Path) -> None:
    play(tmp_path, SAMPLES)
    report = finish_report(clip, tmp_path, measured())
    assert report["bit_exact"] is True
    assert report["latency_ms"] == {"p50": 19.0, "p99": 19.0, "max": 19.0}
    assert report["cpu_s_per_60s"] == {"guest": 3.0, "backend": 6.0}
    assert report["wakeups_per_s"] == {"guest": 100.0, "backend": 200.0}
    assert (report["period_frames"], report["buffer_frames"]) == (480, 3840)


def test_silence_around_the_sound_is_told_and_not_counted(
    clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    play(tmp_path, bytes(4 * 4800) + SAMPLES + bytes(4 * 9600))
    report = finish_report(clip, tmp_path, measured())
    assert report["bit_exact"] is True
    assert (report["silence_before"], report["silence_after"]) == (4800, 9600)
    assert report["frames_received"] == FRAMES
    assert "around these 0.1 s and 0.2 s of silence" in capsys.readouterr().out


def test_the_clips_own_silence_must_be_there(tmp_path: Path) -> None:
    quiet = bytes(4 * 1000)
    write_wav(tmp_path / "sent.wav", named("s16_le"), RATE, 2, quiet + SAMPLES + quiet)
    clip = make_clip(str(tmp_path / "sent.wav"), tmp_path / "unused.wav")
    for there, lost in ((quiet * 2, 0), (quiet, 0), (quiet[:-40], 10)):
        found = compare(clip, [play(tmp_path, there + SAMPLES + quiet)])
        assert found.before == max(0, (len(there) - len(quiet)) // 4)
        assert found.result.bit_exact is (lost == 0)
        assert found.result.lost == lost


def test_a_gap_within_the_sound_is_no_silence_around_it(clip: Clip, tmp_path: Path) -> None:
    gap = bytes(4 * 100)
    half = len(SAMPLES) // 2
    found = compare(clip, [play(tmp_path, gap + SAMPLES[:half] + gap + SAMPLES[half:])])
    assert not found.result.bit_exact
    assert (found.before, found.result.silent) == (100, 100)


def test_what_was_played_in_pieces_is_put_together(clip: Clip, tmp_path: Path) -> None:
    half = len(SAMPLES) // 2
    play(tmp_path, SAMPLES[:half]).rename(tmp_path / "played-2.wav")
    play(tmp_path, SAMPLES[half:]).rename(tmp_path / "played-10.wav")
    play(tmp_path, bytes(400))
    play(tmp_path, SAMPLES).rename(tmp_path / "played-not.wav")
    play(tmp_path, bytes(400))
    files = played_files(tmp_path)
    assert [file.name for file in files] == ["played.wav", "played-2.wav", "played-10.wav"]
    found = compare(clip, files)
    assert found.result.bit_exact
    assert found.before == 100


def test_what_was_played_aloud_is_not_compared(
    clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = {**BACKEND, "frames_lost": 7}
    report = finish_report(clip, tmp_path, measured(backend=backend), compared=False)
    assert report["bit_exact"] is None
    assert report["frames_lost"] is None
    assert report["frames_dropped"] == 7
    assert "7 that the output could not take" in capsys.readouterr().out


def test_the_latency_is_what_pulseaudio_told_when_there_was_one(
    clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    play(tmp_path, SAMPLES)
    told = measured(guest={}, latencies=[(0.0, 20.0), (0.1, 30.0), (0.2, 40.0)])
    report = finish_report(clip, tmp_path, told)
    assert report["latency_ms"] == {"p50": 30.0, "p99": 40.0, "max": 40.0}
    assert "as PulseAudio told its client" in capsys.readouterr().out


def test_what_could_not_be_measured_is_null_and_said(
    clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    play(tmp_path, SAMPLES)
    nothing = measured(usage={}, trace=[], guest={"trace": []})
    report = finish_report(clip, tmp_path, nothing)
    assert report["bit_exact"] is True
    neither = {"guest": None, "backend": None}
    assert report["cpu_s_per_60s"] == report["wakeups_per_s"] == neither
    assert report["latency_ms"] == {"p50": None, "p99": None, "max": None}
    assert report["setup_s"] is None
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.count(TOO_SHORT) == 4


def test_no_latency_is_below_zero(clip: Clip, tmp_path: Path) -> None:
    """The guest notes what it has written a moment after the backend may have played it."""
    play(tmp_path, SAMPLES)
    late = measured(guest={"trace": [[1_020_200_000, 960, 0]]})
    assert finish_report(clip, tmp_path, late)["latency_ms"]["max"] == 0


def test_without_matplotlib_there_is_all_but_the_picture(
    clip: Clip,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def draw(*_arguments: object) -> None:
        raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")

    monkeypatch.setattr("xenaudio.cli.demo.report.draw", draw)
    play(tmp_path, SAMPLES)
    assert finish_report(clip, tmp_path, measured())["bit_exact"] is True
    said = capsys.readouterr()
    assert "matplotlib is missing" in said.err
    assert "picture.png" not in said.out
