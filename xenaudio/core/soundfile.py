# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sound files in the wire's sample formats, without loss (csrc/soundfile/soundfile.h).

Calls block on the disk.
"""

from __future__ import annotations

import errno
import os
from types import TracebackType
from typing import Any

from xenaudio.core.errors import check, make_error
from xenaudio.core.ffi import ffi, lib
from xenaudio.core.format import Format, by_name

# libsndfile's encodings (SF_FORMAT_SUBMASK) -> our name of the format that is the same thing.
_NATIVE = {
    0x0001: "s8",
    0x0002: "s16_le",
    0x0003: "s24_le",
    0x0004: "s32_le",
    0x0005: "u8",
    0x0006: "float_le",
    0x0007: "float64_le",
    0x0010: "mu_law",
    0x0011: "a_law",
}


class SoundFileInfo:
    """What a sound file's header says."""

    def __init__(self, path: str) -> None:
        """Read the header of `path`. OSError: not readable, or (EINVAL) not a sound file."""
        self._info = ffi.new("struct xa_soundfile_info *")
        check(lib.xa_soundfile_probe(os.fsencode(path), self._info), f"read {path}")
        self.path = path
        self.rate = int(self._info.rate)
        self.channels = int(self._info.channels)
        self.frames = int(self._info.frames)
        name = _NATIVE.get(self._info.subtype)
        self.native: Format | None = by_name(name) if name else None
        """The format whose samples are the file's; None when its encoding is a lossy one."""

    def reads_as(self, format: Format) -> bool:
        """Say whether the file's samples can be had in `format` without loss."""
        return bool(lib.xa_soundfile_reads_as(self._info, lib.xa_format_by_code(format.code)))


class _SoundFile:
    _file: Any

    def close(self) -> None:
        """Close the file. OSError (EIO) when not everything could be written."""
        if self._file is not None:
            file, self._file = self._file, None
            check(lib.xa_soundfile_close(file), f"close {self.path}")

    def __init__(self, path: str, format: Format, channels: int) -> None:
        self.path = path
        self.frame_octets = format.frame_octets(channels)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class SoundReader(_SoundFile):
    """A sound file read in a wire format. ENOTSUP when that would lose something."""

    def __init__(self, path: str, format: Format) -> None:
        info = ffi.new("struct xa_soundfile_info *")
        file = ffi.new("struct xa_soundfile **")
        code = lib.xa_format_by_code(format.code)
        check(lib.xa_soundfile_open(os.fsencode(path), code, info, file), f"open {path}")
        super().__init__(path, format, int(info.channels))
        self._file = file[0]

    def __enter__(self) -> SoundReader:
        return self

    def read(self, frames: int) -> bytes:
        """Return the next frames; fewer than asked for, or none, at the end."""
        samples = ffi.new("uint8_t[]", frames * self.frame_octets)
        got = lib.xa_soundfile_read(self._file, samples, frames)
        return bytes(ffi.buffer(samples, got * self.frame_octets))


class SoundWriter(_SoundFile):
    """A new sound file (an old one is replaced): FLAC when its name ends in .flac, else WAV."""

    def __init__(self, path: str, format: Format, rate: int, channels: int) -> None:
        file = ffi.new("struct xa_soundfile **")
        code = lib.xa_format_by_code(format.code)
        result = lib.xa_soundfile_create(os.fsencode(path), False, code, rate, channels, file)
        check(result, f"create {path}")
        super().__init__(path, format, channels)
        self._file = file[0]

    def __enter__(self) -> SoundWriter:
        return self

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append whole frames. OSError (EIO) when the disk is full or broken."""
        frames = len(data) // self.frame_octets
        if lib.xa_soundfile_write(self._file, ffi.from_buffer(data), frames) < frames:
            raise make_error(errno.EIO, f"write {self.path}")
