# SPDX-License-Identifier: LGPL-2.1-or-later
"""What scenarios measure: kept in pytest's report, and printed at the end of the run."""

from __future__ import annotations

import pytest


class Figures:
    """Figures of one test, by name."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._properties: list[tuple[str, object]] = request.node.user_properties

    def add(self, name: str, unit: str, value: float) -> None:
        """Keep a figure."""
        self._properties.append((name, f"{value:.2f} {unit}"))
