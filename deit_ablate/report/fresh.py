"""Whether what is written of a sweep is up to date. Imports pandas only where it is not: most launches end without."""

from __future__ import annotations

import hashlib
from typing import Any

from deit_ablate import __version__, files
from deit_ablate.identity import canonical_json
from deit_ablate.launch.status import parents_first
from deit_ablate.store import Store

MADE_FROM = "made_from.json"


def made_from(store: Store, sweep: str) -> dict[str, Any] | None:
    """What a sweep's tables are made of, by hash: its plan, what was planned before, and each run's outcome (times of
    files say nothing: an import brings older ones). None where a run has none: its state may be another by now."""
    plan = store.sweeps.folder(sweep) / "plan.json"
    outcomes = {}
    for run in parents_first(store.sweeps.plan(sweep) or {"cells": []}):
        try:
            outcomes[run] = _hash((store.run(run) / "outcome.json").read_bytes())
        except OSError:
            return None
    return {
        "schema": 1,
        "version": __version__,
        "plan": _hash(plan.read_bytes()),
        "planned": _hash(canonical_json(store.sweeps.planned_seeds(sweep)).encode()),
        "outcomes": outcomes,
    }


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def current_table(store: Store, sweep: str) -> str:
    """Write the sweep's table and figures anew where they were made from something else; returns table.md's text."""
    folder = store.sweeps.folder(sweep)
    path = folder / "table.md"
    now = made_from(store, sweep)  # before anything is read: what comes meanwhile makes the next launch write anew
    if now is None or not path.exists() or files.read_json(folder / MADE_FROM) != now:
        from deit_ablate.report.summary import summarize
        from deit_ablate.report.write import write_report

        (folder / MADE_FROM).unlink(missing_ok=True)
        write_report(summarize(store, sweep))
        if now is not None:
            files.replace(folder / MADE_FROM, files.to_json(now))
    return path.read_text(encoding="utf-8")
