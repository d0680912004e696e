"""Commands that make runs happen: run, retry, train."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deit_ablate import __version__, files
from deit_ablate.cli import console, options, targets
from deit_ablate.cli.foreground import train_one
from deit_ablate.cli.options import command_line, given_execution
from deit_ablate.cli.targets import DEFAULT_RESULTS, Results, execution_for
from deit_ablate.errors import InputError
from deit_ablate.execution import Execution, Needs, layered
from deit_ablate.launch import status
from deit_ablate.launch.commands import train_command
from deit_ablate.launch.cost import Costs
from deit_ablate.launch.executors import Executor as RunExecutor
from deit_ablate.launch.executors import executor_for
from deit_ablate.launch.jobs import RETRYABLE, Report, Work
from deit_ablate.launch.notify import notify
from deit_ablate.launch.policy import must_be_there, refuse_lost_weights
from deit_ablate.launch.preflight import beside_table, hashed_data, keep_weights
from deit_ablate.report.declared import refuse_other_looks
from deit_ablate.report.fresh import current_table
from deit_ablate.report.trackers.exporters import must_be_installed
from deit_ablate.report.trackers.live import Live
from deit_ablate.store import Store
from deit_ablate.sweep.effects import pairs
from deit_ablate.sweep.enumeration import with_parents
from deit_ablate.sweep.fork_server import let_go, preparing_jobs
from deit_ablate.sweep.plan import make_plan, single_run
from deit_ablate.sweep.resources import Executions
from deit_ablate.sweep.sweep import Sweep
from deit_ablate.sweep.yaml import Node

if TYPE_CHECKING:
    from deit_ablate.report.adding import AddedSeeds
    from deit_ablate.search.search import Search


@preparing_jobs()
def run(
    sweep: options.SweepArgument,
    profile: options.Profile = None,
    set_: options.Sets = None,
    only: options.Only = None,
    seeds: options.Seeds = None,
    name: options.Name = None,
    parallel: options.Parallel = None,
    device: options.Device = None,
    data_dir: options.DataDir = None,
    loaders: options.Loaders = None,
    execution: options.ExecutionSets = None,
    executor: options.Executor = None,
    wait: options.Wait = False,
    until_decided: options.UntilDecided = False,
    budget: options.Budget = None,
    trials: options.Trials = None,
    confirm: options.Confirm = False,
    store: Results = DEFAULT_RESULTS,
    yes: options.Yes = False,
    verify_data: options.VerifyData = False,
    strict: options.Strict = False,
    allow_no_effect: options.AllowNoEffect = False,
    shared: options.Shared = False,
    json_: options.Json = False,
) -> None:
    """Run a sweep: train what is missing, then write its table and figures."""
    limit = options.seconds(budget)
    adding = until_decided or limit is not None
    chosen = targets.study(sweep, store, profile=profile, sets=set_ or (), seeds=seeds, name=name, until_decided=adding)
    if chosen.until_decided and seeds:
        raise InputError("looks say how many seeds there are", where="--seeds", expected="`looks:` in the file")
    file = chosen.sweep(store)
    search = chosen.search(file, store, trials=trials, confirm=confirm, only=only or ())
    _refuse_of_search(search, file, trials, confirm, seeds)
    if search:
        search.begin()
    plan = search.plan() if search else make_plan(file)
    targets.refuse_other_study(store, plan, chosen)
    refuse_other_looks(plan, store)
    added = chosen.added(plan, store, only=only or (), budget=limit) if file.until_decided else None
    source = search or added
    runs = source.runs if source else plan.only(only or [], seeds)
    given = given_execution(
        execution, executor=executor, parallel=parallel, device=device, data_dir=data_dir, loaders=loaders
    )
    how = execution_for(chosen, file.execution, given)
    how = beside_table(search.execution(how) if search else how, runs.values())
    own = (search or plan).executions(how, given)
    if strict:
        plan.executed(own).refuse_undeclared()
    every = status.states(store, {run.id: run.above for run in (plan.runs | runs).values()}, file.name)
    states = {run: every[run] for run in runs}
    labels = search.labels if search else plan.labels()
    compared = () if allow_no_effect else tuple(pairs(plan))
    work = Work(
        store, file.name, runs, labels, states, how, command_line(), frozenset(), plan.written, source, compared, own
    )
    refuse_lost_weights(runs, labels, states, store)
    for line in hashed_data(work) if verify_data else ():
        print(line, file=_out(json_))
    if chosen_executor := _ready(work):
        if added and limit and how.executor == "local":
            for line in added.measure(own):
                print(line, file=_out(json_), flush=True)
        _confirm_if_large(work, yes or limit is not None)
    if shared:
        files.share(store.root)
    keep_weights(work.to_come(), store)
    chosen.take_over(added.plan() if added else plan, store, every)
    if search:
        search.show()
    report = _launch(work, chosen_executor, wait=wait or bool(added), json_=json_)
    for line in _left_words(search, added, report):
        print(line, file=_out(json_))
    _report(work, report, chosen_executor, json_=json_)


def _refuse_of_search(search: Search | None, file: Sweep, trials: int | None, confirm: bool, seeds: int | None) -> None:
    """Raises InputError for options that are of searches alone, or not of these."""
    if search is None and (trials or confirm):
        where, expected = "--confirm" if confirm else "--trials", "a sweep with a `search:` block"
        raise InputError("this sweep has no search", where=where, expected=expected)
    if search and seeds and seeds < len(file.stages[-1].seeds):
        problem = "the winners of a search are trained on all seeds of the file"
        raise InputError(problem, where="--seeds", expected="more seeds, or fewer in `seeds:`")


def _left_words(search: Search | None, added: AddedSeeds | None, report: Report) -> Iterator[str]:
    """What the source of runs has left, a line each."""
    if search is not None and search.ignored:
        yield f"{search.ignored} trials of an earlier version of the sweep file are not counted"
    if search is not None and search.late and search.to_ask:
        yield f"the search's time is over: {search.to_ask} trials were not requested; `run` goes on"
    if added is not None and not report.interrupted:
        yield added.words(len(report.failed()))


def retry(
    target: options.Target,
    parallel: options.Parallel = None,
    device: options.Device = None,
    data_dir: options.DataDir = None,
    loaders: options.Loaders = None,
    execution: options.ExecutionSets = None,
    executor: options.Executor = None,
    wait: options.Wait = False,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only what failed, and what that blocks; not what was cancelled.")
    ] = False,
    store: Results = DEFAULT_RESULTS,
    json_: options.Json = False,
) -> None:
    """Run again what failed or was cancelled, with its budgets anew, and go on with what that blocked.

    Of a search, its trials so far; `run` then asks for more.
    """
    target = targets.by_name(target, store)
    name = target.split(":")[0]
    named = targets.runs_of(target, store)
    written: Mapping[str, Node] = {}
    needs: Mapping[str, Needs] = {}
    chosen = sweep = plan = None
    if store.sweeps.plan(name) is None:
        runs = {each: own for run in named for each, own in targets.known_runs(run, store).items()}
        labels, base = {run: run for run in named}, targets.execution_alone(runs[named[0]], store)
    else:
        chosen, sweep = targets.study(name, store), name
        plan = chosen.plan(store)
        refuse_other_looks(plan, store)
        runs, labels, base, written, needs = plan.runs, plan.labels(), plan.sweep.execution, plan.written, plan.needs
        if ":" in target:
            wanted = with_parents(runs, [run for run in named if run in runs])
            runs = {run: runs[run] for run in runs if run in wanted}
            if not runs:
                problem = f"the runs of {target!r} are no longer in {chosen.file}"
                raise InputError(problem, expected=f"`deit-ablate run {chosen.file}`")
    whole = plan.runs if plan else runs
    every = status.states(store, {run.id: run.above for run in whole.values()}, sweep)
    states = {run: every[run] for run in runs}
    retryable = RETRYABLE - {"cancelled"} if failed else RETRYABLE
    again = frozenset(run for run, state in states.items() if state.name in retryable)
    if not again and all(state.at_rest for state in states.values()):
        if sweep:
            store.sweeps.lift(sweep)
        print(f"nothing to retry: {console.counts(states)}")
        damaged = console.failures(Report(states), store, labels, "")
        print("\n".join(damaged), end="\n" * bool(damaged))
        raise typer.Exit(1 if damaged else 0)
    refuse_lost_weights(runs, labels, states, store, again)
    given = given_execution(
        execution, executor=executor, parallel=parallel, device=device, data_dir=data_dir, loaders=loaders
    )
    how = beside_table(execution_for(chosen, base, given), runs.values())
    own = Executions(runs, needs, how, given)
    work = Work(store, sweep, runs, labels, states, how, command_line(), again, written, own=own)
    chosen_executor = _ready(work)
    keep_weights(work.unfinished(), store)
    if chosen and plan:
        chosen.take_over(plan, store, every)
        store.sweeps.lift(plan.sweep.name)
    _report(work, _launch(work, chosen_executor, wait=wait, json_=json_), chosen_executor, json_=json_)


def train(
    recipe: Annotated[
        str,
        typer.Argument(help="A YAML file with a recipe (its `profile:` is the base), or the name or id of a run."),
    ],
    set_: options.Sets = None,
    device: options.Device = None,
    data_dir: options.DataDir = None,
    loaders: options.Loaders = None,
    execution: options.ExecutionSets = None,
    store: Results = DEFAULT_RESULTS,
) -> None:
    """Train one run in the foreground, for debugging or for another queue (`plan --commands`). It is recorded like any.

    Exit codes: 0 done, now or before; 75 to be called again (saved on a signal, in another process's hands, or a parent
    has not finished); 1 failed, cancelled, or a parent has; 2 bad input.
    """
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml", ".json") or path.is_file():
        alone, base = single_run(path, set_ or (), targets.finder(store))
        runs = {**targets.stored_runs(alone.above, store), alone.id: alone}
    elif set_:
        raise InputError("--set needs a recipe file", expected="a YAML file, or the run without --set")
    else:
        runs = targets.known_runs(run_id := targets.any_run(recipe, store), store)
        alone, base = runs[run_id], Execution()
    if (before := store.outcome(alone.id)) is not None:
        print(f"run {alone.id} is {before['status']} already; `deit-ablate forget {alone.id}` would train it again")
        code = 0
    else:
        how = layered(targets.execution_alone(alone, store), base)
        how = layered(how, given_execution(execution, device=device, data_dir=data_dir, loaders=loaders))
        code = train_one(alone, runs, store, beside_table(how, [alone]))
    if outcome := store.outcome(alone.id):
        print(json.dumps({"run": alone.id, "status": outcome["status"], **outcome["metrics"]}, indent=1))
    raise typer.Exit(code)


# -- shared ----------------------------------------------------------------------------------------------------------


def _ready(work: Work) -> RunExecutor | None:
    """What executes the runs, once it is known that these can start; None where nothing is left of them."""
    executor = executor_for(work)
    if executor:
        for tracker in work.execution.track:
            must_be_installed(tracker, key="execution.track")
        executor.preflight()
    return executor


def _confirm_if_large(work: Work, yes: bool) -> None:
    why = None if yes else Costs(work.store, work.runs).estimate(work.to_come()).large(work.store)
    if why is None:
        return
    if not sys.stdin.isatty():
        raise InputError(f"this is large for this machine: {why}", expected="--yes to run it all the same")
    typer.confirm(f"This is large for this machine: {why}. Run it?", abort=True)


def _out(json_: bool) -> Any:
    return sys.stderr if json_ else sys.stdout


def _launch(work: Work, executor: RunExecutor | None, *, wait: bool, json_: bool) -> Report:
    let_go()
    if executor is None:
        every = all(state.finished for state in work.states.values())
        which = f"all {len(work.runs)} runs are done" if every else f"nothing is left of {len(work.runs)} runs"
        print(f"{work.sweep}: {which} ({console.counts(work.states)}); nothing to train", file=_out(json_))
        return Report(dict(work.states))
    watch = console.Watch(work.store, work.labels, work.runs, work.sweep, stream=_out(json_))
    if work.sweep:
        watch.also = [Live(tracker, work.store, work.sweep, watch.say) for tracker in work.execution.track]
    try:
        report = executor.launch(watch, wait=wait)
        must_be_there(work.store, work.sweep)
    except Exception as error:
        _tell(work, f"the launch failed ({type(error).__name__})")
        if isinstance(error, OSError):
            must_be_there(work.store, work.sweep)
        raise
    finally:
        watch.close()
    if watch.also and not any(tracker.begun for tracker in watch.also):
        again = f"--wait, or `deit-ablate export {work.sweep} --to {work.execution.track[0]}` later"
        watch.say(f"trackers are kept up to date only while a launch stays: {again}")
    return report


def _tell(work: Work, what: str) -> None:
    """Notify whoever wants to know. What goes out names no machine and no path."""
    if why := notify(work.execution, f"{work.sweep or f'{len(work.runs)} runs'}: {what}"):
        console.say(f"warning: {why}", out=sys.stderr)


def _ending(work: Work, report: Report) -> str | None:
    """How a launch has ended, in a line; None where its runs go on without it."""
    how, why = "ended", work.store.sweeps.held(work.sweep)
    if report.interrupted:
        how = "interrupted"
    elif any(state.name in ("submitted", "running") for state in report.states.values()):
        return None
    elif why:
        of_error = f"held, as its first {len(why['runs'])} runs all ended as {why['class']}"
        how = "cancelled" if why["class"] == "cancelled" else of_error
    return f"{how}; {console.counts(report.states)}"


def _report(work: Work, report: Report, executor: RunExecutor | None, *, json_: bool) -> None:
    """Write and print what has come of it, and leave with the exit code that says so."""
    store, sweep, labels = work.store, work.sweep, work.labels
    table = current_table(store, sweep) if sweep and not report.interrupted else None
    failed = console.failures(report, store, labels, shlex.join(train_command(store.root, work.execution)))
    if json_:
        summary = {
            "sweep": sweep,
            "started": len(report.started),
            "interrupted": report.interrupted,
            "states": {run: state.name for run, state in report.states.items()},
            "names": {run: labels.get(run) for run in report.states},
            "failed": failed,
            "table": str(store.sweeps.folder(sweep) / "table.md") if sweep and table else None,
        }
        print(json.dumps(summary))
    else:
        if table and sweep:
            print(f"\n{table}\ntable and figures: {store.sweeps.folder(sweep)}")
        _announce_versions(store, report)
        if diverged := [labels.get(run, run) for run, state in report.states.items() if state.name == "diverged"]:
            print("diverged (a result, not a failure): " + ", ".join(diverged))
        if failed:
            print("\n".join(["", f"{len(report.failed())} of {len(work.runs)} runs are not done:", *failed]))
        for line in console.held(store, sweep):
            print(line)
    if executor and (ending := _ending(work, report)):
        _tell(work, ending)
    if report.interrupted and executor:
        print(executor.interrupted, file=_out(json_))
        raise typer.Exit(130)
    raise typer.Exit(1 if report.failed() else 0)


def _announce_versions(store: Store, report: Report) -> None:
    finished = [run for run, state in report.states.items() if state.finished]
    versions = [(store.outcome(run) or {}).get("provenance", {}).get("version") for run in finished]
    others = [version for version in versions if version and version != __version__]
    if others:
        which = f"{len(others)} of these runs were made by deit-ablate {', '.join(sorted(set(others)))}"
        print(f"{which}, which means the same training by the same recipe")
