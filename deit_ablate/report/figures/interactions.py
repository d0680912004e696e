"""Means by the levels of two factors of a factorial; steps by their places in several orders. Imports matplotlib."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from deit_ablate.report.figures import style as drawing
from deit_ablate.report.figures.style import GREY, OKABE_ITO
from deit_ablate.report.summary import Summary
from deit_ablate.report.tables.interactions import Steps, level_means
from deit_ablate.report.tables.table import measure
from deit_ablate.sweep.designs import Design
from deit_ablate.sweep.labels import labels_of
from deit_ablate.sweep.metrics import Metric

MOST_PAIRS = 12
"""Interactions that are drawn; of more those that are largest."""


def interactions_figure(summary: Summary) -> Figure:
    """Of a factorial, for each two factors, the mean metric with and without the first, by the second (95% intervals):
    lines that are parallel where the two don't interact. Of a cumulative sweep what each step adds in each order."""
    design = summary.design
    assert design is not None
    with drawing.style():
        if not all(summary.values.values()):
            return drawing.nothing("not all rows have finished runs")
        return _steps(summary, design) if design.orders else _pairs(summary, design)


def _pairs(summary: Summary, design: Design) -> Figure:
    pairs = list(itertools.combinations(range(len(design.changes)), 2))
    means = level_means(summary, design, pairs)
    if len(pairs) > MOST_PAIRS:
        pairs = sorted(sorted(pairs, key=lambda pair: -_bend(means[pair]))[:MOST_PAIRS])
    names = [drawing.text_of(summary.say(name), 16) for name in design.called(labels_of(summary.plan))]
    across = min(3, len(pairs))
    figure, every = drawing.new_figure(len(pairs), 1.35 * -(-len(pairs) // across) + 0.45, across=across, share=False)
    values = [value for pair in pairs for value, _ in means[pair].values()]
    values += [mean + sign * half for pair in pairs for mean, half in means[pair].values() for sign in (1, -1) if half]
    space = _space(values, summary.metric)
    for k, (axes, pair) in enumerate(zip(every, pairs, strict=True)):
        _panel(axes, means[pair], [names[i] for i in pair], summary.metric.digits)
        axes.set_ylim(min(values) - space, max(values) + space)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
        if k % across:
            axes.set_yticklabels([])
        else:
            axes.set_ylabel(summary.metric.header)
    line: Any = {"marker": "o", "markersize": 3.6, "markeredgewidth": 0}
    entries = {
        "with the second": Line2D([], [], color=OKABE_ITO[0], **line),
        "without the second, 95% interval": Line2D([], [], color=OKABE_ITO[1], linestyle=(0, (4, 2)), **line),
    }
    drawing.key(figure, entries, 2, handlelength=2.2)
    if len(pairs) < len(means):
        figure.supxlabel(f"the {len(pairs)} of {len(means)} interactions that are largest", fontsize=7)
    return figure


def _space(values: Sequence[float], metric: Metric) -> float:
    """Above and below them."""
    return 0.06 * max(max(values) - min(values), 0.5 if metric.share else 10.0**-metric.digits)


def _bend(means: Mapping[tuple[bool, bool], tuple[float, float]]) -> float:
    return abs(sum((1 if one == other else -1) * mean for (one, other), (mean, _) in means.items()))


def _panel(
    axes: Axes, means: Mapping[tuple[bool, bool], tuple[float, float]], names: Sequence[str], digits: int
) -> None:
    for there, colour, dashes in ((True, OKABE_ITO[0], "-"), (False, OKABE_ITO[1], (0, (4, 2)))):
        shift = 0.03 if there else -0.03
        for x, first in enumerate((False, True)):
            mean, half = means[first, there]
            if not math.isnan(half):
                axes.plot([x + shift] * 2, [mean - half, mean + half], color=colour, linewidth=0.7, zorder=2)
        ends = [means[first, there][0] for first in (False, True)]
        tips = drawing.TIPS + "|".join(measure(mean, digits=digits) for mean in ends)
        line: Any = {"linestyle": dashes, "marker": "o", "markersize": 3.6, "markeredgewidth": 0, "gid": tips}
        axes.plot([shift, 1 + shift], ends, color=colour, zorder=3, **line)
    axes.set_xlim(-0.35, 1.35)
    axes.set_xticks([0, 1], ["without", "with"])
    axes.set_xlabel(names[0], parse_math=True)
    axes.set_title(f"{names[0]} ×\n{names[1]}", fontsize=6.5, parse_math=True)


def _steps(summary: Summary, design: Design) -> Figure:
    made, numbers, metric = Steps.of(summary, design), range(len(design.changes)), summary.metric
    labels = [drawing.text_of(summary.say(name), 22, 2) for name in design.called(labels_of(summary.plan))]
    figure, (axes,) = drawing.new_figure(1, max(drawing.pitch(labels), 0.3) * len(labels) + 0.85)
    ends = [made.mean[i].difference + sign * made.mean[i].half_width for i in numbers for sign in (1, -1)]
    values = [0.0, *(end for end in ends if not math.isnan(end)), *(step[i] for step in made.each for i in numbers)]
    space = _space(values, summary.metric)
    drawing.row_axes(axes, labels, (min(values) - space, max(values) + space), bins=5)
    axes.axvline(0, color=GREY, linewidth=0.7, dashes=(4, 2.5), zorder=1)
    for y, i in enumerate(numbers):
        mean = made.mean[i]
        drawing.row(axes, y, mean.difference, {1.4: mean.half_width}, GREY)
        steps = sorted((step[i], order.index(i) + 1) for order, step in zip(design.orders, made.each, strict=True))
        apart: list[list[tuple[float, int]]] = []  # places that would be written over one another stand together
        for value, place in steps:
            if apart and value - apart[-1][0][0] < 0.05 * (max(values) - min(values)):
                apart[-1].append((value, place))
            else:
                apart.append([(value, place)])
        for near in apart:
            text = ", ".join(map(str, sorted({place for _, place in near})))
            x = sum(value for value, _ in near) / len(near)
            axes.text(x, y + 0.3, text, color=OKABE_ITO[0], fontsize=6, ha="center", va="center")
        text = measure(mean.difference, mean.half_width, signed=True, digits=metric.digits)
        drawing.beside(axes, y, text, "black", 6.5)
    axes.set_xlabel(f"what the step adds to {metric.of_differences}\nnumbers: at which place of an order it does")
    dot: Any = {"color": GREY, "marker": "o", "markersize": 4.2, "markeredgewidth": 0, "linewidth": 1.4}
    drawing.key(figure, {"mean of all orders, 95% interval": Line2D([], [], **dot)}, 1, handlelength=2)
    return figure
