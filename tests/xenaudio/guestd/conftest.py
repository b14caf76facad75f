# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest with the service in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from guestservice import GuestService


@pytest.fixture
def guest() -> Iterator[GuestService]:
    """Give a guest of the stand-in, with two cards and the service."""
    made = GuestService()
    yield made
    made.close()
