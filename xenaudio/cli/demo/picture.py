# SPDX-License-Identifier: LGPL-2.1-or-later
"""The demo's picture: buffer fill and latency over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def draw(
    path: Path,
    title: str,
    fill: Sequence[tuple[float, float]],
    latency: Sequence[tuple[float, float]],
    buffer_ms: float,
) -> None:
    """Write a PNG. `fill` and `latency` are (seconds, milliseconds); they may be empty."""
    # Imported here because it takes longer than everything else that the demo starts with.
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (upper, lower) = pyplot.subplots(2, 1, sharex=True, figsize=(11, 6))
    upper.plot([at for at, _ms in fill], [ms for _at, ms in fill], linewidth=0.8, color="tab:blue")
    upper.axhline(buffer_ms, color="grey", linewidth=0.8, linestyle="--", label="buffer size")
    upper.set_ylabel("backend holds, ms")
    upper.set_ylim(0, buffer_ms * 1.15)
    upper.legend(loc="lower right")
    lower.plot(
        [at for at, _ms in latency],
        [ms for _at, ms in latency],
        linewidth=0.8,
        color="tab:orange",
    )
    lower.set_ylabel("written to heard, ms")
    lower.set_xlabel("seconds since the first frame was heard")
    lower.set_ylim(0, max([1.0, *(ms for _at, ms in latency)]) * 1.15)
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
