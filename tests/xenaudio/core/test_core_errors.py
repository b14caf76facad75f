# SPDX-License-Identifier: LGPL-2.1-or-later
"""Negative errno values of C, and Python's exceptions."""

from __future__ import annotations

import errno

import pytest

from xenaudio.core.errors import XenAudioError, check, make_error


@pytest.mark.parametrize("result", [0, 1, 4096])
def test_a_result_is_returned(result: int) -> None:
    assert check(result, "try") == result


@pytest.mark.parametrize(
    ("code", "python"),
    [
        (errno.ENOENT, FileNotFoundError),
        (errno.EACCES, PermissionError),
        (errno.EPERM, PermissionError),
        (errno.EAGAIN, BlockingIOError),
        (errno.EPIPE, BrokenPipeError),
        (errno.ETIMEDOUT, TimeoutError),
        (errno.EPROTO, OSError),
        (errno.EDOM, OSError),
    ],
)
def test_an_error_is_what_python_calls_it(code: int, python: type[OSError]) -> None:
    with pytest.raises(python) as caught:
        check(-code, "open the box")
    assert isinstance(caught.value, XenAudioError)
    assert caught.value.errno == code
    assert str(caught.value).startswith("open the box: ")


def test_the_sign_of_an_errno_does_not_matter() -> None:
    assert make_error(2, "x").errno == make_error(-2, "x").errno == 2
