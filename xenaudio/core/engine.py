# SPDX-License-Identifier: LGPL-2.1-or-later
"""The backend's data plane, csrc/backend/engine.h: an engine and the streams that it serves."""

from __future__ import annotations

import enum
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from xenaudio.core.errors import XenAudioError, check, make_error
from xenaudio.core.ffi import ffi, lib
from xenaudio.core.format import Format
from xenaudio.core.hv import Hypervisor

RATES_MOST = 32  # XA_CAPS_RATES
ROUTE_PATH_MOST = 1023  # octets: XA_ROUTE_PATH and its last 0
ROUTE_NAME_MOST = 255  # octets: XA_ROUTE_NAME and its last 0


class RouteKind(enum.IntEnum):
    """Where a stream's samples go to or come from."""

    NULL = 0
    FILE = 1
    PULSE = 2

    @property
    def built(self) -> bool:
        """Whether this build can do it."""
        built: bool = lib.xa_route_built(int(self))
        return built


@dataclass(frozen=True)
class Route:
    """A stream's output or input (struct xa_route)."""

    kind: RouteKind = RouteKind.NULL
    path: str = ""
    """Of a file."""
    loop: bool = False
    """Capture from a file: begin again at its end."""
    server: str = ""
    """A PulseAudio server, as in PULSE_SERVER; empty: the user's own."""
    device: str = ""
    """Its sink or source; empty: its default one."""
    guest: str = ""
    """Whose stream it is, for people to see there."""
    stream: str = ""
    """Which of its streams it is, for people too."""

    def __str__(self) -> str:
        if self.kind is RouteKind.NULL:
            return "null"
        if self.kind is RouteKind.PULSE:
            where = f"{self.server},{self.device}" if self.device else self.server
            return f"pulse:{where}" if where else "pulse"
        return f"{'loop' if self.loop else 'file'}:{self.path}"


@dataclass(frozen=True)
class Caps:
    """What a stream can do (struct xa_caps)."""

    formats: Sequence[Format]
    rates: Sequence[int]  # Hz
    channels_min: int
    channels_max: int
    buffer_octets_max: int


@dataclass(frozen=True)
class StreamSetup:
    """What is needed to connect a stream (struct xa_back_stream_config)."""

    domid: int
    capture: bool
    ring_ref: int
    event_channel: int
    evt_ring_ref: int  # 0, with the next one: protocol version 1, no events
    evt_event_channel: int
    caps: Caps
    route: Route
    adopted: bool = False
    """A backend that is gone has served these rings: go on where it was."""
    hold_off: bool = False
    """The frontend rings for every request but WRITE, asked to or not."""


class StreamState(enum.IntEnum):
    """What a backend's stream is doing (enum xa_back_stream_state)."""

    CLOSED = 0
    BUSY = 1
    OPEN = 2
    RUNNING = 3


@dataclass(frozen=True)
class StreamStats:
    """A copy of struct xa_back_stream_stats; see csrc/backend/engine.h for each field."""

    state: StreamState
    broken: str | None
    trouble: str | None
    format: int
    rate: int
    channels: int
    frame_octets: int
    buffer_octets: int
    period_octets: int
    opens: int
    requests: int
    bad_requests: int
    last_error: int
    last_error_why: str | None
    last_error_value: int
    frames_in: int
    frames_out: int
    frames_silent: int
    frames_dropped: int
    frames_lost: int
    xruns: int
    events: int
    events_held: int
    clamps: int
    wakeups: int
    throttles: int
    position: int
    fill_frames: int
    delay_frames: int
    peak: float


class TracePoint(NamedTuple):
    """A point of a PCM's history (struct xa_trace_point)."""

    time_ns: int
    frames: int
    fill: int
    open: int
    silent: int = 0


class ConnectError(XenAudioError):
    """A stream could not be connected."""


def _text(pointer: Any) -> str | None:
    if pointer == ffi.NULL:
        return None
    text: str = ffi.string(pointer).decode()
    return text


def _fill_caps(c: Any, caps: Caps) -> None:
    if not 1 <= len(caps.rates) <= RATES_MOST:
        raise ValueError(f"{len(caps.rates)} sample rates, expected 1 to {RATES_MOST}")
    c.formats = sum(1 << f.code for f in caps.formats)
    for i, rate in enumerate(caps.rates):
        c.rates[i] = rate
    c.rate_count = len(caps.rates)
    c.channels_min = caps.channels_min
    c.channels_max = caps.channels_max
    c.buffer_octets_max = caps.buffer_octets_max


def _octets(what: str, text: str, most: int) -> bytes:
    octets = os.fsencode(text)
    if len(octets) > most:
        raise ValueError(f"the {what} has {len(octets)} octets, at most {most} are allowed")
    return octets


def _title(text: str) -> bytes:
    """Return what people are shown: as much of it as fits, in UTF-8."""
    octets = text.encode(errors="replace").replace(b"\0", b"?")[:ROUTE_NAME_MOST]
    return octets.decode(errors="ignore").encode()


def _fill_route(c: Any, route: Route) -> None:
    c.kind = int(route.kind)
    c.path = _octets("path", route.path, ROUTE_PATH_MOST)
    c.server = _octets("server", route.server, ROUTE_PATH_MOST)
    c.device = _octets("device", route.device, ROUTE_NAME_MOST)
    c.guest = _title(route.guest)
    c.stream = _title(route.stream)
    c.numbered = True  # what a guest plays never overwrites a file
    c.loop = route.loop


class Engine:
    """The engine and its thread. Close its streams first."""

    def __init__(self) -> None:
        self._c = lib.xa_engine_new()
        if self._c == ffi.NULL:
            raise make_error(ffi.errno, "start the engine")

    @property
    def fd(self) -> int:
        """Readable when a stream broke or has other trouble than before; clear it with `clear`."""
        fd: int = lib.xa_engine_fd(self._c)
        return fd

    @property
    def refused_realtime(self) -> str | None:
        """Why the engine's thread has no real-time priority; None: it has."""
        error: int = lib.xa_engine_realtime(self._c)
        return os.strerror(-error) if error else None

    def clear(self) -> None:
        """Make `fd` unreadable again."""
        os.read(self.fd, 8)

    def connect(self, hv: Hypervisor, setup: StreamSetup) -> BackendStream:
        """Map a stream's rings and serve it from now on. May block. ConnectError."""
        config: Any = ffi.new("struct xa_back_stream_config *")
        config.domid = setup.domid
        config.capture = setup.capture
        config.ring_ref = setup.ring_ref
        config.event_channel = setup.event_channel
        config.evt_ring_ref = setup.evt_ring_ref
        config.evt_event_channel = setup.evt_event_channel
        config.adopted = setup.adopted
        config.hold_off = setup.hold_off
        _fill_caps(config.caps, setup.caps)
        _fill_route(config.route, setup.route)
        error = lib.xa_route_narrow(
            ffi.addressof(config, "route"), setup.capture, ffi.addressof(config, "caps")
        )
        if error:
            raise ConnectError(-error, f"its route {setup.route} does not fit its configuration")
        stream = ffi.new("struct xa_back_stream **")
        failed = ffi.new("const char **")
        error = lib.xa_back_stream_connect(self._c, hv.c, config, stream, failed)
        if error:
            raise ConnectError(-error, _text(failed[0]) or "")
        return BackendStream(stream[0])

    def close(self) -> None:
        """End the thread."""
        if self._c != ffi.NULL:
            lib.xa_engine_free(self._c)
            self._c = ffi.NULL


@dataclass
class BackendStream:
    """A connected stream. Everything but `disconnect` is quick; that may block."""

    _c: Any
    _stats: Any = field(default_factory=lambda: ffi.new("struct xa_back_stream_stats *"))

    def _connected(self) -> Any:
        if self._c == ffi.NULL:
            raise ValueError("the stream is disconnected")
        return self._c

    def stats(self) -> StreamStats:
        """Return its statistics; the peak begins anew."""
        lib.xa_back_stream_read_stats(self._connected(), self._stats)
        values = {name: getattr(self._stats, name) for name in StreamStats.__dataclass_fields__}
        values["state"] = StreamState(values["state"])
        for name in ("broken", "trouble", "last_error_why"):
            values[name] = _text(values[name])
        return StreamStats(**values)

    def trace(self, most: int = 4096) -> list[TracePoint]:
        """Take the points recorded since the last call, oldest first."""
        points = ffi.new("struct xa_trace_point[]", most)
        count = check(lib.xa_back_stream_read_trace(self._connected(), points, most), "trace")
        return [
            TracePoint(p.time_ns, p.frames, p.fill, p.open, p.silent)
            for p in (points[i] for i in range(count))
        ]

    def refuse(self) -> None:
        """Refuse everything but CLOSE and STOP from now on, so that the guest's players end."""
        lib.xa_back_stream_refuse(self._connected())

    def disconnect(self) -> None:
        """Take it from the engine, close and unmap everything. May block."""
        stream, self._c = self._connected(), ffi.NULL
        lib.xa_back_stream_disconnect(stream)
