"""What a sweep would run, what that costs and what it can tell: plan."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deit_ablate.cli import console, options
from deit_ablate.cli.targets import DEFAULT_RESULTS, Results, Study, execution_for, refuse_other_study, remember, study
from deit_ablate.errors import InputError, counted, few
from deit_ablate.execution import Execution
from deit_ablate.launch import status
from deit_ablate.launch.commands import FORMS
from deit_ablate.launch.commands import commands as listed
from deit_ablate.launch.cost import Costs, Estimate
from deit_ablate.launch.jobs import NOT_DONE, Work, by_execution, needs_words
from deit_ablate.launch.policy import refuse_lost_weights
from deit_ablate.launch.pool import Pool
from deit_ablate.launch.preflight import beside_table, keep_weights, must_have, preflight, worth_a_preflight
from deit_ablate.recipe import flatten
from deit_ablate.report.declared import refuse_other_looks
from deit_ablate.store import State, Store
from deit_ablate.sweep.comparisons import LOOKS
from deit_ablate.sweep.effects import pairs
from deit_ablate.sweep.metrics import TOP1, Metric
from deit_ablate.sweep.plan import Plan, Run, make_plan

if TYPE_CHECKING:
    from deit_ablate.report.proposals import Proposal
    from deit_ablate.search.search import Search
    from deit_ablate.sweep.sweep import Sweep

MOST_ROWS = 60
MOST_SEEDS = 50
"""Seeds up to which a budget is thought of."""
POPULATION = "population: that is without the test set's part, which verdicts have and no seed takes away"
MOST_JUDGED = 100
"""Rows up to which a plan says what it can find: above, importing scipy for it is not worth the time."""


def plan(
    sweep: options.SweepArgument,
    profile: options.Profile = None,
    set_: options.Sets = None,
    only: options.Only = None,
    seeds: options.Seeds = None,
    name: options.Name = None,
    store: Results = DEFAULT_RESULTS,
    strict: options.Strict = False,
    budget: options.Budget = None,
    device: options.Device = None,
    data_dir: options.DataDir = None,
    execution: options.ExecutionSets = None,
    commands: Annotated[
        Literal["shell", "make", "json"] | None,
        typer.Option("--commands", help="The missing runs as commands, for another queue."),
    ] = None,
    json_: options.Json = False,
) -> None:
    """Show what a sweep would run: rows, what they change, run ids, states, time and disk. It writes no results.

    With --budget: how many seeds of which rows a machine time buys, and what they find. Where no run like them has
    finished, their first steps are timed here.

    With --commands: a shell script, a Makefile or a JSON list with a `deit-ablate train` for each run that is neither
    done nor running. This alone writes: the plan, the recipes and the weights files that the commands will find.
    """
    limit = options.seconds(budget)
    given = options.given_execution(execution, device=device, data_dir=data_dir)
    if commands is not None and (limit is not None or json_):
        raise InputError("it is an output of its own", where="--commands", expected="no --budget or --json")
    wanted = seeds if limit is None else MOST_SEEDS
    chosen = study(sweep, store, profile=profile, sets=set_ or (), seeds=wanted, name=name)
    if commands is not None:
        _commands(chosen, store, given, commands, only or [], strict=strict)
        return
    if limit is not None:
        _proposals(chosen, store, given, limit, only or [])
        return
    file = chosen.sweep(store)
    search = chosen.search(file, store, only=only or ())
    made = search.plan() if search else make_plan(file)
    executions = made.executions(execution_for(chosen, file.execution, given), given)
    made = made.executed(executions)
    if strict:
        made.refuse_undeclared()
    runs = search.runs if search else made.only(only or [], seeds)
    states = status.states(store, {run.id: run.above for run in runs.values()})
    left = [run for run in runs.values() if not states[run.id].at_rest]
    estimate = Costs(store, runs).estimate([*left, *(search.examples() if search else [])])
    remember(chosen, store, runs)
    if json_:
        named = {run: state.name for run, state in states.items()}
        print(json.dumps({**made.document(""), "states": named, "estimate": vars(estimate)}))
        return
    missing = {run for run, state in states.items() if state.name in ("missing", "waiting")}
    why = status.why_missing(store, made, missing)
    console.say(*_plan_lines(made, runs, states, search), *_left_lines(made, why, executions, left, estimate))


def _commands(chosen: Study, store: Store, given: Execution, form: str, only: Sequence[str], *, strict: bool) -> None:
    """Print the missing runs as commands, and write what these will find."""
    file = chosen.sweep(store)
    if file.search is not None:
        expected = "a sweep that is no search, which requests its trials as results come in: `deit-ablate run`"
        raise InputError("a search has no list of runs", where="--commands", expected=expected)
    made = make_plan(file)
    refuse_other_study(store, made, chosen)
    refuse_other_looks(made, store)
    how = beside_table(execution_for(chosen, file.execution, given), made.runs.values())
    own = made.executions(how, given)
    if strict:
        made.executed(own).refuse_undeclared()
    runs = made.only(only, chosen.seeds)
    every = status.states(store, made.parents, file.name)
    states = {run: every[run] for run in runs}
    labels = {run: f"{file.name}:{label}" for run, label in made.labels().items()}
    refuse_lost_weights(runs, labels, states, store)
    work = Work(store, file.name, runs, labels, states, how, written=made.written, pairs=tuple(pairs(made)), own=own)
    found = listed(work)
    text = FORMS[form](found, file.name)
    if worth_a_preflight(work):
        preflight(work, Pool().ask)
    keep_weights([runs[each.id] for each in found], store)
    chosen.take_over(made, store, every)
    for each in found:
        run = runs[each.id]
        store.register(run.id, run.recipe, run.parents, run.sources)
    print(text, end="")
    print(
        f"wrote the plan and {len(found)} recipes to {store.root}; `deit-ablate status {file.name}` follows the runs",
        file=sys.stderr,
    )
    if retried := [labels[run] for run, state in states.items() if state.name in NOT_DONE]:
        left_out = "left out, as `deit-ablate retry` has to lift that first"
        console.say(f"{left_out}: {few(retried, 5)}", out=sys.stderr)


def _proposals(chosen: Study, store: Store, given: Execution, budget: float, only: Sequence[str]) -> None:
    """Print what a budget buys. Raises InputError for a sweep without a baseline, and for a search."""
    from deit_ablate.report import proposals

    file = replace(chosen, until_decided=False).sweep(store)
    if file.search is not None or file.baseline is None:
        expected = "a sweep with a baseline, which is no search"
        raise InputError("no row is compared with a baseline", where="--budget", expected=expected)
    if file.kind == "factorial":
        expected = "no --budget: each effect takes all rows, whose seeds are equal"
        raise InputError("a budget buys seeds of single rows", where="--budget", expected=expected)
    made = make_plan(file)
    made.only(only)
    execution = beside_table(execution_for(chosen, file.execution, given), made.runs.values())
    executions = made.executions(execution, given)
    costs = Costs(store, made.runs)
    states = status.states(store, made.parents)
    if execution.executor == "local":
        for how, runs in by_execution(made.runs.values(), executions):
            must_have(how, runs)
        for line in costs.measure(made.runs, executions):
            print(line, flush=True)
    found = [proposals.propose(made, costs, states, seeds, only) for seeds in proposals.SEEDS]
    if found[0].rows == 0:
        print("no rows are compared")
        return
    sd = proposals.scatter(made, store)
    declared = store.sweeps.declared(file.name)
    looks = bool(declared[-1].get("looks") if declared else file.looks)
    ways = (not looks, (looks or not declared) and not file.population and file.design is None)
    console.say(*_proposal_lines(found, budget, sd, file, ways))
    if not found[0].fits(budget) and found[0].seconds is not None:
        dropped, left = proposals.leave_out(made, costs, states, budget)
        if len(dropped) == found[0].rows:
            print("not even one row fits: a smaller profile, or fewer epochs")
        else:
            what = f"{left.runs} runs, machine time {console.duration(left.seconds)}"
            finds = f"{_finds(left, sd, file.metric)} with {left.seeds} seeds"
            console.say(f"leave out {', '.join(dropped)}: {finds} ({what})")


def _proposal_lines(
    found: Sequence[Proposal], budget: float, sd: float | None, sweep: Sweep, ways: tuple[bool, bool]
) -> list[str]:
    """``ways``: whether `--seeds` and `--until-decided` are open to this study, of which one may have been declared."""
    metric = sweep.metric
    table = [("seeds", "of the baseline", "runs to do", "machine time", "finds (power 0.8)", "")]
    for each in found:
        fits = "" if each.fits(budget) else "unknown" if each.seconds is None else "too much"
        time, runs = console.duration(each.seconds), str(each.runs)
        table.append((str(each.seeds), str(each.baseline), runs, time, _finds(each, sd, metric), fits))
    rows = counted(found[0].rows, "row")
    lines = [f"{rows} beside the baseline, budget {console.duration(budget)} of machine time", ""]
    lines += console.columns(table)
    source = f"1 sd is {_amount(sd, metric)} here" if sd else "sd: of one row from seed to seed"
    lines += ["", f"{source}; runs that are done are not counted"]
    if fitting := [each for each in found if each.fits(budget)]:
        best = fitting[-1]
        by = f": `--seeds {best.seeds}`" if ways[0] else ""
        most = " or more" if best is found[-1] else ""
        lines.append(f"within the budget: {best.seeds} seeds{most}, {best.baseline} of the baseline{by}")
    first, last = (next(each for each in found if each.seeds == LOOKS[i]) for i in (0, -1))
    if sweep.population:
        return [*lines, POPULATION]
    if not ways[1]:
        return lines
    least, most = console.duration(first.seconds), console.duration(last.seconds)
    return [*lines, f"`--until-decided` (3 to 12 seeds): from {least} to {most}, by how soon rows are decided"]


def _finds(each: Proposal, sd: float | None, metric: Metric) -> str:
    return f"{each.finds:.1f} sd" + (f" ({_amount(each.finds * sd, metric)})" if sd else "")


def _amount(value: float, metric: Metric) -> str:
    return f"{value:.{metric.digits}f} {metric.counted_in}".rstrip()


def _plan_lines(made: Plan, runs: Mapping[str, Run], states: Mapping[str, State], search: Search | None) -> list[str]:
    sweep = made.sweep
    lines = [
        f"{sweep.name}: {sweep.title}",
        ("" if sweep.program else f"profile {sweep.profile or 'none'}, ") + f"{counted(len(made.rows), 'row')}, "
        f"{len(runs)} runs: {console.counts(states)}",
        "",
        *_row_lines(made, None if search else runs),
        *(_search_lines(search) if search else []),
        "",
    ]
    lines += [*sweep.design.words(), ""] if sweep.design else []
    labels = made.labels()
    table = [("run", "name", "state")] + [(run, labels[run], str(states[run])) for run in list(runs)[:MOST_ROWS]]
    lines += console.columns(table) if runs else []
    if len(runs) > MOST_ROWS:
        lines.append(f"... and {len(runs) - MOST_ROWS} more runs (--json lists all)")
    if sweep.baseline and len(made.rows) <= MOST_JUDGED:
        from deit_ablate.report.stats.power import effects_words, plan_words

        confirmed = len(sweep.final.seeds)  # on which a search trains its winners, which it has yet to find
        rows, seeds, of_baseline = (len(made.rows) - 1, confirmed, confirmed) if search else _compared(made, runs)
        lines += ["", plan_words(rows, seeds, of_baseline)]
        if sweep.kind == "factorial" and sweep.design:
            lines.append(effects_words(len(sweep.design.effects()), len(made.rows), seeds))
        if sweep.metric.name != TOP1.name:
            margin = f"margin ±{sweep.metric.amount(sweep.margin)}" if sweep.margin else "no margin"
            lines.append(f"of {sweep.metric.words}, {sweep.metric.better} is better; {margin}")
        if sweep.population:
            lines.append(POPULATION)
        if paired := made.comparison.paired:
            shared = "share a run or a parent with the baseline at each seed, and are compared with it by pairs"
            lines.append(f"{', '.join(paired)}: {shared}")
    return lines


def _compared(made: Plan, runs: Mapping[str, Run]) -> tuple[int, int, int]:
    """What these runs compare: how many rows with the baseline, the fewest seeds of one, and the baseline's seeds (as
    many as go with those, where none of these runs is its own)."""
    final = made.sweep.final.name
    seeds = Counter(cell.variant for cell in made.cells if cell.stage == final and cell.run in runs)
    of_baseline = seeds.pop(str(made.sweep.baseline), 0)
    fewest = min(seeds.values(), default=0)
    return len(seeds), fewest, of_baseline or made.comparison.seeds(fewest)


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


def _left_lines(
    made: Plan, why: Mapping[str, list[str]], executions: Mapping[str, Execution], left: Sequence[Run], cost: Estimate
) -> list[str]:
    """What is left to do: since when, what it needs where ``resources`` say that it is not the same, what it costs."""
    labels, groups = made.labels(), by_execution(left, executions) if made.needs else []
    since = {reason: few([labels[run] for run in runs], 3, "more runs") for reason, runs in why.items()}
    needs = needs_words([how for how, _ in groups])
    of_groups = [
        f"{need or 'as all the others'}: {counted(len(runs), 'run')} ({few([labels[run.id] for run in runs], 3)})"
        for (_, runs), need in zip(groups, needs, strict=True)
    ]
    kept = [f"disk {console.size(cost.bytes)}"] * bool(cost.bytes) + [f"files {cost.files}"] * bool(cost.files)
    to_do = ", ".join((f"to do: {cost.runs} runs", f"machine time {console.duration(cost.seconds)}", *kept))
    parts = ([f"missing since {reason}: {names}" for reason, names in since.items()], of_groups if any(needs) else [])
    return [line for part in (*parts, [to_do] if cost.runs else []) if part for line in ("", *part)]


def _given(overrides: Mapping[str, Any]) -> str:
    """What a row of a sweep without a baseline sets."""
    parts = [f"{key} {console.show_value(value)}" for key, value in flatten(overrides)]
    return "; ".join(parts) or "the recipe as it is"
