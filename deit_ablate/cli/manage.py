"""Commands that change what a store holds: cancel, release, forget, du, gc, keep, import."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from deit_ablate.cli import console, targets
from deit_ablate.cli.options import KnownSweep, Target, Yes
from deit_ablate.cli.targets import DEFAULT_RESULTS, Results, known_sweep, names_of, one_run
from deit_ablate.errors import Damaged, InputError, few
from deit_ablate.launch import control, status
from deit_ablate.report.declared import refuse_other_looks
from deit_ablate.store import cleanup
from deit_ablate.store.archive import import_records
from deit_ablate.store.archive import keep as keep_records


def cancel(target: Target, store: Results = DEFAULT_RESULTS) -> None:
    """Cancel runs that are not finished: running ones save and stop, the others are not started. `retry` lifts it."""
    target = targets.by_name(target, store)
    runs = targets.runs_of(target, store)
    if (store.sweeps.sound_plan(target) or {}).get("search"):
        store.sweeps.hold(target, "cancelled", "a user has cancelled it")
    for run, cancelled in control.cancel(store, runs):
        print(f"{run}: {'cancelled' if cancelled else 'finished already'}")


def release(run: Target, store: Results = DEFAULT_RESULTS, yes: Yes = False) -> None:
    """Declare that a run's last attempt is over, where nobody can prove it: its machine is gone for good."""
    found = one_run(run, store)
    last = control.open_attempt(store, found)
    if last is not None and not yes:
        try:
            where = f"{last.owner.get('host')} (pid {last.owner.get('pid')})"
        except Damaged as damage:
            where = f"whatever machine it was ({damage})"
        typer.confirm(f"Attempt {last.number} on {where} will do no more work. Sure?", abort=True)
    released = control.release(store, found)
    if released is None:
        raise InputError(f"no attempt at {run} is open", expected="a run that shows as running or submitted")
    if released == "attempt":
        print(f"{found}: released; `deit-ablate run` goes on with it")
    else:
        print(f"{found}: what was submitted for it no longer counts; `deit-ablate run` submits it again")


def forget(
    run: Target,
    store: Results = DEFAULT_RESULTS,
    with_dependents: Annotated[
        bool, typer.Option("--with-dependents", help="Forget the runs that depend on it as well.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Move a run to the store's trash, so that it is trained again; `gc` empties the trash."""
    found = one_run(run, store)
    if not store.run(found).exists():
        raise InputError(f"{run} has not started yet", expected="a run with a folder")
    below = targets.dependents(found, store)
    if below:
        what = "are forgotten too" if with_dependents else "keep their results"
        print(f"{len(below)} runs depend on it, and {what}:")
        for other in below:
            print(f"  {other}  {', '.join(names_of(other, store))}")
    if not yes:
        typer.confirm(f"Forget {found} ({', '.join(names_of(found, store))})?", abort=True)
    forgotten = [*(reversed(below) if with_dependents else []), found]
    control.forget(store, forgotten)
    for each in forgotten:
        print(f"{each}: forgotten")


def accept(sweep: KnownSweep, store: Results = DEFAULT_RESULTS, yes: Yes = False) -> None:
    """Use a sweep's finished runs though code of your own has changed since: you declare that the change is cosmetic.

    Of modules of your own and of a program's sources alone: where a recipe, data or a lock file changed, it is another
    training. Who accepted what is kept, and said in `show`, tables and reports; records are not changed.
    """
    name = known_sweep(store, sweep)
    chosen = targets.study(name, store)
    used = dict[str, dict[str, Any]]()
    while more := status.acceptable(store, plan := replace(chosen, accepting=used).plan(store)):
        used |= more  # and once more: the next stage's runs are planned from these
    refuse_other_looks(plan, store)
    if not used:
        changed_in = few(list(status.what_changed(store, plan)), 5)
        expected = "runs that were finished, and are missing since code of your own changed"
        expected += f", not in {changed_in}" if changed_in else ""
        raise InputError("no finished run of it differs in its code alone", where=name, expected=expected)
    labels = plan.labels()
    changed = sorted({(source, *pair) for each in used.values() for source, pair in each["sources"].items()}, key=str)
    for source, before, after in changed:
        console.say(f"{source}: {(before or 'none')[:12]} -> {(after or 'none')[:12]}")
    console.say(f"{len(used)} finished runs of {name}: {', '.join(labels[each['run']] for each in used.values())}")
    if not yes:
        typer.confirm("Does this change of code leave what they computed as it is?", abort=True)
    store.sweeps.accept(name, used)
    plan = chosen.plan(store)
    chosen.take_over(plan, store, status.states(store, plan.parents, name))
    print(f"accepted; `deit-ablate plan {name}` says what is left to do")


def du(store: Results = DEFAULT_RESULTS) -> None:
    """Show what the store takes on disk, by sweep; a run that sweeps share counts once in the total."""
    sizes = {run: cleanup.size(store, run) for run in store.runs()}
    rows = [("sweep", "runs", "size", "files")]

    def add(name: str, runs: Collection[str]) -> None:
        size, count = (sum(sizes[run][part] for run in runs) for part in (0, 1))
        rows.append((name, str(len(runs)), console.size(size), str(count)))

    for sweep in store.sweeps.names():
        plan = store.sweeps.sound_plan(sweep)
        if plan is None:
            rows.append((sweep, "damaged plan.json", "", ""))
        else:
            add(sweep, {cell[3] for cell in plan["cells"]} & sizes.keys())
    add("all runs", sizes)
    trash = sum(path.lstat().st_size for path in cleanup.trash(store))
    rows.append(("trash", "", console.size(trash), ""))
    kept = cleanup.cache(store)
    rows.append(("cache", "", console.size(sum(path.lstat().st_size for path in kept)), str(len(kept))))
    print("\n".join(console.columns(rows)))


def gc(
    keep: Annotated[
        Literal["final", "none", "all"], typer.Option("--keep", help="Checkpoints of finished runs.")
    ] = "final",
    store: Results = DEFAULT_RESULTS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be freed.")] = False,
) -> None:
    """Remove checkpoints that finished runs no longer need, and empty trash and cache. Results are never touched."""
    if not dry_run:
        store.trash()  # what cannot be emptied is said before anything is removed
    trash = cleanup.trash(store)
    freed, count = sum(path.lstat().st_size for path in trash), len(trash)
    unneeded = (path for run in sorted(store.runs()) for path in cleanup.disposable(store, run, keep))
    for path in itertools.chain(unneeded, cleanup.cache(store)):
        freed, count = freed + path.lstat().st_size, count + 1
        if not dry_run:
            path.unlink(missing_ok=True)
    if not dry_run:
        cleanup.empty_trash(store)
    print(f"{'would free' if dry_run else 'freed'} {console.size(freed)} in {count} files")


def keep(
    sweep: KnownSweep,
    to: Annotated[
        Path | None, typer.Option("--to", help="The folder; by default reference/<sweep> under results.")
    ] = None,
    store: Results = DEFAULT_RESULTS,
) -> None:
    """Write a sweep's records, curves and predictions (no checkpoints) to be kept, with a manifest of their hashes.

    Copies of the table and the figures that its folder has are put beside them; `table` and `figure` write those.
    """
    sweep = known_sweep(store, sweep)
    folder = to or store.root / "reference" / sweep
    print(f"{folder}: {keep_records(store, sweep, folder)} runs")


def import_(
    folder: Annotated[Path, typer.Argument(help="A results folder, or one that `keep` wrote.")],
    store: Results = DEFAULT_RESULTS,
) -> None:
    """Merge another store, or kept records, into this one: whole or, where anything in it is damaged, not at all.

    Results that stand are never changed, and links are not followed. A result takes the place of a run that has none
    here, which goes to the trash, unless it may be running.
    """
    brought = import_records(folder, store)
    busy = f", {brought.busy} may be running here and stay as they are" if brought.busy else ""
    print(f"{brought.new} runs imported, {brought.known} were here already{busy}")
