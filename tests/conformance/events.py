# SPDX-License-Identifier: LGPL-2.1-or-later
"""Checks of event channels: what can be bound, what an event does, what closing leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from checks import NOBODY, Both, check, eventually


async def _directions(both: Both) -> AsyncIterator[tuple[str, Any, int, Any, int]]:
    """Give name, the one that makes ports and its domid, the one that binds them and its domid."""
    yield "guest to dom0", both.guest, both.domid, both.dom0, 0
    yield "dom0 to guest", both.dom0, 0, both.guest, both.domid


@check
async def notifications(both: Both) -> Any:
    """An event reaches the other end, and only it; a bound port fires once at once; of events that
    nobody takes two are left at most; one that is sent while nobody is bound goes nowhere."""
    found = {}
    async for name, maker, maker_id, user, user_id in _directions(both):
        ours, theirs = await maker("channels"), await user("channels")
        port = await maker("alloc", ours, user_id)
        seen: dict[str, Any] = {"unbound": await maker("notify", ours, port)}
        seen["it fires"] = len(await maker("fires", ours, False))
        end = await user("bind", theirs, maker_id, port)
        seen["binder fires"] = await user("fires", theirs, True) == [end]
        seen["maker fires"] = len(await maker("fires", ours, False))
        await user("notify", theirs, end)
        seen["to the maker"] = await maker("fires", ours, True) == [port]
        for _ in range(3):
            await maker("notify", ours, port)
        fired = [*await user("fires", theirs, True), *await user("fires", theirs, False)]
        seen["to the binder, thrice"] = fired in ([end], [end, end])
        seen["and to the maker"] = len(await maker("fires", ours, False))
        await user("end", theirs)
        await maker("end", ours)
        found[name] = seen
    return found


@check
async def ports_that_cannot_be_bound(both: Both) -> Any:
    """Ports that are not, are for another domain, are bound already, or of nobody."""
    found = {}
    async for name, maker, maker_id, user, user_id in _directions(both):
        ours, theirs = await maker("channels"), await user("channels")
        port = await maker("alloc", ours, user_id)
        foreign = await maker("alloc", ours, NOBODY)
        closed = await maker("alloc", ours, user_id)
        await maker("unbind", ours, closed)
        seen = {
            "never made": await user("bind", theirs, maker_id, 900),
            "none": await user("bind", theirs, maker_id, 0),
            "beyond the table": await user("bind", theirs, maker_id, 0x7FFFFFFF),
            "another domain's": await user("bind", theirs, maker_id, foreign),
            "closed": await user("bind", theirs, maker_id, closed),
            "of a domain that is not": await user("bind", theirs, NOBODY, port),
            "of a reserved domid": await user("bind", theirs, 0x7FF4, port),
            "good": isinstance(await user("bind", theirs, maker_id, port), int),
            "bound already": await user("bind", theirs, maker_id, port),
        }
        await user("end", theirs)
        await maker("end", ours)
        found[name] = seen
    return found


@check
async def ports_for_anybody(both: Both) -> Any:
    """A port can be made for nobody, for oneself, and for a reserved domid or not."""
    found = {}
    for name, who, domid in (("dom0", both.dom0, 0), ("guest", both.guest, both.domid)):
        handle = await who("channels")
        results = []
        for remote in (NOBODY, domid, 0x7FF4):
            port = await who("alloc", handle, remote)
            results.append("made" if isinstance(port, int) else port)
        await who("end", handle)
        found[name] = results
    return found


@check
async def a_channel_to_oneself(both: Both) -> Any:
    """A domain can bind a port of its own."""
    found = {}
    for name, who, domid in (("dom0", both.dom0, 0), ("guest", both.guest, both.domid)):
        one, other = await who("channels"), await who("channels")
        port = await who("alloc", one, domid)
        end = await who("bind", other, domid, port)
        seen = [await who("fires", other, True) == [end]]
        await who("notify", other, end)
        seen.append(await who("fires", one, True) == [port])
        await who("end", one)
        await who("end", other)
        found[name] = seen
    return found


@check
async def not_ones_own_ports(both: Both) -> Any:
    """Unbinding twice; notifying and unbinding what is another handle's, or was never made."""
    found = {}
    for name, who in (("dom0", both.dom0), ("guest", both.guest)):
        one, other = await who("channels"), await who("channels")
        port = await who("alloc", one, NOBODY)
        found[name] = {
            "another handle's": [await who(do, other, port) for do in ("notify", "unbind")],
            "never made": [await who(do, one, 901) for do in ("notify", "unbind")],
            "beyond the table": [await who(do, one, 0x7FFFFFFF) for do in ("notify", "unbind")],
            "good": await who("unbind", one, port),
            "twice": [await who(do, one, port) for do in ("unbind", "notify")],
        }
        await who("end", one)
        await who("end", other)
    return found


@check
async def after_the_peers_end(both: Both) -> Any:
    """When the binder has closed its end, events go nowhere, and the port can be bound again; when
    the maker has, neither; a handle's ports close with it."""
    found = {}
    async for name, maker, maker_id, user, user_id in _directions(both):
        ours, theirs = await maker("channels"), await user("channels")
        port = await maker("alloc", ours, user_id)
        end = await user("bind", theirs, maker_id, port)
        await user("notify", theirs, end)
        await user("end", theirs)
        seen: dict[str, Any] = {"sent before the end": await maker("fires", ours, True) == [port]}
        seen["binder gone"] = await maker("notify", ours, port)
        seen["it fires"] = len(await maker("fires", ours, False))
        theirs = await user("channels")
        end = await user("bind", theirs, maker_id, port)
        seen["bound again"] = isinstance(end, int)
        await user("fires", theirs, True)
        await maker("end", ours)
        await user("fires", theirs, False)
        seen["maker gone"] = await user("notify", theirs, end)
        seen["binder fires"] = len(await user("fires", theirs, False))
        seen["its port"] = await user("bind", theirs, maker_id, port)
        seen["unbind"] = await user("unbind", theirs, end)
        await user("end", theirs)
        found[name] = seen
    return found


@check
async def a_user_that_is_killed(both: Both) -> Any:
    """When a process dies that had mapped a page and bound a port, the port can be bound again, and
    the grant can end."""
    found = {}
    async for name, maker, maker_id, user, user_id in _directions(both):
        ours, theirs = await maker("channels"), await user("channels")
        share = await maker("share", user_id)
        port = await maker("alloc", ours, user_id)
        process = await user("using_process", maker_id, share["grefs"], port)
        seen = {"bound": await user("bind", theirs, maker_id, port)}
        await user("kill", process["pid"])
        again = partial(user, "bind", theirs, maker_id, port)
        end = await eventually(again, seen["bound"])
        seen["killed"] = isinstance(end, int)
        await user("fires", theirs, True)
        await maker("notify", ours, port)
        seen["events"] = await user("fires", theirs, True) == [end]
        await maker("end", share["handle"])
        seen["ended"] = await eventually(partial(user, "maps", maker_id, share["grefs"]), "mapped")
        await user("end", theirs)
        await maker("end", ours)
        found[name] = seen
    return found


@check
async def a_maker_that_is_killed(both: Both) -> Any:
    """When a process dies that had granted a page and made a port, the page stays mapped, the
    binder's events go nowhere, and neither can be had again."""
    found = {}
    async for name, maker, maker_id, user, user_id in _directions(both):
        theirs = await user("channels")
        process = await maker("offering_process", user_id)
        grefs, port = process["result"]
        mapped = await user("map", maker_id, grefs)
        end = await user("bind", theirs, maker_id, port)
        await user("fires", theirs, True)
        await maker("kill", process["pid"])
        seen = {
            "notify": await user("notify", theirs, end),
            "it fires": len(await user("fires", theirs, False)),
            "bind": await user("bind", theirs, maker_id, port),
            "mapped": await user("load", mapped, 0),
            "unmap": await user("end", mapped),
        }
        seen["map"] = await eventually(partial(user, "maps", maker_id, grefs), "mapped")
        await user("end", theirs)
        found[name] = seen
    return found
