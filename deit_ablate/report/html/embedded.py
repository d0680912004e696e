"""What an analysis file shows, within a page: a table, and figures as SVG."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deit_ablate.report.html.markup import Say, grid, tag
from deit_ablate.report.tables.table import NOTHING, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Embedded:
    table: Table
    figures: Mapping[str, str]
    """Name -> SVG text."""


def drawn(figures: Mapping[str, Figure]) -> dict[str, str]:
    """Name -> SVG text: the same figure gives the same text."""
    from deit_ablate.report.figures.style import METADATA, style

    found = {}
    for name, figure in figures.items():
        buffer = io.BytesIO()
        with style():
            figure.savefig(buffer, format="svg", metadata=METADATA["svg"])
        found[name] = buffer.getvalue().decode()
    return found


def shown_table(table: Table, say: Say, caption: str, empty: str = "There is nothing to show yet.") -> str:
    """HTML: the table, sortable, and its footnotes."""
    if len(table.frame):
        body = grid(
            [say(column.header) for column in table.columns],
            [[say(cell) or NOTHING for cell in row] for row in table.rows()],
            right=[place for place, column in enumerate(table.columns) if column.right],
            class_="sortable",
            caption=caption,
        )
    else:
        body = tag("p", empty)
    return body + tag("ul", "\n".join(tag("li", say(note, 4000)) for note in table.footnotes), class_="notes")


def picture(name: str, svg: str, caption: str, say: Say) -> str:
    """HTML: a figure that needs nothing outside the page."""
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
    image = tag("img", "", src=source, alt=f"{name}: {caption}").removesuffix("</img>")
    return tag("figure", image + tag("figcaption", tag("p", say(caption))), class_="drawn") + "\n"
