"""What a page says of what was asked and found, as data for its template: facts, findings, the tables of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deit_ablate.report.frame import rows
from deit_ablate.report.html import words
from deit_ablate.report.html.content import Content
from deit_ablate.report.html.embedded import grid
from deit_ablate.report.html.markup import Cell, Grid
from deit_ablate.report.tables.table import measure
from deit_ablate.sweep.confounds import value_words


def facts(page: Content) -> list[tuple[str, str | Cell]]:
    """(name, value): what was asked, and how much of it is there."""
    plan = page.plan
    seeds = plan["stages"][-1]["seeds"] if plan["stages"] else []
    margin = plan["margin"]
    states, counts = page.states(), page.state_words()
    pairs: list[tuple[str, str | Cell]] = [
        ("Sweep", Cell(page.sweep, "code")),
        ("Profile", plan["profile"] or "none"),
        ("Baseline", Cell(plan["baseline"], "strong") if plan["baseline"] else "not named"),
        ("Rows", str(len(plan["variants"]))),
        ("Seeds a row", f"{len(seeds)}" + (f" ({_seeds(seeds)})" if seeds else "")),
        ("Margin", f"±{margin:g} points of top-1" if margin else "none declared"),
        ("Runs", f"{states.total()}: {counts}" if len(states) > 1 else counts or "none"),
    ]
    if len(plan["stages"]) > 1:
        pairs.append(("Stages", " → ".join(stage["name"] or "training" for stage in plan["stages"])))
    if period := page.period():
        pairs.append(("Finished", f"{period} (UTC)"))
    return pairs


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


# -- findings ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """What is known of a row; ``others`` are its changes that it does not declare and that not all rows have."""

    row: Mapping[str, Any]
    sentence: tuple[str, str]
    """What comes between the row's name and the baseline's, and what comes after; the latter may be empty."""
    others: Sequence[str]
    step: str
    """Of a cumulative sweep: what the row's own change did, for the difference from the baseline is of all so far."""


@dataclass(frozen=True)
class Findings:
    lead: str
    waiting: int
    """Runs that may still have a result."""
    shared: Sequence[str]
    """What differs in every row that is compared, as when the baseline alone was made by an older version."""
    others: bool
    """Whether some row differs in more than it declares and than ``shared``."""
    baseline: Mapping[str, Any] | None
    groups: Sequence[tuple[str, str, Sequence[Finding]]]
    """(class in the style sheet, heading, findings)."""
    ranked: Sequence[Mapping[str, Any]]
    """Rows by their mean, where no baseline is named."""


def findings(page: Content) -> Findings:
    plan = page.plan
    over = ("done", "diverged", "paused")  # paused: a trial that was pruned
    compared = {row["variant"] for row in page.rows if not row["baseline"]}
    rows_of: dict[str, set[str]] = {}
    for change in page.summary.undeclared:
        rows_of.setdefault(str(change), set()).add(change.row)
    shared = [what for what, names in rows_of.items() if len(compared) > 1 and names >= compared]
    groups = []
    for name, verdicts, heading in words.GROUPS if plan["baseline"] else ():
        found = [row for row in page.rows if row["verdict"] in verdicts and not row["baseline"]]
        if name in ("better", "worse") and plan["kind"] != "cumulative":  # which keeps its own order
            found.sort(key=lambda row: row["difference"], reverse=name == "better")
        if found:
            groups.append((name, heading, [_finding(page, row, shared) for row in found]))
    ranked = [] if plan["baseline"] else [row for row in page.rows if row["seeds"]]
    return Findings(
        lead=words.short(page.summary),
        waiting=sum(count for state, count in page.states().items() if state not in over),
        shared=shared,
        others=any(_others(page, row["variant"], shared) for row in page.rows),
        baseline=next((row for row in page.rows if row["baseline"]), None),
        groups=groups,
        ranked=sorted(ranked, key=lambda row: -row["top1_mean"]),
    )


def _finding(page: Content, row: Mapping[str, Any], shared: Sequence[str]) -> Finding:
    cumulative = page.plan["kind"] == "cumulative"
    return Finding(
        row,
        words.sentence(row, page.plan["margin"]),
        _others(page, row["variant"], shared),
        measure(row["step"], row["step_half_width"], signed=True) if cumulative else "",
    )


def _others(page: Content, name: str, shared: Sequence[str]) -> list[str]:
    return [str(change) for change in page.summary.undeclared if change.row == name and str(change) not in shared]


# -- tables --------------------------------------------------------------------------------------------------------


def table(page: Content) -> Grid:
    made = grid(page.table, "All rows", "sortable main")
    body = []
    for cells, row in zip(made.body, rows(page.table.frame), strict=True):
        kind = words.group(str(row.get("verdict", "")))
        body.append(
            [
                Cell(chips=[(kind, str(cell))]) if kind and title == "verdict" else cell
                for title, cell in zip(made.head, cells, strict=True)
            ]
        )
    return replace(made, body=body)


def any_two(page: Content) -> Grid | None:
    """Every two rows other than the baseline; None where there are too few or too many."""
    kinds = {"first is better": "better", "first is worse": "worse", "undecided": "undecided"}
    body: list[list[str | Cell]] = [
        [
            f"{page.say(pair.first)} − {page.say(pair.second)}",
            measure(pair.difference, pair.half_width, signed=True),
            words.p_value(pair.p_holm).removeprefix("p = ").removeprefix("p "),
            Cell(chips=[(kinds.get(pair.verdict, "few"), pair.verdict)]),
            pair.runs,
        ]
        for pair in words.any_two(page.summary)
    ]
    head = ("pair", "difference", "p (Holm)", "verdict", "runs")
    return Grid("Any two rows", head, body, (1, 2, 4), "sortable") if body else None


def changed(differs: Mapping[str, Sequence[Any]]) -> Grid:
    """A recipe's differences from the baseline's, key by key."""
    body: list[list[str | Cell]] = [
        [Cell(key, "code"), value_words(old), value_words(new)] for key, (old, new) in differs.items()
    ]
    return Grid("Changed", ("recipe", "baseline", "this row"), body)
