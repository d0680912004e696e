"""What was found, in words: a sentence a row, for a reader who has never seen the project."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deit_ablate.report.stats.moderated import Comparisons, holm, moderate
from deit_ablate.report.stats.power import ALPHA
from deit_ablate.report.stats.verdicts import Figures, resolution
from deit_ablate.report.summary import Summary
from deit_ablate.report.tables.table import measure

GROUPS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("better", ("better", "better_small"), "Better than the baseline"),
    ("worse", ("worse", "worse_small"), "Worse than the baseline"),
    ("equivalent", ("equivalent",), "Equivalent to the baseline"),
    ("undecided", ("undecided",), "Undecided: these runs cannot tell"),
    ("few", ("too_few", "one_seed", "none"), "Too few runs for a verdict"),
    ("failed", ("did_not_train",), "Did not train"),
)
"""(class in the style sheet, verdicts, heading), in the order in which they are told."""
MARKS = {"better": "▲", "worse": "▼", "equivalent": "=", "undecided": "?", "few": "…", "failed": "×"}
MOST_COMPARED = 12
"""Rows up to which any two are compared: 66 pairs."""


def group(verdict: str) -> str:
    """The class of a verdict; empty for the baseline and for rows without one."""
    return next((name for name, verdicts, _ in GROUPS if verdict in verdicts), "")


def points(value: float, signed: bool = False) -> str:
    return measure(value, math.nan, signed=signed)


def p_value(p: float) -> str:
    """``p = 0.0004``; no more digits than mean something."""
    if math.isnan(p):
        return "not tested"
    if p < 0.0001:
        return "p < 0.0001"
    if p > 0.99:
        return "p > 0.99"
    return f"p = {p:.1g}" if p < 0.001 else f"p = {p:.2g}" if p < 0.1 else f"p = {p:.2f}"


def interval(mean: float, half_width: float) -> str:
    """``95% interval −1.98 to −1.28``; empty where there is none."""
    if math.isnan(half_width):
        return ""
    return f"95% interval {points(mean - half_width, True)} to {points(mean + half_width, True)}"


def evidence(row: Mapping[str, Any], p: str = "p_holm", what: str = "after Holm") -> str:
    said = [part for part in (interval(row["difference"], row["difference_half_width"]),) if part]
    if not math.isnan(row[p]):
        said.append(f"{p_value(row[p])} {what}")
    if row["paired"]:
        said.append(f"{row['runs_compared']} pairs of runs")
    elif row["runs_compared"]:
        said.append(f"{row['runs_compared']} against {row['baseline_runs_compared']} runs")
    return f" ({', '.join(said)})" if said else ""


def sentence(row: Mapping[str, Any], margin: float | None) -> tuple[str, str]:
    """What is known of a row: the words after its name; if the baseline's name follows, the words after that, or ""."""
    verdict, size = row["verdict"], points(abs(row["difference"]))
    if verdict in ("better", "worse", "better_small", "worse_small"):
        less = f", which is less than the margin of {margin:g}" if verdict.endswith("small") and margin else ""
        return f" is {verdict.partition('_')[0]} than ", f" by {size} points{less}{evidence(row)}."
    observed = "" if math.isnan(row["difference"]) else f" Observed: {points(row['difference'], True)} points"
    if verdict == "equivalent":
        within = f" within ±{margin:g} points" if margin else ""
        proof = evidence(row, "p_equivalent_holm", "against a difference of that size, after Holm")
        return " is equivalent to ", f"{within}.{observed}{proof}."
    words = row["verdict_words"] or "no verdict"
    return f": {words}.{observed}{evidence(row) if observed else ''}{'.' if observed else ''}", ""


def short(summary: Summary) -> str:
    """How many rows ended how, in one sentence without names."""
    verdicts = [row for row in summary.frame["verdict"] if row not in ("baseline",)]
    if not summary.plan["baseline"]:
        return "This sweep names no baseline, so no row is judged against another by default."
    counted = [(sum(verdict in wanted for verdict in verdicts), name) for name, wanted, _ in GROUPS]
    told = {
        "better": "better",
        "worse": "worse",
        "equivalent": "equivalent",
        "undecided": "undecided",
        "few": "with too few runs for a verdict",
        "failed": "that did not train",
    }
    parts = [f"{count} {told[name]}" for count, name in counted if count]
    if not parts:
        return "There is no row to compare with the baseline."
    rows = f"{len(verdicts)} {'row was' if len(verdicts) == 1 else 'rows were'} compared with the baseline"
    return f"{rows}: {', '.join(parts[:-1])}{' and ' if len(parts) > 1 else ''}{parts[-1]}."


# -- any two rows --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compared:
    """``first`` - ``second``, in points."""

    first: str
    second: str
    runs: str
    enough: bool
    difference: float
    half_width: float
    p_holm: float

    @property
    def verdict(self) -> str:
        if not self.enough:
            return "too few"
        if math.isnan(self.p_holm):
            return "not tested: no spread"
        return "undecided" if self.p_holm > ALPHA else "first is better" if self.difference > 0 else "first is worse"


def any_two(summary: Summary) -> list[Compared]:
    """All pairs of rows other than the baseline, by the test of the table, with Holm over all of these pairs.

    Nothing where there are more than MOST_COMPARED rows: so many pairs leave no power for any of them.
    """
    values = {name: own for name, own in summary.top1.items() if name != summary.plan["baseline"] and len(own) > 1}
    if not 2 <= len(values) <= MOST_COMPARED:
        return []
    import numpy as np

    table = Figures.of(list(values.values()))
    couples = list(itertools.combinations(range(len(values)), 2))
    names = list(values)
    paired = [k for k, (i, j) in enumerate(couples) if summary.lineages.paired(names[i], names[j])]
    now = moderate(table.values, Comparisons.of(couples, paired), resolution(summary.images))
    adjusted, half_width = holm(np.where(now.enough, now.p, np.nan)), now.half_width()
    return [
        Compared(
            names[i],
            names[j],
            f"{now.runs[k]} pairs" if k in paired else f"{now.runs[k]}, {now.other_runs[k]}",
            bool(now.enough[k]),
            float(now.difference[k]),
            float(half_width[k]),
            float(adjusted[k]),
        )
        for k, (i, j) in enumerate(couples)
    ]
