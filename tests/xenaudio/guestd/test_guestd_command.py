# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xenaudio guestd` as systemd and a person run it."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from guestservice import TIMEOUT, Client
from machine import Domain, Machine, environment, run_xenaudio, xenaudio


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder whose paths are short."""
    made = Path(tempfile.mkdtemp(prefix="xc", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def guest(machine: Machine) -> Domain:
    return machine.create("guest", wait=False)


def test_takes_the_sockets_that_systemd_hands_to_it_and_says_when_it_is_ready(
    machine: Machine, guest: Domain, folder: Path
) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told,
    ):
        listening.bind(str(folder / "sock"))
        listening.listen()
        told.bind(str(folder / "notify"))
        told.settimeout(TIMEOUT)
        # The number of the process is known when it runs.
        script = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
        service = subprocess.Popen(
            ["sh", "-c", script, "sh", *xenaudio("guestd", "--hv", guest.socket)],
            env={**environment(), "NOTIFY_SOCKET": str(folder / "notify")},
            preexec_fn=lambda: os.dup2(listening.fileno(), 3),
            pass_fds=[3],
            stderr=subprocess.DEVNULL,
        )
        try:
            assert told.recv(100) == b"READY=1"
            with Client(folder / "sock") as client:
                assert client.read("device/vsnd/0/state") == "1"
        finally:
            service.terminate()
            assert service.wait(TIMEOUT) == 0
        # It is systemd's to remove.
        assert (folder / "sock").exists()


def test_its_own_socket_is_open_to_all_and_goes_with_it(
    machine: Machine, guest: Domain, folder: Path
) -> None:
    path = folder / "new" / "sock"
    service = machine.run("guestd", *xenaudio("guestd", "--hv", guest.socket, "--socket", path))
    service.wait_for("serving domain")
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert service.terminate() == 0
    assert not path.exists()


def test_a_second_one_on_the_same_socket_is_refused(
    machine: Machine, guest: Domain, folder: Path
) -> None:
    path = folder / "sock"
    service = machine.run("guestd", *xenaudio("guestd", "--hv", guest.socket, "--socket", path))
    service.wait_for("serving domain")
    second = run_xenaudio("guestd", "--hv", guest.socket, "--socket", path)
    assert second.returncode == 1
    assert second.stderr == f"xenaudio: {path}: Address already in use\n"
    with Client(path) as client:
        assert client.read("device/vsnd/0/state") == "1"


def test_what_is_no_socket_is_left_alone(machine: Machine, guest: Domain, folder: Path) -> None:
    path = folder / "file"
    path.write_text("mine")
    refused = run_xenaudio("guestd", "--hv", guest.socket, "--socket", path)
    assert refused.returncode == 1
    assert str(path) in refused.stderr
    assert path.read_text() == "mine"


def test_a_killed_ones_socket_is_replaced(machine: Machine, guest: Domain, folder: Path) -> None:
    path = folder / "sock"
    command = xenaudio("guestd", "--hv", guest.socket, "--socket", path)
    first = machine.run("guestd", *command)
    first.wait_for("serving domain")
    first.kill()
    assert path.exists()
    second = machine.run("guestd", *command)
    second.wait_for("serving domain")
    with Client(path) as client:
        assert client.read("device/vsnd/0/state") == "1"


@pytest.mark.skipif(os.path.exists("/dev/xen/gntalloc"), reason="this machine is on Xen")
def test_without_xen_it_says_what_is_missing(folder: Path) -> None:
    refused = run_xenaudio("guestd", "--socket", folder / "sock")
    assert refused.returncode == 1
    assert "/dev/xen/gntalloc: missing: is this a Xen guest" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (folder / "sock").exists()


def test_a_guest_that_is_gone_ends_it_with_an_error(
    machine: Machine, guest: Domain, folder: Path
) -> None:
    path = folder / "sock"
    service = machine.run("guestd", *xenaudio("guestd", "--hv", guest.socket, "--socket", path))
    service.wait_for("serving domain")
    machine.destroy("guest")
    assert service.process.wait(TIMEOUT) == 1
    assert "the connection to XenStore is lost" in service.log()
    assert "Traceback" not in service.log()
