"""The learning curves of any sweep: each row's mean over seeds, with the range of its seeds. Imports matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from deit_ablate.report.figures.style import GREY, OKABE_ITO, PALE, new_figure, nothing, row_names, style
from deit_ablate.report.summary import Summary
from deit_ablate.report.tables.render import plain
from deit_ablate.sweep.metrics import OF_PROGRAMS

PANELS = (("validation_top1", "validation top-1 (%)"), ("train_loss", "training loss"))
OF_LOSS = (("validation_loss", "validation loss (nats)"), PANELS[1])
"""The panels of a sweep whose metric is the loss: what else may be one is not recorded epoch by epoch."""
MOST_PANELS = 3
"""Of metrics that a program reports."""
SHORT = 6
"""Epochs up to which the whole of a training is shown, its beginning too."""


@dataclass(frozen=True)
class Curve:
    """A variant's curves: of each metric the values by epoch, one list a run, those of finished runs apart."""

    variant: str
    label: str
    """What it is called, in plain text."""
    drawn: str
    """The same as matplotlib is to parse it."""
    baseline: bool
    finished: dict[str, pd.DataFrame]
    others: dict[str, pd.DataFrame]

    def mean(self, metric: str) -> pd.Series[float]:
        """By epoch, over the finished runs; over the others where there is none, as far as all have come."""
        table = self.finished[metric]
        return (table if len(table) else self.others[metric].dropna()).mean(axis=1)


@dataclass(frozen=True)
class Reading:
    """A panel's values, to be read off: ``limits`` are the epochs at its left and right edge, and the values at its
    lower and upper one; ``values`` maps an epoch to one value a name (None where there is none)."""

    metric: str
    title: str
    limits: tuple[float, float, float, float]
    names: tuple[str, ...]
    colours: tuple[int, ...]
    """Each line's place in OKABE_ITO."""
    values: Mapping[int, tuple[float | None, ...]]


def _panels(summary: Summary) -> tuple[tuple[str, str], ...]:
    if summary.metric.program:
        return tuple((metric.column, metric.header) for metric in summary.metrics if metric.program)[:MOST_PANELS]
    return OF_LOSS if summary.metric.figure == "loss" else PANELS


def curves_figure(summary: Summary) -> Figure:
    """Validation top-1 (%), or the validation loss where that is the metric, and training loss by epoch.

    A line is the mean over a variant's finished runs, its band their range; runs that are not finished or diverged
    are thin lines. With more than seven variants only the baseline and those that end highest and lowest have a
    colour and a label.
    """
    curves, metrics = _curves(summary), _panels(summary)
    with style():
        if not curves:
            return nothing("no finished epochs")
        colours = _colours(curves)
        figure, panels = new_figure(len(metrics), 3.6)
        for axes, (metric, words) in zip(panels, metrics, strict=True):
            axes.set_ylabel(words)
            drawn = [_draw(axes, curve, metric, colours.get(curve.variant)) for curve in curves]
            if not any(drawn):
                axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", va="center", color=GREY)
                axes.set_yticks([])
                continue
            axes.set_gid(f"panel-{metric}")
            axes.patch.set_gid(f"area-{metric}")
            first, last = axes.dataLim.intervalx
            axes.set_xlim(first - 0.5 * (first == last), last + 0.5 * (first == last))  # one epoch has no width
            axes.set_ylim(*_interesting(curves, metric))
            _name_lines(axes, curves, metric, colours)
        beyond = max(_beyond(axes, curves, metric) for axes, (metric, _) in zip(panels, metrics, strict=True))
        words = f"epoch (up to epoch {beyond} some values lie beyond the axes)" if beyond >= 0 else "epoch"
        for axes in panels if len({axes.get_position().x0 for axes in panels}) > 1 else panels[-1:]:
            axes.set_xlabel(words)
        panels[-1].xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
        lines = [f"grey: {len(curves) - len(colours)} other rows"] if len(curves) > len(colours) else []
        if any(len(table) for curve in curves for table in curve.others.values()):
            lines.append("dashed: diverged, or not finished")
        place: Any = {"transform": panels[-1].transAxes, "ha": "right", "va": "top", "color": GREY, "fontsize": 6}
        if lines:
            panels[-1].text(0.98, 0.95, "\n".join(lines), **place)
        figure.align_ylabels()
        return figure


def readings(summary: Summary, figure: Figure) -> list[Reading]:
    """What can be read off a figure by the script of a page: nothing of one that ``curves_figure`` did not draw."""
    panels = {axes.get_gid(): axes for axes in figure.axes}
    found: list[Reading] = []
    curves = _curves(summary) if any(f"panel-{metric}" in panels for metric, _ in _panels(summary)) else []
    colours = _colours(curves)
    shown = sorted((curve for curve in curves if curve.variant in colours), key=lambda curve: not curve.baseline)
    for metric, title in _panels(summary):
        if (axes := panels.get(f"panel-{metric}")) is None:
            continue
        tables = [curve.mean(metric) for curve in shown]
        means = [{int(epoch): float(table[epoch]) for epoch in table.index} for table in tables]
        epochs = sorted({epoch for mean in means for epoch in mean})
        found.append(
            Reading(
                metric,
                title if summary.metric.program else title[0].upper() + title[1:],
                (*axes.get_xlim(), *axes.get_ylim()),
                tuple(c.label + ("" if len(c.finished[metric]) else " (unfinished)") for c in shown),
                tuple(OKABE_ITO.index(colours[curve.variant]) for curve in shown),
                {epoch: tuple(mean.get(epoch) for mean in means) for epoch in epochs},
            )
        )
    return found


@lru_cache(maxsize=1)  # the figure and what a page reads off it are made one after the other
def _curves(summary: Summary) -> list[Curve]:
    lines = summary.curves
    lines = _as_drawn(lines[lines["stage"] == summary.stage])
    tables = {metric: _by_run(lines, metric) for metric, _ in _panels(summary)}
    none = pd.DataFrame()
    found = []
    for name in (str(row["name"]) for row in summary.plan["variants"]):
        # The mean of other runs at each epoch would jump: it is taken where all have a value.
        finished = {metric: table.get((name, True), none).dropna() for metric, table in tables.items()}
        others = {metric: table.get((name, False), none) for metric, table in tables.items()}
        if any(len(table) for table in (*finished.values(), *others.values())):
            drawn = row_names(summary, [name], width=20)[0]
            said = plain(summary.say(summary.label(name)))
            found.append(Curve(name, said, drawn, name == summary.plan["baseline"], finished, others))
    return found


def _as_drawn(lines: pd.DataFrame) -> pd.DataFrame:
    """Lines at the epochs at which they are drawn. Our trainer's epochs, and the lines of a program that counts none,
    are recorded from 0 and drawn from 1; where a program has a count of its own, its lines are drawn by it."""
    own = lines.get(f"{OF_PROGRAMS}epoch", pd.Series(math.nan, lines.index)).notna()
    return lines.assign(epoch=lines["epoch"] + ~own.groupby(lines["run"]).transform("any"))


def _by_run(lines: pd.DataFrame, metric: str) -> dict[tuple[str, bool], pd.DataFrame]:
    """By variant and whether runs are finished: epochs down, seeds across; empty where none was recorded."""
    if metric not in lines:  # one that a program would have reported
        return {}
    known = lines.dropna(subset=[metric]).astype({"epoch": int, "seed": int})
    known = known.assign(finished=known["state"] == "done")
    by = ["variant", "finished", "seed"]
    # One table of all runs, then its parts: making a table for each variant took most of a page of many.
    wide = known.drop_duplicates(["epoch", *by], keep="last").pivot(index="epoch", columns=by, values=metric)
    columns: list[Any] = wide.columns.to_list()
    places: dict[tuple[str, bool], dict[int, int]] = {}
    for place, (variant, finished, seed) in enumerate(columns):
        places.setdefault((variant, bool(finished)), {})[seed] = place
    parts = {runs: wide.iloc[:, list(seeds.values())].set_axis(list(seeds), axis=1) for runs, seeds in places.items()}
    return {runs: table.dropna(how="all") for runs, table in parts.items()}


def _colours(curves: Sequence[Curve]) -> dict[str, str]:
    """Variant -> colour, black for the baseline; of many variants only those that a reader looks for."""
    others = [curve for curve in curves if not curve.baseline]
    palette = OKABE_ITO[:-1]
    if len(others) > len(palette):
        for metric in others[0].finished:
            if ended := [own for own in others if len(own.finished[metric])]:
                break
        ended.sort(key=lambda own: float(own.mean(metric).iloc[-1]))
        others = [*ended[-3:][::-1], *ended[:-3][:3]]
    chosen = {curve.variant: colour for curve, colour in zip(others, palette, strict=False)}
    return {curve.variant: OKABE_ITO[-1] for curve in curves if curve.baseline} | chosen


def _draw(axes: Axes, curve: Curve, metric: str, colour: str | None) -> bool:
    table, others = curve.finished[metric], curve.others[metric]
    order, shade = (3, colour) if colour else (1, PALE)
    if len(others):
        axes.plot(others.index, others, color=shade, linewidth=0.5, linestyle=(0, (3, 1.5)), zorder=order)
    if len(table):
        if colour and table.shape[1] > 1:
            low, high = table.min(axis=1), table.max(axis=1)
            axes.fill_between(table.index, low, high, color=colour, alpha=0.16, linewidth=0, zorder=order - 1)
        axes.plot(table.index, table.mean(axis=1), color=shade, linewidth=1.1 if colour else 0.5, zorder=order)
    return bool(len(table) or len(others))


def _interesting(curves: Sequence[Curve], metric: str) -> tuple[float, float]:
    """Limits by the finished runs, where there are any, without the first third of training: what differs shows after
    it."""
    finished = [curve.finished[metric] for curve in curves if len(curve.finished[metric])]
    tables = finished or [curve.others[metric] for curve in curves if len(curve.others[metric])]
    last = max(table.index.max() for table in tables)
    begins = last / 3 if last > SHORT else 0
    values = np.concatenate([table[table.index > begins].to_numpy().ravel() for table in tables])
    values = values[np.isfinite(values)]
    if not len(values):
        values = np.concatenate([table.to_numpy().ravel() for table in tables])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.06 * ((high - low) or 1.0)
    return low - margin, high + margin


def _beyond(axes: Axes, curves: Sequence[Curve], metric: str) -> int:
    """The last epoch of which a finished run's value lies outside the axes, -1 for none."""
    low, high = axes.get_ylim()
    tables = [curve.finished[metric] for curve in curves if len(curve.finished[metric])]
    outside = [table.index[((table < low) | (table > high)).any(axis=1)] for table in tables]
    return max((int(epochs.max()) for epochs in outside if len(epochs)), default=-1)


def _name_lines(axes: Axes, curves: Sequence[Curve], metric: str, colours: dict[str, str]) -> None:
    """Each coloured line's name at its right end, pushed apart where lines end close together."""
    (low, high), right = axes.get_ylim(), axes.get_xlim()[1]
    ends = []
    for curve in curves:
        table = curve.finished[metric] if len(curve.finished[metric]) else curve.others[metric]
        means = table.mean(axis=1).dropna()
        if len(means) and curve.variant in colours:
            ends.append((float(means.iloc[-1]), float(means.index[-1]), curve))
    ends.sort(key=lambda end: end[0])
    places = [(min(max(value, low), high) - low) / (high - low) for value, _, _ in ends]
    # No patchA: where a line leaves its words is geometry, and searching for it took a quarter of the drawing.
    lead: Any = {"arrowstyle": "-", "linewidth": 0.4, "shrinkA": 3, "shrinkB": 0, "relpos": (0, 0.5), "patchA": None}
    for place, (value, epoch, curve) in zip(_apart(places, 0.085), ends, strict=True):
        colour, beyond = colours[curve.variant], " ↓" if value < low else " ↑" if value > high else ""
        axes.annotate(
            curve.drawn + beyond,
            (min(epoch, right), min(max(value, low), high)),
            xytext=(1.06, place),
            textcoords="axes fraction",
            va="center",
            color=colour,
            parse_math=True,
            fontsize=6,
            annotation_clip=False,
            arrowprops={**lead, "color": colour},
        )


def _apart(places: Sequence[float], gap: float) -> list[float]:
    """Ascending places, moved as little (by least squares) as makes neighbours ``gap`` apart."""
    from scipy.optimize import isotonic_regression

    steps = gap * np.arange(len(places))
    return list(isotonic_regression(places - steps).x + steps) if len(places) else []
