"""The forest plot of a sweep: each row's difference from the baseline, with its intervals. Imports matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from deit_ablate.report.figures import style as drawing
from deit_ablate.report.figures.style import BAND, GREY, MOST, OKABE_ITO, shortened
from deit_ablate.report.stats.verdicts import DIFFERENT
from deit_ablate.report.summary import Summary
from deit_ablate.report.tables.table import measure, short_verdict
from deit_ablate.sweep.metrics import Metric


def forest_figure(summary: Summary) -> Figure:
    """Each row's difference from the baseline, in the metric's unit: thick its own 95% interval, thin the one that
    holds for all rows at once, small dots its runs, less the baseline's mean (less the baseline's run of the same seed
    where the two are paired); shaded the margin of equivalence. Blue where the verdict is a difference, grey where
    there is none. Of more than MOST rows those that differ most are drawn.
    """
    baseline, margin, metric = summary.plan["baseline"], summary.plan["margin"], summary.metric
    every = [row for row in summary.rows if not row["baseline"]]
    with drawing.style():
        if not baseline or not any(_compared(row) for row in every):
            return drawing.nothing("no finished runs to compare" if baseline else "no differences from a baseline")
        ranked = sorted(filter(_compared, every), key=lambda row: -abs(row["difference"]))
        kept = [row["variant"] for row in ranked[:MOST]]
        shown = [row for row in every if len(every) <= MOST or row["variant"] in kept]
        seeds = _differences(summary)
        labels = drawing.row_names(summary, [row["variant"] for row in shown], width=24, lines=2)
        at = drawing.lines(shown)
        figure, (axes,) = drawing.new_figure(1, drawing.pitch(labels) * sum(map(len, at)) + 0.85)
        drawing.row_axes(axes, labels, _limits(shown, seeds, margin, metric), bins=4, at=at)
        if margin:
            axes.axvspan(-margin, margin, color=BAND, linewidth=0, zorder=0)
        axes.axvline(0, color=GREY, linewidth=0.7, dashes=(4, 2.5), zorder=1)
        signed = partial(measure, signed=True, digits=metric.digits)
        for y, row in zip(at[0], shown, strict=True):
            colour = OKABE_ITO[0] if row["verdict"] in DIFFERENT else GREY
            widths = {0.7: row["difference_half_width_all"], 2.0: row["difference_half_width"]}
            own, tip = seeds.get(row["variant"], {}), signed
            drawing.row(axes, y, row["difference"], widths, colour, own, tip, arrow=3.6)
            # The verdict without what would be needed to reach one, which the table says.
            verdict = short_verdict(str(row["verdict_words"]).replace(", by less than ", ", < "))
            text = f"{signed(row['difference'], row['difference_half_width'])}  {verdict}"
            drawing.beside(axes, y, text, "black" if _compared(row) else GREY, 6.2)
        more = "" if len(shown) == len(every) else f"\nthe {len(shown)} of {len(every)} rows that differ most"
        name = drawing.row_names(summary, [baseline], width=24)[0]
        of = shortened([metric.of_differences], width=40)[0].replace("$", r"\$")
        also = "\nlower is better" if metric.better == "lower" else ""
        beside = max(len(short_verdict(str(row["verdict_words"]))) for row in shown)
        between = " " if len(name) + len(of) + beside < 56 else "\n"  # what fits for top-1 and the longest name
        axes.set_xlabel(f"difference from {name}{between}in {of}{also}{more}", parse_math=True)
        _key(figure, margin)
        return figure


def _differences(summary: Summary) -> dict[str, dict[int, float]]:
    """Row -> seed -> difference from the baseline's mean, or its run of that seed."""
    baseline = summary.values[summary.plan["baseline"]]
    mean = sum(baseline.values()) / max(1, len(baseline))
    paired = {row["variant"] for row in summary.rows if row["paired"]}
    return {
        name: {
            seed: own[seed] - (baseline[seed] if name in paired else mean)
            for seed in sorted(own)
            if baseline and (name not in paired or seed in baseline)
        }
        for name, own in summary.values.items()
    }


def _compared(row: Mapping[str, Any]) -> bool:
    return not math.isnan(row["difference"])


def _limits(
    every: Sequence[Mapping[str, Any]],
    seeds: Mapping[str, Mapping[int, float]],
    margin: float | None,
    metric: Metric,
) -> tuple[float, float]:
    """Room for zero, the margin and every seed, and for intervals as far as they are no longer than that again."""
    values = [0.0, *(value for row in every for value in seeds.get(row["variant"], {}).values())]
    most = 20 if metric.share else 3 * max(map(abs, values)) or math.inf
    values += [-margin * 1.4, margin * 1.4] if margin and margin < most else []
    least = 0.5 if metric.share else 10.0**-metric.digits
    shown, room = pd.DataFrame(every), max(max(values) - min(values), least) / 2
    low, high = drawing.limits(values, shown["difference"], shown["difference_half_width_all"], room)
    space = 0.04 * (high - low)
    return low - space, high + space


def _key(figure: Figure, margin: float | None) -> None:
    dot: Any = {"marker": "o", "markeredgewidth": 0, "color": GREY}
    entries = {
        "mean, 95% interval": Line2D([], [], linewidth=2.0, markersize=4.2, **dot),
        "all rows at once": Line2D([], [], linewidth=0.7, color=GREY),
        "one run": Line2D([], [], linewidth=0, markersize=2.6, alpha=0.45, **dot),
        **({f"margin ±{margin:g}": Patch(color=BAND, linewidth=0)} if margin else {}),
    }
    drawing.key(figure, entries, 4, handlelength=1.5, handletextpad=0.5, columnspacing=0.8)
