"""The two figures of any sweep: accuracies with intervals, and learning curves. Imports matplotlib (not pyplot).

Figures are matplotlib Figures at a paper's column width; ``save`` writes them without dates or versions, so the
same records give the same bytes. Whatever users wrote is shown as it is, never read as mathematics.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from deit_ablate import files
from deit_ablate.report.frame import final_stage, load_curves, read_plan, rows
from deit_ablate.report.render import plain
from deit_ablate.report.summary import summarize
from deit_ablate.report.tables import measure
from deit_ablate.store import Store

WIDTH = 3.35
"""Inches: one column of a two-column paper."""
DPI = 300
MOST = 60
"""Rows of the accuracy figure: about a page."""
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours that colour-blind readers can tell apart; yellow is left out, being too light for a line."""
GREY, LIGHT = "#555555", "#DDDDDD"
STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.1,
    "svg.hashsalt": "deit-ablate",
    "pdf.fonttype": 42,
    "text.parse_math": False,
}
METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    "svg": {"Creator": None, "Date": None},
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """matplotlib's own defaults and ours, whatever the user's matplotlibrc says; undone at the end."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes: that is no news for whoever runs a sweep.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def save(figure: Figure, path: Path) -> None:
    """Write a figure whole, in the format that the suffix names: png, pdf or svg. Raises KeyError for another."""
    form = path.suffix.lstrip(".")
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format=form, dpi=DPI, metadata=METADATA[form])
    files.replace(path, buffer.getvalue())


# -- accuracies ----------------------------------------------------------------------------------------------------


def sweep_figure(results: Path | str, sweep: str) -> Figure:
    """Each variant's mean test top-1 (%) with its 95% t interval and its seeds; the baseline as a line. Raises NoSweep.

    Of more than MOST variants only the baseline, the highest and the lowest are drawn, and the axis says so.
    """
    summary = summarize(results, sweep)
    every = _extremes(rows(summary.frame))
    seeds: dict[str, list[float]] = {row["variant"]: [] for row in every}
    for record in summary.final:
        if record["variant"] in seeds and not math.isnan(record["top1"]):
            seeds[record["variant"]].append(record["top1"])
    with style():
        if not any(seeds.values()):
            return _nothing("no finished runs")
        labels = _labels([row["variant"] for row in every], width=22, lines=2)
        pitch = 0.3 if any("\n" in label for label in labels) else 0.24 if len(labels) <= 12 else 0.2
        figure, (axes,) = _figure(1, pitch * len(every) + 0.75)
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
                _interval(axes, y, row["top1_mean"], row["top1_half_width"], colour)
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


def _interval(axes: Axes, y: float, mean: float, half_width: float, colour: str) -> None:
    """The interval as a line; an arrow where it goes on beyond the axis."""
    low, high = axes.get_xlim()
    ends = mean - half_width, mean + half_width
    axes.plot(
        [max(ends[0], low), min(ends[1], high)],
        [y, y],
        "-",
        color=colour,
        linewidth=1.4,
        solid_capstyle="butt",
        zorder=3,
    )
    for beyond, edge, marker in ((ends[0] < low, low, 4), (ends[1] > high, high, 5)):
        if beyond:
            axes.plot(
                [edge], [y], marker=marker, color=colour, markersize=4, markeredgewidth=0, clip_on=False, zorder=3
            )


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


# -- learning curves -----------------------------------------------------------------------------------------------

PANELS = (("validation_top1", "validation top-1 (%)"), ("train_loss", "training loss"))
PALE = "#BBBBBB"


@dataclass(frozen=True)
class Curve:
    """A variant's curves: of each metric the values by epoch, one list a run, those of finished runs apart."""

    variant: str
    baseline: bool
    finished: dict[str, pd.DataFrame]
    others: dict[str, pd.DataFrame]

    def last(self, metric: str) -> float:
        """Where the mean line ends, or NaN."""
        table = self.finished[metric]
        return float(table.mean(axis=1).iloc[-1]) if len(table) else math.nan


def curves_figure(results: Path | str, sweep: str) -> Figure:
    """Validation top-1 (%) and training loss by epoch. Raises NoSweep.

    A line is the mean over a variant's finished runs, its band their range; runs that are not finished or diverged
    are thin lines. With more than seven variants only the baseline and those that end highest and lowest have a
    colour and a label.
    """
    curves = _curves(results, sweep)
    with style():
        if not curves:
            return _nothing("no finished epochs")
        colours = _colours(curves)
        figure, panels = _figure(len(PANELS), 3.6)
        for axes, (metric, words) in zip(panels, PANELS, strict=True):
            axes.set_ylabel(words)
            drawn = [_draw(axes, curve, metric, colours.get(curve.variant)) for curve in curves]
            if not any(drawn):
                axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", va="center", color=GREY)
                axes.set_yticks([])
                continue
            axes.margins(x=0)
            axes.set_ylim(*_interesting(curves, metric))
            _name_lines(axes, curves, metric, colours)
        panels[-1].set_xlabel("epoch")
        panels[-1].xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
        hidden = len(curves) - len(colours)
        if hidden:
            panels[-1].text(
                0.98,
                0.95,
                f"grey: {hidden} other rows",
                transform=panels[-1].transAxes,
                ha="right",
                va="top",
                color=GREY,
                fontsize=6,
            )
        figure.align_ylabels()
        return figure


def _curves(results: Path | str, sweep: str) -> list[Curve]:
    plan = read_plan(Store(results), sweep)
    lines = load_curves(results, sweep)
    lines = lines.loc[
        lines["stage"] == final_stage(plan), ["variant", "seed", "state", "epoch", *(metric for metric, _ in PANELS)]
    ]
    runs: dict[tuple[str, bool, str], dict[int, dict[int, float]]] = {}
    for line in rows(lines):
        for metric, _ in PANELS:
            if not math.isnan(line[metric]):
                own = runs.setdefault((line["variant"], line["state"] == "done", metric), {})
                own.setdefault(line["seed"], {})[line["epoch"]] = line[metric]
    found = []
    for row in plan["variants"]:
        # The mean of other runs at each epoch would jump: it is taken where all have a value.
        finished = {metric: _by_epoch(runs.get((row["name"], True, metric), {})).dropna() for metric, _ in PANELS}
        others = {metric: _by_epoch(runs.get((row["name"], False, metric), {})) for metric, _ in PANELS}
        if any(len(table) for table in (*finished.values(), *others.values())):
            found.append(Curve(row["name"], row["name"] == plan["baseline"], finished, others))
    return found


def _by_epoch(runs: Mapping[int, Mapping[int, float]]) -> pd.DataFrame:
    """Epochs down, seeds across."""
    return pd.DataFrame({seed: pd.Series(values, dtype="float64") for seed, values in runs.items()}).sort_index()


def _colours(curves: Sequence[Curve]) -> dict[str, str]:
    """Variant -> colour, black for the baseline; of many variants only those that a reader looks for."""
    others = [curve for curve in curves if not curve.baseline]
    palette = OKABE_ITO[:-1]
    if len(others) > len(palette):
        metric = next(
            (metric for metric, _ in PANELS if any(not math.isnan(curve.last(metric)) for curve in others)),
            PANELS[0][0],
        )
        ranked = sorted(
            (curve for curve in others if not math.isnan(curve.last(metric))), key=lambda curve: curve.last(metric)
        )
        others = [*ranked[-3:][::-1], *ranked[:-3][:3]]
    chosen = {curve.variant: colour for curve, colour in zip(others, palette, strict=False)}
    return {curve.variant: OKABE_ITO[-1] for curve in curves if curve.baseline} | chosen


def _draw(axes: Axes, curve: Curve, metric: str, colour: str | None) -> bool:
    table, others = curve.finished[metric], curve.others[metric]
    order = 3 if colour else 1
    for seed in others:
        axes.plot(
            others.index, others[seed], color=colour or PALE, linewidth=0.5, linestyle=(0, (3, 1.5)), zorder=order
        )
    if len(table):
        if colour and table.shape[1] > 1:
            axes.fill_between(
                table.index,
                table.min(axis=1),
                table.max(axis=1),
                color=colour,
                alpha=0.16,
                linewidth=0,
                zorder=order - 1,
            )
        axes.plot(table.index, table.mean(axis=1), color=colour or PALE, linewidth=1.1 if colour else 0.5, zorder=order)
    return bool(len(table) or len(others))


def _interesting(curves: Sequence[Curve], metric: str) -> tuple[float, float]:
    """Limits by the finished runs, where there are any, without the first third of training: what differs shows after it."""
    finished = [curve.finished[metric] for curve in curves if len(curve.finished[metric])]
    tables = finished or [curve.others[metric] for curve in curves if len(curve.others[metric])]
    last = max(table.index.max() for table in tables)
    values = np.concatenate([table[table.index > last / 3].to_numpy().ravel() for table in tables])
    values = values[np.isfinite(values)]
    if not len(values):
        values = np.concatenate([table.to_numpy().ravel() for table in tables])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.06 * ((high - low) or 1.0)
    return low - margin, high + margin


def _name_lines(axes: Axes, curves: Sequence[Curve], metric: str, colours: dict[str, str]) -> None:
    """Each coloured line's name at its right end, pushed apart where lines end close together."""
    low, high = axes.get_ylim()
    right = axes.get_xlim()[1]
    ends = []
    for curve in curves:
        table = next((table for table in (curve.finished[metric], curve.others[metric]) if len(table)), None)
        if table is not None and curve.variant in colours:
            means = table.mean(axis=1).dropna()
            if len(means):
                ends.append((float(means.iloc[-1]), float(means.index[-1]), curve))
    ends.sort(key=lambda end: end[0])
    places = [(min(max(value, low), high) - low) / (high - low) for value, _, _ in ends]
    names = _labels([curve.variant for _, _, curve in ends], width=20)
    for place, name, (value, epoch, curve) in zip(_apart(places, 0.085), names, ends, strict=True):
        colour, beyond = colours[curve.variant], " ↓" if value < low else " ↑" if value > high else ""
        axes.annotate(
            name + beyond, (min(epoch, right), min(max(value, low), high)), xytext=(1.06, place),
            textcoords="axes fraction", va="center", color=colour, fontsize=6, annotation_clip=False, arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.4, "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)},
        )  # fmt: skip


def _apart(places: Sequence[float], gap: float) -> list[float]:
    """Ascending places, moved as little as makes neighbours ``gap`` apart: blocks that touch share one centre."""
    blocks: list[list[float]] = []
    for place in places:
        blocks.append([place])
        while (
            len(blocks) > 1
            and _centre(blocks[-1]) - _centre(blocks[-2]) < gap * (len(blocks[-1]) + len(blocks[-2])) / 2
        ):
            last = blocks.pop()
            blocks[-1] += last
    return [_centre(block) + gap * (i - (len(block) - 1) / 2) for block in blocks for i in range(len(block))]


def _centre(block: Sequence[float]) -> float:
    return sum(block) / len(block)


# -- shared --------------------------------------------------------------------------------------------------------


def _figure(panels: int, height: float) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0])


def _nothing(words: str) -> Figure:
    figure = Figure(figsize=(WIDTH, 1), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.text(0.5, 0.5, words, ha="center", va="center", color=GREY)
    return figure


def _labels(names: Sequence[str], width: int, lines: int = 1) -> list[str]:
    """Names on few lines of ``width`` characters. Where one is longer, the blocks of keys go from all; then middles go."""
    texts = [plain(name).strip() for name in names]
    if any(len(text) > width for text in texts):
        texts = [re.sub(r"[a-z]+\.(?=[a-z])", "", text) for text in texts]
    return [_wrapped(text, width, lines) for text in texts]


def _wrapped(text: str, width: int, lines: int) -> str:
    """At most ``lines`` lines, ended after spaces, commas and the like, the last one cut in its middle."""
    parts: list[str] = [""]
    for piece in re.findall(r"[^ ,;+/]*[ ,;+/]*", text):
        if len(parts) < lines and parts[-1] and len((parts[-1] + piece).rstrip()) > width:
            parts.append("")
        parts[-1] += piece
    return "\n".join(_cut(part.strip(), width) for part in parts)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width // 2] + "…" + text[len(text) - (width - width // 2 - 1) :]
