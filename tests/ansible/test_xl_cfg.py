# SPDX-License-Identifier: LGPL-2.1-or-later
"""xl's configuration files: read as xl reads them, and edited in one place only."""

from __future__ import annotations

import re

import pytest
import xlutil
from ansible.module_utils.xl_cfg import (
    Value,
    XlCfgError,
    only,
    parse,
    with_setting,
    without_setting,
)
from xlconfigs import ABORTS_XL, BAD, GOOD, TAKEN_BY_XL, by_chance, damaged

SEEDS = range(300)
NEW = "[\n  [ 'CARD, short-name=New',\n    'PCM',\n    'STREAM, type=p' ]\n]"
NEW_CARDS = [["CARD, short-name=New", "PCM", "STREAM, type=p"]]

all_good = pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)


def values(text: str) -> dict[str, Value]:
    """What xl has of a text: of several settings the last, and those with += put together."""
    found: dict[str, Value] = {}
    for setting in parse(text):
        before = found.get(setting.name)
        if setting.adds and before is not None:
            assert isinstance(before, list)
            assert isinstance(setting.value, list)
            found[setting.name] = [*before, *setting.value]
        else:
            found[setting.name] = setting.value
    return found


def taken(text: str) -> bool:
    try:
        values(text)
    except (XlCfgError, AssertionError):
        return False
    return True


@all_good
def test_a_good_file_is_read_as_xl_reads_it(text: str) -> None:
    assert values(text) == xlutil.read(text, *values(text))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_file_by_chance_is_read_as_xl_reads_it(seed: int) -> None:
    text = by_chance(seed)
    assert values(text) == xlutil.read(text, *values(text))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_damaged_file_is_refused_when_xl_refuses_it(seed: int) -> None:
    for text in damaged(seed):
        known = [name for name in ("name", "memory", "disk", "vif", "vsnd") if name in text]
        read = xlutil.read(text, *known)
        assert taken(text) == (read is not None), text
        if read is not None:
            assert {name: v for name, v in values(text).items() if name in known} == read


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_line_and_column(name: str) -> None:
    expected, text = BAD[name]
    with pytest.raises(XlCfgError, match=re.escape(expected)):
        only(text, "vsnd")


@pytest.mark.parametrize("name", sorted(BAD.keys() - ABORTS_XL))
def test_what_is_refused_xl_refuses_or_makes_something_else_of(name: str) -> None:
    assert (xlutil.read(BAD[name][1]) is not None) == (name in TAKEN_BY_XL)


def check_edit(text: str) -> None:
    """Set vsnd, and remove it: all else is the same, octet for octet."""
    changed = with_setting(text, "vsnd", NEW)
    assert only(changed, "vsnd") is not None
    others = {name: value for name, value in values(text).items() if name != "vsnd"}
    assert xlutil.read(changed, "vsnd", *others) == {**others, "vsnd": NEW_CARDS}
    before = only(text, "vsnd")
    if before is None:
        assert changed.startswith(text)
        assert changed[len(text) :].strip("\n") == f"vsnd = {NEW}"
        assert without_setting(changed, "vsnd") == text
    else:
        assert changed == text[: before.value_begin] + NEW + text[before.end :]
    gone = without_setting(text, "vsnd")
    assert xlutil.read(gone, "vsnd", *others) == others
    if before is not None:
        # Nothing but the setting, its own separator and blanks.
        left = text[: before.begin] + text[before.end :]
        assert re.sub(r"[ \t\n;]", "", gone) == re.sub(r"[ \t\n;]", "", left)
        assert len(left) - len(gone) <= len(re.findall(r"[ \t\n;]", left))


@all_good
def test_nothing_else_is_changed(text: str) -> None:
    check_edit(text)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_else_is_changed_in_a_file_by_chance(seed: int) -> None:
    check_edit(by_chance(seed))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a = 1\nvsnd = []\nb = 2\n", "a = 1\nb = 2\n"),
        ("  vsnd = []  \nb = 2\n", "b = 2\n"),
        ("vsnd = [\n  # old\n]\n", ""),
        ("vsnd = [] # sound\nb = 2\n", " # sound\nb = 2\n"),
        ("a = 1; vsnd = []; b = 2\n", "a = 1; b = 2\n"),
        ("a = 1; vsnd = []\n", "a = 1; \n"),
        ("vsnd = []; b = 2\n", "b = 2\n"),
        ("a = 1\n\nvsnd = []\n\nb = 2\n", "a = 1\n\n\nb = 2\n"),
        ("a = 1\nvsnd = []", "a = 1"),
        ("a = 1 # one\nvsnd = []", "a = 1 # one\n"),
        ("vsnd = []", ""),
        ("vsnd = [];\n", ""),
    ],
)
def test_a_setting_goes_with_its_line_or_its_semicolon(before: str, after: str) -> None:
    assert without_setting(before, "vsnd") == after
