# SPDX-License-Identifier: LGPL-2.1-or-later
"""How the service logs: lines for people, or a JSON object a line for machines."""

from __future__ import annotations

import json
import logging


class JsonFormatter(logging.Formatter):
    """`time` (seconds since 1970), `level`, `logger`, `message` and, after a failure, `trace`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a JSON object in one line."""
        entry = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def set_up(json_lines: bool, level: int) -> None:
    """Log to standard error from now on, from `level` up."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonFormatter() if json_lines else logging.Formatter("%(levelname)s: %(message)s")
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
