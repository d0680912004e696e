"""The part of a page on a search: how it searched, and what was varied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deit_ablate.report.html.markup import Cell, Grid
from deit_ablate.report.tables.search import UNITS, setting

FIGURES = {
    "history": "Dots: trials that are complete, in the order in which they were asked for.",
    "front": "Trials by both objectives; orange: those that no other trial beats in both.",
    "importances": "How much of the variance between trials goes along with each parameter (fANOVA, by a random forest "
    "over few trials: rough).",
    "slices": "Search values by each parameter; darker: later trials.",
    "contour": "Search values by the two parameters that matter most, interpolated between trials (dots).",
}
"""A figure's kind -> what it shows."""


def facts(search: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value): how the search searched."""
    budgets = sorted({str(budget) for budget in search["budget"].values()}, key=int)
    single = len(search["objectives"]) == 1
    pairs = [
        ("Objective", " and ".join(UNITS[name] for name in search["objectives"])),
        ("Sampler", str(search["sampler"])),
        ("Pruner", str(search["pruner"]) if single else "none, with two objectives"),
        ("Trials a row", " or ".join(budgets) or "none"),
        ("Seed of trials", str(search["seed"])),
    ]
    # A front is confirmed as it is.
    return pairs + ([("Seeds of candidates", ", ".join(map(str, search["candidate_seeds"])))] if single else [])


def space(spaces: Mapping[str, Mapping[str, Any]]) -> Grid:
    """Each parameter with its range or choices, and the rows that vary it where not all do so alike."""
    rows_of: dict[tuple[str, str], list[str]] = {}
    for row, parameters in spaces.items():
        for key, parameter in parameters.items():
            rows_of.setdefault((key, _values(parameter)), []).append(row)
    body: list[list[str | Cell]] = [
        [Cell(key, "code"), values, "all" if len(rows) == len(spaces) else ", ".join(rows)]
        for (key, values), rows in rows_of.items()
    ]
    if all(len(rows) == len(spaces) for rows in rows_of.values()):
        return Grid("What was varied", ["recipe", "values"], [row[:2] for row in body])
    return Grid("What was varied", ["recipe", "values", "rows"], body)


def _values(parameter: Mapping[str, Any]) -> str:
    if parameter["type"] == "categorical":
        return ", ".join(setting(choice) for choice in parameter["choices"])
    more = ", logarithmic" if parameter["log"] else ""
    more += f", in steps of {parameter['step']:g}" if parameter["step"] else ""
    more += ", whole numbers" if parameter["type"] == "int" else ""
    return f"{parameter['low']:g} to {parameter['high']:g}{more}"
