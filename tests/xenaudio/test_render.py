# SPDX-License-Identifier: LGPL-2.1-or-later
"""A description of a guest's sound: what xl and PulseAudio are told, and what is refused."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest

# What a real xl takes, refuses and crashes on.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conformance"))

from cards import ALL_KEYS, SPECIFICATIONS
from expected import EXPECTED
from guest import open_card, open_stream, stream_of
from machine import Machine, run_xenaudio

from xenaudio.core.format import PULSE_FORMATS, all_formats
from xenaudio.core.tomlfile import TomlFile, TomlFileError
from xenaudio.localhv.vsnd import FORMATS, parse
from xenaudio.render import LATENCY_MS, GuestSound
from xenaudio.render import parse as parse_description

PULSE = Path(__file__).resolve().parents[2] / "csrc" / "pulse"


def sound(text: str) -> GuestSound:
    return parse_description(TomlFile("sound.toml", text))


SMALL = """
[[card]]
[[card.pcm]]
[[card.pcm.stream]]
type = "playback"
"""

WHOLE = """
[[card]]
backend = "Domain-0"
short-name = "Short"
long-name = "A long name"
sample-rates = [44100, 48000]
sample-formats = ["s16_le", "u8"]
channels-min = 1
channels-max = 8
buffer-size = 65536

[[card.pcm]]
name = "first"
sample-rates = [8000]
sample-formats = ["s24_le", "f32_le"]
channels-min = 2
channels-max = 6
buffer-size = 32768

[[card.pcm.stream]]
unique-id = "speaker"
type = "playback"
sample-rates = [96000, 192000]
sample-formats = ["f64_le"]
channels-min = 2
channels-max = 2
buffer-size = 16384

[[card.pcm.stream]]
unique-id = "microphone"
type = "capture"

[[card.pcm]]
name = "second"
[[card.pcm.stream]]
unique-id = "headphones"
type = "playback"
sample-rates = [48000]
sample-formats = ["s16_le"]
channels-min = 2
channels-max = 2

[pulseaudio]
latency-ms = 100
"""


def test_each_key_is_said_as_xl_has_it() -> None:
    (card,) = parse(sound(WHOLE).vsnd())
    # The nodes are those of the stanza that a real xl takes, but for its second PCM's stream.
    (known,) = parse(str([ALL_KEYS]))
    assert card.backend == known.backend
    assert card.nodes()[: len(known.nodes()) - 1] == known.nodes()[:-1]
    assert card.nodes()[len(known.nodes()) - 1 :] == [
        ("1/0/unique-id", "headphones"),
        ("1/0/type", "p"),
        ("1/0/sample-rates", "48000"),
        ("1/0/sample-formats", "s16_le"),
        ("1/0/channels-min", "2"),
        ("1/0/channels-max", "2"),
    ]


def test_the_stanza_is_laid_out_for_people() -> None:
    text = SMALL + '[[card]]\nshort-name = "Bob\'s"\n[[card.pcm]]\n[[card.pcm.stream]]\n'
    assert sound(text + 'type = "capture"\n').vsnd() == (
        "vsnd = [\n"
        "  [ 'CARD',\n"
        "    'PCM',\n"
        "    'STREAM, unique-id=0/0, type=p' ],\n"
        '  [ "CARD, short-name=Bob\'s",\n'
        "    'PCM',\n"
        "    'STREAM, unique-id=0/0, type=c' ]\n"
        "]\n"
    )


def test_every_format_that_xl_and_pcm_have_can_be_said() -> None:
    names = [f.libxl_name or f.name for f in all_formats()]
    text = SMALL.replace("[[card]]", f"[[card]]\nsample-formats = {json.dumps(names)}", 1)
    (card,) = parse(sound(text).vsnd())
    assert card.params.sample_formats == names
    assert set(names) == set(FORMATS) - {"ima_adpcm", "mpeg", "gsm"}  # compressed ones


def test_pulseaudios_modules_are_told_what_leaves_no_choice() -> None:
    assert sound(WHOLE).detect() == "load-module module-xenpv-detect latency_msec=100"
    # (The speaker's only format is one that PulseAudio does not have.)
    assert sound(WHOLE).modules() == [
        "load-module module-xenpv-source device=0 pcm=0 stream=1 rate=8000 latency_msec=100",
        "load-module module-xenpv-sink device=0 pcm=1 stream=0 format=s16le rate=48000 channels=2"
        " latency_msec=100",
    ]
    assert sound(SMALL).detect() == "load-module module-xenpv-detect"


def test_pulseaudios_modules_have_these_arguments_and_formats() -> None:
    header = (PULSE / "device-arguments.h").read_text()
    found = re.search(r"#define XA_PULSE_MODARGS(.*?)#define", header, re.DOTALL)
    assert found is not None
    arguments = set(re.findall(r'"(\w+)"', found[1]))
    given = {word.split("=")[0] for line in sound(WHOLE).modules() for word in line.split()[2:]}
    assert given <= arguments
    assert '"latency_msec"' in (PULSE / "module-xenpv-detect.c").read_text()
    table = re.findall(
        r"\{PA_SAMPLE_(\w+), +XENSND_PCM_FORMAT_(\w+)\}", (PULSE / "card-formats.c").read_text()
    )
    words = {"S24_32LE": "s24-32le", "S24_32BE": "s24-32be"}
    wire = {"f32_le": "float_le", "f32_be": "float_be"}
    assert {wire.get(w.lower(), w.lower()): words.get(p, p.lower()) for p, w in table} == (
        PULSE_FORMATS
    )
    least, most = LATENCY_MS
    arguments_c = (PULSE / "device-arguments.c").read_text()
    assert f"latency_msec= wants milliseconds: {least} to {most}" in arguments_c


# What the descriptions of specifications that xl refuses, crashes on, or makes nonsense of come to;
# None: it cannot be described.
FORMAT = "expected PCM formats as xl names them: " + ", ".join(
    f.libxl_name or f.name for f in all_formats()
)
CARD_KEYS = (
    "backend, short-name, long-name, sample-rates, sample-formats, channels-min, channels-max,"
    " buffer-size, pcm"
)
STREAM_KEYS = (
    "type, unique-id, sample-rates, sample-formats, channels-min, channels-max, buffer-size"
)
TEXT = "short-name = {}: expected a text"
CONFORMANCE: dict[str, tuple[str, list[str]] | None] = {
    "an unknown kind": (
        "[[card]]\n[[card.mixer]]\n",
        [
            "1: [[card]]: it has no PCM device: expected [[card.pcm]]",
            f"2: mixer = [{{...}}]: unknown key in [[card]]: expected {CARD_KEYS}",
        ],
    ),
    "an unknown key": (
        SMALL.replace("[[card]]", "[[card]]\nvolume = 1"),
        [f"3: volume = 1: unknown key in [[card]]: expected {CARD_KEYS}"],
    ),
    "a PCM's key in a stream": (
        SMALL + 'name = "x"\n',
        [f'6: name = "x": unknown key in [[card.pcm.stream]]: expected {STREAM_KEYS}'],
    ),
    "id, as the man page has it": (
        SMALL + "id = 0\n",
        [f"6: id = 0: unknown key in [[card.pcm.stream]]: expected {STREAM_KEYS}"],
    ),
    "a key without a value": (
        "[[card]]\nshort-name\n",
        ["2: this is not TOML: Expected '=' after a key in a key/value pair"],
    ),
    "blanks": None,  # around = and ,: they are not the description's to choose
    "a type in full": (
        SMALL.replace('"playback"', '"p"'),
        ['5: type = "p": expected "playback" or "capture"'],
    ),
    "float_le": (
        SMALL + 'sample-formats = ["float_le"]\n',
        ["6: sample-formats = [\"float_le\"]: 'float_le': xl knows it as 'f32_le' only"],
    ),
    "s24_3le": (
        SMALL + 'sample-formats = ["s24_3le"]\n',
        [f"6: sample-formats = [\"s24_3le\"]: 's24_3le': {FORMAT}"],
    ),
    "formats with a blank": (
        SMALL + 'sample-formats = ["s8", " u8"]\n',
        [f'6: sample-formats = ["s8", " u8"]: \' u8\': {FORMAT}'],
    ),
    "rates with ,": (
        SMALL + 'sample-rates = ["8000,9000"]\n',
        [
            '6: sample-rates = [...]: "8000,9000", number 1:'
            " expected a whole number of Hz from 1 to 768000"
        ],
    ),
    "rates of nothing": (
        SMALL + "sample-rates = []\n",
        [
            "6: sample-rates = []: expected an array of 1 to 32 values,"
            " each a whole number of Hz from 1 to 768000"
        ],
    ),
    "numbers that are none": (
        SMALL.replace("[[card]]", '[[card]]\nbuffer-size = "big"').replace(
            "[[card.pcm]]", '[[card.pcm]]\nbuffer-size = "4k"'
        )
        + "buffer-size = -1\n",
        [
            f"{line}: buffer-size = {value}: expected a whole number of octets from 1 to 4194304"
            for line, value in ((3, '"big"'), (5, '"4k"'), (8, "-1"))
        ],
    ),
    "a string": (
        'card = "CARD"\n',
        ['1: card = "CARD": expected tables that each begin with [[card]]'],
    ),
    "a list of strings": (
        'card = ["CARD"]\n',
        ['1: card = ["CARD"]: expected tables that each begin with [[card]]'],
    ),
    "a list in a card": (
        '[[card]]\npcm = ["PCM"]\n',
        ['2: pcm = ["PCM"]: expected tables that each begin with [[card.pcm]]'],
    ),
    "nothing": ("", ["1: the top of the file: there is no card: expected [[card]]"]),
    "no cards": ("card = []\n", ["1: card = []: expected tables that each begin with [[card]]"]),
}


def refusal(text: str) -> list[str]:
    with pytest.raises(TomlFileError) as raised:
        sound(text)
    return str(raised.value).splitlines()


def test_every_specification_of_the_conformance_tests_is_thought_of() -> None:
    assert set(CONFORMANCE) == set(SPECIFICATIONS) - {"cards"}
    # What a real xl refuses or crashes on is refused, or cannot be said.
    assert {
        name for name, answer in EXPECTED["specifications"].items() if answer != "taken"
    } <= set(CONFORMANCE)


@pytest.mark.parametrize("name", [name for name, case in CONFORMANCE.items() if case])
def test_what_xl_does_not_take_is_refused(name: str) -> None:
    case = CONFORMANCE[name]
    assert case is not None
    text, lines = case
    assert refusal(text) == [f"sound.toml:{line}" for line in lines]


def card(*lines: str) -> str:
    return SMALL.replace("[[card]]", "\n".join(["[[card]]", *lines]), 1)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            card('short-name = "a,b"'),
            [f"3: {TEXT.format(chr(34) + 'a,b' + chr(34))} without ',', at which xl would cut it"],
        ),
        (
            card('short-name = "two\\nlines"'),
            ['3: short-name = "two\\nlines": expected a text of printable characters, in one line'],
        ),
        (
            card("short-name = 'a\"b'"),
            [
                "3: short-name = \"a\\\"b\": expected a text without '\"' and '\\',"
                " which xl.cfg would quote"
            ],
        ),
        (card("short-name = 7"), ["3: short-name = 7: expected a text"]),
        (
            card(f'short-name = "{"x" * 32}"'),
            [
                f'3: short-name = "{"x" * 32}": expected at most 31 octets: a guest has room for'
                " no more"
            ],
        ),
        (
            card('backend = "a b"'),
            ['3: backend = "a b": expected the name or number of the domain that serves the card'],
        ),
        (card("channels-max = 33"), ["3: channels-max = 33: expected a whole number from 1 to 32"]),
        (
            card("channels-min = 4", "channels-max = 2"),
            ["3: channels-min = 4: expected channels-min (4) to be at most channels-max (2)"],
        ),
        (
            # What a stream says, against what its card says.
            card("channels-min = 4") + "channels-max = 2\n",
            ["7: channels-max = 2: expected channels-min (4) to be at most channels-max (2)"],
        ),
        (
            card('sample-formats = ["mpeg"]'),
            [f"3: sample-formats = [\"mpeg\"]: 'mpeg': {FORMAT}"],
        ),
        ("[[card]]\n", ["1: [[card]]: it has no PCM device: expected [[card.pcm]]"]),
        (
            "[[card]]\n[[card.pcm]]\n",
            ["2: [[card.pcm]]: it has no stream: expected [[card.pcm.stream]]"],
        ),
        (
            "[[card]]\n[[card.pcm]]\n[[card.pcm.stream]]\nunique-id = 'x'\n",
            ['3: [[card.pcm.stream]]: type is missing: expected "playback" or "capture"'],
        ),
        (
            SMALL + 'unique-id = "x"\n[[card.pcm.stream]]\ntype = "capture"\nunique-id = "x"\n',
            ["2: [[card]]: 2 of its streams have the unique-id 'x': expected one"],
        ),
        (
            "[[card]]\n" + 65 * '[[card.pcm]]\n[[card.pcm.stream]]\ntype = "capture"\n',
            [
                "1: [[card]]: it has 65 PCM devices: expected at most 32",
                "1: [[card]]: it has 65 streams: expected at most 64",
            ],
        ),
        (
            SMALL + "[pulseaudio]\nlatency-ms = 1\n",
            ["7: latency-ms = 1: expected a whole number of milliseconds from 2 to 2000"],
        ),
        (
            SMALL + "[pulseaudio]\nlatency = 100\n",
            [
                "7: latency = 100: unknown key in [pulseaudio]: did you mean latency-ms?"
                " expected latency-ms"
            ],
        ),
    ],
)
def test_what_nobody_can_mean_is_refused(text: str, lines: list[str]) -> None:
    assert refusal(text) == [f"sound.toml:{line}" for line in lines]


def test_the_command_prints_all_or_a_part(tmp_path: Path) -> None:
    file = tmp_path / "sound.toml"
    file.write_text(WHOLE)
    parts = {}
    for option in ("--vsnd", "--pulseaudio", "--json"):
        done = run_xenaudio("render", option, file)
        assert (done.returncode, done.stderr) == (0, "")
        parts[option] = done.stdout
    assert parts["--vsnd"] == sound(WHOLE).vsnd()
    whole = run_xenaudio("render", file).stdout
    assert parts["--vsnd"] in whole
    assert parts["--pulseaudio"] in whole
    # Only the one line is loaded; the others are there to be chosen.
    (loaded,) = [x for x in parts["--pulseaudio"].splitlines() if not x.startswith("#")]
    assert loaded == sound(WHOLE).detect()
    assert json.loads(parts["--json"]) == {
        "vsnd": [card.items for card in parse(sound(WHOLE).vsnd())],
        "detect": sound(WHOLE).detect(),
        "modules": sound(WHOLE).modules(),
    }
    done = run_xenaudio("render", "--vsnd", "-", input=WHOLE)
    assert done.stdout == parts["--vsnd"]


def test_the_command_refuses_in_one_go(tmp_path: Path) -> None:
    done = run_xenaudio("render", "-", input=card("volume = 1", "channels-min = 0"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"<stdin>:3: volume = 1: unknown key in [[card]]: expected {CARD_KEYS}",
        "<stdin>:4: channels-min = 0: expected a whole number from 1 to 32",
    ]
    done = run_xenaudio("render", tmp_path / "none")
    assert (done.returncode, done.stderr) == (
        1,
        f"xenaudio: {tmp_path}/none: No such file or directory\n",
    )


@pytest.mark.asyncio
async def test_a_guest_with_the_stanza_has_that_sound(machine: Machine) -> None:
    await asyncio.to_thread(machine.serve)
    text = card("sample-rates = [48000]", "channels-max = 2", "buffer-size = 65536")
    domain = await asyncio.to_thread(machine.create, "guest", sound(text).vsnd())
    async with open_card(domain) as connected:
        stream = stream_of(connected)
        await open_stream(stream, buffer_ms=200)
        await stream.close()
        with pytest.raises(OSError, match="open the stream"):
            await open_stream(stream, buffer_ms=200, rate=44100)
