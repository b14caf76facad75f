# SPDX-License-Identifier: LGPL-2.1-or-later
"""xl's `vsnd=` syntax: what it becomes in XenStore, to the letter, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from xenaudio.localhv import LocalHvError, VsndError
from xenaudio.localhv.vsnd import FORMATS, parse

SPEC = """
vsnd = [
  [ 'CARD, short-name=Main, long-name=Main card, sample-rates=44100;48000, buffer-size=65536',
    'PCM, name=Speakers, channels-min=2, channels-max=8',
    'STREAM, unique-id=out, type=p, sample-formats=s16_le;F32_LE;f64_be',
    'stream, unique-id=in, type=C, channels-max=0x2, sample-rates=48000',
    "PCM",
    'STREAM, type=p',
  ],  # the second one follows
  [ 'CARD, backend=sounddom',
    'STREAM, unique-id=lone' ],
]
"""

# path, value, permissions: what xl 4.17 writes for it, domain 2 being the guest and 1 "sounddom".
FRONT0, BACK0 = "/local/domain/2/device/vsnd/0", "/local/domain/0/backend/vsnd/2/0"
FRONT1, BACK1 = "/local/domain/2/device/vsnd/1", "/local/domain/1/backend/vsnd/2/1"
EXPECTED = f"""
/local/domain/2/device/vsnd = ""   (n0,r2)
{FRONT0} = ""   (n2,r0)
{FRONT0}/backend = "{BACK0}"   (n2,r0)
{FRONT0}/backend-id = "0"   (n2,r0)
{FRONT0}/state = "1"   (n2,r0)
{FRONT0}/long-name = "Main card"   (n2,r0)
{FRONT0}/short-name = "Main"   (n2,r0)
{FRONT0}/sample-rates = "44100,48000"   (n2,r0)
{FRONT0}/buffer-size = "65536"   (n2,r0)
{FRONT0}/0 = ""   (n2,r0)
{FRONT0}/0/name = "Speakers"   (n2,r0)
{FRONT0}/0/channels-min = "2"   (n2,r0)
{FRONT0}/0/channels-max = "8"   (n2,r0)
{FRONT0}/0/0 = ""   (n2,r0)
{FRONT0}/0/0/unique-id = "out"   (n2,r0)
{FRONT0}/0/0/type = "p"   (n2,r0)
{FRONT0}/0/0/sample-formats = "s16_le,f32_le,f64_be"   (n2,r0)
{FRONT0}/0/1 = ""   (n2,r0)
{FRONT0}/0/1/unique-id = "in"   (n2,r0)
{FRONT0}/0/1/type = "c"   (n2,r0)
{FRONT0}/0/1/sample-rates = "48000"   (n2,r0)
{FRONT0}/0/1/channels-max = "2"   (n2,r0)
{FRONT0}/1 = ""   (n2,r0)
{FRONT0}/1/0 = ""   (n2,r0)
{FRONT0}/1/0/type = "p"   (n2,r0)
{FRONT1} = ""   (n2,r1)
{FRONT1}/backend = "{BACK1}"   (n2,r1)
{FRONT1}/backend-id = "1"   (n2,r1)
{FRONT1}/state = "1"   (n2,r1)
{FRONT1}/0 = ""   (n2,r1)
{FRONT1}/0/0 = ""   (n2,r1)
{FRONT1}/0/0/unique-id = "lone"   (n2,r1)
/local/domain/0/backend/vsnd/2 = ""   (n0)
{BACK0} = ""   (n0,r2)
{BACK0}/frontend = "{FRONT0}"   (n0,r2)
{BACK0}/frontend-id = "2"   (n0,r2)
{BACK0}/online = "1"   (n0,r2)
{BACK0}/state = "1"   (n0,r2)
/local/domain/1/backend = ""   (n0,r1)
/local/domain/1/backend/vsnd = ""   (n0,r1)
/local/domain/1/backend/vsnd/2 = ""   (n0,r1)
{BACK1} = ""   (n1,r2)
{BACK1}/frontend = "{FRONT1}"   (n1,r2)
{BACK1}/frontend-id = "2"   (n1,r2)
{BACK1}/online = "1"   (n1,r2)
{BACK1}/state = "1"   (n1,r2)
/libxl/2/device/vsnd = ""   (n0)
/libxl/2/device/vsnd/0 = ""   (n0)
/libxl/2/device/vsnd/0/frontend = "{FRONT0}"   (n0)
/libxl/2/device/vsnd/0/backend = "{BACK0}"   (n0)
/libxl/2/device/vsnd/0/frontend-id = "2"   (n0)
/libxl/2/device/vsnd/0/online = "1"   (n0)
/libxl/2/device/vsnd/0/state = "1"   (n0)
/libxl/2/device/vsnd/1 = ""   (n0)
/libxl/2/device/vsnd/1/frontend = "{FRONT1}"   (n0)
/libxl/2/device/vsnd/1/backend = "{BACK1}"   (n0)
/libxl/2/device/vsnd/1/frontend-id = "2"   (n0)
/libxl/2/device/vsnd/1/online = "1"   (n0)
/libxl/2/device/vsnd/1/state = "1"   (n0)
""".strip().splitlines()


def test_the_nodes_are_those_that_xl_writes(machine: Any) -> None:
    machine.create("sounddom")
    machine.create("guest", SPEC)
    listing = machine.tool(None, "xenstore-ls", "-fp", "/").stdout.splitlines()
    about = [
        line
        for line in listing
        if "/device/vsnd" in line.split(" = ")[0]
        or "/backend/vsnd/2" in line.split(" = ")[0]
        or line.startswith("/local/domain/1/backend")
    ]
    assert sorted(about) == sorted(EXPECTED)


def test_a_guest_without_vsnd_has_no_sound_nodes(machine: Any) -> None:
    machine.create("guest")
    assert "vsnd" not in machine.tool(None, "xenstore-ls", "-f", "/").stdout


@pytest.mark.parametrize(
    "spec",
    ["[]", "vsnd=[]", "vsnd = [ ]\n", "vsnd=[];", "# nothing\n[]\n"],
)
def test_no_card_at_all(spec: str) -> None:
    assert parse(spec) == []


@pytest.mark.parametrize(
    ("item", "nodes"),
    [
        ("CARD", {}),
        ("", {}),
        ("card,short-name=a=b;c", {"short-name": "a=b;c"}),
        ("CARD,, short-name=", {"short-name": ""}),
        ("CARD,   short-name=  two  ", {"short-name": "  two  "}),
        ("CARD, short-name=a, short-name=b", {"short-name": "b"}),
        ("CARD, sample-rates=;8000;;48000;", {"sample-rates": "8000,48000"}),
        ("CARD, sample-rates= 010;0x10", {"sample-rates": "8,16"}),
        ("CARD, channels-min=0, buffer-size=0", {}),
        ("CARD, buffer-size=4294967295", {"buffer-size": "4294967295"}),
        ("PCM", {}),
        ("PCM, name=x", {"0/name": "x"}),
        ("STREAM, type=P", {"0/0/type": "p"}),
        *((f"CARD, sample-formats={name.upper()}", {"sample-formats": name}) for name in FORMATS),
    ],
)
def test_an_item_as_xl_reads_it(item: str, nodes: dict[str, str]) -> None:
    (card,) = parse(f"[ [ '{item}' ] ]")
    assert dict(card.nodes()) == nodes


def test_quotes_and_escapes_are_xl_cfgs() -> None:
    (card,) = parse(r"""[ [ "CARD, short-name=it's", 'CARD, long-name=\'a\' \"b\" \\' ] ]""")
    assert dict(card.nodes()) == {"short-name": "it's", "long-name": "'a' \"b\" \\"}


def bad(item: str, *expected: str) -> Any:
    return pytest.param(f"[ [ 'CARD, short-name=ok', '{item}' ] ]", ("card 1, item 2", *expected))


BAD = [
    bad("STREAM, id=0, type=p", "unknown key 'id'", "'0'", "unique-id"),
    bad("STREAM, name=x", "unknown key 'name'", "unique-id, type"),
    bad("STREAM, type=x", "type='x'", "p (playback) or c (capture)"),
    bad("STREAM, type=p ", "type='p '"),
    bad("STREAM, type=", "type=''"),
    bad("STREAM, Type=p", "unknown key 'Type'"),
    bad("STREAM, type", "'type'", "KEY=VALUE"),
    bad("PCM, unique-id=1", "unknown key 'unique-id'", "PCM takes name"),
    bad("PCM, short-name=x", "unknown key 'short-name'"),
    bad("CARD, name=x", "unknown key 'name'", "CARD takes backend"),
    bad("CARD, type=p", "unknown key 'type'"),
    bad("CARD, =x", "unknown key ''"),
    bad("CARDS, short-name=x", "'CARDS'", "CARD, PCM or STREAM"),
    bad("CARD , short-name=x", "'CARD '", "CARD, PCM or STREAM"),
    bad("short-name=x", "'short-name=x'", "CARD, PCM or STREAM"),
    bad("CARD, sample-formats=s16", "sample-formats", "unknown format 's16'", "s16_le"),
    bad("CARD, sample-formats=float_le", "unknown format 'float_le'", "f32_le"),
    bad("CARD, sample-formats=s8; u8", "unknown format ' u8'"),
    bad("CARD, sample-formats=", "sample-formats=''", "';'"),
    bad("CARD, sample-rates=44.1k", "sample-rates='44.1k'", "expected a number"),
    bad("CARD, sample-rates=44100:48000", "'44100:48000'", "expected a number"),
    bad("CARD, sample-rates=;", "sample-rates=';'", "found nothing"),
    bad("CARD, channels-max=two", "channels-max='two'", "expected a number"),
    bad("CARD, channels-max=-1", "channels-max='-1'", "expected a number"),
    bad("CARD, buffer-size=4294967296", "buffer-size='4294967296'", "4294967295"),
    bad("CARD, buffer-size=", "buffer-size=''", "expected a number"),
    bad("CARD, channels-min=09", "channels-min='09'", "expected a number"),
    pytest.param("", ("nothing given", "expected")),
    pytest.param("vsnd =", ("nothing given",)),
    pytest.param("vdispl = [ [ 'CARD' ] ]", ("found vdispl",)),
    pytest.param("vsnd += [ [ 'CARD' ] ]", ("found vsnd",)),
    pytest.param("'CARD, short-name=x'", ("expected [ [",)),
    pytest.param("[ 'CARD, short-name=x' ]", ("card 1", "expected a list")),
    pytest.param("[ [ 'CARD' ], 'PCM' ]", ("card 2", "expected a list")),
    pytest.param("[ [ 'CARD', [ 'PCM' ] ] ]", ("card 1, item 2", "expected a string")),
    pytest.param("[ [ 'CARD' ]", ("not closed",)),
    pytest.param("[ [ 'CARD' 'PCM' ] ]", ("found 'PCM'", "expected ','")),
    pytest.param("[ [ 'CARD' ] ] ]", ("after the end",)),
    pytest.param("[ [ CARD ] ]", ("expected",)),
    pytest.param("[ [ 'CARD ] ]", ("expected",)),
    pytest.param("[ [ 'CARD, short-name=\\q' ] ]", ("\\q", "escape")),
    pytest.param("[" * 100, ("nested too deep",)),
]


@pytest.mark.parametrize(("spec", "expected"), BAD)
def test_what_xl_refuses_is_refused_with_a_reason(spec: str, expected: tuple[str, ...]) -> None:
    with pytest.raises(VsndError) as error:
        parse(spec)
    for part in expected:
        assert part in str(error.value)


def test_a_refused_specification_makes_no_domain(machine: Any) -> None:
    before = machine.tool(None, "xenstore-ls", "-fp", "/").stdout
    with pytest.raises(VsndError):
        machine.create("guest", "[ [ 'STREAM, id=0' ] ]")
    assert machine.tool(None, "xenstore-ls", "-fp", "/").stdout == before
    assert [row["name"] for row in machine.do(machine.hv.domain_rows)] == ["Domain-0"]


@pytest.mark.parametrize("backend", ["nobody", "7"])
def test_a_backend_that_is_no_domain(machine: Any, backend: str) -> None:
    with pytest.raises(LocalHvError, match=f"backend.*{backend}"):
        machine.create("guest", f"[ [ 'CARD, backend={backend}' ] ]")
    assert [row["name"] for row in machine.do(machine.hv.domain_rows)] == ["Domain-0"]


@pytest.mark.parametrize("backend", ["sounddom", "1"])
def test_a_backend_by_name_or_domid(machine: Any, backend: str) -> None:
    sounddom = machine.create("sounddom")
    guest = machine.create("guest", f"[ [ 'CARD, backend={backend}' ] ]")
    server = machine.connect(sounddom)
    assert server.read("backend/vsnd/2/0/state") == "1"
    server.write("backend/vsnd/2/0/state", "2")
    assert server.read("/local/domain/2/device/vsnd/0/state") == "1"
    assert machine.connect(guest).read("/local/domain/1/backend/vsnd/2/0/state") == "2"
