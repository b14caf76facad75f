# SPDX-License-Identifier: LGPL-2.1-or-later
"""The chart of `xenaudio bench pulse`: latency, processor time and wake-ups of each path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def draw(to: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a PNG. ModuleNotFoundError without matplotlib."""
    # Imported here because it takes longer than everything else that the command starts with.
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    labels = [f"{row['path']}, client {row['client_latency_ms']:g} ms" for row in rows]
    colours = ["tab:green" if row["path"] == "xenaudio" else "tab:grey" for row in rows]
    places = list(range(len(rows)))
    panels = (
        ("latency, ms (line: p99)", [row["latency_ms"]["p50"] or 0 for row in rows]),
        ("CPU, s for 60 s of sound", [row["cpu_s_per_60s"] for row in rows]),
        ("wake-ups a second", [row["wakeups_per_s"] for row in rows]),
    )
    figure, axes = pyplot.subplots(1, 3, sharey=True, figsize=(13, 1.5 + 0.4 * len(rows)))
    for axis, (title, values) in zip(axes, panels, strict=True):
        axis.barh(places, values, color=colours)
        for place, value in zip(places, values, strict=True):
            axis.text(value, place, f" {value:.3g}", va="center", fontsize=8)
        axis.set_title(title, fontsize=10)
        axis.grid(axis="x", alpha=0.3)
        axis.margins(x=0.15)
    for place, row in zip(places, rows, strict=True):
        p50, p99 = row["latency_ms"]["p50"] or 0, row["latency_ms"]["p99"] or 0
        axes[0].plot([p50, p99], [place, place], color="black", linewidth=1)
    axes[0].set_yticks(places, labels)
    axes[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(to, dpi=100)
    pyplot.close(figure)
