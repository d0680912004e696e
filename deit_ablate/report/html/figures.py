"""The figures of a page: those that are written beside the table, as SVG, with the values of curves to be read off."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from deit_ablate.report.html.content import Content
from deit_ablate.report.html.markup import details, grid, tag
from deit_ablate.report.tables.table import NOTHING
from deit_ablate.report.write import analysis

if TYPE_CHECKING:
    from deit_ablate.report.figures.curves import Reading

TITLES = {
    "effects": "Differences from the baseline",
    "top1": "Accuracies",
    "curves": "Learning curves",
}
HINT = "Point at a plot, or focus it and use the arrow keys, to read values."


def figures(made: Content) -> str:
    """HTML: every figure of the sweep's analysis; nothing where no row has any run that has begun."""
    from deit_ablate.report.figures.curves import readings
    from deit_ablate.report.html.svg import inline

    # Names are redacted before they are drawn: what is drawn cannot be.
    summary = replace(made.summary, say=made.say.plain)
    parts = []
    for name, figure in analysis().figures(summary).items():
        title = TITLES.get(name, name.replace("_", " ").capitalize())
        # The SVG first: it is what lays the panels out.
        svg = inline(name, figure, title)
        values = [_values(name, reading, made) for reading in readings(summary, figure)]
        caption = tag("figcaption", tag("h3", title) + (tag("p", HINT, class_="small") if values else ""))
        drawing = tag("div", svg, class_="wrap")
        parts.append(tag("figure", "\n".join([caption, drawing, *values]), class_="drawn", id_=f"figure-{name}"))
    return "\n".join(parts)


def _values(name: str, reading: Reading, made: Content) -> str:
    """The values of one panel as a table, from which the page's script reads what it shows at the pointer."""
    left, right, low, high = reading.limits
    head = ["epoch", *(made.say(each, 80) for each in reading.names)]
    body = [[str(epoch), *map(_number, values)] for epoch, values in reading.values.items()]
    caption = f"{reading.title} by epoch"
    table = grid(head, body, right=range(1, len(head)), class_="values", caption=caption)
    shown = tag(
        "div",
        table,
        class_="reading",
        data_area=f"{name}-area-{reading.metric}",
        data_title=reading.title,
        data_left=f"{left:g}",
        data_right=f"{right:g}",
        data_low=f"{low:.6g}",
        data_high=f"{high:.6g}",
        data_colours=" ".join(f"c{(colour + 1) % 8}" for colour in reading.colours),
    )
    return details(f"Values: {reading.title}", shown)


def _number(value: float | None) -> str:
    if value is None:
        return NOTHING
    return (f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}").replace("-", "\N{MINUS SIGN}")
