"""Accuracy against throughput: names stand where they hide nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from deit_ablate.report.figures.scatter import Point, lines_figure, scatter_figure

CLOSE: dict[str, Point] = {
    "DeiT-B distilled": (960, 85.0, 0.2),
    "DeiT-B": (1110, 80.6, 0.3),
    "RegNetY-16GF": (1240, 79.6, 14.0),
    "DeiT-S distilled": (3360, 81.1, 1.5),
    "DeiT-S": (3400, 81.0, 1.2),
    "RegNetY-4GF": (4450, 80.2, 3.0),
    "ResNet-18": (17000, 71.1, float("nan")),
}
"""Points whose names, all to the right of them, would cross the intervals of their neighbours."""


def names(figure: Figure) -> dict[str, Bbox]:
    figure.draw_without_rendering()
    (axes,) = figure.axes
    said = [text for text in axes.texts if isinstance(text, Annotation)]
    return {text.get_text().replace("\n", " "): text.get_window_extent() for text in said}


def drawn(figure: Figure) -> list[Bbox]:
    """Intervals and points, as thin as a pixel."""
    (axes,) = figure.axes
    found = []
    for line in axes.lines:
        places = axes.transData.transform(line.get_xydata())
        if line.get_linestyle() == "None":
            found += [Bbox.from_extents(x - 1, y - 1, x + 1, y + 1) for x, y in places]
        else:
            (x, one), (_, two) = places
            found.append(Bbox.from_extents(x - 0.5, one, x + 0.5, two))
    return found


def test_names_cross_no_interval_no_point_and_no_name() -> None:
    figure = scatter_figure({"ours": CLOSE}, lambda name: name[:3], "images/s", "top-1")
    placed = names(figure)
    assert placed.keys() == CLOSE.keys() - {"DeiT-B", "RegNetY-16GF"}, "of the points that are best at their speed"
    for name, box in placed.items():
        assert not any(box.overlaps(other) for other in drawn(figure)), name
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
    assert not any(one.overlaps(two) for one, two in combinations(placed.values(), 2))


def test_a_name_without_a_place_is_left_out() -> None:
    crowd: dict[str, Point] = {f"a rather long name {i}": (1000 + i, 80.0 - i / 50, 0.0) for i in range(20)}
    placed = names(scatter_figure({"ours": crowd}, lambda name: "all", "images/s", "top-1"))
    assert 0 < len(placed) < len(crowd)


@pytest.mark.parametrize("panels", [{"a": CLOSE, "b": {}}, {"b": {}, "a": CLOSE}])
def test_the_legend_names_every_group_once(panels: dict[str, dict[str, Point]]) -> None:
    figure = scatter_figure(panels, lambda name: name.split("-")[0], "images/s", "top-1")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["DeiT", "RegNetY", "ResNet"]


def test_the_legend_of_lines_has_those_of_every_panel() -> None:
    figure = lines_figure({"paper": {"usual": [(1, 2, 0)]}, "ours": {"token": [(1, 2, 0.5)]}}, "epochs", "top-1")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["usual", "token"]


@pytest.mark.parametrize(
    ("epochs", "at_points"), [([9, 18, 36, 72], True), ([9, 10, 72], False), (range(1, 40), False)]
)
def test_ticks_of_lines_are_at_their_points_where_there_is_room(epochs: Sequence[int], at_points: bool) -> None:
    (axes,) = lines_figure({"ours": {"none": [(epoch, 90.0, 0.5) for epoch in epochs]}}, "epochs", "top-1").axes
    low, high = axes.get_xlim()
    shown = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert (shown == list(epochs)) == at_points
    assert all(tick == round(tick) for tick in shown)


def test_a_share_has_no_tick_above_100() -> None:
    points = {"a": {"x": (10.0, 99.9, 3.0), "y": (20.0, 92.0, 0.0)}}
    (percent,), (plain,) = (scatter_figure(points, str, "images/s", y).axes for y in ("top-1 (%)", "score"))
    assert 99.9 < percent.get_ylim()[1] < 101
    assert not [tick for tick in percent.get_yticks() if 100 < tick <= percent.get_ylim()[1]]
    assert plain.get_ylim()[1] > 102
