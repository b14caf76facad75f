# SPDX-License-Identifier: LGPL-2.1-or-later
"""Does the attacks of attacks.py, one after the other, from a guest of Xen.

    attacker.py SECRET NAME[@CARD]... -- NAME@CARD...

Of each of the first it prints a JSON line: "name", "error" (null when it was answered as it must
be), "seconds". Then it closes its standard output and waits for SIGUSR1, comes to the last moment
of all the others, does what is done then, and crashes the guest; it ends only if that fails.

A guest of the stand-in is made anew for each attack. This one goes on with its card (device 0
unless another is named): with its connection, if the attack has left it as it was, else by
beginning anew, with nodes that are made again as the toolstack wrote them. SECRET, in hexadecimal,
are octets that nothing shared with the backend may ever hold.

Runs beside attacks.py and rawfrontend.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import rawfrontend as raw
from attacks import ATTACKS
from rawfrontend import RawFrontend

from xenaudio.core.errors import XenAudioError
from xenaudio.core.hv import Hypervisor
from xenaudio.core.store import Store, Tree

LIMIT = 30.0
"""Seconds for one attack: what takes longer hangs."""
SETTLED = 20.0
"""Seconds for the backend to offer the card again: a guest that flaps is made to wait."""
FLOOD = 0.1
"""An emulated processor takes long for little, and nothing else runs meanwhile."""
HANDSHAKE = {"state", "ring-ref", "event-channel", "evt-ring-ref", "evt-event-channel"}
"""Names of nodes that are the guest's to change."""
FINAL = "nodes_removed"
"""The attack after which there is no card left."""
SWITCH = 0.0005
"""Seconds after which a thread that changes shared memory lets another have its turn."""


class Card:
    """A card that attacks come from, one after the other."""

    def __init__(self, device: int, nodes: dict[str, str]) -> None:
        self._device = device
        self._path = f"device/vsnd/{device}"
        self._nodes = nodes
        self._front: RawFrontend | None = None

    @classmethod
    async def found(cls, device: int, store: Store) -> Card:
        """Return a card that is as the toolstack made it."""
        path = f"device/vsnd/{device}"
        return cls(device, dict(nodes(path, await store.read_tree(path))))

    async def front(self) -> RawFrontend:
        """Return a frontend for the next attack."""
        if self._front is None:
            self._front = await RawFrontend.open(None, self._device)
            self._front.flood = FLOOD
        return self._front

    async def attacked(self, *, well: bool) -> None:
        """Make the card fit for the next attack. WrongAnswer when the backend does not let it."""
        front = self._front
        assert front is not None
        front.forget()
        as_it_was = await self._put_right(front)
        if not (well and as_it_was and front.connected):
            await front.set_state(raw.INITIALISING)
            await front.backend_reaches(raw.INIT_WAIT, limit=SETTLED)
        if not (well and as_it_was):
            self._front = None
            front.close()

    async def _put_right(self, front: RawFrontend) -> bool:
        """Make nodes again as they were, but those of a handshake; return whether they were."""
        changed = {
            path
            for path in front.store.changed
            if path.startswith(self._path) and path.rpartition("/")[2] not in HANDSHAKE
        }
        for path in changed & self._nodes.keys():
            await front.store.write(path, self._nodes[path])
        for path in {self._outermost(path) for path in changed - self._nodes.keys()}:
            await front.store.rm(path)
        front.store.changed.clear()
        return not changed

    def _outermost(self, path: str) -> str:
        """Return the outermost folder, of those that a node is in, that is not the toolstack's."""
        while (outer := path.rpartition("/")[0]) not in self._nodes:
            path = outer
        return path


def nodes(path: str, tree: Tree) -> Iterator[tuple[str, str]]:
    """Give the paths and values of a tree's nodes."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from nodes(f"{path}/{name}", value)
        elif name:
            yield f"{path}/{name}", value
    yield path, ""


def look_for(secret: bytes, front: RawFrontend) -> None:
    """WrongAnswer if anything that is shared with the backend holds the secret."""
    for stream in front.streams:
        if stream.ring_share is None:
            continue
        for memory in (stream.ring, stream.events, *(pcm.buffer.memory for pcm in stream.pcms)):
            try:
                octets = bytes(memory)
            except ValueError:  # its grants were ended
                continue
            raw.require(secret not in octets, f"{stream.path}: another guest's samples are there")


async def attack(name: str, card: Card, secret: bytes) -> str | None:
    """Do an attack; return what was wrong with the answer to it."""
    error = None
    try:
        front = await card.front()
        await asyncio.wait_for(ATTACKS[name](front), LIMIT)
        look_for(secret, front)
    except asyncio.TimeoutError:
        error = f"it takes more than {LIMIT:g} s"
    except (raw.WrongAnswer, XenAudioError) as wrong:
        error = f"{wrong}"
    if name != FINAL:
        try:
            await card.attacked(well=error is None)
        except (raw.WrongAnswer, XenAudioError) as wrong:
            error = error or f"afterwards: {wrong}"
    return error


async def attack_all(secret: bytes, attacks: list[tuple[str, int]]) -> None:
    """Do attacks, one after the other."""
    with Hypervisor() as hv:
        store = await Store.open(hv)
        cards = {device: await Card.found(device, store) for _, device in attacks}
        for name, device in attacks:
            begin = time.monotonic()
            error = await attack(name, cards[device], secret)
            seconds = round(time.monotonic() - begin, 2)
            print(json.dumps({"name": name, "error": error, "seconds": seconds}), flush=True)


async def die(attacks: list[tuple[str, int]]) -> None:
    """Do attacks at the same time, all but their last moments; these together; then crash."""
    waiting = len(attacks)
    together = asyncio.Event()

    async def last_moment() -> None:
        nonlocal waiting
        waiting -= 1
        if waiting == 0:
            together.set()
        await together.wait()

    async def attack(name: str, device: int) -> None:
        front = await RawFrontend.open(None, device)
        front.last_moment = last_moment
        try:
            await ATTACKS[name](front)
        except (raw.WrongAnswer, XenAudioError) as wrong:
            raise raw.WrongAnswer(f"{name}: {wrong}") from wrong

    await asyncio.wait_for(asyncio.gather(*(attack(*which) for which in attacks)), LIMIT)
    crash()


def crash() -> None:
    """End the guest at once: nothing is closed."""
    Path("/proc/sysrq-trigger").write_text("c")


async def do(secret: bytes, first: list[tuple[str, int]], last: list[tuple[str, int]]) -> None:
    """Do what is said above."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, told.set)
    await attack_all(secret, first)
    os.close(sys.stdout.fileno())
    await told.wait()
    await die(last)


def main(arguments: list[str]) -> None:
    """Run the command."""
    sys.setswitchinterval(SWITCH)
    secret, *rest = arguments
    parts = [argument.partition("@") for argument in rest]
    attacks = [(name, int(device or 0)) for name, _, device in parts]
    end = rest.index("--")
    asyncio.run(do(bytes.fromhex(secret), attacks[:end], attacks[end + 1 :]))


if __name__ == "__main__":
    main(sys.argv[1:])
