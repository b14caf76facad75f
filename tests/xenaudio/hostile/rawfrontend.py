# SPDX-License-Identifier: LGPL-2.1-or-later
"""A vsnd frontend that controls every octet it shows to the backend.

It can speak the honest protocol and deviate at any point: its methods do what an honest frontend
does unless they are told otherwise, and all that they use (nodes, pages, indices, ports) is public.
Nothing is checked on its way out. It waits for what happens in shared pages by looking again, each
time a little later, so that it also gets an answer from a backend that it gave no event channel.

It needs `xenaudio.core` only: it runs in a guest of the stand-in and in one of Xen.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from xenaudio.core.errors import NotFoundError, XenAudioError
from xenaudio.core.hv import PAGE, EventChannel, Hypervisor, Share
from xenaudio.core.store import Store

# xen/io/sndif.h
OPEN, CLOSE, READ, WRITE = 0, 1, 2, 3
SET_VOLUME, GET_VOLUME, MUTE, UNMUTE = 4, 5, 6, 7
TRIGGER, HW_PARAM_QUERY = 8, 9
START, PAUSE, STOP, RESUME = range(4)
S16_LE = 2
EVENTS_MOST = 63
RING_MOST = 32
GREFS_MOST = 1023  # of a directory page

# xen/errno.h
ENOENT, EIO, EAGAIN, ENOMEM, EACCES, EBUSY = 2, 5, 11, 12, 13, 16
EINVAL, ENOSPC, EPROTO, EOPNOTSUPP, ETIMEDOUT = 22, 28, 71, 95, 110

# Offsets in the ring's and in the event page.
REQ_PROD, REQ_EVENT, RSP_PROD, RSP_EVENT = 0, 4, 8, 12
IN_CONS, IN_PROD = 0, 4
ENTRIES = 64

INITIALISING, INIT_WAIT, INITIALISED, CONNECTED, CLOSING, CLOSED = 1, 2, 3, 4, 5, 6

MARK = 0xA5
"""Every octet of a buffer that this frontend made, before anybody else writes to it."""


def load(page: memoryview, offset: int) -> int:
    """Read an aligned word at once (which "=I" of struct does not: it takes octet by octet)."""
    value: int = page.cast("I")[offset // 4]
    return value


def store(page: memoryview, offset: int, value: int) -> None:
    """Write an aligned word at once."""
    page.cast("I")[offset // 4] = value & 0xFFFFFFFF


class WrongAnswer(AssertionError):
    """The backend did not do what it must."""


def require(true: object, what: str) -> None:
    """Raise WrongAnswer unless `true`."""
    if not true:
        raise WrongAnswer(what)


async def until(true: Callable[[], object], what: str, limit: float = 5.0) -> None:
    """Wait until `true()`; WrongAnswer after `limit` seconds."""
    end = time.monotonic() + limit
    pause = 0.001
    while not true():
        require(time.monotonic() < end, f"not within {limit} s: {what}")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.01)


@dataclass(frozen=True)
class Response:
    """One response, as it lay in the ring."""

    id: int
    operation: int
    status: int
    raw: bytes

    @property
    def ranges(self) -> tuple[int, ...]:
        """What HW_PARAM_QUERY answers: formats, then min and max of rate, channels, buffer and
        period."""
        return struct.unpack_from("=Q8I", self.raw, 8)

    def is_refusal(self, payload: bytes, statuses: Sequence[int]) -> None:
        """Have it be an error, one of these if any are named; `payload` is what was asked."""
        expected = ", ".join(map(str, statuses)) or "any error"
        require(
            self.status < 0 and (not statuses or -self.status in statuses),
            f"operation {self.operation}, {payload.hex()}: status {self.status},"
            f" expected -({expected})",
        )


def open_payload(
    *,
    rate: int = 48000,
    pcm_format: int = S16_LE,
    channels: int = 2,
    buffer_sz: int = 0,
    gref_directory: int = 0,
    period_sz: int = 0,
    reserved: int = 0,
) -> bytes:
    """struct xensnd_open_req."""
    return struct.pack(
        "=IBBHIII", rate, pcm_format, channels, reserved, buffer_sz, gref_directory, period_sz
    )


def rw_payload(offset: int, length: int) -> bytes:
    """struct xensnd_rw_req."""
    return struct.pack("=II", offset, length)


class Pcm:
    """The shared buffer of one OPEN: its pages and the directory that lists them."""

    def __init__(self, hv: Hypervisor, remote: int, octets: int, *, mark: bool = True) -> None:
        self.octets = octets
        pages = max(1, -(-octets // PAGE))
        self.buffer = hv.share(remote, pages)
        self.directory = hv.share(remote, -(-pages // GREFS_MOST))
        self.build(self.buffer.grefs)
        if mark:
            self.memory[:] = bytes([MARK]) * len(self.memory)

    @property
    def memory(self) -> memoryview:
        """The buffer's pages."""
        return self.buffer.memory

    @property
    def gref(self) -> int:
        """Reference of the directory's first page."""
        return self.directory.grefs[0]

    def build(self, grefs: list[int]) -> None:
        """Write the directory."""
        chain = [*self.directory.grefs[1:], 0]
        for i, after in enumerate(chain):
            some = grefs[i * GREFS_MOST : (i + 1) * GREFS_MOST]
            struct.pack_into(f"={1 + len(some)}I", self.directory.memory, i * PAGE, after, *some)

    def close(self) -> None:
        """End the grants."""
        self.buffer.close()
        self.directory.close()


class RawStream:
    """One stream: its pages, ports and counters. `path` is its directory in the store."""

    def __init__(self, front: RawFrontend, path: str, kind: str) -> None:
        self.front = front
        self.path = path
        self.capture = kind == "c"
        self.ring_share: Share | None = None
        self.event_share: Share | None = None
        self.channels: EventChannel | None = None
        self.port = self.event_port = 0
        self.req_prod = self.rsp_cons = self.next_id = 0
        self.in_cons = self.next_event = 0
        self.positions: list[int] = []
        self.pcms: list[Pcm] = []

    # What it shares.

    @property
    def ring(self) -> memoryview:
        """The ring's page."""
        assert self.ring_share is not None
        return self.ring_share.memory

    @property
    def events(self) -> memoryview:
        """The event page."""
        assert self.event_share is not None
        return self.event_share.memory

    def make(self) -> None:
        """Share fresh pages and make unbound ports, and begin all counters anew."""
        self.free()
        hv, remote = self.front.hv, self.front.backend_id
        self.ring_share = hv.share(remote, 1)
        self.event_share = hv.share(remote, 1)
        self.channels = hv.event_channel()
        self.port = self.channels.alloc_unbound(remote)
        self.event_port = self.channels.alloc_unbound(remote)
        self.req_prod = self.rsp_cons = self.next_id = 0
        self.in_cons = self.next_event = 0
        self.positions = []
        self.set_word(REQ_EVENT, 1)
        self.set_word(RSP_EVENT, 1)

    def nodes(self) -> dict[str, str]:
        """What an honest frontend publishes."""
        assert self.ring_share is not None
        assert self.event_share is not None
        return {
            "ring-ref": str(self.ring_share.grefs[0]),
            "event-channel": str(self.port),
            "evt-ring-ref": str(self.event_share.grefs[0]),
            "evt-event-channel": str(self.event_port),
        }

    def free(self) -> None:
        """End the grants and close the ports."""
        for pcm in self.pcms:
            pcm.close()
        self.pcms.clear()
        for thing in (self.channels, self.ring_share, self.event_share):
            if thing is not None:
                thing.close()
        self.channels = self.ring_share = self.event_share = None

    def word(self, offset: int) -> int:
        """One word of the ring's page."""
        return load(self.ring, offset)

    def set_word(self, offset: int, value: int) -> None:
        """Write one word of the ring's page."""
        store(self.ring, offset, value)

    # Requests.

    def put(
        self,
        operation: int,
        payload: bytes = b"",
        *,
        request_id: int | None = None,
        reserved: bytes = b"\0" * 5,
    ) -> int:
        """Write one request behind the last one, not visible before `push`; return its id."""
        if request_id is None:
            request_id = self.next_id = (self.next_id + 1) & 0xFFFF
        at = ENTRIES + self.req_prod % RING_MOST * 64
        entry = struct.pack("=HB5s", request_id, operation, reserved) + payload
        self.ring[at : at + 64] = entry.ljust(64, b"\0")
        self.req_prod += 1
        return request_id

    def push(self, req_prod: int | None = None) -> None:
        """Store req_prod and send the event."""
        self.set_word(REQ_PROD, self.req_prod if req_prod is None else req_prod)
        self.notify()

    def notify(self) -> None:
        """Send the event of requests."""
        assert self.channels is not None
        self.channels.notify(self.port)

    async def response(self, limit: float = 5.0) -> Response:
        """Take the next response."""
        await until(
            lambda: (self.word(RSP_PROD) - self.rsp_cons) & 0xFFFFFFFF,
            f"{self.path}: a response ({self.rsp_cons} were taken)",
            limit,
        )
        at = ENTRIES + self.rsp_cons % RING_MOST * 64
        raw = bytes(self.ring[at : at + 64])
        self.rsp_cons += 1
        request_id, operation, status = struct.unpack_from("=HBxi", raw)
        answer = Response(request_id, operation, status, raw)
        used = 48 if operation == HW_PARAM_QUERY else 8
        require(not any(raw[used:]), f"reserved octets of {answer} are not 0")
        require(status <= 0, f"the status of {answer} is positive")
        return answer

    async def request(
        self, operation: int, payload: bytes = b"", *, reserved: bytes = b"\0" * 5
    ) -> Response:
        """Make one request and wait for its answer."""
        request_id = self.put(operation, payload, reserved=reserved)
        self.push()
        answer = await self.response()
        require(
            (answer.id, answer.operation) == (request_id, operation),
            f"{answer} is no answer to request {request_id}, operation {operation}",
        )
        return answer

    async def requests(self, requests: Sequence[tuple[int, bytes]]) -> list[Response]:
        """Make requests, as many at once as the ring holds, and wait for their answers in order."""
        answers = []
        for at in range(0, len(requests), RING_MOST):
            put = [(self.put(*request), request[0]) for request in requests[at : at + RING_MOST]]
            self.push()
            for request_id, operation in put:
                answer = await self.response()
                require(
                    (answer.id, answer.operation) == (request_id, operation),
                    f"{answer} is no answer to request {request_id}, operation {operation}",
                )
                answers.append(answer)
        return answers

    async def succeed(self, operation: int, payload: bytes = b"") -> None:
        """Make a request that must succeed."""
        answer = await self.request(operation, payload)
        require(answer.status == 0, f"operation {operation}: status {answer.status}, expected 0")

    async def refused(
        self, operation: int, payload: bytes, *statuses: int, reserved: bytes = b"\0" * 5
    ) -> None:
        """Make a request that must be refused, with one of these errors if any are named."""
        answer = await self.request(operation, payload, reserved=reserved)
        answer.is_refusal(payload, statuses)

    async def all_refused(self, requests: Iterable[tuple[int, bytes]], *statuses: int) -> None:
        """Make requests each of which must be refused, as many at once as the ring holds."""
        made = list(requests)
        for answer, (_, payload) in zip(await self.requests(made), made, strict=True):
            answer.is_refusal(payload, statuses)

    # The honest course.

    def pcm(self, octets: int) -> Pcm:
        """Share a buffer, which `free` ends."""
        pcm = Pcm(self.front.hv, self.front.backend_id, octets)
        self.pcms.append(pcm)
        return pcm

    async def open(self, octets: int = 38400, period: int = 3840, channels: int = 2) -> Pcm:
        """OPEN, 48 kHz s16_le, with a new buffer."""
        pcm = self.pcm(octets)
        await self.succeed(
            OPEN,
            open_payload(
                channels=channels, buffer_sz=octets, gref_directory=pcm.gref, period_sz=period
            ),
        )
        return pcm

    async def rw(self, offset: int, length: int) -> int:
        """READ or WRITE, whichever is right; return the status."""
        operation = READ if self.capture else WRITE
        return (await self.request(operation, rw_payload(offset, length))).status

    async def trigger(self, kind: int) -> None:
        """TRIGGER, which must succeed."""
        await self.succeed(TRIGGER, bytes([kind]))

    async def start(self, pcm: Pcm) -> None:
        """Fill the buffer, if it is to be played, and START."""
        if not self.capture:
            require(await self.rw(0, pcm.octets) == 0, "an honest WRITE was refused")
        await self.trigger(START)

    def take_events(self) -> list[int]:
        """Consume what is in the event page; return its positions."""
        in_prod = load(self.events, IN_PROD)
        new = []
        while self.in_cons != in_prod:
            at = ENTRIES + self.in_cons % EVENTS_MOST * 64
            raw = bytes(self.events[at : at + 64])
            event_id, kind, position = struct.unpack_from("=HB5xQ", raw)
            require(event_id == self.next_event & 0xFFFF, f"event id {event_id} is out of step")
            require(kind == 0 and not any(raw[16:]), f"event {raw.hex()}")
            self.next_event += 1
            self.in_cons = (self.in_cons + 1) & 0xFFFFFFFF
            new.append(position)
        store(self.events, IN_CONS, self.in_cons)
        self.positions += new
        return new

    async def moves(self) -> None:
        """Wait for a position event of the stream, which is started."""
        self.take_events()
        await until(self.take_events, f"{self.path}: a position event")

    async def works(self) -> None:
        """Have an honest second with the stream, whatever was done before: the stream must have
        lived on."""
        await self.succeed(CLOSE)
        self.take_events()
        pcm = await self.open()
        await self.start(pcm)
        await self.moves()
        await self.succeed(CLOSE)
        self.take_events()


async def _at_once() -> None:
    pass


class NotingStore(Store):
    """A connection that notes which nodes it changes."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.changed: set[str] = set()
        """Paths that were written, or removed."""

    async def write(self, path: str, value: str, tx: int = 0) -> None:
        """Write, and take note."""
        self.changed.add(path)
        await super().write(path, value, tx)

    async def rm(self, path: str, tx: int = 0) -> None:
        """Remove, and take note."""
        self.changed.add(path)
        await super().rm(path, tx)


class RawFrontend:
    """A guest's vsnd device. `path` is the frontend's directory in the store."""

    def __init__(self, hv: Hypervisor, store: NotingStore, device: int = 0) -> None:
        self.hv = hv
        self.store = store
        self.path = f"device/vsnd/{device}"
        self.backend = ""
        self.backend_id = 0
        self.streams: list[RawStream] = []
        self.flood = 1.0
        """How much there is of a flood; 1: as much as a fast processor needs."""
        self.last_moment: Callable[[], Awaitable[None]] = _at_once
        """Waited for just before the guest does the last that it does before its death."""
        self.connected = False
        """Whether an honest handshake was done, and neither its state nor its rings are broken."""
        self._backend_changed = asyncio.Event()

    @classmethod
    async def open(cls, address: str | None, device: int = 0) -> RawFrontend:
        """Look at the device: no node is written."""
        hv = Hypervisor(address)
        front = cls(hv, NotingStore(hv.connect_store()), device)
        front.backend = await front.store.read(f"{front.path}/backend")
        front.backend_id = int(await front.store.read(f"{front.path}/backend-id"))
        await front.store.watch(f"{front.backend}/state", lambda _: front._backend_changed.set())
        for pcm in await front.store.directory(front.path):
            if pcm.isdigit():
                for stream in await front.store.directory(f"{front.path}/{pcm}"):
                    if stream.isdigit():
                        await front.add(f"{pcm}/{stream}")
        return front

    async def add(self, place: str, kind: str = "") -> RawStream:
        """Take a stream of the configuration, or make one when `kind` is given."""
        path = f"{self.path}/{place}"
        if kind:
            await self.store.write(f"{path}/type", kind)
        stream = RawStream(self, path, kind or await self.store.read(f"{path}/type"))
        self.streams.append(stream)
        return stream

    @property
    def playback(self) -> RawStream:
        """The first playback stream."""
        return next(s for s in self.streams if not s.capture)

    @property
    def recording(self) -> RawStream:
        """The first capture stream."""
        return next(s for s in self.streams if s.capture)

    async def own_domid(self) -> int:
        """The domain's own id."""
        return int(await self.store.read("domid"))

    # States.

    async def set_state(self, state: int | str) -> None:
        """Write the frontend's state."""
        self.connected = False
        await self.store.write(f"{self.path}/state", str(state))

    async def backend_state(self) -> int:
        """The backend's state; 0 when the node is gone."""
        try:
            return int(await self.store.read(f"{self.backend}/state"))
        except NotFoundError:
            return 0

    async def backend_reaches(self, *states: int, limit: float = 5.0) -> int:
        """Wait for one of these states."""
        end = time.monotonic() + limit
        while True:
            self._backend_changed.clear()
            state = await self.backend_state()
            if state in states:
                return state
            left = end - time.monotonic()
            require(
                left > 0,
                f"the backend's state is {state} after {limit} s, expected one of {states}",
            )
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._backend_changed.wait(), left)

    async def publish(self, stream: RawStream, nodes: dict[str, str] | None = None) -> None:
        """Write a stream's nodes, its honest ones unless others are given."""
        published = stream.nodes() if nodes is None else nodes
        await asyncio.gather(
            *(self.store.write(f"{stream.path}/{key}", value) for key, value in published.items())
        )

    async def prepare(self) -> None:
        """Do all of the honest handshake that comes before state 3."""
        self.connected = False
        if await self.backend_state() != INIT_WAIT:
            await self.set_state(INITIALISING)
        await self.backend_reaches(INIT_WAIT)
        for stream in self.streams:
            stream.make()
        await asyncio.gather(*map(self.publish, self.streams))

    async def negotiate(self) -> None:
        """Do the honest handshake for all streams, wherever both ends are."""
        await self.prepare()
        await self.conclude()

    async def conclude(self) -> None:
        """Do all of the honest handshake that comes from state 3 on."""
        await self.set_state(INITIALISED)
        await self.backend_reaches(CONNECTED)
        await self.set_state(CONNECTED)
        self.connected = True

    async def connect(self) -> None:
        """Negotiate, unless that is done. What was changed in the store has no effect then."""
        if not self.connected:
            await self.negotiate()

    async def disconnect(self) -> None:
        """Close as an honest frontend does."""
        await self.set_state(CLOSING)
        await self.backend_reaches(CLOSING, CLOSED, INIT_WAIT)
        await self.set_state(CLOSED)
        await self.backend_reaches(CLOSED, INIT_WAIT)

    async def again(self) -> None:
        """Negotiate anew, honestly, from wherever both ends are, and use each stream: the backend
        must take the guest back."""
        await self.set_state(INITIALISING)
        await self.negotiate()
        await asyncio.gather(*(stream.works() for stream in self.streams))

    def forget(self) -> None:
        """Let go of the buffers and positions of before; what is connected stays so."""
        for stream in self.streams:
            for pcm in stream.pcms:
                with suppress(XenAudioError):
                    pcm.close()
            stream.pcms.clear()
            stream.positions.clear()

    async def is_closed(self, limit: float = 5.0) -> None:
        """Wait until the backend closed the device because of a fault of ours."""
        self.connected = False
        await self.backend_reaches(CLOSING, CLOSED, limit=limit)

    def close(self) -> None:
        """Let go of everything, without a word to the backend."""
        for stream in self.streams:
            with suppress(XenAudioError):
                stream.free()
        self.store.close()
        self.hv.close()
