# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xenaudio demo`: recorded speech from a guest, through the ring, to a backend, on this machine.

Starts the stand-in for Xen, the backend in its domain 0 and a guest that plays, each a process of
its own, and tells what arrived. No Xen, sound card or root is needed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from xenaudio.cli.demo.clip import ClipError, make_clip
from xenaudio.cli.demo.run import DemoError, run_demo

DESCRIPTION = """\
Play speech from a guest to a backend over the stand-in for Xen, and report what arrived:
played.wav, report.json and picture.png in the folder given with --out. Exit status 0 only if every
frame arrived once, in order and bit for bit.
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
        "--period-ms", type=float, default=10.0, metavar="MS", help="period (default: 10)"
    )
    parser.add_argument(
        "--buffer-ms", type=float, default=80.0, metavar="MS", help="buffer (default: 80)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    try:
        clip = make_clip(args.file, args.out / "clip.wav")
        report = run_demo(clip, args.out, args.period_ms, args.buffer_ms)
    except (ClipError, DemoError) as error:
        print(f"xenaudio demo: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else error
        print(f"xenaudio demo: {what}", file=sys.stderr)
        return 1
    return 0 if report["bit_exact"] else 1
