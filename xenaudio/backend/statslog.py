# SPDX-License-Identifier: LGPL-2.1-or-later
"""Statistics of all streams as JSON lines, for programs that watch or plot a running backend.

One object a line, for each stream at each interval and once more when it ends: `time_ns`
(CLOCK_MONOTONIC), `guest`, `device`, `pcm`, `stream`, `unique_id`, `domid`, `capture`, `route`,
`stats` (the fields of xenaudio.core.engine.StreamStats) and `trace` (lists of time_ns, frames,
fill, open, silent).
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from typing import TextIO

from xenaudio.backend.device import LiveStream

log = logging.getLogger(__name__)


class JsonStatsLog:
    """Writes to a text file, a line at once."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._broken = False

    def record(self, stream: LiveStream) -> None:
        """Write one stream's line. When that fails, say so once and write no more."""
        if self._broken:
            return
        line = json.dumps(
            {
                "time_ns": time.monotonic_ns(),
                **dataclasses.asdict(stream.place),
                "capture": stream.nodes.capture,
                "route": stream.route,
                "stats": dataclasses.asdict(stream.backend.stats()),
                "trace": stream.backend.trace(),
            }
        )
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            self._broken = True
            log.error("no more statistics: %s: %s", self._file.name, error.strerror)
