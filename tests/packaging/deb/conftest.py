# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests of Debian packages share. Of two processes, each does one suite's."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
TIMEOUT = 1800
"""Seconds for a test, which may build packages, and installs what it downloads."""


@pytest.hookimpl(tryfirst=True)  # xdist's own looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = "needs root and podman (ci/setup test)"
    able = os.getuid() == 0 and shutil.which("podman") is not None
    for item in (each for each in items if HERE in each.path.parents):
        item.add_marker(pytest.mark.timeout(TIMEOUT, func_only=True))
        item.add_marker(pytest.mark.skipif(not able, reason=reason))
        # (A test without parameters has no callspec.)
        given = item.callspec.params if hasattr(item, "callspec") else {}
        item.add_marker(pytest.mark.xdist_group(given.get("suite", "bookworm")))
