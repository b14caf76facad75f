# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xenaudio status` and the control socket, of a service whose guests play and record."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from guest import open_card, open_stream, play, stream_of, until
from machine import HANG, Backend, Machine, run_xenaudio, wait_until
from pcm import counter

import xenaudio
from xenaudio.backend.control import CLIENTS_MOST, REQUEST_MOST
from xenaudio.backend.limits import Limits

RATE = 48000


@pytest.fixture
def control(machine: Machine) -> Path:
    """Give the control socket's path."""
    return machine.directory / "run" / "control"


@pytest.fixture
def served(machine: Machine, control: Path) -> Backend:
    """Give a backend with a control socket and a configuration file."""
    file = machine.directory / "xenaudio.toml"
    file.write_text('[[route]]\nunique-id = "p"\noutput = "null"\n[[limits]]\ncards = 3\n')
    return machine.serve("--config", str(file), "--control", str(control))


def status(control: Path) -> dict[str, Any]:
    done = run_xenaudio("status", "--json", "--control", control)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def said(control: Path) -> str:
    done = run_xenaudio("status", "--control", control)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_service_without_guests(machine: Machine, served: Backend, control: Path) -> None:
    found = status(control)
    assert found.pop("uptime_s") >= 0
    assert found == {
        "version": xenaudio.__version__,
        "pid": served.pid,
        "hypervisor": machine.dom0,
        "domid": 0,
        "config": str(machine.directory / "xenaudio.toml"),
        "config_refused": None,
        "guests": [],
    }
    assert said(control).splitlines()[1] == "no guest has a sound card"


@pytest.mark.asyncio
async def test_what_each_stream_does(machine: Machine, served: Backend, control: Path) -> None:
    domain = await asyncio.to_thread(machine.create, "guest")
    await asyncio.to_thread(machine.attach, "guest")
    async with open_card(domain) as card:
        stream = stream_of(card)
        await open_stream(stream, period_ms=20, buffer_ms=400)
        playing = asyncio.create_task(play(stream, counter(4 * RATE)))
        await until(lambda: stream.position_frames > RATE // 20, "it plays")
        found = await asyncio.to_thread(status, control)
        text = await asyncio.to_thread(said, control)
        assert not playing.done()
        await playing

    (guest,) = found["guests"]
    assert (guest["guest"], guest["domid"]) == ("guest", domain.domid)
    assert guest["limits"] == {**vars(Limits()), "cards": 3}
    first, second = guest["cards"]
    assert (first["card"], first["short_name"], first["state"]) == (0, "Main", "connected")
    assert first["frontend_state"] == "connected"
    assert (second["card"], second["state"], second["streams"]) == (1, "init_wait", [])

    plays, records = first["streams"]
    assert (plays["pcm"], plays["stream"], plays["unique_id"]) == (0, 0, "p")
    assert (plays["direction"], plays["route"], plays["state"]) == ("playback", "null", "running")
    assert (plays["format"], plays["rate_hz"], plays["channels"]) == ("s16_le", RATE, 2)
    assert (plays["buffer_us"], plays["period_us"]) == (400_000, 20_000)
    assert (plays["opens"], plays["bad_requests"], plays["last_refusal"]) == (1, 0, None)
    assert RATE // 20 < plays["position_frames"] <= plays["frames_out"] <= plays["frames_in"]
    # A null output has nothing in store: what is stored is what is late.
    assert 0 <= plays["fill_us"] == plays["latency_us"] <= 400_000

    assert (records["direction"], records["microphone_denied"]) == ("capture", True)
    assert (records["state"], records["opens"]) == ("closed", 0)
    for key in ("format", "rate_hz", "channels", "buffer_us", "fill_us", "latency_us"):
        assert records[key] is None

    assert f"guest (domain {domain.domid})\n  card 0 Main: connected\n" in text
    line = r"    playback 0/0 p to null: running, s16_le 48000 Hz 2 ch, fill [\d.]+ ms, latency "
    assert re.search(line, text)
    assert "    capture 0/1 c from silence, microphone denied: closed, 0 gaps\n" in text
    assert "  card 1: init_wait\n" in text


@pytest.mark.asyncio
async def test_a_refused_file_and_a_route_that_waits_are_shown(
    machine: Machine, served: Backend, control: Path
) -> None:
    file = machine.directory / "xenaudio.toml"
    domain = await asyncio.to_thread(machine.create, "guest")
    async with open_card(domain):
        for text, words in (
            ('[[route]]\nmicrophone = "allow"\n', "the configuration was read"),
            ("[[route]]\noutput = 7\n", "is not taken"),
        ):
            await asyncio.to_thread(file.write_text, text)
            os.kill(served.pid, 1)
            await asyncio.to_thread(served.wait_for, words)
        found = await asyncio.to_thread(status, control)
        text = await asyncio.to_thread(said, control)
    assert found["config_refused"] == f"{file}:2: output = 7: expected a route, such as 'null'"
    assert found["config_refused"] in text
    streams = found["guests"][0]["cards"][0]["streams"]
    assert [s["rerouted_when_reconnected"] for s in streams] == [False, True]
    assert "the configuration has another route for it" in text


def test_a_guests_name_does_nothing_to_a_terminal(
    machine: Machine, served: Backend, control: Path
) -> None:
    machine.create("guest", "[['CARD, short-name=\x1b[2J\x07', 'PCM', 'STREAM, type=p']]")
    assert "\x1b" not in said(control)


def test_the_socket_is_not_for_everybody_and_goes_with_the_service(
    served: Backend, control: Path
) -> None:
    assert stat.S_IMODE(control.stat().st_mode) == 0o660
    served.stop()
    assert not control.exists()
    done = run_xenaudio("status", "--control", control)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"xenaudio status: {control}: no service answers there: is it running"
        " (systemctl status xenaudiod)?\n"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_who_may_not_ask_is_told_who_may(served: Backend, control: Path) -> None:
    os.chmod(control.parent.parent, 0o755)
    done = run_xenaudio("status", "--control", control, user=65534, group=65534, extra_groups=[])
    assert done.returncode == 1
    assert "only root and members of the group xenaudio may ask the service" in done.stderr


def test_a_killed_services_socket_is_taken_over_and_a_living_ones_is_not(
    machine: Machine, served: Backend, control: Path
) -> None:
    served.kill()
    assert control.exists()
    again = served.restarted()
    assert status(control)["pid"] == again.pid
    sound = machine.create("sound", None)
    done = run_xenaudio("serve", "--output", "null", "--hv", sound.socket, "--control", control)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1,
        f"xenaudio: {control}: Address already in use",
    )
    assert status(control)["pid"] == again.pid


def connect(control: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(HANG)
    sock.connect(str(control))
    return sock


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"status\n",
        b'{"request": "stop"}\n',
        b"[1]\n",
        b'{"request": ["status"]}\n',
        b"\xff\n",
    ],
)
def test_anything_else_is_answered_with_what_can_be_asked(
    served: Backend, control: Path, line: bytes
) -> None:
    with connect(control) as sock, sock.makefile("rb") as answers:
        sock.sendall(line)
        assert json.loads(answers.readline()) == {
            "error": 'unknown request: expected {"request": "status"}'
        }
        # And the next one on the same connection.
        sock.sendall(b'{"request": "status"}\n')
        assert json.loads(answers.readline())["pid"] == served.pid


def test_too_long_a_line_ends_its_connection_only(served: Backend, control: Path) -> None:
    with connect(control) as sock:
        sock.sendall(b"x" * (2 * REQUEST_MOST))
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(100) == b""
    assert status(control)["pid"] == served.pid


def test_who_only_holds_connections_keeps_others_out_for_that_long_and_no_longer(
    served: Backend, control: Path
) -> None:
    held = [connect(control) for _ in range(CLIENTS_MOST)]
    with connect(control) as one_more:
        assert one_more.recv(100) == b""
    for sock in held:
        sock.close()
    wait_until(
        lambda: run_xenaudio("status", "--control", control).returncode == 0, "it answers again"
    )
    assert "Traceback" not in served.log()
