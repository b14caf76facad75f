# SPDX-License-Identifier: LGPL-2.1-or-later
"""The sound that verify.yml plays: one that is found again, sample by sample, and is not loud.

A rising tone of a second, stereo, in 48000 frames a second of 16 bits. All of it is whole numbers:
the same on every machine.
"""

from __future__ import annotations

import struct

RATE = 48000  # Hz
CHANNELS = 2
FRAMES = 48000
TIMES = 3  # that it is played; once it must arrive whole
LOUD = 4096  # of 32767


def frames() -> bytes:
    """Return its frames, as a WAV file has them."""
    found = []
    phase = 0
    for at in range(FRAMES):
        # From 220 to 880 Hz; 1 << 20 is a whole turn.
        phase += ((220 + 660 * at // FRAMES) << 20) // RATE
        turn = phase & 0xFFFFF
        triangle = (turn if turn < 1 << 19 else (1 << 20) - turn) - (1 << 18)
        # Louder in the first twentieth, and less loud in the last.
        loud = min(at, FRAMES - 1 - at, FRAMES // 20) * LOUD // (FRAMES // 20)
        left = triangle * loud >> 18
        found.append(struct.pack("<hh", left, -left))
    return b"".join(found)
