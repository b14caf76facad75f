# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is wrong with a TOML file is told with file, line, key, value and what was expected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from xenaudio.core.tomlfile import FILE_MOST, Table, TomlFile, TomlFileError

# Each key's value is the line on which the statement begins.
LINES = '''\
# A comment, and a line of blanks.
   \t
top = 3
"quoted ]key = 1" = 4
text = """
[not.a.table]
not = "a key"
""" # 5
array = [ # 9
  1,
  [ 2 ],
]
inline = { a = 13, b = { c = 13 } }
dotted.key . name = 14
[table]
x = 16
[ table . "below" ] # a comment [[no.table]]
x = 18
[[many]]
x = 20
[[many]]
x = 22
[many.below]
x = 24
[[many.more]]
x = 26
  [[many.more]]
  x = 28\r
[[many]]
x = 30
'''


@pytest.mark.parametrize(
    ("steps", "line"),
    [
        (("top",), 3),
        (("quoted ]key = 1",), 4),
        (("text",), 5),
        (("array",), 9),
        (("array", 1, 0), 9),
        (("inline", "b", "c"), 13),
        (("dotted", "key", "name"), 14),
        (("table",), 15),
        (("table", "x"), 16),
        (("table", "below"), 17),
        (("table", "below", "x"), 18),
        (("many",), 19),
        (("many", 0), 19),
        (("many", 0, "x"), 20),
        (("many", 1, "x"), 22),
        (("many", 1, "below", "x"), 24),
        (("many", 1, "more", 0, "x"), 26),
        (("many", 1, "more", 1), 27),
        (("many", 1, "more", 1, "x"), 28),
        (("many", 2, "x"), 30),
        # What is not there is told where it should be.
        (("many", 2, "none", 7), 29),
        (("none",), 1),
    ],
)
def test_each_problem_has_its_line(steps: tuple[str | int, ...], line: int) -> None:
    file = TomlFile("f", LINES)
    file.add_problem(steps, "wrong")
    with pytest.raises(TomlFileError) as raised:
        file.finish()
    assert str(raised.value) == f"f:{line}: wrong"


def take(text: str, taker: Callable[[Table], object]) -> str:
    """Take something of a file that is not right; return what is said about it."""
    file = TomlFile("f", text)
    assert taker(file.root) in (None, [])
    with pytest.raises(TomlFileError) as raised:
        file.finish()
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "taker", "message"),
    [
        ("k = 1", lambda t: t.string("k"), "k = 1: expected a string"),
        ('k = ""', lambda t: t.string("k", "a name"), 'k = "": expected a name'),
        (
            'k = "c"',
            lambda t: t.choice("k", ("a", "b")),
            'k = "c": expected "a" or "b"',
        ),
        ("k = [1]", lambda t: t.choice("k", ("a",)), 'k = [1]: expected "a"'),
        ("k = 5", lambda t: t.integer("k", 6, 9), "k = 5: expected a whole number from 6 to 9"),
        (
            "k = 1.5",
            lambda t: t.integer("k", 1, 2, "octets"),
            "k = 1.5: expected a whole number of octets from 1 to 2",
        ),
        (
            "k = true",
            lambda t: t.integer("k", 0, 2),
            "k = true: expected a whole number from 0 to 2",
        ),
        ("k = nan", lambda t: t.number("k", 0, 1), "k = nan: expected a number from 0 to 1"),
        ("k = false", lambda t: t.number("k", 0, 1), "k = false: expected a number from 0 to 1"),
        (
            "k = [1, 'x']",
            lambda t: t.array("k", lambda v: v == 1, "1", 2),
            'k = [...]: "x", number 2: expected 1',
        ),
        (
            "k = [1, 1, 1]",
            lambda t: t.array("k", lambda v: v == 1, "1", 2),
            "k = [1, 1, 1]: expected an array of 1 to 2 values, each 1",
        ),
        ("k = 1", lambda t: t.table("k"), "k = 1: expected a table, [k]"),
        ("[k]", lambda t: t.tables("k"), "k = {...}: expected tables that each begin with [[k]]"),
        ("k = [1]", lambda t: t.tables("k"), "k = [1]: expected tables that each begin with [[k]]"),
        (
            'k = "' + "x" * 100 + '"',
            lambda t: t.integer("k", 0, 1),
            'k = "' + "x" * 56 + "...: expected a whole number from 0 to 1",
        ),
        ("k = 2021-01-01", lambda t: t.string("k"), "k = 2021-01-01: expected a string"),
    ],
)
def test_what_is_not_as_expected_is_told(
    text: str, taker: Callable[[Table], object], message: str
) -> None:
    assert take(text, taker) == f"f:1: {message}"


def test_a_key_that_is_unknown_is_told_with_those_that_are_known() -> None:
    def take_all(table: Table) -> None:
        table.string("output")
        table.string("input")
        table.no_more()

    assert take("inputt = 1\nzebra = 2", take_all).splitlines() == [
        "f:1: inputt = 1: unknown key in the top of the file: did you mean input?"
        " expected output, input",
        "f:2: zebra = 2: unknown key in the top of the file: expected output, input",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\nb 2\n", "f:2: this is not TOML: Expected '=' after a key in a key/value pair"),
        ("a = 1\na = 2\n", "f:2: this is not TOML: Cannot overwrite a value"),
        ('a = 1\nb = """x\ny\n', "f:3: this is not TOML: Unterminated string"),
        ("a = 1\nb = pulse # x\n", 'f:2: b = pulse: expected a string in quotes, "pulse"'),
        ("b = /a b/c\n", 'f:1: b = /a b/c: expected a string in quotes, "/a b/c"'),
        ('b = """x\ny = z\n', "f:2: this is not TOML: Unterminated string"),
        ("b = 1\nb = true\n", "f:2: this is not TOML: Cannot overwrite a value"),
        (
            "b = 3 s\n",
            "f:1: this is not TOML: Expected newline or end of document after a statement",
        ),
        ("\n\n[a\n", "f:3: this is not TOML: Expected ']' at the end of a table declaration"),
    ],
)
def test_what_is_not_toml_is_told_with_its_line(text: str, message: str) -> None:
    with pytest.raises(TomlFileError) as raised:
        TomlFile("f", text)
    assert str(raised.value) == message


def test_a_file_must_be_utf_8_and_of_some_length(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"a = 1\nb = '\xe4'\n")
    with pytest.raises(TomlFileError, match=":2: this is not TOML: the octet 0xe4, expected UTF-8"):
        TomlFile.read(file)
    file.write_bytes(b"#" * (FILE_MOST + 1))
    with pytest.raises(TomlFileError, match=f":1: it has {FILE_MOST + 1} octets, expected at most"):
        TomlFile.read(file)


def test_what_is_right_is_taken() -> None:
    file = TomlFile(
        "f",
        "s = 'x'\nc = 'a'\ni = 6\nn = 1\nr = [1, 2]\n[t]\n[[m]]\n[[m]]\ni = 7\n",
    )
    root = file.root
    assert (root.string("s"), root.choice("c", ("a", "b"))) == ("x", "a")
    assert (root.integer("i", 6, 6), root.number("n", 0, 1)) == (6, 1.0)
    assert root.array("r", lambda v: v in (1, 2), "1 or 2", 2) == [1, 2]
    assert root.converted("none", int) is None
    assert root.table("t") is not None
    assert [table.integer("i", 0, 9) for table in root.tables("m")] == [None, 7]
    root.no_more()
    file.finish()
