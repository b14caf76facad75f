# SPDX-License-Identifier: LGPL-2.1-or-later
"""A TOML file that people write, read so that all that is wrong with it is told in one go.

Each problem names the file, the line, the key, its value and what was expected. No library of
TOML that distributions have tells the lines of keys (tomllib and tomli do not, tomlkit neither), so
they are found with tomllib itself: see _statement_lines.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE_MOST = 256 * 1024
"""Octets of a file; more are a mistake."""

Steps = tuple[str | int, ...]
"""The way to a value: keys of tables and, from 0, positions in arrays."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. Its text is the whole message, in one line."""

    file: str
    line: int
    """From 1; of the statement in which it is, where a value has several lines."""
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


class TomlFileError(ValueError):
    """A file that cannot be used. Its text has a line for each problem, in the file's order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line))
        super().__init__("\n".join(map(str, self.problems)))


def _statement_lines(text: str) -> dict[Steps, int]:
    """Return the line on which each table's header, and each key, of a valid file begins.

    A statement of TOML (a header, or a key with its value) ends at the end of a line, and no part
    of one that ends earlier is valid by itself. So each is what, from the end of the one before,
    tomllib takes for the first time.
    """
    found: dict[Steps, int] = {}
    counts: dict[Steps, int] = {}  # of tables in arrays of tables, so far
    table: Steps = ()
    statement, begins = "", 1
    for number, line in enumerate(text.split("\n"), 1):
        if not statement:
            begins = number
        statement += line + "\n"
        try:
            tree = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        if statement.lstrip(" \t").startswith("["):
            table = _header(tree, counts)
            for length in range(1, len(table) + 1):
                found.setdefault(table[:length], begins)
        else:
            for steps in _walk(tree):
                found.setdefault(table + steps, begins)
        statement = ""
    return found


def _header(tree: dict[str, Any], counts: dict[Steps, int]) -> Steps:
    """Return where a header leads to, from what tomllib makes of it alone."""
    steps: Steps = ()
    here: Any = tree
    while here:
        (key,) = here
        here = here[key]
        steps += (key,)
        if isinstance(here, list):
            counts[steps] = counts.get(steps, 0) + 1
            here = None
        if steps in counts:
            steps += (counts[steps] - 1,)
    return steps


def _walk(value: Any) -> Iterator[Steps]:
    if isinstance(value, dict | list):
        for step, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield (step,)
            for steps in _walk(below):
                yield (step, *steps)


def _unquoted(line: str) -> str | None:
    """Say what is wrong with a line whose value is a string without quotes; None: it is not."""
    found = re.fullmatch(r"\s*([\w.-]+)\s*=\s*([A-Za-z_/.][^\"'#]*?)\s*(#.*)?", line)
    return found and f"{found[1]} = {found[2]}: expected a string in quotes, {shown(found[2])}"


def shown(value: object) -> str:
    """Return a value as TOML has it, cut to a length for a message."""
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, dict):
        text = "{...}"
    elif isinstance(value, list):
        text = f"[{', '.join(map(shown, value))}]"
    else:
        text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


class TomlFile:
    """A file that was read. Take what is expected from its tables; then `finish`."""

    def __init__(self, name: str, text: str) -> None:
        """`name` is for messages. TomlFileError when it is not TOML."""
        self.name = name
        self._text = text
        self._problems: list[Problem] = []
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", str(error))
            what, line = str(error), 1
            if place is not None:
                what = what[: place.start()]
                line = int(place[1] or len(text.rstrip("\n").split("\n")))
            unquoted = _unquoted(text.split("\n")[line - 1]) if what == "Invalid value" else None
            what = unquoted or f"this is not TOML: {what}"
            raise TomlFileError([Problem(name, line, what)]) from error
        self.root = Table(self, (), data)

    @classmethod
    def read(cls, path: Path) -> TomlFile:
        """Read a file. OSError, TomlFileError."""
        octets = path.read_bytes()
        if len(octets) > FILE_MOST:
            what = f"it has {len(octets)} octets, expected at most {FILE_MOST}"
            raise TomlFileError([Problem(str(path), 1, what)])
        try:
            return cls(str(path), octets.decode())
        except UnicodeDecodeError as error:
            line = octets[: error.start].count(b"\n") + 1
            what = f"this is not TOML: the octet 0x{octets[error.start]:02x}, expected UTF-8"
            raise TomlFileError([Problem(str(path), line, what)]) from error

    @cached_property
    def _lines(self) -> dict[Steps, int]:
        return _statement_lines(self._text)

    def add_problem(self, steps: Steps, what: str) -> None:
        """Note what is wrong with the value there, or with what surrounds it if there is none."""
        while steps and steps not in self._lines:
            steps = steps[:-1]
        self._problems.append(Problem(self.name, self._lines.get(steps, 1), what))

    def finish(self) -> None:
        """Raise TomlFileError when anything was wrong."""
        if self._problems:
            raise TomlFileError(self._problems)


class Table:
    """A table. Each method takes a key that is expected there; None when it is not given.

    What is wrong is noted with the file, and None is returned in its place: so one reading finds
    all that is wrong.
    """

    def __init__(self, file: TomlFile, steps: Steps, data: dict[str, Any]) -> None:
        self._file = file
        self._steps = steps
        self._data = data
        self._known: list[str] = []

    def __contains__(self, key: str) -> bool:
        """Say whether the key is given, rightly or not."""
        return key in self._data

    @property
    def _header(self) -> str:
        names = ".".join(str(step) for step in self._steps if isinstance(step, str))
        if not names:
            return "the top of the file"
        return f"[[{names}]]" if isinstance(self._steps[-1], int) else f"[{names}]"

    def problem(self, key: str, expected: str) -> None:
        """Note that a key's value is not what was expected."""
        what = f"{key} = {shown(self._data[key])}: {expected}"
        self._file.add_problem((*self._steps, key), what)

    def problem_here(self, what: str) -> None:
        """Note something about the table as a whole."""
        self._file.add_problem(self._steps, f"{self._header}: {what}")

    def missing(self, key: str, expected: str) -> None:
        """Note that a key is missing, unless it is there."""
        if key not in self._data:
            self.problem_here(f"{key} is missing: expected {expected}")

    def _take(self, key: str, fits: Callable[[Any], bool], expected: str) -> Any:
        self._known.append(key)
        if key not in self._data:
            return None
        if fits(self._data[key]):
            return self._data[key]
        self.problem(key, f"expected {expected}")
        return None

    def string(self, key: str, expected: str = "a string") -> str | None:
        """Take a string that is not empty."""
        found: str | None = self._take(
            key, lambda value: isinstance(value, str) and value != "", expected
        )
        return found

    def choice(self, key: str, choices: Sequence[str]) -> str | None:
        """Take one of some strings."""
        found: str | None = self._take(
            key, lambda value: value in choices, " or ".join(f'"{name}"' for name in choices)
        )
        return found

    def integer(self, key: str, low: int, high: int, unit: str = "") -> int | None:
        """Take a whole number within bounds; its unit is for the message."""
        what = f"a whole number{' of ' + unit if unit else ''} from {low} to {high}"
        found: int | None = self._take(
            key, lambda value: _is_integer(value) and low <= value <= high, what
        )
        return found

    def number(self, key: str, low: float, high: float) -> float | None:
        """Take a number within bounds."""
        found = self._take(
            key,
            lambda value: (_is_integer(value) or isinstance(value, float)) and low <= value <= high,
            f"a number from {low:g} to {high:g}",
        )
        return None if found is None else float(found)

    def array(
        self, key: str, fits: Callable[[Any], bool], expected: str, most: int
    ) -> list[Any] | None:
        """Take an array of 1 to `most` values that all fit."""
        values: list[Any] | None = self._take(
            key,
            lambda value: isinstance(value, list) and 1 <= len(value) <= most,
            f"an array of 1 to {most} values, each {expected}",
        )
        for at, value in enumerate(values or ()):
            if not fits(value):
                what = f"{key} = [...]: {shown(value)}, number {at + 1}: expected {expected}"
                self._file.add_problem((*self._steps, key, at), what)
                values = None
        return values

    def converted(self, key: str, convert: Callable[[Any], _T]) -> _T | None:
        """Take what `convert` makes of a value; its ValueError's text says what was expected."""
        self._known.append(key)
        if key not in self._data:
            return None
        try:
            return convert(self._data[key])
        except ValueError as error:
            self.problem(key, str(error))
            return None

    def table(self, key: str) -> Table | None:
        """Take a table, [key]."""
        found = self._take(key, lambda value: isinstance(value, dict), f"a table, [{key}]")
        return None if found is None else Table(self._file, (*self._steps, key), found)

    def tables(self, key: str) -> list[Table]:
        """Take an array of tables, each begun with [[key]]; empty when there is none."""
        names = ".".join([*(str(s) for s in self._steps if isinstance(s, str)), key])
        found = self._take(
            key,
            lambda value: (
                isinstance(value, list)
                and len(value) > 0
                and all(isinstance(v, dict) for v in value)
            ),
            f"tables that each begin with [[{names}]]",
        )
        return [
            Table(self._file, (*self._steps, key, at), data) for at, data in enumerate(found or ())
        ]

    def no_more(self) -> None:
        """Note each key that was not taken."""
        for key in self._data:
            if key in self._known:
                continue
            close = difflib.get_close_matches(key, self._known, 1)
            hint = f"did you mean {close[0]}? " if close else ""
            what = (
                f"{key} = {shown(self._data[key])}: unknown key in {self._header}: {hint}"
                f"expected {', '.join(self._known)}"
            )
            self._file.add_problem((*self._steps, key), what)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
