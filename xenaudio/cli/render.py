# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xenaudio render`: what xl and a guest's PulseAudio are told, from a description of its sound."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from xenaudio.core.tomlfile import TomlFile, TomlFileError
from xenaudio.render import GuestSound, parse

DESCRIPTION = """\
Read a description of a guest's sound, and print the `vsnd =` stanza for its xl configuration, and
the lines for its PulseAudio's default.pa. What xl refuses, crashes on, or takes and makes nonsense
of is refused, as FILE:LINE: KEY = VALUE: what was expected.

A description is TOML; only `type` must be there:

  [[card]]
  short-name = "Main"             # long-name = "..." too; what the guest's users see
  backend = "sound"               # the domain that serves the card, if not Domain-0
  sample-rates = [44100, 48000]   # Hz
  sample-formats = ["s16_le"]     # as xl names them: s16_le, s32_le, f32_le, u8, ...
  channels-min = 1
  channels-max = 2
  buffer-size = 65536             # octets

  [[card.pcm]]
  name = "Main"                   # and, as for a card, rates, formats, channels, buffer

  [[card.pcm.stream]]
  type = "playback"               # or "capture"; and rates, formats, channels, buffer
  unique-id = "out"

  [pulseaudio]
  latency-ms = 100                # the longest, of each sink and source: 2 to 2000

The guest does not start while no backend serves: have `xenaudio status` show one first. A stock
Linux guest (snd_xen_front) has room for one card.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "render",
        help="print a guest's vsnd= stanza and PulseAudio's lines, from one description",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="the description; - is standard input")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--vsnd", action="store_true", help="print the stanza for xl only")
    which.add_argument(
        "--pulseaudio", action="store_true", help="print the lines for default.pa only"
    )
    which.add_argument(
        "--json",
        action="store_true",
        help="print an object: vsnd (for each card its list of strings), detect and modules (lines"
        " for default.pa: the one, or all of the others)",
    )
    parser.set_defaults(run=run)


def _pulseaudio(sound: GuestSound) -> str:
    lines = [sound.detect()]
    if modules := sound.modules():
        lines += ["# or, in its place, one by one:", *(f"# {line}" for line in modules)]
    return "\n".join(lines) + "\n"


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    try:
        if args.file == "-":
            file = TomlFile("<stdin>", sys.stdin.read())
        else:
            file = TomlFile.read(Path(args.file))
        sound = parse(file)
    except TomlFileError as error:
        print(error, file=sys.stderr)
        return 1
    if args.json:
        vsnd = [card.items() for card in sound.cards]
        shown = {"vsnd": vsnd, "detect": sound.detect(), "modules": sound.modules()}
        print(json.dumps(shown, indent=2))
    elif args.vsnd:
        print(sound.vsnd(), end="")
    elif args.pulseaudio:
        print(_pulseaudio(sound), end="")
    else:
        print("# In the guest's xl configuration:", sound.vsnd(), sep="\n")
        print("# In the guest's /etc/pulse/default.pa:", _pulseaudio(sound), sep="\n", end="")
    return 0
