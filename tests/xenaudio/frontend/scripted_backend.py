# SPDX-License-Identifier: LGPL-2.1-or-later
"""A backend that does what a test tells it, right or wrong, straight on the shared pages."""

from __future__ import annotations

import asyncio
import random
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from xenaudio.core.format import by_name
from xenaudio.core.frontend import Card, Stream
from xenaudio.core.hv import EventChannel, Hypervisor, Map
from xenaudio.core.store import Store
from xenaudio.localhv import Domain, LocalHypervisor

T = TypeVar("T")

OPEN, CLOSE, READ, WRITE = 0, 1, 2, 3
TRIGGER, QUERY = 8, 9
START, PAUSE, STOP, RESUME = range(4)

S16 = by_name("s16_le")
FRAME = 4  # octets of a stereo one

VSND = """[['CARD, short-name=Main, long-name=Hall 1, sample-rates=48000;8000, buffer-size=65536',
            'PCM, name=Hall, sample-formats=s16_le',
            'STREAM, unique-id=play, type=p, channels-max=2',
            'STREAM, unique-id=mic, type=c, channels-max=1, sample-rates=8000',
            'PCM, channels-max=6, sample-formats=s32_le;f32_le, buffer-size=131072',
            'STREAM, unique-id=big, type=p']]"""


class Machine:
    """The stand-in, on a thread of its own: its clients block for it now and then."""

    def __enter__(self) -> Machine:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)))
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self, ready: threading.Event) -> None:
        async with LocalHypervisor() as self.hv:
            self._loop = asyncio.get_running_loop()
            self._stop = asyncio.Event()
            ready.set()
            await self._stop.wait()

    async def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something of the stand-in's on its thread."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return await asyncio.wait_for(asyncio.wrap_future(future), 20)

    async def call(self, function: Callable[[], T]) -> T:
        async def called() -> T:
            return function()

        return await self.do(called())


async def until(condition: Callable[[], T] | Callable[[], Awaitable[T]], what: str) -> T:
    """Wait until a condition holds; a hang is a failure that says what did not happen."""
    for _ in range(4000):
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value  # type: ignore[return-value]
        await asyncio.sleep(0.002)
    raise AssertionError(f"never: {what}")


class BackStream:
    """The backend's end of one stream."""

    def __init__(self, hv: Hypervisor, domid: int, nodes: dict[str, int]) -> None:
        self._hv, self._domid = hv, domid
        self.ring = hv.map(domid, [nodes["ring-ref"]])
        self.page = hv.map(domid, [nodes["evt-ring-ref"]])
        self.channel: EventChannel = hv.event_channel()
        self.ring_port = self.channel.bind_interdomain(domid, nodes["event-channel"])
        self.evt_port = self.channel.bind_interdomain(domid, nodes["evt-event-channel"])
        self.req_cons = self.rsp_prod = self.evt_prod = self.evt_id = 0
        self.buffer: Map | None = None
        self.seen: list[tuple[int, bytes]] = []
        self.opened: dict[str, int] = {}

    def close(self) -> None:
        for thing in (self.ring, self.page, self.channel, self.buffer):
            if thing is not None:
                thing.close()

    def word(self, page: Map, offset: int, value: int | None = None) -> int:
        if value is not None:
            struct.pack_into("=I", page.memory, offset, value & 0xFFFFFFFF)
        return int(struct.unpack_from("=I", page.memory, offset)[0])

    def take(self) -> tuple[int, int, bytes] | None:
        """The next request: id, operation, and the 56 octets of its parameters."""
        if self.word(self.ring, 0) == self.req_cons:
            return None
        at = 64 + self.req_cons % 32 * 64
        self.req_cons += 1
        self.word(self.ring, 4, self.req_cons + 1)
        entry = bytes(self.ring.memory[at : at + 64])
        ident, operation = struct.unpack_from("=HB", entry)
        self.seen.append((operation, entry[8:]))
        return ident, operation, entry[8:]

    async def next(self, operation: int) -> tuple[int, bytes]:
        """Wait for the next request, which must be this operation."""
        ident, found, body = await until(self.take, f"a request {operation}")
        assert found == operation
        return ident, body

    def respond(self, ident: int, operation: int, status: int = 0, body: bytes = b"") -> None:
        at = 64 + self.rsp_prod % 32 * 64
        entry = struct.pack("=HBxi56s", ident, operation, status, body)
        self.ring.memory[at : at + 64] = entry
        self.rsp_prod += 1
        self.word(self.ring, 8, self.rsp_prod)
        self.channel.notify(self.ring_port)

    def event(self, position: int, ident: int | None = None) -> None:
        at = 64 + self.evt_prod % 63 * 64
        entry = struct.pack("=HB5xQ48x", self.evt_id if ident is None else ident, 0, position)
        self.page.memory[at : at + 64] = entry
        self.evt_prod += 1
        self.evt_id += 1
        self.word(self.page, 4, self.evt_prod)
        self.channel.notify(self.evt_port)

    async def accept_open(self, status: int = 0) -> None:
        """Answer OPEN and map the buffer."""
        ident, body = await self.next(OPEN)
        self.take_open(ident, body, status)

    def take_open(self, ident: int, body: bytes, status: int = 0) -> None:
        """Answer this OPEN and map the buffer."""
        rate, format, channels, size, directory, period = struct.unpack_from("=IBBxxIII", body)
        self.opened = {
            "rate": rate,
            "format": format,
            "channels": channels,
            "buffer": size,
            "period": period,
        }
        pages = -(-size // 4096)
        grefs: list[int] = []
        while len(grefs) < pages:
            with self._hv.map(self._domid, [directory]) as page:
                words = struct.unpack("=1024I", bytes(page.memory))
            directory = words[0]
            grefs += words[1:]
        if self.buffer is not None:
            self.buffer.close()
        self.buffer = self._hv.map(self._domid, grefs[:pages])
        self.respond(ident, OPEN, status)

    async def answer(self, operation: int, status: int = 0) -> bytes:
        """Wait for a request and answer it."""
        ident, body = await self.next(operation)
        self.respond(ident, operation, status)
        return body

    async def take_write(self, status: int = 0) -> bytes:
        """Answer a WRITE; returns the samples."""
        body = await self.answer(WRITE, status)
        offset, length = struct.unpack_from("=II", body)
        assert self.buffer is not None
        assert offset + length <= self.opened["buffer"]
        return bytes(self.buffer.memory[offset : offset + length])

    async def obey(self) -> None:
        """Answer whatever comes until CLOSE; what is written is heard at once."""
        heard = 0
        while True:
            ident, operation, body = await until(self.take, "a request")
            if operation == OPEN:
                self.take_open(ident, body)
                continue
            self.respond(ident, operation, 0, body if operation == QUERY else b"")
            if operation == WRITE:
                heard += struct.unpack_from("=II", body)[1]
                self.event(heard)
            elif operation == CLOSE:
                return


class ScriptedBackend:
    """The backend of a guest's card 0."""

    def __init__(self, machine: Machine, guest: Domain) -> None:
        self.machine, self.guest = machine, guest
        self.hv = Hypervisor(str(machine.hv.dom0.socket))
        self.streams: dict[str, BackStream] = {}

    async def __aenter__(self) -> ScriptedBackend:
        self.store = await Store.open(self.hv)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.forget()
        self.store.close()
        self.hv.close()

    def forget(self) -> None:
        """Let go of everything, as a process that dies."""
        for stream in self.streams.values():
            stream.close()
        self.streams = {}

    @property
    def front(self) -> str:
        return f"/local/domain/{self.guest.domid}/device/vsnd/0"

    @property
    def back(self) -> str:
        return f"/local/domain/0/backend/vsnd/{self.guest.domid}/0"

    async def state(self, state: int) -> None:
        await self.store.write(f"{self.back}/state", str(state))

    async def front_state(self) -> int:
        return int(await self.store.read(f"{self.front}/state"))

    async def front_reaches(self, *states: int) -> int:
        async def reached() -> int:
            now = await self.front_state()
            return now if now in states else 0

        return await until(reached, f"frontend in state {states}")

    async def nodes(self, stream: str) -> dict[str, int]:
        names = ("ring-ref", "event-channel", "evt-ring-ref", "evt-event-channel")
        return {name: int(await self.store.read(f"{self.front}/{stream}/{name}")) for name in names}

    async def connect(self, *streams: str) -> None:
        """Go through the states with the frontend, serving these streams ("0/0")."""
        await self.state(2)
        await self.front_reaches(3)
        self.forget()
        for stream in streams:
            nodes = await self.nodes(stream)
            self.streams[stream] = BackStream(self.hv, self.guest.domid, nodes)
        await self.state(4)
        await self.front_reaches(4)


class Setting:
    """What a test has: a machine with a guest, its card (not entered), its scripted backend."""

    def __init__(self, machine: Machine, back: ScriptedBackend, hv: Hypervisor, card: Card) -> None:
        self.machine, self.back, self.hv, self.card = machine, back, hv, card

    async def connected(self, path: str) -> tuple[Stream, BackStream]:
        """Connect the card; the two ends of one stream ("0/0")."""
        await self.card.__aenter__()
        await self.back.connect(path)
        await self.card.connected(10)
        pcm, index = map(int, path.split("/"))
        (stream,) = [x for x in self.card.streams if (x.pcm, x.index) == (pcm, index)]
        return stream, self.back.streams[path]

    async def opened(self, *, period: int = 100, buffer: int = 400) -> tuple[Stream, BackStream]:
        """Open the playback stream: 48000 Hz, s16_le, stereo."""
        stream, back = await self.connected("0/0")
        opening = asyncio.create_task(
            stream.open(48000, S16, 2, period_frames=period, buffer_frames=buffer)
        )
        await back.accept_open()
        await opening
        return stream, back


def samples(octets: int) -> bytes:
    """Sound of which no part is like another."""
    return random.Random(octets).randbytes(octets)
