# SPDX-License-Identifier: LGPL-2.1-or-later
"""The cards that the toolstack is given, as in xl's configuration file."""

from __future__ import annotations

NAME = "conformance"
"""Of the domain that the toolstack makes."""

ALL_KEYS = [
    "CARD, backend=Domain-0, short-name=Short, long-name=A long name, sample-rates=44100;48000,"
    " sample-formats=S16_LE;u8, channels-min=1, channels-max=8, buffer-size=65536",
    "PCM, name=first, sample-rates=8000, sample-formats=s24_le;f32_le, channels-min=2,"
    " channels-max=6, buffer-size=32768",
    "STREAM, unique-id=speaker, type=P, sample-rates=96000;192000, sample-formats=f64_le,"
    " channels-min=2, channels-max=2, buffer-size=0x4000",
    "STREAM, unique-id=microphone, type=c",
    "PCM, name=second",
    "STREAM, type=P",
]

FEW_KEYS = ["CARD", "PCM", "STREAM, unique-id=0, type=c"]


def specification(card: list[str]) -> str:
    """Return a card as the value of `vsnd`."""
    return f"[ {card!r} ]"
