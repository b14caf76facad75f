# SPDX-License-Identifier: LGPL-2.1-or-later
"""What became of each frame: the demo's comparison finds known damage, and counts it right."""

from __future__ import annotations

import random

import numpy as np
import pytest

from xenaudio.cli.demo.alignment import Alignment, align

RATE = 8000
FRAMES = 3 * RATE

# Octets of a frame: u8 mono, s16 mono, s16 stereo, s24 stereo (four octets a sample), s16 5.1.
LAYOUTS = [1, 2, 4, 8, 12]


def sound(frames: int, frame: int, seed: int = 1) -> bytes:
    """Make noise without a silent frame."""
    return np.random.default_rng(seed).integers(1, 128, frames * frame, np.uint8).tobytes()


def other(frames: int, frame: int, seed: int = 2) -> bytes:
    """Make noise that shares no frame with `sound`."""
    return np.random.default_rng(seed).integers(128, 256, frames * frame, np.uint8).tobytes()


def found(sent: bytes, received: bytes, frame: int) -> tuple[int, int, int, int]:
    """Return frames lost, repeated, silent and altered."""
    result = align(sent, received, frame, RATE)
    assert (result.sent, result.received) == (len(sent) // frame, len(received) // frame)
    assert result.bit_exact == (sent == received)
    return result.lost, result.repeated, result.silent, result.altered


@pytest.mark.parametrize("frame", LAYOUTS)
@pytest.mark.parametrize("frames", [0, 1, 5, 31, FRAMES])
def test_what_is_equal_is_bit_exact(frames: int, frame: int) -> None:
    clip = sound(frames, frame)
    assert align(clip, clip, frame, RATE) == Alignment(frames, frames, 0, 0, 0, 0, True)


@pytest.mark.parametrize("frame", LAYOUTS)
def test_nothing_received_is_all_lost(frame: int) -> None:
    assert found(sound(FRAMES, frame), b"", frame) == (FRAMES, 0, 0, 0)


@pytest.mark.parametrize("frame", LAYOUTS)
@pytest.mark.parametrize("run", [1, 7, 480, RATE])
@pytest.mark.parametrize("place", ["start", "middle", "end"])
def test_a_lost_run_is_counted(place: str, run: int, frame: int) -> None:
    clip = sound(FRAMES, frame)
    at = {"start": 0, "middle": 10001, "end": FRAMES - run}[place]
    received = clip[: at * frame] + clip[(at + run) * frame :]
    assert found(clip, received, frame) == (run, 0, 0, 0)


@pytest.mark.parametrize("frame", LAYOUTS[1:])
@pytest.mark.parametrize("run", [1, 7, 480, RATE])
@pytest.mark.parametrize("place", ["start", "middle", "end"])
def test_a_repeated_run_is_counted(place: str, run: int, frame: int) -> None:
    clip = sound(FRAMES, frame)
    after = {"start": run, "middle": 10001, "end": FRAMES}[place]
    received = clip[: after * frame] + clip[(after - run) * frame :]
    assert found(clip, received, frame) == (0, run, 0, 0)


@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize("run", [1, 100])
def test_a_run_may_be_repeated_again_and_again(run: int, times: int) -> None:
    clip = sound(FRAMES, 4)
    again = clip[(9000 - run) * 4 : 9000 * 4]
    received = clip[: 9000 * 4] + times * again + clip[9000 * 4 :]
    assert found(clip, received, 4) == (0, times * run, 0, 0)


def test_what_was_sent_more_than_a_second_before_is_no_repetition() -> None:
    clip = sound(FRAMES, 4)
    old = clip[1000 * 4 : 1100 * 4]
    at = (1000 + RATE) * 4
    assert found(clip, clip[:at] + old + clip[at:], 4) == (0, 100, 0, 0)
    at += 100 * 4
    assert found(clip, clip[:at] + old + clip[at:], 4) == (0, 0, 0, 100)


@pytest.mark.parametrize("frame", LAYOUTS)
@pytest.mark.parametrize("run", [1, 7, 480, RATE])
@pytest.mark.parametrize("at", [0, 10001, FRAMES])
def test_inserted_silence_is_counted(at: int, run: int, frame: int) -> None:
    clip = sound(FRAMES, frame)
    received = clip[: at * frame] + bytes(run * frame) + clip[at * frame :]
    assert found(clip, received, frame) == (0, 0, run, 0)


def test_silence_is_what_the_format_says() -> None:
    clip = sound(FRAMES, 1)
    received = clip[:5000] + b"\x80" * 100 + clip[5000:]
    assert align(clip, received, 1, RATE, b"\x80").silent == 100
    assert align(clip, received, 1, RATE).altered == 100


@pytest.mark.parametrize("frame", LAYOUTS)
@pytest.mark.parametrize("run", [1, 7, 480, RATE])
@pytest.mark.parametrize("place", ["start", "middle", "end"])
def test_altered_frames_are_not_lost_ones(place: str, run: int, frame: int) -> None:
    clip = sound(FRAMES, frame)
    at = {"start": 0, "middle": 10001, "end": FRAMES - run}[place]
    received = clip[: at * frame] + other(run, frame) + clip[(at + run) * frame :]
    assert found(clip, received, frame) == (0, 0, 0, run)


@pytest.mark.parametrize("every", [2, 5, 20, 100])
def test_one_bit_in_many_frames(every: int) -> None:
    clip = sound(FRAMES, 8)
    received = bytearray(clip)
    for at in range(0, FRAMES, every):
        received[at * 8 + 3] ^= 0x80
    assert found(clip, bytes(received), 8) == (0, 0, 0, FRAMES // every)


def test_silence_in_the_place_of_sound() -> None:
    clip = sound(FRAMES, 4)
    received = clip[: 5000 * 4] + bytes(300 * 4) + clip[5300 * 4 :]
    assert found(clip, received, 4) == (300, 0, 300, 0)


@pytest.mark.parametrize("run", [1, 480])
def test_what_comes_after_the_end_is_altered(run: int) -> None:
    clip = sound(FRAMES, 4)
    assert found(clip, clip + other(run, 4), 4) == (0, 0, 0, run)


def test_extra_frames_do_not_make_up_for_frames_lost_elsewhere() -> None:
    clip = sound(FRAMES, 4)
    received = clip[: 5000 * 4] + clip[5010 * 4 : 12000 * 4] + other(10, 4) + clip[12000 * 4 :]
    assert found(clip, received, 4) == (10, 0, 0, 10)


def test_frames_lost_beside_silence_in_the_clip() -> None:
    """The silence is the clip's own: none of it is extra, and none of it is lost."""
    clip = sound(5000, 4, 1) + bytes(500 * 4) + sound(5000, 4, 2) + bytes(500 * 4) + sound(9, 4, 3)
    before = clip[: 4990 * 4] + clip[5000 * 4 :]
    after = clip[: 5500 * 4] + clip[5510 * 4 :]
    both = clip[: 4990 * 4] + clip[5000 * 4 : 10400 * 4] + clip[10500 * 4 :]
    assert found(clip, before, 4) == (10, 0, 0, 0)
    assert found(clip, after, 4) == (10, 0, 0, 0)
    assert found(clip, both, 4) == (110, 0, 0, 0)


def test_silence_inserted_before_silence_in_the_clip() -> None:
    clip = sound(5000, 4, 1) + bytes(300 * 4) + sound(5000, 4, 2)
    received = clip[: 4800 * 4] + bytes(500 * 4) + clip[4800 * 4 :]
    assert found(clip, received, 4) == (0, 0, 500, 0)


@pytest.mark.parametrize("seed", range(40))
def test_a_mixture_of_damage_is_told_apart(seed: int) -> None:
    draw = random.Random(seed)
    frame = draw.choice(LAYOUTS[2:])
    clip = sound(FRAMES, frame, seed)
    received = bytearray()
    lost = repeated = silent = altered = at = 0
    while True:
        keep = draw.randrange(1000, 4000)
        run = draw.choice([1, 2, 15, 40, 100, 480])
        received += clip[at * frame : (at + keep) * frame]
        at += keep
        if at + run + 1000 > FRAMES:
            received += clip[at * frame :]
            break
        kind = draw.choice(["lost", "repeated", "silent", "altered"])
        if kind == "lost":
            at += run
            lost += run
        elif kind == "repeated":
            received += clip[(at - run) * frame : at * frame]
            repeated += run
        elif kind == "silent":
            received += bytes(run * frame)
            silent += run
        else:
            received += other(run, frame, seed + at)
            at += run
            altered += run
    assert found(clip, bytes(received), frame) == (lost, repeated, silent, altered)


LONG = 480_000  # ten seconds


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "received", ["noise", "silence", "backwards", "halves swapped", "shuffled"]
)
def test_however_much_differs_it_ends_soon(received: str) -> None:
    """A comparison that grows with the square of the length would take hours."""
    clip = sound(LONG, 4)
    frames = np.frombuffer(clip, "<u4")
    blocks = frames.reshape(-1, 16)
    got = {
        "noise": other(LONG, 4),
        "silence": bytes(LONG * 4),
        "backwards": frames[::-1].tobytes(),
        "halves swapped": np.roll(frames, LONG // 2).tobytes(),
        "shuffled": np.random.default_rng(5).permutation(blocks).tobytes(),
    }[received]
    result = align(clip, got, 4, 48000)
    assert not result.bit_exact
    assert result.lost + result.altered >= LONG // 3


@pytest.mark.timeout(60)
def test_sound_that_is_like_itself_ends_soon() -> None:
    wave = (b"\x01\x00" * 50 + b"\x02\x00" * 50) * (LONG // 100)
    assert align(wave, wave[:40000] + wave[40060:], 2, 48000).lost == 30
    assert not align(wave, wave[80:] + wave[:80], 2, 48000).bit_exact
    assert align(wave, bytes(len(wave)), 2, 48000).silent == LONG
