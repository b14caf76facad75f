# SPDX-License-Identifier: LGPL-2.1-or-later
"""Checks of grants: what can be mapped, by whom, for how long."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from checks import NOBODY, Both, check, eventually


async def _directions(both: Both) -> AsyncIterator[tuple[str, Any, int, Any, int]]:
    """Give name, owner of the pages and its domid, the one that maps them and its domid."""
    yield "guest to dom0", both.guest, both.domid, both.dom0, 0
    yield "dom0 to guest", both.dom0, 0, both.guest, both.domid


@check
async def shared_memory(both: Both) -> Any:
    """Pages begin empty, are the same memory on both sides, and in the order that was asked for."""
    found = {}
    async for name, owner, owner_id, user, user_id in _directions(both):
        share = await owner("share", user_id, 3)
        first, second, third = share["grefs"]
        mapped = await user("map", owner_id, [third, first, first, second])
        seen = [await user("load", mapped, 4 * n) for n in range(4)]
        for page in range(3):
            await owner("store", share["handle"], page * 4096, page + 1)
        seen += [await user("load", mapped, page * 4096) for page in range(4)]
        await user("store", mapped, 4096 + 8, 77)
        seen.append(await owner("load", share["handle"], 8))
        again = await user("map", owner_id, [first], False)
        seen.append(await user("load", again, 8))
        for handle in (mapped, again):
            await user("end", handle)
        await owner("end", share["handle"])
        found[name] = seen
    return found


@check
async def pages_that_cannot_be_mapped(both: Both) -> Any:
    """References that are not granted, not to this domain, not any more, or of nobody."""
    found = {}
    async for name, owner, owner_id, user, user_id in _directions(both):
        good = await owner("share", user_id, 2)
        foreign = await owner("share", NOBODY, 1)
        ended = await owner("share", user_id, 1)
        await owner("end", ended["handle"])
        one = good["grefs"][0]
        found[name] = {
            "good": await user("maps", owner_id, good["grefs"]),
            "never granted": await user("maps", owner_id, [32000]),
            "beyond the table": await user("maps", owner_id, [0x7FFFFFFF]),
            "the last number": await user("maps", owner_id, [0xFFFFFFFF]),
            "another domain's": await user("maps", owner_id, foreign["grefs"]),
            "ended": await user("maps", owner_id, ended["grefs"]),
            "one of three is wrong": await user("maps", owner_id, [one, 32000, one]),
            "of a domain that is not": await user("maps", NOBODY, [one]),
            "of a reserved domid": await user("maps", 0x7FF4, [one]),
            "none": await user("maps", owner_id, []),
            "one page 64 times": await user("maps", owner_id, [one] * 64),
            "one page 65 times": await user("maps", owner_id, [one] * 65),
            "good still": await user("maps", owner_id, good["grefs"]),
            "by its owner": await owner("maps", owner_id, [one]),
        }
        for share in (good, foreign):
            await owner("end", share["handle"])
    return found


@check
async def a_mapping_outlives_its_grant(both: Both) -> Any:
    """A grant that is to end does not as long as its page is mapped."""
    found = {}
    async for name, owner, owner_id, user, user_id in _directions(both):
        share = await owner("share", user_id, 1)
        await owner("store", share["handle"], 0, 4711)
        mapped = await user("map", owner_id, share["grefs"])
        await owner("end", share["handle"])
        await user("store", mapped, 4, 1)
        found[name] = [
            await user("load", mapped, 0),
            await user("load", mapped, 4),
            await user("maps", owner_id, share["grefs"]),
            await user("end", mapped),
            await eventually(partial(user, "maps", owner_id, share["grefs"]), "mapped"),
        ]
    return found


@check
async def what_can_be_shared(both: Both) -> Any:
    """With whom pages can be shared, and how many."""
    found = {}
    for name, who, domid in (("dom0", both.dom0, 0), ("guest", both.guest, both.domid)):
        found[name] = {
            "with nobody": await who("shares", NOBODY, 1),
            "with oneself": await who("shares", domid, 1),
            "with a reserved domid": await who("shares", 0x7FF4, 1),
            "none": await who("shares", 0, 0),
            "many": await who("shares", 0, 40),
            "a great many": await who("shares", 0, 1100),
        }
    return found
