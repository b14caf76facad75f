# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service's configuration, /etc/xenaudio/xenaudio.toml.

    [[route]]                   # of tables that fit a stream, the first one that says so decides:
    guest = "desk-*"            # which: a pattern of the guest's name, or its domid
    card = 0                    #   the number of its card
    pcm = 0                     #   of the card's PCM device
    unique-id = "mic*"          #   a pattern of the stream's unique-id
    output = "pulse"            # what it gets: where it plays to (xenaudio/backend/routes.py)
    input = "null"              #   what it records from
    microphone = "allow"        #   or "deny": it records silence, whatever its input

    [[limits]]                  # in the same way, for each guest that fits
    guest = "desk-*"
    cards = 16
    streams = 128
    buffer-octets = 4194304
    handshakes-per-second = 4.0

Where nothing is said, and without a file, everything plays to and records from `null`, and
microphones are denied. The packaged file says more (packaging/backend/xenaudio.toml).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from xenaudio.backend.limits import Limits
from xenaudio.backend.routes import RouteError, RouteRule, Routes, fits_guest, parse_route
from xenaudio.core.engine import Route
from xenaudio.core.tomlfile import Table, TomlFile

DEFAULT_FILE = Path("/etc/xenaudio/xenaudio.toml")

DOMID_MOST = 0x7FEF  # below DOMID_FIRST_RESERVED of xen/xen.h
_DEVICE_MOST = 65535
_PCM_MOST = 31
_WHICH = ("guest", "card", "pcm", "unique-id")
"""Keys that say what a rule is for; the others say what it decides."""


@dataclass(frozen=True)
class LimitRule:
    """Limits of some guests. None: nothing is said about it."""

    guest: str | int | None = None
    """As for xenaudio.backend.routes.fits_guest."""
    cards: int | None = None
    streams: int | None = None
    buffer_octets: int | None = None
    handshakes_per_second: float | None = None


WITHOUT_A_FILE = Routes(Route(), Route(), microphone=False)


@dataclass(frozen=True)
class Config:
    """What the service goes by."""

    routes: Routes = WITHOUT_A_FILE
    limit_rules: tuple[LimitRule, ...] = ()
    file: Path | None = None
    """Where it was read from."""

    def limits(self, guest: str, domid: int) -> Limits:
        """Return what a guest may have."""
        found: dict[str, Any] = {}
        for rule in self.limit_rules:
            if fits_guest(rule.guest, guest, domid):
                for field in fields(Limits):
                    value = getattr(rule, field.name)
                    if value is not None:
                        found.setdefault(field.name, value)
        return Limits(**found)


def _guest(value: object) -> str | int:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= DOMID_MOST:
        return value
    raise ValueError(
        f"expected a guest's name, a pattern such as 'desk-*', or a domid from 0 to {DOMID_MOST}"
    )


def _route(value: object, *, capture: bool) -> Route:
    if not isinstance(value, str):
        raise ValueError("expected a route, such as 'null'")
    kind, _colon, path = value.partition(":")
    if kind in ("file", "loop") and path and not path.startswith("/"):
        raise ValueError("expected a path that begins with /: a service has no folder of its own")
    try:
        return parse_route(value, capture)
    except RouteError as error:
        raise ValueError(error.reason) from error


def _microphone(value: object) -> bool:
    if value not in ("allow", "deny"):
        raise ValueError('expected "allow" or "deny"')
    return value == "allow"


def _route_rule(table: Table) -> RouteRule:
    rule = RouteRule(
        guest=table.converted("guest", _guest),
        card=table.integer("card", 0, _DEVICE_MOST),
        pcm=table.integer("pcm", 0, _PCM_MOST),
        unique_id=table.string("unique-id", "the unique-id of a stream, or a pattern of it"),
        output=table.converted("output", partial(_route, capture=False)),
        input=table.converted("input", partial(_route, capture=True)),
        microphone=table.converted("microphone", _microphone),
    )
    table.no_more()
    if not any(key in table for key in ("output", "input", "microphone")):
        table.problem_here("it decides nothing: expected output, input or microphone")
    return rule


def _limit_rule(table: Table) -> LimitRule:
    rule = LimitRule(
        guest=table.converted("guest", _guest),
        cards=table.integer("cards", 0, 1024),
        streams=table.integer("streams", 0, 4096),
        # (A page of the guest, and what one guest's memory has room for: allowance.h.)
        buffer_octets=table.integer("buffer-octets", 4096, 64 << 20, "octets"),
        handshakes_per_second=table.number("handshakes-per-second", 0.1, 1000),
    )
    table.no_more()
    if not any(key in table for key in _names(LimitRule)):
        table.problem_here(
            "it limits nothing: expected cards, streams, buffer-octets or handshakes-per-second"
        )
    return rule


def _names(kind: type[RouteRule] | type[LimitRule]) -> list[str]:
    """Return the keys of what a rule decides."""
    names = [field.name.replace("_", "-") for field in fields(kind)]
    return [name for name in names if name not in _WHICH]


def _note_unreachable(
    tables: list[Table], names: list[str], is_for_all: Callable[[Table], bool]
) -> None:
    """Note tables that nothing can come to: all that they say is decided for all before them."""
    decided: set[str] = set()
    for table in tables:
        said = {name for name in names if name in table}
        if said and said <= decided:
            table.problem_here(
                f"it has no effect: a table before it decides {', '.join(sorted(said))}"
                " for all: expected it before that one"
            )
        if is_for_all(table):
            decided |= said


def parse(file: TomlFile) -> Config:
    """Make the configuration of a file. TomlFileError, with all that is wrong."""
    routes, limits = file.root.tables("route"), file.root.tables("limits")
    config = Config(
        replace(WITHOUT_A_FILE, rules=tuple(map(_route_rule, routes))),
        tuple(map(_limit_rule, limits)),
        Path(file.name),
    )
    file.root.no_more()
    for tables, names in ((routes, _names(RouteRule)), (limits, _names(LimitRule))):
        _note_unreachable(tables, names, lambda table: not any(key in table for key in _WHICH))
    file.finish()
    return config


def read(path: Path) -> Config:
    """Read a file. OSError; TomlFileError, with all that is wrong."""
    return parse(TomlFile.read(path))


def read_default() -> Config:
    """Read the usual file if there is one; else return what counts without. As `read`."""
    return read(DEFAULT_FILE) if DEFAULT_FILE.exists() else Config()
