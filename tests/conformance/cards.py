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


def _card(*items: str) -> str:
    return specification(list(items))


TAKEN = [
    ["CARD", "PCM", "STREAM, type=P"],
    ALL_KEYS,
    ["PCM", "STREAM, type=p"],
    ["CARD", "STREAM, type=p"],
    ["CARD", "PCM", "CARD"],
    ["card", "pcm", "stream, type=p"],
    ["CARD, short-name="],
    ["CARD, short-name=a=b"],
    ["CARD", ""],
    ["CARD, short-name=x,"],
    ["CARD, short-name=x, short-name=y"],
    ["CARD, buffer-size=0777"],
    ["CARD, channels-min=8, channels-max=2"],
    [
        "CARD, sample-formats=s8;u8;s16_le;s16_be;u16_le;u16_be;s24_le;s24_be;u24_le;u24_be;s32_le;"
        "s32_be;u32_le;u32_be;f32_le;f32_be;f64_le;f64_be;iec958_subframe_le;iec958_subframe_be;"
        "mu_law;a_law;ima_adpcm;mpeg;gsm"
    ],
    [],
]
"""Cards that xl takes."""

SPECIFICATIONS = {
    "no cards": "[]",
    "cards": str(TAKEN),
    "an unknown kind": _card("CARD", "MIXER"),
    "an unknown key": _card("CARD, volume=1"),
    "a PCM's key in a stream": _card("CARD", "PCM", "STREAM, name=x"),
    "id, as the man page has it": _card("CARD", "PCM", "STREAM, id=0"),
    "a key without a value": _card("CARD, short-name"),
    "blanks": _card("CARD , short-name = x"),
    "a type in full": _card("CARD", "PCM", "STREAM, type=playback"),
    "float_le": _card("CARD, sample-formats=float_le"),
    "s24_3le": _card("CARD, sample-formats=s24_3le"),
    "formats with a blank": _card("CARD, sample-formats=s8; u8"),
    "rates with ,": _card("CARD, sample-rates=8000,9000"),
    "rates of nothing": _card("CARD, sample-rates=;"),
    "numbers that are none": _card(
        *("CARD, buffer-size=big", "PCM, buffer-size=4k", "STREAM, buffer-size=-1"),
        "STREAM, buffer-size=4294967296",
    ),
    "a string": "'CARD'",
    "a list of strings": "[ 'CARD' ]",
    "a list in a card": "[ [ 'CARD', [ 'PCM' ] ] ]",
    "nothing": "",
}
"""Values of `vsnd`, which a toolstack takes or refuses."""
