# SPDX-License-Identifier: LGPL-2.1-or-later
"""The last check: what a destroyed domain leaves to one that used its pages and ports."""

from __future__ import annotations

from typing import Any

from checks import NOBODY, SHARED, Both, check
from devices import nodes_of_devices


@check
async def destruction(both: Both) -> Any:
    """The domain's nodes and devices are gone, also those that it owned elsewhere; its mapped page
    is still there, and its ports are not."""
    share = await both.guest("share", 0, 1)
    await both.guest("store", share["handle"], 0, 4711)
    mapped = await both.dom0("map", both.domid, share["grefs"])
    theirs, ours = await both.guest("channels"), await both.dom0("channels")
    port = await both.guest("alloc", theirs, 0)
    end = await both.dom0("bind", ours, both.domid, port)
    unbound = await both.guest("alloc", theirs, 0)
    own = await both.dom0("alloc", ours, both.domid)
    await both.guest("bind", theirs, 0, own)
    await both.dom0("fires", ours, True)

    for path, perms in (
        ("owned", [f"n{both.domid}"]),
        ("readable", ["n0", f"r{both.domid}"]),
        ("both", [f"n{both.domid}", f"r{NOBODY}"]),
    ):
        await both.dom0("write", f"{SHARED}/{path}/below", "")
        await both.dom0("set_perms", f"{SHARED}/{path}", perms)
    tx = await both.guest("begin")
    await both.guest("write", f"{SHARED}/owned/below", "never", tx=tx)
    for path in ("@introduceDomain", "@releaseDomain", f"{both.home}/data", SHARED):
        await both.dom0("watch", path)
    await both.dom0("events")
    await both.toolstack.run("destroy")

    found = {
        "fires": sorted(set(await both.dom0("events"))),
        "states": both.backend.take_states(),
        "domain": await both.dom0("read", both.home),
        **await nodes_of_devices(both),
        "nodes elsewhere": sorted(await both.dom0("directory", SHARED)),
        "readable": await both.dom0("get_perms", f"{SHARED}/readable"),
        "mapped": await both.dom0("load", mapped, 0),
        "mapped again": await both.dom0("maps", both.domid, share["grefs"]),
        "events": len(await both.dom0("fires", ours, False)),
        "notify": [await both.dom0("notify", ours, of) for of in (end, own)],
        "bind": [await both.dom0("bind", ours, both.domid, of) for of in (port, unbound)],
        "unbind": [await both.dom0("unbind", ours, of) for of in (end, own)],
        "unmap": await both.dom0("end", mapped),
    }
    await both.dom0("end", ours)
    return found
