# SPDX-License-Identifier: LGPL-2.1-or-later
"""A card's configuration and its streams' transport, from the frontend's directory in XenStore.

The directory is the guest's own, so nothing in it is trusted: numbers are bounded, lists are short,
and what is missing or wrong is a ConfigError with the node's name. Settings are inherited from the
card to its PCM devices to their streams (xen/io/sndif.h, "PCM settings").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from xenaudio.backend.limits import Limits
from xenaudio.core.engine import RATES_MOST, Caps
from xenaudio.core.format import Format, all_formats, by_name
from xenaudio.core.store import Tree

FEATURE_RENEGOTIATE = "feature-renegotiate"
"""Node of a frontend that can begin anew at any time, as "1" (csrc/frontend/card.h)."""
FEATURE_HOLD_OFF = "feature-hold-off"
"""Node of a frontend that rings for every request but WRITE, asked to or not; likewise."""

# What a stream has when its configuration does not say.
DEFAULT_RATES = (
    *(5512, 8000, 11025, 12000, 16000, 22050, 24000, 32000),
    *(44100, 48000, 64000, 88200, 96000, 176400, 192000),
)
DEFAULT_CHANNELS_MAX = 8

RATE_MOST = 768000  # Hz
CHANNELS_MOST = 32
PCMS_MOST = 32
STREAMS_MOST = 64  # of a card


class ConfigError(ValueError):
    """A node of the frontend's directory is missing or holds what it must not."""


@dataclass(frozen=True)
class StreamNodes:
    """One stream of a card: its place, what it can do, and its rings."""

    pcm: int
    stream: int
    unique_id: str
    capture: bool
    caps: Caps
    ring_ref: int
    event_channel: int
    evt_ring_ref: int
    evt_event_channel: int


@dataclass(frozen=True)
class CardNodes:
    """A card as its frontend published it."""

    short_name: str
    renegotiates: bool
    """It can begin anew at any time, also while it plays."""
    hold_off: bool
    """It rings for every request but WRITE, asked to or not."""
    streams: tuple[StreamNodes, ...]


def _number(node: str, text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10) or not low <= int(text) <= high:
        raise ConfigError(f"{node} = {text[:40]!r}, expected a number from {low} to {high}")
    return int(text)


def is_folder(name: str) -> bool:
    """Return whether a node of this name can be a PCM device or a stream of a card."""
    return name.isascii() and name.isdigit() and len(name) <= 3


def _children(tree: Tree) -> Iterator[tuple[int, str, Tree]]:
    for name, child in tree.items():
        if is_folder(name) and isinstance(child, dict):
            yield int(name), name, child


def _settings(inherited: Mapping[str, str], tree: Tree) -> dict[str, str]:
    keys = ("channels-min", "channels-max", "sample-rates", "sample-formats", "buffer-size")
    own = {key: value for key in keys if isinstance(value := tree.get(key), str)}
    return {**inherited, **own}


def _caps(where: str, settings: Mapping[str, str], buffer_octets_most: int) -> Caps:
    def setting(key: str, default: str) -> str:
        return settings.get(key, default)

    rates = [
        _number(f"{where}/sample-rates", rate.strip(), 1, RATE_MOST)
        for rate in setting("sample-rates", ",".join(map(str, DEFAULT_RATES))).split(",")
        if rate.strip()
    ]
    if not 1 <= len(rates) <= RATES_MOST:
        raise ConfigError(
            f"{where}/sample-rates has {len(rates)} rates, expected 1 to {RATES_MOST}"
        )
    formats: list[Format] = []
    if "sample-formats" in settings:
        for name in settings["sample-formats"].split(","):
            # Compressed formats are legal in the list; they are not offered.
            if (found := by_name(name.strip())) is not None:
                formats.append(found)
    else:
        formats = list(all_formats())
    if not formats:
        raise ConfigError(f"{where}/sample-formats names no PCM format of sndif")
    channels_max = _number(
        f"{where}/channels-max",
        setting("channels-max", str(DEFAULT_CHANNELS_MAX)),
        1,
        CHANNELS_MOST,
    )
    channels_min = _number(f"{where}/channels-min", setting("channels-min", "1"), 1, channels_max)
    buffer_octets = _number(
        f"{where}/buffer-size", setting("buffer-size", str(buffer_octets_most)), 1, 0xFFFFFFFF
    )
    return Caps(
        formats=tuple(formats),
        rates=tuple(rates),
        channels_min=channels_min,
        channels_max=channels_max,
        buffer_octets_max=min(buffer_octets, buffer_octets_most),
    )


def _stream(
    where: str,
    pcm: int,
    stream: int,
    tree: Tree,
    settings: Mapping[str, str],
    buffer_octets_most: int,
) -> StreamNodes:
    def leaf(key: str) -> str:
        value = tree.get(key)
        if not isinstance(value, str):
            raise ConfigError(f"{where}/{key} is missing")
        return value

    def reference(key: str) -> int:
        return _number(f"{where}/{key}", leaf(key), 1, 0xFFFFFFFF)

    kind = leaf("type")
    if kind not in ("p", "c"):
        raise ConfigError(f"{where}/type = {kind[:40]!r}, expected 'p' or 'c'")
    # A frontend of protocol version 1 has no event ring.
    has_events = "evt-ring-ref" in tree or "evt-event-channel" in tree
    unique_id = tree.get("unique-id", "")
    return StreamNodes(
        pcm=pcm,
        stream=stream,
        unique_id=unique_id if isinstance(unique_id, str) else "",
        capture=kind == "c",
        caps=_caps(where, settings, buffer_octets_most),
        ring_ref=reference("ring-ref"),
        event_channel=reference("event-channel"),
        evt_ring_ref=reference("evt-ring-ref") if has_events else 0,
        evt_event_channel=reference("evt-event-channel") if has_events else 0,
    )


def parse_card(tree: Tree, buffer_octets_most: int = Limits.buffer_octets) -> CardNodes:
    """Read a frontend's directory (Store.read_tree, with `is_folder`). ConfigError.

    No stream's buffer may have more octets than `buffer_octets_most`, whatever the card says.
    """
    card = _settings({}, tree)
    streams: list[StreamNodes] = []
    for pcm, pcm_name, pcm_tree in _children(tree):
        settings = _settings(card, pcm_tree)
        for stream, name, stream_tree in _children(pcm_tree):
            if pcm >= PCMS_MOST or len(streams) >= STREAMS_MOST:
                raise ConfigError(
                    f"more than {PCMS_MOST} PCM devices or {STREAMS_MOST} streams in a card"
                )
            streams.append(
                _stream(
                    f"{pcm_name}/{name}",
                    pcm,
                    stream,
                    stream_tree,
                    _settings(settings, stream_tree),
                    buffer_octets_most,
                )
            )
    if not streams:
        raise ConfigError("the card has no stream")
    short_name = tree.get("short-name", "")
    return CardNodes(
        short_name=short_name[:32] if isinstance(short_name, str) else "",
        renegotiates=tree.get(FEATURE_RENEGOTIATE) == "1",
        hold_off=tree.get(FEATURE_HOLD_OFF) == "1",
        streams=tuple(streams),
    )
