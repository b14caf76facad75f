# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the demo plays: a file, or alsa-utils' recorded voices one after the other."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path

from xenaudio.core.soundfile import SoundFileInfo

VOICES = Path("/usr/share/sounds/alsa")
ORDER = (
    "Front_Left",
    "Front_Center",
    "Front_Right",
    "Side_Right",
    "Rear_Right",
    "Rear_Center",
    "Rear_Left",
    "Side_Left",
)


class ClipError(Exception):
    """There is nothing to play."""


@dataclass(frozen=True)
class Clip:
    """A sound file that libsndfile reads."""

    path: Path
    title: str
    rate: int  # Hz
    channels: int
    frames: int
    sample_format: str  # sndif's name

    @property
    def seconds(self) -> float:
        """How long it plays."""
        return self.frames / self.rate


def _join_voices(to: Path) -> None:
    voices = [VOICES / f"{name}.wav" for name in ORDER]
    for path in voices:
        if not path.is_file():
            raise ClipError(f"{path} is missing: install the package alsa-utils, or name a FILE")
    to.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(to), "wb") as out:
        for i, path in enumerate(voices):
            with wave.open(str(path), "rb") as voice:
                if i == 0:
                    out.setparams(voice.getparams())
                out.writeframes(voice.readframes(voice.getnframes()))


def make_clip(file: str | None, to: Path) -> Clip:
    """Return the file, or the voices joined in a new file `to` (and its folder). ClipError."""
    if file is None:
        _join_voices(to)
    path, title = (to, f"{len(ORDER)} voices of alsa-utils") if file is None else (Path(file), file)
    try:
        info = SoundFileInfo(str(path))
    except FileNotFoundError:
        raise ClipError(f"{path}: there is no such file") from None
    except OSError:
        raise ClipError(f"{path}: not a sound file (expected WAV or FLAC)") from None
    if info.native is None:
        raise ClipError(f"{path}: its encoding is a lossy one; convert it to WAV or FLAC first")
    if not info.frames:
        raise ClipError(f"{path}: there is no sound in it")
    return Clip(path, title, info.rate, info.channels, info.frames, info.native.name)
