# SPDX-License-Identifier: LGPL-2.1-or-later
"""Routes: their text, and the file that each stream of each guest gets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xenaudio.backend.routes import RouteError, Routes, StreamPlace, parse_route
from xenaudio.core.engine import Route, RouteKind

PLACE = StreamPlace("guest", 0, 1, 2)


def test_null_is_a_route_both_ways() -> None:
    assert parse_route("null", False) == parse_route("null", True) == Route()
    assert str(Route()) == "null"


def test_a_folder_gives_each_stream_a_file_of_its_own(tmp_path: Path) -> None:
    for text in (f"file:{tmp_path}", f"file:{tmp_path}/"):
        routes = Routes(parse_route(text, False), Route())
        assert routes.route(PLACE, False) == Route(RouteKind.FILE, f"{tmp_path}/guest-0-1-2.wav")
        assert routes.route(PLACE, True) == Route()


def test_a_file_is_used_by_all(tmp_path: Path) -> None:
    route = parse_route(f"file:{tmp_path}/all.wav", False)
    assert Routes(route, Route()).route(PLACE, False) == route
    assert route.path == f"{tmp_path}/all.wav"


def test_a_relative_path_is_taken_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_route("file:x.wav", False).path == f"{tmp_path}/x.wav"


def test_an_input_is_a_file_once_or_in_a_loop(tmp_path: Path) -> None:
    (tmp_path / "in.wav").touch()
    once = parse_route(f"file:{tmp_path}/in.wav", True)
    again = parse_route(f"loop:{tmp_path}/in.wav", True)
    assert (once.loop, again.loop) == (False, True)
    assert str(again) == f"loop:{tmp_path}/in.wav"
    assert Routes(Route(), again).route(PLACE, True) == again


def test_a_folder_of_inputs_gives_silence_to_whom_it_has_no_file_for(tmp_path: Path) -> None:
    (tmp_path / "guest-0-1-2.wav").touch()
    routes = Routes(Route(), parse_route(f"loop:{tmp_path}", True))
    assert routes.route(PLACE, True) == Route(
        RouteKind.FILE, f"{tmp_path}/guest-0-1-2.wav", loop=True
    )
    assert routes.route(StreamPlace("guest", 0, 1, 3), True) == Route()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("web.example_1-a", "web.example_1-a"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("..", "guest"),
        (".hidden", "hidden"),
        ("", "guest"),
        ("a b\n", "a_b_"),
        ("\u00fc", "_"),
        ("x" * 300, "x" * 64),
    ],
)
def test_a_guests_name_cannot_leave_the_folder(tmp_path: Path, name: str, file: str) -> None:
    routes = Routes(parse_route(f"file:{tmp_path}/", False), Route())
    path = routes.route(StreamPlace(name, 0, 0, 0), False).path
    assert path == f"{tmp_path}/{file}-0-0-0.wav"
    assert len(os.path.basename(path)) <= 255


@pytest.mark.parametrize(
    "text", ["", "file", "file:", "alsa:default", "loop:/tmp", "FILE:/tmp", "null:", "pulse:"]
)
def test_what_is_no_output_is_refused(text: str) -> None:
    with pytest.raises(RouteError, match="not a route, expected 'null', 'file:PATH', 'pulse' or"):
        parse_route(text, False)


def test_a_missing_file_or_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RouteError, match=f"no folder {tmp_path}/none"):
        parse_route(f"file:{tmp_path}/none/x.wav", False)
    with pytest.raises(RouteError, match=f"no folder {tmp_path}/none"):
        parse_route(f"file:{tmp_path}/none/", False)
    with pytest.raises(RouteError, match="no such file"):
        parse_route(f"loop:{tmp_path}/none.wav", True)


def test_a_device_or_pipe_is_no_input(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", f"{tmp_path}/pipe"):
        with pytest.raises(RouteError, match="no such file"):
            parse_route(f"file:{path}", True)


def test_a_path_that_the_core_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RouteError, match="too long"):
        parse_route(f"file:{tmp_path}/{'x' * 1000}", False)


@pytest.mark.parametrize(
    ("text", "server", "device"),
    [
        ("pulse", "", ""),
        ("pulse:unix:/run/user/1000/pulse/native", "unix:/run/user/1000/pulse/native", ""),
        ("pulse:tcp:host:4713,alsa_output.x-1", "tcp:host:4713", "alsa_output.x-1"),
        ("pulse:,@DEFAULT_SINK@", "", "@DEFAULT_SINK@"),
        ("pulse:unix:/tmp/a,b/native,out", "unix:/tmp/a,b/native", "out"),
    ],
)
def test_a_sound_server_and_a_device_of_it(text: str, server: str, device: str) -> None:
    for capture in (False, True):
        route = parse_route(text, capture)
        assert route == Route(RouteKind.PULSE, server=server, device=device)
        assert str(route) == text


def test_on_a_sound_server_people_see_whose_stream_it_is() -> None:
    routes = Routes(parse_route("pulse", False), parse_route("pulse:host", True))
    plays, records = routes.route(PLACE, False), routes.route(PLACE, True)
    assert (plays.guest, plays.stream) == ("guest", "card 0, PCM 1, stream 2 plays")
    assert (records.guest, records.stream) == ("guest", "card 0, PCM 1, stream 2 records")
    assert (plays.server, records.server) == ("", "host")


@pytest.mark.parametrize("text", ["pulse:host,", "pulse:,a b", "pulse:unix:/a,b/c"])
def test_what_is_no_device_is_named(text: str) -> None:
    with pytest.raises(RouteError, match="is not the name of a sink or source"):
        parse_route(text, False)


def test_a_server_that_the_core_cannot_hold_is_refused() -> None:
    with pytest.raises(RouteError, match="too long"):
        parse_route(f"pulse:{'x' * 1024}", False)
    with pytest.raises(RouteError, match="too long"):
        parse_route(f"pulse:host,{'x' * 256}", False)
