"""The outcome of a search's trials: a function of plan.json (which trials count) and of their runs' records."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deit_ablate.launch import status
from deit_ablate.store import State, Store
from deit_ablate.sweep.fields import OBJECTIVES

TRIAL, CANDIDATE = "trial", "candidate"
"""How the stages of trials and candidates begin in plan.json, before the stage's name in the sweep."""
MEASURED = {
    "top1": ("validation", "top1"),
    "loss": ("validation", "loss"),
    "throughput": ("cost", "inference_images_per_second"),
    "parameters": ("cost", "parameters"),
    "flops": ("cost", "flops"),
    "highest": ("validation", "metric"),
    "lowest": ("validation", "metric"),
}
"""Objective -> where a record has it: accuracy and loss are those of the validation part, never of the test split."""


@dataclass(frozen=True)
class Trial:
    """One configuration of a row, trained once."""

    number: int
    """Within its sweep, from 1, in the order in which trials were asked for."""
    row: str
    params: dict[str, Any]
    """Dotted recipe key -> value."""
    run: str
    state: State
    values: tuple[float, ...] | None
    """One for each objective; of a trial that is done."""
    reports: tuple[float | None, ...]
    """The first objective after each finished epoch, where it is one of the validation part."""

    @property
    def outcome(self) -> str:
        """complete, pruned, failed or open. A trial whose run diverged counts as pruned."""
        if self.values is not None:
            return "complete"
        if self.state.name in ("paused", "diverged"):
            return "pruned"
        lost = ("failed", "cancelled", "blocked", "damaged", "done")
        return "failed" if self.state.name in lost else "open"


def measured(outcome: Mapping[str, Any], objective: str) -> float | None:
    """An objective's value in a record; None where it has none."""
    part, key = MEASURED[objective]
    value = ((outcome if part == "cost" else outcome["metrics"]).get(part) or {}).get(key)
    return None if value is None else float(value)


def reports(store: Store, run: str, objective: str) -> tuple[float | None, ...]:
    """The objective after each epoch that a run has finished; none for objectives that training does not change."""
    part, key = MEASURED[objective]
    lines = store.sound_history(run) if part == "validation" else ()
    return tuple((line.get(part) or {}).get(key) for line in lines)


def read_trial(store: Store, request: Mapping[str, Any], state: State, objectives: Sequence[str]) -> Trial:
    """``request``: number, row, params and run, as plan.json lists them."""
    number, row, params, run = (request[key] for key in ("number", "row", "params", "run"))
    if state.name == "held":  # which says nothing of the trial itself
        state = store.state(run, {})
    values = None
    if state.name == "done":
        outcome = store.outcome(run) or {"metrics": {}}
        found = [measured(outcome, objective) for objective in objectives]
        values = None if None in found else tuple(value for value in found if value is not None)
    return Trial(number, row, params, run, state, values, reports(store, run, objectives[0]))


def read_trials(store: Store, plan: Mapping[str, Any]) -> list[Trial]:
    """All trials of a search's plan.json, in the order in which they were asked for."""
    search = plan["search"]
    states = status.states(store, status.parents_first(plan), plan["sweep"])
    return [read_trial(store, request, states[request["run"]], search["objectives"]) for request in search["asked"]]


def best(trials: Sequence[Trial], objectives: Sequence[str], count: int) -> list[Trial]:
    """The best complete trials with different runs, best first; of two objectives the Pareto front, in the order of the
    first one."""
    signs = [1 if OBJECTIVES[objective] == "maximize" else -1 for objective in objectives]
    points: dict[str, tuple[Trial, list[float]]] = {}
    for trial in trials:
        if trial.values is not None:
            scores = [sign * value for sign, value in zip(signs, trial.values, strict=True)]
            points.setdefault(trial.run, (trial, scores))
    front = list(points.values())
    if len(objectives) > 1:
        front = [(trial, scores) for trial, scores in front if not any(_dominates(other, scores) for _, other in front)]
    ranked = [trial for trial, _ in sorted(front, key=lambda point: (point[1][0], -point[0].number), reverse=True)]
    if len(objectives) > 1 and len(ranked) > count:  # spread over the front, its ends among them
        return [ranked[round(place * (len(ranked) - 1) / max(1, count - 1))] for place in range(count)]
    return ranked[:count]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether it is nowhere worse, and somewhere better."""
    return list(one) != list(other) and all(a >= b for a, b in zip(one, other, strict=True))


def mean_value(store: Store, runs: Sequence[str], objective: str) -> float | None:
    """The mean of an objective over runs that are all done; None where one is not."""
    outcomes = [store.result(run) for run in runs]
    values = [measured(outcome, objective) if outcome and outcome["status"] == "done" else None for outcome in outcomes]
    return None if not values or None in values else statistics.fmean(value for value in values if value is not None)
