# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest's sound in one description: what xl and the guest's PulseAudio are told of it.

    [[card]]
    short-name = "Main"             # what the guest's users see; long-name likewise
    backend = "sound"               # the domain that serves it; without it, Domain-0
    sample-rates = [44100, 48000]   # Hz
    sample-formats = ["s16_le"]
    channels-min = 1
    channels-max = 2
    buffer-size = 65536             # octets, of each stream's buffer at most

    [[card.pcm]]
    name = "Main"

    [[card.pcm.stream]]
    type = "playback"               # or "capture"
    unique-id = "out"

    [pulseaudio]
    latency-ms = 100                # the longest, of each sink and source

Keys are xl's own (xl.cfg(5), xen/io/sndif.h). What a card says of rates, formats, channels and
buffer counts for its PCM devices, and what these say for their streams, unless they say otherwise.

Refused is what xl refuses, or takes and makes nonsense of (tests/conformance has what a real one
does); what our backend refuses (xenaudio/backend/cardconfig.py); and names that are too long for
the guest. What comes out is read again as xl reads it, and must be what was described.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xenaudio.backend.cardconfig import (
    CHANNELS_MOST,
    DEFAULT_CHANNELS_MAX,
    PCMS_MOST,
    RATE_MOST,
    STREAMS_MOST,
)
from xenaudio.backend.limits import Limits
from xenaudio.core.engine import RATES_MOST
from xenaudio.core.format import PULSE_FORMATS, Format, all_formats, by_name
from xenaudio.core.tomlfile import Table, TomlFile
from xenaudio.localhv import vsnd

# What ALSA has room for in a Linux guest (struct snd_card, struct snd_pcm), and our own frontend.
SHORT_NAME_MOST = 31  # octets
LONG_NAME_MOST = 79
UNIQUE_ID_MOST = 127

# Of module-xenpv-sink and -source (csrc/pulse/device-arguments.c, stream-open.h).
LATENCY_MS = (2, 2000)


@dataclass(frozen=True)
class Pcm:
    """What a stream can be opened with. None: not said."""

    rates: tuple[int, ...] | None = None
    formats: tuple[Format, ...] | None = None
    channels_min: int | None = None
    channels_max: int | None = None
    buffer_size: int | None = None

    def over(self, outer: Pcm) -> Pcm:
        """Return what counts within what an outer level says."""
        said = {name: value for name, value in vars(self).items() if value is not None}
        return replace(outer, **said)

    def items(self) -> list[str]:
        """Return it as xl's KEY=VALUE."""
        found = []
        if self.rates is not None:
            found.append(f"sample-rates={';'.join(map(str, self.rates))}")
        if self.formats is not None:
            found.append(f"sample-formats={';'.join(f.libxl_name or f.name for f in self.formats)}")
        for key, value in (
            ("channels-min", self.channels_min),
            ("channels-max", self.channels_max),
            ("buffer-size", self.buffer_size),
        ):
            if value is not None:
                found.append(f"{key}={value}")
        return found


@dataclass(frozen=True)
class Stream:
    """A stream, with what counts for it."""

    capture: bool
    unique_id: str
    own: Pcm
    whole: Pcm


@dataclass(frozen=True)
class PcmDevice:
    """A PCM device and its streams."""

    name: str | None
    own: Pcm
    streams: tuple[Stream, ...]


@dataclass(frozen=True)
class Card:
    """A card: `named` are its KEY=VALUE besides those of Pcm."""

    named: Mapping[str, str]
    own: Pcm
    pcms: tuple[PcmDevice, ...]

    def items(self) -> list[str]:
        """Return the strings of its list in vsnd=."""
        found = [_item("CARD", self.named, self.own)]
        for pcm in self.pcms:
            found.append(_item("PCM", {} if pcm.name is None else {"name": pcm.name}, pcm.own))
            for stream in pcm.streams:
                kind = "c" if stream.capture else "p"
                named = {"unique-id": stream.unique_id, "type": kind}
                found.append(_item("STREAM", named, stream.own))
        return found


def _item(kind: str, named: Mapping[str, str], own: Pcm) -> str:
    return ", ".join([kind, *(f"{key}={value}" for key, value in named.items()), *own.items()])


@dataclass(frozen=True)
class GuestSound:
    """All of a guest's sound."""

    cards: tuple[Card, ...]
    latency_ms: int | None = None

    def vsnd(self) -> str:
        """Return the stanza for the guest's xl configuration."""
        cards = []
        for card in self.cards:
            items = ",\n    ".join(_quoted(item) for item in card.items())
            cards.append(f"  [ {items} ]")
        return "vsnd = [\n{}\n]\n".format(",\n".join(cards))

    def detect(self) -> str:
        """Return the line of default.pa that loads a sink or source for each stream."""
        return " ".join(["load-module module-xenpv-detect", *self._latency()])

    def modules(self) -> list[str]:
        """Return the lines of default.pa that do it one by one, for what PulseAudio can play."""
        found = []
        for device, card in enumerate(self.cards):
            for number, pcm in enumerate(card.pcms):
                for index, stream in enumerate(pcm.streams):
                    if (spec := _spec(stream.whole)) is None:
                        continue
                    module = "source" if stream.capture else "sink"
                    place = [f"device={device}", f"pcm={number}", f"stream={index}"]
                    line = [f"load-module module-xenpv-{module}", *place, *spec, *self._latency()]
                    found.append(" ".join(line))
        return found

    def _latency(self) -> list[str]:
        return [] if self.latency_ms is None else [f"latency_msec={self.latency_ms}"]


def _spec(pcm: Pcm) -> list[str] | None:
    """Return the arguments that leave no choice; None when PulseAudio has none of the formats."""
    found = []
    if pcm.formats is not None:
        formats = [PULSE_FORMATS[f.name] for f in pcm.formats if f.name in PULSE_FORMATS]
        if not formats:
            return None
        if len(pcm.formats) == 1:
            found.append(f"format={formats[0]}")
    if pcm.rates is not None and len(pcm.rates) == 1:
        found.append(f"rate={pcm.rates[0]}")
    if pcm.channels_min is not None and pcm.channels_min == pcm.channels_max:
        found.append(f"channels={pcm.channels_min}")
    return found


def _quoted(text: str) -> str:
    quote = '"' if "'" in text else "'"
    return f"{quote}{text}{quote}"


def _text(most: int) -> Callable[[object], str]:
    """Return what takes a text that xl passes on unchanged, of so many octets."""

    def take(value: object) -> str:
        if not isinstance(value, str) or not value:
            raise ValueError("expected a text")
        if "," in value:
            raise ValueError("expected a text without ',', at which xl would cut it")
        if '"' in value or "\\" in value:
            raise ValueError("expected a text without '\"' and '\\', which xl.cfg would quote")
        if not value.isprintable():
            raise ValueError("expected a text of printable characters, in one line")
        if len(value.encode()) > most:
            raise ValueError(f"expected at most {most} octets: a guest has room for no more")
        return value

    return take


def _backend(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.+-]+", value):
        raise ValueError("expected the name or number of the domain that serves the card")
    return value


def _format(value: object) -> Format:
    known = by_name(value) if isinstance(value, str) else None
    if known is None or (known.libxl_name or known.name) not in vsnd.FORMATS:
        names = (f.libxl_name or f.name for f in all_formats())
        raise ValueError(f"expected PCM formats as xl names them: {', '.join(names)}")
    if value != (known.libxl_name or known.name):
        raise ValueError(f"xl knows it as {known.libxl_name!r} only")
    return known


def _formats(value: object) -> tuple[Format, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError('expected an array of formats, such as ["s16_le"]')
    found = []
    for name in value:
        try:
            found.append(_format(name))
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from error
    return tuple(found)


def _pcm(table: Table, outer: Pcm) -> Pcm:
    """Take what a level says of PCM; note when it makes no sense within the outer one."""
    rates = table.array(
        "sample-rates",
        lambda rate: (
            isinstance(rate, int) and not isinstance(rate, bool) and 1 <= rate <= RATE_MOST
        ),
        f"a whole number of Hz from 1 to {RATE_MOST}",
        RATES_MOST,
    )
    own = Pcm(
        rates=None if rates is None else tuple(rates),
        formats=table.converted("sample-formats", _formats),
        channels_min=table.integer("channels-min", 1, CHANNELS_MOST),
        channels_max=table.integer("channels-max", 1, CHANNELS_MOST),
        buffer_size=table.integer("buffer-size", 1, Limits.buffer_octets, "octets"),
    )
    whole = own.over(outer)
    least = whole.channels_min or 1
    most = whole.channels_max or DEFAULT_CHANNELS_MAX
    if least > most:
        key = "channels-min" if own.channels_min is not None else "channels-max"
        if key in table:
            table.problem(
                key, f"expected channels-min ({least}) to be at most channels-max ({most})"
            )
    return own


def _stream(table: Table, outer: Pcm, place: str) -> Stream:
    kind = table.choice("type", ("playback", "capture"))
    table.missing("type", '"playback" or "capture"')
    unique_id = table.converted("unique-id", _text(UNIQUE_ID_MOST))
    own = _pcm(table, outer)
    table.no_more()
    return Stream(kind == "capture", unique_id or place, own, own.over(outer))


def _pcm_device(table: Table, outer: Pcm, place: str) -> PcmDevice:
    name = table.converted("name", _text(LONG_NAME_MOST))
    own = _pcm(table, outer)
    streams = [
        _stream(stream, own.over(outer), f"{place}/{index}")
        for index, stream in enumerate(table.tables("stream"))
    ]
    if not streams and "stream" not in table:
        table.problem_here("it has no stream: expected [[card.pcm.stream]]")
    table.no_more()
    return PcmDevice(name, own, tuple(streams))


def _card(table: Table) -> Card:
    taken: dict[str, Callable[[object], str]] = {
        "backend": _backend,
        "short-name": _text(SHORT_NAME_MOST),
        "long-name": _text(LONG_NAME_MOST),
    }
    found = {key: table.converted(key, take) for key, take in taken.items()}
    own = _pcm(table, Pcm())
    pcms = [_pcm_device(pcm, own, str(number)) for number, pcm in enumerate(table.tables("pcm"))]
    if not pcms and "pcm" not in table:
        table.problem_here("it has no PCM device: expected [[card.pcm]]")
    if len(pcms) > PCMS_MOST:
        table.problem_here(f"it has {len(pcms)} PCM devices: expected at most {PCMS_MOST}")
    streams = [stream for pcm in pcms for stream in pcm.streams]
    if len(streams) > STREAMS_MOST:
        table.problem_here(f"it has {len(streams)} streams: expected at most {STREAMS_MOST}")
    names = [stream.unique_id for stream in streams]
    for name in sorted({name for name in names if names.count(name) > 1}):
        table.problem_here(
            f"{names.count(name)} of its streams have the unique-id {name!r}: expected one"
        )
    table.no_more()
    return Card({key: text for key, text in found.items() if text is not None}, own, tuple(pcms))


def parse(file: TomlFile) -> GuestSound:
    """Make a guest's sound of a description. TomlFileError, with all that is wrong."""
    cards = [_card(table) for table in file.root.tables("card")]
    if not cards and "card" not in file.root:
        file.root.problem_here("there is no card: expected [[card]]")
    latency = None
    if (pulseaudio := file.root.table("pulseaudio")) is not None:
        latency = pulseaudio.integer("latency-ms", *LATENCY_MS, "milliseconds")
        pulseaudio.no_more()
    file.root.no_more()
    file.finish()
    sound = GuestSound(tuple(cards), latency)
    _check(sound)
    return sound


def _check(sound: GuestSound) -> None:
    """Read the stanza as xl does."""
    found: Sequence[Any] = vsnd.parse(sound.vsnd())
    if [card.items for card in found] != [card.items() for card in sound.cards]:
        raise AssertionError(f"xl would read {sound.vsnd()!r} otherwise")
