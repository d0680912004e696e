"""From what a user names (a file, a sweep, a row, a run) to plans and run ids."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deit_ablate import files
from deit_ablate.errors import Damaged, InputError, did_you_mean
from deit_ablate.execution import Execution, layered
from deit_ablate.identity import canonical_json
from deit_ablate.launch import status
from deit_ablate.launch.executors import find_executor
from deit_ablate.names import cache_folder, keep_in_cache
from deit_ablate.program import is_program
from deit_ablate.report.trackers.exporters import must_be_known
from deit_ablate.store import State, Store
from deit_ablate.store.named import asked_options, planned_runs, same_content, source_of
from deit_ablate.store.named import by_name as by_name
from deit_ablate.store.named import one_run as one_run
from deit_ablate.store.named import runs_of as runs_of
from deit_ablate.sweep.enumeration import cell_name, with_parents
from deit_ablate.sweep.load import load_sweep
from deit_ablate.sweep.metrics import planned_metrics
from deit_ablate.sweep.plan import Plan, Run, make_plan
from deit_ablate.sweep.programs import ONE_RANK
from deit_ablate.sweep.sweep import Sweep
from deit_ablate.sweep.yaml import assignments, load

if TYPE_CHECKING:
    from deit_ablate.report.adding import AddedSeeds
    from deit_ablate.search.search import Search

Results = Annotated[
    Store,
    typer.Option(
        "--results", parser=Store, metavar="<path>", help="Folder of the run store.", envvar="DEIT_ABLATE_RESULTS"
    ),
]
DEFAULT_RESULTS: Any = "results"
MOST_PLANS = 50
"""Of plans that were shown, in the user's cache: the oldest go first."""


@dataclass(frozen=True)
class Study:
    """A sweep as a command names it: its file, and what the command line changed about it."""

    file: Path
    profile: str | None = None
    sets: Sequence[str] = ()
    seeds: int | None = None
    name: str | None = None
    until_decided: bool = False
    accepting: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Runs of earlier code that its plans use, beside those that are accepted."""

    @property
    def asked(self) -> dict[str, Any]:
        """What makes it, in plan.json, beside the file."""
        return {"profile": self.profile, "sets": list(self.sets), "seeds": self.seeds, "name": self.name}

    def sweep(self, store: Store) -> Sweep:
        sweep = load_sweep(self.file, **self.asked, until_decided=self.until_decided)
        accepted = store.sweeps.accepted(sweep.name)
        return replace(sweep, find_run=finder(store), accepted={**accepted, **self.accepting})

    def plan(self, store: Store) -> Plan:
        """All runs of the sweep; of a search, or of one that is run until its rows are decided, those that it has
        requested so far. Raises InputError."""
        sweep = self.sweep(store)
        source = self.search(sweep, store) or (self.added(make_plan(sweep), store) if self.until_decided else None)
        return source.plan() if source else make_plan(sweep)

    def added(self, plan: Plan, store: Store, **options: Any) -> AddedSeeds:
        """The seeds that are added to a sweep that is run until its rows are decided; it keeps plan.json up to date."""
        from deit_ablate.report.adding import AddedSeeds

        return AddedSeeds(plan, store, self._saving(store), **options)

    def search(self, sweep: Sweep, store: Store, **options: Any) -> Search | None:
        """The sweep's search, which keeps plan.json up to date; None for a sweep without one."""
        if sweep.search is None:
            return None
        from deit_ablate.search.search import Search

        return Search(sweep, store, self._saving(store), **options)

    def _saving(self, store: Store) -> Callable[[Plan], None]:
        return lambda plan: store.sweeps.save_plan(plan.sweep.name, self.document(plan, store))

    def document(self, plan: Plan, store: Store) -> dict[str, Any]:
        """plan.json: the plan, and how to make it again. The path is relative: a store may move with its sweeps."""
        source = os.path.relpath(placed(self.file), store.root.resolve())
        return {**plan.document(source), "asked": self.asked, "content": files.sha256(self.file)}

    def take_over(self, plan: Plan, store: Store, states: Mapping[str, State]) -> None:
        """Let a plan be the one that tables are made by, and record what it declares, where that is new, with how many
        of its runs (``states`` has all of them) had finished by then."""
        store.sweeps.save_plan(plan.sweep.name, self.document(plan, store))
        finished = sum(states[run].finished for run in plan.runs)
        store.sweeps.declare(plan.sweep.name, plan.declared(), finished)


def placed(file: Path) -> Path:
    """Where a sweep's file lies. A link to one stays itself: the study has its name, and what is beside it."""
    return file.parent.resolve() / file.name


def study(sweep: str, store: Store, **asked: Any) -> Study:
    """The study behind a path, a name under results, or the name of a shipped sweep, ``asked`` being fields of it.
    Raises InputError."""
    path = Path(sweep)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.exists() and (files.shipped("sweeps") / path.name).exists():
            expected = f"a sweep file; `deit-ablate init` writes {path.name} and the others that are shipped"
            raise InputError("no such file", where=sweep, expected=expected)
        return Study(path, **asked)
    known = store.sweeps.plan(sweep) if re.match(r"[A-Za-z0-9]", sweep) and "/" not in sweep else None
    if known is not None:
        before = {**known.get("asked", {}), "until_decided": bool(known.get("until_decided"))}
        file = source_of(store, known)
        if not file.exists():
            problem = f"its sweep file {known['source']} (seen from the results folder) is gone"
            command = shlex.join(["deit-ablate", "run", "PATH", *asked_options({**before, "name": sweep})])
            expected = f"its path, and where that has another name by now `{command}`"
            raise InputError(problem, where=sweep, expected=expected)
        now = before | {key: value for key, value in asked.items() if value}
        _refuse_replacing(sweep, before, now, takes=bool(now.get("name")) and now["name"] == before.get("name"))
        file = Path(os.path.relpath(file)) if not os.path.relpath(file).startswith("../../..") else file
        return Study(file, **now)
    built_in = files.shipped("sweeps") / f"{sweep}.yaml"
    if "/" not in sweep and built_in.exists():
        return Study(built_in, **asked)
    names = [*store.sweeps.names(), *(path.stem for path in files.shipped("sweeps").glob("*.yaml"))]
    expected = "a sweep file, or a name under the results folder"
    raise InputError(f"no sweep {sweep!r}{did_you_mean(sweep, names)}", expected=expected)


def _refuse_replacing(sweep: str, before: Mapping[str, Any], now: Mapping[str, Any], takes: bool) -> None:
    """Raises InputError where what is asked for ``now`` makes another study of a stored one, in whose folder it would
    be (``takes``), or without all that that was made with."""
    for key, option in (("profile", "--profile"), ("sets", "--set")):
        new, old = now.get(key) or (), before.get(key) or ()
        if new == old or (key == "sets" and assignments(new).plain() == assignments(old).plain()):
            continue
        if takes:
            given = shlex.join(asked_options({key: before.get(key)})) or f"no {option}"
            problem = f"{sweep} was made with {given}, and another study would take its folder"
            raise InputError(problem, where=option, expected="--name and another name beside it")
        if key == "sets" and old:
            problem = f"{sweep} was made with {' '.join(f'--set {each}' for each in old)}, which this would replace"
            raise InputError(problem, where=option, expected="the sweep file in place of the name, and all --set")


def execution_for(study: Study | None, base: Execution, given: Execution) -> Execution:
    """The study's execution with what the command line has ``given`` (``options.given_execution``).

    Raises InputError for an unknown executor or tracker, at the place where it is named.
    """
    execution = layered(base, given)
    if execution.program and execution.ranks > 1:
        raise InputError(ONE_RANK[0], where="--execution", key="ranks", expected=ONE_RANK[1])
    key = "executor"
    try:
        find_executor(execution.executor, ("--executor", 0, 0))
        key = "track"
        for tracker in execution.track:
            must_be_known(tracker, ("--execution", 0, 0), "execution.track")
    except InputError as error:
        if study is not None and getattr(execution, key) == getattr(base, key):
            node = load(study.file)
            named = node.get("execution") and node.locate(("execution", key))
            error.where = named or (f"profile {study.profile or node.plain().get('profile')}", 0, 0)
        raise
    return execution


def known_sweep(store: Store, sweep: str) -> str:
    """The name under the results folder: as given, or that of a sweep file's folder. Raises InputError."""
    name, names = by_name(sweep, store), store.sweeps.names()
    if name not in names:
        expected = "one of " + ", ".join(names) if names else "a sweep that was run"
        raise InputError(f"no sweep {sweep!r} in {store.root}{did_you_mean(name, names)}", expected=expected)
    return name


def states_of(store: Store, sweep: str) -> dict[str, State]:
    """Where the runs of a sweep's plan stand, corrected by the scheduler, as the store's index keeps it."""
    plan = store.sweeps.plan(sweep) or {"cells": [], "parents": {}}
    states = status.states(store, status.parents_first(plan), sweep, learn=True)
    store.index.keep()
    return {cell[3]: states[cell[3]] for cell in plan["cells"]}


def source_file(store: Store, sweep: str) -> Path | None:
    """The file of a sweep that was run, where it is still there."""
    file = source_of(store, store.sweeps.plan(sweep) or {})
    return file if file.is_file() else None


def hint_of_edits(store: Store, name: str) -> None:
    """Say on stderr in what a sweep's file differs by now from what its tables are made by, which only `run` takes
    over."""
    known, file = store.sweeps.sound_plan(name) or {}, source_file(store, name)
    if file is None or known.get("content") in (None, files.sha256(file)):
        return
    try:
        sweep = study(name, store).sweep(store)
    except InputError as error:
        print(f"note: the file has changed since it was last run, and is in error: {error}", file=sys.stderr)
        return
    facts = [
        ("margin", sweep.margin, known["margin"]),
        ("metric", sweep.metric.words, planned_metrics(known)[0].words),
        ("baseline", sweep.baseline, known["baseline"]),
    ]
    if sweep.search is None:  # whose rows are what it has found
        rows = (row["name"] for row in known["variants"])
        facts.append(("rows", ", ".join(row.name for row in sweep.variants), ", ".join(rows)))
    if changed := "; ".join(f"{key}: {now} there, {then} here" for key, now, then in facts if now != then):
        print(f"note: {file.name} has changed ({changed}); `deit-ablate run {name}` takes that over", file=sys.stderr)


def refuse_other_study(store: Store, plan: Plan, chosen: Study) -> None:
    """Raise InputError where the sweep's folder belongs to another file of the same name that still exists, or to
    another study of this one."""
    file = chosen.file
    try:
        before = store.sweeps.plan(plan.sweep.name)
    except Damaged as damage:
        print(f"{damage.path}: damaged: {damage.why}; it is written anew from {file}", file=sys.stderr)
        before = None
    if before is None:
        return
    other = source_of(store, before)
    if other.exists() and not os.path.samefile(other, file) and not same_content(file, other, store, plan.sweep.name):
        problem = f"{store.sweeps.folder(plan.sweep.name)} holds the sweep of {os.path.relpath(other)}"
        raise InputError(problem, where=str(file), expected="another file name, or --name")
    now = chosen.asked
    then = before.get("asked") or now  # what is brought from another store doesn't say
    if then.get("profile") or now["profile"]:  # that of the file, where it is not asked for
        then, now = then | {"profile": before["profile"]}, now | {"profile": plan.sweep.profile}
    _refuse_replacing(plan.sweep.name, then, now, takes=True)


def names_of(run: str, store: Store) -> list[str]:
    """Every sweep:variant:seed[:stage] under which a run is known."""
    plans = {sweep: store.sweeps.sound_plan(sweep) or {"cells": []} for sweep in store.sweeps.names()}
    return [
        f"{sweep}:{cell_name(*cell[:3])}" for sweep, plan in plans.items() for cell in plan["cells"] if cell[3] == run
    ]


def remember(chosen: Study, store: Store, runs: Iterable[str]) -> None:
    """Note in the user's cache which runs `plan` has shown, so that `train` and `show` know their ids."""
    about = {**chosen.asked, "file": str(placed(chosen.file)), "store": str(store.root.resolve())}
    name = hashlib.sha256(canonical_json(about).encode()).hexdigest()[:16]
    keep_in_cache(cache_folder() / "plans" / f"{name}.json", {**about, "runs": list(runs)}, MOST_PLANS)


def _shown(store: Store) -> Iterator[tuple[Study, list[str]]]:
    """The studies that `plan` has shown for this store, as they were given, and their runs."""
    for path in sorted((cache_folder() / "plans").glob("*.json")):
        with contextlib.suppress(OSError, Damaged, KeyError, TypeError):
            kept = files.read_json(path) or {}
            if kept["store"] == str(store.root.resolve()) and Path(kept["file"]).is_file():
                asked = {key: kept[key] for key in ("profile", "sets", "seeds", "name")}
                yield Study(Path(kept["file"]), **asked), kept["runs"]


def any_run(target: str, store: Store) -> str:
    """As ``one_run``; and the id of a run that `plan` has shown, of a sweep that was never run."""
    try:
        return one_run(target, store)
    except InputError:
        wanted = re.fullmatch(r"[0-9a-f]{4,16}", target) is not None
        found = {run for _, runs in _shown(store) if wanted for run in runs if run.startswith(target)}
        if len(found) != 1:
            raise
        return found.pop()


def known_runs(run: str, store: Store) -> dict[str, Run]:
    """A run with all that it stands on, as ``stored_runs``; of one that has not started, as its sweep file plans it."""
    for chosen in _studies_of(run, store) if store.recipe(run) is None else ():
        planned = chosen.plan(store).runs
        if run in planned:
            wanted = with_parents(planned, [run])
            return {each: planned[each] for each in planned if each in wanted}
    return stored_runs([run], store)


def _studies_of(run: str, store: Store) -> Iterator[Study]:
    """The studies that a run is of: that were run, then those that `plan` has shown."""
    if (sweep := planned_runs(store).get(run)) is not None:
        yield study(sweep, store)
    yield from (chosen for chosen, runs in _shown(store) if run in runs)


_planning: list[str] = []
"""Runs that are looked for now, each as the start of one of the plan in which the next is looked for."""


def finder(store: Store) -> Callable[[str], Mapping[str, Run]]:
    """What finds the run that ``model.init`` names (``Sweep.find_run``)."""

    @functools.cache
    def find(name: str) -> Mapping[str, Run]:
        if name in _planning:
            raise InputError(f"{name} starts from itself", expected="a run of another sweep, or a stage with `from`")
        _planning.append(name)
        try:
            run = one_run(name, store)
            runs = known_runs(run, store)
        finally:
            _planning.pop()
        if is_program(runs[run].recipe):
            raise InputError(f"{name} was trained by a program", expected="a run of our trainer, or a weights FILE")
        return {**{each: runs[each] for each in runs if each != run}, run: runs[run]}

    return find


def stored_runs(runs: Sequence[str], store: Store) -> dict[str, Run]:
    """Runs as the store has them, with all that they stand on, parents first."""
    result: dict[str, Run] = {}

    def add(run: str) -> None:
        if run in result:
            return
        if (stored := store.recipe(run)) is None:
            raise InputError(f"{run} has no recipe in {store.root}", expected="a run that was started once")
        for parent in stored["parents"].values():
            add(parent["run"])
        result[run] = Run(run, stored["recipe"], stored["parents"], stored["sources"])

    for run in runs:
        add(run)
    return result


def execution_alone(run: Run, store: Store) -> Execution:
    """How a run is executed that is named by itself: as the file of its sweep says, where a program trains it. Raises
    InputError where that is gone."""
    if not is_program(run.recipe):
        return Execution()
    names = dict.fromkeys(name.split(":")[0] for name in names_of(run.id, store))
    studies = [study(sweep, store) for sweep in names if source_file(store, sweep) is not None]
    for chosen in studies or (chosen for chosen, runs in _shown(store) if run.id in runs):
        plan = chosen.plan(store)
        if plan.sweep.execution.program is not None:
            own = plan.executions(plan.sweep.execution)
            return own[run.id] if run.id in plan.runs else plan.sweep.execution
        raise InputError("no program trains its runs any more", where=str(chosen.file), expected="its command")
    problem = f"nothing says where the program of {run.id} is and how its metrics are read"
    raise InputError(problem, expected="the file of its sweep, where it was when that was planned")


def dependents(run: str, store: Store) -> list[str]:
    """The runs that stand on this one, directly or not."""
    below: dict[str, list[str]] = {}
    for other in store.runs():
        for parent in (store.sound_recipe(other) or {"parents": {}})["parents"].values():
            below.setdefault(parent["run"], []).append(other)
    found, waiting = dict[str, None](), [run]
    while waiting:
        new = [other for other in sorted(below.get(waiting.pop(), [])) if other not in found]
        found |= dict.fromkeys(new)
        waiting += new
    return list(found)
