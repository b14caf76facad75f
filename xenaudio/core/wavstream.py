# SPDX-License-Identifier: LGPL-2.1-or-later
"""WAV from a pipe: the header, and samples in the wire's formats (24 bits in four octets).

libsndfile seeks, which a pipe cannot. Only linear PCM, floats and the two laws are read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

from xenaudio.core.format import Format, by_name

HEADER_MAX = 1 << 20
"""Octets before the samples that are read at most."""

_PCM, _FLOAT, _A_LAW, _MU_LAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_FORMATS = {
    (_PCM, 8): "u8",
    (_PCM, 16): "s16_le",
    (_PCM, 24): "s24_le",
    (_PCM, 32): "s32_le",
    (_FLOAT, 32): "float_le",
    (_FLOAT, 64): "float64_le",
    (_A_LAW, 8): "a_law",
    (_MU_LAW, 8): "mu_law",
}
_SIGN = bytes(0xFF if octet & 0x80 else 0 for octet in range(256))


class Pipe(Protocol):
    """Anything that can be read."""

    def read(self, octets: int, /) -> bytes:
        """Wait for so many octets; fewer at the end."""


class WavError(ValueError):
    """The stream is not a WAV that can be read; the text says why."""


@dataclass(frozen=True)
class WavHeader:
    """What a WAV header says."""

    rate: int
    channels: int
    format: Format
    packed: bool
    """24-bit samples lie in three octets, as the wire's never do: use `unpack_24`."""
    octets: int | None
    """Of samples, as they lie in the stream; None: until its end."""


def unpack_24(packed: bytes) -> bytes:
    """Spread 24-bit samples of three octets over four, sign-extended."""
    samples = bytearray(len(packed) // 3 * 4)
    samples[0::4] = packed[0::3]
    samples[1::4] = packed[1::3]
    samples[2::4] = packed[2::3]
    samples[3::4] = packed[2::3].translate(_SIGN)
    return bytes(samples)


def _take(pipe: Pipe, octets: int) -> bytes:
    data = pipe.read(octets)
    if len(data) < octets:
        raise WavError("the WAV header is cut short")
    return data


def _parse_format(chunk: bytes) -> tuple[int, int, Format, bool]:
    if len(chunk) < 16:
        raise WavError("the WAV header's format chunk is too short")
    tag, channels, rate, _per_second, block, bits = struct.unpack_from("<HHIIHH", chunk)
    if tag == _EXTENSIBLE and len(chunk) >= 26:
        (tag,) = struct.unpack_from("<H", chunk, 24)
    name = _FORMATS.get((tag, bits))
    format = by_name(name) if name else None
    if format is None:
        raise WavError(f"its encoding (tag {tag}, {bits} bits) is not one that can be read")
    if channels == 0 or rate == 0 or block != channels * bits // 8:
        raise WavError("the WAV header contradicts itself")
    return rate, channels, format, bits == 24


def read_header(pipe: Pipe, begun: bytes = b"") -> WavHeader:
    """Read a WAV header, up to its first sample. `begun`: what was taken of it already."""
    head = begun + _take(pipe, 12 - len(begun))
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        raise WavError("it does not begin with a WAV header")
    seen = 0
    found: tuple[int, int, Format, bool] | None = None
    while seen < HEADER_MAX:
        name, octets = struct.unpack("<4sI", _take(pipe, 8))
        if name == b"data":
            if found is None:
                raise WavError("the WAV header has no format chunk")
            rate, channels, format, packed = found
            # Whoever writes to a pipe cannot know, and says 0 or as much as fits.
            known = octets if 0 < octets < 0x7FFF0000 else None
            return WavHeader(rate, channels, format, packed, known)
        if octets > HEADER_MAX:
            raise WavError("the WAV header is too long")
        chunk = _take(pipe, octets + octets % 2)
        seen += len(chunk) + 8
        if name == b"fmt ":
            found = _parse_format(chunk)
    raise WavError("the WAV header is too long")
