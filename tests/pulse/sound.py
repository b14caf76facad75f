# SPDX-License-Identifier: LGPL-2.1-or-later
"""What clients play and record, and where in it the sound is."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from pcm import read_wav


def sound_file(folder: Path, samples: bytes, silence: int) -> Path:
    """Write what a client plays.

    PulseAudio takes a stream for ended when it is rendered: the silence that follows, in octets, is
    longer than the sink's latency, so that the sound before it was heard by then.
    """
    file = folder / "sound.raw"
    file.write_bytes(samples + bytes(silence))
    return file


def beginning_as(octets: bytes, sound: bytes) -> bytes:
    """Return as much as `sound` has, from where it begins."""
    at = octets.find(sound[:256])
    assert at >= 0, "the sound is not there"
    return octets[at : at + len(sound)]


def files_of(folder: Path, stream: str = "guest-0-0-0") -> list[Path]:
    """Return the files of a stream, in the order in which it was opened."""

    def number(file: Path) -> int:
        again = re.fullmatch(rf"{stream}-(\d+)\.wav", file.name)
        return int(again[1]) if again else 1

    return sorted(folder.glob(f"{stream}*.wav"), key=number)


def played_octets(files: list[Path]) -> bytes:
    """Return what files hold, one after the other."""
    return b"".join(read_wav(file).octets for file in files)


def counted_frames(files: list[Path]) -> np.ndarray:
    """Return the counter's frames in files, one after the other, without the silence."""
    frames = np.frombuffer(played_octets(files), "<u4").astype(np.int64)
    return frames[frames != 0]
