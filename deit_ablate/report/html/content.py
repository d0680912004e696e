"""What a page is made from: everything that the store says of a sweep, read once."""

from __future__ import annotations

import contextlib
import getpass
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from types import ModuleType
from typing import Any

from deit_ablate import files
from deit_ablate.errors import Damaged
from deit_ablate.report.frame import rows
from deit_ablate.report.html.markup import Say
from deit_ablate.report.redaction import Redactor, user_names
from deit_ablate.report.summary import Summary
from deit_ablate.report.tables.table import Table
from deit_ablate.report.write import each
from deit_ablate.store import Store

LOG_LINES, LOG_BYTES = 30, 16_384
LOGS = 40
"""Failed runs whose logs are shown; of the others only how they ended."""


@dataclass(frozen=True)
class Ended:
    """How a run without a figure ended: its last attempt's word and the end of its log."""

    message: str
    log: tuple[str, ...]
    more: bool
    """Whether the log has lines before these."""


@dataclass(frozen=True)
class Shown:
    """What an analysis file shows: a table, and figures (name -> a picture that needs nothing outside the page)."""

    table: Table
    pictures: Mapping[str, str]


@dataclass(frozen=True)
class Content:
    summary: Summary
    table: Table
    cells: list[dict[str, Any]]
    """Every record of every stage, in the plan's order."""
    outcomes: Mapping[str, Mapping[str, Any]]
    ended: Mapping[str, Ended]
    say: Say
    parts: Mapping[str, Shown]
    """What there is beside its own table, by name: see ``write.parts``."""

    @property
    def plan(self) -> Mapping[str, Any]:
        return self.summary.plan

    @property
    def redacted(self) -> bool:
        return self.say.redactor is not None

    def states(self) -> Counter[str]:
        """State -> runs, each run once."""
        return Counter({cell["run"]: cell["state"] for cell in self.cells}.values())

    def waiting(self) -> int:
        """Runs that may still have a result; one that is paused is a trial that was pruned."""
        return sum(count for state, count in self.states().items() if state not in ("done", "diverged", "paused"))

    def state_words(self) -> str:
        """``5 done, 1 failed``."""
        ordered = sorted(self.states().items(), key=lambda item: (item[0] != "done", item[0]))
        return ", ".join(f"{count} {state}" for state, count in ordered)

    def period(self) -> str:
        """When runs finished, by their records."""
        times = [outcome["time"] for outcome in self.outcomes.values() if isinstance(outcome.get("time"), (int, float))]
        days = sorted({datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%d") for moment in times})
        return "" if not days else days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def read(summary: Summary, *, redact: bool = False) -> Content:
    store = summary.store
    cells = rows(summary.records)
    states = {cell["run"]: cell["state"] for cell in cells}
    outcomes = {run: store.result(run) or {} for run, state in states.items() if state in ("done", "diverged")}
    lost = [run for run, state in states.items() if state in ("failed", "diverged", "damaged")]
    ended = {run: _ended(store, run, shown=i < LOGS) for i, run in enumerate(lost)}
    say = Say(_redactor(store, summary.plan, cells, ended) if redact else None)

    def shown(name: str, module: ModuleType) -> Shown:
        if name == "table":
            return Shown(module.table(summary), {})
        from deit_ablate.report.html.svg import data_address

        # The names in the paper's figures are not the page's to redact.
        drawn = {} if redact and name == "paper" else module.figures(summary.saying(say))
        return Shown(module.table(summary), {figure: data_address(drawn[figure]) for figure in drawn})

    made, notes = each(summary, shown)
    table = made.pop("table").table
    # Difference and verdict beside the row's name: what stands further right is off a phone's screen.
    first, *others = table.columns
    others.sort(key=lambda column: column.header not in ("difference", "verdict"))
    table = replace(table, columns=(first, *others), footnotes=(*table.footnotes, *notes))
    return Content(summary, table, cells, outcomes, ended, say, made)


def _ended(store: Store, run: str, shown: bool) -> Ended:
    message, raw, start = "", b"", 0
    if attempts := store.attempts(run):
        message = str(store.damage(run) or (attempts[-1].exit or {}).get("message", ""))
        with contextlib.suppress(OSError, Damaged):
            raw, start = files.read_tail(attempts[-1].log, LOG_BYTES) if shown else (raw, start)
    lines = raw.decode(errors="replace").split("\n")
    if start:
        lines = lines[1:] or lines  # the first one begins in its middle
    lines = [line.rpartition("\r")[2] or line.rstrip("\r") for line in lines]  # of a progress bar its last state
    while lines and not lines[-1].strip():
        lines.pop()
    return Ended(message, tuple(lines[-LOG_LINES:]), start > 0 or len(lines) > LOG_LINES)


def _redactor(
    store: Store, plan: Mapping[str, Any], cells: list[dict[str, Any]], ended: Mapping[str, Ended]
) -> Redactor:
    """What records, and the machine that writes, know of names. (The writer's own: a page may be written where it was
    trained, and a login on a line of a log is one that no record has.)"""
    hosts = {str(cell["host"]) for cell in cells if cell["host"]} | {platform.node()}
    names = {getpass.getuser()}
    texts = [str(cell["command"]) for cell in cells] + [plan["source"], str(plan.get("asked", {}))]
    texts += [line for end in ended.values() for line in (end.message, *end.log)]
    for run in {cell["run"] for cell in cells}:
        for attempt in store.attempts(run):
            try:
                owner = attempt.owner
            except Damaged:
                continue
            job = owner.get("job") or {}
            hosts.add(str(owner.get("host") or ""))
            names |= {str(job.get(key) or "") for key in ("user", "cluster", "account")}
    names |= user_names(texts)
    return Redactor(frozenset(hosts - {"", "localhost"}), frozenset(names - {"", "root"}))
