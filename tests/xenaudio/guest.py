# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest within the test's own event loop: opens a domain's card, plays and records."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from machine import HANG, Domain
from pcm import COUNTER_CHANNELS, COUNTER_FORMAT

from xenaudio.core.format import Format
from xenaudio.core.frontend import Card, CardState, Stream

_on_time = 0


@contextmanager
def on_time() -> Iterator[bool]:
    """Run this thread at real-time priority if that is allowed; say whether it is.

    What is tested is not how soon a busy machine runs a guest.
    """
    global _on_time
    policy, priority = os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_get_priority_min(os.SCHED_RR)
    allowed = True
    try:
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    except PermissionError:
        allowed = False
    _on_time += 1
    try:
        yield allowed
    finally:
        # Guests of one loop come and go in any order.
        _on_time -= 1
        if allowed and not _on_time:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@asynccontextmanager
async def open_card(domain: Domain, device: int = 0) -> AsyncIterator[Card]:
    """Connect a domain's card; it is closed in order afterwards."""
    with on_time(), domain.hypervisor() as hv:
        async with Card.open(hv, device) as card:
            await card.connected(HANG)
            yield card


def stream_of(card: Card, capture: bool = False, pcm: int | None = None) -> Stream:
    """Return a stream that is known to exist."""
    stream = card.find_stream(capture=capture, pcm=pcm)
    assert stream is not None
    return stream


async def open_stream(
    stream: Stream,
    format: Format = COUNTER_FORMAT,
    channels: int = COUNTER_CHANNELS,
    *,
    rate: int = 48000,
    period_ms: float = 20,
    buffer_ms: float = 400,
) -> None:
    """Open a stream, with a buffer that outlasts a busy machine."""
    period = round(rate * period_ms / 1000)
    periods = max(2, round(buffer_ms / period_ms))
    await stream.open(rate, format, channels, period_frames=period, buffer_frames=periods * period)


async def play(stream: Stream, samples: bytes) -> None:
    """Play to the end on an open stream, and close it."""
    await stream.write(samples)
    await stream.drain()
    await stream.close()


async def record(stream: Stream, frames: int) -> bytes:
    """Read so many frames of an open stream."""
    parts: list[bytes] = []
    left = frames
    while left:
        part = await stream.read(left)
        parts.append(part)
        left -= len(part) // stream.frame_octets
    return b"".join(parts)


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds; fail when it does not before long."""

    async def wait() -> None:
        while not condition():  # noqa: ASYNC110 - it may look at another process
            await asyncio.sleep(0.005)

    await within(wait(), what)


async def within(awaitable: Awaitable[None], what: str) -> None:
    """Await something that must not hang."""
    try:
        await asyncio.wait_for(awaitable, HANG)
    except asyncio.TimeoutError:
        raise AssertionError(f"{what}: not within {HANG} s") from None


async def until_state(card: Card, state: CardState) -> None:
    """Wait until a card is in a state."""
    await until(lambda: card.state is state, f"the card is {state.name} (now {card.reason!r})")
