# SPDX-License-Identifier: LGPL-2.1-or-later
"""Does the attacks of attacks.py, one after the other, from a guest of Xen.

    attacker.py SECRET NAME[@CARD]...      prints a JSON line of each: "name", "error" (null when it
                                           was answered as it must be), "seconds"
    attacker.py --die NAME@CARD...         comes to the last moment of all of these, does what is
                                           done then, and crashes the guest; prints and fails like
                                           the above if it does not get there

A guest of the stand-in is made anew for each attack. This one goes on with its card (device 0
unless another is named): with its connection, if the attack has left it as an honest guest's is,
else by beginning anew, with nodes that are made again as the toolstack wrote them. SECRET, in
hexadecimal, are octets that nothing shared with the backend may ever hold.

Runs beside attacks.py and rawfrontend.py.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

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
FLOOD = 0.15
"""An emulated processor takes long for little, and nothing else runs meanwhile."""
HANDSHAKE = {"", "state", "ring-ref", "event-channel", "evt-ring-ref", "evt-event-channel"}
"""Names of nodes that are the guest's to change, and "": a folder's own value."""
FINAL = "nodes_removed"
"""The attack after which there is no card left."""
SWITCH = 0.0005
"""Seconds after which a thread that changes shared memory lets another have its turn."""


def tell(name: str, error: str | None, begin: float) -> None:
    """Print how an attack ended."""
    seconds = round(time.monotonic() - begin, 2)
    print(json.dumps({"name": name, "error": error, "seconds": seconds}), flush=True)


class Card:
    """A card that attacks come from, one after the other."""

    def __init__(self, device: int, store: Store, new: Tree) -> None:
        self._device = device
        self._path = f"device/vsnd/{device}"
        self._store = store
        self._new = new
        self._front: RawFrontend | None = None

    @classmethod
    async def found(cls, device: int, store: Store) -> Card:
        """Return a card that is as the toolstack made it."""
        return cls(device, store, await store.read_tree(f"device/vsnd/{device}"))

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
        found = await self._store.read_tree(self._path)
        is_right = await self._put_right(self._path, self._new, found)
        if well and front.connected and is_right:
            return
        self._front = None
        front.close()
        await self._store.write(f"{self._path}/state", str(raw.INITIALISING))
        end = time.monotonic() + SETTLED
        while await self._store.read(f"{self._new['backend']}/state") != str(raw.INIT_WAIT):
            raw.require(time.monotonic() < end, "the backend does not offer the card again")
            await asyncio.sleep(0.05)

    async def _put_right(self, path: str, wanted: Tree, found: Tree) -> bool:
        """Make nodes again as they were, but those of a handshake; return whether they were."""
        is_right = True
        for name in found.keys() - wanted.keys() - HANDSHAKE:
            await self._store.rm(f"{path}/{name}")
            is_right = False
        for name in wanted.keys() - HANDSHAKE:
            value, there = wanted[name], found.get(name, "")
            if isinstance(value, dict):
                below = there if isinstance(there, dict) else {}
                is_right &= await self._put_right(f"{path}/{name}", value, below)
            elif there != value or name not in found:
                await self._store.write(f"{path}/{name}", value)
                is_right = False
        return is_right


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
            tell(name, await attack(name, cards[device], secret), begin)


async def die(attacks: list[tuple[str, int]]) -> int:
    """Do attacks at the same time, all but their last moments; these together; then crash."""
    begin = time.monotonic()
    waiting = len(attacks)
    together = asyncio.Event()

    async def last_moment() -> None:
        nonlocal waiting
        waiting -= 1
        if waiting == 0:
            together.set()
        await together.wait()

    async def attack(name: str, device: int) -> None:
        try:
            front = await RawFrontend.open(None, device)
            front.last_moment = last_moment
            await ATTACKS[name](front)
        except (raw.WrongAnswer, XenAudioError) as wrong:
            tell(name, f"{wrong}", begin)
            raise

    try:
        await asyncio.wait_for(asyncio.gather(*(attack(*which) for which in attacks)), LIMIT)
    except (asyncio.TimeoutError, raw.WrongAnswer, XenAudioError):
        return 1
    # At once: nothing is closed.
    with open("/proc/sysrq-trigger", "w") as trigger:  # noqa: ASYNC230
        trigger.write("c")
    return 1


def main(arguments: list[str]) -> int:
    """Do what is said above."""
    sys.setswitchinterval(SWITCH)
    first, *rest = arguments
    parts = (argument.partition("@") for argument in rest)
    attacks = [(name, int(device or 0)) for name, _, device in parts]
    if first == "--die":
        return asyncio.run(die(attacks))
    asyncio.run(attack_all(bytes.fromhex(first), attacks))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
