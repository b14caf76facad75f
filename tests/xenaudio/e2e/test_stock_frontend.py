# SPDX-License-Identifier: LGPL-2.1-or-later
"""A frontend that, as Linux's, must not lose its card while it is in use: the backend comes and
goes, or the card is detached, and its players are told by errors."""

from __future__ import annotations

import asyncio
import errno
import signal

import pytest
from machine import Backend, Machine

from tests.xenaudio.hostile.rawfrontend import CLOSE, CONNECTED, WRITE, RawFrontend, rw_payload


async def refused_write(front: RawFrontend) -> None:
    await front.playback.refused(WRITE, rw_payload(0, 3840), errno.EIO)


@pytest.mark.asyncio
@pytest.mark.parametrize("ends", [signal.SIGKILL, signal.SIGTERM])
async def test_another_backend_goes_on_with_the_same_rings(
    machine: Machine, backend: Backend, ends: signal.Signals
) -> None:
    domain = await asyncio.to_thread(machine.create, "guest")
    front = await RawFrontend.open(domain.socket)
    try:
        await front.connect()
        await front.playback.start(await front.playback.open())
        await front.playback.moves()
        for _ in range(3):
            await asyncio.to_thread(backend.stop if ends == signal.SIGTERM else backend.kill)
            assert await front.backend_state() == CONNECTED
            backend = await asyncio.to_thread(backend.restarted)
            await refused_write(front)
            await front.playback.succeed(CLOSE)
            # Plays again; that event ids are in step is looked at with each event.
            for stream in front.streams:
                await stream.works()
            await front.playback.start(await front.playback.open())
            await front.playback.moves()
            assert await front.backend_state() == CONNECTED
    finally:
        front.close()


@pytest.mark.asyncio
async def test_players_end_while_a_card_is_detached(machine: Machine, backend: Backend) -> None:
    domain = await asyncio.to_thread(machine.create, "guest")
    front = await RawFrontend.open(domain.socket)
    try:
        await front.connect()
        await front.playback.start(await front.playback.open())
        await front.playback.moves()
        detaching = asyncio.create_task(asyncio.to_thread(machine.detach, "guest", 0))
        await front.backend_reaches(5)
        await front.playback.moves()  # who waits for room is woken
        await refused_write(front)
        await front.playback.succeed(CLOSE)
        await detaching
    finally:
        front.close()
