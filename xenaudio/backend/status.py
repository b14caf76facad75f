# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the service is doing, as one JSON object: `xenaudio status` has it over the control socket.

Keys that hold an amount end in its unit. What is counted counts from the card's connection, unless
csrc/backend/engine.h says otherwise. Amounts of what is open are null while nothing is.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from typing import Any

import xenaudio
from xenaudio.backend.device import Device, LiveStream
from xenaudio.backend.service import Service
from xenaudio.core.engine import StreamState, StreamStats
from xenaudio.core.format import by_code

COUNTERS = (
    *("opens", "requests", "bad_requests", "frames_in", "frames_out", "frames_silent"),
    *("frames_dropped", "frames_lost", "events", "events_held", "clamps", "wakeups", "throttles"),
)
"""Fields of StreamStats that are given as they are."""


def describe(service: Service, uptime_s: float, refused: str | None) -> dict[str, Any]:
    """Describe a service; `refused` is why its configuration file was not taken, if it was not."""
    guests = []
    by_guest = itertools.groupby(service.devices, key=lambda device: device.guest_id)
    for domid, devices in by_guest:
        cards = list(devices)
        guests.append(
            {
                "guest": cards[0].guest_name,
                "domid": domid,
                "limits": dataclasses.asdict(cards[0].limits),
                "cards": [_card(card) for card in cards],
            }
        )
    file = service.config.file
    return {
        "version": xenaudio.__version__,
        "pid": os.getpid(),
        "uptime_s": round(uptime_s, 1),
        "hypervisor": service.hv.address,
        "domid": service.domid,
        "config": None if file is None else str(file),
        "config_refused": refused,
        "guests": guests,
    }


def _card(device: Device) -> dict[str, Any]:
    outdated = device.outdated()
    return {
        "card": device.devid,
        "short_name": device.short_name,
        "state": device.state.name.lower(),
        "frontend_state": device.frontend_state.name.lower(),
        "streams": [_stream(stream, stream in outdated) for stream in device.streams],
    }


def _us(frames: int, stats: StreamStats) -> int:
    return frames * 1_000_000 // stats.rate


def _stream(stream: LiveStream, outdated: bool) -> dict[str, Any]:
    stats = stream.backend.stats()
    # While it is opened or closed, what is stored cannot be said.
    is_open = stats.state in (StreamState.OPEN, StreamState.RUNNING)
    pcm_format = by_code(stats.format) if is_open else None
    shown: dict[str, Any] = {
        "pcm": stream.place.pcm,
        "stream": stream.place.stream,
        "unique_id": stream.nodes.unique_id,
        "direction": "capture" if stream.nodes.capture else "playback",
        "route": stream.route,
        "microphone_denied": stream.microphone_denied,
        "rerouted_when_reconnected": outdated,
        "state": stats.state.name.lower(),
        "trouble": stats.trouble,
        "format": pcm_format.name if pcm_format is not None else None,
        "rate_hz": stats.rate if is_open else None,
        "channels": stats.channels if is_open else None,
        "buffer_us": _us(stats.buffer_octets // stats.frame_octets, stats) if is_open else None,
        "period_us": _us(stats.period_octets // stats.frame_octets, stats) if is_open else None,
        "fill_us": _us(stats.fill_frames, stats) if is_open else None,
        "latency_us": _us(stats.fill_frames + stats.delay_frames, stats) if is_open else None,
        "position_frames": stats.position // stats.frame_octets if is_open else None,
        "gaps": stats.xruns,
    }
    shown |= {name: getattr(stats, name) for name in COUNTERS}
    shown["last_refusal"] = stats.last_error_why
    return shown
