# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command `xenaudio localhv`: a server, commands that talk to it, and domains' processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SPEC = "[ ['CARD, short-name=Main'] ]"
ROOT = Path(__file__).parents[3]
TIMEOUT = 30


def command(directory: Path, *argv: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "xenaudio.cli.localhv",
        argv[0],
        "--dir",
        str(directory),
        *argv[1:],
    ]


class Server:
    """`xenaudio localhv serve` in a process of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process = subprocess.Popen(
            command(directory, "serve", "--device-timeout", "0.5"),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline()
        self.started: list[subprocess.Popen[str]] = []

    def __call__(self, *argv: str) -> str:
        """Runs a command that succeeds."""
        done = self.attempt(*argv)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def attempt(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(self.directory, *argv),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    def run(self, domain: str, script: str) -> subprocess.Popen[str]:
        """Starts a shell script in a domain."""
        process = subprocess.Popen(
            command(self.directory, "run", domain, "--", "sh", "-c", script),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(process)
        return process

    def rows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self("list", "--json"))
        return found

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.communicate(timeout=TIMEOUT)
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=TIMEOUT)


@pytest.fixture
def server(short_dir: Path) -> Iterator[Server]:
    server = Server(short_dir / "x")
    yield server
    server.stop()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def state_of(pid: int) -> str:
    """R, S, T and so on as in /proc; empty when the process is gone or only not waited for."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
    return "" if state in "ZX" else state


def test_the_server_says_when_it_is_ready_and_cleans_up(server: Server) -> None:
    assert server.ready == f"ready: domain 0 is {server.directory}/dom0\n"
    server("create", "guest")
    assert sorted(path.name for path in server.directory.iterdir()) == ["control", "dom0", "guest"]
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(TIMEOUT) == 0
    assert list(server.directory.iterdir()) == []


def test_a_directory_that_is_served_is_refused(server: Server) -> None:
    done = server.attempt("serve")
    assert done.returncode == 1
    assert "served already" in done.stderr
    assert server.rows()[0]["name"] == "Domain-0"


def test_without_a_server(short_dir: Path) -> None:
    done = subprocess.run(
        command(short_dir, "list"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "no server at" in done.stderr
    assert "xenaudio localhv serve" in done.stderr


def test_create_list_destroy(server: Server) -> None:
    made = server("create", "guest", "--vsnd", f"vsnd = {SPEC}", "--no-wait")
    assert made == f"domain 1 guest: {server.directory}/guest\n"
    (_, row) = server.rows()
    assert (row["name"], row["domid"], row["state"], row["vsnd"]) == ("guest", 1, "running", [0])
    assert [line.split() for line in server("list").splitlines()] == [
        ["Name", "ID", "State", "Cards", "Socket"],
        ["Domain-0", "0", "running", "0", f"{server.directory}/dom0"],
        ["guest", "1", "running", "1", f"{server.directory}/guest"],
    ]
    assert server("destroy", "guest") == ""
    assert len(server.rows()) == 1


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("create", "guest", "--vsnd", SPEC), "did not reach state 2"),
        (("create", "guest", "--vsnd", "[['CARD, id=3']]"), "unknown key 'id'"),
        (("create", "control"), "domain name 'control'"),
        (("destroy", "nobody"), "no domain 'nobody'"),
        (("destroy", "dom0"), "domain 0 cannot be destroyed"),
        (("detach", "dom0", "0"), "domain 0 cannot be"),
        (("restore", "/nowhere"), "/nowhere"),
        (("run", "nobody", "--", "true"), "no domain 'nobody'"),
        (("run", "dom0"), "no command given"),
        (("grants", "nobody"), "no domain 'nobody'"),
    ],
)
def test_a_refusal_is_one_line_and_changes_nothing(
    server: Server, argv: tuple[str, ...], expected: str
) -> None:
    done = server.attempt(*argv)
    assert done.returncode == 1
    assert done.stderr.startswith("xenaudio localhv: ")
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1
    assert [row["name"] for row in server.rows()] == ["Domain-0"]


def test_attach_and_detach(server: Server) -> None:
    server("create", "guest")
    assert server("attach", "guest", "--vsnd", SPEC, "--no-wait") == "vsnd device 0\n"
    done = server.attempt("detach", "guest", "0")  # no backend runs that could close it
    assert (done.returncode, "by force" in done.stderr) == (1, True)
    assert server.rows()[1]["vsnd"] == []


def test_a_program_in_a_domain_has_its_identity(server: Server) -> None:
    server("create", "guest")
    process = server.run("guest", "echo $XENAUDIO_HV; xenstore-read domid")
    output, _ = process.communicate(timeout=TIMEOUT)
    assert output.splitlines() == [f"{server.directory}/guest", "1"]
    assert process.returncode == 0
    assert server.attempt("run", "guest", "--", "sh", "-c", "exit 7").returncode == 7
    missing = server.attempt("run", "guest", "--", "/no/such/program")
    assert (missing.returncode, "/no/such/program" in missing.stderr) == (127, True)


def test_processes_are_stopped_go_on_and_are_killed_with_their_domain(server: Server) -> None:
    server("create", "guest")
    process = server.run("guest", "sleep 1000 & (setsid sleep 1000 & echo $!); echo $!; wait")
    assert process.stdout is not None
    pids = [int(process.stdout.readline()), int(process.stdout.readline()), process.pid]
    until(lambda: set(pids) <= set(server.rows()[1]["processes"]))
    server("pause", "guest")
    until(lambda: all(state_of(pid) == "T" for pid in pids))
    server("unpause", "guest")
    until(lambda: all(state_of(pid) in "SR" for pid in pids))
    server("destroy", "guest")
    assert [state_of(pid) for pid in pids] == ["", "", ""]
    assert process.wait(TIMEOUT) == -signal.SIGKILL


def test_a_process_that_joins_a_paused_domain_is_stopped(server: Server) -> None:
    server("create", "guest")
    server("pause", "guest")
    process = server.run("guest", "echo alive")
    until(lambda: state_of(process.pid) == "T")
    server("unpause", "guest")
    assert process.communicate(timeout=TIMEOUT)[0] == "alive\n"


def test_save_and_restore_with_a_process(server: Server, short_dir: Path) -> None:
    server("create", "guest")
    process = server.run(
        "guest",
        "xenstore-read domid; read x < $FIFO; xenstore-read domid".replace(
            "$FIFO", str(short_dir / "fifo")
        ),
    )
    os.mkfifo(short_dir / "fifo")
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    server("save", "guest", str(short_dir / "file"))
    assert state_of(process.pid) == "T"
    assert server.rows()[1]["state"] == "saved"
    server("restore", str(short_dir / "file"))
    with (short_dir / "fifo").open("w") as fifo:
        fifo.write("go\n")
    assert process.stdout.readline() == "2\n"


def test_shutdown_asks_first(server: Server) -> None:
    server("create", "guest")
    process = server.run(
        "guest", "trap 'echo asked; exit 3' TERM; echo up; while :; do sleep 0.05; done"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    server("shutdown", "guest")
    assert process.wait(TIMEOUT) == 3
    assert process.stdout.read().endswith("asked\n")
    assert len(server.rows()) == 1


def test_shutdown_of_one_that_does_not_listen(server: Server) -> None:
    server("create", "guest")
    process = server.run("guest", "trap '' TERM; echo up; while :; do sleep 0.05; done")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    done = server.attempt("shutdown", "guest")
    assert done.returncode == 1
    assert f"{process.pid}" in done.stderr
    server("destroy", "guest")
    assert process.wait(TIMEOUT) == -signal.SIGKILL


def test_guests_processes_do_not_outlive_the_server(server: Server) -> None:
    server("create", "guest")
    process = server.run("guest", "echo up; exec sleep 1000")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    server("pause", "guest")
    server.process.terminate()
    assert process.wait(TIMEOUT) == -signal.SIGTERM


def test_grants_and_channels_and_faults(server: Server) -> None:
    server("create", "guest")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(server.directory / "guest"))
        for kind in (0x1001, 0x1011):
            head = b"".join(n.to_bytes(4, sys.byteorder) for n in (kind, 1, 0, 8))
            count = 2 if kind == 0x1001 else 0
            sock.sendall(head + bytes(4) + count.to_bytes(4, sys.byteorder))
            assert int.from_bytes(sock.recv(4096)[:4], sys.byteorder) == kind
        rows = json.loads(server("grants", "guest", "--json"))
        assert [(row["domain"], row["ref"], row["remote"]) for row in rows] == [
            ("guest", 8, 0),
            ("guest", 9, 0),
        ]
        assert "guest   8    0   0     granted  -" in server("grants")
        assert json.loads(server("channels", "guest", "--json")) == [
            {"domain": "guest", "port": 1, "remote": 0, "peer": None}
        ]
        assert "guest   1     0   -" in server("channels")
        assert json.loads(server("channels", "dom0", "--json")) == []
        assert server("end-grants", "guest") == "2 grants\n"
        assert server("grants", "--json") == "[]\n"
        assert server("close-channels", "guest") == "1 port\n"
        assert server("channels", "--json") == "[]\n"


@pytest.mark.parametrize("line", [b"\n", b"{}\n", b"[]\n", b"nonsense\n", b'{"command": 7}\n'])
def test_a_malformed_line_on_the_control_socket(server: Server, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(server.directory / "control"))
        sock.sendall(line)
        answer = json.loads(sock.makefile().readline())
    assert answer["ok"] is False
    assert answer["error"]
    assert server.rows()


def test_commands_do_not_wait_for_one_another(server: Server) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(server.directory / "control"))
        sock.sendall(
            json.dumps({"command": "create", "name": "slow", "vsnd": SPEC}).encode() + b"\n"
        )
        server("create", "quick")
        assert json.loads(sock.makefile().readline())["ok"] is False
    assert [row["name"] for row in server.rows()] == ["Domain-0", "quick"]
