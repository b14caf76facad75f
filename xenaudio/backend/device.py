# SPDX-License-Identifier: LGPL-2.1-or-later
"""One vsnd device of one guest: the backend's part of the XenBus handshake.

A Device is a task of its own. Watches wake it; each time it reads the states at both ends afresh
and does the one thing that they call for. The engine serves a connected device's streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from xenaudio.backend.cardconfig import (
    FEATURE_RENEGOTIATE,
    ConfigError,
    StreamNodes,
    is_folder,
    parse_card,
)
from xenaudio.backend.config import Config
from xenaudio.backend.limits import GuestShare, LimitError, Limits
from xenaudio.backend.routes import StreamPlace
from xenaudio.core.engine import BackendStream, Engine, StreamSetup, StreamState
from xenaudio.core.errors import (
    ClosedError,
    ConflictError,
    DeniedError,
    NotFoundError,
    XenAudioError,
)
from xenaudio.core.hv import Hypervisor
from xenaudio.core.store import Store
from xenaudio.core.xenbus import XenbusState

log = logging.getLogger(__name__)

_T = TypeVar("_T")

# States of a frontend that counts on us.
SERVED = (XenbusState.INITIALISED, XenbusState.CONNECTED)

# xl must have time to read our state 2 at a live attach, or it waits 10 s for it and fails.
INIT_WAIT_SECONDS = 0.2
# A frontend that shows 5 and then nothing is being unloaded, and waits for our state 2; one that
# does not follow us to 5 is not going to.
CLOSING_SECONDS = 0.5


class _StateChangedError(Exception):
    """Somebody else wrote our state: the device is to be looked at afresh."""


class StatsLog(Protocol):
    """Where a stream's statistics go before it ends."""

    def record(self, stream: LiveStream) -> None:
        """Take the statistics of a stream."""


@dataclass(frozen=True)
class LiveStream:
    """A stream of a connected device."""

    place: StreamPlace
    nodes: StreamNodes
    route: str
    backend: BackendStream
    microphone_denied: bool = False
    """It records silence, because its guest may not record."""

    def __str__(self) -> str:
        kind = "capture" if self.nodes.capture else "playback"
        return f"{kind} {self.place.pcm}/{self.place.stream}"


class Device:
    """One device, from the moment its backend directory is seen until it is gone."""

    def __init__(
        self,
        store: Store,
        hv: Hypervisor,
        engine: Engine,
        config: Config,
        path: str,
        share: GuestShare,
        stats_log: StatsLog | None = None,
    ) -> None:
        """`path` is the backend's directory, changes of which its owner tells with `wake`."""
        self.path = path
        self.guest_id = int(path.split("/")[-2])
        self.devid = int(path.split("/")[-1])
        self.guest = f"domain {self.guest_id}"
        self.guest_name = self.guest
        self.short_name = ""  # of the connected card
        self.frontend_state = XenbusState.UNKNOWN  # when last looked at
        self.streams: list[LiveStream] = []
        self._store = store
        self._hv = hv
        self._engine = engine
        self._config = config
        self._share = share
        self._stats_log = stats_log
        self._changed = asyncio.Event()
        self._state = XenbusState.UNKNOWN  # what we last wrote
        self._since = 0.0  # when
        self._frontend = ""
        self._frontend_connected = False
        self._renegotiates = False
        self._broken = False
        self._suspect = False
        self._ending = False
        self._troubles: dict[StreamPlace, str] = {}
        self._not_before: float | None = None  # the pending handshake, once its pace is known
        self._token: str | None = None
        # Of its own: a disk that blocks one guest's output is not to keep others from connecting.
        self._blocking = ThreadPoolExecutor(1, thread_name_prefix="xa-device")

    def __str__(self) -> str:
        return f"{self.guest} vsnd {self.devid}"

    @property
    def state(self) -> XenbusState:
        """What our state is, as far as we know."""
        return self._state

    @property
    def limits(self) -> Limits:
        """What its guest may have."""
        return self._config.limits(self.guest_name, self.guest_id)

    def reconfigure(self, config: Config) -> None:
        """Go by another configuration from the next handshake on."""
        self._config = config

    def outdated(self) -> list[LiveStream]:
        """Return the streams that would be routed otherwise if they were connected now."""
        routes = self._config.routes
        return [
            stream
            for stream in self.streams
            if stream.route != str(routes.route(stream.place, stream.nodes.capture))
            or stream.microphone_denied != self._denies(stream.place, stream.nodes)
        ]

    def _denies(self, place: StreamPlace, nodes: StreamNodes) -> bool:
        return nodes.capture and not self._config.routes.allows_microphone(place)

    def wake(self, _path: str = "") -> None:
        """Have the device look at the store again."""
        self._changed.set()

    def suspect(self) -> None:
        """Have the device look at its streams: one, of this or another device, broke."""
        self._suspect = True
        self._changed.set()

    def end(self) -> None:
        """Have `run` close the device and return, because the service stops."""
        self._ending = True
        self._changed.set()

    async def run(self) -> None:
        """Serve the device until its directory is gone or `end` is called.

        It must not be cancelled: a stream that is being connected would be left with the engine.
        Raises XenAudioError when XenStore is lost, or refuses.
        """
        try:
            await self._begin()
            await self._afresh(self._take_over)
            while not self._ending:
                self._changed.clear()
                wait = await self._afresh(self._step)
                await self._changed_within(wait)
            await self._afresh(self._leave)
        except NotFoundError:
            log.debug("%s: its nodes are gone", self)
        finally:
            await self._disconnect()
            await self._unwatch()
            self._blocking.shutdown(wait=False)

    async def _afresh(self, function: Callable[[], Awaitable[_T]]) -> _T:
        """Run a function that looks at the states, again when they changed under it."""
        while True:
            # A guest can write to its nodes all the time.
            await asyncio.sleep(self._share.looks.delay())
            with contextlib.suppress(_StateChangedError, ConflictError):
                return await function()

    async def _changed_within(self, seconds: float | None) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)

    async def _leave(self) -> None:
        """Leave the device to the next backend, or tell the frontend and give it a moment."""
        connected = bool(self.streams)
        await self._disconnect()
        front, own, online = await self._look()
        self._note(own)
        if (
            connected
            and online
            and front is own is XenbusState.CONNECTED
            and not self._renegotiates
        ):
            log.info("%s: left connected for the next backend", self)
            return
        if own is XenbusState.CLOSED:
            return
        if own is not XenbusState.CLOSING:
            await self._set_state(XenbusState.CLOSING)
        while (left := self._left(CLOSING_SECONDS)) > 0:
            self._changed.clear()
            front, _own, _online = await self._look()
            if front not in SERVED:
                break
            await self._changed_within(left)
        await self._set_state(XenbusState.CLOSED)

    async def _begin(self) -> None:
        self._frontend = await self._store.read(f"{self.path}/frontend")
        try:
            self.guest_name = await self._store.read(f"/local/domain/{self.guest_id}/name")
            self.guest = f"{self.guest_name} ({self.guest_id})"
        except (NotFoundError, DeniedError):
            pass
        self._token = await self._store.watch(f"{self._frontend}/state", self.wake)

    async def _take_over(self) -> None:
        """Begin where a backend before us ended, if there was one."""
        front, own, online = await self._look()
        self._note(own)
        if not online:
            return
        if front in SERVED and not await self._read_renegotiates():
            # Linux 6.1 crashes when its card is taken away while a player holds it.
            if front is own is XenbusState.CONNECTED:
                # Its rings go on where they are. No PCM is open any more: players end.
                log.info("%s: was left connected, going on", self)
                await self._connect_or_close(adopted=True)
                return
            if own in (XenbusState.CLOSING, XenbusState.CLOSED):
                log.info("%s: was left in state %d, waiting for its guest to let go", self, own)
                if own is XenbusState.CLOSING:
                    await self._set_state(XenbusState.CLOSED)
                return
        if own is not XenbusState.INITIALISING:
            # State 2 has the frontend negotiate anew. Not 1 before: Linux takes each of the two for
            # a reason to free its card and publish its rings, late, when its players have closed
            # it, and the two handshakes get into each other's way.
            log.info("%s: was left in state %d, beginning anew", self, own)
        await self._offer()

    async def _read_renegotiates(self) -> bool:
        """Return whether the frontend says that it can begin anew at any time."""
        try:
            return await self._store.read(f"{self._frontend}/{FEATURE_RENEGOTIATE}") == "1"
        except (NotFoundError, DeniedError):
            return False

    async def _offer(self) -> None:
        """Offer the device to its frontend."""
        await self._set_state(XenbusState.INIT_WAIT, {"versions": "1,2"})
        log.info("%s: ready", self)

    async def _unwatch(self) -> None:
        if self._token is not None:
            with contextlib.suppress(XenAudioError):
                await self._store.unwatch(self._token)

    async def _look(self) -> tuple[XenbusState, XenbusState, bool]:
        """Return the frontend's state, our own as it is in XenStore, and `online`.

        All as they are at one moment: a device may be made anew in the place of a removed one.
        """

        async def read(tx: int) -> tuple[XenbusState, XenbusState, bool]:
            own, online, front = await asyncio.gather(
                self._store.read(f"{self.path}/state", tx),
                self._store.read(f"{self.path}/online", tx),
                self._store.read(f"{self._frontend}/state", tx),
                return_exceptions=True,
            )
            if isinstance(own, BaseException):
                raise own
            if isinstance(front, DeniedError | NotFoundError):
                # The guest owns it, and may forbid another domain than 0 to read it.
                front = ""
            for answer in (front, online):
                if isinstance(answer, BaseException) and not isinstance(answer, NotFoundError):
                    raise answer
            return XenbusState.parse(str(front)), XenbusState.parse(own), online != "0"

        # A guest that writes its state all the time has it looked at again at its pace.
        return await self._store.run_transaction(read, attempts=2)

    def _note(self, state: XenbusState) -> None:
        """Take note of what our state is from now on."""
        self._state = state
        self._since = asyncio.get_running_loop().time()

    async def _set_state(self, state: XenbusState, also: Mapping[str, str] | None = None) -> None:
        """Write our state, and other nodes of our directory with it.

        NotFoundError when the directory is gone (it is not brought back to life), and
        _StateChangedError when our state is not the one that we know of.
        """

        async def write(tx: int) -> None:
            found = await self._store.read(f"{self.path}/state", tx)
            if XenbusState.parse(found) is not self._state:
                raise _StateChangedError
            for node, value in {**(also or {}), "state": str(int(state))}.items():
                await self._store.write(f"{self.path}/{node}", value, tx)

        await self._store.run_transaction(write)
        log.debug("%s: backend state %d", self, state)
        self._note(state)

    def _left(self, seconds: float) -> float:
        """Return how much of `seconds` since the last change of our state is left."""
        return self._since + seconds - asyncio.get_running_loop().time()

    async def _step(self) -> float | None:
        """Do what the states call for; return in how many seconds to look again, if at all."""
        front, own, online = await self._look()
        self.frontend_state = front
        log.debug("%s: frontend %d, backend %d, online %s", self, front, own, online)
        if self._suspect and await self._check_streams():
            return 0
        if own is not self._state:
            # The toolstack detaches the device: it wrote 5 itself and waits for 6. Or the device
            # was removed and another one, in state 1, made in its place before we looked.
            log.debug("%s: the toolstack set our state to %d", self, own)
            if online:
                await self._disconnect()
            self._broken = self._frontend_connected = False
            self._note(own)
            if own is XenbusState.INITIALISING:
                await self._offer()
        if front is not XenbusState.INITIALISED:
            self._not_before = None
        if not online:
            return await self._step_offline(front)
        if front is XenbusState.INITIALISING:
            await self._step_front_initialising()
        elif front is XenbusState.INITIALISED:
            return await self._step_front_initialised()
        elif front is XenbusState.CONNECTED:
            self._frontend_connected = self._state is XenbusState.CONNECTED
            return await self._step_front_connected()
        elif front is XenbusState.CLOSING:
            return await self._step_front_closing()
        elif front in (XenbusState.CLOSED, XenbusState.UNKNOWN):
            await self._disconnect()
            self._broken = False
            if self._state not in (XenbusState.CLOSED, XenbusState.INIT_WAIT):
                await self._set_state(XenbusState.CLOSED)
        return None

    async def _step_offline(self, front: XenbusState) -> float | None:
        """The toolstack removes the device: reach 6 when the frontend has, or soon anyway."""
        if self._state is XenbusState.CLOSED:
            return None
        if front is XenbusState.CONNECTED and not self._renegotiates:
            # Linux 6.1 crashes when its card is taken away while a player holds it: they go first.
            for stream in self.streams:
                stream.backend.refuse()
        else:
            await self._disconnect()
        if self._state is not XenbusState.CLOSING:
            await self._set_state(XenbusState.CLOSING)
            log.info("%s: is being detached", self)
        left = self._left(CLOSING_SECONDS)
        if front not in (*SERVED, XenbusState.CLOSING) or left <= 0:
            await self._disconnect()
            await self._set_state(XenbusState.CLOSED)
            log.info("%s: detached", self)
            return None
        return left

    async def _step_front_initialising(self) -> None:
        self._frontend_connected = False
        if self._state is XenbusState.INIT_WAIT:
            return
        await self._disconnect()
        self._broken = False
        await self._set_state(XenbusState.INIT_WAIT)

    async def _step_front_initialised(self) -> float | None:
        if self._state is XenbusState.CONNECTED:
            if self._frontend_connected:
                # It began anew without closing: its old rings are void.
                log.info("%s: the frontend began anew", self)
                self._frontend_connected = False
                await self._disconnect()
                await self._set_state(XenbusState.INIT_WAIT)
                return self._left(INIT_WAIT_SECONDS)
            return None
        if self._state is not XenbusState.INIT_WAIT:
            return None
        left = self._left(INIT_WAIT_SECONDS)
        if left > 0:
            return left
        now = asyncio.get_running_loop().time()
        if self._not_before is None:
            self._share.handshakes.rate = self.limits.handshakes_per_second
            delay = self._share.handshakes.delay()
            self._not_before = now + delay
            if delay > 0:
                log.warning("%s: negotiates too often, made to wait %.1f s", self, delay)
        if self._not_before > now:
            return self._not_before - now
        self._not_before = None
        if await self._connect_or_close():
            await self._set_state(XenbusState.CONNECTED)
        return None

    async def _step_front_connected(self) -> float | None:
        if self._broken and self._state is XenbusState.CLOSING:
            left = self._left(CLOSING_SECONDS)
            if left > 0:
                return left
            await self._set_state(XenbusState.CLOSED)
        return None

    async def _step_front_closing(self) -> float | None:
        await self._disconnect()
        self._frontend_connected = False
        if self._state in (XenbusState.INIT_WAIT, XenbusState.CLOSED):
            return None
        if self._state is not XenbusState.CLOSING:
            await self._set_state(XenbusState.CLOSING)
        left = self._left(CLOSING_SECONDS)
        if left > 0:
            return left
        await self._set_state(XenbusState.INIT_WAIT)
        return None

    async def _connect_or_close(self, *, adopted: bool = False) -> bool:
        """Connect the card's streams; False when the device is to end, or cannot be served."""
        try:
            return await self._connect(adopted=adopted)
        except (ConfigError, LimitError, XenAudioError) as error:
            if isinstance(error, ClosedError):
                raise
            log.error("%s: refused: %s", self, error)
            await self._close_broken()
            return False

    async def _connect(self, *, adopted: bool) -> bool:
        """Connect the card's streams; False when the device is to end instead."""
        # Not what else the guest may have made there, of which there can be much.
        tree = await self._store.read_tree(self._frontend, is_folder=is_folder)
        limits = self.limits
        card = parse_card(tree, limits.buffer_octets)
        self._renegotiates = card.renegotiates
        self.short_name = card.short_name
        # A card that is connected already is not cut off: Linux 6.1 crashes when a player holds it.
        self._share.take(self.path, len(card.streams), None if adopted else limits)
        loop = asyncio.get_running_loop()
        for nodes in card.streams:
            if self._ending:
                return False
            place = StreamPlace(
                self.guest_name,
                self.devid,
                nodes.pcm,
                nodes.stream,
                nodes.unique_id,
                self.guest_id,
            )
            route = self._config.routes.route(place, nodes.capture)
            setup = StreamSetup(
                domid=self.guest_id,
                capture=nodes.capture,
                ring_ref=nodes.ring_ref,
                event_channel=nodes.event_channel,
                evt_ring_ref=nodes.evt_ring_ref,
                evt_event_channel=nodes.evt_event_channel,
                caps=nodes.caps,
                route=route,
                adopted=adopted,
                hold_off=card.hold_off,
            )
            try:
                backend = await loop.run_in_executor(
                    self._blocking, self._engine.connect, self._hv, setup
                )
            except (ValueError, XenAudioError) as error:
                raise ConfigError(f"stream {nodes.pcm}/{nodes.stream}: {error}") from error
            self.streams.append(
                LiveStream(place, nodes, str(route), backend, self._denies(place, nodes))
            )
        log.info(
            "%s: connected, card %r: %s",
            self,
            card.short_name,
            ", ".join(
                f"{s} {'from' if s.nodes.capture else 'to'} {s.route}"
                + (" (microphone denied)" if s.microphone_denied else "")
                for s in self.streams
            ),
        )
        self._frontend_connected = adopted
        return True

    async def _disconnect(self) -> None:
        streams, self.streams = self.streams, []
        self._share.give_back(self.path)
        loop = asyncio.get_running_loop()
        for stream in streams:
            if self._stats_log is not None:
                self._stats_log.record(stream)
            stats = stream.backend.stats()
            await loop.run_in_executor(self._blocking, stream.backend.disconnect)
            log.info(
                "%s: %s ended: %d frames, %d gaps, %d bad requests",
                self,
                stream,
                stats.frames_out,
                stats.xruns,
                stats.bad_requests,
            )
            if stats.frames_lost:
                log.error(
                    "%s: %s: %d frames were lost on the way to %s: %s",
                    self,
                    stream,
                    stats.frames_lost,
                    stream.route,
                    "its server was away, or did not take them in time"
                    if stream.route.startswith("pulse")
                    else "is its disk full, or slow?",
                )
            if stats.last_error_why:
                log.warning(
                    "%s: %s: the last request refused was %s (%d)",
                    self,
                    stream,
                    stats.last_error_why,
                    stats.last_error_value,
                )

    async def _close_broken(self) -> None:
        self._broken = True
        await self._disconnect()
        await self._set_state(XenbusState.CLOSING)
        self.wake()

    async def _check_streams(self) -> bool:
        """Close the device if one of its streams broke; return whether one did."""
        self._suspect = False
        for stream in self.streams:
            stats = stream.backend.stats()
            broken = stats.broken
            if stats.state in (StreamState.OPEN, StreamState.RUNNING):
                self._note_trouble(stream, stats.trouble)
            if broken:
                log.error(
                    "%s: %s: %s: the device is closed; the guest's driver is faulty or hostile",
                    self,
                    stream,
                    broken,
                )
                await self._close_broken()
                return True
        return False

    def _note_trouble(self, stream: LiveStream, trouble: str | None) -> None:
        """Log what keeps a stream from being heard, or that it is heard again."""
        place = stream.place
        if trouble == self._troubles.get(place):
            return
        if trouble is None:
            del self._troubles[place]
            log.info("%s: %s: %s is there again", self, stream, stream.route)
            return
        self._troubles[place] = trouble
        log.warning(
            "%s: %s: %s: %s: nothing is heard, the guest does not notice, and it is tried again:"
            " is the server running, and may this user connect to it?",
            self,
            stream,
            stream.route,
            trouble,
        )
