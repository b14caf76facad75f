# SPDX-License-Identifier: LGPL-2.1-or-later
"""Statistics of all streams as JSON lines, for programs that watch or plot a running backend.

One object a line, for each stream at each interval and once more when it ends: `time_ns`
(CLOCK_MONOTONIC), `guest`, `device`, `pcm`, `stream`, `capture`, `route`, `stats` (the fields of
xenaudio.core.engine.StreamStats) and `trace` (lists of time_ns, frames, fill, open).
"""

from __future__ import annotations

import dataclasses
import json
import time
from typing import TextIO

from xenaudio.backend.device import LiveStream


class JsonStatsLog:
    """Writes to a text file, a line at once."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def record(self, stream: LiveStream) -> None:
        """Write one stream's line."""
        json.dump(
            {
                "time_ns": time.monotonic_ns(),
                **dataclasses.asdict(stream.place),
                "capture": stream.nodes.capture,
                "route": stream.route,
                "stats": dataclasses.asdict(stream.backend.stats()),
                "trace": stream.backend.trace(),
            },
            self._file,
        )
        self._file.write("\n")
        self._file.flush()
