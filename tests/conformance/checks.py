# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs the checks: in domain 0, with a guest in which `checks.py serve` runs.

    checks.py serve                                in the guest
    checks.py GUEST CREATE ATTACH DETACH DESTROY   in domain 0

GUEST is the guest's domid. The others are shell commands by which domain 0's toolstack makes a
domain with the first card of cards.py, attaches the second one to it, detaches the first, and
destroys the domain. Prints a line of JSON for each check: {"name": ..., "observed": ...}.

A check is a function of a `Both`. What it observes has domids, ports and paths under names that are
the same on each machine, so that it can be compared with the table in expected.py.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from domain import FOLDER, Hands, Peer, serve

from xenaudio.core.store import Store

NOBODY = 30000
"""A domid that no domain has."""
SHARED = "/conformance"
"""A directory of domain 0's own."""


class Both:
    """Domain 0, in which the checks run, and the guest."""

    def __init__(self, dom0: Hands, guest: Peer, domid: int, commands: list[str]) -> None:
        self.dom0 = dom0
        self.guest = guest
        self.domid = domid
        self.home = f"/local/domain/{domid}"
        """The guest's directory."""
        self.commands = dict(zip(("create", "attach", "detach", "destroy"), commands, strict=True))

    def named(self, observed: Any) -> Any:
        """Return what was observed, with G for the guest's domid."""
        text = json.dumps(observed)
        text = text.replace(f"/domain/{self.domid}", "/domain/G")
        for letter in "nrwb":
            text = text.replace(f'"{letter}{self.domid}"', f'"{letter}G"')
        return json.loads(text)


Check = Callable[[Both], Awaitable[Any]]

CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    """Enter a function in the table."""
    CHECKS[function.__name__] = function
    return function


async def run(domid: int, commands: list[str]) -> int:
    """Run all checks."""
    dom0 = Hands()
    await dom0.connect()
    guest = Peer(await Store.open(dom0.hv), domid)
    await guest.begin()
    both = Both(dom0, guest, domid, commands)
    failed = 0
    for name, function in CHECKS.items():
        await dom0("rm", SHARED)
        await dom0("mkdir", SHARED)
        await dom0("rm", f"{both.home}/{FOLDER}/own")
        await dom0("events")
        await guest("events")
        try:
            observed = both.named(await asyncio.wait_for(function(both), 120.0))
        except Exception:
            failed += 1
            traceback.print_exc()
            observed = "the check itself failed"
        print(json.dumps({"name": name, "observed": observed}), flush=True)
    await dom0("rm", SHARED)
    await dom0("rm", FOLDER)
    await guest("done")
    return failed != 0


def main(arguments: list[str]) -> int:
    """Be one of the two domains."""
    if arguments == ["serve"]:
        asyncio.run(serve())
        return 0
    return asyncio.run(run(int(arguments[0]), arguments[1:]))


if __name__ == "__main__":
    # The modules with the checks import this one under its name, so it is another one than this.
    for module in ("nodes", "grants", "events", "devices"):
        importlib.import_module(module)
    sys.exit(importlib.import_module("checks").main(sys.argv[1:]))
