"""Whether what is written of a sweep is up to date. Imports pandas only where it is not: most launches end without."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from typing import Any

from deit_ablate import __version__, files
from deit_ablate.errors import Damaged
from deit_ablate.identity import canonical_json
from deit_ablate.launch import status
from deit_ablate.store import Store
from deit_ablate.store.attempt import SCHEMA
from deit_ablate.sweep.metrics import code_hashes, planned_metrics

MADE_FROM = "made_from.json"
"""Beside plan.json: what each file that is written of the sweep was made from."""


def made_from(store: Store, sweep: str) -> dict[str, Any] | None:
    """What is written of a sweep depends on: its plan, earlier plans and its runs' outcomes, by hash (the times of
    files say nothing: an import brings older ones); of a run without an outcome its state. None while one is running.

    To be asked before anything is read: what changes meanwhile is then found changed.
    """
    plan = store.sweeps.plan(sweep) or {}
    parents = status.parents_first(plan)
    outcomes: dict[str, str | None] = dict.fromkeys(parents)
    for run in parents:
        with contextlib.suppress(Damaged):  # which its state says
            content = files.read_regular(store.run(run) / "outcome.json")
            outcomes[run] = None if content is None else _hash(content)
    if None in outcomes.values():
        states = status.states(store, parents, sweep)
        if any(state.name == "running" for state in states.values()):
            return None
        outcomes = {run: found or f"{states[run]}, attempt {states[run].attempt}" for run, found in outcomes.items()}
    planned = store.sweeps.declared(sweep)
    hashes = {"plan": _hash(canonical_json(plan).encode()), "planned": _hash(canonical_json(planned).encode())}
    if code := code_hashes(planned_metrics(plan)):
        hashes["metrics"] = _hash(canonical_json(code).encode())
    return {"version": __version__, **hashes, "outcomes": outcomes}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def is_current(store: Store, sweep: str, name: str, now: Mapping[str, Any] | None) -> bool:
    """Whether the sweep's file of this name is there, and was made from what there is now."""
    folder = store.sweeps.folder(sweep)
    return now is not None and (folder / name).exists() and _noted(store, sweep).get(name) == now


def note(store: Store, sweep: str, name: str, now: Mapping[str, Any] | None) -> None:
    """Record what the file was made from, once it is written."""
    files.replace(
        store.sweeps.folder(sweep) / MADE_FROM, files.to_json({"schema": SCHEMA, **_noted(store, sweep), name: now})
    )


def _noted(store: Store, sweep: str) -> dict[str, Any]:
    try:
        noted = files.read_json(store.sweeps.folder(sweep) / MADE_FROM)
    except Damaged:
        noted = None  # damaged: all is written anew
    return noted if isinstance(noted, dict) and noted.get("schema") == SCHEMA else {}


def current_table(store: Store, sweep: str) -> str:
    """Write the sweep's table and figures, and its page if it has one, anew where they were made from something else;
    returns table.md's text."""
    now = made_from(store, sweep)
    if not is_current(store, sweep, "table.md", now):
        from deit_ablate.report.html.index import renew
        from deit_ablate.report.summary import summarize
        from deit_ablate.report.write import write_report

        summary = summarize(store, sweep)
        write_report(summary)
        note(store, sweep, "table.md", now)
        renew(summary, now)
    return (store.sweeps.folder(sweep) / "table.md").read_text(encoding="utf-8")
