# SPDX-License-Identifier: LGPL-2.1-or-later
"""Event channels that are closed, and those that are better not: a C program counts them.

A domain that is restored has lost its event channels, and Linux stops with a BUG when a descriptor
of such a one is closed.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from scripted_backend import VSND, Machine, ScriptedBackend, until

from xenaudio.core.frontend import CardState

HERE = Path(__file__).parent
CSRC = HERE.parents[2] / "csrc"
STREAMS = 3
"""Of VSND: each has a handle."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the C program."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    made = tmp_path_factory.mktemp("event-channels") / "event_channels_let_go"
    sources = [path for layer in ("sndif", "hv", "frontend") for path in (CSRC / layer).glob("*.c")]
    wrapped = "-Wl,--wrap=xa_evtchn_close,--wrap=xa_evtchn_abandon"
    subprocess.run(
        [
            *("cc", "-std=c11", "-D_GNU_SOURCE", f"-I{CSRC}", wrapped),
            *("-o", made, HERE / "event_channels_let_go.c", *sources),
        ],
        check=True,
    )
    return made


class Counting:
    """The program, serving a guest's card."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.closed = self.abandoned = 0

    async def reaches(self, state: CardState) -> None:
        """Wait until the card is in a state."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            found, self.closed, self.abandoned = map(int, line.split())
            if found == state.value:
                return
        raise AssertionError(f"it ended, and was never {state.name}")

    def close(self) -> None:
        """Have it close the card."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def ends(self) -> None:
        """Wait for its end."""
        assert await self._process.wait() == 0


@asynccontextmanager
async def counting(
    machine: Machine, program: Path
) -> AsyncIterator[tuple[ScriptedBackend, Counting]]:
    """Have the program connect a guest's card."""
    guest = await machine.do(machine.hv.create("guest", vsnd=VSND, wait=False))
    async with ScriptedBackend(machine, guest) as back:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            program, str(guest.socket), stdin=pipe, stdout=pipe
        )
        try:
            counted = Counting(process)
            await back.connect("0/0")
            await counted.reaches(CardState.CONNECTED)
            yield back, counted
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


async def close(back: ScriptedBackend, counted: Counting) -> None:
    """Close the card in order."""
    counted.close()
    await back.front_reaches(5)
    await back.state(6)
    await counted.reaches(CardState.CLOSED)
    await counted.ends()


def test_a_card_that_is_closed_closes_its_event_channels(machine: Machine, program: Path) -> None:
    async def test() -> None:
        async with counting(machine, program) as (back, counted):
            await close(back, counted)
            assert (counted.closed, counted.abandoned) == (STREAMS, 0)

    run(test)


def test_a_backend_that_begins_anew_has_them_closed(machine: Machine, program: Path) -> None:
    async def test() -> None:
        async with counting(machine, program) as (back, counted):
            await back.state(2)
            await counted.reaches(CardState.NEGOTIATING)
            assert (counted.closed, counted.abandoned) == (STREAMS, 0)

    run(test)


def test_those_of_a_restored_guest_are_abandoned(
    machine: Machine, program: Path, tmp_path: Path
) -> None:
    async def test() -> None:
        async with counting(machine, program) as (back, counted):
            saving = asyncio.create_task(machine.do(machine.hv.save(back.guest, tmp_path / "s")))

            async def removed() -> bool:
                return await back.store.read(f"{back.back}/state") == "5"

            await until(removed, "the toolstack removes the device")
            await back.state(6)
            await saving
            back.forget()
            back.guest = await machine.do(machine.hv.restore(tmp_path / "s", wait=False))
            await back.connect("0/0")
            await counted.reaches(CardState.CONNECTED)
            assert (counted.closed, counted.abandoned) == (0, STREAMS)
            await close(back, counted)
            assert (counted.closed, counted.abandoned) == (STREAMS, STREAMS)

    run(test)
