"""Commands that change what is kept: cancel, release, forget, du, gc; and init, schema."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from deit_ablate import shipped
from deit_ablate.cli import console
from deit_ablate.cli.cluster import cancel as cancel_jobs
from deit_ablate.cli.cluster import release as release_submissions
from deit_ablate.cli.targets import DEFAULT_RESULTS, Results, dependents, names_of, one_run, runs_of
from deit_ablate.errors import InputError
from deit_ablate.store import Refused, Store, owner
from deit_ablate.store.archive import bring
from deit_ablate.store.archive import keep as keep_records

Target = Annotated[str, typer.Argument(help="A sweep, sweep:variant, sweep:variant:seed[:stage], or a run's id.")]


def cancel(target: Target, results: Results = DEFAULT_RESULTS) -> None:
    """Cancel runs that are not finished: running ones save and stop, the others are not started. `retry` lifts it."""
    store = Store(results)
    runs = runs_of(target, store)
    if (store.plan(target) or {}).get("search"):
        store.hold(target, "cancelled", "a user has cancelled it")
    for run in runs:
        if store.outcome(run):
            print(f"{run}: finished already")
            continue
        store.cancel(run)
        last = store.attempts(run)[-1:]
        if last and last[0].exit is None and owner.same_place(last[0].owner) and not owner.provably_gone(last[0].owner):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(last[0].owner["pid"], signal.SIGTERM)
        print(f"{run}: cancelled")
    cancel_jobs(store, [run for run in runs if not store.outcome(run)])


def release(
    run: Target,
    results: Results = DEFAULT_RESULTS,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Say that a run's last attempt is over, where nobody can prove it: its machine is gone for good."""
    store = Store(results)
    found = one_run(run, store)
    attempts = store.attempts(found)
    if not attempts or attempts[-1].exit is not None:
        if release_submissions(store, found):
            print(f"{found}: what was submitted for it no longer counts; `deit-ablate run` submits it again")
            return
        raise InputError(f"no attempt at {run} is open", expected="a run that shows as running or submitted")
    last = attempts[-1]
    if owner.same_place(last.owner) and not owner.provably_gone(last.owner):
        raise InputError(
            f"process {last.owner['pid']} is alive on this machine",
            where=(run, 0, 0),
            expected="`deit-ablate cancel`, or to end it first",
        )
    if not yes:
        typer.confirm(
            f"Attempt {last.number} on {last.owner.get('host')} (pid {last.owner.get('pid')}) will do no more work. Sure?",
            abort=True,
        )
    last.close("released", "a user said that it is over")
    release_submissions(store, found)
    print(f"{found}: released; `deit-ablate run` goes on with it")


def forget(
    run: Target,
    results: Results = DEFAULT_RESULTS,
    with_dependents: Annotated[
        bool, typer.Option("--with-dependents", help="Forget what stands on it as well.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Move a run to the store's trash, so that it is trained again; `gc` empties the trash."""
    store = Store(results)
    found = one_run(run, store)
    if not store.run(found).exists():
        raise InputError(f"{run} has not started yet", expected="a run with a folder")
    below = dependents(found, store)
    if below:
        print(f"{len(below)} runs stand on it, and {'are forgotten too' if with_dependents else 'keep their results'}:")
        for other in below:
            print(f"  {other}  {', '.join(names_of(other, store))}")
    if not yes:
        typer.confirm(f"Forget {found} ({', '.join(names_of(found, store))})?", abort=True)
    doomed = [*(reversed(below) if with_dependents else []), found]
    for each in doomed:
        if not store.proven_over(each):
            raise InputError(
                f"{each}: an attempt at it may still be alive", expected="`deit-ablate cancel` first, or to wait"
            )
    for each in doomed:
        try:
            store.forget(each)
        except Refused as refusal:
            raise InputError(f"{each}: {refusal}", expected="`deit-ablate cancel` first, or to wait") from None
        print(f"{each}: forgotten")


def du(results: Results = DEFAULT_RESULTS) -> None:
    """Show what the store takes on disk, by sweep; a run that sweeps share counts once in the total."""
    store = Store(results)
    sizes = {run: store.size(run) for run in store.runs()}
    rows = [("sweep", "runs", "size", "files")]
    for sweep in store.sweeps():
        own = {cell[3] for cell in (store.plan(sweep) or {"cells": []})["cells"]} & sizes.keys()
        rows.append(
            (
                sweep,
                str(len(own)),
                console.size(sum(sizes[run][0] for run in own)),
                str(sum(sizes[run][1] for run in own)),
            )
        )
    rows.append(
        (
            "all runs",
            str(len(sizes)),
            console.size(sum(s for s, _ in sizes.values())),
            str(sum(n for _, n in sizes.values())),
        )
    )
    trash = sum(path.lstat().st_size for path in store.trash())
    rows.append(("trash", "", console.size(trash), ""))
    print("\n".join(console.columns(rows)))


def gc(
    keep: Annotated[str, typer.Option("--keep", help="Checkpoints of finished runs: final, none or all.")] = "final",
    results: Results = DEFAULT_RESULTS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be freed.")] = False,
) -> None:
    """Remove checkpoints that finished runs no longer need, and empty the trash. Results are never touched."""
    if keep not in ("final", "none", "all"):
        raise InputError(f"got {keep!r}", where=("--keep", 0, 0), expected="final, none or all")
    store = Store(results)
    trash = store.trash()
    freed, count = sum(path.lstat().st_size for path in trash), len(trash)
    for run in sorted(store.runs()):
        for path in store.disposable(run, keep):
            freed, count = freed + path.lstat().st_size, count + 1
            if not dry_run:
                path.unlink(missing_ok=True)
    if not dry_run:
        store.empty_trash()
    print(f"{'would free' if dry_run else 'freed'} {console.size(freed)} in {count} files")


def keep(
    sweep: Annotated[str, typer.Argument(help="A sweep's name under the results folder.")],
    to: Annotated[
        Path | None, typer.Option("--to", help="The folder; by default reference/<sweep> under results.")
    ] = None,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Write a sweep's records, curves and predictions (no checkpoints), its table and its figures, to be kept."""
    store = Store(results)
    folder = to or store.root / "reference" / sweep
    print(f"{folder}: {keep_records(store, sweep, folder)} runs")


def import_(
    folder: Annotated[Path, typer.Argument(help="A results folder, or one that `keep` wrote.")],
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Merge another store, or kept records, into this one; what stands is never changed."""
    new, known = bring(folder, Store(results))
    print(f"{new} runs brought, {known} were here already")


def init(folder: Annotated[Path, typer.Argument(help="Where to write sweeps/ and analysis/.")] = Path(".")) -> None:
    """Write the shipped sweeps and analyses out, to be edited. Files that exist are left as they are."""
    for name in ("sweeps", "analysis"):
        source = shipped.folder(name)
        for path in sorted(source.rglob("*")):
            if not path.is_file() or "__pycache__" in path.parts:
                continue
            target = folder / name / path.relative_to(source)
            if target.exists():
                print(f"{target}: exists, left as it is", file=sys.stderr)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            print(target)


def schema(kind: Annotated[str, typer.Argument(help="sweep, profile or recipe.")] = "sweep") -> None:
    """Print the JSON Schema of sweep files, by which an editor completes and checks them."""
    from deit_ablate.sweep.schema import SCHEMAS

    if kind not in SCHEMAS:
        raise InputError(f"got {kind!r}", where=("schema", 0, 0), expected=", ".join(SCHEMAS))
    print(json.dumps(SCHEMAS[kind](), indent=1))
