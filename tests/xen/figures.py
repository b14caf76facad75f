# SPDX-License-Identifier: LGPL-2.1-or-later
"""What scenarios measure: printed at once, and kept in build/test/xen-figures.json."""

from __future__ import annotations

import json

import pytest

from .images import TREE

FILE = TREE / "build/test/xen-figures.json"


class Figures:
    """Figures of this run, by name. Those of an earlier run are overwritten as they come."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def add(self, name: str, unit: str, value: float) -> None:
        """Print a figure, and keep it."""
        with self._capsys.disabled():
            print(f"\n    {name:<52} {value:>10.2f} {unit}", end="", flush=True)
        kept = json.loads(FILE.read_text()) if FILE.exists() else {}
        kept[name] = {"value": round(value, 4), "unit": unit}
        FILE.parent.mkdir(parents=True, exist_ok=True)
        FILE.write_text(json.dumps(kept, indent=2) + "\n")
