# SPDX-License-Identifier: LGPL-2.1-or-later
"""The configuration file: what it means, and each message about a bad one, to the letter."""

from __future__ import annotations

from pathlib import Path

import pytest

from xenaudio.backend.config import DOMID_MOST, Config, parse, read
from xenaudio.backend.limits import Limits
from xenaudio.backend.routes import StreamPlace
from xenaudio.core.engine import Route, RouteKind
from xenaudio.core.tomlfile import TomlFile, TomlFileError
from xenaudio.localhv.wire import DOMID_FIRST_RESERVED


def config_of(text: str) -> Config:
    return parse(TomlFile("xenaudio.toml", text))


def place(
    guest: str = "desk-1", card: int = 0, pcm: int = 0, unique_id: str = "", domid: int = 7
) -> StreamPlace:
    return StreamPlace(guest, card, pcm, 0, unique_id, domid)


def test_without_a_word_nothing_is_heard_and_nobody_listens() -> None:
    for config in (Config(), config_of("")):
        assert config.routes.route(place(), False) == Route()
        assert config.routes.route(place(), True) == Route()
        assert not config.routes.allows_microphone(place())
        assert config.limits("desk-1", 7) == Limits()


RULES = """
[[route]]
guest = "desk-*"
unique-id = "mic*"
microphone = "allow"

[[route]]
guest = "desk-1"
card = 1
output = "file:{0}/card1.wav"

[[route]]
guest = "desk-1"
pcm = 2
output = "file:{0}/pcm2.wav"

[[route]]
guest = 9
output = "file:{0}/domain9.wav"

[[route]]
output = "file:{0}/others.wav"
input = "loop:{0}/in.wav"
"""


@pytest.mark.parametrize(
    ("which", "file"),
    [
        (place(), "others.wav"),
        (place(card=1), "card1.wav"),
        (place(card=1, pcm=2), "card1.wav"),  # the first one decides
        (place(pcm=2), "pcm2.wav"),
        (place("desk-2", card=1), "others.wav"),
        (place("desk-10", card=1), "others.wav"),
        (place("Desk-1", card=1), "others.wav"),
        (place("web", domid=9), "domain9.wav"),
        (place("9"), "others.wav"),
    ],
)
def test_the_first_route_that_fits_decides(tmp_path: Path, which: StreamPlace, file: str) -> None:
    (tmp_path / "in.wav").touch()
    routes = config_of(RULES.format(tmp_path)).routes
    assert routes.route(which, False) == Route(RouteKind.FILE, f"{tmp_path}/{file}")


@pytest.mark.parametrize(
    ("which", "allowed"),
    [
        (place(unique_id="mic"), True),
        (place(unique_id="mic-2"), True),
        (place(unique_id="line"), False),
        (place(), False),
        (place("web", unique_id="mic"), False),
    ],
)
def test_a_microphone_is_for_whom_it_is_allowed(
    tmp_path: Path, which: StreamPlace, allowed: bool
) -> None:
    (tmp_path / "in.wav").touch()
    routes = config_of(RULES.format(tmp_path)).routes
    assert routes.allows_microphone(which) is allowed
    # The input comes from a table of its own, and is silence where it is denied.
    heard = Route(RouteKind.FILE, f"{tmp_path}/in.wav", loop=True)
    assert routes.route(which, True) == (heard if allowed else Route())


def test_each_limit_is_decided_by_the_first_table_that_says_it() -> None:
    config = config_of("""
        [[limits]]
        guest = "build-*"
        cards = 1
        [[limits]]
        guest = 7
        streams = 3
        [[limits]]
        cards = 2
        streams = 4
        buffer-octets = 65536
        handshakes-per-second = 0.5
        """)
    assert config.limits("web", 1) == Limits(2, 4, 65536, 0.5)
    assert config.limits("build-1", 1) == Limits(1, 4, 65536, 0.5)
    assert config.limits("build-1", 7) == Limits(1, 3, 65536, 0.5)
    assert config_of("[[limits]]\ncards = 0").limits("web", 1) == Limits(cards=0)


def test_domids_end_where_xens_do() -> None:
    assert DOMID_MOST + 1 == DOMID_FIRST_RESERVED


ROUTE_KEYS = "guest, card, pcm, unique-id, output, input, microphone"
LIMIT_KEYS = "guest, cards, streams, buffer-octets, handshakes-per-second"
OUTPUTS = "expected 'null', 'file:PATH', 'pulse' or 'pulse:SERVER,DEVICE'"
INPUTS = "expected 'null', 'file:PATH', 'loop:PATH', 'pulse' or 'pulse:SERVER,DEVICE'"
GUEST = f"expected a guest's name, a pattern such as 'desk-*', or a domid from 0 to {DOMID_MOST}"

BAD = [
    # Not TOML.
    ("[[route]\n", ["1: this is not TOML: Expected ']]' at the end of an array declaration"]),
    (
        "[[route]]\noutput: null\n",
        ["2: this is not TOML: Expected '=' after a key in a key/value pair"],
    ),
    ("[[route]]\noutput = null\n", ['2: output = null: expected a string in quotes, "null"']),
    (
        '[[route]]\noutput = "null"\noutput = "pulse"\n',
        ["3: this is not TOML: Cannot overwrite a value"],
    ),
    # Tables.
    (
        '[route]\noutput = "null"\n',
        ["1: route = {...}: expected tables that each begin with [[route]]"],
    ),
    ("limits = 3\n", ["1: limits = 3: expected tables that each begin with [[limits]]"]),
    (
        '[[routes]]\noutput = "null"\n',
        [
            "1: routes = [{...}]: unknown key in the top of the file: did you mean route?"
            " expected route, limits"
        ],
    ),
    # Routes.
    (
        '[[route]]\nguest = "a"\n',
        ["1: [[route]]: it decides nothing: expected output, input or microphone"],
    ),
    (
        '# x\n\n[[route]]\nouptut = "null"\ninput = "null"\n',
        [
            '4: ouptut = "null": unknown key in [[route]]: did you mean output?'
            f" expected {ROUTE_KEYS}"
        ],
    ),
    ('[[route]]\noutput = "alsa:hw"\n', [f'2: output = "alsa:hw": not a route, {OUTPUTS}']),
    ("[[route]]\noutput = 1\n", ["2: output = 1: expected a route, such as 'null'"]),
    ('[[route]]\ninput = "loop"\n', [f'2: input = "loop": not a route, {INPUTS}']),
    (
        '[[route]]\noutput = "file:/nowhere/x.wav"\n',
        ['2: output = "file:/nowhere/x.wav": there is no folder /nowhere'],
    ),
    (
        '[[route]]\ninput = "file:/nowhere.wav"\n',
        ['2: input = "file:/nowhere.wav": there is no such file or folder'],
    ),
    (
        '[[route]]\noutput = "file:played/"\n',
        [
            '2: output = "file:played/": expected a path that begins with /:'
            " a service has no folder of its own"
        ],
    ),
    (
        '[[route]]\noutput = "pulse:,a b"\n',
        [
            "2: output = \"pulse:,a b\": 'a b' is not the name of a sink or source"
            " (`pactl list short` names them)"
        ],
    ),
    ("[[route]]\nmicrophone = true\n", ['2: microphone = true: expected "allow" or "deny"']),
    ('[[route]]\nmicrophone = "Allow"\n', ['2: microphone = "Allow": expected "allow" or "deny"']),
    ('[[route]]\nguest = -1\noutput = "null"\n', [f"2: guest = -1: {GUEST}"]),
    ('[[route]]\nguest = ""\noutput = "null"\n', [f'2: guest = "": {GUEST}']),
    ('[[route]]\nguest = ["a"]\noutput = "null"\n', [f'2: guest = ["a"]: {GUEST}']),
    (
        '[[route]]\ncard = "0"\noutput = "null"\n',
        ['2: card = "0": expected a whole number from 0 to 65535'],
    ),
    (
        '[[route]]\npcm = 32\noutput = "null"\n',
        ["2: pcm = 32: expected a whole number from 0 to 31"],
    ),
    (
        '[[route]]\nunique-id = 0\noutput = "null"\n',
        ["2: unique-id = 0: expected the unique-id of a stream, or a pattern of it"],
    ),
    (
        '[[route]]\noutput = "null"\n[[route]]\nguest = "a"\noutput = "pulse"\n',
        [
            "3: [[route]]: it has no effect: a table before it decides output for all:"
            " expected it before that one"
        ],
    ),
    # Limits.
    (
        '[[limits]]\nguest = "a"\n',
        [
            "1: [[limits]]: it limits nothing: expected cards, streams, buffer-octets or"
            " handshakes-per-second"
        ],
    ),
    ("[[limits]]\nstreams = -1\n", ["2: streams = -1: expected a whole number from 0 to 4096"]),
    ("[[limits]]\ncards = 2.0\n", ["2: cards = 2.0: expected a whole number from 0 to 1024"]),
    (
        '[[limits]]\nbuffer-octets = "64K"\n',
        ['2: buffer-octets = "64K": expected a whole number of octets from 4096 to 67108864'],
    ),
    (
        "[[limits]]\nhandshakes-per-second = 0\n",
        ["2: handshakes-per-second = 0: expected a number from 0.1 to 1000"],
    ),
    (
        "[[limits]]\nbuffer_octets = 65536\n",
        [
            "1: [[limits]]: it limits nothing: expected cards, streams, buffer-octets or"
            " handshakes-per-second",
            "2: buffer_octets = 65536: unknown key in [[limits]]: did you mean buffer-octets?"
            f" expected {LIMIT_KEYS}",
        ],
    ),
    # All at once, in the file's order.
    (
        '[[limits]]\ncards = true\n[[route]]\ncard = -1\noutput = "x"\n[[route]]\nmicrophone = 1\n',
        [
            "2: cards = true: expected a whole number from 0 to 1024",
            "4: card = -1: expected a whole number from 0 to 65535",
            f'5: output = "x": not a route, {OUTPUTS}',
            '7: microphone = 1: expected "allow" or "deny"',
        ],
    ),
]


@pytest.mark.parametrize(("text", "lines"), BAD)
def test_a_bad_file_is_refused_with_all_that_is_wrong(text: str, lines: list[str]) -> None:
    with pytest.raises(TomlFileError) as raised:
        config_of(text)
    assert str(raised.value).splitlines() == [f"xenaudio.toml:{line}" for line in lines]


def test_a_file_that_is_not_there_is_an_error_when_it_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.toml"):
        read(tmp_path / "none.toml")
