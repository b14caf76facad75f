# SPDX-License-Identifier: LGPL-2.1-or-later
"""Logs for people and for machines, and statistics that cannot be written."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from fakes import FakeEngine, live_stream

from xenaudio.backend.logformat import JsonFormatter, set_up
from xenaudio.backend.statslog import JsonStatsLog


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """Give the root logger, and put it back in order."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def record(message: str, *args: object, **extra: Any) -> logging.LogRecord:
    return logging.LogRecord("a.b", logging.ERROR, "f.py", 1, message, args, extra.get("exc_info"))


def test_a_record_is_one_json_object_in_one_line() -> None:
    line = JsonFormatter().format(record("guest %r\nsays %s", "a\nb", '"\u00fc\x00'))
    assert "\n" not in line
    entry = json.loads(line)
    assert isinstance(entry.pop("time"), float)
    assert entry == {
        "level": "error",
        "logger": "a.b",
        "message": "guest 'a\\nb'\nsays \"\u00fc\x00",
    }


def test_a_failure_has_its_trace() -> None:
    try:
        raise KeyError("lost")
    except KeyError as error:
        failed = record("failed", exc_info=(KeyError, error, error.__traceback__))
    entry = json.loads(JsonFormatter().format(failed))
    assert "KeyError: 'lost'" in entry["trace"]


@pytest.mark.parametrize("json_lines", [False, True])
def test_set_up_replaces_what_was_there(
    root: logging.Logger, capsys: pytest.CaptureFixture[str], json_lines: bool
) -> None:
    set_up(not json_lines, logging.INFO)
    set_up(json_lines, logging.INFO)
    logging.getLogger("x").debug("too small")
    logging.getLogger("x").warning("told %d", 1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    if json_lines:
        assert json.loads(lines[0])["message"] == "told 1"
    else:
        assert lines[0] == "WARNING: told 1"


class FullDisk(io.StringIO):
    """A file on a disk that is full."""

    name = "/var/stats"

    def write(self, _text: str) -> int:
        raise OSError(28, "No space left on device")


def test_statistics_that_cannot_be_written_are_told_once_and_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stats_log = JsonStatsLog(FullDisk())
    stream = live_stream(FakeEngine())
    for _ in range(3):
        stats_log.record(stream)
    assert [r.getMessage() for r in caplog.records] == [
        "no more statistics: /var/stats: No space left on device"
    ]


def test_a_line_of_statistics_names_its_stream() -> None:
    file = io.StringIO()
    JsonStatsLog(file).record(live_stream(FakeEngine()))
    entry = json.loads(file.getvalue())
    assert (entry["guest"], entry["device"], entry["pcm"], entry["stream"]) == ("guest", 0, 0, 0)
    assert entry["capture"] is False
    assert entry["route"] == "null"
    assert entry["stats"]["state"] == 0
    assert entry["trace"] == [[1, 2, 3, 4, 5]]
