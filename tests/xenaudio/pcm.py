# SPDX-License-Identifier: LGPL-2.1-or-later
"""Samples for tests: made, laid out in WAV files by themselves (not by the code under test), and
compared frame by frame.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from xenaudio.core.format import Format, by_name

# What a WAV file holds for each of the wire's formats: format tag and bits.
_WAV = {
    "u8": (1, 8),
    "s16_le": (1, 16),
    "s16_be": (1, 16),
    "s24_le": (1, 24),
    "u24_be": (1, 24),
    "s32_le": (1, 32),
    "float_le": (3, 32),
    "float64_le": (3, 64),
    "mu_law": (7, 8),
}


def named(name: str) -> Format:
    """Return a format that is known to exist."""
    found = by_name(name)
    assert found is not None, name
    return found


def random_samples(format: Format, count: int, seed: int) -> bytes:
    """Make `count` samples of noise as the wire has them, each of them a legal one."""
    noise = np.random.default_rng(seed)
    if format.name in ("float_le", "float64_le"):
        values = noise.uniform(-1, 1, count)
        return values.astype("<f4" if format.sample_octets == 4 else "<f8").tobytes()
    if format.name == "s24_le":
        return noise.integers(-(1 << 23), 1 << 23, count).astype("<i4").tobytes()
    if format.name == "u24_be":
        return noise.integers(0, 1 << 24, count).astype(">u4").tobytes()
    return noise.bytes(count * format.sample_octets)


def to_wav(format: Format, samples: bytes) -> bytes:
    """Return what a WAV file holds for samples of the wire."""
    if format.name == "s16_be":
        return np.frombuffer(samples, ">i2").astype("<i2").tobytes()
    if format.name == "s24_le":
        return np.frombuffer(samples, np.uint8).reshape(-1, 4)[:, :3].tobytes()
    if format.name == "u24_be":
        signed = np.frombuffer(samples, ">u4").astype("<i4") - (1 << 23)
        return signed.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    return samples


@dataclass(frozen=True)
class Wav:
    """A WAV file."""

    rate: int
    channels: int
    tag: int
    bits: int
    octets: bytes
    """Its samples, as they lie in the file."""


def read_wav(path: Path) -> Wav:
    """Read a WAV file whose header is final."""
    data = path.read_bytes()
    assert data[:4] == b"RIFF"
    assert data[8:12] == b"WAVE"
    at, found = 12, None
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        if name == b"fmt ":
            found = struct.unpack_from("<HHIIHH", data, at + 8)
        elif name == b"data":
            assert found is not None
            tag, channels, rate, _speed, _block, bits = found
            if tag == 0xFFFE:
                (tag,) = struct.unpack_from("<H", data, at - 16)
            octets = data[at + 8 : at + 8 + size]
            assert len(octets) == size, f"{path}: its header says more than it holds"
            return Wav(rate, channels, tag, bits, octets)
        at += 8 + size + size % 2
    raise AssertionError(f"{path}: no data chunk")


def write_wav(path: Path, format: Format, rate: int, channels: int, samples: bytes) -> None:
    """Write samples of the wire to a WAV file."""
    tag, bits = _WAV[format.name]
    block = channels * bits // 8
    octets = to_wav(format, samples)
    header = struct.pack(
        "<4sIHHIIHH", b"fmt ", 16, tag, channels, rate, rate * block, block, bits
    ) + struct.pack("<4sI", b"data", len(octets))
    body = b"WAVE" + header + octets + b"\0" * (len(octets) % 2)
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)


def assert_holds(path: Path, format: Format, rate: int, channels: int, samples: bytes) -> None:
    """Fail unless a WAV file holds exactly these samples of the wire."""
    wav = read_wav(path)
    assert (wav.rate, wav.channels, (wav.tag, wav.bits)) == (rate, channels, _WAV[format.name])
    assert_same(wav.octets, to_wav(format, samples), channels * wav.bits // 8, str(path))


def assert_same(got: bytes, expected: bytes, frame_octets: int, what: str) -> None:
    """Fail, saying where, unless the octets are the same."""
    if got == expected:
        return
    frames = min(len(got), len(expected)) // frame_octets
    differing = next(
        (
            i
            for i in range(frames)
            if got[i * frame_octets : (i + 1) * frame_octets]
            != expected[i * frame_octets : (i + 1) * frame_octets]
        ),
        frames,
    )
    raise AssertionError(
        f"{what}: {len(got) // frame_octets} frames, expected {len(expected) // frame_octets};"
        f" the first {differing} are right"
    )


class Gap(NamedTuple):
    """Where a sound was interrupted, or a part of it left out. In frames."""

    at: int
    """Of the sound before it."""
    silent: int
    """Of silence."""
    missing: int
    """Of the sound, which nobody heard."""


_CLUE = 16
"""Frames by which a piece of a sound is known: no so many in a row come twice in it."""


def gaps_in(heard: bytes, sound: bytes, frame_octets: int) -> list[Gap]:
    """Return where a sound was interrupted; nothing when it was heard as it is.

    Silence may be before and after it. Fails when a frame was changed, came twice or out of turn.
    """
    got, sent = (
        np.frombuffer(octets[: len(octets) // frame_octets * frame_octets], f"V{frame_octets}")
        for octets in (heard, sound)
    )
    sounds = got != np.zeros(1, got.dtype)
    gaps: list[Gap] = []
    i = done = ended = 0

    def place_in_sound(i: int) -> int:
        """Return where the piece that begins at frame `i` is, in what is to follow."""
        silent = np.flatnonzero(~sounds[i : i + _CLUE])
        clue = got[i : i + (silent[0] if len(silent) else _CLUE)].tobytes()
        at = sound.find(clue, done * frame_octets)
        while at % frame_octets and at >= 0:
            at = sound.find(clue, at + 1)
        assert at >= 0, f"frame {i}, after {done} of the sound, was changed, or comes twice"
        return at // frame_octets

    while i < len(got):
        more = np.flatnonzero(sounds[i:])
        if not len(more):
            break
        i += int(more[0])
        at = place_in_sound(i)
        if at > done or done:
            gaps.append(Gap(done, i - ended, at - done))
        length = min(len(got) - i, len(sent) - at)
        differing = np.flatnonzero(got[i : i + length] != sent[at : at + length])
        length = int(differing[0]) if len(differing) else length
        i, done = i + length, at + length
        ended = i
    if done < len(sent):
        gaps.append(Gap(done, len(got) - ended, len(sent) - done))
    return gaps


# A frame counter as s16_le stereo: frame i is the number i + 1 in 32 bits, never 0.

COUNTER_FORMAT = named("s16_le")
COUNTER_CHANNELS = 2


def counter(frames: int, first: int = 0) -> bytes:
    """Make frames `first`, `first + 1`, ... of the counter."""
    return np.arange(first + 1, first + 1 + frames, dtype="<u4").tobytes()


@dataclass(frozen=True)
class Verdict:
    """What became of a counter's frames."""

    received: int
    lost: int
    repeated: int
    silent: int
    corrupt: int

    @property
    def whole(self) -> bool:
        """Whether each frame is there, in order, once, and nothing else."""
        return not (self.lost or self.repeated or self.silent or self.corrupt)


def judge(octets: bytes, frames: int) -> Verdict:
    """Compare what was received with frames 0 to `frames` of a counter.

    A frame out of place that was there before counts as repeated, another one as corrupt.
    """
    values = np.frombuffer(octets, "<u4").astype(np.int64)
    sound = values[values != 0]
    legal = sound[(sound >= 1) & (sound <= frames)]
    distinct = len(np.unique(legal))
    backwards = int(np.count_nonzero(np.diff(legal) < 0))
    repeated = len(legal) - distinct
    return Verdict(
        received=len(values),
        lost=frames - distinct,
        repeated=repeated,
        silent=len(values) - len(sound),
        corrupt=len(sound) - len(legal) + (backwards if not repeated else 0),
    )


def judge_wav(path: Path, frames: int) -> Verdict:
    """Judge a WAV file into which the counter was played."""
    wav = read_wav(path)
    assert (wav.channels, wav.bits) == (COUNTER_CHANNELS, 16)
    return judge(wav.octets, frames)
