# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which output or input each stream of each guest gets."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace

from xenaudio.core.engine import ROUTE_NAME_MOST, ROUTE_PATH_MOST, Route, RouteKind


class RouteError(ValueError):
    """A route's text means nothing."""


@dataclass(frozen=True)
class StreamPlace:
    """Whose stream it is."""

    guest: str
    device: int
    pcm: int
    stream: int


def _safe(name: str) -> str:
    """Make a guest's name fit to be part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip(".")[:64] or "guest"


def _pulse(text: str, where: str) -> Route:
    server, comma, device = where.rpartition(",")
    if not comma:
        server, device = where, ""
    elif not re.fullmatch(r"[A-Za-z0-9._@-]+", device):
        # PulseAudio's own rule for names (pulsecore/namereg.c), and its @DEFAULT_SINK@.
        raise RouteError(
            f"{text!r}: {device!r} is not the name of a sink or source"
            " (`pactl list short` names them)"
        )
    if len(os.fsencode(server)) > ROUTE_PATH_MOST or len(device) > ROUTE_NAME_MOST:
        raise RouteError(f"{text[:60]!r}...: it is too long")
    if not RouteKind.PULSE.built:
        raise RouteError(f"{text!r}: this xenaudio was built without libpulse")
    return Route(RouteKind.PULSE, server=server, device=device)


def parse_route(text: str, capture: bool) -> Route:
    """Read a route's text. RouteError.

    `null`, `file:PATH`, `loop:PATH` (capture only), `pulse`, or `pulse:SERVER`, `pulse:,DEVICE`,
    `pulse:SERVER,DEVICE`.
    """
    kind, colon, path = text.partition(":")
    if text == "null":
        return Route()
    if kind == "pulse" and bool(colon) == bool(path):
        return _pulse(text, path)
    kinds = ("file", "loop") if capture else ("file",)
    files = ", 'file:PATH', 'loop:PATH'" if capture else ", 'file:PATH'"
    if kind not in kinds or not path:
        raise RouteError(
            f"{text!r} is not a route, expected 'null'{files}, 'pulse' or 'pulse:SERVER,DEVICE'"
        )
    path = os.path.abspath(path) + ("/" if path.endswith("/") else "")
    if len(os.fsencode(path)) > ROUTE_PATH_MOST - 256:
        raise RouteError(f"{text[:60]!r}...: the path is too long")
    folder = path if path.endswith("/") or os.path.isdir(path) else os.path.dirname(path)
    if capture and not (os.path.isfile(path) or os.path.isdir(path)):
        raise RouteError(f"{text!r}: there is no such file or folder")
    if capture and not os.access(path, os.R_OK):
        raise RouteError(f"{text!r}: it cannot be read")
    if not capture and not os.path.isdir(folder):
        raise RouteError(f"{text!r}: there is no folder {folder}")
    if not capture and not os.access(folder, os.W_OK | os.X_OK):
        raise RouteError(f"{text!r}: no file can be made in {folder}")
    return Route(RouteKind.FILE, path, kind == "loop")


@dataclass(frozen=True)
class Routes:
    """The routes of all guests: one output and one input."""

    output: Route
    input: Route

    def route(self, place: StreamPlace, capture: bool) -> Route:
        """Return a stream's route. A folder becomes a file in it, named after the stream.

        A stream for which a folder of inputs has no file records silence. On a sound server people
        see it under the guest's name.
        """
        route = self.input if capture else self.output
        if route.kind is RouteKind.PULSE:
            what = "records" if capture else "plays"
            return replace(
                route,
                guest=place.guest,
                stream=f"card {place.device}, PCM {place.pcm}, stream {place.stream} {what}",
            )
        if route.kind is not RouteKind.FILE or not os.path.isdir(route.path):
            return route
        name = f"{_safe(place.guest)}-{place.device}-{place.pcm}-{place.stream}.wav"
        path = os.path.join(route.path, name)
        if capture and not os.path.isfile(path):
            return Route()
        return Route(RouteKind.FILE, path, route.loop)
