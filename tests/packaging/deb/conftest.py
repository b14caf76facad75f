# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests of Debian packages share. Of two processes, each does one suite's."""

from __future__ import annotations

import os
import shutil

import pytest

TIMEOUT = 1200
"""Seconds for a test, with its fixtures: building, and installing what is downloaded."""


@pytest.hookimpl(tryfirst=True)  # xdist's own looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = "needs root and podman (ci/setup test)"
    able = os.getuid() == 0 and shutil.which("podman") is not None
    for item in items:
        item.add_marker(pytest.mark.timeout(TIMEOUT))
        item.add_marker(pytest.mark.skipif(not able, reason=reason))
        given = item.callspec.params if isinstance(item, pytest.Function) else {}
        item.add_marker(pytest.mark.xdist_group(given.get("suite", "bookworm")))
