# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which output or input each stream of each guest gets."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TypeVar

from xenaudio.core.engine import ROUTE_NAME_MOST, ROUTE_PATH_MOST, Route, RouteKind

_T = TypeVar("_T")


class RouteError(ValueError):
    """A route's text means nothing, or the route leads nowhere."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"{text if len(text) <= 60 else f'{text[:60]}...'!r}: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class StreamPlace:
    """Whose stream it is."""

    guest: str
    device: int
    pcm: int
    stream: int
    unique_id: str = ""
    domid: int = -1  # -1: not known


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
            text,
            f"{device!r} is not the name of a sink or source (`pactl list short` names them)",
        )
    if len(os.fsencode(server)) > ROUTE_PATH_MOST or len(device) > ROUTE_NAME_MOST:
        raise RouteError(text, "it is too long")
    if not RouteKind.PULSE.built:
        raise RouteError(text, "this xenaudio was built without libpulse")
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
            text, f"not a route, expected 'null'{files}, 'pulse' or 'pulse:SERVER,DEVICE'"
        )
    path = os.path.abspath(path) + ("/" if path.endswith("/") else "")
    if len(os.fsencode(path)) > ROUTE_PATH_MOST - 256:
        raise RouteError(text, "the path is too long")
    folder = path if path.endswith("/") or os.path.isdir(path) else os.path.dirname(path)
    if capture and not (os.path.isfile(path) or os.path.isdir(path)):
        raise RouteError(text, "there is no such file or folder")
    if capture and not os.access(path, os.R_OK):
        raise RouteError(text, "it cannot be read")
    if not capture and not os.path.isdir(folder):
        raise RouteError(text, f"there is no folder {folder}")
    if not capture and not os.access(folder, os.W_OK | os.X_OK):
        raise RouteError(text, f"no file can be made in {folder}")
    return Route(RouteKind.FILE, path, kind == "loop")


def fits_guest(which: str | int | None, name: str, domid: int) -> bool:
    """Say whether a guest is meant: by a pattern of its name, by its domid, or (None) as any is.

    A pattern is a shell's: `*`, `?`, `[seq]`, in letters as they are.
    """
    if which is None:
        return True
    return which == domid if isinstance(which, int) else fnmatchcase(name, which)


@dataclass(frozen=True)
class RouteRule:
    """What some streams get. None: any of them; or, of what they get, nothing that is said."""

    guest: str | int | None = None
    """As for fits_guest."""
    card: int | None = None
    pcm: int | None = None
    unique_id: str | None = None
    """A pattern, as of a guest's name."""
    output: Route | None = None
    input: Route | None = None
    microphone: bool | None = None
    """Whether the guest may record from its input."""

    def fits(self, place: StreamPlace) -> bool:
        """Say whether the rule is about a stream."""
        return (
            fits_guest(self.guest, place.guest, place.domid)
            and self.card in (None, place.device)
            and self.pcm in (None, place.pcm)
            and (self.unique_id is None or fnmatchcase(place.unique_id, self.unique_id))
        )


@dataclass(frozen=True)
class Routes:
    """The routes of all guests: by the first rule that fits and says so; else as of all others."""

    output: Route
    input: Route
    rules: Sequence[RouteRule] = ()
    microphone: bool = True
    """Whether guests may record from their input, where no rule says."""

    def _ruled(self, place: StreamPlace, what: Callable[[RouteRule], _T | None], others: _T) -> _T:
        for rule in self.rules:
            if rule.fits(place) and (found := what(rule)) is not None:
                return found
        return others

    def allows_microphone(self, place: StreamPlace) -> bool:
        """Say whether a stream that records may have its input; else it records silence."""
        return self._ruled(place, lambda rule: rule.microphone, self.microphone)

    def route(self, place: StreamPlace, capture: bool) -> Route:
        """Return a stream's route. A folder becomes a file in it, named after the stream.

        A stream for which a folder of inputs has no file records silence. On a sound server people
        see it under the guest's name.
        """
        if not capture:
            route = self._ruled(place, lambda rule: rule.output, self.output)
        elif self.allows_microphone(place):
            route = self._ruled(place, lambda rule: rule.input, self.input)
        else:
            return Route()
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
