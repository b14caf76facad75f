# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest's sound card on asyncio: the C frontend (csrc/frontend/) driven by the running loop.

    async with Card.open(hv) as card:
        await card.connected()
        stream = card.find_stream(capture=False)
        await stream.open(48000, by_name("s16_le"), 2, period_frames=480, buffer_frames=1920)
        await stream.write(samples)
        await stream.drain()

Every call of a stream raises a XenAudioError: `errno` ENOTCONN when the card is not connected or
lost its backend meanwhile (open the stream again after `connected()`), ETIMEDOUT when the backend
did not answer for 3 s, or what the backend answered. All on the thread of the event loop.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections import deque
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Any

from xenaudio.core.errors import XenAudioError, check, make_error
from xenaudio.core.ffi import ffi, lib
from xenaudio.core.format import Format, all_formats
from xenaudio.core.hv import Hypervisor

log = logging.getLogger(__name__)

STALL_S = 3.0
"""A started stream whose position stands still for so long while there is something to play or
capture is given up (ETIMEDOUT)."""

_NO_DEADLINE = 0xFFFF_FFFF_FFFF_FFFF
_POLLOUT = 4
_START, _PAUSE, _STOP, _RESUME = range(4)  # XENSND_OP_TRIGGER_*


class CardState(Enum):
    """`enum xa_card_state`."""

    STARTING = lib.XA_CARD_STARTING
    ABSENT = lib.XA_CARD_ABSENT
    WAITING = lib.XA_CARD_WAITING
    NEGOTIATING = lib.XA_CARD_NEGOTIATING
    CONNECTED = lib.XA_CARD_CONNECTED
    CLOSING = lib.XA_CARD_CLOSING
    FAILED = lib.XA_CARD_FAILED
    CLOSED = lib.XA_CARD_CLOSED


class StreamState(Enum):
    """`enum xa_stream_state`."""

    OFFLINE = lib.XA_STREAM_OFFLINE
    CLOSED = lib.XA_STREAM_CLOSED
    OPENING = lib.XA_STREAM_OPENING
    OPEN = lib.XA_STREAM_OPEN
    CLOSING = lib.XA_STREAM_CLOSING
    DEAD = lib.XA_STREAM_DEAD


@dataclass(frozen=True)
class Ranges:
    """What HW_PARAM_QUERY asks for and answers; buffer and period in frames, both ends included."""

    formats: int
    """Bit XENSND_PCM_FORMAT_* of each format."""
    rate: tuple[int, int]
    channels: tuple[int, int]
    buffer: tuple[int, int]
    period: tuple[int, int]


@dataclass(frozen=True)
class StreamStats:
    """Counters since the last OPEN (`struct xa_stream_stats`)."""

    events: int
    requests: int
    doorbells: int
    wakeups: int
    underruns: int
    """Playback: times that the position ran past what was written, not counting `drain`."""
    overruns: int
    overrun_octets: int


@ffi.def_extern()  # type: ignore[untyped-decorator, unused-ignore]
def xa_py_card(user: Any, state: int, reason: int, text: Any) -> None:
    """Take a change of a card's state from C."""
    card: Card = ffi.from_handle(user)
    card._told.append((CardState(int(state)), ffi.string(text).decode("utf-8", "replace")))


@ffi.def_extern()  # type: ignore[untyped-decorator, unused-ignore]
def xa_py_stream(user: Any, handle: Any, event: int, error: int) -> None:
    """Take what happened to a stream from C."""
    card: Card = ffi.from_handle(user)
    stream = card._by_handle.get(handle)
    if stream is not None:
        stream._take(int(event), error)


def _now_us() -> int:
    return time.monotonic_ns() // 1000


class Stream:
    """One PCM stream of a card. Sizes in frames unless a name says octets."""

    def __init__(self, card: Card, handle: Any) -> None:
        self._card = card
        self._raw: Any = handle
        self._answers: dict[int, deque[asyncio.Future[None]]] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._started = False
        self._failure: int = 0
        self._undrained_underruns: int | None = None
        self.frame_octets = 1
        self.rate = 0
        self.buffer_frames = 0
        self.period_frames = 0
        self.latency_max_frames = 0
        """The largest latency seen at a position event since OPEN."""
        self.trace: MutableSequence[tuple[int, int, int]] | None = None
        """Set it to a list, or to a deque with a bound, to collect at each position event and each
        write: CLOCK_MONOTONIC nanoseconds, frames written (or read), frames heard (or captured).
        """

    @property
    def _handle(self) -> Any:
        if self._raw is None:
            raise make_error(errno.ENOTCONN, "use a stream of a card that was closed")
        return self._raw

    # The configuration

    @property
    def _config(self) -> Any:
        return lib.xa_stream_config(self._handle)

    @property
    def pcm(self) -> int:
        """Index of the PCM device in the card."""
        return int(self._config.pcm)

    @property
    def index(self) -> int:
        """Index of the stream in the PCM device."""
        return int(self._config.index)

    @property
    def capture(self) -> bool:
        """Whether it records rather than plays."""
        return bool(self._config.capture)

    @property
    def unique_id(self) -> str:
        """`unique-id` of the store."""
        return str(ffi.string(self._config.unique_id).decode("utf-8", "replace"))

    @property
    def pcm_name(self) -> str:
        """The PCM device's name, or ""."""
        return str(ffi.string(self._config.pcm_name).decode("utf-8", "replace"))

    @property
    def channels(self) -> tuple[int, int]:
        """The fewest and the most channels allowed."""
        config = self._config.pcm_config
        return int(config.channels_min), int(config.channels_max)

    @property
    def rates(self) -> list[int]:
        """The rates allowed, Hz."""
        config = self._config.pcm_config
        return [int(config.rates[i]) for i in range(config.rate_count)]

    @property
    def formats(self) -> list[Format]:
        """The formats allowed."""
        mask = int(self._config.pcm_config.formats)
        return [format for format in all_formats() if mask >> format.code & 1]

    @property
    def buffer_octets_max(self) -> int:
        """The largest buffer allowed, octets."""
        return int(self._config.pcm_config.buffer_max)

    # What happens to it

    @property
    def state(self) -> StreamState:
        """Where the stream is in its life."""
        return StreamState(int(lib.xa_stream_state(self._handle)))

    def _take(self, event: int, error: int) -> None:
        if event == lib.XA_EVENT_POSITION:
            self._note_position()
        elif event == lib.XA_EVENT_FAILED:
            self._failure = error
            log.debug("stream %d/%d failed: errno %d", self.pcm, self.index, -error)
        if self._answers.get(event):
            answer = self._answers[event].popleft()
            if not answer.done():
                if error < 0:
                    answer.set_exception(make_error(error, _WHAT[event]))
                else:
                    answer.set_result(None)
        lost = event == lib.XA_EVENT_CLOSED and error == -errno.ENOTCONN
        if lost or (event == lib.XA_EVENT_FAILED and error == -errno.ETIMEDOUT):
            self._started = False
            self._failure = error
            self._fail_answers(error)
        self._wake()

    def _fail_answers(self, error: int) -> None:
        for event, answers in self._answers.items():
            while answers:
                answer = answers.popleft()
                if not answer.done():
                    answer.set_exception(make_error(error, _WHAT[event]))

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()

    def _note_position(self) -> None:
        time_us = ffi.new("uint64_t *")
        position = lib.xa_stream_position(self._handle, time_us) // self.frame_octets
        if time_us[0] == 0:
            return
        self.latency_max_frames = max(self.latency_max_frames, self.latency_frames)
        if self.trace is not None and (
            not self.trace or self.trace[-1][0] != int(time_us[0]) * 1000
        ):
            self.trace.append((int(time_us[0]) * 1000, self.transferred_frames, int(position)))

    def _note_transfer(self) -> None:
        if self.trace is not None:
            now = time.monotonic_ns()
            self.trace.append((now, self.transferred_frames, self.position_frames))

    async def _changed(self, limit_s: float | None = None) -> bool:
        """Wait until something happens to the stream; False: nothing did within the limit."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await asyncio.wait_for(waiter, limit_s)
        except asyncio.TimeoutError:
            return False
        return True

    async def _answer(self, event: int, result: int) -> None:
        what = _WHAT[event]
        check(result, what)
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answers.setdefault(event, deque()).append(answer)
        self._card._schedule()
        await answer

    def _raise_failure(self, what: str) -> None:
        if self._failure:
            raise make_error(self._failure, what)

    # What is asked of it

    async def query(self, ranges: Ranges) -> Ranges:
        """Narrow ranges to what the backend can do. EOPNOTSUPP: it speaks protocol 1 only."""
        wire = ffi.new("struct xa_stream_ranges *")
        wire.formats = ranges.formats
        wire.rate_min, wire.rate_max = ranges.rate
        wire.channels_min, wire.channels_max = ranges.channels
        wire.buffer_min, wire.buffer_max = ranges.buffer
        wire.period_min, wire.period_max = ranges.period
        await self._answer(lib.XA_EVENT_QUERIED, lib.xa_stream_query(self._handle, wire))
        check(lib.xa_stream_queried(self._handle, wire), _WHAT[lib.XA_EVENT_QUERIED])
        return Ranges(
            formats=int(wire.formats),
            rate=(int(wire.rate_min), int(wire.rate_max)),
            channels=(int(wire.channels_min), int(wire.channels_max)),
            buffer=(int(wire.buffer_min), int(wire.buffer_max)),
            period=(int(wire.period_min), int(wire.period_max)),
        )

    async def open(
        self, rate: int, format: Format, channels: int, *, period_frames: int, buffer_frames: int
    ) -> None:
        """Open the stream. EINVAL when the card's configuration does not allow it."""
        frame = format.frame_octets(channels)
        params = ffi.new("struct xa_stream_params *")
        params.rate = rate
        params.format = format.code
        params.channels = channels
        params.buffer_octets = buffer_frames * frame
        params.period_octets = period_frames * frame
        result = lib.xa_stream_open(self._handle, params)
        if result == 0:
            self.frame_octets, self.rate = frame, rate
            self.buffer_frames, self.period_frames = buffer_frames, period_frames
            self.latency_max_frames = 0
            self._started = False
            self._failure = 0
            self._undrained_underruns = None
        await self._answer(lib.XA_EVENT_OPENED, result)

    async def close(self) -> None:
        """Close the stream; what was not heard yet is dropped (`drain` first)."""
        if self.state not in (StreamState.OPEN, StreamState.OPENING):
            return
        self._started = False
        await self._answer(lib.XA_EVENT_CLOSED, lib.xa_stream_close(self._handle))

    async def _trigger(self, type: int) -> None:
        self._started = type in (_START, _RESUME)
        await self._answer(lib.XA_EVENT_TRIGGERED, lib.xa_stream_trigger(self._handle, type))

    async def start(self) -> None:
        """Start. (`write` does it by itself when the buffer is full, `drain` and `read` too.)"""
        await self._trigger(_START)

    async def stop(self) -> None:
        """Stop; what lies in the buffer is dropped by the backend."""
        await self._trigger(_STOP)

    async def pause(self) -> None:
        """Pause; what lies in the buffer is kept."""
        await self._trigger(_PAUSE)

    async def resume(self) -> None:
        """Go on after `pause`."""
        await self._trigger(_RESUME)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write whole frames, waiting for room as needed."""
        what = "write to the stream"
        if len(data) % self.frame_octets:
            raise make_error(errno.EINVAL, f"{what}: {len(data)} octets are not whole frames")
        view = memoryview(data).cast("B") if len(data) else memoryview(b"")
        self._undrained_underruns = None
        while view:
            self._raise_failure(what)
            if self.state is StreamState.OPEN and self.room_frames * self.frame_octets < min(
                len(view), self.period_frames * self.frame_octets
            ):
                # Not what little fits: a steady stream is to cost one request a period.
                await self._more_room(what)
                continue
            done = check(
                int(lib.xa_stream_write(self._handle, ffi.from_buffer(view), len(view))), what
            )
            view = view[done:]
            if done:
                self._note_transfer()
            else:
                await self._more_room(what)
        self._card._schedule()

    async def _more_room(self, what: str) -> None:
        if not self._started:
            await self.start()
            return
        self._card._schedule()
        if not await self._changed(STALL_S):
            raise make_error(errno.ETIMEDOUT, f"{what}: its position stands still")

    async def drain(self) -> None:
        """Wait until the last frame written was heard."""
        what = "drain the stream"
        if self._undrained_underruns is None:
            self._undrained_underruns = self.stats.underruns
        if not self._started and self.latency_frames > 0:
            await self.start()
        while self.latency_frames > 0:
            self._raise_failure(what)
            if self.state is not StreamState.OPEN:
                raise make_error(errno.ENOTCONN, what)
            if not await self._changed(STALL_S):
                raise make_error(errno.ETIMEDOUT, f"{what}: its position stands still")

    async def read(self, frames: int) -> bytes:
        """Return captured frames: one to `frames`, waiting for the first as needed."""
        what = "read from the stream"
        data = ffi.new("uint8_t[]", frames * self.frame_octets)
        while True:
            done = check(int(lib.xa_stream_read(self._handle, data, len(data))), what)
            if done:
                self._card._schedule()
                return bytes(ffi.buffer(data, done))
            self._raise_failure(what)
            if not self._started:
                await self.start()
                continue
            if not await self._changed(STALL_S):
                raise make_error(errno.ETIMEDOUT, f"{what}: nothing is captured")

    # How it goes

    @property
    def room_frames(self) -> int:
        """Frames that `write` takes without waiting."""
        return int(lib.xa_stream_room(self._handle)) // self.frame_octets

    @property
    def position_frames(self) -> int:
        """Frames heard, or captured, since OPEN, as last reported."""
        return int(lib.xa_stream_position(self._handle, ffi.NULL)) // self.frame_octets

    @property
    def heard_frames(self) -> int:
        """Frames of what was written since OPEN that need not be played again."""
        return int(lib.xa_stream_heard(self._handle)) // self.frame_octets

    @property
    def transferred_frames(self) -> int:
        """Frames written, or read, since OPEN."""
        return int(lib.xa_stream_transferred(self._handle)) // self.frame_octets

    @property
    def latency_frames(self) -> int:
        """Frames between the application and the ear (csrc/frontend/stream.h)."""
        return int(lib.xa_stream_latency(self._handle))

    @property
    def stats(self) -> StreamStats:
        """Counters since the last OPEN."""
        wire = ffi.new("struct xa_stream_stats *")
        lib.xa_stream_stats(self._handle, wire)
        underruns = int(wire.underruns)
        if self._undrained_underruns is not None:
            underruns = self._undrained_underruns
        return StreamStats(
            events=int(wire.events),
            requests=int(wire.requests),
            doorbells=int(wire.doorbells),
            wakeups=int(wire.wakeups),
            underruns=underruns,
            overruns=int(wire.overruns),
            overrun_octets=int(wire.overrun_octets),
        )


_WHAT = {
    lib.XA_EVENT_QUERIED: "ask the backend what it can do",
    lib.XA_EVENT_OPENED: "open the stream",
    lib.XA_EVENT_TRIGGERED: "start or stop the stream",
    lib.XA_EVENT_CLOSED: "close the stream",
}


class Card:
    """One virtual sound card of this guest: `async with Card.open(hv) as card`."""

    def __init__(
        self,
        hv: Hypervisor,
        device: int = 0,
        on_state: Callable[[CardState, str], None] | None = None,
    ) -> None:
        self._hv = hv
        self.device = device
        self._on_state = on_state
        self._raw: Any = None
        self._self = ffi.new_handle(self)
        self._told: deque[tuple[CardState, str]] = deque()
        self._by_handle: dict[Any, Stream] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._fds: dict[int, bool] = {}
        self._serial = -1
        self._timer: asyncio.TimerHandle | None = None
        self._timer_us = _NO_DEADLINE
        self._processing = False
        self._raw_fds = ffi.new("int[]", lib.XA_CARD_FDS)
        self._raw_events = ffi.new("short[]", lib.XA_CARD_FDS)

    @classmethod
    def open(
        cls,
        hv: Hypervisor,
        device: int = 0,
        on_state: Callable[[CardState, str], None] | None = None,
    ) -> Card:
        """Make a card for device `device`; nothing happens before it is entered.

        `on_state` is called with each new state and, for people, why.
        """
        return cls(hv, device, on_state)

    async def __aenter__(self) -> Card:
        self._loop = asyncio.get_running_loop()
        callbacks = ffi.new("struct xa_card_callbacks *")
        callbacks.card = lib.xa_py_card
        callbacks.stream = lib.xa_py_stream
        card = ffi.new("struct xa_card **")
        what = f"serve sound card {self.device}"
        check(lib.xa_card_new(self._hv.c, self.device, callbacks, self._self, card), what)
        self._raw = card[0]
        self._process()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the card in order (4 s at most, if the backend does not answer) and free it."""
        if self._raw is None:
            return
        try:
            lib.xa_card_close(self._card)
            self._schedule()
            await asyncio.wait_for(self._until(CardState.CLOSED), 5.0)
        except asyncio.TimeoutError:
            log.warning("sound card %d could not be closed in order", self.device)
        finally:
            self._free()

    def _free(self) -> None:
        if self._raw is None:
            return
        for fd, writing in self._fds.items():
            self._loop.remove_reader(fd)
            if writing:
                self._loop.remove_writer(fd)
        self._fds = {}
        if self._timer is not None:
            self._timer.cancel()
        for stream in self._by_handle.values():
            stream._raw = None
            stream._fail_answers(-errno.ENOTCONN)
            stream._wake()
        self._by_handle.clear()
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        lib.xa_card_free(self._raw)
        self._raw = None

    def reconnect(self) -> None:
        """Take the connection down and negotiate anew."""
        lib.xa_card_reconnect(self._card)
        self._schedule()

    @property
    def _card(self) -> Any:
        if self._raw is None:
            raise make_error(errno.ENOTCONN, f"use sound card {self.device}, which is closed")
        return self._raw

    @property
    def state(self) -> CardState:
        """The card's state."""
        return CardState(int(lib.xa_card_state(self._card)))

    @property
    def reason(self) -> str:
        """Why it is in that state, for people, or ""."""
        return str(ffi.string(lib.xa_card_reason(self._card)).decode("utf-8", "replace"))

    @property
    def short_name(self) -> str:
        """`short-name` of the store, or ""."""
        return str(ffi.string(lib.xa_card_short_name(self._card)).decode("utf-8", "replace"))

    @property
    def long_name(self) -> str:
        """`long-name` of the store, or ""."""
        return str(ffi.string(lib.xa_card_long_name(self._card)).decode("utf-8", "replace"))

    @property
    def version(self) -> int:
        """sndif's protocol version in use; 0 while not connected."""
        return int(lib.xa_card_version(self._card))

    @property
    def streams(self) -> list[Stream]:
        """Every stream, ordered by PCM device and index; known from CardState.WAITING on."""
        self._find_streams()
        count = lib.xa_card_stream_count(self._card)
        return [self._by_handle[lib.xa_card_stream(self._card, i)] for i in range(count)]

    def find_stream(
        self, *, capture: bool, pcm: int | None = None, index: int | None = None
    ) -> Stream | None:
        """Return the first stream of a direction, with these indices where they are given."""
        for stream in self.streams:
            if stream.capture == capture and (
                (pcm is None or stream.pcm == pcm) and (index is None or stream.index == index)
            ):
                return stream
        return None

    def _find_streams(self) -> None:
        for i in range(lib.xa_card_stream_count(self._card)):
            handle = lib.xa_card_stream(self._card, i)
            if handle not in self._by_handle:
                self._by_handle[handle] = Stream(self, handle)

    async def connected(self, limit_s: float | None = None) -> None:
        """Wait until the card is connected. ETIMEDOUT with the reason when it is not in time."""
        try:
            await asyncio.wait_for(self._until(CardState.CONNECTED), limit_s)
        except asyncio.TimeoutError:
            raise CardNotReadyError(self.reason or "the backend does not answer") from None

    async def _until(self, state: CardState) -> None:
        while self.state is not state:
            waiter = self._loop.create_future()
            self._waiting.append(waiter)
            await waiter

    # The loop

    def _process(self) -> None:
        if self._raw is None or self._processing:
            return
        self._processing = True
        try:
            lib.xa_card_process(self._card, _now_us())
        finally:
            self._processing = False
        self._find_streams()
        while self._told:
            state, text = self._told.popleft()
            log.debug("card %d: %s %s", self.device, state.name, text)
            for waiter in self._waiting:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiting.clear()
            if self._on_state is not None:
                self._on_state(state, text)
        if self._raw is not None:
            self._watch_fds()
            self._schedule()

    def _watch_fds(self) -> None:
        count = lib.xa_card_fds(self._card, self._raw_fds, self._raw_events)
        serial = lib.xa_card_fds_serial(self._card)
        wanted = {self._raw_fds[i]: bool(self._raw_events[i] & _POLLOUT) for i in range(count)}
        if serial == self._serial and wanted == self._fds:
            return
        anew = serial != self._serial
        for fd, writing in self._fds.items():
            if writing and (anew or not wanted.get(fd)):
                self._loop.remove_writer(fd)
            if anew or fd not in wanted:
                self._loop.remove_reader(fd)
        for fd, writing in wanted.items():
            if anew or fd not in self._fds:
                self._loop.add_reader(fd, self._process)
            if writing:
                self._loop.add_writer(fd, self._process)
        self._fds, self._serial = wanted, serial

    def _schedule(self) -> None:
        """Have `_process` called at the card's deadline, which a call may just have changed."""
        if self._raw is None or self._processing:
            return
        deadline = int(lib.xa_card_deadline(self._card))
        # An early call does no harm: the timer moves only when it would be late.
        if self._timer is not None and self._timer_us <= deadline:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline != _NO_DEADLINE:
            self._timer_us = deadline
            delay = max(0.0, (deadline - _now_us()) / 1e6)
            self._timer = self._loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._process()


class CardNotReadyError(XenAudioError):
    """The card was not connected in time; the text is the reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.ETIMEDOUT, reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason
