"""The part of a page that tells of a search: what was varied, what was found, and by how much the search flattered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deit_ablate.report.html.embedded import Embedded, picture, shown_table
from deit_ablate.report.html.markup import Say, grid, tag
from deit_ablate.report.tables.search import UNITS, has_rows, not_confirmed_words, setting

FIGURES = {
    "history": "Dots: trials that are complete, in the order in which they were asked for.",
    "front": "Trials by both objectives; orange: those that no other trial beats in both.",
    "importances": "How much of the variance between trials goes along with each parameter (fANOVA, by a random forest over few trials: rough).",
    "slices": "Search values by each parameter; darker: later trials.",
    "contour": "Search values by the two parameters that matter most, interpolated between trials (dots).",
}
"""A figure's kind -> what it shows."""


def section(plan: Mapping[str, Any], made: Embedded, say: Say) -> str:
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
        tag("h2", "Search"),
        tag("p", say(words)),
        tag("dl", facts, class_="facts"),
        tag("h3", "What was varied"),
        _space(search["spaces"], say),
        tag("h3", "The best trials" if len(search["objectives"]) == 1 else "The Pareto front"),
        shown_table(made.table, say, "The best trials", empty="No trial has a value yet."),
        *(
            picture(name, svg, FIGURES[name.removeprefix("search-").partition("-")[0]], say)
            for name, svg in made.figures.items()
        ),
    ]
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
        [tag("code", say(key)), say(values)]
        + ([] if everywhere else [say("all" if len(rows) == len(spaces) else ", ".join(rows))])
        for (key, values), rows in rows_of.items()
    ]
    return grid(head, body, caption="What was varied")


def _values(facts: Mapping[str, Any]) -> str:
    if facts["type"] == "categorical":
        return ", ".join(setting(choice) for choice in facts["choices"])
    more = (", logarithmic" if facts["log"] else "") + (f", in steps of {facts['step']:g}" if facts["step"] else "")
    kind = ", whole numbers" if facts["type"] == "int" else ""
    return f"{facts['low']:g} to {facts['high']:g}{more}{kind}"
