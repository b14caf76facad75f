# SPDX-License-Identifier: LGPL-2.1-or-later
"""The toolstack's commands, and a backend so that they succeed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from domain import Hands

from xenaudio.core.errors import NotFoundError
from xenaudio.core.store import Store

BACKENDS = "/local/domain/0/backend/vsnd"


class Backend:
    """A backend that shows its states, and plays nothing: 1 becomes 2, and 5 becomes 6.

    It leaves domains alone that are there before it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changed = asyncio.Event()
        self._states: list[str] = []

    def take_states(self) -> list[str]:
        """Return which states it was shown since the last call, with its answers."""
        states, self._states = self._states, []
        return states

    async def serve(self) -> None:
        """Serve until cancelled."""
        others = set(await self._list(BACKENDS))
        await self._store.watch(BACKENDS, lambda path: self._changed.set())
        while True:
            await self._changed.wait()
            self._changed.clear()
            for domid in set(await self._list(BACKENDS)) - others:
                for devid in await self._list(f"{BACKENDS}/{domid}"):
                    await self._look(f"{BACKENDS}/{domid}/{devid}/state")

    async def _list(self, path: str) -> list[str]:
        with suppress(NotFoundError):
            return await self._store.directory(path)
        return []

    async def _look(self, path: str) -> None:
        with suppress(NotFoundError):
            state = await self._store.read(path)
            answer = {"1": "2", "5": "6"}.get(state)
            if answer is not None:
                self._states.append(f"{state} {answer}")
                await self._store.write(path, answer)


class Toolstack:
    """Runs the commands. `domid` is the domain's that it made."""

    NAMES = ("create", "start", "attach", "detach", "destroy", "parse")

    def __init__(self, dom0: Hands, commands: Sequence[str]) -> None:
        self._dom0 = dom0
        self._commands = dict(zip(self.NAMES, commands, strict=True))
        self.domid = 0

    async def _domids(self) -> set[int]:
        return {int(name) for name in await self._dom0("directory", "/local/domain")}

    async def create(self) -> None:
        """Make the domain."""
        before = await self._domids()
        await self.run("create")
        (self.domid,) = await self._domids() - before

    async def run(self, name: str, lines: Sequence[str] = ()) -> list[str]:
        """Run a command with such an input; return the lines that it printed."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_shell(
            self._commands[name], stdin=pipe, stdout=pipe, stderr=pipe
        )
        out, err = await process.communicate("".join(f"{line}\n" for line in lines).encode())
        if process.returncode != 0:
            raise RuntimeError(f"{name}: status {process.returncode}\n{err.decode()}")
        return out.decode().splitlines()
