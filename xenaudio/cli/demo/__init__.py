# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xenaudio demo`: recorded speech from a guest, through the ring, to a backend, on this machine.

Starts the stand-in for Xen, the backend in its domain 0, and in a guest the guest service, a
PulseAudio and a client of it, each a process of its own, and tells what arrived. No Xen, sound card
or root is needed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from xenaudio.backend.routes import RouteError, parse_route
from xenaudio.cli.demo.clip import ClipError, make_clip
from xenaudio.cli.demo.guest import CLIENTS
from xenaudio.cli.demo.run import DemoError, Settings, run_demo
from xenaudio.cli.headlesspulse import PulseMissingError
from xenaudio.cli.processes import ProcessError

DESCRIPTION = """\
Play speech from a guest to a backend over the stand-in for Xen, and report what arrived:
played.wav, report.json and picture.png in the folder given with --out. Exit status 0 only if every
frame arrived once, in order and bit for bit.

In the guest plays a client of a real PulseAudio, which has the card through the guest service; with
--client direct, a program right on the card. With --output pulse it is played aloud, by the
PulseAudio (or PipeWire) of the user who runs this; then nothing is compared, and the exit status is
0 if nothing was lost on the way there.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "demo",
        help="play recorded speech from a guest to a backend, without Xen",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help="a WAV or FLAC file to play (default: the voices of the package alsa-utils)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=Path("demo-out"),
        help="where the results go (default: demo-out)",
    )
    parser.add_argument(
        "--client",
        choices=tuple(CLIENTS),
        default="pulse",
        help="what plays in the guest: a client of PulseAudio, or a program right on the card"
        " (default: pulse)",
    )
    parser.add_argument(
        "--output",
        metavar="ROUTE",
        help="play aloud: 'pulse', or 'pulse:SERVER,DEVICE' (see `xenaudio serve --help`)",
    )
    parser.add_argument(
        "--period-ms",
        type=float,
        default=10.0,
        metavar="MS",
        help="period of the direct client (default: 10)",
    )
    parser.add_argument(
        "--buffer-ms",
        type=float,
        metavar="MS",
        help="buffer of the direct client (default: 80), or the latency that PulseAudio's is to"
        " have (default: 300)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    settings = Settings(args.out, args.client, args.output, args.period_ms, args.buffer_ms)
    try:
        if args.output is not None and not args.output.partition(":")[0] == "pulse":
            raise DemoError(f"--output {args.output}: expected 'pulse' or 'pulse:SERVER,DEVICE'")
        if args.output is not None:
            parse_route(args.output, capture=False)
        clip = make_clip(args.file, args.out / "clip.wav")
        report = run_demo(clip, settings)
    except PulseMissingError as error:
        print(f"xenaudio demo: {error}; or take --client direct", file=sys.stderr)
        return 1
    except (ClipError, DemoError, ProcessError, RouteError) as error:
        print(f"xenaudio demo: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else error
        print(f"xenaudio demo: {what}", file=sys.stderr)
        return 1
    if report["bit_exact"] is None:
        return 1 if report["frames_dropped"] else 0
    return 0 if report["bit_exact"] else 1
