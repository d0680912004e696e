"""What an analysis file shows, within a page: a table, and figures as SVG."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deit_ablate.report.html.markup import Grid
from deit_ablate.report.tables.table import NOTHING, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A figure that needs nothing outside the page: ``source`` is a data address."""

    name: str
    source: str
    caption: str


@dataclass(frozen=True)
class Embedded:
    title: str
    grid: Grid
    footnotes: Sequence[str]
    pictures: Sequence[Picture]


def embedded(table: Table, figures: Mapping[str, Figure], caption: str, captions: Mapping[str, str]) -> Embedded:
    """``captions``: a figure's name without "search-" and its row -> what it shows; else its name is its caption.

    The same table and figures give the same text.
    """
    from deit_ablate.report.figures.style import METADATA, style

    pictures = []
    for name, figure in figures.items():
        buffer = io.BytesIO()
        with style():
            figure.savefig(buffer, format="svg", metadata=METADATA["svg"])
        source = f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        shows = captions.get(name.removeprefix("search-").partition("-")[0])
        pictures.append(Picture(name, source, shows or name.replace("_", " ").capitalize()))
    return Embedded(table.title, grid(table, caption, "sortable"), table.footnotes, pictures)


def grid(table: Table, caption: str, class_: str) -> Grid:
    return Grid(
        caption,
        [column.header for column in table.columns],
        [[cell or NOTHING for cell in row] for row in table.rows()],
        [place for place, column in enumerate(table.columns) if column.right],
        class_,
    )
