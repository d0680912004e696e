"""The figures of a page: those that are written beside the table, as SVG, with the values of curves to be read off."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from deit_ablate.report.html.content import Content
from deit_ablate.report.html.markup import Grid
from deit_ablate.report.tables.table import NOTHING
from deit_ablate.report.write import analysis

if TYPE_CHECKING:
    from markupsafe import Markup

    from deit_ablate.report.figures.curves import Reading

TITLES = {
    "effects": "Differences from the baseline",
    "top1": "Accuracies",
    "curves": "Learning curves",
}


@dataclass(frozen=True)
class Drawing:
    """A figure, and for each panel of curves its values, from which the page's script reads what the pointer shows."""

    name: str
    title: str
    svg: Markup
    readings: list[tuple[Reading, Grid]]


def figures(page: Content) -> list[Drawing]:
    """Every figure of the sweep's analysis; none where no row has any run that has begun."""
    from deit_ablate.report.figures.curves import readings
    from deit_ablate.report.html.svg import inline

    # Names are redacted before they are drawn: what is drawn cannot be.
    summary = replace(page.summary, say=page.say)
    found = []
    for name, figure in analysis().figures(summary).items():
        if not figure.axes:
            continue  # it says only that there is nothing to draw
        title = TITLES.get(name, name.replace("_", " ").capitalize())
        # The SVG first: it is what lays the panels out.
        svg = inline(name, figure, title)
        values = [(reading, _values(reading, page)) for reading in readings(summary, figure)]
        found.append(Drawing(name, title, svg, values))
    return found


def _values(reading: Reading, page: Content) -> Grid:
    head = ["epoch", *(page.say(each, 80) for each in reading.names)]
    body = [[str(epoch), *map(_number, values)] for epoch, values in reading.values.items()]
    return Grid(f"{reading.title} by epoch", head, body, range(1, len(head)), "values")


def _number(value: float | None) -> str:
    if value is None:
        return NOTHING
    return (f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}").replace("-", "\N{MINUS SIGN}")
