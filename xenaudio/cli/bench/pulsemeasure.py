# SPDX-License-Identifier: LGPL-2.1-or-later
"""One measurement of a path between two PulseAudio servers: latency, gaps, and what it costs."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import os
import select
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from xenaudio.cli.bench.pulsepaths import FAR_SINK, NEAR_SINK, Ends
from xenaudio.cli.procusage import Usage
from xenaudio.core.errors import check
from xenaudio.core.ffi import ffi, lib

RATE = 48000
FRAGMENT_MS = 5  # of the client that listens
SETTLE_SECONDS = 2.0  # of playing before anything is judged
READY_SECONDS = 5.0  # a null sink that was idle has rendered 2 s ahead
TAIL_SECONDS = 0.7
MARKS_PER_SECOND = 4000
REPORTS_PER_SECOND = 30
PAUSE_NS = 1_000_000  # between what arrives for two wake-ups of the far sink
WINDOW_NS = 100_000_000


@dataclass
class Samples:
    """What was measured of a path with one client latency, over all rounds."""

    latency_ms: list[float] = field(default_factory=list)
    error_ms: list[float] = field(default_factory=list)
    """Reported by the near server, less measured."""
    gaps: int = 0
    """Runs of silence, and frames lost or out of turn."""
    usage: dict[str, list[Usage]] = field(default_factory=dict)
    """Of each process, between the same two moments of each round."""

    def add(self, other: Samples) -> None:
        """Add another round's."""
        self.latency_ms += other.latency_ms
        self.error_ms += other.error_ms
        self.gaps += other.gaps
        for name, usages in other.usage.items():
            self.usage.setdefault(name, []).extend(usages)

    def cpu_s_per_60s(self, names: Iterable[str] | None = None) -> float:
        """Return the processor time of processes (None: all)."""
        return _sum(self.usage, names, lambda usage: usage.cpu_s_per_60s)

    def wakeups_per_s(self, names: Iterable[str] | None = None) -> float:
        """Return their wake-ups."""
        return _sum(self.usage, names, lambda usage: usage.wakeups_per_s)


def _sum(
    usage: dict[str, list[Usage]], names: Iterable[str] | None, figure: Callable[[Usage], float]
) -> float:
    return sum(
        statistics.mean(figure(each) for each in usage[name])
        for name in (usage if names is None else names)
    )


class Mark(NamedTuple):
    """A chunk (struct xa_bench_mark)."""

    time_ns: int
    frame: int
    frames: int


class Report(NamedTuple):
    """What the near server said (struct xa_bench_report)."""

    time_ns: int
    frame: int
    latency_us: int


def _marks(c: Any, count: int) -> list[Mark]:
    return [Mark(m.time_ns, m.frame, m.frames) for m in (c[i] for i in range(count))]


def _play(ends: Ends, latency_ms: float, seconds: float) -> tuple[list[Mark], list[Report]]:
    most = int(seconds * MARKS_PER_SECOND)
    marks = ffi.new("struct xa_bench_mark[]", most)
    reported = ffi.new("uint32_t *", int(seconds * REPORTS_PER_SECOND))
    reports = ffi.new("struct xa_bench_report[]", reported[0])
    count = lib.xa_bench_pulse_play(
        ends.near.encode(),
        NEAR_SINK.encode(),
        round(latency_ms * 1000),
        round(seconds * 1000),
        marks,
        most,
        reports,
        reported,
    )
    check(count, "play on the first PulseAudio")
    return _marks(marks, count), [
        Report(r.time_ns, r.frame, r.latency_us) for r in (reports[i] for i in range(reported[0]))
    ]


def _listen(ends: Ends, seconds: float, ready: int) -> tuple[list[Mark], Any]:
    most = int(seconds * MARKS_PER_SECOND)
    marks = ffi.new("struct xa_bench_mark[]", most)
    heard = ffi.new("struct xa_bench_heard *")
    count = lib.xa_bench_pulse_listen(
        ends.far.encode(),
        f"{FAR_SINK}.monitor".encode(),
        FRAGMENT_MS * 1000,
        round(seconds * 1000),
        round(SETTLE_SECONDS * RATE),
        ready,
        marks,
        most,
        heard,
    )
    return _marks(marks, check(count, "listen to the second PulseAudio")), heard


class Heard:
    """When each frame was there, at the far end, and when it is to be heard.

    The far sink goes by a clock without jitter. It wakes up when all that it has was heard, and
    renders what is next, in one chunk or several, of which the first one's first frame is to be
    heard at once. The server's protocol has who records wait for the last of them until the next
    time, now and then. So what arrives first after a pause was rendered for that moment, or is
    late; it never is early: the earliest within WINDOW_NS, by its frames, tells the clock.
    """

    def __init__(self, marks: Sequence[Mark]) -> None:
        self._marks = sorted(marks, key=lambda mark: mark.frame)
        self._starts = [mark.frame for mark in self._marks]
        arrived = sorted(marks, key=lambda mark: mark.time_ns)
        later = (b for a, b in itertools.pairwise(arrived) if b.time_ns - a.time_ns > PAUSE_NS)
        woken = [*arrived[:1], *later]
        self._woken_ns = [mark.time_ns for mark in woken]
        self._clocks_ns = [mark.time_ns - _ns(mark.frame) for mark in woken]

    def arrived_ns(self, frame: int) -> int | None:
        """Return when the chunk with a frame arrived; None: never."""
        i = bisect.bisect_right(self._starts, frame) - 1
        if i < 0 or frame - self._starts[i] >= self._marks[i].frames:
            return None
        return self._marks[i].time_ns

    def heard_ns(self, frame: int) -> float | None:
        """Return when a frame is heard; None: never."""
        arrived = self.arrived_ns(frame)
        if arrived is None:
            return None
        begin = bisect.bisect_left(self._woken_ns, arrived - WINDOW_NS)
        begin = min(begin, bisect.bisect_right(self._woken_ns, arrived) - 1)
        end = bisect.bisect_right(self._woken_ns, arrived + WINDOW_NS)
        return min(self._clocks_ns[begin:end]) + _ns(frame)


def _ns(frames: int) -> float:
    return frames * 1e9 / RATE


def latencies(played: Sequence[Mark], heard: Heard, first: int) -> list[float]:
    """Return how long the first frame of each chunk took, from the frame `first` on; ms."""
    return [
        (arrived - mark.time_ns) / 1e6
        for mark in played
        if mark.frame >= first and (arrived := heard.arrived_ns(mark.frame)) is not None
    ]


def errors(reports: Sequence[Report], heard: Heard, first: int) -> list[float]:
    """Return how much more latency the near server told of than there was, in milliseconds."""
    return [
        report.latency_us / 1e3 - (heard_ns - report.time_ns) / 1e6
        for report in reports
        if report.frame >= first and (heard_ns := heard.heard_ns(report.frame)) is not None
    ]


def _prefer() -> None:
    """Run this thread before ordinary ones, where that is allowed: it is not what is measured."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(
            0, os.SCHED_RR, os.sched_param(os.sched_get_priority_min(os.SCHED_RR))
        )


def measure(ends: Ends, latency_ms: float, seconds: float) -> Samples:
    """Measure for so many seconds, twice: first what is heard, then, unheard, what it costs."""
    found = Samples()
    playing = SETTLE_SECONDS + seconds
    with ThreadPoolExecutor(2, initializer=_prefer) as pool:
        ready = os.eventfd(0, os.EFD_NONBLOCK)
        try:
            listening = pool.submit(_listen, ends, READY_SECONDS + playing + TAIL_SECONDS, ready)
            while not select.select([ready], [], [], 0.1)[0] and not listening.done():
                pass
        finally:
            os.close(ready)
        played, reports = pool.submit(_play, ends, latency_ms, playing).result()
        marks, verdict = listening.result()
        heard, first = Heard(marks), round(SETTLE_SECONDS * RATE)
        found.latency_ms = latencies(played, heard, first)
        found.error_ms = errors(reports, heard, first)
        found.gaps = verdict.silences + verdict.jumps

        client = pool.submit(_play, ends, latency_ms, playing + 1)
        time.sleep(SETTLE_SECONDS)
        before = {name: Usage.of(pid) for name, pid in ends.pids.items()}
        time.sleep(seconds)
        for name, pid in ends.pids.items():
            found.usage[name] = [Usage.of(pid).since(before[name])]
        client.result()
    return found
