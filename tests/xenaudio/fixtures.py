# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests of the whole path share: a machine, and a backend that plays into a folder.

With PulseAudio in the guest (tests/pulse) or without; their conftest.py name them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import Backend, Machine


@pytest.fixture
def machine() -> Iterator[Machine]:
    """Give a stand-in, as a process, that ends with the test and whatever runs on it."""
    made = Machine()
    try:
        made.wait_for_server()
        yield made
    finally:
        made.close()


@pytest.fixture
def played(tmp_path: Path) -> Path:
    """Give the folder in which `backend` leaves what guests play."""
    folder = tmp_path / "played"
    folder.mkdir()
    return folder


@pytest.fixture
def backend(machine: Machine, played: Path) -> Backend:
    """Give a backend in domain 0: GUEST-DEVICE-PCM-STREAM.wav in `played`, silence to record."""
    return machine.serve("--output", f"file:{played}/")
