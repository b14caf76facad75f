# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a running process costs: processor time and wake-ups, from /proc, over all its threads."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """Totals at a moment, or (`since`) between two. A wake-up is a voluntary context switch."""

    time_s: float
    cpu_s: float
    wakeups: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Read a process's totals. FileNotFoundError when it is gone."""
        cpu_ns = wakeups = 0
        now = time.monotonic()
        for task in Path(f"/proc/{pid}/task").iterdir():
            # A thread may end while we look.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                # proc(5): schedstat's first number is nanoseconds on a processor.
                cpu_ns += int((task / "schedstat").read_text().split()[0])
                for line in (task / "status").read_text().splitlines():
                    if line.startswith("voluntary_ctxt_switches:"):
                        wakeups += int(line.split()[1])
        return cls(now, cpu_ns / 1e9, wakeups)

    def since(self, begin: Usage) -> Usage:
        """Return what was used since `begin`."""
        return Usage(
            self.time_s - begin.time_s, self.cpu_s - begin.cpu_s, self.wakeups - begin.wakeups
        )

    @property
    def cpu_s_per_60s(self) -> float:
        """Seconds of processor time for each minute."""
        return self.cpu_s / self.time_s * 60 if self.time_s > 0 else 0.0

    @property
    def wakeups_per_s(self) -> float:
        """Wake-ups each second."""
        return self.wakeups / self.time_s if self.time_s > 0 else 0.0
