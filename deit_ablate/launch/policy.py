"""When a run is started, tried again, or given up: what executors of every kind have in common.

A launch keeps nothing that the files don't say: killed at any moment, the next one goes on.
"""

from __future__ import annotations

from collections.abc import Mapping

from deit_ablate.errors import InputError, StoreGone
from deit_ablate.launch.jobs import RETRYABLE, Report, Work
from deit_ablate.store import State, Store
from deit_ablate.sweep.plan import Run

STARTABLE = frozenset({"missing", "resumable", "waiting"})
"""States in which a run starts by itself."""
FRUITLESS_STARTS = 3
"""Jobs for a run that end before an attempt begins, until it is given up."""


class Launch:
    """One launcher's work at some runs: which of them may start, given how they and their parents stand."""

    def __init__(self, work: Work) -> None:
        self.work, self.store, self.sweep = work, work.store, work.sweep
        self.runs: dict[str, Run] = dict(work.runs)
        self.parents: dict[str, list[str]] = {run.id: run.above for run in work.runs.values()}
        self.states: dict[str, State] = {}
        self.retry = set(work.retry)
        self.report = Report()

    def take_more(self, free: int) -> list[str]:
        """Take on the runs that the search requests, given the room for them; the ids of those that are new."""
        source = self.work.source
        requested = source(self.states, max(0, free)) if source is not None else ()
        new = {run.id: run for run in requested if run.id not in self.runs}
        self.runs |= new
        self.parents |= {run: added.above for run, added in new.items()}
        return list(new)

    def may_start(self, run: str) -> bool:
        """Whether the run's own state lets it start; its parents are another question."""
        state = self.states[run].name
        return state in STARTABLE or (run in self.retry and state in RETRYABLE)

    def prepare(self, run: str) -> bool:
        """Write what a worker needs to find before it starts; True where the run is retried. Raises StoreGone."""
        must_be_there(self.store, self.sweep)
        planned = self.runs[run]
        self.store.register(run, planned.recipe, planned.parents, planned.sources)
        if run in self.retry:
            self.store.uncancel(run)
        return run in self.retry


def must_be_there(store: Store, sweep: str | None) -> None:
    """Raises StoreGone where what a launch began with is no longer there: it must not begin anew in its place."""
    known = store.sweeps.folder(sweep) / "plan.json" if sweep else store.root
    if not known.exists():
        raise StoreGone(f"{known} is gone: the results folder was removed or renamed while its runs were going")


def refuse_lost_weights(
    runs: Mapping[str, Run],
    labels: Mapping[str, str],
    states: Mapping[str, State],
    store: Store,
    retry: frozenset[str] = frozenset(),
) -> None:
    """Raise InputError where a run that is to start (or to be retried) depends on weights that are gone."""
    for run in runs.values():
        state = states[run.id].name
        if state not in STARTABLE and not (run.id in retry and state != "blocked"):
            continue
        for role, parent in run.parents.items():
            above = parent["run"]
            if states[above].finished and store.weights(above) is None:
                name, of = labels.get(above, above), labels.get(run.id, run.id)
                raise InputError(
                    f"the weights of {name} ({above}), {role} of {of}, are gone",
                    where=str(store.root),
                    expected=f"`deit-ablate forget {above}` first, which trains it again with the sweep",
                )
