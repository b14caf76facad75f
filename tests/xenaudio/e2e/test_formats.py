# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every sample format, channel count, rate and period passes bit for bit, played and recorded."""

from __future__ import annotations

import asyncio
from itertools import product
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import pytest
from guest import open_card, open_stream, play, record
from machine import Machine
from pcm import assert_holds, assert_same, named, random_samples, write_wav

from xenaudio.core.frontend import Stream

COMMON = ("u8", "s16_le", "s24_le", "s32_le", "float_le")
RARE = ("s16_be", "u24_be", "mu_law", "float64_le")
CHANNELS = (1, 2, 6)
RATES = (8000, 44100, 48000, 96000)
PERIODS_MS = (2, 5, 10, 20, 50, 100)
SECONDS = 0.5
AT_ONCE = 10


class Case(NamedTuple):
    """One PCM stream's parameters."""

    format: str
    channels: int
    rate: int
    period_ms: int

    @property
    def samples(self) -> bytes:
        """Noise, another one for each case."""
        format = named(self.format)
        return random_samples(
            format, int(self.rate * SECONDS) * self.channels, crc32(repr(self).encode())
        )


CASES = [
    *(
        Case(name, CHANNELS[(i + j // 2) % 3], RATES[(i + j) % 4], period)
        for i, name in enumerate(COMMON)
        for j, period in enumerate(PERIODS_MS)
    ),
    *(Case(name, CHANNELS[i % 3], RATES[(i + 1) % 4], 20) for i, name in enumerate(RARE)),
]

CARD = (
    "[['CARD, short-name=Matrix, channels-min=1, channels-max=6, buffer-size=4194304'"
    + "".join(
        f",'PCM, name=p{i}','STREAM, unique-id=p{i}, type=p','STREAM, unique-id=c{i}, type=c'"
        for i in range(AT_ONCE)
    )
    + "]]"
)


def test_the_cases_pair_everything_that_matters() -> None:
    common = [case for case in CASES if case.format in COMMON]
    for first, second in ((0, 1), (0, 2), (0, 3), (1, 3), (1, 2), (2, 3)):
        values = [COMMON, CHANNELS, RATES, PERIODS_MS]
        wanted = set(product(values[first], values[second]))
        assert {(case[first], case[second]) for case in common} == wanted


def batches() -> list[list[Case]]:
    return [CASES[i : i + AT_ONCE] for i in range(0, len(CASES), AT_ONCE)]


@pytest.mark.asyncio
@pytest.mark.parametrize("cases", batches(), ids=lambda cases: cases[0].format)
async def test_each_case_is_bit_exact_both_ways(
    machine: Machine, played: Path, tmp_path: Path, cases: list[Case]
) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for i, case in enumerate(cases):
        write_wav(
            inputs / f"matrix-0-{i}-1.wav",
            named(case.format),
            case.rate,
            case.channels,
            case.samples,
        )
    backend = machine.serve("--output", f"file:{played}/", "--input", f"file:{inputs}/")
    domain = await asyncio.to_thread(machine.create, "matrix", CARD)

    async def both_ways(i: int, case: Case, out: Stream | None, back: Stream | None) -> None:
        assert out is not None
        assert back is not None
        format = named(case.format)

        async def open_one(stream: Stream) -> None:
            await open_stream(
                stream, format, case.channels, rate=case.rate, period_ms=case.period_ms
            )

        async def record_all() -> bytes:
            await open_one(back)
            got = await record(back, int(case.rate * SECONDS))
            await back.close()
            return got

        async def play_all() -> None:
            await open_one(out)
            await play(out, case.samples)

        recorded, _ = await asyncio.gather(record_all(), play_all())
        frame = format.frame_octets(case.channels)
        assert_same(recorded, case.samples, frame, f"recorded, {case}")
        path = played / f"matrix-0-{i}-0.wav"
        assert_holds(path, format, case.rate, case.channels, case.samples)

    async with open_card(domain) as card:
        await asyncio.gather(
            *(
                both_ways(
                    i,
                    case,
                    card.find_stream(capture=False, pcm=i),
                    card.find_stream(capture=True, pcm=i),
                )
                for i, case in enumerate(cases)
            )
        )
    for i in range(len(cases)):
        for stream in (0, 1):
            stats = backend.last_stats("matrix", i, stream)
            assert stats is not None
            assert (stats["bad_requests"], stats["frames_lost"]) == (0, 0)
