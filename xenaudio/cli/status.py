# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xenaudio status`: what the running backend does, for people or as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xenaudio.backend.control import SOCKET, ControlError, ask

DESCRIPTION = """\
Show what the running backend does: its guests, their cards and streams; where each plays to or
records from; how much it has stored, how late it is heard, and how many gaps there were.

fill: what the backend has of a stream at the moment; latency: with what its output has and nobody
has heard yet; gaps: times that sound was missing since the card connected.

It asks through a socket that root and members of the group xenaudio may use. Exit status: 0; 1 when
no service answers.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "status",
        help="show what the running backend does",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print all that is known as a JSON object (its keys end in their units)",
    )
    parser.add_argument(
        "--control",
        metavar="PATH",
        type=Path,
        default=SOCKET,
        help=f"the service's control socket (default: {SOCKET})",
    )
    parser.set_defaults(run=run)


def _duration(seconds: float) -> str:
    for unit, least in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * least:
            return f"{seconds / least:.0f} {unit}"
    return f"{seconds:.0f} s"


def _lines(status: dict[str, Any]) -> Iterator[str]:
    yield (
        f"xenaudio {status['version']} serves domain {status['domid']} through"
        f" {status['hypervisor']} for {_duration(status['uptime_s'])};"
        f" configuration: {status['config'] or 'no file'}"
    )
    if status["config_refused"]:
        yield "the configuration file was refused when last read, what was before is in force:"
        yield from (f"  {line}" for line in status["config_refused"].splitlines())
    if not status["guests"]:
        yield "no guest has a sound card"
    for guest in status["guests"]:
        yield f"{_plain(guest['guest'])} (domain {guest['domid']})"
        for card in guest["cards"]:
            name = f" {_plain(card['short_name'])}" if card["short_name"] else ""
            yield f"  card {card['card']}{name}: {card['state']}"
            for stream in card["streams"]:
                yield from (f"    {line}" for line in _stream(stream))


def _stream(stream: dict[str, Any]) -> Iterator[str]:
    capture = stream["direction"] == "capture"
    where = "silence, microphone denied" if stream["microphone_denied"] else stream["route"]
    name = f" {_plain(stream['unique_id'])}" if stream["unique_id"] else ""
    parts = [
        f"{stream['direction']} {stream['pcm']}/{stream['stream']}{name}"
        f" {'from' if capture else 'to'} {where}: {stream['state']}"
    ]
    if stream["rate_hz"] is not None:
        parts.append(f"{stream['format']} {stream['rate_hz']} Hz {stream['channels']} ch")
        parts.append(f"fill {stream['fill_us'] / 1000:.1f} ms")
        parts.append(f"latency {stream['latency_us'] / 1000:.1f} ms")
    parts.append(f"{stream['gaps']} gaps")
    yield ", ".join(parts)
    if stream["trouble"]:
        yield f"  trouble: {stream['trouble']}"
    if stream["rerouted_when_reconnected"]:
        yield "  the configuration has another route for it, from its card's next connection on"


def _plain(text: str) -> str:
    """Return a guest's text without what a terminal would act on."""
    return "".join(c if c.isprintable() else "?" for c in text)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    try:
        status = ask(args.control, "status")
    except ControlError as error:
        print(f"xenaudio status: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(status, indent=2))
    else:
        print("\n".join(_lines(status)))
    return 0
