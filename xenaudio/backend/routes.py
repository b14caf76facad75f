# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which output or input each stream of each guest gets."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from xenaudio.core.engine import ROUTE_PATH_MOST, Route, RouteKind


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


def parse_route(text: str, capture: bool) -> Route:
    """Read a route: `null`, `file:PATH`, or `loop:PATH` (capture only). RouteError."""
    kind, _, path = text.partition(":")
    if text == "null":
        return Route()
    kinds = ("file", "loop") if capture else ("file",)
    expected = "'null', 'file:PATH' or 'loop:PATH'" if capture else "'null' or 'file:PATH'"
    if kind not in kinds or not path:
        raise RouteError(f"{text!r} is not a route, expected {expected}")
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

        A stream for which a folder of inputs has no file records silence.
        """
        route = self.input if capture else self.output
        if route.kind is not RouteKind.FILE or not os.path.isdir(route.path):
            return route
        name = f"{_safe(place.guest)}-{place.device}-{place.pcm}-{place.stream}.wav"
        path = os.path.join(route.path, name)
        if capture and not os.path.isfile(path):
            return Route()
        return Route(RouteKind.FILE, path, route.loop)
