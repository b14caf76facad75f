# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is left to a backend outside the toolstack's domain: removing the nodes of ended devices.

Where libxl runs, it removes the backend's directory itself. In another domain, a driver domain in
Xen's terms, that is for the backend to do (`xl devd` does it for disks and network cards, and for
nothing else); libxl waits 10 s for it, and then fails.
"""

from __future__ import annotations

import asyncio
import logging

from xenaudio.core.errors import ClosedError, NotFoundError, XenAudioError
from xenaudio.core.store import Store
from xenaudio.core.xenbus import XenbusState

log = logging.getLogger(__name__)

# libxl must have time to read our state 6: of a directory that is gone before, it says it failed.
CLOSED_SECONDS = 0.5


class Remover:
    """Removes the directories of devices that were taken offline and have reached state 6."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._noticed: set[str] = set()

    def notice(self, directory: str) -> None:
        """Something changed in a device's backend directory."""
        self._noticed.add(directory)
        if directory not in self._tasks:
            self._tasks[directory] = asyncio.create_task(self._look(directory))

    async def stop(self) -> None:
        """Remove nothing any more."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self, directory: str) -> None:
        while directory in self._noticed:
            self._noticed.remove(directory)
            try:
                if not await self._ended(directory):
                    continue
                await asyncio.sleep(CLOSED_SECONDS)

                async def remove(tx: int) -> None:
                    # Another device may have been made in its place.
                    if await self._ended(directory, tx):
                        await self._store.rm(directory, tx)

                await self._store.run_transaction(remove)
                log.debug("%s: removed", directory)
            except (NotFoundError, ClosedError):
                pass
            except XenAudioError as error:
                log.error("%s: %s; the toolstack waits for its removal", directory, error)
        del self._tasks[directory]

    async def _ended(self, directory: str, tx: int = 0) -> bool:
        state = XenbusState.parse(await self._store.read(f"{directory}/state", tx))
        online = await self._store.read(f"{directory}/online", tx)
        return state is XenbusState.CLOSED and online == "0"
