# SPDX-License-Identifier: LGPL-2.1-or-later
"""A frontend of protocol version 1, which has no event page: nobody tells it what was heard."""

from __future__ import annotations

from .dom0 import Dom0
from .domain.pattern import Pattern
from .guest import Guest
from .images import TREE
from .test_lifecycle import plays_bit_exact

FOLDER = "/run/version1"


def test_version_1_plays_bit_exact_and_version_2_after_it(dom0: Dom0, debian: Guest) -> None:
    pattern = Pattern(frames=2 * 48000, seed=61)
    debian.put([TREE / "tests/xenaudio/hostile/rawfrontend.py"], FOLDER)
    path = f"/harness:{FOLDER}"
    debian.run(f"PYTHONPATH={path} exec python3 /harness/version1.py {pattern}")
    dom0.check(pattern, dom0.played(debian))
    plays_bit_exact(dom0, debian, 62)
