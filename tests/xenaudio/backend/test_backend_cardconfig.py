# SPDX-License-Identifier: LGPL-2.1-or-later
"""A card's configuration is taken from a directory that its guest can write at will."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from xenaudio.backend import cardconfig
from xenaudio.backend.cardconfig import CardNodes, ConfigError, parse_card
from xenaudio.backend.limits import Limits
from xenaudio.core.format import all_formats, by_name

RINGS = {
    "ring-ref": "8",
    "event-channel": "3",
    "evt-ring-ref": "9",
    "evt-event-channel": "4",
}
CARD: dict[str, Any] = {
    "backend": "/local/domain/0/backend/vsnd/1/0",
    "backend-id": "0",
    "state": "3",
    "short-name": "Main",
    "sample-rates": "44100,48000",
    "sample-formats": "s16_le,s32_le",
    "buffer-size": "65536",
    "0": {
        "name": "Front",
        "0": {"unique-id": "p", "type": "p", **RINGS},
        "1": {"unique-id": "c", "type": "c", **RINGS},
    },
}


def changed(path: str, value: object) -> dict[str, Any]:
    """Return the card with one node changed, or without it (None)."""
    card = copy.deepcopy(CARD)
    *above, last = path.split("/")
    tree = card
    for name in above:
        tree = tree.setdefault(name, {})
    if value is None:
        del tree[last]
    else:
        tree[last] = value
    return card


def names(card: CardNodes, stream: int = 0) -> list[str]:
    return [format.name for format in card.streams[stream].caps.formats]


def test_a_card_is_what_its_nodes_say() -> None:
    card = parse_card(CARD)
    assert card.short_name == "Main"
    play, record = card.streams
    assert (play.pcm, play.stream, play.unique_id, play.capture) == (0, 0, "p", False)
    assert (record.pcm, record.stream, record.unique_id, record.capture) == (0, 1, "c", True)
    assert (play.ring_ref, play.event_channel) == (8, 3)
    assert (play.evt_ring_ref, play.evt_event_channel) == (9, 4)
    assert list(play.caps.rates) == [44100, 48000]
    assert names(card) == ["s16_le", "s32_le"]
    assert play.caps.buffer_octets_max == 65536


def test_what_is_not_said_has_a_default() -> None:
    caps = parse_card({"0": {"0": {"type": "p", **RINGS}}}).streams[0].caps
    assert tuple(caps.rates) == cardconfig.DEFAULT_RATES
    assert tuple(caps.formats) == all_formats()
    assert (caps.channels_min, caps.channels_max) == (1, cardconfig.DEFAULT_CHANNELS_MAX)
    assert caps.buffer_octets_max == Limits.buffer_octets


def test_settings_are_inherited_and_the_innermost_counts() -> None:
    card = copy.deepcopy(CARD)
    card["0"]["sample-rates"] = "8000"
    card["0"]["1"]["sample-rates"] = "96000"
    card["0"]["1"]["channels-max"] = "6"
    play, record = parse_card(card).streams
    assert list(play.caps.rates) == [8000]
    assert list(record.caps.rates) == [96000]
    assert record.caps.channels_max == 6
    assert play.caps.channels_max == cardconfig.DEFAULT_CHANNELS_MAX
    assert play.caps.buffer_octets_max == record.caps.buffer_octets_max == 65536


def test_both_spellings_of_a_format_are_known_and_compressed_ones_passed_over() -> None:
    card = parse_card(changed("sample-formats", "f32_le, float64_le ,mpeg,gsm"))
    assert names(card) == ["float_le", "float64_le"]
    assert by_name("mpeg") is None


def test_a_stream_without_event_nodes_is_of_protocol_1() -> None:
    card = copy.deepcopy(CARD)
    for node in ("evt-ring-ref", "evt-event-channel"):
        del card["0"]["0"][node]
    old, new = parse_card(card).streams
    assert (old.evt_ring_ref, old.evt_event_channel) == (0, 0)
    assert (new.evt_ring_ref, new.evt_event_channel) == (9, 4)


def test_a_buffer_is_never_larger_than_the_backends_limit() -> None:
    card = changed("buffer-size", "4294967295")
    assert parse_card(card).streams[0].caps.buffer_octets_max == Limits.buffer_octets
    assert parse_card(card, 65536).streams[0].caps.buffer_octets_max == 65536
    assert parse_card(CARD, 4096).streams[0].caps.buffer_octets_max == 4096


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("0/0/type", None),
        ("0/0/type", "x"),
        ("0/0/type", {"p": ""}),
        ("0/0/ring-ref", None),
        ("0/0/ring-ref", "0"),
        ("0/0/ring-ref", "-1"),
        ("0/0/ring-ref", "4294967296"),
        ("0/0/ring-ref", "99999999999999999999999999"),
        ("0/0/ring-ref", "8 "),
        ("0/0/ring-ref", "0x8"),
        ("0/0/ring-ref", "1_0"),
        ("0/0/ring-ref", "\u0661"),
        ("0/0/ring-ref", ""),
        ("0/0/event-channel", None),
        ("0/0/event-channel", "0"),
        ("0/0/evt-ring-ref", None),
        ("0/0/evt-event-channel", None),
        ("sample-rates", ""),
        ("sample-rates", "0"),
        ("sample-rates", "44100;48000"),
        ("sample-rates", "768001"),
        ("sample-rates", ",".join(["48000"] * 33)),
        ("sample-formats", ""),
        ("sample-formats", "s17_le"),
        ("sample-formats", "mpeg"),
        ("channels-max", "0"),
        ("channels-max", "33"),
        ("channels-min", "0"),
        ("channels-min", "9"),
        ("buffer-size", "0"),
        ("buffer-size", "4294967296"),
        ("buffer-size", "much"),
    ],
)
def test_what_a_node_must_not_hold_is_refused_with_its_name(path: str, value: object) -> None:
    with pytest.raises(ConfigError, match=path.rpartition("/")[2]):
        parse_card(changed(path, value))


def test_long_nonsense_does_not_fill_the_log() -> None:
    with pytest.raises(ConfigError) as refused:
        parse_card(changed("buffer-size", "x" * 4000))
    assert len(str(refused.value)) < 200


def test_a_card_without_a_stream_is_refused() -> None:
    for tree in ({}, {"0": {}}, {"0": {"0": "p"}}, {"0": "p"}, {"0": {"name": "n"}}):
        with pytest.raises(ConfigError, match="no stream"):
            parse_card(tree)


def test_a_card_has_a_bounded_number_of_streams() -> None:
    stream = CARD["0"]["0"]
    most = {"0": {str(i): stream for i in range(cardconfig.STREAMS_MOST)}}
    assert len(parse_card(most).streams) == cardconfig.STREAMS_MOST
    most["1"] = {"0": stream}
    with pytest.raises(ConfigError, match="more than"):
        parse_card(most)
    with pytest.raises(ConfigError, match="more than"):
        parse_card({str(cardconfig.PCMS_MOST): {"0": stream}})


def test_names_that_are_no_index_are_no_streams() -> None:
    card = copy.deepcopy(CARD)
    for name in ("x", "-1", "0x0", "\u0660", "1000", ""):
        card[name] = {"0": {"type": "nonsense"}}
        card["0"][name] = {"type": "nonsense"}
    assert len(parse_card(card).streams) == 2


def test_names_may_be_anything() -> None:
    assert parse_card(changed("short-name", {"a": "b"})).short_name == ""
    assert parse_card(changed("0/0/unique-id", {"a": "b"})).streams[0].unique_id == ""
    assert len(parse_card(changed("short-name", "n" * 4000)).short_name) == 32


def test_what_a_frontend_says_of_itself_is_taken() -> None:
    assert not parse_card(CARD).hold_off
    assert parse_card(changed("feature-hold-off", "1")).hold_off
    assert not parse_card(changed("feature-hold-off", "yes")).hold_off
