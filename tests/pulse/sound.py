# SPDX-License-Identifier: LGPL-2.1-or-later
"""What clients play and record, and where in it the sound is."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from daemon import PulseAudio
from machine import wait_until
from pcm import read_wav


def sound_file(folder: Path, samples: bytes, silence: int) -> Path:
    """Write what a client plays: with so many octets of silence before it and after it.

    PulseAudio takes a stream for ended when it is rendered: the silence that follows is longer than
    the sink's latency, so that the sound before it was heard by then. And a sink may open its
    stream anew for a client: on a busy machine that takes longer than it has its clients wait, and
    then what they play meanwhile is not heard.
    """
    file = folder / "sound.raw"
    file.write_bytes(bytes(silence) + samples + bytes(silence))
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


def is_finished(file: Path) -> bool:
    """Say whether a WAV file is complete: its length is written when it is."""
    with file.open("rb") as wav:
        head = wav.read(8)
    return len(head) == 8 and int.from_bytes(head[4:], "little") + 8 == file.stat().st_size


def finish(daemon: PulseAudio, sink: str, played: Path) -> list[Path]:
    """Have a sink close its stream, so that the files of what was heard are complete; they are it.

    It may open it again, to a further file, as soon as it may.
    """
    daemon.asked("suspend-sink", sink, "1")
    wait_until(lambda: all(map(is_finished, files_of(played))), "the files are complete")
    files = files_of(played)
    daemon.asked("suspend-sink", sink, "0")
    return files


def played_octets(files: list[Path]) -> bytes:
    """Return what files hold, one after the other (one that was just made, nothing yet)."""
    return b"".join(read_wav(file).octets for file in files if file.stat().st_size)


def counted_frames(files: list[Path]) -> np.ndarray:
    """Return the counter's frames in files, one after the other, without the silence."""
    frames = np.frombuffer(played_octets(files), "<u4").astype(np.int64)
    return frames[frames != 0]
