"""Comparisons of any two rows, which nobody planned, and the row that is best by all of them. Imports pandas."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from deit_ablate.report.stats.moderated import Comparisons, holm, moderate
from deit_ablate.report.stats.power import ALPHA
from deit_ablate.report.stats.verdicts import side_by_side
from deit_ablate.report.summary import Summary

MOST_COMPARED = 12
"""Rows up to which any two are compared: 66 pairs."""


def any_two(summary: Summary) -> list[dict[str, Any]]:
    """All pairs of rows other than the baseline, by the test of the table, with Holm over all of these pairs: names
    of the two, their difference (first - second) with its half-width, p, runs of both, and the verdict.

    Nothing where there are more than MOST_COMPARED rows: so many pairs leave no power for any of them.
    """
    values = {name: own for name, own in summary.values.items() if name != summary.plan["baseline"] and len(own) > 1}
    if not 2 <= len(values) <= MOST_COMPARED:
        return []
    names, couples = list(values), list(itertools.combinations(range(len(values)), 2))
    paired = [k for k, (i, j) in enumerate(couples) if summary.lineages.paired(names[i], names[j])]
    now = moderate(side_by_side(list(values.values())), Comparisons.of(couples, paired), summary.resolution)
    adjusted, half_width = holm(np.where(now.enough, now.p, np.nan)), now.half_width()
    found: list[dict[str, Any]] = []
    for k, (i, j) in enumerate(couples):
        p, difference = float(adjusted[k]), float(now.difference[k])
        better = "better" if difference * summary.metric.sign > 0 else "worse"
        kind, verdict = ("undecided", "undecided") if p > ALPHA else (better, f"first is {better}")
        if math.isnan(p):
            kind, verdict = "few", "not tested: no spread" if now.enough[k] else "too few"
        runs = f"{now.runs[k]} pairs" if k in paired else f"{now.runs[k]}, {now.other_runs[k]}"
        figures = {"difference": difference, "half_width": float(half_width[k]), "p": p}
        found.append({"first": names[i], "second": names[j], "runs": runs, **figures, "kind": kind, "verdict": verdict})
    return found


def best_row(summary: Summary) -> str | None:
    """The row that is best, where that is decided: better than the baseline by the verdicts (or the baseline, where all
    others are worse), and than each other row by ``any_two``. None where anything is open, and where verdicts are by
    looks or for new images, which ``any_two`` knows nothing of."""
    if any(summary.plan.get(key) for key in ("looks", "population")):
        return None
    metric, rows = summary.metric, [row for row in summary.rows if row["seeds"]]
    ranked = sorted(rows, key=lambda row: row[metric.mean] * metric.sign)
    if len(ranked) < 2:
        return None
    name, baseline = ranked[-1]["variant"], summary.plan["baseline"]
    if any(not row["verdict"].startswith("worse") for row in rows if name == baseline != row["variant"]):
        return None
    if name == baseline:
        return str(name)
    if baseline and not ranked[-1]["verdict"].startswith("better"):
        return None
    won = [
        (pair["first"], pair["second"])[:: 1 if pair["kind"] == "better" else -1]
        for pair in any_two(summary)
        if pair["kind"] in ("better", "worse")
    ]
    beaten = [loser for winner, loser in won if winner == name]
    return str(name) if all(row["variant"] in (*beaten, name, baseline) for row in rows) else None
