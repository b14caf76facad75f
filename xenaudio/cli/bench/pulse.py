# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xenaudio bench pulse`: from one PulseAudio to another, by our path and by what users have else.

A client plays on the first PulseAudio, each frame with its number, and another one listens at the
null sink of the second. All paths are measured alternately, round by round; or at once.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, repeat
from pathlib import Path
from typing import Any

from xenaudio.cli.bench.pulsemeasure import Samples, measure
from xenaudio.cli.bench.pulsepaths import PATHS, XENAUDIO, SoundPath
from xenaudio.cli.headlesspulse import PulseMissingError, own_modules, sink_modules
from xenaudio.cli.processes import ProcessError
from xenaudio.core.engine import RouteKind

DESCRIPTION = """\
Measure how sound gets from one PulseAudio to another: by our path, over the stand-in for Xen; by
module-tunnel-sink over TCP with its default latency, with 20 ms and with 5 ms; and by
module-pipe-sink. 48 kHz, 16 bits, stereo, all on this machine, alternately.

latency    from a frame written by a client of the first PulseAudio until a client that records the
           second one's null sink has it
gaps       runs of silence and frames missing or out of turn
CPU        seconds of processor time for 60 s of sound, of all processes but the clients
wake-ups   voluntary context switches a second, of the same
reported   the latency that the first PulseAudio tells the client, less the one measured (of a frame
           heard, not yet recorded)
"""

CLIENT_MS = (10.0, 20.0)
OWN_CLIENT_MS = (5.0, *CLIENT_MS, 100.0)
PRIORITY = ("chrt", "--rr", "1")


def add_parser(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the measurement."""
    names = [path.name for path in PATHS]
    parser = kinds.add_parser(
        "pulse",
        help="from one PulseAudio to another, beside its tunnels and pipe",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object instead of a table"
    )
    parser.add_argument("--png", metavar="FILE", type=Path, help="draw a chart (needs matplotlib)")
    parser.add_argument(
        "--rounds", type=_positive, default=3, metavar="N", help="of all paths (default: 3)"
    )
    parser.add_argument(
        "--seconds",
        type=_positive,
        default=10,
        metavar="S",
        help="of each of a measurement's two parts (default: 10)",
    )
    parser.add_argument(
        "--together",
        action="store_true",
        help="measure all paths of a round at once instead of alternately: whatever the machine"
        " does to one it does to the others, so gaps can be compared (for a few paths)",
    )
    parser.add_argument(
        "--path",
        action="append",
        choices=names,
        metavar="NAME",
        help=f"measure only this one; may be repeated ({', '.join(map(repr, names))})",
    )
    parser.add_argument(
        "--client-ms",
        action="append",
        type=_positive,
        metavar="MS",
        help="the latency that the client asks for; may be repeated (default: 10 and 20,"
        " of our path 5 and 100 too)",
    )
    parser.set_defaults(run=run)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0, at most 3600")
    return int(value) if value == int(value) else value


def _quantile(values: Sequence[float], share: float) -> float | None:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3) if ordered else None


def _row(path: SoundPath, client_ms: float, found: Samples) -> dict[str, Any]:
    row: dict[str, Any] = {
        "path": path.name,
        "client_latency_ms": client_ms,
        "latency_ms": {
            "p50": _quantile(found.latency_ms, 0.5),
            "p99": _quantile(found.latency_ms, 0.99),
        },
        "cpu_s_per_60s": round(found.cpu_s_per_60s(), 3),
        "wakeups_per_s": round(found.wakeups_per_s(), 1),
        "gaps": found.gaps,
        "reported_minus_measured_ms": {
            name: _quantile(found.error_ms, share)
            for name, share in (("p5", 0.05), ("p50", 0.5), ("p95", 0.95))
        },
        "frames_compared": len(found.latency_ms),
        "processes": {
            name: {
                "cpu_s_per_60s": round(found.cpu_s_per_60s([name]), 3),
                "wakeups_per_s": round(found.wakeups_per_s([name]), 1),
            }
            for name in found.usage
        },
    }
    return row


def _prefix() -> tuple[str, ...]:
    """Return what runs a command before ordinary ones, as a desktop runs its sound server."""
    if shutil.which(PRIORITY[0]) is None:
        return ()
    works = subprocess.run([*PRIORITY, "true"], capture_output=True, check=False).returncode == 0
    return PRIORITY if works else ()


def _measure(
    cases: Sequence[tuple[SoundPath, float]],
    rounds: int,
    seconds: float,
    prefix: tuple[str, ...],
    together: bool,
) -> list[dict[str, Any]]:
    found = {case: Samples() for case in cases}
    folder = Path(tempfile.mkdtemp(prefix="xenaudio-"))  # short, for sockets

    def measure_one(number: int, i: int, case: tuple[SoundPath, float]) -> Samples:
        path, client_ms = case
        print(
            f"bench: round {number + 1} of {rounds}: {path.name}, client {client_ms:g} ms",
            file=sys.stderr,
        )
        with path.running(folder / f"{number}-{i}", prefix) as ends:
            return measure(ends, client_ms, seconds)

    try:
        with ThreadPoolExecutor(len(cases)) as pool:
            run = pool.map if together else map
            for number in range(rounds):
                measured = run(measure_one, repeat(number), count(), cases)
                for case, samples in zip(cases, measured, strict=True):
                    found[case].add(samples)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return [_row(path, client_ms, found[path, client_ms]) for path, client_ms in cases]


def _cases(names: Sequence[str] | None, clients: Sequence[float] | None) -> list[Any]:
    return [
        (path, client_ms)
        for path in PATHS
        if not names or path.name in names
        for client_ms in clients or (OWN_CLIENT_MS if path is XENAUDIO else CLIENT_MS)
    ]


def run(args: argparse.Namespace) -> int:
    """Run `bench pulse`."""
    try:
        own_modules()
        if not args.path or XENAUDIO.name in args.path:
            sink_modules()
        if not RouteKind.PULSE.built:
            raise PulseMissingError("this xenaudio was built without libpulse")
        prefix = _prefix()
        cases = _cases(args.path, args.client_ms)
        rows = _measure(cases, args.rounds, args.seconds, prefix, args.together)
    except (PulseMissingError, ProcessError) as error:
        print(f"xenaudio bench pulse: {error}", file=sys.stderr)
        return 1
    result = {
        "rounds": args.rounds,
        "seconds": args.seconds,
        "together": args.together,
        "realtime_priority": bool(prefix),
        "rows": rows,
    }
    if args.png is not None:
        from xenaudio.cli.bench.pulsechart import draw

        try:
            draw(args.png, rows)
        except ModuleNotFoundError as error:
            print(f"bench: no {args.png}: {error.name} is missing", file=sys.stderr)
    if args.json:
        print(json.dumps(result))
    else:
        _print(result)
    return 0


def _print(result: dict[str, Any]) -> None:
    print(
        f"{result['rounds']} round(s) of 2 x {result['seconds']:g} s, all paths"
        f" {'at once' if result['together'] else 'alternately'}; all processes at"
        f" {'real-time' if result['realtime_priority'] else 'ordinary'} priority"
    )
    print(
        f"{'path':<13} {'client':>7} {'latency p50':>12} {'p99':>8} {'CPU':>8} {'wake-ups':>9}"
        f" {'gaps':>5}   reported - measured p5, p50, p95"
    )
    for row in result["rows"]:
        latency, error = row["latency_ms"], row["reported_minus_measured_ms"]
        shown = [
            "-" if value is None else f"{value:.1f}"
            for value in (latency["p50"], latency["p99"], *error.values())
        ]
        print(
            f"{row['path']:<13} {row['client_latency_ms']:>4g} ms {shown[0]:>9} ms"
            f" {shown[1]:>5} ms {row['cpu_s_per_60s']:>6.2f} s {row['wakeups_per_s']:>7.0f}/s"
            f" {row['gaps']:>5}   {', '.join(shown[2:])} ms"
        )
