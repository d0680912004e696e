"""The accuracies of any sweep, with intervals. Imports matplotlib (not pyplot).

Figures are matplotlib Figures at a paper's column width; ``save`` writes them without dates or versions, so the
same records give the same bytes. Whatever users wrote is shown as it is, never read as mathematics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from deit_ablate.report.figures.style import (
    GREY,
    LIGHT,
    MOST,
    OKABE_ITO,
    new_figure,
    nothing,
    shortened,
    style,
    whisker,
)
from deit_ablate.report.summary import Summary
from deit_ablate.report.tables.table import measure


def sweep_figure(summary: Summary) -> Figure:
    """Each variant's mean test top-1 (%) with its 95% t interval and its seeds; the baseline as a line.

    Of more than MOST variants only the baseline, the highest and the lowest are drawn, and the axis says so.
    """
    every = _extremes(summary.rows)
    seeds = {row["variant"]: list(summary.top1[row["variant"]].values()) for row in every}
    with style():
        if not any(seeds.values()):
            return nothing("no finished runs")
        labels = shortened([summary.say(row["variant"]) for row in every], width=22, lines=2)
        pitch = 0.3 if any("\n" in label for label in labels) else 0.24 if len(labels) <= 12 else 0.2
        figure, (axes,) = new_figure(1, pitch * len(every) + 0.75)
        digits = 1 if any(row["top1_half_width"] >= 10 for row in every) else 2
        low, high = _limits(every, seeds)
        axes.set_xlim(low, high)
        axes.set_ylim(len(every) - 0.4, -0.6)
        for row in every:
            if row["baseline"] and row["seeds"]:
                axes.axvline(row["top1_mean"], color=GREY, linewidth=0.7, dashes=(4, 2.5), zorder=1)
        for y, row in enumerate(every):
            colour = GREY if row["baseline"] else OKABE_ITO[0]
            axes.axhline(y, color=LIGHT, linewidth=0.4, zorder=0)
            axes.plot(
                seeds[row["variant"]],
                [y + 0.24] * row["seeds"],
                "o",
                color=colour,
                alpha=0.45,
                markersize=2.6,
                markeredgewidth=0,
                zorder=2,
            )
            if row["seeds"] > 1:
                whisker(axes, y, row["top1_mean"], row["top1_half_width"], colour)
            if row["seeds"]:
                axes.plot([row["top1_mean"]], [y], "o", color=colour, markersize=4.2, markeredgewidth=0, zorder=4)
            _beside(axes, y, _said(row, digits), "black" if row["seeds"] else GREY)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axes.set_yticks(range(len(every)), labels, linespacing=0.95)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        note = "\n* mean of the runs that converged" if any(row["diverged"] and row["seeds"] for row in every) else ""
        if len(every) < len(summary.frame):
            note += f"\nhighest and lowest {len(every)} of {len(summary.frame)} rows"
        axes.set_xlabel(f"test top-1 (%){note}")
        _key(
            figure, axes, any(row["baseline"] and row["seeds"] for row in every), any(row["seeds"] > 1 for row in every)
        )
        return figure


def _extremes(every: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(every) <= MOST:
        return every
    ranked = sorted((row for row in every if row["seeds"]), key=lambda row: row["top1_mean"])
    kept = {row["variant"] for row in [*ranked[-MOST // 2 :], *ranked[: MOST // 2 - 1]]}
    return [row for row in every if row["variant"] in kept or row["baseline"]]


def _said(row: dict[str, Any], digits: int) -> str:
    if row["diverged"] and row["diverged"] == row["seeds_planned"]:
        return "did not train"
    return measure(row["top1_mean"], row["top1_half_width"], digits=digits) + (
        "*" if row["diverged"] and row["seeds"] else ""
    )


def _limits(every: Sequence[dict[str, Any]], seeds: dict[str, list[float]]) -> tuple[float, float]:
    """Room for every seed, and for intervals as far as they are no longer than that again on either side."""
    values = [value for own in seeds.values() for value in own]
    low, high = min(values), max(values)
    room = max(high - low, 1.0)
    for row in every:
        if row["seeds"] > 1:
            low = min(low, max(row["top1_mean"] - row["top1_half_width"], min(values) - room))
            high = max(high, min(row["top1_mean"] + row["top1_half_width"], max(values) + room))
    margin = max(0.06 * (high - low), 1 - (high - low) / 2)
    return max(low - margin, -0.5), min(high + margin, 100.5)


def _beside(axes: Axes, y: float, text: str, colour: str) -> None:
    """The figures at the right edge, as in a forest plot."""
    axes.annotate(
        text,
        (1, y),
        xycoords=("axes fraction", "data"),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        color=colour,
        fontsize=6.5,
    )


def _key(figure: Figure, axes: Axes, baseline: bool, intervals: bool) -> None:
    entries = [
        Line2D(
            [], [], color=OKABE_ITO[0], marker="o", markersize=4.2, markeredgewidth=0, linewidth=1.4 if intervals else 0
        ),
        Line2D([], [], color=OKABE_ITO[0], marker="o", markersize=2.6, markeredgewidth=0, linewidth=0, alpha=0.45),
    ]
    words = ["mean, 95% interval" if intervals else "mean", "one seed"]
    if baseline:
        entries.append(Line2D([], [], color=GREY, linewidth=0.7, dashes=(4, 2.5)))
        words.append("baseline")
    figure.legend(
        entries,
        words,
        loc="outside upper center",
        ncols=3,
        frameon=False,
        fontsize=6,
        handlelength=2,
        columnspacing=1.4,
        borderpad=0.2,
    )
