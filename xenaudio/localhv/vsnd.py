# SPDX-License-Identifier: LGPL-2.1-or-later
"""The `vsnd=` syntax of xl.cfg (xl 4.17), and the XenStore nodes that libxl makes of it.

    vsnd = [ [ 'CARD, short-name=Main, sample-rates=44100;48000',
               'PCM, name=Main', 'STREAM, unique-id=0, type=p' ], ... ]

What xl refuses is refused. So are three things that xl lets pass and nobody can mean: a number that
is not one (xl writes 0), an empty list (xl crashes), and items that are no strings (xl ignores them
and what follows). Nothing is inherited: a value is written where it was given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

# libxl's names of sndif's formats; XenStore has them in lower case.
FORMATS = tuple(
    f"{kind}{order}"
    for kind, orders in (
        *((kind, ("",)) for kind in ("s8", "u8")),
        *(
            (kind, ("_le", "_be"))
            for kind in ("s16", "u16", "s24", "u24", "s32", "u32", "f32", "f64", "iec958_subframe")
        ),
        *((kind, ("",)) for kind in ("mu_law", "a_law", "ima_adpcm", "mpeg", "gsm")),
    )
    for order in orders
)

_PARAMS = ("sample-rates", "sample-formats", "channels-min", "channels-max", "buffer-size")
_KEYS = {
    "card": ("backend", "short-name", "long-name", *_PARAMS),
    "pcm": ("name", *_PARAMS),
    "stream": ("unique-id", "type", *_PARAMS),
}
_UINT32_MAX = 0xFFFFFFFF


class VsndError(ValueError):
    """A vsnd specification that xl would refuse; the message names the item, key and value."""


@dataclass
class Params:
    """What can be given at each level. 0 and empty mean: not given."""

    sample_rates: list[int] = field(default_factory=list)
    sample_formats: list[str] = field(default_factory=list)
    channels_min: int = 0
    channels_max: int = 0
    buffer_size: int = 0

    def nodes(self, prefix: str) -> Iterator[tuple[str, str]]:
        """The nodes, in libxl's order."""
        if self.sample_rates:
            yield f"{prefix}sample-rates", ",".join(map(str, self.sample_rates))
        if self.sample_formats:
            yield f"{prefix}sample-formats", ",".join(self.sample_formats)
        if self.channels_min:
            yield f"{prefix}channels-min", str(self.channels_min)
        if self.channels_max:
            yield f"{prefix}channels-max", str(self.channels_max)
        if self.buffer_size:
            yield f"{prefix}buffer-size", str(self.buffer_size)


@dataclass
class Stream:
    """A STREAM."""

    unique_id: str | None = None
    type: str | None = None
    params: Params = field(default_factory=Params)


@dataclass
class Pcm:
    """A PCM with its streams."""

    name: str | None = None
    params: Params = field(default_factory=Params)
    streams: list[Stream] = field(default_factory=list)


@dataclass
class Card:
    """A CARD: one vsnd device. `backend` is the name or domid of its backend's domain."""

    items: list[str]
    backend: str | None = None
    short_name: str | None = None
    long_name: str | None = None
    params: Params = field(default_factory=Params)
    pcms: list[Pcm] = field(default_factory=list)

    def nodes(self) -> list[tuple[str, str]]:
        """The nodes of the frontend's directory that describe the card, in libxl's order."""
        found: list[tuple[str, str]] = []
        if self.long_name is not None:
            found.append(("long-name", self.long_name))
        if self.short_name is not None:
            found.append(("short-name", self.short_name))
        found += self.params.nodes("")
        for i, pcm in enumerate(self.pcms):
            if pcm.name is not None:
                found.append((f"{i}/name", pcm.name))
            found += pcm.params.nodes(f"{i}/")
            for j, stream in enumerate(pcm.streams):
                if stream.unique_id is not None:
                    found.append((f"{i}/{j}/unique-id", stream.unique_id))
                if stream.type is not None:
                    found.append((f"{i}/{j}/type", stream.type))
                found += stream.params.nodes(f"{i}/{j}/")
        return found


def parse(text: str) -> list[Card]:
    """The cards of a specification, with or without its `vsnd =`. VsndError."""
    return [parse_card(items, number) for number, items in enumerate(_parse_lists(text), 1)]


def parse_card(items: list[str], number: int = 1) -> Card:
    """One card from its items, such as `CARD, short-name=Main`. `number` is for messages."""
    card = Card(list(items))
    for at, item in enumerate(items, 1):
        _parse_item(card, item, f"vsnd card {number}, item {at} '{item}'")
    return card


def _parse_item(card: Card, item: str, where: str) -> None:
    tokens = [token.lstrip(" ") for token in item.split(",") if token]
    if not tokens:
        return
    kind = tokens[0].lower()
    if kind not in _KEYS:
        raise VsndError(f"{where}: '{tokens[0]}': expected CARD, PCM or STREAM")
    if kind == "pcm":
        card.pcms.append(Pcm())
    elif kind == "stream":
        if not card.pcms:
            card.pcms.append(Pcm())
        card.pcms[-1].streams.append(Stream())
    for token in tokens[1:]:
        key, equals, value = token.partition("=")
        if not equals:
            raise VsndError(f"{where}: '{token}': expected KEY=VALUE")
        if key not in _KEYS[kind]:
            hint = ""
            if kind == "stream" and key == "id":
                hint = " (xl's man page says id, its parser wants unique-id)"
            raise VsndError(
                f"{where}: unknown key '{key}' (value '{value}'): "
                f"{kind.upper()} takes {', '.join(_KEYS[kind])}{hint}"
            )
        _set(card, kind, key, value, where)


def _set(card: Card, kind: str, key: str, value: str, where: str) -> None:
    if key in _PARAMS:
        params = card.params
        if kind == "pcm":
            params = card.pcms[-1].params
        elif kind == "stream":
            params = card.pcms[-1].streams[-1].params
        _set_param(params, key, value, f"{where}: {key}='{value}'")
    elif kind == "card":
        setattr(card, key.replace("-", "_"), value)
    elif kind == "pcm":
        card.pcms[-1].name = value
    elif key == "unique-id":
        card.pcms[-1].streams[-1].unique_id = value
    else:
        if value.lower() not in ("p", "c"):
            raise VsndError(f"{where}: type='{value}': expected p (playback) or c (capture)")
        card.pcms[-1].streams[-1].type = value.lower()


def _set_param(params: Params, key: str, value: str, where: str) -> None:
    if key == "sample-rates":
        params.sample_rates = [_number(rate, where) for rate in _split(value, where)]
    elif key == "sample-formats":
        formats = []
        for name in _split(value, where):
            if name.lower() not in FORMATS:
                raise VsndError(
                    f"{where}: unknown format '{name}': expected {', '.join(FORMATS)}, "
                    "separated by ';'"
                )
            formats.append(name.lower())
        params.sample_formats = formats
    else:
        setattr(params, key.replace("-", "_"), _number(value, where))


def _split(value: str, where: str) -> list[str]:
    found = [part for part in value.split(";") if part]
    if not found:
        raise VsndError(f"{where}: expected a list separated by ';', found nothing")
    return found


def _number(text: str, where: str) -> int:
    """What strtoul(text, 0) reads: decimal, 0x hexadecimal or 0 octal, leading blanks allowed."""
    word = text.lstrip(" \t")
    for pattern, base in ((r"0[xX][0-9a-fA-F]+", 16), (r"0[0-7]*", 8), (r"[1-9][0-9]*", 10)):
        if re.fullmatch(pattern, word, re.ASCII):
            number = int(word, base)
            if number <= _UINT32_MAX:
                return number
    raise VsndError(f"{where}: '{text}': expected a number from 0 to {_UINT32_MAX}")


# xl.cfg's own syntax, as far as lists of lists of strings need it.

_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\n]+|\#[^\n]*)
    |(?P<string>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
    |(?P<number>[0-9][0-9a-fx]*)
    |(?P<name>[a-z][._0-9a-z]*)
    |(?P<mark>\+=|[\[\],=;])""",
    re.VERBOSE,
)
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def _tokens(text: str) -> list[tuple[str, str]]:
    found = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise VsndError(f"vsnd: '{text[at : at + 20]}': expected [, ], ',' or a quoted string")
        kind = match.lastgroup or ""
        if kind != "blank":
            found.append((kind, match.group()))
        at = match.end()
    return found


def _unquote(text: str) -> str:
    def escape(match: re.Match[str]) -> str:
        char = match.group(1)
        if char in _ESCAPES:
            return _ESCAPES[char]
        if char in "\"'\\":
            return char
        raise VsndError(f"vsnd: {text}: '\\{char}' is not an escape that xl.cfg has")

    return re.sub(r"\\(.)", escape, text[1:-1])


def _parse_lists(text: str) -> list[list[str]]:
    tokens = _tokens(text)
    if tokens[:2] == [("name", "vsnd"), ("mark", "=")]:
        tokens = tokens[2:]
    if tokens and tokens[-1] == ("mark", ";"):
        tokens.pop()
    if not tokens:
        raise VsndError("vsnd: nothing given: expected [ [ 'CARD, ...', 'PCM, ...', ... ], ... ]")
    value, at = _value(tokens, 0)
    if at != len(tokens):
        raise VsndError(f"vsnd: '{tokens[at][1]}' after the end of the list")
    if not isinstance(value, list):
        raise VsndError(f"vsnd: {value!r}: expected [ [ 'CARD, ...', 'PCM, ...', ... ], ... ]")
    cards = []
    for number, card in enumerate(value, 1):
        if not isinstance(card, list):
            raise VsndError(
                f"vsnd card {number}: {card!r}: expected a list, [ 'CARD, ...', 'PCM, ...', ... ]"
            )
        items = []
        for at, item in enumerate(card, 1):
            if not isinstance(item, str):
                raise VsndError(f"vsnd card {number}, item {at}: expected a string, found a list")
            items.append(item)
        cards.append(items)
    return cards


def _value(tokens: list[tuple[str, str]], at: int, depth: int = 0) -> tuple[object, int]:
    kind, text = tokens[at] if at < len(tokens) else ("end", "the end")
    if kind == "string":
        return _unquote(text), at + 1
    if kind == "number":
        return text, at + 1
    if text != "[" or kind != "mark":
        raise VsndError(f"vsnd: found {text}: expected a list or a quoted string")
    if depth == 3:
        raise VsndError("vsnd: lists nested too deep: expected a list of cards, each a list")
    at += 1
    values: list[object] = []
    while at < len(tokens) and tokens[at] != ("mark", "]"):
        value, at = _value(tokens, at, depth + 1)
        values.append(value)
        if at < len(tokens) and tokens[at] == ("mark", ","):
            at += 1
        elif at < len(tokens) and tokens[at] != ("mark", "]"):
            raise VsndError(f"vsnd: found {tokens[at][1]} after {value!r}: expected ',' or ']'")
    if at >= len(tokens):
        raise VsndError("vsnd: a list is not closed: expected ']'")
    return values, at + 1
