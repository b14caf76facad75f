# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a guest plays while its neighbour is hostile: each frame has its number and a secret.

    neighbour.py           writes it, without an end, to the standard output

48 kHz, s32_le, two channels: the left sample is the frame's number, from 0, the right one the
secret that no other guest may ever see or play. Only the standard library.
"""

from __future__ import annotations

import array
import sys

RATE = 48000
OCTETS = 8
"""Of a frame."""
SECRET = 0x5EC2E75A
CHUNK = 4096
"""Frames that are written at once."""


def frames(first: int, count: int) -> bytes:
    """Return frames `first` to `first + count - 1`."""
    samples = array.array("I", [SECRET]) * (2 * count)
    samples[0::2] = array.array("I", range(first, first + count))
    return samples.tobytes()


def whole(heard: bytes) -> int:
    """Return how many frames there are in what was heard, between silence at both ends.

    ValueError, which names the frame, unless they are the first ones, and each of them is there,
    once and unchanged, with no silence between.
    """
    silent = bytes(OCTETS)
    begin, end = 0, len(heard) // OCTETS * OCTETS
    while begin < end and heard[begin : begin + OCTETS] == silent:
        begin += OCTETS
    while end > begin and heard[end - OCTETS : end] == silent:
        end -= OCTETS
    count = (end - begin) // OCTETS
    expected = frames(0, count)
    for at in range(0, count * OCTETS, OCTETS):
        frame = heard[begin + at : begin + at + OCTETS]
        if frame != expected[at : at + OCTETS]:
            number = at // OCTETS
            raise ValueError(f"{frame.hex()} was heard in the place of frame {number} of {count}")
    return count


def main() -> None:
    """Play until nobody listens."""
    first = 0
    while True:
        sys.stdout.buffer.write(frames(first, CHUNK))
        first += CHUNK


if __name__ == "__main__":
    main()
