# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xenaudio check`: what is wrong with the service's configuration file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from xenaudio.backend.config import DEFAULT_FILE, read
from xenaudio.core.tomlfile import TomlFileError

DESCRIPTION = f"""\
Read the backend's configuration file as `xenaudio serve` does, and tell all that is wrong with it,
a line each: FILE:LINE: KEY = VALUE: what was expected. Nothing is changed, and no service is asked.

Whether files and folders of routes are there and may be used is checked as the user who runs this;
the service is the user xenaudio, so: sudo -u xenaudio xenaudio check

Exit status: 0 the file is right (or {DEFAULT_FILE} is not there: it need not be);
1 something is wrong.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "check",
        help="tell what is wrong with the backend's configuration file",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        type=Path,
        help=f"the file (default: {DEFAULT_FILE})",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    file = args.file or DEFAULT_FILE
    if args.file is None and not file.exists():
        print(f"{file}: there is none: all guests play to nowhere and record silence")
        return 0
    try:
        config = read(file)
    except TomlFileError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{file}: right: {len(config.routes.rules)} routes, {len(config.limit_rules)} limits")
    return 0
