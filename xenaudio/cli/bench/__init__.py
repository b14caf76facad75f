# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xenaudio bench`: measurements, each beside what it is compared with, in one run."""

from __future__ import annotations

import argparse

from xenaudio.cli.bench import pulse, ring


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "bench", help="measure, beside a baseline in the same run", description=__doc__
    )
    kinds = parser.add_subparsers(title="measurements", metavar="WHAT", required=True)
    for kind in (ring, pulse):
        kind.add_parser(kinds)
