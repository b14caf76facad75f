# SPDX-License-Identifier: LGPL-2.1-or-later
"""The `xenaudio` command: its subcommands, exit status and error messages.

Each subcommand is a module beside this one with `add_parser(subparsers)`, which adds its parser and
sets its default `run`, a function of the parsed arguments that returns the exit status.

Exit status: 0 done; 1 an error, told in one line on standard error; 2 a wrong command line; 130
interrupted from the keyboard.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import xenaudio
from xenaudio.core.errors import XenAudioError

log = logging.getLogger(__name__)

COMMANDS: tuple[str, ...] = (
    *("demo", "localhv", "serve", "check", "status", "render"),
    *("guestd", "play", "record", "bench"),
)

EPILOG = """\
begin with:
  xenaudio demo                  play recorded speech from a guest to a backend on this machine,
                                 without Xen, and report what arrived
  xenaudio localhv serve         start the stand-in for Xen, to try things by hand (README.md)
  xenaudio bench ring            measure the ring against a bare event channel and memcpy
"""


def parser(commands: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """Describe the command line, with these commands of COMMANDS; imports no other."""
    top = argparse.ArgumentParser(
        prog="xenaudio",
        description="Sound for Xen guests, over Xen's public sound protocol (sndif).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"xenaudio {xenaudio.__version__}")
    top.add_argument(
        "-v", "--verbose", action="count", default=0, help="say more (-vv: everything)"
    )
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in commands:
        import_module(f"xenaudio.cli.{command}").add_parser(subparsers)
    return top


def named(arguments: Sequence[str]) -> Sequence[str]:
    """Return the command that a command line names; all of them, when it names none.

    To import all takes longer than all that `xenaudio play` does until it plays.
    """
    first = next((argument for argument in arguments if not argument.startswith("-")), None)
    return [first] if first in COMMANDS else COMMANDS


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program's name); returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    args = parser(named(arguments)).parse_args(arguments)
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(args.verbose, 2)]
    logging.basicConfig(level=level, format="%(levelname)s: %(message)s")
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except XenAudioError as error:
        log.debug("where it failed", exc_info=True)
        print(f"xenaudio: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of our output has gone. Python's own flush at exit must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        log.debug("where it failed", exc_info=True)
        where = f"{error.filename}: " if error.filename else ""
        print(f"xenaudio: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
