"""What a study declared before it was run, and what was changed when some of its runs had ended."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

WORDS = {"margin": "margin", "baseline": "baseline", "baseline_seeds": "seeds of the baseline"}
"""Declared keys of one value each, in words."""

SCOPES = "these test images", "new ones of this kind (population)"


def changes(declared: Sequence[Mapping[str, Any]]) -> list[str]:
    """As in "margin changed from 0.5 to 2 after 9 runs were done": what was changed with results at hand, in order.

    ``declared``: what ``Sweeps.declared`` has. Seeds of rows are left out, which have a footnote of their own.
    """
    found = []
    for before, after in itertools.pairwise(declared):
        if done := after.get("finished_runs_then"):
            when = f"after {done} run{' was' if done == 1 else 's were'} done"
            found += [f"{what} {when}" for what in _changed(before, after)]
    return found


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for key, words in WORDS.items():
        if key in before and before[key] != after.get(key):
            old, new = ("none" if value is None else value for value in (before[key], after.get(key)))
            yield f"{words} changed from {old} to {new}"
    if before.get("population") != after.get("population"):
        old, new = (SCOPES[bool(each.get("population"))] for each in (before, after))
        yield f"what verdicts are for changed from {old} to {new}"
    if "rows" in before:
        rows, now = before["rows"], after.get("rows") or []
        for kind, names in (
            ("removed", [n for n in rows if n not in now]),
            ("added", [n for n in now if n not in rows]),
        ):
            if names:
                yield f"row{'s' * (len(names) > 1)} {', '.join(names)} {kind}"


def before_running(declared: Sequence[Mapping[str, Any]], key: str) -> bool:
    """Whether the first run found this declared as it is now."""
    if not declared or key not in declared[0] or declared[0].get("finished_runs_then"):
        return False
    return all(each.get(key) == declared[0][key] for each in declared)


def seeds_added_after_looking(declared: Sequence[Mapping[str, Any]], stage: str) -> bool:
    """Whether a later plan has seeds that the plans before (and the looks of the first) lacked, made when runs had
    finished."""
    known = set(range((declared[0].get("looks") or [0])[-1])) if declared else set()
    for position, plan in enumerate(declared):
        seeds = set(plan.get("seeds", {}).get(stage, ()))
        if position and seeds - known and plan.get("finished_runs_then"):
            return True
        known |= seeds
    return False
