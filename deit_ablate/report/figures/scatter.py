"""Two panels, the paper's and ours: points by group, or lines over a number. Imports matplotlib."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, product
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, Locator, LogLocator, MaxNLocator
from matplotlib.transforms import Bbox

from deit_ablate.report.figures.style import DPI, GREY, LIGHT, OKABE_ITO, key, new_figure, nothing, shortened, style

Point = tuple[float, float, float]
"""x, y, and the half-width of y's interval (0 or NaN: none is drawn)."""
MARKERS, MARKER_SIZE = "osD^vP", 3.6
PLACES = ((3, 3, "left", "bottom"), (-3, 3, "right", "bottom"), (3, -3, "left", "top"), (-3, -3, "right", "top"))
"""Where a name may stand beside its point, best first: an offset in points, and the text's corner that lies there."""


def scatter_figure(panels: Mapping[str, Mapping[str, Point]], group: Callable[[str], str], x: str, y: str) -> Figure:
    """Named points on a logarithmic x, a colour and a marker for each group; panels below one another."""
    with style():
        if not any(panels.values()):
            return nothing("no finished runs")
        figure, every = new_figure(len(panels), 2.0 * len(panels), share=False)
        groups = list(dict.fromkeys(group(name) for points in panels.values() for name in points))
        for axes, (title, points) in zip(every, panels.items(), strict=True):
            axes.set_title(title, loc="left")
            axes.set_xscale("log")
            for number, own in enumerate(groups):
                chosen = {name: point for name, point in points.items() if group(name) == own}
                _points(axes, list(chosen.values()), number, own)
            axes.margins(x=0.2, y=0.12)
            _room(axes, [py for _, py, _ in points.values()], share=y.endswith("(%)"))
            axes.set_xlabel(x)
            axes.set_ylabel(y)
            _plain_log_axis(axes)
        _legend(figure, every)
        figure.draw_without_rendering()  # where things stand is known only when the panels have their sizes
        for axes, points in zip(every, panels.values(), strict=True):
            _names(figure, axes, points)
        return figure


def lines_figure(panels: Mapping[str, Mapping[str, Sequence[Point]]], x: str, y: str) -> Figure:
    """A line a name, with intervals; panels below one another."""
    with style():
        if not any(panels.values()):
            return nothing("no finished runs")
        figure, every = new_figure(len(panels), 1.75 * len(panels), share=False)
        names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
        for axes, (title, lines) in zip(every, panels.items(), strict=True):
            axes.set_title(title, loc="left")
            for name, points in lines.items():
                number = names.index(name)
                x_values, y_values, _ = zip(*sorted(points), strict=True)
                axes.plot(x_values, y_values, "-", color=OKABE_ITO[number % len(OKABE_ITO)], linewidth=1.0, zorder=2)
                _points(axes, sorted(points), number, name)
            axes.xaxis.set_major_locator(_ticks(sorted({px for points in lines.values() for px, _, _ in points})))
            axes.set_xlabel(x)
            axes.set_ylabel(y)
        _legend(figure, every)
        return figure


def _ticks(values: Sequence[float]) -> Locator:
    """At the points themselves, where their labels have room."""
    room = 0.08 * (values[-1] - values[0]) if values else 0.0
    apart = all(after - before > room for before, after in pairwise(values))
    return FixedLocator(values) if 1 < len(values) <= 8 and apart else MaxNLocator(nbins=6, integer=True)


def _points(axes: Axes, points: Sequence[Point], number: int, label: str) -> None:
    colour, marker = OKABE_ITO[number % len(OKABE_ITO)], MARKERS[number % len(MARKERS)]
    for px, py, half_width in points:
        if half_width and not math.isnan(half_width):
            line: Any = {"linewidth": 0.8, "alpha": 0.6, "zorder": 1}
            axes.plot([px, px], [py - half_width, py + half_width], "-", color=colour, **line)
    form: Any = {"markersize": MARKER_SIZE, "markeredgewidth": 0}
    x_values, y_values = [px for px, _, _ in points], [py for _, py, _ in points]
    axes.plot(x_values, y_values, marker, color=colour, label=label, zorder=3, **form)


def _names(figure: Figure, axes: Axes, points: Mapping[str, Point]) -> None:
    """Names of the points that are best at their speed, each on one line or two where it hides no point, interval or
    other name; one that finds no such place is left out."""
    taken = [box for point in points.values() for box in _boxes(axes, point)]
    best = -math.inf
    for name, (px, py, _) in sorted(points.items(), key=lambda item: -item[1][0]):
        if py <= best:
            continue
        best = py
        texts = shortened([name], width=32)
        texts.append(_halved(texts[0]))
        said = axes.annotate(
            texts[0], (px, py), xytext=(0, 0), textcoords="offset points", fontsize=5.5, color=GREY, linespacing=0.95
        )
        said.set_in_layout(False)
        for text, (dx, dy, ha, va) in product(texts, PLACES):
            said.set(text=text, position=(dx, dy), ha=ha, va=va)
            box = said.get_window_extent()
            on_panel = axes.bbox.x0 <= box.x0 and axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1
            if on_panel and box.x1 <= figure.bbox.x1 and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
        else:
            said.remove()


def _halved(text: str) -> str:
    """On two lines, broken at the space that is nearest to the middle."""
    spaces = [place for place, character in enumerate(text) if character == " "]
    if not spaces:
        return text
    place = min(spaces, key=lambda place: abs(2 * place - len(text)))
    return f"{text[:place]}\n{text[place + 1 :]}"


def _boxes(axes: Axes, point: Point) -> list[Bbox]:
    """What a point and its interval cover, in pixels."""
    px, py, half_width = point
    x, y = axes.transData.transform((px, py))
    radius = MARKER_SIZE / 2 * DPI / 72
    boxes = [Bbox.from_extents(x - radius, y - radius, x + radius, y + radius)]
    if half_width and not math.isnan(half_width):
        (_, low), (_, high) = axes.transData.transform([(px, py - half_width), (px, py + half_width)])
        boxes.append(Bbox.from_extents(x - 0.5, low, x + 0.5, high))
    return boxes


def _room(axes: Axes, values: Sequence[float], share: bool) -> None:
    """Don't let one long interval squeeze the points; a ``share`` in percent has no tick above 100."""
    if values:
        low, high = axes.get_ylim()
        room = 0.4 * max(max(values) - min(values), 1.0)
        low, high = max(low, min(values) - room), min(high, max(values) + room)
        axes.set_ylim(low, min(high, 100 + 0.03 * (100 - low)) if share else high)


def _plain_log_axis(axes: Axes) -> None:
    low, high = axes.get_xlim()
    if high < 50 * low:  # decades alone would name one or two places
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    axes.grid(axis="x", color=LIGHT, linewidth=0.4)


def _legend(figure: Figure, every: Sequence[Axes]) -> None:
    entries = {label: handle for axes in every for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    key(figure, entries, 4, handletextpad=0.3)
