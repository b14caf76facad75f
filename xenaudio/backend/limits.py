# SPDX-License-Identifier: LGPL-2.1-or-later
"""What one guest may have at most, and what it has: all of its cards share it.

Besides these there are limits that nobody sets: of a card (cardconfig.py), and of the engine's time
and memory (csrc/backend/allowance.h).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from xenaudio.backend.pace import Pace

# So many handshakes at once, before their limit for each second counts; and how often a guest's
# devices are looked at: so many times at once, then so often a second.
HANDSHAKE_BURST = 20
LOOK_BURST = 100
LOOKS_PER_SECOND = 50.0


@dataclass(frozen=True)
class Limits:
    """What a guest may have."""

    cards: int = 16
    """Connected at a time."""
    streams: int = 128
    """Of all its connected cards."""
    buffer_octets: int = 4 << 20
    """Of each stream's buffer; dom0 takes as much again, and four seconds of sound."""
    handshakes_per_second: float = 4.0
    """Of all its cards, each time that one connects; the rest wait."""


class LimitError(ValueError):
    """A guest would have more than it may."""


@dataclass
class GuestShare:
    """What all devices of one guest share."""

    handshakes: Pace = field(
        default_factory=lambda: Pace(Limits.handshakes_per_second, HANDSHAKE_BURST)
    )
    looks: Pace = field(default_factory=lambda: Pace(LOOKS_PER_SECOND, LOOK_BURST))
    _streams: dict[str, int] = field(default_factory=dict)  # of each connected card

    def take(self, card: str, streams: int, limits: Limits | None) -> None:
        """Count a card that is about to be connected. LimitError; None: there is no limit."""
        others = sum(self._streams.values()) - self._streams.get(card, 0)
        if limits is not None:
            if len(self._streams.keys() - {card}) >= limits.cards:
                raise LimitError(
                    f"the guest has {limits.cards} cards connected, as many as it may:"
                    " raise `cards` in [[limits]] of xenaudio.toml if it is to have more"
                )
            if others + streams > limits.streams:
                raise LimitError(
                    f"the guest would have {others + streams} streams, and may have"
                    f" {limits.streams}: raise `streams` in [[limits]] of xenaudio.toml if it is"
                    " to have more"
                )
        self._streams[card] = streams

    def give_back(self, card: str) -> None:
        """Count a card no more."""
        self._streams.pop(card, None)
