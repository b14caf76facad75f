# SPDX-License-Identifier: LGPL-2.1-or-later
"""The C core's table of formats, seen from Python."""

from __future__ import annotations

import dataclasses

import pytest

from xenaudio.core.format import Format, SampleType, all_formats, by_code, by_name


def test_both_spellings_are_one_format() -> None:
    assert by_name("f32_le") == by_name("float_le") == by_code(14)


@pytest.mark.parametrize("name", ["", "s16", "S16_LE", "s16_le ", "mpeg", "\udcff", "s16_le\0"])
def test_what_is_no_format(name: str) -> None:
    assert by_name(name) is None


@pytest.mark.parametrize("code", [-1, 22, 23, 255, 256, 2**40])
def test_what_is_no_code(code: int) -> None:
    assert by_code(code) is None


def test_a_format_is_all_that_the_wire_needs() -> None:
    s24 = by_name("s24_be")
    assert s24 == Format(s24.code, "s24_be", None, SampleType.SIGNED, 4, 24, True)
    assert s24.frame_octets(6) == 24
    with pytest.raises(dataclasses.FrozenInstanceError):
        s24.code = 1  # type: ignore[misc]


def test_every_format_is_found_by_its_code_and_names() -> None:
    formats = all_formats()
    assert len({entry.code for entry in formats}) == len(formats) == 22
    for entry in formats:
        assert by_code(entry.code) == by_name(entry.name) == entry
        if entry.libxl_name is not None:
            assert by_name(entry.libxl_name) == entry
