"""The part of a page that tells of a search: what was varied, what was found, and by how much the search flattered."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deit_ablate.report.page.html import Say, grid, tag
from deit_ablate.report.searched import UNITS, has_rows, not_confirmed_words, setting
from deit_ablate.report.tables import NOTHING, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = {
    "history": "Dots: trials that are complete, in the order in which they were asked for.",
    "front": "Trials by both objectives; orange: those that no other trial beats in both.",
    "importances": "How much of the variance between trials goes along with each parameter (fANOVA, by a random forest over few trials: rough).",
    "slices": "Search values by each parameter; darker: later trials.",
    "contour": "Search values by the two parameters that matter most, interpolated between trials (dots).",
}
"""A figure's kind -> what it shows."""


@dataclass(frozen=True)
class Searched:
    """What the page shows of a search: its table of best trials, and its figures as SVG."""

    table: Table
    figures: Mapping[str, str]


def drawn(figures: Mapping[str, Figure]) -> dict[str, str]:
    """Name -> SVG text: the same figure gives the same text."""
    from deit_ablate.report.style import METADATA, style

    found = {}
    for name, figure in figures.items():
        buffer = io.BytesIO()
        with style():
            figure.savefig(buffer, format="svg", metadata=METADATA["svg"])
        found[name] = buffer.getvalue().decode()
    return found


def section(plan: Mapping[str, Any], made: Searched, say: Say) -> str:
    """HTML: what stands under the heading "Search"."""
    search = plan["search"]
    objectives = " and ".join(UNITS[name] for name in search["objectives"])
    budgets = sorted({str(budget) for budget in search["budget"].values()}, key=int)
    pairs = [
        ("Objective", say(objectives)),
        ("Sampler", say(search["sampler"])),
        ("Pruner", say(search["pruner"] if len(search["objectives"]) == 1 else "none, with two objectives")),
        ("Trials a row", say(" or ".join(budgets) or "none")),
        ("Seed of trials", say(search["seed"])),
        ("Seeds of candidates", say(", ".join(map(str, search["candidate_seeds"])))),
    ]
    if len(search["objectives"]) > 1:
        pairs.pop()  # a front is confirmed as it is
    facts = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in pairs)
    words = (
        "The search chose by the validation part alone. A search value is the best of many single trainings, so it flatters; "
        "the confirmed value comes from new seeds that chose nothing, and it is the one to report."
    )
    if not has_rows(plan):
        words += f" {not_confirmed_words(plan)}"
    lines = [
        tag("h2", "Search"), tag("p", say(words)), tag("dl", facts, class_="facts"),
        tag("h3", "What was varied"), _space(search["spaces"], say),
        tag("h3", "The best trials" if len(search["objectives"]) == 1 else "The Pareto front"), _table(made.table, say),
        *(_figure(name, svg, list(search["spaces"]), say) for name, svg in made.figures.items()),
    ]  # fmt: skip
    return tag("section", "\n" + "\n".join(lines) + "\n", id_="search") + "\n"


def _space(spaces: Mapping[str, Mapping[str, Any]], say: Say) -> str:
    """Each parameter with its range or choices, and the rows that vary it where not all do so alike."""
    rows_of: dict[tuple[str, str], list[str]] = {}
    for row, space in spaces.items():
        for key, facts in space.items():
            rows_of.setdefault((key, _values(facts)), []).append(row)
    everywhere = all(len(rows) == len(spaces) for rows in rows_of.values())
    head = ["recipe", "values"] + ([] if everywhere else ["rows"])
    body = [
        [tag("code", say(key)), say(values)] + ([] if everywhere else [say("all" if len(rows) == len(spaces) else ", ".join(rows))])
        for (key, values), rows in rows_of.items()
    ]  # fmt: skip
    return grid(head, body, caption="What was varied")


def _values(facts: Mapping[str, Any]) -> str:
    if facts["type"] == "categorical":
        return ", ".join(setting(choice) for choice in facts["choices"])
    more = (", logarithmic" if facts["log"] else "") + (f", in steps of {facts['step']:g}" if facts["step"] else "")
    kind = ", whole numbers" if facts["type"] == "int" else ""
    return f"{facts['low']:g} to {facts['high']:g}{more}{kind}"


def _table(table: Table, say: Say) -> str:
    if not len(table.frame):
        body = tag("p", "No trial has a value yet.")
    else:
        right = [place for place, column in enumerate(table.columns) if column.right]
        body = grid(
            [say(column.header) for column in table.columns],
            [[say(cell) or NOTHING for cell in row] for row in table.rows()],
            right=right, class_="sortable", caption="The best trials",
        )  # fmt: skip
    return body + tag("ul", "\n".join(tag("li", say(note, 4000)) for note in table.footnotes), class_="notes")


def _figure(name: str, svg: str, rows: list[str], say: Say) -> str:
    kind = name.removeprefix("search-").partition("-")[0]
    picture = base64.b64encode(svg.encode()).decode()
    image = tag("img", "", src=f"data:image/svg+xml;base64,{picture}", alt=f"{name}: {FIGURES[kind]}").removesuffix(
        "</img>"
    )
    return tag("figure", image + tag("figcaption", tag("p", say(FIGURES[kind]))), class_="drawn") + "\n"
