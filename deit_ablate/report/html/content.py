"""What a page is made from: everything that the store says of a sweep, read once."""

from __future__ import annotations

import getpass
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from deit_ablate import files
from deit_ablate.errors import Damaged
from deit_ablate.report.frame import rows
from deit_ablate.report.html.markup import Say
from deit_ablate.report.redaction import Redactor, user_names
from deit_ablate.report.summary import Summary
from deit_ablate.report.tables.pivot import is_grid
from deit_ablate.report.tables.search import is_search
from deit_ablate.report.tables.table import Table
from deit_ablate.report.write import analysis, paper_analysis
from deit_ablate.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

JUDGED = ("difference", "verdict")
LOG_LINES, LOG_BYTES = 30, 16_384
LOGS = 40
"""Failed runs whose logs are shown; of the others only how they ended."""


@dataclass(frozen=True)
class Ended:
    """How a run without a figure ended: its last attempt's word and the end of its log."""

    run: str
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
    search: Shown | None
    """Where the sweep is a search."""
    interactions: Shown | None
    """Of a factorial, and of a cumulative sweep of several orders."""
    pivot: Shown | None
    """Of a grid of several axes, where some run has finished."""
    paper: Shown | None
    """Where the paper has a table of it, and some run has finished."""

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
    shown = {"search": is_search(summary.plan), "interactions": summary.design is not None, "pivot": is_grid(summary)}
    search, interactions, pivot = (_shown(summary, name, say) if there else None for name, there in shown.items())
    paper, beside = None, paper_analysis(summary)
    if beside is not None and outcomes:
        # The names in its figures are not the page's to redact.
        paper = Shown(beside.table(summary), {} if redact else _pictures(beside.figures(summary)))
    return Content(
        summary,
        _judged_first(analysis().table(summary)),
        cells,
        outcomes,
        ended,
        say,
        search,
        interactions,
        pivot,
        paper,
    )


def _judged_first(table: Table) -> Table:
    """Difference and verdict beside the row's name: what stands further right is off a phone's screen."""
    first, *others = table.columns
    return replace(table, columns=(first, *sorted(others, key=lambda column: column.header not in JUDGED)))


def _shown(summary: Summary, name: str, say: Say) -> Shown:
    module = analysis(name)
    return Shown(module.table(summary), _pictures(module.figures(replace(summary, say=say))))


def _pictures(figures: Mapping[str, Figure]) -> dict[str, str]:
    from deit_ablate.report.html.svg import data_address

    return {name: data_address(figure) for name, figure in figures.items()}


def _ended(store: Store, run: str, shown: bool) -> Ended:
    last = next(reversed(store.attempts(run)), None)
    if last is None:
        return Ended(run, "", (), False)
    damage = store.damage(run)
    message = str(damage or (last.exit or {}).get("message", ""))
    if not shown:
        return Ended(run, message, (), False)
    try:
        raw, start = files.read_tail(last.log, LOG_BYTES)
    except (OSError, Damaged):
        return Ended(run, message, (), False)
    lines = raw.decode(errors="replace").split("\n")
    if start:
        lines = lines[1:] or lines  # the first one begins in its middle
    lines = [line.rpartition("\r")[2] or line.rstrip("\r") for line in lines]  # of a progress bar its last state
    while lines and not lines[-1].strip():
        lines.pop()
    return Ended(run, message, tuple(lines[-LOG_LINES:]), start > 0 or len(lines) > LOG_LINES)


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
