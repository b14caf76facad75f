# SPDX-License-Identifier: LGPL-2.1-or-later
"""Noise that both sides can make for themselves, and the search for it in what arrived.

    pattern.py raw|wav SPEC > FILE       SPEC is FORMAT:CHANNELS:RATE:FRAMES:SEED
    pattern.py check SPEC FILE           is it there, whole, once, with nothing but silence around?

`check` prints one line; its exit status is 0 only when the pattern is there bit by bit. FILE is a
WAV file or raw samples. Only the standard library, and of it what an emulated processor imports
quickly.
"""

from __future__ import annotations

import array
import random
import struct
import sys
from typing import NamedTuple


class Format(NamedTuple):
    """A sample format."""

    packed: int
    """Octets of a sample in a WAV file."""
    wide: int
    """Octets of a sample on the wire."""
    is_float: bool = False
    silence: bytes = b"\0"


FORMATS = {
    "u8": Format(1, 1, silence=b"\x80"),
    "s16_le": Format(2, 2),
    "s24_le": Format(3, 4),
    "s32_le": Format(4, 4),
    "float_le": Format(4, 4, is_float=True),
}


class Pattern(NamedTuple):
    """`frames` frames of noise."""

    format: str = "s16_le"
    channels: int = 2
    rate: int = 48000
    frames: int = 48000
    seed: int = 1

    def __str__(self) -> str:
        return f"{self.format}:{self.channels}:{self.rate}:{self.frames}:{self.seed}"

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read what __str__ wrote."""
        name, *numbers = text.split(":")
        if name not in FORMATS or len(numbers) != 4:
            raise SystemExit(f"{text}: expected FORMAT:CHANNELS:RATE:FRAMES:SEED")
        return cls(name, *map(int, numbers))

    def packed(self) -> bytes:
        """Return the samples as a WAV file has them."""
        format = FORMATS[self.format]
        count = self.frames * self.channels
        noise = random.Random(self.seed)
        if format.is_float:
            values = array.array("i", noise.randbytes(4 * count))
            return array.array("f", (value / 2**31 for value in values)).tobytes()
        return noise.randbytes(format.packed * count)

    def raw(self) -> bytes:
        """Return the samples as the wire, and ALSA, have them."""
        packed = self.packed()
        if self.format != "s24_le":
            return packed
        wide = bytearray(len(packed) // 3 * 4)
        for octet in range(3):
            wide[octet::4] = packed[octet::3]
        wide[3::4] = packed[2::3].translate(bytes(128) + b"\xff" * 128)
        return bytes(wide)

    def wav(self) -> bytes:
        """Return a WAV file."""
        format = FORMATS[self.format]
        block = format.packed * self.channels
        body = self.packed()
        tag = 3 if format.is_float else 1
        speed = self.rate * block
        about = struct.pack(
            "<HHIIHH", tag, self.channels, self.rate, speed, block, format.packed * 8
        )
        chunks = b"WAVEfmt " + struct.pack("<I", len(about)) + about
        chunks += b"data" + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
        return b"RIFF" + struct.pack("<I", len(chunks)) + chunks

    def check(self, path: str) -> tuple[bool, str]:
        """Say whether a file holds the pattern, and what it holds instead."""
        with open(path, "rb") as file:
            data = file.read()
        is_wav = data[:4] == b"RIFF"
        format = FORMATS[self.format]
        octets = (format.packed if is_wav else format.wide) * self.channels
        if is_wav:
            channels, rate, data = samples_of(data)
            if (channels, rate) != (self.channels, self.rate):
                return False, f"{channels} channels at {rate} Hz"
        expected = self.packed() if is_wav else self.raw()
        at = data.find(expected)
        if at >= 0 and at % octets == 0:
            before, after = data[:at], data[at + len(expected) :]
            if before.strip(format.silence) or after.strip(format.silence):
                return False, "the pattern is there, but not only silence around it"
            frames = len(before) // octets, len(after) // octets
            return True, f"exact, {frames[0]} silent frames before and {frames[1]} after"
        return False, self._difference(data, expected, octets, format.silence)

    def pieces(self, path: str) -> list[tuple[int, int]]:
        """Return the pieces of the pattern that a WAV file holds, first frames and ends.

        A file whose writer was killed is read to its end, whatever its header says. ValueError
        when there is anything but pieces and silence.
        """
        with open(path, "rb") as file:
            data = samples_of(file.read(), to_end=True)[2]
        format, expected = FORMATS[self.format], self.packed()
        octets = format.packed * self.channels
        silent = format.silence * octets
        found: list[tuple[int, int]] = []
        at = end = 0
        while at + octets <= len(data):
            frame = data[at : at + octets]
            if frame == silent:
                at += octets
                continue
            begin = end if expected.startswith(frame, end) else expected.find(data[at:][:16])
            if begin < 0 or begin % octets:
                raise ValueError(f"{path}: frame {at // octets} is none of the pattern's")
            length = _common(memoryview(data)[at:], memoryview(expected)[begin:])
            length -= length % octets
            at, end = at + length, begin + length
            found.append((begin // octets, end // octets))
        return found

    def _difference(self, data: bytes, expected: bytes, octets: int, silence: bytes) -> str:
        length = f"{len(data) // octets} frames"
        begin = data.find(expected[: 8 * octets])
        if begin < 0:
            kind = "all silent" if not data.strip(silence) else "not the pattern's beginning"
            return f"{length}, {kind}"
        got = data[begin:]
        same = next(
            (
                n
                for n in range(0, min(len(got), len(expected)), octets)
                if got[n : n + octets] != expected[n : n + octets]
            ),
            min(len(got), len(expected)),
        )
        where = f"{length}; from frame {begin // octets} the first {same // octets} are right"
        if same == len(got):
            return f"{where}, then it ends"
        lost = expected.find(got[same : same + 8 * octets], same)
        if lost >= 0:
            return f"{where}, then {(lost - same) // octets} are lost"
        again = got.find(expected[same : same + 8 * octets], same)
        if again >= 0:
            between = got[same:again]
            kind = "others" if between.strip(silence) else "silent ones"
            return f"{where}, then it goes on after {len(between) // octets} {kind}"
        return f"{where}, then it is lost"


def _common(one: memoryview, other: memoryview) -> int:
    """Return how many octets at the beginning are the same."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def samples_of(data: bytes, *, to_end: bool = False) -> tuple[int, int, bytes]:
    """Return a WAV file's channels, rate and samples: as many as it says, or all to its end."""
    at, channels, rate = 12, 0, 0
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        if name == b"fmt ":
            channels, rate = struct.unpack_from("<HI", data, at + 10)
        elif name == b"data":
            return channels, rate, data[at + 8 :][: None if to_end else size]
        at += 8 + size + size % 2
    return channels, rate, b""


def main(args: list[str]) -> int:
    """Run the command."""
    what, pattern = args[0], Pattern.parse(args[1])
    if what == "check":
        whole, text = pattern.check(args[2])
        print(text)
        return 0 if whole else 1
    sys.stdout.buffer.write(pattern.wav() if what == "wav" else pattern.raw())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
