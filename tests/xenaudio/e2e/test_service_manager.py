# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `xenaudio serve` tells systemd (sd_notify(3)), which this test plays."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest
from machine import HANG, Backend, Machine, xenaudio


class Manager:
    """The socket on which a service tells what it does."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.path = machine.directory / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.settimeout(HANG)

    def start(self, *args: str, **environment: str) -> Backend:
        """Start a service; it is not waited for."""
        told = {"NOTIFY_SOCKET": str(self.path), **environment}
        argv = ["env", *(f"{name}={value}" for name, value in told.items()), *xenaudio("serve")]
        backend = Backend(self._machine, self._machine.dom0, list(args), argv)
        self._machine.backends.append(backend)
        return backend

    def told(self) -> dict[str, str]:
        """Return the next message's assignments."""
        lines = self.socket.recv(4096).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def told_of(self, name: str) -> dict[str, str]:
        """Return the next message with such an assignment."""
        while name not in (message := self.told()):
            pass
        return message


@pytest.fixture
def manager(machine: Machine) -> Iterator[Manager]:
    made = Manager(machine)
    yield made
    made.socket.close()


def test_it_is_ready_when_guests_can_be_made(machine: Machine, manager: Manager) -> None:
    backend = manager.start()
    assert manager.told() == {
        "READY": "1",
        "STATUS": "Serving 0 cards of 0 guests, 0 streams connected",
    }
    # xl waits for no one now.
    machine.create("guest")
    backend.terminate()
    assert manager.told_of("STOPPING")["STATUS"] == "Stopped"


def test_it_is_never_ready_when_it_cannot_serve(machine: Machine, manager: Manager) -> None:
    file = machine.directory / "xenaudio.toml"
    file.write_text("[[route]]\n")
    backend = manager.start("--config", str(file))
    assert backend.process.wait(HANG) == 1
    manager.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.told()


def test_it_says_that_it_lives_and_what_it_does(machine: Machine, manager: Manager) -> None:
    manager.start(WATCHDOG_USEC="300000")
    manager.told_of("READY")
    machine.create("guest")
    wanted = "Serving 1 cards of 1 guests, 0 streams connected"
    while (message := manager.told_of("WATCHDOG"))["STATUS"] != wanted:
        pass
    assert message == {"WATCHDOG": "1", "STATUS": wanted}


def test_another_processs_watchdog_is_not_its_own(manager: Manager) -> None:
    # (It would tell each third of a microsecond.)
    backend = manager.start(WATCHDOG_USEC="1", WATCHDOG_PID="1")
    manager.told_of("READY")
    backend.terminate()
    assert "WATCHDOG" not in manager.told_of("STOPPING")


def test_a_reload_is_told_and_so_is_that_it_was_refused(machine: Machine, manager: Manager) -> None:
    file = machine.directory / "xenaudio.toml"
    file.write_text("")
    backend = manager.start("--config", str(file))
    manager.told_of("READY")
    for text, refused in (("[[route]]\n", True), ("", False)):
        file.write_text(text)
        os.kill(backend.pid, signal.SIGHUP)
        assert int(manager.told_of("RELOADING")["MONOTONIC_USEC"]) > 0
        status = manager.told_of("READY")["STATUS"]
        assert status.endswith("; the configuration file was refused, see the log") is refused
