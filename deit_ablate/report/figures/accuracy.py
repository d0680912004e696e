"""The accuracies of any sweep, or what else its metric is, with intervals. Imports matplotlib (not pyplot).

Figures are matplotlib Figures at a paper's column width; ``save`` writes them without dates or versions, so the
same records give the same bytes. Whatever users wrote is shown as it is, never read as mathematics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from deit_ablate.report.figures import style as drawing
from deit_ablate.report.figures.style import GREY, MOST, OKABE_ITO, shortened
from deit_ablate.report.summary import Summary
from deit_ablate.report.tables.table import mean_words, measure


def sweep_figure(summary: Summary) -> Figure:
    """Each variant's mean of the metric with its 95% t interval and its seeds; the baseline as a line.

    Of more than MOST variants only the baseline, the highest and the lowest are drawn, and the axis says so.
    """
    metric = summary.metric
    ranked = sorted((row for row in summary.rows if row["seeds"]), key=lambda row: row[metric.mean])
    kept = [row["variant"] for row in [*ranked[-MOST // 2 :], *ranked[: MOST // 2 - 1]]]
    few = len(summary.rows) <= MOST
    every = [row for row in summary.rows if few or row["variant"] in kept or row["baseline"]]
    seeds = {row["variant"]: summary.values[row["variant"]] for row in every}
    with drawing.style():
        if not any(seeds.values()):
            return drawing.nothing("no finished runs")
        labels = drawing.row_names(summary, [row["variant"] for row in every], width=22, lines=2)
        at = drawing.lines(every)
        pitch = drawing.pitch(labels, 0.24 if len(labels) <= 12 else 0.2)
        figure, (axes,) = drawing.new_figure(1, pitch * sum(map(len, at)) + 0.75)
        digits = 1 if metric.share and any(row[metric.half_width] >= 10 for row in every) else metric.digits
        drawing.row_axes(axes, labels, _limits(summary, every), bins=6, at=at)
        tip = partial(measure, digits=metric.digits)
        for y, row in zip(at[0], every, strict=True):
            colour = GREY if row["baseline"] else OKABE_ITO[0]
            if row["baseline"] and row["seeds"]:
                axes.axvline(row[metric.mean], color=GREY, linewidth=0.7, dashes=(4, 2.5), zorder=1)
            drawing.row(axes, y, row[metric.mean], {1.4: row[metric.half_width]}, colour, seeds[row["variant"]], tip)
            drawing.beside(
                axes, y, mean_words(replace(metric, digits=digits), row), "black" if row["seeds"] else GREY, 6.5
            )
        note = "\n* mean of the runs that converged" if any(row["diverged"] and row["seeds"] for row in every) else ""
        if len(every) < len(summary.frame):
            note += f"\nhighest and lowest {len(every)} of {len(summary.frame)} rows"
        axes.set_xlabel(f"{shortened([metric.header], width=48)[0]}{note}")
        _key(figure, every)
        return figure


def _limits(summary: Summary, every: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Room for every seed, and for intervals as far as they are no longer than that again on either side."""
    metric = summary.metric
    values = [value for row in every for value in summary.values[row["variant"]].values()]
    shown = pd.DataFrame(every)
    shown = shown[shown["seeds"] > 1]
    room = max(max(values) - min(values), 1.0 if metric.share else 10.0**-metric.digits)
    low, high = drawing.limits(values, shown[metric.mean], shown[metric.half_width], room)
    if not metric.share:
        space = 0.06 * (high - low) or room
        return low - space, high + space
    margin = max(0.06 * (high - low), 1 - (high - low) / 2)
    return max(low - margin, -0.5), min(high + margin, 100.5)


def _key(figure: Figure, every: Sequence[Mapping[str, Any]]) -> None:
    intervals = any(row["seeds"] > 1 for row in every)
    dot: Any = {"color": OKABE_ITO[0], "marker": "o", "markeredgewidth": 0}
    mean = Line2D([], [], markersize=4.2, linewidth=1.4 if intervals else 0, **dot)
    entries = {
        "mean, 95% interval" if intervals else "mean": mean,
        "one seed": Line2D([], [], markersize=2.6, linewidth=0, alpha=0.45, **dot),
    }
    if any(row["baseline"] and row["seeds"] for row in every):
        entries["baseline"] = Line2D([], [], color=GREY, linewidth=0.7, dashes=(4, 2.5))
    drawing.key(figure, entries, 3, handlelength=2)
