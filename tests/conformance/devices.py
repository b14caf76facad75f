# SPDX-License-Identifier: LGPL-2.1-or-later
"""Checks of the toolstack: what it writes for a domain and its vsnd devices, and takes away again.

While it works, these checks are the backend: they answer a device's state 1 with 2 and 5 with 6.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from checks import Both, check
from domain import Hands

from xenaudio.core.errors import NotFoundError
from xenaudio.core.hv import Hypervisor
from xenaudio.core.store import Store

BACKENDS = "/local/domain/0/backend/vsnd"
DOMAIN_NODES = (
    *("", "name", "domid", "vm", "control", "control/shutdown", "data", "device", "drivers"),
    *("error", "feature", "attr", "memory", "cpu", "device/vsnd"),
)
"""Nodes of a domain, relative to its own: what stands beside them is not for sound."""


class Backend:
    """A backend that does nothing but show its states."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changed = asyncio.Event()
        self.states: list[str] = []

    async def run(self) -> None:
        """Serve until cancelled."""
        await self._store.watch(BACKENDS, lambda path: self._changed.set())
        while True:
            await self._changed.wait()
            self._changed.clear()
            for domid in await self._list(BACKENDS):
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
                self.states.append(f"{state} {answer}")
                await self._store.write(path, answer)


async def _tree(hands: Hands, path: str) -> dict[str, list[Any]] | None:
    """Return each node at and below a path: value, then permissions."""
    found: dict[str, list[Any]] = {}
    todo = [path]
    while todo:
        at = todo.pop()
        value = await hands("read", at)
        if value == "!ENOENT":
            continue
        found[at] = [value, *await hands("get_perms", at)]
        todo += [f"{at}/{name}" for name in await hands("directory", at)]
    return dict(sorted(found.items())) or None


class _Toolstack:
    """Runs the commands, and shows what they left."""

    def __init__(self, both: Both) -> None:
        self._both = both
        self.domid = 0

    async def _domids(self) -> set[int]:
        return {int(name) for name in await self._both.dom0("directory", "/local/domain")}

    async def run(self, name: str) -> None:
        before = await self._domids()
        process = await asyncio.create_subprocess_shell(
            self._both.commands[name],
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"{name}: {said.decode()}")
        if name == "create":
            (self.domid,) = await self._domids() - before

    def named(self, observed: Any) -> Any:
        """Return what was observed, with N for the domain's id."""
        text = json.dumps(observed)
        for old, new in (
            (f"/domain/{self.domid}", "/domain/N"),
            (f"/vsnd/{self.domid}", "/vsnd/N"),
            (f"/libxl/{self.domid}", "/libxl/N"),
            (f'"n{self.domid}"', '"nN"'),
            (f'"r{self.domid}"', '"rN"'),
            (f'frontend-id": ["{self.domid}"', 'frontend-id": ["N"'),
        ):
            text = text.replace(old, new)
        return json.loads(text)

    async def device(self, devid: str = "") -> Any:
        """Return all nodes of one vsnd device, or of all."""
        hands = self._both.dom0
        return self.named(
            {
                "frontend": await _tree(hands, f"/local/domain/{self.domid}/device/vsnd{devid}"),
                "backend": await _tree(hands, f"{BACKENDS}/{self.domid}{devid}"),
                "libxl": await _tree(hands, f"/libxl/{self.domid}/device/vsnd{devid}"),
            }
        )


@check
async def a_domain_and_its_cards(both: Both) -> Any:
    """What `xl create` with vsnd= and vsnd-attach write, what vsnd-detach and destroy take away,
    the special watches that fire, and the states that a backend is shown."""
    found: dict[str, Any] = {}
    with Hypervisor() as hv:
        store = await Store.open(hv)
        backend = Backend(store)
        serving = asyncio.create_task(backend.run())
        toolstack = _Toolstack(both)
        for path in ("@introduceDomain", "@releaseDomain"):
            await both.dom0("watch", path)
        await both.dom0("events")

        async def done(name: str) -> dict[str, Any]:
            await toolstack.run(name)
            states, backend.states = backend.states, []
            return {"fires": sorted(set(await both.dom0("events"))), "states": states}

        try:
            found["create"] = await done("create")
            home = f"/local/domain/{toolstack.domid}"
            paths = {name: f"{home}/{name}".rstrip("/") for name in DOMAIN_NODES}
            perms = {name: await both.dom0("get_perms", path) for name, path in paths.items()}
            found["create"] |= {"domain": toolstack.named(perms), **await toolstack.device()}
            found["attach"] = await done("attach") | await toolstack.device("/1")
            found["detach"] = await done("detach") | await toolstack.device("/0")
            kept = {key: found["attach"][key] for key in ("frontend", "backend", "libxl")}
            found["detach"]["the other is as it was"] = await toolstack.device("/1") == kept
            found["destroy"] = await done("destroy") | await toolstack.device()
            found["destroy"]["domain"] = await both.dom0("read", home)
        finally:
            for path in ("@introduceDomain", "@releaseDomain"):
                await both.dom0("unwatch", path)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            store.close()
    return found
