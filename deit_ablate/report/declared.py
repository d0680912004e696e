"""What a study declared before it was run, and what was changed when some of its runs had ended."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deit_ablate.errors import InputError
from deit_ablate.store import Store
from deit_ablate.sweep.plan import Plan

WORDS = {
    "metric": ("metric", "top1"),
    "margin": ("margin", "none"),
    "baseline": ("baseline", "none"),
    "baseline_seeds": ("seeds of the baseline", "none"),
}
"""Declared keys of one value each, in words, and what stands for null."""

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
    for key, (words, null) in WORDS.items():
        # Versions that did not declare a metric had top-1.
        if (key in before or key == "metric") and before.get(key) != after.get(key):
            old, new = (null if value is None else value for value in (before.get(key), after.get(key)))
            yield f"{words} changed from {old} to {new}"
    if before.get("population") != after.get("population"):
        old, new = (SCOPES[bool(each.get("population"))] for each in (before, after))
        yield f"what verdicts are for changed from {old} to {new}"
    if "rows" in before:
        rows, now = before["rows"], after.get("rows") or []
        for kind, ours, theirs in (("removed", rows, now), ("added", now, rows)):
            if names := [name for name in ours if name not in theirs]:
                yield f"row{'s' * (len(names) > 1)} {', '.join(names)} {kind}"


def before_running(declared: Sequence[Mapping[str, Any]], key: str) -> bool:
    """Whether the first run found this declared as it is now, and the metric, whose unit a margin is in."""
    if not declared or key not in declared[0] or declared[0].get("finished_runs_then"):
        return False
    return all(each.get(name) == declared[0].get(name) for each in declared for name in (key, "metric"))


def since_when(declared: Sequence[Mapping[str, Any]], key: str) -> str:
    """In words: whether this was declared before the first run, or when so many of the study's runs, which other sweeps
    had made, were done already; nothing where it has changed, which is told otherwise, or where that is not known."""
    if before_running(declared, key):
        return "since before its first run"
    done = declared[0].get("finished_runs_then") if declared else 0
    kept = declared and all(key in each and each[key] == declared[0].get(key) for each in declared)
    return f"when {done} of its runs {'was' if done == 1 else 'were'} done already" if done and kept else ""


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


def refuse_other_looks(plan: Plan, store: Store) -> None:
    """Raises InputError where runs of this study have ended under other looks than the plan's: what was looked at
    without them has spent the 5% already."""
    sweep = plan.sweep
    declared = store.sweeps.declared(sweep.name)
    before = declared[-1].get("looks") if declared else None
    now = list(sweep.looks) if sweep.looks else None
    changed = declared and before != now and (sweep.until_decided or (before and not now))
    if not changed or not any(store.result(cell[3]) for cell in (store.sweeps.sound_plan(sweep.name) or {})["cells"]):
        return
    if before is None:
        problem = "its seeds were run without looks, which may not be added after looking"
        expected = (
            "`--seeds N` for more seeds, which the table says; of a new study, --until-decided from its first run"
        )
    else:
        problem = f"it was run with looks at {before} seeds, and now there are {f'looks at {now}' if now else 'none'}"
        expected = f"`looks: {before}` in the file" if now else "--until-decided or --budget, as at its first run"
    raise InputError(problem, where=(str(sweep.file), 0, 0), key="looks", expected=expected)
