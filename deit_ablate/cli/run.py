"""Commands that make runs happen: run, retry, train."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from deit_ablate.cli import cluster, console
from deit_ablate.cli.launching import Launcher, Work, launcher_for
from deit_ablate.cli.options import DataDir, Device, Executor, Loaders, More, Parallel, Wait, chosen
from deit_ablate.cli.targets import DEFAULT_RESULTS, Results, one_run, refuse_other_file, runs_of, stored_runs, study
from deit_ablate.cli.weights import keep_weights
from deit_ablate.errors import InputError
from deit_ablate.execution import Execution
from deit_ablate.launch import status
from deit_ablate.launch.cost import Costs
from deit_ablate.launch.jobs import Job, worker_arguments
from deit_ablate.launch.local import RETRYABLE, Report, refuse_lost_weights
from deit_ablate.launch.pool import foreground
from deit_ablate.store import Store
from deit_ablate.sweep.plan import Plan, Run, make_plan
from deit_ablate.sweep.yaml import Node

SweepArgument = Annotated[
    str, typer.Argument(help="A sweep file, a sweep's name under the results folder, or a shipped sweep's name.")
]
Profile = Annotated[
    str | None, typer.Option("--profile", help="Run the study at another scale: digits, fashion-mnist, imagenet.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a recipe key for all rows; another study, in a folder of its own."
    ),
]
Only = Annotated[
    list[str] | None, typer.Option("--only", metavar="VARIANT", help="Only this row (may be given several times).")
]
Seeds = Annotated[
    int | None,
    typer.Option(
        "--seeds",
        min=1,
        max=1000,
        help="Train seeds 0 to N-1: fewer than the file says, or more, which join the study.",
    ),
]
Name = Annotated[str | None, typer.Option("--name", help="Another name for the study's folder.")]
Trials = Annotated[
    int | None, typer.Option("--trials", min=1, max=10_000, help="Trials of each row of a search, for the file's.")
]
Confirm = Annotated[
    bool,
    typer.Option(
        "--confirm",
        help="After a search: its best trials on fresh seeds, then the best of these on new ones, which the table shows.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask before a plan that is large for this machine.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse a sweep whose rows differ from the baseline in more than they declare.")
]
Json = Annotated[
    bool, typer.Option("--json", help="End with one JSON object on standard output; progress goes to standard error.")
]


def run(
    sweep: SweepArgument,
    profile: Profile = None,
    set_: Sets = None,
    only: Only = None,
    seeds: Seeds = None,
    name: Name = None,
    parallel: Parallel = None,
    device: Device = None,
    data_dir: DataDir = None,
    loaders: Loaders = None,
    execution: More = None,
    executor: Executor = None,
    wait: Wait = False,
    trials: Trials = None,
    confirm: Confirm = False,
    results: Results = DEFAULT_RESULTS,
    yes: Yes = False,
    strict: Strict = False,
    json_: Json = False,
) -> None:
    """Run a sweep: train what is missing, then write its table and figures."""
    store = Store(results)
    asked = study(sweep, store, profile=profile, sets=set_ or (), seeds=seeds, name=name)
    file = asked.sweep()
    search = asked.search(file, store, trials=trials, confirm=confirm, only=only or ())
    if search is None and (trials or confirm):
        raise InputError(
            "this sweep has no search",
            where=("--confirm" if confirm else "--trials", 0, 0),
            expected="a sweep with a `search:` block",
        )
    if search:
        if seeds and seeds < len(file.stages[-1].seeds):
            raise InputError(
                "the winners of a search are trained on all seeds of the file",
                where=("--seeds", 0, 0),
                expected="more seeds, or fewer in `seeds:`",
            )
        search.begin()
    plan = search.plan() if search else make_plan(file)
    refuse_other_file(store, plan, asked.file)
    if strict:
        refuse_leaks(plan)
    runs = search.runs if search else plan.only(only or [], seeds)
    how = chosen(
        plan.sweep.execution,
        execution,
        executor=executor,
        parallel=parallel,
        device=device,
        data_dir=data_dir,
        loaders=loaders,
    )
    states = status.states(store, {run.id: run.above for run in runs.values()}, plan.sweep.name)
    labels = search.labels if search else plan.labels()
    work = Work(store, plan.sweep.name, runs, labels, states, how, _command(), written=plan.written, search=search)
    refuse_lost_weights(runs, labels, states, store)
    launcher = launcher_for(work)
    if launcher:
        launcher.must_accept()
        _ask_first(work, yes)
    keep_weights(work.to_come(), store)
    store.save_plan(plan.sweep.name, asked.document(plan, store))
    if search:
        search.show()
    store.plan_seeds(plan.sweep.name, plan.seeds(), sum(state.finished for state in states.values()), plan.sweep.looks)
    _launch_and_report(work, launcher, wait=wait, json_=json_)


def retry(
    target: Annotated[str, typer.Argument(help="A sweep, sweep:variant, sweep:variant:seed, or a run's id.")],
    parallel: Parallel = None,
    device: Device = None,
    data_dir: DataDir = None,
    loaders: Loaders = None,
    execution: More = None,
    executor: Executor = None,
    wait: Wait = False,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only what failed, and what that blocks; not what was cancelled.")
    ] = False,
    results: Results = DEFAULT_RESULTS,
    json_: Json = False,
) -> None:
    """Run again what failed or was cancelled, with its budgets anew, and go on with what that blocked.

    Of a search, its trials so far; `run` then asks for more.
    """
    store = Store(results)
    name = target.split(":")[0]
    named = runs_of(target, store)
    if store.plan(name) is None:
        runs, labels, sweep, own = stored_runs(named, store), {run: run for run in named}, None, Execution()
        written: Mapping[str, Node] = {}
    else:
        asked = study(name, store)
        plan = asked.plan(store)
        store.save_plan(name, asked.document(plan, store))
        runs, labels, sweep, own = plan.runs, plan.labels(), name, plan.sweep.execution
        written = plan.written
        if ":" in target:
            wanted = set(named) | {above for run in named for above in _above(run, runs)}
            runs = {run: runs[run] for run in runs if run in wanted}
            if not runs:
                raise InputError(
                    f"the runs of {target!r} are no longer in {asked.file}", expected=f"`deit-ablate run {asked.file}`"
                )
    states = status.states(store, {run.id: run.above for run in runs.values()}, sweep)
    wanted_states = RETRYABLE - {"cancelled"} if failed else RETRYABLE
    again = frozenset(run for run, state in states.items() if state.name in wanted_states)
    if not again and all(state.at_rest for state in states.values()):
        if sweep:
            store.lift(sweep)
        print(f"nothing to retry: {console.counts(states)}")
        return
    refuse_lost_weights(runs, labels, states, store, again)
    how = chosen(
        own, execution, executor=executor, parallel=parallel, device=device, data_dir=data_dir, loaders=loaders
    )
    work = Work(store, sweep, runs, labels, states, how, _command(), again, written)
    launcher = launcher_for(work)
    if launcher:
        launcher.must_accept()
    keep_weights(work.unfinished(), store)
    if sweep:
        store.lift(sweep)
    _launch_and_report(work, launcher, wait=wait, json_=json_)


def _above(run: str, runs: Mapping[str, Run]) -> list[str]:
    found = []
    for parent in runs[run].above if run in runs else []:
        found += [parent, *_above(parent, runs)]
    return found


def refuse_leaks(plan: Plan) -> None:
    """Raises InputError at the first row that differs from the baseline in more than it declares."""
    for row, variant in zip(plan.rows, plan.sweep.variants, strict=True):
        if row.leaks:
            raise InputError(
                f"the row {row.name!r} brings along: {'; '.join(map(str, row.leaks))}",
                where=variant.where,
                key=plan.sweep.kind,
                expected="rows that hold all else fixed (or no --strict)",
            )


def train(
    recipe: Annotated[
        str, typer.Argument(help="A YAML file with a recipe (its `profile:` is the base), or the name or id of a run.")
    ],
    set_: Sets = None,
    device: Device = None,
    data_dir: DataDir = None,
    loaders: Loaders = None,
    execution: More = None,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Train one run in the foreground, for debugging. It is recorded like any other."""
    from deit_ablate.sweep.plan import single_run

    store = Store(results)
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml", ".json") or path.is_file():
        only = single_run(path, set_ or ())
    elif set_:
        raise InputError("--set needs a recipe file", expected="a YAML file, or the run without --set")
    else:
        only = stored_runs([one_run(recipe, store)], store)[one_run(recipe, store)]
    stood_on = stored_runs(only.above, store)
    refuse_lost_weights(
        {**stood_on, only.id: only},
        {},
        status.states(store, {run.id: run.above for run in [*stood_on.values(), only]}),
        store,
    )
    for parent in only.above:
        if store.outcome(parent) is None:
            raise InputError(
                f"its parent {parent} has not finished", where=(recipe, 0, 0), expected="a run whose parents are done"
            )
    before = store.outcome(only.id)
    code = 0
    if before is None:
        keep_weights([only], store)
        store.register(only.id, only.recipe, only.parents, only.sources)
        store.uncancel(only.id)
        status.close_if_gone(store, only.id)
        how = chosen(Execution(), execution, device=device, data_dir=data_dir, loaders=loaders)
        print(f"run {only.id}", flush=True)
        code = foreground(
            Job(
                str(store.root),
                only.id,
                (*worker_arguments(how, True), "--command", _command()),
                ranks=how.ranks,
            )
        )
    else:
        print(f"run {only.id} is {before['status']} already; `deit-ablate forget {only.id}` would train it again")
    outcome = store.outcome(only.id)
    if outcome:
        print(json.dumps({"run": only.id, "status": outcome["status"], **outcome["metrics"]}, indent=1))
    elif code == 0:
        code = 1  # it is in another process's hands, as the worker has said
    raise typer.Exit(130 if code == 75 else code)


# -- shared ----------------------------------------------------------------------------------------------------------


def _alone(store: Store, execution: Execution) -> str:
    """The command that trains a run by itself, under the same execution; the run's id follows."""
    options: dict[str, Any] = {"--results": store.root, "--device": execution.device, "--data-dir": execution.data_dir}
    given = [str(part) for option, value in options.items() if value not in (None, "auto") for part in (option, value)]
    return shlex.join(["deit-ablate", "train", *given])


def _command() -> str:
    """The command as records keep it: without absolute paths, so that they can be shown to others."""
    return shlex.join(["deit-ablate", *(re.sub(r"(^|=)/\S*/(?=[^/])", r"\1.../", part) for part in sys.argv[1:])])


def _ask_first(work: Work, yes: bool) -> None:
    """Before a plan that is large for this machine."""
    why = None if yes else Costs(work.store, work.runs).estimate(work.to_come()).large(work.store)
    if why is None:
        return
    if not sys.stdin.isatty():
        raise InputError(f"this is large for this machine: {why}", expected="--yes to run it all the same")
    typer.confirm(f"This is large for this machine: {why}. Run it?", abort=True)


def _launch_and_report(work: Work, launcher: Launcher | None, *, wait: bool, json_: bool) -> None:
    out = sys.stderr if json_ else sys.stdout
    store, sweep, labels = work.store, work.sweep, work.labels
    if launcher is None:
        counts = console.counts(work.states)
        every = all(state.finished for state in work.states.values())
        which = f"all {len(work.runs)} runs are done" if every else f"nothing is left of {len(work.runs)} runs"
        print(f"{sweep}: {which} ({counts}); nothing to train", file=out)
        report = Report(dict(work.states), 0)
    else:
        report = launcher.launch(wait=wait, out=out)
    if work.search is not None and work.search.aside:
        print(f"{work.search.aside} trials of an earlier version of the sweep file are left aside", file=out)
    if work.search is not None and work.search.late and work.search.to_ask:
        print(f"the search's time is over: {work.search.to_ask} trials were not asked for; `run` goes on", file=out)
    tables = _tables(store, sweep, report) if sweep and not report.interrupted else None
    failed = console.failures(report, store, labels, _alone(store, work.how))
    if json_:
        print(
            json.dumps(
                {
                    "sweep": sweep,
                    "started": report.started,
                    "interrupted": report.interrupted,
                    "states": {run: state.name for run, state in report.states.items()},
                    "names": {run: labels.get(run) for run in report.states},
                    "failed": failed,
                    "table": str(store.sweep(sweep) / "table.md") if sweep and tables else None,
                }
            )
        )
    else:
        if tables:
            print("\n" + tables)
        _announce_versions(store, report)
        if diverged := [labels.get(run, run) for run, state in report.states.items() if state.name == "diverged"]:
            print("diverged (a result, not a failure): " + ", ".join(diverged))
        if failed:
            print("\n".join(["", f"{len(report.failed())} of {len(work.runs)} runs are not done:", *failed]))
        for line in cluster.held(store, sweep):
            print(line)
    if report.interrupted and launcher:
        print(launcher.left, file=out)
        raise typer.Exit(130)
    raise typer.Exit(1 if report.failed() else 0)


def _tables(store: Store, sweep: str, report: Report) -> str | None:
    """Write the sweep's table and figures anew where anything changed; returns the Markdown table."""
    path = store.sweep(sweep) / "table.md"
    outcomes = [store.run(run) / "outcome.json" for run, state in report.states.items() if state.finished]
    newest = max(
        (file.stat().st_mtime for file in [*outcomes, store.sweep(sweep) / "plan.json"] if file.exists()), default=0.0
    )
    # What is not finished may stand otherwise than when the table was made.
    moving = not all(state.finished for state in report.states.values())
    if report.started or moving or not path.exists() or path.stat().st_mtime < newest:
        from deit_ablate.report.summary import summarize
        from deit_ablate.report.write import write_report

        write_report(summarize(store, sweep))
    return path.read_text()


def _announce_versions(store: Store, report: Report) -> None:
    from deit_ablate import __version__

    versions = [
        (store.outcome(run) or {}).get("provenance", {}).get("version")
        for run, state in report.states.items()
        if state.finished
    ]
    others = sorted({version for version in versions if version and version != __version__})
    if others:
        count = sum(version != __version__ for version in versions)
        print(
            f"{count} of these runs were made by deit-ablate {', '.join(others)}, which means the same training by the same recipe"
        )
