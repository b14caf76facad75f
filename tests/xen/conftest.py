# SPDX-License-Identifier: LGPL-2.1-or-later
"""One boot for all scenarios, and what is known of it beside each failure.

Of several processes (pytest-xdist, whole files each) every one has a machine of its own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from . import images
from .dom0 import Backend, Dom0
from .figures import Figures
from .guest import Guest, GuestConfig
from .machine import Machine, MachineError

TIMEOUT = 900
"""Seconds for a scenario, without its fixtures: the boot, and lasting guests, have their own."""

_machines: list[Dom0] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(TIMEOUT, func_only=True))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, None]:
    report = (yield).get_result()
    add = getattr(report.longrepr, "addsection", None)
    if not report.failed or add is None:
        return
    for dom0 in _machines[-1:]:
        try:
            add("logs in dom0", dom0.logs())
        except MachineError as error:
            add("logs in dom0", str(error))
        add("end of the serial log", dom0.machine.serial_end())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name:<56} {value:>16}")


@contextlib.contextmanager
def booted_machine(machine: Machine, log: str) -> Iterator[Dom0]:
    """Boot Xen and dom0 while others of these tests rest; leaves the serial log in build/test."""
    with contextlib.ExitStack() as others:
        for other in _machines:
            others.enter_context(other.machine.resting())
        dom0 = Dom0(machine)
        try:
            machine.boot()
            _machines.append(dom0)
            yield dom0
        finally:
            if dom0 in _machines:
                _machines.remove(dom0)
            machine.close()
            worker = os.environ.get("PYTEST_XDIST_WORKER", "")
            serial = images.TREE / "build/test" / f"{worker}{log}"
            serial.parent.mkdir(parents=True, exist_ok=True)
            serial.write_text("\n".join(machine.serial) + "\n")


@pytest.fixture(scope="session")
def booted() -> Iterator[Dom0]:
    """Boot Xen and dom0, once."""
    with booted_machine(Machine(images.make()), "xen-serial.log") as dom0:
        yield dom0


@pytest.fixture
def dom0(booted: Dom0) -> Iterator[Dom0]:
    """Give dom0; the test's own guests end with it."""
    yield booted
    booted.destroy_all(lasting=False)


@pytest.fixture
def backend(dom0: Dom0) -> Backend:
    """Give the backend, playing to files and recording from one."""
    return dom0.backend()


@pytest.fixture
def stock(dom0: Dom0, backend: Backend) -> Guest:
    """Give a guest with the kernel's own driver. It lasts for further tests: leave it as it was."""
    return dom0.lasting(GuestConfig("stock", "stock"))


@pytest.fixture
def debian(dom0: Dom0, backend: Backend) -> Guest:
    """Give a guest with our frontend. It lasts for further tests: leave it as it was."""
    return dom0.lasting(GuestConfig("debian", "debian"))


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """Give what keeps figures."""
    return Figures(request)
