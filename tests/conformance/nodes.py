# SPDX-License-Identifier: LGPL-2.1-or-later
"""Checks of XenStore: values, paths, permissions, watches and transactions."""

from __future__ import annotations

from typing import Any

from checks import NOBODY, SHARED, Both, check
from domain import FOLDER

OWN = f"{FOLDER}/own"
"""A directory of the guest's, relative to its home."""


def _shown(perms: list[str], guest: int) -> str:
    return " ".join(f"{perm[0]}G" if perm[1:] == str(guest) else perm for perm in perms)


@check
async def values(both: Both) -> Any:
    """A value is what was written: nothing, text, octets; a node made as a parent has none."""
    found = []
    for value in ("", "text", "two\nlines", "\u00e4\u20ac", " ", "a=b;c,d"):
        await both.guest("write", f"{OWN}/a/b", value)
        found.append(await both.dom0("read", f"{both.home}/{OWN}/a/b"))
    return [*found, await both.guest("read", f"{OWN}/a")]


@check
async def sizes(both: Both) -> Any:
    """A guest's node has a limit, domain 0's has that of a message."""
    own = both.home + "/" + OWN
    return {
        "guest": {n: await both.guest("write_octets", OWN, n) for n in (1900, 2040, 2100, 3900)},
        "dom0": {n: await both.dom0("write_octets", SHARED, n) for n in (2100, 3900, 4096)},
        "dom0 in the guest's": await both.dom0("write_octets", own, 2100),
    }


@check
async def relative_paths(both: Both) -> Any:
    """A relative path is relative to the domain's own directory."""
    await both.guest("write", f"{OWN}/x", "mine")
    return {
        "guest": await both.guest("read", "domid") == str(both.domid),
        "dom0": await both.dom0("read", "domid"),
        "absolute": await both.guest("read", f"{both.home}/{OWN}/x"),
        "from dom0": await both.dom0("read", f"{both.home}/{OWN}/x"),
        "paths": [await both.guest("get_domain_path", n) for n in (0, both.domid, NOBODY)],
    }


@check
async def wrong_paths(both: Both) -> Any:
    """What is no path is refused, for reading and for writing alike."""
    found = {}
    for path in (
        *(
            "//",
            "/a//b",
            "/conformance/",
            "/conformance/a b",
            "/conformance/\u00e4",
            "/conformance/*",
        ),
        *("@releaseDomain", f"{OWN}//x", f"{OWN}/x/", "/conformance/a.b", "/conformance/-_@09Az"),
    ):
        who = both.guest if path.startswith(OWN) else both.dom0
        found[path] = [await who("read", path), await who("write", path, "x")]
    for length in (2047, 2048, 2049):
        path = "x" * length
        found[f"{length} relative octets"] = [await both.dom0("read", path)]
    return found


@check
async def nothing_there(both: Both) -> Any:
    """What is not there, with and without a parent that is."""
    found = {}
    for path in (f"{OWN}/a", f"{OWN}/a/b"):
        await both.guest("mkdir", OWN)
        found[path] = [
            await both.guest(operation, path)
            for operation in ("read", "directory", "get_perms", "rm")
        ]
        found[path].append(await both.guest("set_perms", path, [f"n{both.domid}"]))
    return found


@check
async def children(both: Both) -> Any:
    """The order of children; removal of a node with all below it; mkdir of what is there."""
    for name in ("c", "a", "b", "a/x", "a/y"):
        await both.guest("write", f"{OWN}/{name}", name)
    found = [await both.guest("directory", OWN), await both.guest("directory", f"{OWN}/a/x")]
    found.append(await both.guest("mkdir", f"{OWN}/a"))
    found.append(await both.guest("read", f"{OWN}/a"))
    found.append(await both.guest("rm", f"{OWN}/a"))
    return [*found, await both.guest("directory", OWN), await both.guest("read", f"{OWN}/a/x")]


@check
async def many_children(both: Both) -> Any:
    """More children than one message has room for."""
    await both.dom0("set_perms", SHARED, ["r0"])
    found = []
    for number in (0, 1):
        for letter in "abcdefghijklmnopqrst":
            await both.dom0("write", f"{SHARED}/{letter * 102}{number}", "")
        for who in (both.dom0, both.guest):
            found.append(await who("count_children", SHARED))
    return found


@check
async def the_root(both: Both) -> Any:
    """The root cannot be removed; it can be written to, by domain 0."""
    value = await both.dom0("read", "/")
    return {
        "rm": [await who("rm", "/") for who in (both.dom0, both.guest)],
        "write": [await who("write", "/", value) for who in (both.dom0, both.guest)],
        "mkdir": [await who("mkdir", "/") for who in (both.dom0, both.guest)],
    }


@check
async def permissions(both: Both) -> Any:
    """What a guest may do with a node of domain 0's, by its permissions."""
    guest = both.domid
    found = {}
    for perms in (
        *(["n0"], ["r0"], ["w0"], ["b0"]),
        *(["n0", f"r{guest}"], ["n0", f"w{guest}"], ["n0", f"b{guest}"], ["b0", f"n{guest}"]),
        *([f"n{guest}"], ["n0", f"r{NOBODY}"]),
    ):
        path = f"{SHARED}/node"
        await both.dom0("rm", path)
        await both.dom0("write", path, "value")
        await both.dom0("write", f"{path}/child", "value")
        await both.dom0("set_perms", path, perms)
        found[_shown(perms, guest)] = {
            "read": await both.guest("read", path),
            "list": await both.guest("directory", path),
            "perms": await both.guest("get_perms", path),
            "write": await both.guest("write", path, "new"),
            "mkdir": await both.guest("mkdir", path),
            "missing child": await both.guest("read", f"{path}/none"),
            "child": await both.guest("read", f"{path}/child"),
            "new child": await both.guest("write", f"{path}/new", "x"),
            "its perms": await both.dom0("get_perms", f"{path}/new"),
            "chmod": await both.guest("set_perms", path, perms),
            "rm child": await both.guest("rm", f"{path}/child"),
            "rm": await both.guest("rm", path),
        }
    return found


@check
async def new_nodes(both: Both) -> Any:
    """What permissions a new node has, and its parents that were made with it."""
    own = f"{both.home}/{OWN}"
    await both.guest("write", f"{OWN}/by-guest/x", "")
    await both.dom0("write", f"{own}/by-dom0/x", "")
    await both.dom0("set_perms", SHARED, ["r0", f"b{both.domid}"])
    await both.dom0("write", f"{SHARED}/by-dom0/x", "")
    await both.guest("write", f"{SHARED}/by-guest/x", "")
    found = {}
    for path in (own, SHARED):
        for who in ("by-guest", "by-dom0"):
            for node in (who, f"{who}/x"):
                key = f"{path.removeprefix(both.home)}/{node}"
                found[key] = await both.dom0("get_perms", f"{path}/{node}")
    return found


@check
async def giving_away(both: Both) -> Any:
    """What permissions can be set, by whom."""
    guest = both.domid
    await both.guest("write", OWN, "")
    lists = (
        *([f"n{guest}", "r0"], [f"n{guest}", f"r{NOBODY}"], ["n0"], [f"n{NOBODY}"], ["x0"]),
        *(["n"], ["n70000"], ["n-1"], [f"b{guest}", *(f"r{n}" for n in range(5000, 5005))]),
        *([f"n{guest}", "r0", "w0"], [f"n{guest}", f"w{guest}"], ["N0"], ["n0x0"], ["n00"]),
        *(
            ["n+0"],
            ["n 0"],
            ["n0 "],
            ["n0,r0"],
            ["n-0"],
            [f"n{guest}", "r70000"],
            [f"n{guest}", "r-1", "r0"],
        ),
    )
    found = {}
    for perms in lists:
        found[_shown(perms, guest)] = [
            await both.guest("set_perms", OWN, perms),
            await both.guest("get_perms", OWN),
            await both.dom0("set_perms", SHARED, perms),
            await both.dom0("get_perms", SHARED),
        ]
        await both.dom0("set_perms", f"{both.home}/{OWN}", [f"n{guest}"])
        await both.dom0("set_perms", SHARED, ["n0"])
    return found


@check
async def a_guests_reach(both: Both) -> Any:
    """What a guest sees and changes of its own directory and of the rest of the tree."""

    def kind(result: Any) -> Any:
        return result if isinstance(result, str) and result.startswith("!") else "ok"

    found = {}
    for path in (
        *("/", "/local", "/local/domain", "/local/domain/0", "/local/domain/0/name"),
        *("/local/domain/0/backend", "/tool", "/vm", "/libxl", "/nothing", "/nothing/below"),
        *(both.home, "name", "domid", "vm", "device", "control", "control/shutdown", "data"),
        *("memory", "drivers", "feature", "attr", "error", "nothing", f"/local/domain/{NOBODY}"),
    ):
        below = f"{path.rstrip('/')}/conformance"
        found[path] = [
            kind(await both.guest("read", path)),
            kind(await both.guest("directory", path)),
            kind(await both.guest("write", below, "x")),
        ]
        if found[path][-1] == "ok":
            await both.guest("rm", below)
    return found


# Watches.


@check
async def first_event(both: Both) -> Any:
    """A watch fires when it is set, whether the node is there or not, with the path as given."""
    found = {}
    paths = (OWN, f"{OWN}/none", f"{both.home}/{OWN}", SHARED, "/nothing/at/all")
    for path in (*paths, f"/local/domain/{NOBODY}"):
        await both.guest("watch", path)
        found[path] = await both.guest("events")
        await both.guest("unwatch", path)
    for path in ("domid", "/nothing/at/all", "//", "/conformance/", "a b"):
        refused = await both.dom0("watch", path)
        found[f"dom0 {path}"] = refused or await both.dom0("events")
        if refused is None:
            await both.dom0("unwatch", path)
    return found


@check
async def changes_seen(both: Both) -> Any:
    """What fires a watch, with a relative and with an absolute path: the path says which node."""
    await both.guest("write", f"{OWN}/a/x", "")
    found: dict[str, Any] = {}
    home = f"{both.home}/{OWN}"
    for path in (f"{OWN}/a", f"{home}/a"):
        await both.guest("watch", path)
        await both.guest("events")
        seen = {}
        for what, name, *arguments in (
            ("same value", "write", f"{home}/a", ""),
            ("child", "write", f"{home}/a/x", "1"),
            ("new below", "write", f"{home}/a/y/z", "1"),
            ("mkdir of what is there", "mkdir", f"{home}/a"),
            ("mkdir", "mkdir", f"{home}/a/new"),
            ("chmod", "set_perms", f"{home}/a", [f"n{both.domid}", "r0"]),
            ("sibling", "write", f"{home}/b", "1"),
            ("parent", "write", home, "1"),
            ("rm child", "rm", f"{home}/a/y"),
            ("rm nothing", "rm", f"{home}/a/none"),
            ("rm parent", "rm", home),
            ("again", "write", f"{home}/a/x", ""),
        ):
            await both.dom0(name, *arguments)
            seen[what] = await both.guest("events")
        await both.guest("unwatch", path)
        await both.dom0("write", f"{home}/a", "2")
        seen["after unwatch"] = await both.guest("events")
        found["absolute" if path.startswith("/") else "relative"] = seen
    return found


@check
async def watches_below_what_is_removed(both: Both) -> Any:
    """Which watches fire when a tree goes away, and how often."""
    await both.dom0("write", f"{SHARED}/a/b/c", "")
    for path in ("a", "a/b", "a/b/c", "a/none"):
        await both.dom0("watch", f"{SHARED}/{path}")
    await both.dom0("events")
    await both.dom0("rm", f"{SHARED}/a")
    found = sorted(await both.dom0("events"))
    for path in ("a", "a/b", "a/b/c", "a/none"):
        await both.dom0("unwatch", f"{SHARED}/{path}")
    return found


@check
async def changes_not_to_be_seen(both: Both) -> Any:
    """A guest that may not read a node can watch it, and is not told of its changes."""
    found = {}
    for perms in (["n0"], ["n0", f"r{both.domid}"], ["n0", f"w{both.domid}"]):
        path = f"{SHARED}/secret"
        await both.dom0("write", path, "")
        await both.dom0("set_perms", path, perms)
        seen = [await both.guest("watch", path), await both.guest("events")]
        await both.dom0("write", path, "new")
        seen.append(await both.guest("events"))
        await both.dom0("rm", path)
        seen.append(await both.guest("events"))
        await both.guest("unwatch", path)
        found[_shown(perms, both.domid)] = seen
    return found


@check
async def special_watches(both: Both) -> Any:
    """@introduceDomain and @releaseDomain: who can watch them, and what they say at first."""
    found = {}
    for path in ("@introduceDomain", "@releaseDomain", "@nonsense"):
        for name, who in (("dom0", both.dom0), ("guest", both.guest)):
            refused = await who("watch", path)
            found[f"{name} {path}"] = refused or await who("events")
            if refused is None:
                await who("unwatch", path)
    return found


@check
async def watches_of_a_closed_connection(both: Both) -> Any:
    """A connection's watches and transactions end with it."""
    c = await both.guest("connect")
    await both.guest("watch", OWN, c=c)
    tx = await both.guest("begin", c=c)
    await both.guest("write", OWN, "never", tx=tx, c=c)
    await both.guest("disconnect", c)
    await both.dom0("write", f"{both.home}/{OWN}", "new")
    return [await both.guest("read", OWN), await both.guest("events")]


# Transactions.


@check
async def transaction_is_atomic(both: Both) -> Any:
    """Changes are seen within, and by nobody else before the commit; watches fire at the commit."""
    await both.guest("write", f"{OWN}/a", "old")
    await both.dom0("watch", f"{both.home}/{OWN}")
    await both.dom0("events")
    tx = await both.guest("begin")
    await both.guest("write", f"{OWN}/a", "new", tx=tx)
    await both.guest("write", f"{OWN}/b", "new", tx=tx)
    found = [
        await both.guest("read", f"{OWN}/a", tx=tx),
        await both.guest("directory", OWN, tx=tx),
        await both.guest("read", f"{OWN}/a"),
        await both.dom0("read", f"{both.home}/{OWN}/b"),
        await both.dom0("events"),
        await both.guest("commit", tx),
        await both.dom0("read", f"{both.home}/{OWN}/b"),
        sorted(await both.dom0("events")),
    ]
    await both.dom0("unwatch", f"{both.home}/{OWN}")
    return found


@check
async def aborted_transaction(both: Both) -> Any:
    """An aborted transaction has changed nothing, and fires nothing."""
    await both.guest("write", f"{OWN}/a", "old")
    await both.guest("watch", OWN)
    await both.guest("events")
    tx = await both.guest("begin")
    await both.guest("write", f"{OWN}/a", "new", tx=tx)
    await both.guest("rm", f"{OWN}/a", tx=tx)
    await both.guest("abort", tx)
    found = [await both.guest("read", f"{OWN}/a"), await both.guest("events")]
    await both.guest("unwatch", OWN)
    return found


@check
async def conflicts(both: Both) -> Any:
    """Which changes by others, between the begin and the commit, make a commit fail."""
    home = f"{both.home}/{OWN}"
    found = {}
    for what, inside, outside in (
        ("nothing", ("read", "a"), None),
        ("read, changed", ("read", "a"), ("write", "a", "new")),
        ("read, same value", ("read", "a"), ("write", "a", "old")),
        ("read, removed", ("read", "a"), ("rm", "a")),
        ("read, chmod", ("read", "a"), ("set_perms", "a", [f"n{both.domid}", "r0"])),
        ("read, child added", ("read", "a"), ("write", "a/x", "")),
        ("read, sibling changed", ("read", "a"), ("write", "b", "new")),
        ("read, sibling added", ("read", "a"), ("write", "c", "new")),
        ("read, only read outside", ("read", "a"), ("read", "a")),
        ("list, child changed", ("directory", "."), ("write", "a", "new")),
        ("list, child added", ("directory", "."), ("write", "c", "new")),
        ("nothing there, added", ("read", "c"), ("write", "c", "new")),
        ("written, changed", ("write", "a", "mine"), ("write", "a", "new")),
        ("written, sibling changed", ("write", "a", "mine"), ("write", "b", "new")),
        ("added, other added", ("write", "c", "mine"), ("write", "d", "new")),
        ("added, same added", ("write", "c", "mine"), ("write", "c", "new")),
        ("removed, changed", ("rm", "a"), ("write", "a", "new")),
    ):
        await both.dom0("rm", home)
        for name in ("a", "b"):
            await both.dom0("write", f"{home}/{name}", "old")
        tx = await both.guest("begin")
        operation, name, *arguments = inside
        await both.guest(operation, f"{OWN}/{name}".removesuffix("/."), *arguments, tx=tx)
        await both.guest("write", f"{OWN}-result", "x", tx=tx)
        if outside is not None:
            operation, name, *rest = outside
            await both.dom0(operation, f"{home}/{name}", *rest)
        found[what] = await both.guest("commit", tx)
    await both.guest("rm", f"{OWN}-result")
    return found


@check
async def own_conflict(both: Both) -> Any:
    """A domain conflicts with itself too: its requests outside of the transaction."""
    found = []
    c = await both.guest("connect")
    for connection in (0, c):
        await both.guest("write", OWN, "old")
        tx = await both.guest("begin")
        await both.guest("read", OWN, tx=tx)
        await both.guest("write", OWN, "new", c=connection)
        await both.guest("write", f"{OWN}/x", "new", tx=tx)
        found.append(await both.guest("commit", tx))
    await both.guest("disconnect", c)
    return found


@check
async def wrong_transactions(both: Both) -> Any:
    """A transaction that is not, is another connection's, or is over; one node is refused in it."""
    found = {"none": await both.dom0("read", SHARED, tx=4711)}
    c = await both.dom0("connect")
    tx = await both.dom0("begin")
    found["another's"] = await both.dom0("read", SHARED, tx=tx, c=c)
    await both.dom0("commit", tx)
    found["over"] = await both.dom0("read", SHARED, tx=tx)
    await both.dom0("disconnect", c)
    tx = await both.guest("begin")
    found["may not"] = await both.guest("write", SHARED, "x", tx=tx)
    found["may"] = await both.guest("write", OWN, "x", tx=tx)
    found["commit"] = await both.guest("commit", tx)
    found["read"] = await both.guest("read", OWN)
    return found


@check
async def quotas(both: Both) -> Any:
    """A guest's nodes, watches and transactions are limited; domain 0's are not."""
    deep = "/x" * 600
    return {
        "guest": {
            "transactions": await both.guest("begin_many", 30),
            "watches": await both.guest("watch_many", "data", 150),
            "watches after them": await both.guest("watch_many", "data", 10),
            "600 nodes": await both.guest("mkdir", f"{OWN}/a{deep}"),
            "600 more": await both.guest("mkdir", f"{OWN}/b{deep}"),
            "what is there": await both.guest("directory", OWN),
            "one more": await both.guest("mkdir", f"{OWN}/c"),
            "600 after they are gone": [
                await both.guest("rm", f"{OWN}/a"),
                await both.guest("mkdir", f"{OWN}/b{deep}"),
            ],
        },
        "dom0": {
            "transactions": await both.dom0("begin_many", 30),
            "watches": await both.dom0("watch_many", "data", 150),
            "600 of the guest's": await both.dom0("mkdir", f"{both.home}/{OWN}/d{deep}"),
            "600 of its own": await both.dom0("mkdir", f"{SHARED}/a{deep}"),
            "600 more": await both.dom0("mkdir", f"{SHARED}/b{deep}"),
        },
    }
