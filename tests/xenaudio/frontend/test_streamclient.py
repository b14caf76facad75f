# SPDX-License-Identifier: LGPL-2.1-or-later
"""What play and record have in common when the connection is lost, and what play keeps of it."""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from scripted_backend import FRAME, OPEN, S16, Setting, samples, until

from xenaudio.cli import play
from xenaudio.cli.streamclient import Progress, StreamClient, leave_event_channels
from xenaudio.core.errors import make_error
from xenaudio.core.format import Format
from xenaudio.core.frontend import Card, Stream


class Client(StreamClient):
    """Opens its stream; the first time it then loses it as it is told to."""

    name = "try"

    def __init__(self, lose: str) -> None:
        super().__init__(argparse.Namespace(wait=None), Progress(quiet=True))
        self._lose = lose
        self.collected = 0

    async def _serve(self, card: Card) -> None:
        stream = card.find_stream(capture=False)
        assert stream is not None
        await stream.open(48000, S16, 2, period_frames=100, buffer_frames=400)
        self.stream = stream
        if self.reconnects == 0 and self._lose == "it stands still":
            raise make_error(errno.ETIMEDOUT, "write to the stream")

    def _collect(self) -> None:
        self.collected += 1


@pytest.mark.parametrize("lose", ["it stands still", "OPEN is not answered"])
def test_a_stream_that_gets_no_further_is_negotiated_anew(
    scene: Callable[..., None], lose: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def test(s: Setting) -> None:
        await s.card.__aenter__()
        client = Client(lose)
        serving = asyncio.create_task(client.run(s.card))
        await s.back.connect("0/0")
        if lose == "it stands still":
            await s.back.streams["0/0"].accept_open()
        else:
            await s.back.streams["0/0"].next(OPEN)
        await s.back.front_reaches(5)
        await s.back.state(6)
        await s.back.front_reaches(1)
        await s.back.connect("0/0")
        await s.back.streams["0/0"].accept_open()
        await serving
        assert (client.reconnects, client.collected) == (1, 1)

    scene(test)
    assert "xenaudio try: " in capsys.readouterr().err


class Tone:
    """A source of so many frames."""

    name = "a tone"
    rate, channels = 48000, 2

    def __init__(self, frames: int) -> None:
        self.frames: int | None = frames
        self._left = frames

    def choose_format(self, stream: Stream) -> Format:
        return S16

    async def read(self, frames: int) -> bytes:
        frames = min(frames, self._left)
        self._left -= frames
        return samples(frames * FRAME)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("stats", [None, "some file"])
def test_the_trace_is_kept_for_stats_only_and_has_a_bound(
    scene: Callable[..., None], monkeypatch: pytest.MonkeyPatch, stats: str | None
) -> None:
    monkeypatch.setattr(play, "TRACE_MOST", 10)

    async def test(s: Setting) -> None:
        stream, back = await s.connected("0/0")
        args = argparse.Namespace(
            wait=None, pcm=None, stream=None, period_ms=2, buffer_ms=8, stats=stats
        )
        player = play.Player(Tone(96 * 50), args, Progress(quiet=True))
        obeying = asyncio.create_task(back.obey())
        await player.run(s.card)
        await obeying
        told = player.statistics(stream)
        assert told["frames_heard"] == 96 * 50
        if stats is None:
            assert stream.trace is None
            assert told["trace"] == []
            return
        trace = told["trace"]
        assert isinstance(trace, list)
        assert len(trace) == 10
        assert trace[-1][1:] == (96 * 50, 96 * 50)  # the newest

    scene(test)


def test_descriptors_better_not_closed_are_left_to_a_process_that_sleeps() -> None:
    device = "/dev/full"  # for /dev/xen/evtchn, of which a guest that was saved has lost its ports
    assert leave_event_channels(device) is None
    with open(device, "rb") as held:
        keeper = leave_event_channels(device)
        number = held.fileno()
    assert keeper is not None
    folder = Path(f"/proc/{keeper}")
    try:

        def sleeps() -> bool:
            return (folder / "cmdline").read_bytes().startswith(b"@xenaudio")

        asyncio.run(until(sleeps, "it sleeps"))
        links = {int(fd.name): str(fd.readlink()) for fd in (folder / "fd").iterdir()}
        assert links == {0: "/dev/null", 1: "/dev/null", 2: "/dev/null", number: device}
    finally:
        os.kill(keeper, signal.SIGKILL)
        os.waitpid(keeper, 0)
