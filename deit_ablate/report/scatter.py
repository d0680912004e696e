"""Two panels, the paper's and ours: points by group, or lines over a number. Imports matplotlib."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from deit_ablate.report.style import DPI, GREY, LIGHT, OKABE_ITO, WIDTH, nothing, shortened, style

Point = tuple[float, float, float]
"""x, y, and the half-width of y's interval (0 or NaN: none is drawn)."""
MARKERS = "osD^vP"
Box = tuple[float, float, float, float]
"""Left, right, bottom and top."""
PANEL, LETTER, LINE = (0.8 * WIDTH * 72, 100.0), 3.2, 6.0
"""About how large a panel, a letter and a line of a point's name are, in points."""


def scatter_figure(panels: Mapping[str, Mapping[str, Point]], group: Callable[[str], str], x: str, y: str) -> Figure:
    """Named points on a logarithmic x, a colour and a marker for each group; panels below one another."""
    with style():
        if not any(panels.values()):
            return nothing("no finished runs")
        figure, every = _panels(len(panels), 2.0)
        groups = list(dict.fromkeys(group(name) for points in panels.values() for name in points))
        for axes, (title, points) in zip(every, panels.items(), strict=True):
            axes.set_title(title, loc="left")
            axes.set_xscale("log")
            for number, own in enumerate(groups):
                chosen = {name: point for name, point in points.items() if group(name) == own}
                _points(axes, list(chosen.values()), number, own)
            _names(axes, points)
            axes.set_xlabel(x)
            axes.set_ylabel(y)
            _plain_log_axis(axes)
        _legend(every[0])
        return figure


def lines_figure(panels: Mapping[str, Mapping[str, Sequence[Point]]], x: str, y: str) -> Figure:
    """A line a name, with intervals; panels below one another."""
    with style():
        if not any(panels.values()):
            return nothing("no finished runs")
        figure, every = _panels(len(panels), 1.75)
        names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
        for axes, (title, lines) in zip(every, panels.items(), strict=True):
            axes.set_title(title, loc="left")
            for name, points in lines.items():
                number = names.index(name)
                ordered = sorted(points)
                axes.plot(
                    [point[0] for point in ordered], [point[1] for point in ordered], "-", color=OKABE_ITO[number],
                    linewidth=1.0, zorder=2,
                )  # fmt: skip
                _points(axes, ordered, number, name)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
            axes.set_xlabel(x)
            axes.set_ylabel(y)
        _legend(every[0])
        return figure


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, height * count), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(count, 1, squeeze=False)[:, 0])


def _points(axes: Axes, points: Sequence[Point], number: int, label: str) -> None:
    colour, marker = OKABE_ITO[number % len(OKABE_ITO)], MARKERS[number % len(MARKERS)]
    for px, py, half_width in points:
        if half_width and not math.isnan(half_width):
            axes.plot(
                [px, px], [py - half_width, py + half_width], "-", color=colour, linewidth=0.8, alpha=0.6, zorder=1
            )
    axes.plot(
        [point[0] for point in points], [point[1] for point in points], marker, color=colour, markersize=3.6,
        markeredgewidth=0, label=label, zorder=3,
    )  # fmt: skip


def _names(axes: Axes, points: Mapping[str, Point]) -> None:
    """Names beside the points that are best at their speed, where they hide neither a point nor each other."""
    axes.margins(x=0.16, y=0.12)
    _room(axes, [py for _, py, _ in points.values()])
    # Places in points of the panel, whose layout is known only when it is drawn.
    place = {name: _place(axes, point) for name, point in points.items()}
    taken = [(x - 2, x + 2, y - 2, y + 2) for x, y in place.values()]
    best = -math.inf
    for name, (px, py, _) in sorted(points.items(), key=lambda item: -item[1][0]):
        if py <= best:
            continue
        best = py
        text = shortened([name], width=32)[0]
        x, y = place[name]
        length = LETTER * len(text)
        for side, start in (("left", x + 3), ("right", x - 3 - length)):
            box = start, start + length, y + 3, y + 3 + LINE
            if box[0] >= 0 and box[1] <= PANEL[0] and not any(_meet(box, other) for other in taken):
                taken.append(box)
                axes.annotate(
                    text, (px, py), xytext=(3 if side == "left" else -3, 3), ha=side, textcoords="offset points",
                    fontsize=5.5, color=GREY,
                )  # fmt: skip
                break


def _place(axes: Axes, point: Point) -> tuple[float, float]:
    x, y = axes.transAxes.inverted().transform(axes.transData.transform(point[:2]))
    return float(x) * PANEL[0], float(y) * PANEL[1]


def _meet(one: Box, two: Box) -> bool:
    return one[0] < two[1] and two[0] < one[1] and one[2] < two[3] and two[2] < one[3]


def _room(axes: Axes, values: Sequence[float]) -> None:
    """Don't let one long interval squeeze the points."""
    if values:
        low, high = axes.get_ylim()
        room = 0.4 * max(max(values) - min(values), 1.0)
        axes.set_ylim(max(low, min(values) - room), min(high, max(values) + room))


def _plain_log_axis(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    axes.grid(axis="x", color=LIGHT, linewidth=0.4)


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=6, handletextpad=0.3, borderpad=0.2, loc="best")
