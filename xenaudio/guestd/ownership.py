# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who has a card: one connection at a time, and the active session's before others.

Whoever asks for a card that nobody has, has it. Who asks for one that is had is refused and waits;
it is told, by an event of its watch on the device, when asking again may help. A waiting user of a
higher rank (sessions.py) takes the card from the one who has it. A card whose owner has gone, or
has lost it, is closed as a frontend closes it, and only then given to the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from xenaudio.core.errors import XenAudioError
from xenaudio.core.xenbus import XenbusState

from .cards import Cards
from .nodes import FOLDER

log = logging.getLogger(__name__)

CLOSE_SECONDS = 2.0
"""How long each step of closing waits for the backend, as a frontend does."""

_AT_REST = {None, str(XenbusState.INITIALISING.value), str(XenbusState.CLOSED.value)}
"""States in which a device has no connection to close."""
_DISCONNECTED = {
    XenbusState.UNKNOWN,
    XenbusState.INITIALISING,
    XenbusState.INIT_WAIT,
    XenbusState.CLOSING,
    XenbusState.CLOSED,
}
_CLOSED = _DISCONNECTED - {XenbusState.CLOSING}
"""What a backend is in after the frontend's 5, and after its 6."""


class Asker(Protocol):
    """A connection that asks for cards."""

    @property
    def uid(self) -> int:
        """Its user."""

    def fire(self, path: str) -> None:
        """Have its watches fire that `path` concerns."""


@dataclass(eq=False)
class Closing:
    """A card that is being closed."""

    device: int
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)
    """The backend has let go of the rings, or will not."""
    task: asyncio.Task[None] | None = None


@dataclass
class _Card:
    owner: Asker | None = None
    closing: Closing | None = None
    waiting: list[Asker] = field(default_factory=list)


class Ownership:
    """The owners of all cards. `rank(uid)`: whose turn it is; `in_kernel(device)`: why not."""

    def __init__(
        self, cards: Cards, rank: Callable[[int], int], in_kernel: Callable[[int], bool]
    ) -> None:
        self._cards = cards
        self._rank = rank
        self._in_kernel = in_kernel
        self._held: dict[int, _Card] = {}
        self._changed = asyncio.Event()

    def owner(self, device: int) -> Asker | None:
        """Return who has a card."""
        card = self._held.get(device)
        return card.owner if card is not None else None

    def ask(self, asker: Asker, device: int) -> bool:
        """Say whether `asker` has the card, from now on if nobody had it; else it waits."""
        card = self._held.setdefault(device, _Card())
        if card.owner is asker:
            return True
        if card.owner is None and card.closing is None:
            if self._in_kernel(device):
                log.warning(
                    "vsnd %d: user %d may not have it, for snd_xen_front does: unload that"
                    " (modprobe -r snd_xen_front; this package keeps it away at the next boot)",
                    device,
                    asker.uid,
                )
                self._forget(device)
                return False
            card.owner = asker
            if asker in card.waiting:
                card.waiting.remove(asker)
            log.info("vsnd %d: user %d has it", device, asker.uid)
            return True
        if asker not in card.waiting:
            card.waiting.append(asker)
            log.info(
                "vsnd %d: user %d waits%s",
                device,
                asker.uid,
                f" for user {card.owner.uid}" if card.owner is not None else "",
            )
        self._reconsider(device, card)
        return False

    def reconsider(self) -> None:
        """Sessions have changed: give the cards to those whose turn it is."""
        for device, card in list(self._held.items()):
            self._reconsider(device, card)

    def _reconsider(self, device: int, card: _Card) -> None:
        if card.owner is None or card.closing is not None or not card.waiting:
            return
        first = max(card.waiting, key=lambda asker: self._rank(asker.uid))
        if self._rank(first.uid) <= self._rank(card.owner.uid):
            return
        log.info(
            "vsnd %d: user %d, who is not at the seat any more, gives it to user %d",
            device,
            card.owner.uid,
            first.uid,
        )
        former = card.owner
        self._close(device, card)
        card.waiting.append(former)

    def end(self, asker: Asker) -> list[Closing]:
        """A connection has ended: the cards that it had are closed."""
        closings = []
        for device, card in list(self._held.items()):
            if asker in card.waiting:
                card.waiting.remove(asker)
            if card.owner is asker:
                closings.append(self._close(device, card))
            self._forget(device)
        return closings

    def _forget(self, device: int) -> None:
        card = self._held[device]
        if card.owner is None and card.closing is None and not card.waiting:
            del self._held[device]

    def _close(self, device: int, card: _Card) -> Closing:
        closing = card.closing = Closing(device)
        card.owner = None
        closing.task = asyncio.create_task(self._run(card, closing), name=f"close vsnd {device}")
        return closing

    async def _run(self, card: _Card, closing: Closing) -> None:
        device = closing.device
        try:
            await self._close_device(closing)
        except XenAudioError as error:
            log.error("vsnd %d cannot be closed: %s", device, error)
        finally:
            closing.disconnected.set()
            self._cards.forget(device)
            card.closing = None
            waiting, card.waiting = card.waiting, []
            # The first to ask has it.
            for asker in sorted(waiting, key=lambda asker: -self._rank(asker.uid)):
                asker.fire(f"{FOLDER}/{device}")
            self._forget(device)

    async def _close_device(self, closing: Closing) -> None:
        device = closing.device
        await self._cards.look()
        state = self._cards.left_as(device)
        if state in _AT_REST:
            # Nothing was connected, or the device is not the one that was.
            return
        await self._cards.follow(device)
        if state != str(XenbusState.CLOSING.value):
            await self._cards.write_state(device, str(XenbusState.CLOSING.value))
        await self._await_backend(device, _DISCONNECTED)
        closing.disconnected.set()
        await self._cards.look()
        if self._cards.left_as(device) is not None:
            await self._cards.write_state(device, str(XenbusState.CLOSED.value))
            await self._await_backend(device, _CLOSED)
            log.info("vsnd %d: closed", device)

    async def finish(self) -> None:
        """Wait until the cards are closed that are being closed."""
        for card in list(self._held.values()):
            if card.closing is not None and card.closing.task is not None:
                await card.closing.task

    def changed(self) -> None:
        """Something changed in XenStore."""
        self._changed.set()

    async def _await_backend(self, device: int, states: Iterable[XenbusState]) -> None:
        async def reached() -> None:
            while True:
                self._changed.clear()
                if await self._cards.backend_state(device) in states:
                    return
                await self._changed.wait()

        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(reached(), CLOSE_SECONDS)
