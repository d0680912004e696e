"""The store's states, corrected by what can be known of the processes behind them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from deit_ablate.errors import Damaged, few
from deit_ablate.identity import CONTENT, canonical_json, difference, semantics_here, semantics_of, without_later
from deit_ablate.launch import slurm_commands
from deit_ablate.launch.jobs import is_due
from deit_ablate.launch.slurm_commands import Answer
from deit_ablate.store import Attempt, State, Store, owner
from deit_ablate.store.submissions import Submissions, Ticket, tickets_by_run
from deit_ablate.sweep.confounds import value_words
from deit_ablate.sweep.plan import Plan, Run

STALE_AFTER = 300.0
"""Seconds without a beat after which a running run is shown as stale; shown only, it proves nothing."""


REQUEUED = frozenset({"preempted", "time-limit"})
"""How an attempt ends whose job goes back into the queue by itself."""


def states(
    store: Store,
    parents: Mapping[str, Sequence[str]],
    sweep: str | None = None,
    *,
    learn: bool = False,
) -> dict[str, State]:
    """The state of each run, corrected by one answer of the scheduler where any of them is in its hands.

    An attempt whose process is provably gone shows as what closing it would make it. A scheduler that does not answer
    changes nothing. ``learn``: whether the store's index is to learn of finished runs.
    """
    known, answer = Known(store, parents, sweep, learn), None
    if known.at_scheduler:
        with contextlib.suppress(slurm_commands.SchedulerError):
            answer = slurm_commands.ask()
    return known.states(answer)


def parents_first(plan: Mapping[str, Any]) -> dict[str, list[str]]:
    """The runs of a plan.json, each with those that it depends on, which come before it."""
    found: dict[str, list[str]] = {}

    def add(run: str) -> None:
        if run not in found:
            above = plan["parents"].get(run, [])
            for parent in above:
                add(parent)
            found[run] = above

    for *_, run in plan["cells"]:
        add(run)
    return found


class Known:
    """What files say at one moment. A scheduler's answer counts only if it is asked for after that moment."""

    def __init__(
        self,
        store: Store,
        parents: Mapping[str, Sequence[str]],
        sweep: str | None = None,
        learn: bool = False,
    ) -> None:
        self.store, self.parents = store, parents
        self.held = store.sweeps.held(sweep) is not None
        self.submissions, self.damaged = Submissions(store).read()
        self.tickets = tickets_by_run(self.submissions)
        self.by_files = store.states(parents, held=self.held, learn=learn)
        self.open = [run for run in parents if not self.by_files[run].finished]
        attempts = {run: store.attempts(run)[-1:] for run in self.open if self.by_files[run].attempt}
        self.last = {run: found[0] for run, found in attempts.items() if found}

    @property
    def at_scheduler(self) -> bool:
        """Whether a scheduler could know more."""
        jobs = any(attempt.exit is None and attempt.job for attempt in self.last.values())
        return jobs or any(run in self.tickets for run in self.open)

    def number(self, run: str) -> int:
        """Of the last attempt at a run that is not finished; 0 where there is none."""
        return self.last[run].number if run in self.last else 0

    def states(self, answer: Answer | None) -> dict[str, State]:
        refuted = {run: attempt.number for run, attempt in self.last.items() if self.over(attempt, answer)}
        submitted = {run: reason for run in self.open if (reason := self._waits(run, refuted, answer)) is not None}
        found = self.by_files
        if refuted or submitted:
            finished = {run: state for run, state in self.by_files.items() if state.finished}
            found = self.store.states(
                self.parents, submitted=submitted, refuted=refuted, held=self.held, known=finished
            )
        return {run: corrected(self.store, run, state) for run, state in found.items()}

    def over(self, attempt: Attempt, answer: Answer | None) -> bool:
        """Whether an open attempt is known to have ended: its process is gone, or its job runs no more."""
        if attempt.exit is not None:
            return False
        if owner.provably_gone(attempt.owner):
            return True
        job = attempt.job
        if not job or answer is None or (job.get("cluster"), job.get("user")) != (answer.cluster, answer.user):
            return False
        return not answer.runs(job["element"])

    def ticket(self, run: str, refuted: Mapping[str, int], answer: Answer | None) -> Ticket | None:
        """The ticket by which a run waits at the scheduler, if one counts."""
        last, number = self.last.get(run), self.number(run)
        for ticket in self.tickets.get(run, ()):
            again = last is not None and last.element == ticket.element
            ended = last is not None and last.exit is not None and last.exit["class"] in REQUEUED
            counts = ticket.after >= number or (again and (ended or run in refuted))
            if answer is not None and ticket.element is not None and ticket.cluster == answer.cluster:
                if answer.names.get(ticket.element, ticket.name) != ticket.name:
                    continue  # the controller has begun its numbers anew: this is another job
                if answer.waits(ticket.element):
                    counts = ticket.after >= number or is_due(self.store.state(run, {}), ticket.after)
                else:
                    counts = counts and answer.runs(ticket.element)
            if counts:
                return ticket
        return None

    def _waits(self, run: str, refuted: Mapping[str, int], answer: Answer | None) -> str | None:
        ticket = self.ticket(run, refuted, answer)
        if ticket is None:
            return None
        if answer is None or ticket.element is None:
            return ""
        state, reason = answer.states.get(ticket.element, "elsewhere"), answer.reasons.get(ticket.element, "None")
        return state if reason in ("None", "") else f"{state}: {reason}"


def corrected(store: Store, run: str, state: State) -> State:
    attempts = store.attempts(run) if state.name == "running" else []
    if not attempts:  # also where they have been removed this moment
        return state
    attempt = attempts[-1]
    if owner.provably_gone(attempt.owner):
        return replace(state, name="resumable", detail="interrupted")
    try:
        beat = attempt.read_beat()
    except Damaged:  # shown only, as its age is
        return replace(state, detail=f"damaged {attempt.path.name}/beat")
    if beat is not None and time.time() - beat["time"] > STALE_AFTER:
        return replace(state, detail="stale")
    return state


def close_if_gone(store: Store, run: str, how: str = "interrupted", message: str = "") -> bool:
    """Close a run's last attempt where its owner is provably gone; True where it is closed now."""
    attempts = store.attempts(run)
    try:
        if not attempts or attempts[-1].exit is not None:
            return bool(attempts)
        if not owner.provably_gone(attempts[-1].owner):
            return False
    except Damaged:
        return False
    attempts[-1].close(how, message or "its process was found gone")
    return True


def close_ended(store: Store, run: str, code: int) -> None:
    """Close a run's last attempt, whose process has ended with this code (or minus a signal) and could not do so."""
    if not store.result(run):
        killed, left = f"killed by signal {-code}", f"ended with exit code {code} without a word"
        close_if_gone(store, run, *(("killed", killed) if code < 0 else ("crash", left)))


def runs_here(store: Store, run: str) -> bool:
    """Whether the attempt that is under way runs on this machine, and so takes one of its slots."""
    attempts = store.attempts(run)
    return bool(attempts) and attempts[-1].exit is None and owner.same_place(attempts[-1].owner)


def _earlier(store: Store, plan: Plan, missing: Collection[str]) -> Iterator[tuple[str, str]]:
    """Each missing run, with the one that had its place in this sweep when that was last run."""
    cells = (store.sweeps.sound_plan(plan.sweep.name) or {}).get("cells", [])
    before = {(variant, seed, stage): run for variant, seed, stage, run in cells}
    for cell in plan.cells:
        earlier = before.get((cell.variant, cell.seed, cell.stage), cell.run)
        if cell.run in missing and earlier != cell.run:
            yield cell.run, earlier


def why_missing(store: Store, plan: Plan, missing: Collection[str]) -> dict[str, list[str]]:
    """Reason -> missing runs, for those whose place in this sweep had a run that has finished, or failed, when the
    sweep was last run: what differs is the recipe, code, the content of a file, or SEMANTICS, in the run or in those
    above it."""
    found: dict[str, list[str]] = {}
    for run, earlier in _earlier(store, plan, missing):
        state = store.state(earlier, {})
        if state.finished or state.name == "failed":
            for reason in _reasons(store, plan.runs, run, earlier):
                runs = found.setdefault(reason if state.finished else f"{reason} (before: {state})", [])
                runs += [run] if run not in runs else []
    return found


def what_changed(store: Store, plan: Plan) -> list[str]:
    """The keys of recipes in which missing runs differ from those that had their places."""
    keys: dict[str, None] = {}
    for run, earlier in _earlier(store, plan, plan.runs):
        if store.result(run) is None and (stored := store.sound_recipe(earlier)) is not None:
            keys |= dict.fromkeys(difference(plan.runs[run].recipe, stored["recipe"]))
    return list(keys)


def acceptable(store: Store, plan: Plan) -> dict[str, dict[str, Any]]:
    """Planned run that is not finished -> the finished run that differs from it in its code alone, the latest of
    several, as ``Sweeps.accept`` takes them; of runs with a parent, those whose parent is the same."""
    missing = {_but_code(run.recipe, run.parents): run for run in plan.runs.values() if store.result(run.id) is None}
    found: dict[str, dict[str, Any]] = {}
    for earlier in sorted(store.runs(), key=lambda run: _finished_at(store, run)) if missing else ():
        stored = store.sound_recipe(earlier) or {"recipe": {}, "parents": {}}
        run = missing.get(_but_code(stored["recipe"], stored["parents"]))
        same = run is not None and semantics_of(earlier, stored) == semantics_here(run.recipe)
        if run is not None and same and store.result(earlier) is not None:
            names = (stored["sources"] | run.sources).keys()
            pairs = {name: [stored["sources"].get(name), run.sources.get(name)] for name in names}
            sources = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
            found[run.id] = {"run": earlier, "sources": sources}
    return {run: found[run] for run in plan.runs if run in found}


def _finished_at(store: Store, run: str) -> float:
    try:
        return (store.run(run) / "outcome.json").stat().st_mtime
    except OSError:
        return 0.0


def _but_code(recipe: Mapping[str, Any], parents: Mapping[str, Any]) -> str:
    return canonical_json([without_later(recipe), parents])


def _reasons(store: Store, runs: Mapping[str, Run], run: str, earlier: str) -> list[str]:
    now, stored = runs[run], store.sound_recipe(earlier)
    if stored is None or stored["parents"].keys() != now.parents.keys():
        return []
    changed = difference(now.recipe, stored["recipe"])
    files = [
        key for key, pair in changed.items() if all(isinstance(each, str) and CONTENT.match(each) for each in pair)
    ]
    fields = [f"{key} {value_words(a)} → {value_words(b)}" for key, (a, b) in changed.items() if key not in files]
    semantics = semantics_of(earlier, stored)
    reasons = (
        [] if semantics == semantics_here(now.recipe) else [f"recipes meant another training (SEMANTICS {semantics})"]
    )
    # An earlier version named code by module:function, with a hash that says nothing about today's.
    code = {name for name in stored["sources"].keys() | now.sources if ":" not in name}
    reasons += [
        f"the source of {name} changed" for name in sorted(code) if stored["sources"].get(name) != now.sources.get(name)
    ]
    reasons += [f"the content of {key} changed" for key in files]
    reasons += [f"the recipe changed ({few(fields, 3)})"] if fields else []
    for role, parent in now.parents.items():
        if (above := stored["parents"][role]["run"]) != parent["run"]:
            reasons += _reasons(store, runs, parent["run"], above)
    return reasons
