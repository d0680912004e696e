"""What a budget of machine time buys before anything is run: seeds, what they find, and what to leave out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from deit_ablate.identity import canonical_json
from deit_ablate.launch.cost import MOST_RECORDS, Costs, workload
from deit_ablate.report.stats.power import detectable
from deit_ablate.store import State, Store
from deit_ablate.sweep.comparisons import FEWEST
from deit_ablate.sweep.plan import Plan

SEEDS = (3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 50)
"""Numbers of seeds that are proposed."""


@dataclass(frozen=True)
class Proposal:
    """So many seeds of so many rows (beside the baseline), and of the baseline: what is left to be run for that."""

    rows: int
    seeds: int
    baseline: int
    runs: int
    seconds: float | None
    """Machine time; None where nothing is known."""

    @property
    def finds(self) -> float:
        """The difference, in sd of a run over seeds, that it finds with a power of about 0.8."""
        return detectable(self.rows, self.seeds, self.baseline)

    def fits(self, budget: float) -> bool:
        return self.seconds is not None and self.seconds <= budget


def propose(plan: Plan, costs: Costs, states: Mapping[str, State], seeds: int, rows: Sequence[str] = ()) -> Proposal:
    """Of a plan with at least so many seeds; ``rows``: these alone, beside the baseline."""
    comparison = plan.comparison
    others = [row.name for row in plan.rows if row.name != plan.sweep.baseline and (not rows or row.name in rows)]
    alone = len([name for name in others if name not in comparison.paired])
    part = replace(plan, comparison=replace(comparison, alone=alone))
    wanted = part.only([str(plan.sweep.baseline), *others], seeds)
    left = [run for run in wanted.values() if run.id not in states or not states[run.id].finished]
    estimate = costs.estimate(left)
    seconds = estimate.seconds if left else 0.0
    return Proposal(len(others), seeds, part.comparison.seeds(seeds), len(left), seconds)


def leave_out(plan: Plan, costs: Costs, states: Mapping[str, State], budget: float) -> tuple[list[str], Proposal]:
    """The rows to leave out so that the others fit with the fewest seeds, the costliest first and of equals the last of
    the file; and what is then left. All of them where not one fits."""
    kept = [row.name for row in plan.rows if row.name != plan.sweep.baseline]
    dropped: list[str] = []
    proposal = propose(plan, costs, states, FEWEST)
    each = {name: propose(plan, costs, states, FEWEST, [name]).seconds or 0.0 for name in kept}
    while kept and not proposal.fits(budget):
        dropped.append(max(reversed(kept), key=lambda name: each[name]))
        kept.remove(dropped[-1])
        proposal = propose(plan, costs, states, FEWEST, kept) if kept else proposal
    return dropped, proposal


def scatter(plan: Plan, store: Store) -> float | None:
    """The sd of the metric from seed to seed, over finished runs of the plan's workloads, pooled over recipes; None
    where no recipe has two seeds, and of a metric that records do not have."""
    figure = plan.sweep.metric.figure
    wanted = {workload(run.recipe, whole=True) for run in plan.runs.values()}
    groups: dict[str, list[float]] = {}
    known = store.runs()
    for run in [*(run for run in plan.runs if run in known), *sorted(known - plan.runs.keys())][:MOST_RECORDS]:
        outcome, stored = store.result(run), store.sound_recipe(run)
        if outcome and stored and outcome["status"] == "done" and workload(stored["recipe"], whole=True) in wanted:
            value = (outcome["metrics"].get("test") or {}).get(figure)
            if value is not None:
                key = canonical_json([{**stored["recipe"], "seed": 0}, sorted(stored["sources"].items())])
                groups.setdefault(key, []).append(value)
    squares = sum(sum((x - sum(own) / len(own)) ** 2 for x in own) for own in groups.values())
    degrees = sum(len(own) - 1 for own in groups.values())
    return math.sqrt(squares / degrees) if degrees else None
