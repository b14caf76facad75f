# SPDX-License-Identifier: LGPL-2.1-or-later
"""xl's configuration files (xl.cfg(5)), read with the places of all settings, so as to edit one.

The grammar is that of libxlutil (tools/libs/util/libxlu_cfg_l.l and _y.y of Xen 4.17): what that
library refuses is refused, with line and column. Two things that it takes are refused too, as it
makes something else of them: digits after a backslash, and a zero octet.

Text is what octets decode to as UTF-8 with surrogateescape, so that any file comes out as it went
in. Offsets, and columns, are in characters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

DEPTH_MOST = 32
"""Lists within lists; xl itself knows two."""

Value = str | list["Value"]

# (xl's [0-9][0-9a-fx]* and [a-z][._0-9a-z]*: case matters, and there is no other word.)
_TOKEN = re.compile(
    r"""(?P<blank>[ \t]+)
    |(?P<newline>\n|\#[^\n]*\n)
    |(?P<string>'(?:[^'\\\n]|\\[^\n])*'|"(?:[^"\\\n]|\\[^\n])*")
    |(?P<number>[0-9][0-9a-fx]*)
    |(?P<name>[a-z][._0-9a-z]*)
    |(?P<mark>\+=|[=;,\[\]])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "'": "'",
    '"': '"',
    "\\": "\\",
}


class XlCfgError(ValueError):
    """What is wrong, where. Line and column count from 1."""

    def __init__(self, line: int, column: int, what: str) -> None:
        super().__init__(f"line {line}, column {column}: {what}")
        self.line = line
        self.column = column


@dataclass(frozen=True)
class Setting:
    """One NAME = VALUE, or NAME += VALUE, of a file."""

    name: str
    adds: bool
    value: Value
    begin: int
    """Offset of the name."""
    value_begin: int
    end: int
    """Offset after the value."""
    line: int


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def parse(text: str) -> list[Setting]:
    """Read a file. XlCfgError."""
    return _Parser(text).settings()


def with_setting(text: str, name: str, value: str) -> str:
    """Return the text with `name` set to `value`, as xl.cfg has it, and else as it was.

    The value that is there is replaced, or the setting added at the end. XlCfgError when the text
    cannot be read, sets the name more than once, or adds to it.
    """
    found = only(text, name)
    if found is not None:
        return text[: found.value_begin] + value + text[found.end :]
    if not text or text.endswith("\n"):
        return f"{text}{name} = {value}\n"
    return f"{text}\n{name} = {value}"


def without_setting(text: str, name: str) -> str:
    """Return the text without the setting, and else as it was. XlCfgError as for with_setting.

    What with_setting added goes without a trace. The setting's line goes if nothing else is on it;
    a comment behind it stays.
    """
    found = only(text, name)
    if found is None:
        return text
    before, after = text[: found.begin], text[found.end :]
    line_before = before[before.rfind("\n") + 1 :]
    separator = re.match(r"[ \t]*;[ \t]*", after)
    if separator is not None:
        after = after[separator.end() :]
    if line_before.strip(" \t") == "":
        whole = re.match(r"[ \t]*(\n|\Z)", after)
        if whole is not None:
            before, after = before[: len(before) - len(line_before)], after[whole.end() :]
            # What with_setting put in front at the end of a file. (A comment needs its line's end.)
            if not whole[1] and _can_be_read(before[:-1]):
                before = before[:-1]
    return before + after


def only(text: str, name: str) -> Setting | None:
    """Return the one setting of that name, if there is one. XlCfgError."""
    found = [setting for setting in parse(text) if setting.name == name]
    if not found:
        return None
    if len(found) > 1:
        _refuse(
            text,
            found[1].begin,
            f"{name} is set here too, after line {found[0].line}: expected it once (of several,"
            " xl takes the last)",
        )
    if found[0].adds:
        _refuse(text, found[0].begin, f"{name} +=: expected {name} =")
    return found[0]


def _can_be_read(text: str) -> bool:
    try:
        parse(text)
    except XlCfgError:
        return False
    return True


def _refuse(text: str, at: int, what: str) -> NoReturn:
    begin = text.rfind("\n", 0, at) + 1
    raise XlCfgError(text.count("\n", 0, at) + 1, at - begin + 1, what)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._read()
        self._next = 0

    def _read(self) -> list[_Token]:
        found = []
        at = 0
        while at < len(self._text):
            match = _TOKEN.match(self._text, at)
            if match is None:
                self._refuse_character(at)
            kind = match.lastgroup or ""
            if kind == "string":
                self._check_string(match.group(), at)
            if kind != "blank":
                found.append(_Token(kind, match.group(), at))
            at = match.end()
        found.append(_Token("end", "", at))
        return found

    def _refuse_character(self, at: int) -> NoReturn:
        character = self._text[at]
        what = f"{character!r}: expected NAME = VALUE"
        if character in "'\"":
            what = f"a string that is not closed: expected {character} before the line's end"
        elif character == "#":
            what = "a comment that no end of line follows: xl takes none"
        elif character == "\r":
            what = "a carriage return: expected lines that end with a line feed alone"
        elif character == "\\":
            what = "a backslash: xl knows no continued lines"
        elif character in "+-.():{}":
            what = f"{character!r}: this looks like Python, which xl does not run"
        elif character.isascii() and character.isupper():
            what = f"{character!r}: expected a name in small letters, a string or a number"
        _refuse(self._text, at, what)

    def _check_string(self, quoted: str, at: int) -> None:
        if "\0" in quoted:
            _refuse(self._text, at + quoted.index("\0"), "a zero octet: expected text")
        for escape in _ESCAPE.finditer(quoted, 1, len(quoted) - 1):
            if escape[1] not in _ESCAPES:
                _refuse(
                    self._text,
                    at + escape.start(),
                    f"{escape[0]}: expected one of {' '.join(sorted(_ESCAPES))} after a backslash",
                )

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next += 1
        return token

    def _is_mark(self, *marks: str) -> bool:
        token = self._peek()
        return token.kind == "mark" and token.text in marks

    def _unexpected(self, expected: str) -> NoReturn:
        token = self._peek()
        shown = {"newline": "the end of the line", "end": "the end of the file"}.get(
            token.kind, repr(token.text)
        )
        _refuse(self._text, token.at, f"{shown}: expected {expected}")

    def settings(self) -> list[Setting]:
        found = []
        while self._peek().kind != "end":
            if self._peek().kind == "newline" or self._is_mark(";"):
                self._take()
                continue
            if self._peek().kind != "name":
                self._unexpected("NAME = VALUE")
            found.append(self._setting())
            if self._peek().kind not in ("newline", "end") and not self._is_mark(";"):
                self._unexpected(f"the end of the line or ';' after {found[-1].name}'s value")
        return found

    def _setting(self) -> Setting:
        name = self._take()
        if not self._is_mark("=", "+="):
            self._unexpected(f"= after {name.text}")
        adds = self._take().text == "+="
        value_begin = self._peek().at
        value, end = self._value(0)
        line = self._text.count("\n", 0, name.at) + 1
        return Setting(name.text, adds, value, name.at, value_begin, end, line)

    def _value(self, depth: int) -> tuple[Value, int]:
        token = self._peek()
        if token.kind == "string":
            self._take()
            return _unquoted(token.text), token.at + len(token.text)
        if token.kind == "number":
            self._take()
            return token.text, token.at + len(token.text)
        if not self._is_mark("["):
            self._unexpected("a string in quotes, a number or a list")
        if depth == DEPTH_MOST:
            _refuse(self._text, token.at, f"lists nested deeper than {DEPTH_MOST}")
        return self._list(depth)

    def _list(self, depth: int) -> tuple[Value, int]:
        self._take()
        values: list[Value] = []
        self._skip_newlines()
        while not self._is_mark("]"):
            values.append(self._value(depth + 1)[0])
            self._skip_newlines()
            if self._is_mark(","):
                self._take()
                self._skip_newlines()
            elif not self._is_mark("]"):
                self._unexpected("',' or ']' in the list")
        return values, self._take().at + 1

    def _skip_newlines(self) -> None:
        while self._peek().kind == "newline":
            self._take()


def _unquoted(quoted: str) -> str:
    return _ESCAPE.sub(lambda escape: _ESCAPES[escape[1]], quoted[1:-1])
