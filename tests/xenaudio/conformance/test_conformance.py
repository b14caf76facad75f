# SPDX-License-Identifier: LGPL-2.1-or-later
"""The conformance suite (tests/conformance) on the stand-in."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from machine import HANG, TREE, Machine, wait_until, xenaudio

from tests.conformance import cards
from tests.conformance.expected import DIFFERENCES, EXPECTED, different

SUITE = TREE / "tests/conformance"

PARSE = """
import sys
from xenaudio.localhv.vsnd import VsndError, parse
for line in sys.stdin:
    try:
        parse(line)
        print("taken")
    except VsndError:
        print("refused")
"""


def toolstack(directory: Path) -> list[str]:
    """Return the stand-in's commands that the suite wants."""

    def command(name: str, *arguments: str) -> str:
        return shlex.join(xenaudio("localhv", name, "--dir", directory, cards.NAME, *arguments))

    peer = command("run", "--", sys.executable, str(SUITE / "peer.py"))
    return [
        command("create", "--vsnd", cards.specification(cards.ALL_KEYS)),
        f"{peer} </dev/null >{directory}/../peer.log 2>&1 &",
        command("attach", "--vsnd", cards.specification(cards.FEW_KEYS)),
        command("detach", "0"),
        command("destroy"),
        shlex.join([sys.executable, "-c", PARSE]),
    ]


@pytest.fixture
def observed(machine: Machine) -> dict[str, Any]:
    """Run the suite; return what it observed."""
    argv = [sys.executable, str(SUITE / "checks.py"), *toolstack(machine.control_directory)]
    suite = machine.run("suite", *argv, domain="dom0")
    wait_until(suite.ended, "the suite ends", 3 * HANG)
    assert suite.process.returncode == 0, suite.log()
    checks = [json.loads(line) for line in suite.log().splitlines()]
    return {check["name"]: check["observed"] for check in checks}


def test_the_stand_in_answers_as_the_table_says(observed: dict[str, Any]) -> None:
    known = {where: here for where, (here, _reason) in DIFFERENCES.items()}
    assert different(EXPECTED, observed) == known


def test_each_difference_has_a_reason() -> None:
    assert all(len(reason) > 15 for _here, reason in DIFFERENCES.values())
