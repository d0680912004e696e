"""The part of a page that sets a sweep beside the paper: its table with the published numbers, and its figures."""

from __future__ import annotations

from deit_ablate.report.html.embedded import Embedded, picture, shown_table
from deit_ablate.report.html.markup import Say, tag


def section(made: Embedded, say: Say) -> str:
    """HTML: what stands under the heading "Beside the paper"."""
    lines = [
        tag("h2", "Beside the paper"),
        tag("p", say(made.table.title)),
        shown_table(made.table, say, "Ours beside the paper's"),
        *(picture(name, svg, name.replace("_", " ").capitalize(), say) for name, svg in made.figures.items()),
    ]
    return tag("section", "\n" + "\n".join(lines) + "\n", id_="paper") + "\n"
