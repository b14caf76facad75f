# SPDX-License-Identifier: LGPL-2.1-or-later
"""sndif's PCM sample formats, from the C core's table (csrc/sndif/format.h)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

from xenaudio.core.ffi import ffi, lib

PULSE_FORMATS = {
    "u8": "u8",
    "s16_le": "s16le",
    "s16_be": "s16be",
    "s24_le": "s24-32le",
    "s24_be": "s24-32be",
    "s32_le": "s32le",
    "s32_be": "s32be",
    "float_le": "float32le",
    "float_be": "float32be",
    "mu_law": "ulaw",
    "a_law": "alaw",
}
"""sndif's names of what PulseAudio has too, and its names (csrc/pulse/card-formats.c)."""


class SampleType(Enum):
    """How a sample's octets mean a value."""

    SIGNED = lib.XA_SAMPLE_SIGNED
    UNSIGNED = lib.XA_SAMPLE_UNSIGNED
    FLOAT = lib.XA_SAMPLE_FLOAT
    MU_LAW = lib.XA_SAMPLE_MU_LAW
    A_LAW = lib.XA_SAMPLE_A_LAW
    IEC958 = lib.XA_SAMPLE_IEC958


@dataclass(frozen=True)
class Format:
    """One PCM format."""

    code: int
    """XENSND_PCM_FORMAT_* of xen/io/sndif.h."""
    name: str
    """Its spelling in sndif.h, used in XenStore."""
    libxl_name: str | None
    """The spelling that xl writes, where it is another one."""
    type: SampleType
    sample_octets: int
    """On the wire: 1, 2, 4 or 8. (24-bit samples take four.)"""
    sample_bits: int
    """That carry the value: 8, 16, 24, 32 or 64."""
    big_endian: bool

    def frame_octets(self, channels: int) -> int:
        """Octets of one frame of `channels` samples."""
        return self.sample_octets * channels


def _from_c(entry: Any) -> Format | None:
    if entry == ffi.NULL:
        return None
    return Format(
        code=entry.code,
        name=ffi.string(entry.name).decode(),
        libxl_name=None if entry.libxl_name == ffi.NULL else ffi.string(entry.libxl_name).decode(),
        type=SampleType(int(entry.type)),
        sample_octets=entry.sample_octets,
        sample_bits=entry.sample_bits,
        big_endian=bool(entry.big_endian),
    )


def by_code(code: int) -> Format | None:
    """Return the format with an OPEN's pcm_format; None when it is unknown or compressed."""
    return _from_c(lib.xa_format_by_code(code)) if 0 <= code <= 0xFF else None


def by_name(name: str) -> Format | None:
    """Return the format called `name`, in either spelling; None when there is none."""
    text = name.encode("utf-8", "surrogateescape")
    return _from_c(lib.xa_format_by_name(text, len(text)))


@cache
def all_formats() -> tuple[Format, ...]:
    """Return every PCM format, in the order of the codes."""
    return tuple(found for code in range(0x100) if (found := by_code(code)) is not None)
