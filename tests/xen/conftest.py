# SPDX-License-Identifier: LGPL-2.1-or-later
"""One boot for all scenarios, and what is known of it beside each failure.

Of two processes (pytest-xdist) each has a machine of its own.
"""

from __future__ import annotations

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

ONE_MACHINE = {
    *("test_backend", "test_conformance", "test_faults"),
    *("test_hostile", "test_pvh", "test_stock"),
}
"""The files for one of two processes, the rest are for the other: both take about as long, and most
guests are created on one machine only."""

_machines: list[Dom0] = []


@pytest.hookimpl(tryfirst=True)  # xdist's own looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(TIMEOUT, func_only=True))
        machine = "one" if item.path.stem in ONE_MACHINE else "other"
        item.add_marker(pytest.mark.xdist_group(machine))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, None]:
    report = (yield).get_result()
    add = getattr(report.longrepr, "addsection", None)
    if not report.failed or add is None:
        return
    for dom0 in _machines:
        try:
            add("logs in dom0", dom0.logs())
        except MachineError as error:
            add("logs in dom0", str(error))
        add("end of the serial log", dom0.machine.serial_end())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name:<56} {value:>16}")


@pytest.fixture(scope="session")
def booted() -> Iterator[Dom0]:
    """Boot Xen and dom0, once; leaves the serial log in build/test."""
    machine = Machine(images.make())
    dom0 = Dom0(machine)
    try:
        machine.boot()
        _machines.append(dom0)
        yield dom0
    finally:
        _machines.clear()
        machine.close()
        worker = os.environ.get("PYTEST_XDIST_WORKER", "")
        serial = images.TREE / "build/test" / f"{worker}xen-serial.log"
        serial.parent.mkdir(parents=True, exist_ok=True)
        serial.write_text("\n".join(machine.serial) + "\n")


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
    guest = dom0.lasting(GuestConfig("stock", "stock"))
    # Both may be older than this backend, or its card.
    backend.await_log(f"{guest} vsnd 0: connected")
    guest.await_card()
    return guest


@pytest.fixture
def debian(dom0: Dom0, backend: Backend) -> Guest:
    """Give a guest with our frontend. It lasts for further tests: leave it as it was."""
    return dom0.lasting(GuestConfig("debian", "debian"))


@pytest.fixture(scope="module")
def serviced(booted: Dom0) -> Iterator[Guest]:
    """Give the guest of `debian` with the guest service, for all tests of a file."""
    booted.backend()
    guest = booted.lasting(GuestConfig("debian", "debian"))
    with guest.service():
        yield guest


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """Give what keeps figures."""
    return Figures(request)
