# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a manual page in mdoc(7) holds: its sections, the items of its lists, its examples."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SILENT = {"Xo", "Xc", "Oo", "Oc", "Op", "Ns", "No", "Nm", "Pq"}
_CALLED = {"Fl", "Ar", "Cm", "Li", "Pa", "Ev", "Dv", "Ql"}


@dataclass(frozen=True)
class Item:
    """The head of a list's item, or a line of the synopsis."""

    text: tuple[tuple[str, str], ...]
    """Macro and argument, each: ("Fl", "--hv"), ("Ar", "ADDRESS")."""

    def of(self, macro: str) -> tuple[str, ...]:
        """Return the arguments of a macro."""
        return tuple(word for name, word in self.text if name == macro and word != "|")

    @property
    def value(self) -> str:
        """What follows the option: its ARGUMENT, or `this | that`."""
        return " ".join(argument for macro, argument in self.text if macro in ("Ar", "Cm"))


def _item(words: list[str]) -> Item:
    found: list[tuple[str, str]] = []
    macro = ""
    for word in words:
        if word in _CALLED:
            macro = word
        elif word not in _SILENT and word not in (",", "\\-\\-"):
            found.append((macro, f"-{word}" if macro == "Fl" and word != "|" else word))
    return Item(tuple(found))


class Page:
    """A page, from its source."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = path.read_text().splitlines()

    @property
    def sections(self) -> dict[str, list[str]]:
        """The lines of each section (.Sh), in their order."""
        found: dict[str, list[str]] = {}
        for line in self.lines:
            if line.startswith(".Sh "):
                found[line.removeprefix(".Sh ")] = []
            elif found:
                found[next(reversed(found))].append(line)
        return found

    def items(self, section: str, subsection: str | None = None) -> list[Item]:
        """The items of a section's lists, or of one of its subsections (.Ss)."""
        return list(_items(_within(self.sections[section], subsection)))

    def macros(self, section: str) -> Iterator[Item]:
        """Each line of a section that is a macro's."""
        for line in self.sections[section]:
            if line.startswith("."):
                yield _item(line[1:].split())

    def references(self) -> set[tuple[str, str]]:
        """The pages that it refers to: name and section."""
        found = re.findall(r"^\.(?:It )?Xr (\S+) (\w+)", "\n".join(self.lines), re.MULTILINE)
        return set(found)

    def examples(self) -> Iterator[str]:
        """What is to be typed or written as it is: each literal block, and each line of its own."""
        block: list[str] | None = None
        for line in self.lines:
            if line.startswith(".Bd -literal"):
                block = []
            elif line == ".Ed" and block is not None:
                yield "\n".join(block)
                block = None
            elif block is not None:
                block.append(_plain(line))
            elif line.startswith(".Dl "):
                yield _plain(line.removeprefix(".Dl "))


def _plain(text: str) -> str:
    for escape, character in (("\\(aq", "'"), ("\\(dq", '"'), ("\\-", "-"), ("\\&", "")):
        text = text.replace(escape, character)
    return text


def _within(lines: list[str], subsection: str | None) -> list[str]:
    if subsection is None:
        return lines
    begin = lines.index(f".Ss {subsection}") + 1
    ends = [at for at in range(begin, len(lines)) if lines[at].startswith(".Ss ")]
    return lines[begin : ends[0] if ends else None]


def _items(lines: list[str]) -> Iterator[Item]:
    extended: list[str] | None = None  # a head of several lines, .It Xo to .Xc
    for line in lines:
        words = line.removeprefix(".").split()
        if extended is not None:
            extended += words
            if line == ".Xc":
                yield _item(extended)
                extended = None
        elif line == ".It Xo":
            extended = []
        elif line.startswith(".It "):
            yield _item(words[1:])
