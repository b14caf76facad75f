# SPDX-License-Identifier: LGPL-2.1-or-later
"""xl configurations: as people write them, as chance writes them, and wrong ones."""

from __future__ import annotations

import random
from collections.abc import Iterator

CARDS = "[ ['CARD, short-name=Old', 'PCM, name=Old', 'STREAM, unique-id=x, type=p'] ]"

# Wrong ones: what the message has to say (line and column first), and the text.
BAD: dict[str, tuple[str, str]] = {
    "string not closed": (
        "line 2, column 8: a string that is not closed: expected ' before the line's end",
        "memory = 1\nname = 'desk\nvcpus = 2\n",
    ),
    "double quotes not closed": (
        "line 1, column 8: a string that is not closed: expected \" before the line's end",
        'name = "desk\n',
    ),
    "string over two lines": (
        "line 1, column 8: a string that is not closed",
        "name = 'desk\\\n1'\n",
    ),
    "continued line": (
        "line 1, column 12: a backslash: xl knows no continued lines",
        "memory = 1 \\\n\n",
    ),
    "list not closed": (
        "line 4, column 1: the end of the file: expected ',' or ']' in the list",
        "disk = [ 'a',\n  'b'\n\n",
    ),
    "list closed twice": (
        "line 1, column 15: ']': expected the end of the line or ';' after disk's value",
        "disk = [ 'a' ]]\n",
    ),
    "comma forgotten": (
        "line 2, column 3: \"'b'\": expected ',' or ']' in the list",
        "disk = [ 'a'\n  'b' ]\n",
    ),
    "nothing before the comma": (
        "line 1, column 10: ',': expected a string in quotes, a number or a list",
        "disk = [ , 'a' ]\n",
    ),
    "two commas": (
        "line 1, column 14: ',': expected a string in quotes, a number or a list",
        "disk = ['a', , 'b']\n",
    ),
    "semicolon in a list": (
        "line 1, column 13: ';': expected ',' or ']' in the list",
        "disk = [ 'a'; 'b' ]\n",
    ),
    "two settings on a line": (
        "line 1, column 12: 'vcpus': expected the end of the line or ';' after memory's value",
        "memory = 1 vcpus = 2\n",
    ),
    "value without quotes": (
        "line 1, column 8: 'desk': expected a string in quotes, a number or a list",
        "name = desk\n",
    ),
    "value on the next line": (
        "line 1, column 7: the end of the line: expected a string in quotes, a number or a list",
        "name =\n'desk'\n",
    ),
    "no value": ("line 1, column 5: the end of the line: expected = after name", "name\n"),
    "no name": ("line 1, column 1: '=': expected NAME = VALUE", "= 'desk'\n"),
    "capital letters": (
        "line 1, column 1: 'N': expected a name in small letters, a string or a number",
        "Name = 'desk'\n",
    ),
    "negative number": (
        "line 1, column 10: '-': this looks like Python, which xl does not run",
        "memory = -1\n",
    ),
    "python": (
        "line 2, column 3: '(': this looks like Python, which xl does not run",
        "x = 1\nf (2)\n",
    ),
    "python's import": (
        "line 1, column 8: 'os': expected = after import",
        "import os\n",
    ),
    "unknown escape": (
        "line 1, column 10: \\w: expected one of",
        "name = 'x\\w'\n",
    ),
    "digits after a backslash": (
        "line 1, column 9: \\1: expected one of",
        "name = '\\101'\n",
    ),
    "zero octet": ("line 1, column 9: a zero octet: expected text", "name = '\0'\n"),
    "carriage returns": (
        "line 1, column 11: a carriage return: expected lines that end with a line feed alone",
        "memory = 1\r\nvcpus = 2\r\n",
    ),
    "comment without end": (
        "line 2, column 1: a comment that no end of line follows: xl takes none",
        "memory = 1\n# the end",
    ),
    "byte order mark": (
        "line 1, column 1: '\\ufeff': expected NAME = VALUE",
        "\ufeffmemory = 1\n",
    ),
    "vsnd twice": (
        "line 3, column 1: vsnd is set here too, after line 1: expected it once",
        f"vsnd = {CARDS}\nmemory = 1\nvsnd = []\n",
    ),
    "vsnd twice on a line": (
        "line 1, column 12: vsnd is set here too, after line 1: expected it once",
        "vsnd = [] ;vsnd = []\n",
    ),
    "vsnd added to": (
        "line 2, column 1: vsnd +=: expected vsnd =",
        f"memory = 1\nvsnd += {CARDS}\n",
    ),
    "lists too deep": ("line 1, column 40: lists nested deeper than 32", "vsnd = " + "[" * 40),
}

# What xl takes although it is refused here, as it makes something else of it.
TAKEN_BY_XL = {"digits after a backslash", "vsnd twice", "vsnd twice on a line", "vsnd added to"}

# What makes libxlutil abort.
ABORTS_XL = {"zero octet"}

GOOD: dict[str, str] = {
    "empty": "",
    "blank": " \t\n\n",
    "one setting": "memory = 1\n",
    "no end of line": "memory = 1",
    "no end of line, with blanks": "memory = 1 \t",
    "semicolons": ";;memory=1;vcpus = 2 ; ;\n",
    "no end of line after a semicolon": "memory = 1;",
    "both quotes": "a = 'x\"y'\nb = \"x'y\"\n",
    "escapes": "a = '\\'\\\"\\\\\\a\\b\\f\\n\\r\\t\\v'\n",
    "semicolon and comment in a string": "a = 'x ; y # z'\n",
    "brackets in a string": "a = '[ vsnd = [ ] ]'\n",
    "numbers": "memory = 0x1f\nvcpus = 007\na = 1a2f\n",
    "names": "device_model_version = 'x'\na.b_9 = 1\n",
    "lists": "disk = [ 'a', \"b\", 3, ]\nvif = []\n",
    "lists of lists": "a = [['x', ['y']], []]\n",
    "lists over lines": "disk = [\n  'a' # the first\n  ,\n\n  # the second:\n  'b',\n]\n",
    "comments": "# vsnd = [ ['CARD'] ]\nmemory = 1 # vsnd = []\n#\n",
    "names like vsnd": "vsnd_ = []\nvsnd.x = 1\nxvsnd = 2\n",
    "+= of others": "disk += ['a']\ndisk += ['b']\n",
    "other things twice": "memory = 1\nmemory = 2\n",
    "octets that are no UTF-8": b"a = '\xff\xfe' # \xe9\n".decode("utf-8", "surrogateescape"),
    "other scripts": "name = 'Büro' # schöne Größe\n",
    "with vsnd": f"memory = 1\nvsnd = {CARDS}\nvcpus = 2\n",
    "with vsnd at the end": f"memory = 1\nvsnd={CARDS}",
    "with vsnd first": f"vsnd\t=  {CARDS}  # sound\nmemory = 1\n",
    "with vsnd among others": f"memory = 1; vsnd = {CARDS} ; vcpus = 2\n",
    "with vsnd over lines": "vsnd = [\n  # old\n  [ 'CARD', # one\n    'PCM' ],\n]\nmemory = 1\n",
    "with vsnd indented": f"  vsnd = {CARDS}\n  memory = 1\n",
    "with vsnd and a comment": f"vsnd = {CARDS} # sound\n",
    "with an empty vsnd": "vsnd = []\n",
    "with a vsnd that is no list": "vsnd = 'none'\n",
}


def by_chance(seed: int) -> str:
    """Return a configuration that xl takes, of all that its grammar has, with at most one vsnd."""
    chance = random.Random(seed)
    names = ["name", "memory", "disk", "vif", "a.b", "x_9"]
    if chance.random() < 0.5:
        names.append("vsnd")
    chance.shuffle(names)
    text = "".join(_between(chance) for _ in range(chance.randrange(3)))
    for name in names:
        adds = "+" if name == "disk" and chance.random() < 0.3 else ""
        value = _list(chance, 2) if name in ("vsnd", "disk") else _value(chance, 2)
        blank = [chance.choice(("", " ", "\t ")) for _ in range(4)]
        text += f"{blank[0]}{name}{blank[1]}{adds}={blank[2]}{value}{blank[3]}"
        text += chance.choice(("\n", ";", " ;\n", " # why not\n", "# ; = [\n"))
        text += "".join(_between(chance) for _ in range(chance.randrange(3)))
    return text.rstrip(" \t\n;") if chance.random() < 0.2 and "#" not in text else text


def _between(chance: random.Random) -> str:
    return chance.choice(("\n", "  \n", "# vsnd = []\n", "\t# 'x\n", ";", " "))


def _value(chance: random.Random, depth: int) -> str:
    if depth and chance.random() < 0.3:
        return _list(chance, depth)
    if chance.random() < 0.3:
        return chance.choice(("0", "12", "0x1f", "1a"))
    quote = chance.choice("'\"")
    pieces = [*"x #;[]=,ü\udcff", "\\'", '\\"', "\\\\", "\\n"]
    other = "'" if quote == '"' else '"'
    inside = "".join(chance.choice((*pieces, other)) for _ in range(chance.randrange(8)))
    return f"{quote}{inside}{quote}"


def _list(chance: random.Random, depth: int) -> str:
    def blank() -> str:
        return chance.choice(("", " ", "\n", "\n  ", " # in a list\n"))

    values = [f"{_value(chance, depth - 1)}{blank()}" for _ in range(chance.randrange(4))]
    if not values:
        return f"[{blank()}]"
    end = f",{blank()}" if chance.random() < 0.3 else ""
    return "[" + blank() + f",{blank()}".join(values) + end + "]"


def damaged(seed: int) -> Iterator[str]:
    """Yield what is left of a configuration after small accidents.

    Each ends with a line: of a file's last octet, xl takes anything.
    """
    chance = random.Random(seed)
    text = by_chance(seed)
    for _ in range(8):
        at = chance.randrange(len(text) + 1)
        more = chance.choice(
            ("", "'", '"', "[", "]", ",", ";", "\n", "=", "+=", "#", "x", "(", "\r")
        )
        yield text[:at] + more + text[at + chance.randrange(3) :] + "\n"
