# SPDX-License-Identifier: LGPL-2.1-or-later
"""The backend service in dom0: it starts, says so, and ends cleanly."""

from __future__ import annotations

import pytest

from .dom0 import Dom0


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
