# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs the checks, in domain 0.

    checks.py CREATE START ATTACH DETACH DESTROY PARSE

Shell commands by which domain 0's toolstack makes a domain with the first card of cards.py, without
letting it run; lets it run, and `peer.py` in it; attaches the second card to it; detaches the first
one; destroys the domain; and says of each line of its input whether that can be a `vsnd`: "taken"
or "refused". The commands find a backend: the checks are one.

Prints a line of JSON for each check: {"name": ..., "observed": ...}. A check is a function of a
`Both`. What it observes has domids, ports and paths under names that are the same on each machine,
so that it can be compared with the table in expected.py.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from domain import FOLDER, Hands, Peer
from toolstack import Backend, Toolstack

from xenaudio.core.store import Store

NOBODY = 30000
"""A domid that no domain has."""
SHARED = "/conformance"
"""A directory of domain 0's own."""

OF_A_DOMAIN_THAT_DOES_NOT_RUN = ("devices",)
OF_ONE_THAT_RUNS = ("nodes", "grants", "events", "destruction")
"""The modules with the checks. The last one leaves no guest."""


class Both:
    """Domain 0, in which the checks run, and the guest."""

    def __init__(self, dom0: Hands, guest: Peer, toolstack: Toolstack, backend: Backend) -> None:
        self.dom0 = dom0
        self.guest = guest
        self.toolstack = toolstack
        self.backend = backend

    @property
    def domid(self) -> int:
        """The guest's."""
        return self.toolstack.domid

    @property
    def home(self) -> str:
        """The guest's directory."""
        return f"/local/domain/{self.domid}"

    def named(self, observed: Any) -> Any:
        """Return what was observed, with G for the guest's domid."""
        text = json.dumps(observed)
        for pattern in (
            r"(/(?:domain|backend/vsnd|libxl)/){}(?![0-9])",
            r'("[nrwb]){}(?=")',
            r'(frontend-id": \["){}(?=")',
        ):
            text = re.sub(pattern.replace("{}", str(self.domid)), r"\1G", text)
        return json.loads(text)


Check = Callable[[Both], Awaitable[Any]]

CHECKS: list[Check] = []


def check(function: Check) -> Check:
    """Enter a function in the table."""
    CHECKS.append(function)
    return function


async def eventually(ask: Callable[[], Awaitable[Any]], before: Any) -> Any:
    """Return the first answer that is another one than `before`; that one if there is none."""
    answer = before
    for _ in range(100):
        answer = await ask()
        if answer != before:
            break
        await asyncio.sleep(0.1)
    return answer


class Suite:
    """Runs the checks, one after the other."""

    def __init__(self, both: Both) -> None:
        self._both = both
        self.failed = False

    async def run(self, module: str, *, guest_runs: bool) -> None:
        """Run a module's checks."""
        importlib.import_module(module)
        both = self._both
        for function in [function for function in CHECKS if function.__module__ == module]:
            for path in (SHARED, FOLDER, *([f"{both.home}/{FOLDER}/own"] if guest_runs else [])):
                await both.dom0("rm", path)
            await both.dom0("mkdir", SHARED)
            for who in (both.dom0, *([both.guest] if guest_runs else [])):
                await who("events")
            try:
                observed = both.named(await asyncio.wait_for(function(both), 120.0))
            except Exception:
                self.failed = True
                traceback.print_exc()
                observed = "the check itself failed"
            print(json.dumps({"name": function.__name__, "observed": observed}), flush=True)


async def main(commands: list[str]) -> int:
    """Run all checks."""
    dom0 = Hands()
    await dom0.connect()
    store = await Store.open(dom0.hv)
    backend = Backend(store)
    serving = asyncio.create_task(backend.serve())
    both = Both(dom0, Peer(store), Toolstack(dom0, commands), backend)
    suite = Suite(both)
    for module in OF_A_DOMAIN_THAT_DOES_NOT_RUN:
        await suite.run(module, guest_runs=False)
    await both.toolstack.run("start")
    await both.guest.await_domain(both.domid)
    for module in OF_ONE_THAT_RUNS:
        await suite.run(module, guest_runs=True)
    await dom0("rm", SHARED)
    await dom0("rm", FOLDER)
    serving.cancel()
    return 1 if suite.failed else 0


if __name__ == "__main__":
    # The modules with the checks import this one under its name, so it is another one than this.
    sys.exit(asyncio.run(importlib.import_module("checks").main(sys.argv[1:])))
