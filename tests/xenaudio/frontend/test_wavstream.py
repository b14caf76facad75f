# SPDX-License-Identifier: LGPL-2.1-or-later
"""WAV headers from a pipe, good and bad."""

from __future__ import annotations

import io
import struct

import pytest

from xenaudio.core.wavstream import WavError, read_header, unpack_24


def chunk(name: bytes, body: bytes, octets: int | None = None) -> bytes:
    size = len(body) if octets is None else octets
    return name + struct.pack("<I", size) + body + b"\0" * (len(body) % 2)


def fmt(tag: int = 1, channels: int = 2, rate: int = 48000, bits: int = 16) -> bytes:
    block = channels * bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * block, block, bits))


def wav(*chunks: bytes) -> bytes:
    return b"RIFF\0\0\0\0WAVE" + b"".join(chunks)


@pytest.mark.parametrize(
    ("tag", "bits", "name"),
    [
        (1, 8, "u8"),
        (1, 16, "s16_le"),
        (1, 24, "s24_le"),
        (1, 32, "s32_le"),
        (3, 32, "float_le"),
        (3, 64, "float64_le"),
        (6, 8, "a_law"),
        (7, 8, "mu_law"),
    ],
)
def test_encodings(tag: int, bits: int, name: str) -> None:
    pipe = io.BytesIO(wav(fmt(tag, bits=bits), chunk(b"data", b"samples", 700)))
    header = read_header(pipe)
    assert (header.format.name, header.channels, header.rate) == (name, 2, 48000)
    assert header.packed == (bits == 24)
    assert header.octets == 700
    assert pipe.read(7) == b"samples"


def test_other_chunks_are_passed_over_and_extensible_is_read() -> None:
    extensible = struct.pack("<HHIIHHHHIH14x", 0xFFFE, 6, 96000, 0, 24, 32, 22, 32, 0x3F, 3)
    pipe = io.BytesIO(wav(chunk(b"LIST", b"odd"), chunk(b"fmt ", extensible), chunk(b"data", b"")))
    header = read_header(pipe)
    assert (header.format.name, header.channels) == ("float_le", 6)


@pytest.mark.parametrize("octets", [0, 0xFFFFFFFF, 0x7FFFF000])
def test_a_length_that_nobody_could_know_means_to_the_end(octets: int) -> None:
    assert read_header(io.BytesIO(wav(fmt(), chunk(b"data", b"", octets)))).octets is None


def test_what_was_peeked_at_counts() -> None:
    stream = wav(fmt(), chunk(b"data", b"", 4))
    assert read_header(io.BytesIO(stream[4:]), stream[:4]).octets == 4


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (b"", "cut short"),
        (b"RIFF\0\0\0\0AVI ", "does not begin"),
        (wav(fmt())[:-3], "cut short"),
        (wav(chunk(b"data", b"")), "no format chunk"),
        (wav(chunk(b"fmt ", b"\1\0")), "too short"),
        (wav(fmt(tag=2)), "tag 2, 16 bits"),
        (wav(fmt(bits=12)), "12 bits"),
        (wav(fmt(channels=0)), "contradicts"),
        (wav(fmt(rate=0)), "contradicts"),
        (wav(chunk(b"junk", b"", 0xFFFFFFFF)), "too long"),
        (wav(*[chunk(b"junk", bytes(600000))] * 2), "too long"),
    ],
)
def test_bad_headers(stream: bytes, said: str) -> None:
    with pytest.raises(WavError, match=said):
        read_header(io.BytesIO(stream))


def test_24_bits_are_spread_and_sign_extended() -> None:
    packed = b"\1\2\3" + b"\xff\xff\xff" + b"\0\0\x80"
    assert unpack_24(packed) == struct.pack("<3i", 0x030201, -1, -0x800000)
