"""What was found, in words: a sentence a row, for a reader who has never seen the project."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from deit_ablate.report.summary import Summary
from deit_ablate.report.tables.table import measure
from deit_ablate.sweep.metrics import Metric


class Kind(NamedTuple):
    """What rows with these verdicts are told as. Its name is the class in the style sheet."""

    mark: str
    verdicts: tuple[str, ...]
    heading: str
    told: str
    """After a number of rows."""


KINDS = {
    "better": Kind("▲", ("better", "better_small"), "Better than the baseline", "better"),
    "worse": Kind("▼", ("worse", "worse_small"), "Worse than the baseline", "worse"),
    "equivalent": Kind("=", ("equivalent",), "Equivalent to the baseline", "equivalent"),
    "same": Kind("≡", ("no_effect",), "Changed nothing: the weights are the baseline's", "that changed nothing"),
    "undecided": Kind("?", ("undecided",), "Undecided: these runs cannot tell", "undecided"),
    "few": Kind("…", ("too_few", "one_seed", "none"), "Too few runs for a verdict", "with too few runs for a verdict"),
    "unjudged": Kind(
        "–", ("no_predictions",), "Not judged: predictions are missing", "not judged for want of predictions"
    ),
    "failed": Kind("×", ("did_not_train",), "Did not train", "that did not train"),
}
"""In the order in which they are told."""


def group(verdict: str) -> str:
    """The kind of a verdict; empty for the baseline and for rows without one."""
    return next((name for name, kind in KINDS.items() if verdict in kind.verdicts), "")


@dataclass(frozen=True)
class Findings:
    lead: str
    shared: Sequence[str]
    """What differs in every row that is compared, as when the baseline alone was made by an older version."""
    others: Mapping[str, Sequence[str]]
    """Row -> its changes that it does not declare and that not all rows have; only of rows that have some."""
    baseline: Mapping[str, Any] | None
    groups: Sequence[tuple[str, str, Sequence[Mapping[str, Any]]]]
    """(class in the style sheet, heading, rows of the summary)."""
    ranked: Sequence[Mapping[str, Any]]
    """Rows by their mean, where no baseline is named."""


def findings(summary: Summary) -> Findings:
    plan, rows = summary.plan, summary.rows
    compared = {row["variant"] for row in rows if not row["baseline"]}
    rows_of: dict[str, list[str]] = {}
    for change in summary.undeclared:
        rows_of.setdefault(str(change), []).append(change.row)
    shared = [what for what, names in rows_of.items() if len(compared) > 1 and compared.issubset(names)]
    others: dict[str, list[str]] = {}
    for change in summary.undeclared:
        if str(change) not in shared:
            others.setdefault(change.row, []).append(str(change))
    groups = []
    for name, kind in KINDS.items() if plan["baseline"] else ():
        found = [row for row in rows if row["verdict"] in kind.verdicts and not row["baseline"]]
        if name in ("better", "worse") and plan["kind"] != "cumulative":  # which keeps its own order
            found.sort(key=lambda row: row["difference"] * summary.metric.sign, reverse=name == "better")
        if found:
            groups.append((name, kind.heading, found))
    ranked = [] if plan["baseline"] else [row for row in rows if row["seeds"]]
    return Findings(
        lead=_lead(summary),
        shared=shared,
        others=others,
        baseline=next((row for row in rows if row["baseline"]), None),
        groups=groups,
        ranked=sorted(ranked, key=lambda row: -row[summary.metric.mean] * summary.metric.sign),
    )


def _lead(summary: Summary) -> str:
    """How many rows ended how, in one sentence without names."""
    if not summary.plan["baseline"]:
        return "This sweep names no baseline, so no row is judged against another by default."
    kinds = [group(row["verdict"]) for row in summary.rows if not row["baseline"]]
    parts = [f"{kinds.count(name)} {kind.told}" for name, kind in KINDS.items() if name in kinds]
    if not parts:
        return "There is no row to compare with the baseline."
    rows = f"{len(kinds)} {'row was' if len(kinds) == 1 else 'rows were'} compared with the baseline"
    return f"{rows}: {', '.join(parts[:-1])}{' and ' if len(parts) > 1 else ''}{parts[-1]}."


# -- a row ---------------------------------------------------------------------------------------------------------


def p_value(p: float) -> str:
    """``p = 0.0004``; no more digits than mean something."""
    if math.isnan(p):
        return "not tested"
    if p < 0.0001:
        return "p < 0.0001"
    if p > 0.99:
        return "p > 0.99"
    return f"p = {p:.1g}" if p < 0.001 else f"p = {p:.2g}" if p < 0.1 else f"p = {p:.2f}"


def _evidence(row: Mapping[str, Any], digits: int, p: str = "p_holm", what: str = "after Holm") -> str:
    """`` (95% interval −1.98 to −1.28, p = 0.0004 after Holm, 5 against 12 runs)``, as far as there is any."""
    mean, half_width, said = row["difference"], row["difference_half_width"], []
    if not math.isnan(half_width):
        ends = [measure(end, signed=True, digits=digits) for end in (mean - half_width, mean + half_width)]
        said.append(f"95% interval {' to '.join(ends)}")
    if not math.isnan(row[p]):
        said.append(f"{p_value(row[p])} {what}")
    if row["paired"]:
        said.append(f"{row['runs_compared']} pairs of runs")
    elif row["runs_compared"]:
        said.append(f"{row['runs_compared']} against {row['baseline_runs_compared']} runs")
    return f" ({', '.join(said)})" if said else ""


def sentence(row: Mapping[str, Any], metric: Metric, margin: float | None) -> tuple[str, str]:
    """What is known of a row: the words after its name; if the baseline's name follows, the words after that, or ""."""
    verdict, difference, digits = row["verdict"], row["difference"], metric.digits
    unit = f" {metric.counted_in}".rstrip()
    if verdict in ("better", "worse", "better_small", "worse_small"):
        less = f", which is less than the margin of {margin:g}" if verdict.endswith("small") and margin else ""
        size = measure(abs(difference), digits=digits)
        return f" is {verdict.partition('_')[0]} than ", f" by {size}{unit}{less}{_evidence(row, digits)}."
    seen = measure(difference, signed=True, digits=digits)
    observed = "" if math.isnan(difference) else f" Observed: {seen}{unit}"
    if verdict == "equivalent":
        within = f" within ±{metric.amount(margin)}" if margin else ""
        proof = _evidence(row, digits, "p_equivalent_holm", "against a difference of that size, after Holm")
        return " is equivalent to ", f"{within}.{observed}{proof}."
    words = row["verdict_words"] or "no verdict"
    return f": {words}.{observed}{_evidence(row, digits) if observed else ''}{'.' if observed else ''}", ""
