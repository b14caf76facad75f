# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest with a card, a scripted backend for it, and the frontend under test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from scripted_backend import VSND, Machine, ScriptedBackend, Setting

from xenaudio.core.frontend import Card
from xenaudio.core.hv import Hypervisor


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine() as machine:
        yield machine


@asynccontextmanager
async def setting(machine: Machine, vsnd: str = VSND) -> AsyncIterator[Setting]:
    guest = await machine.do(machine.hv.create("guest", vsnd=vsnd, wait=False))
    async with ScriptedBackend(machine, guest) as back:
        with Hypervisor(str(guest.socket)) as hv:
            card = Card.open(hv)
            try:
                yield Setting(machine, back, hv, card)
            finally:
                card._free()  # without the ceremony: the scripted backend may answer nothing


@pytest.fixture
def scene(machine: Machine) -> Callable[..., None]:
    """Runs a test's coroutine in its setting."""

    def run(test: Callable[[Setting], Awaitable[None]], vsnd: str = VSND) -> None:
        async def main() -> None:
            async with setting(machine, vsnd) as made:
                await asyncio.wait_for(test(made), 60)

        asyncio.run(main())

    return run
