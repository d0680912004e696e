"""The forest plot of a sweep: each row's difference from the baseline, with its intervals. Imports matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
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
from deit_ablate.report.stats.verdicts import DIFFERENT
from deit_ablate.report.summary import Summary
from deit_ablate.report.tables.table import NOTHING, measure, short_verdict

BAND = "#E8EEF4"


def forest_figure(summary: Summary) -> Figure:
    """Each row's mean difference from the baseline (points of test top-1), paired by seed: thick its own 95% interval,
    thin the one that holds for all rows at once, small dots the seeds; shaded the margin of equivalence. Blue where the
    verdict is a difference, grey where there is none. Of more than MOST rows those that differ most are drawn.
    """
    every = [row for row in summary.rows if not row["baseline"]]
    if not summary.plan["baseline"] or not any(row["pairs"] for row in every):
        with style():
            return nothing("no differences from a baseline" if not summary.plan["baseline"] else "no finished pairs")
    shown = _largest(every)
    seeds = _differences(summary)
    with style():
        labels = shortened([summary.say(row["variant"]) for row in shown], width=24, lines=2)
        pitch = 0.3 if any("\n" in label for label in labels) else 0.24
        figure, (axes,) = new_figure(1, pitch * len(shown) + 0.85)
        low, high = _limits(shown, seeds, summary.plan["margin"])
        axes.set_xlim(low, high)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        if summary.plan["margin"]:
            axes.axvspan(-summary.plan["margin"], summary.plan["margin"], color=BAND, linewidth=0, zorder=0)
        axes.axvline(0, color=GREY, linewidth=0.7, dashes=(4, 2.5), zorder=1)
        for y, row in enumerate(shown):
            _row(axes, y, row, seeds.get(row["variant"], ()))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
        axes.set_yticks(range(len(shown)), labels, linespacing=0.95)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        more = "" if len(shown) == len(every) else f"\nthe {len(shown)} of {len(every)} rows that differ most"
        axes.set_xlabel(
            f"difference from {shortened([summary.say(summary.plan['baseline'])], width=24)[0]} in test top-1 (points){more}"
        )
        _key(figure, summary.plan["margin"])
        return figure


def _largest(every: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(every) <= MOST:
        return list(every)
    ranked = sorted((row for row in every if row["pairs"]), key=lambda row: -abs(row["difference"]))
    kept = {row["variant"] for row in ranked[:MOST]}
    return [row for row in every if row["variant"] in kept]


def _differences(summary: Summary) -> dict[str, list[float]]:
    """Row -> the differences of its seeds."""
    baseline = summary.top1[summary.plan["baseline"]]
    return {
        name: [own[seed] - baseline[seed] for seed in sorted(own.keys() & baseline.keys())]
        for name, own in summary.top1.items()
    }


def _row(axes: Axes, y: int, row: Mapping[str, Any], seeds: Sequence[float]) -> None:
    colour = OKABE_ITO[0] if row["verdict"] in DIFFERENT else GREY
    axes.axhline(y, color=LIGHT, linewidth=0.4, zorder=0.5)
    axes.plot(
        seeds, [y + 0.24] * len(seeds), "o", color=colour, alpha=0.45, markersize=2.6, markeredgewidth=0, zorder=2
    )
    for half_width, linewidth in ((row["difference_half_width_all"], 0.7), (row["difference_half_width"], 2.0)):
        if not math.isnan(half_width):
            whisker(axes, y, row["difference"], half_width, colour, linewidth=linewidth, arrow=3.6)
    if not math.isnan(row["difference"]):
        axes.plot([row["difference"]], [y], "o", color=colour, markersize=4.2, markeredgewidth=0, zorder=4)
    said = measure(row["difference"], row["difference_half_width"], signed=True) if row["pairs"] else NOTHING
    axes.annotate(
        f"{said}  {_verdict(row)}",
        (1, y),
        xycoords=("axes fraction", "data"),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        color="black" if row["pairs"] else GREY,
        fontsize=6.2,
    )


def _verdict(row: Mapping[str, Any]) -> str:
    """The verdict without what would be needed to reach one, which the table says."""
    return short_verdict(str(row["verdict_words"]).replace(", by less than ", ", < "))


def _limits(
    shown: Sequence[Mapping[str, Any]], seeds: Mapping[str, Sequence[float]], margin: float | None
) -> tuple[float, float]:
    """Room for zero, the margin and every seed, and for intervals as far as they are no longer than that again."""
    values = [0.0, *(value for row in shown for value in seeds.get(row["variant"], ()))]
    values += [-margin * 1.4, margin * 1.4] if margin and margin < 20 else []
    low, high = min(values), max(values)
    room = max(high - low, 0.5)
    for row in shown:
        half_width = row["difference_half_width_all"]
        if not math.isnan(half_width):
            low = min(low, max(row["difference"] - half_width, min(values) - room / 2))
            high = max(high, min(row["difference"] + half_width, max(values) + room / 2))
    space = 0.04 * (high - low)
    return low - space, high + space


def _key(figure: Figure, margin: float | None) -> None:
    dot = {"marker": "o", "markeredgewidth": 0, "color": GREY}
    entries: list[Any] = [
        Line2D([], [], linewidth=2.0, markersize=4.2, **dot),  # type: ignore[arg-type]
        Line2D([], [], linewidth=0.7, color=GREY),
        Line2D([], [], linewidth=0, markersize=2.6, alpha=0.45, **dot),  # type: ignore[arg-type]
    ]
    words = ["mean, 95% interval", "all rows at once", "one seed"]
    if margin:
        entries.append(Patch(color=BAND, linewidth=0))
        words.append(f"±{margin:g}")
    figure.legend(
        entries,
        words,
        loc="outside upper center",
        ncols=4,
        frameon=False,
        fontsize=6,
        handlelength=1.8,
        columnspacing=1.1,
        borderpad=0.2,
    )
