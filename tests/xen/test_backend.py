# SPDX-License-Identifier: LGPL-2.1-or-later
"""The backend service in dom0: it starts, says so, and ends cleanly."""

from __future__ import annotations

import pytest

from .dom0 import PLAYED, Dom0
from .guest import GuestConfig
from .test_lifecycle import await_detached, plays_bit_exact

DEVICES = "/dev/xen/xenbus /dev/xen/gntdev /dev/xen/evtchn"
USER = "xenaudio"


@pytest.fixture
def alone(dom0: Dom0) -> Dom0:
    """Give dom0 without guests and without a backend."""
    dom0.destroy_all()
    dom0.backend().stop()
    return dom0


def test_serve_says_what_it_serves_and_stops_when_asked(alone: Dom0) -> None:
    backend = alone.start_backend()
    assert backend.running
    assert "serving /local/domain/0/backend/vsnd through xen" in backend.log()
    done = backend.stop()
    assert done.exit == 0
    log = alone.run("cat /var/log/xenaudio.log").out
    assert log.rstrip().endswith("stopping")
    assert not [line for line in log.splitlines() if line.startswith(("ERROR", "WARNING"))]


def test_the_packages_user_serves_with_what_its_udev_rule_gives(alone: Dom0) -> None:
    """xenstored's socket is root's, and is not needed."""
    folders = f"{PLAYED} /run/xenaudiod"
    alone.run(
        "/lib/systemd/systemd-udevd --daemon"
        " && udevadm trigger --settle --subsystem-match=misc && udevadm control --exit"
        f" && mkdir -p {folders} && chown {USER} {folders}"
    )
    try:
        assert alone.run("stat -c %a:%u /run/xenstored/socket").out.strip() in ("600:0", "660:0")
        backend = alone.start_backend(user=USER)
        assert alone.run(f"stat -c %U /proc/{backend.pid}").out.strip() == USER
        guest = alone.lasting(GuestConfig("stock", "stock"))
        plays_bit_exact(alone, guest, seed=90)
        assert f"stock (domain {guest.domid})" in alone.run("xenaudio status").out
        alone.detach(guest)
        await_detached(guest)
        alone.attach(guest)
        guest.await_card()
        assert backend.stop().exit == 0
        log = alone.run("cat /var/log/xenaudio.log").out
        assert not [line for line in log.splitlines() if line.startswith(("ERROR", "WARNING"))]
    finally:
        alone.run(f"chown root:root {DEVICES} {folders}")
