# SPDX-License-Identifier: LGPL-2.1-or-later
"""Checks of the toolstack: what it writes for a domain and its vsnd devices, and takes away again;
which cards it refuses."""

from __future__ import annotations

from typing import Any

from cards import SPECIFICATIONS
from checks import Both, check
from domain import Hands
from toolstack import BACKENDS

DOMAIN_NODES = (
    *("", "name", "domid", "vm", "control", "control/shutdown", "data", "device", "drivers"),
    *("error", "feature", "attr", "memory", "cpu", "device/vsnd"),
)
"""Nodes of a domain, relative to its own: what stands beside them is not for sound."""


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


async def nodes_of_devices(both: Both, devid: str = "") -> dict[str, Any]:
    """Return all nodes of one vsnd device (as "/0"), or of all."""
    return {
        "frontend": await _tree(both.dom0, f"{both.home}/device/vsnd{devid}"),
        "backend": await _tree(both.dom0, f"{BACKENDS}/{both.domid}{devid}"),
        "libxl": await _tree(both.dom0, f"/libxl/{both.domid}/device/vsnd{devid}"),
    }


@check
async def creation(both: Both) -> Any:
    """What is written for a domain with a card; the states and special watches that are seen."""
    for path in ("@introduceDomain", "@releaseDomain"):
        await both.dom0("watch", path)
    await both.dom0("events")
    await both.toolstack.create()
    fires = sorted(set(await both.dom0("events")))
    for path in ("@introduceDomain", "@releaseDomain"):
        await both.dom0("unwatch", path)
    paths = {name: f"{both.home}/{name}".rstrip("/") for name in DOMAIN_NODES}
    return {
        "fires": fires,
        "states": both.backend.take_states(),
        "domain": {name: await both.dom0("get_perms", path) for name, path in paths.items()},
        **await nodes_of_devices(both),
    }


@check
async def attachment(both: Both) -> Any:
    """What is written for a card that is attached live."""
    await both.toolstack.run("attach")
    return {"states": both.backend.take_states(), **await nodes_of_devices(both, "/1")}


@check
async def detachment(both: Both) -> Any:
    """What is left of a card that is detached, and of the other one."""
    other = await nodes_of_devices(both, "/1")
    await both.toolstack.run("detach")
    return {
        "states": both.backend.take_states(),
        **await nodes_of_devices(both, "/0"),
        "the other is as it was": await nodes_of_devices(both, "/1") == other,
    }


@check
async def specifications(both: Both) -> Any:
    """Which values of `vsnd` are taken, and which are refused."""
    said = await both.toolstack.run("parse", list(SPECIFICATIONS.values()))
    return dict(zip(SPECIFICATIONS, said, strict=True))
