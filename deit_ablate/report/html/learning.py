"""Learning curves: a row's mean over its seeds, with the range of the seeds, and all values in a table for those who
read rather than look. The script reads its tooltips from that table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deit_ablate.report.html.content import Content
from deit_ablate.report.html.markup import details, grid, tag
from deit_ablate.report.html.strips import tick_text, ticks

PANELS = (("validation_top1", "Validation top-1 (%)"), ("train_loss", "Training loss"))
COLOURED = 8
"""Rows with a colour, a name and a column of values; of more rows the baseline and those that end highest and lowest."""
POINTS = 150
"""Points of a line at most; more are not seen."""
WIDE, HIGH = 1000, 400
Line = dict[int, float]


@dataclass(frozen=True)
class Curve:
    """One row's values of one metric: epoch -> mean, lowest, highest over the finished runs; other runs one by one."""

    variant: str
    mean: Line
    low: Line
    high: Line
    others: tuple[Line, ...]
    runs: int

    @property
    def told(self) -> Line:
        """What tooltips and the table say: of unfinished runs alone their mean, as far as all have come."""
        return self.mean or _mean(self.others)

    @property
    def last(self) -> float:
        told = self.told
        return told[max(told)] if told else math.nan


def curves(page: Content) -> str:
    panels = [_panel(page, metric, title) for metric, title in PANELS]
    if not any(panels):
        return ""
    note = (
        "Lines: means over the finished runs of a row; bands: from the lowest to the highest seed. Dashed: runs that are not "
        "finished or diverged. Point at a plot, or focus it and use the arrow keys, to read values."
    )
    return tag("p", note, class_="small") + "\n" + "\n".join(panels)


def _panel(page: Content, metric: str, title: str) -> str:
    every = read(page, metric)
    if not every:
        return ""
    coloured = _coloured(every, page.plan["baseline"])
    epochs = sorted({epoch for curve in every for epoch in (*curve.told, *(e for line in curve.others for e in line))})
    low, high = _limits(every, epochs[-1])
    plot = _Plot(epochs[0], epochs[-1], low, high)
    behind: list[str] = []
    bands: list[str] = []
    front: list[str] = []
    for curve in every:
        colour = coloured.get(curve.variant)
        class_ = f"c{colour}" if colour is not None else "pale"
        lines = [plot.path(line, f"curve other {class_}") for line in curve.others]
        lines += [plot.path(curve.mean, f"curve {class_}")] if curve.mean else []
        (behind if colour is None else front).extend(lines)
        if colour is not None and curve.runs > 1:
            bands.append(plot.band(curve, f"band {class_}"))
    drawn = "".join((*behind, *bands, *front))
    inner = f'<svg viewBox="0 0 {WIDE} {HIGH}" preserveAspectRatio="none" width="100%" height="100%">{drawn}</svg>'
    rules = "".join(
        f'<line class="rule" x1="0" x2="100%" y1="{plot.down(value)}%" y2="{plot.down(value)}%"/>'
        for value in plot.ticks
    )
    left = "".join(
        f'<text x="100%" y="{plot.down(value)}%" dx="-6" dy="4">{tick_text(value)}</text>' for value in plot.ticks
    )
    below = "".join(
        f'<text class="{_edge(plot.across(epoch))}" x="{plot.across(epoch)}%" y="14">{epoch:g}</text>'
        for epoch in _epoch_ticks(epochs)
    )
    names = {curve.variant: page.say(curve.variant, 60) for curve in every if curve.variant in coloured}
    order = sorted(names, key=lambda name: coloured[name])
    legend = "".join(
        tag(
            "li",
            f'<svg class="swatch" width="22" height="10" aria-hidden="true"><line class="curve c{coloured[name]}" x1="0" x2="22" y1="5" y2="5"/></svg>{names[name]}',
        )
        for name in order
    )
    if len(every) > len(coloured):
        legend += tag("li", f"grey: {len(every) - len(coloured)} other rows", class_="small")
    area = (
        f'<div class="plot-area" tabindex="0" role="slider" aria-label="{title}: epoch" aria-orientation="horizontal" '
        f'aria-valuemin="{epochs[0]}" aria-valuemax="{epochs[-1]}" aria-valuenow="{epochs[-1]}" '
        f'aria-valuetext="epoch {epochs[-1]}" data-first="{plot.first}" data-last="{plot.last}" data-low="{plot.low:.6g}" data-high="{plot.high:.6g}">'
        f'<svg class="plot" aria-hidden="true">{rules}{inner}</svg></div>'
    )
    drawing = (
        f'<div class="chart"><svg class="y" aria-hidden="true">{left}</svg>{area}<span></span>'
        f'<svg class="x" aria-hidden="true" height="20">{below}</svg></div><p class="x-title" aria-hidden="true">epoch</p>'
    )
    caption = tag("figcaption", tag("h3", title))
    values = _values(page, title, {name: next(c for c in every if c.variant == name) for name in order}, epochs)
    return (
        tag(
            "figure",
            f"{caption}\n{tag('ul', legend, class_='legend')}\n{drawing}\n{values}",
            class_="learning",
            id_=f"curves-{metric}",
        )
        + "\n"
    )


class _Plot:
    def __init__(self, first: int, last: int, low: float, high: float):
        self.first, self.last, self.low, self.high = first, max(last, first + 1), low, high
        self.ticks = ticks(low, high, 5)

    def across(self, epoch: float) -> float:
        return round(100 * (epoch - self.first) / (self.last - self.first), 2)

    def down(self, value: float) -> float:
        return round(100 * (self.high - value) / (self.high - self.low), 2)

    def point(self, epoch: int, value: float) -> str:
        # Far outside (a loss that explodes) the line need not be followed.
        y = min(3.0 * HIGH, max(-2.0 * HIGH, self.down(value) * HIGH / 100))
        return f"{self.across(epoch) * WIDE / 100:.0f} {y:.1f}"

    def path(self, line: Line, class_: str) -> str:
        points = [self.point(epoch, line[epoch]) for epoch in thinned(sorted(line))]
        points += points if len(points) == 1 else []
        return f'<path class="{class_}" d="M{"L".join(points)}"/>'

    def band(self, curve: Curve, class_: str) -> str:
        epochs = thinned(sorted(curve.mean))
        there = [self.point(epoch, curve.high[epoch]) for epoch in epochs]
        back = [self.point(epoch, curve.low[epoch]) for epoch in reversed(epochs)]
        return f'<path class="{class_}" d="M{"L".join((*there, *back))}Z"/>'


def read(page: Content, metric: str) -> list[Curve]:
    """The curves of a metric, in the plan's order; rows without any value are left out."""
    done: dict[str, dict[int, Line]] = {}
    others: dict[str, dict[int, Line]] = {}
    columns = (page.curves[name] for name in ("variant", "seed", "state", "epoch", metric))
    for variant, seed, state, epoch, value in zip(*columns, strict=True):
        if value == value and not math.isinf(value):
            runs = (done if state == "done" else others).setdefault(variant, {})
            runs.setdefault(seed, {})[int(epoch) + 1] = value
    found = []
    for row in page.plan["variants"]:
        own, rest = list(done.get(row["name"], {}).values()), tuple(others.get(row["name"], {}).values())
        # A mean over other runs at each epoch would jump: it is taken where all have a value.
        shared = sorted(set.intersection(*(set(line) for line in own))) if own else []
        if shared or rest:
            found.append(
                Curve(
                    row["name"],
                    {e: sum(line[e] for line in own) / len(own) for e in shared},
                    {e: min(line[e] for line in own) for e in shared},
                    {e: max(line[e] for line in own) for e in shared},
                    rest,
                    len(own),
                )
            )
    return found


def _mean(lines: Sequence[Line]) -> Line:
    shared = sorted(set.intersection(*(set(line) for line in lines))) if lines else []
    return {epoch: sum(line[epoch] for line in lines) / len(lines) for epoch in shared}


def _coloured(every: Sequence[Curve], baseline: str | None) -> dict[str, int]:
    """Row -> its colour's number; 0 is the baseline's."""
    others = [curve for curve in every if curve.variant != baseline]
    if len(others) > COLOURED - 1:
        ranked = sorted((curve for curve in others if not math.isnan(curve.last)), key=lambda curve: curve.last)
        half = (COLOURED - 1) // 2
        others = [*ranked[: -half - 2 : -1], *ranked[:half]] if len(ranked) > COLOURED else others[: COLOURED - 1]
    chosen = {curve.variant: i + 1 for i, curve in enumerate(others)}
    return ({baseline: 0} if baseline and any(curve.variant == baseline for curve in every) else {}) | chosen


def _limits(every: Sequence[Curve], last: int) -> tuple[float, float]:
    """By the finished runs, where there are any, without the first third of training: what differs shows after it."""
    finished = [line for curve in every for line in (curve.low, curve.high) if line]
    lines = finished or [line for curve in every for line in curve.others]
    values = [value for line in lines for epoch, value in line.items() if epoch > last / 3] or [
        v for line in lines for v in line.values()
    ]
    low, high = min(values), max(values)
    space = 0.06 * ((high - low) or 1.0)
    return low - space, high + space


def thinned(epochs: Sequence[int]) -> list[int]:
    if len(epochs) <= POINTS:
        return list(epochs)
    step = (len(epochs) - 1) / (POINTS - 1)
    return [epochs[round(i * step)] for i in range(POINTS)]


def _epoch_ticks(epochs: Sequence[int]) -> list[int]:
    marks = [int(value) for value in ticks(epochs[0], epochs[-1], 6) if value == int(value)]
    return marks or [epochs[0]]


def _edge(x: float) -> str:
    return "first" if x < 2 else "last" if x > 98 else ""


def _values(page: Content, title: str, shown: Mapping[str, Curve], epochs: Sequence[int]) -> str:
    told = {name: curve.told for name, curve in shown.items()}
    head = ["epoch", *(page.say(name, 60) + ("" if curve.mean else " (unfinished)") for name, curve in shown.items())]
    body: list[list[Any]] = [
        [str(epoch), *(_said(values.get(epoch)) for values in told.values())]
        for epoch in epochs
        if any(epoch in values for values in told.values())
    ]
    table = grid(head, body, right=range(1, len(head)), class_="values", caption=f"{title} by epoch")
    return details("Values", table)


def _said(value: float | None) -> str:
    if value is None:
        return "–"
    return (f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}").replace("-", "\N{MINUS SIGN}")
