"""What a sweep would run, what that costs and what it can tell: plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deit_ablate.cli import console
from deit_ablate.cli.options import Json, Name, Only, Profile, Seeds, Sets, Strict, SweepArgument
from deit_ablate.cli.targets import DEFAULT_RESULTS, Results, study
from deit_ablate.launch import status
from deit_ablate.launch.cost import Costs, Estimate
from deit_ablate.store import State, Store
from deit_ablate.sweep.plan import Plan, Run, make_plan

if TYPE_CHECKING:
    from deit_ablate.search.search import Search

MOST_ROWS = 60
MOST_JUDGED = 100
"""Rows up to which a plan says what it can find: above, importing scipy for it is not worth the time."""


def plan(
    sweep: SweepArgument,
    profile: Profile = None,
    set_: Sets = None,
    only: Only = None,
    seeds: Seeds = None,
    name: Name = None,
    results: Results = DEFAULT_RESULTS,
    strict: Strict = False,
    json_: Json = False,
) -> None:
    """Show what a sweep would run: rows, what they change, run ids, states, expected time and disk. Writes nothing."""
    store = Store(results)
    chosen = study(sweep, store, profile=profile, sets=set_ or (), seeds=seeds, name=name)
    file = chosen.sweep()
    search = chosen.search(file, store, only=only or ())
    made = search.plan() if search else make_plan(file)
    if strict:
        made.refuse_undeclared()
    runs = search.runs if search else made.only(only or [], seeds)
    states = status.states(store, {run.id: run.above for run in runs.values()})
    left = [run for run in runs.values() if not states[run.id].at_rest]
    estimate = Costs(store, runs).estimate([*left, *(search.examples() if search else [])])
    if json_:
        print(
            json.dumps(
                {
                    **made.document(""),
                    "states": {run: state.name for run, state in states.items()},
                    "estimate": vars(estimate),
                }
            )
        )
        return
    missing = {run for run, state in states.items() if state.name in ("missing", "waiting")}
    why = status.why_missing(store, made, missing)
    lines = [*_plan_lines(made, runs, states, search), *_why_lines(made, why), *_cost_lines(estimate)]
    print("\n".join(map(console.plain, lines)))


def _plan_lines(made: Plan, runs: Mapping[str, Run], states: Mapping[str, State], search: Search | None) -> list[str]:
    sweep = made.sweep
    lines = [
        f"{sweep.name}: {sweep.title}",
        f"profile {sweep.profile or 'none'}, {len(made.rows)} row{'s' * (len(made.rows) != 1)}, "
        f"{len(runs)} runs: {console.counts(states)}",
        "",
        *_row_lines(made, None if search else runs),
        *(_search_lines(search) if search else []),
        "",
    ]
    labels = made.labels()
    table = [("run", "name", "state")] + [(run, labels[run], str(states[run])) for run in list(runs)[:MOST_ROWS]]
    lines += console.columns(table) if runs else []
    if len(runs) > MOST_ROWS:
        lines.append(f"... and {len(runs) - MOST_ROWS} more runs (--json lists all)")
    if sweep.baseline and len(made.rows) <= MOST_JUDGED:
        from deit_ablate.report.stats.power import plan_words

        seeds, comparison = len(sweep.stages[-1].seeds), made.comparison
        lines += ["", plan_words(len(made.rows) - 1, seeds, comparison.seeds(seeds))]
        if sweep.population:
            lines.append("population: that is without the test set's part, which verdicts have and no seed takes away")
        if comparison.paired:
            shared = "share a run or a parent with the baseline at each seed, and are compared with it by pairs"
            lines.append(f"{', '.join(comparison.paired)}: {shared}")
    return lines


def _row_lines(made: Plan, runs: Mapping[str, Run] | None) -> list[str]:
    """Rows and what they change, of those only that some of the runs are of."""
    sweep, lines = made.sweep, []
    final = sweep.stages[-1].name
    planned = {cell.variant for cell in made.cells if runs is not None and cell.run in runs and cell.stage == final}
    shown = [row for row in made.rows if runs is None or row.name in planned][:MOST_ROWS]
    overrides = {variant.name: variant.overrides.plain() for variant in sweep.variants}
    for row in shown:
        baseline = " (baseline)" if row.name == sweep.baseline else ""
        change = console.changes(row.differs) or ("no change" if baseline else _given(overrides[row.name]))
        lines.append(f"{row.name}{baseline}: {change}{f' (shows {row.shows})' if row.shows else ''}")
        if row.undeclared:
            lines.append(f"    undeclared changes: {'; '.join(map(str, row.undeclared))}")
    if len(made.rows) > len(shown):
        lines.append(f"... and {len(made.rows) - len(shown)} more rows (--json lists all)")
    return lines


def _search_lines(search: Search) -> list[str]:
    """What is searched, by what, and how much of it."""
    settings = search.settings
    pruner = "no pruner" if settings.pruner == "none" or len(settings.objective) > 1 else f"{settings.pruner} pruner"
    lines = [
        "",
        f"search: {settings.sampler}, {pruner}, by {' and '.join(settings.objective)} (validation), "
        f"seed {settings.seed}",
    ]
    for row, budget in search.budget.items():
        space = search.spaces[row]
        lines.append(f"{row}: {budget} trials, {len(search.of_row(row))} requested so far")
        lines += [f"    {key}: {parameter.words()}" for key, parameter in space.items()]
    if search.invalid:
        lines.append(f"{len(search.invalid)} configurations were invalid recipes, and are skipped")
    if search.ignored:
        lines.append(f"{search.ignored} trials of an earlier version of this file are not counted")
    fresh, seeds = search.candidate_seeds, search.sweep.stages[-1].seeds
    lines.append(
        f"--confirm adds, for each row, {settings.candidates} candidates x {len(fresh)} seeds, "
        f"then {len(seeds)} seeds of the best: "
        f"up to {len(search.budget) * (settings.candidates * len(fresh) + len(seeds))} runs more"
        if len(settings.objective) == 1
        else f"--confirm adds {len(seeds)} seeds of each trial of the front, {settings.candidates} at most"
    )
    return lines


def _why_lines(made: Plan, why: Mapping[str, list[str]]) -> list[str]:
    labels = made.labels()
    return [
        "",
        *(
            f"missing since {reason}: {', '.join(labels[run] for run in runs[:3])}"
            + (f" and {len(runs) - 3} more runs" if len(runs) > 3 else "")
            for reason, runs in why.items()
        ),
    ][0 if why else 1 :]


def _cost_lines(estimate: Estimate) -> list[str]:
    if not estimate.runs:
        return []
    time, disk = console.duration(estimate.seconds), console.size(estimate.bytes)
    return ["", f"to do: {estimate.runs} runs, machine time {time}, disk {disk}, files {estimate.files or 'unknown'}"]


def _given(overrides: Mapping[str, Any], prefix: str = "") -> str:
    """What a row of a sweep without a baseline sets."""
    parts = [
        _given(value, f"{prefix}{key}.")
        if isinstance(value, dict) and value
        else f"{prefix}{key} {console.show_value(value)}"
        for key, value in overrides.items()
    ]
    return "; ".join(parts) or "the recipe as it is"
