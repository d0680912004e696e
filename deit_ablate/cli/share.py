"""Commands that share a study, and train what was shared anew: bundle, reproduce."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from deit_ablate import __version__
from deit_ablate.cli import console
from deit_ablate.cli.foreground import train_one
from deit_ablate.cli.options import DataDir, Device, ExecutionSets, Json, Loaders, given_execution
from deit_ablate.cli.targets import DEFAULT_RESULTS, Results, by_name, known_sweep, runs_of, source_file, stored_runs
from deit_ablate.errors import InputError, counted, few
from deit_ablate.execution import SAVED, Execution, layered
from deit_ablate.launch import reproduce as anew
from deit_ablate.store import Store
from deit_ablate.store import bundle as bundles
from deit_ablate.sweep.enumeration import cell_name


def bundle(
    target: Annotated[
        str, typer.Argument(metavar="SWEEP[:ROW]", help="A sweep's name, or its file; or one row of it.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new folder, or a new .zip; bundle-SWEEP without it.")
    ] = None,
    weights: Annotated[
        bool, typer.Option("--weights", help="Take weights files that recipes name along, whatever their size.")
    ] = False,
    store: Results = DEFAULT_RESULTS,
) -> None:
    """Write what others need to train a cell of a table anew: records, recipes, code, versions, and a Makefile.

    A row goes along with its baseline. Weights files that recipes name are taken along up to 100 MB together.
    """
    name, _, row = by_name(target, store).partition(":")
    sweep = known_sweep(store, name)
    from deit_ablate.report.bundle import Wanted, bundle_name, write_bundle

    wanted = Wanted(store, sweep, row or None, source_file(store, sweep), weights)
    folder = output or Path(bundle_name(sweep, row or None))
    made = write_bundle(wanted, folder)
    for warning in made.warnings:
        console.say(f"warning: {warning}", out=sys.stderr)
    console.say(f"{folder}: {counted(made.runs, 'run')}; `make reproduce` in it trains one of them anew")


def reproduce(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder or .zip that `bundle` wrote.")],
    run: Annotated[
        str | None,
        typer.Option("--run", help="row:seed[:stage] or an id; without it the done run that took least time."),
    ] = None,
    results: Annotated[Path, typer.Option("--results", help="Folder in which the run is trained.")] = Path(
        "reproduced"
    ),
    file: Annotated[
        list[Path] | None, typer.Option("--file", help="A weights file that the bundle names and does not hold.")
    ] = None,
    device: Device = None,
    data_dir: DataDir = None,
    loaders: Loaders = None,
    execution: ExecutionSets = None,
    json_: Json = False,
) -> None:
    """Train one run of a bundle anew, and say whether it is the one on record.

    Exit code 0: the same bits, or in the row's 95% prediction interval for one more seed. 1: not reproduced. 75: saved;
    the same command goes on.
    """
    out = sys.stderr if json_ else sys.stdout
    with bundles.opened(path) as given:
        chosen = _chosen(given, path, run)
        store, recorded = Store(results), given.store.outcome(chosen) or {}
        lineage = anew.prepare(given, chosen, store, file or ())
        if (version := given.manifest["version"]) != __version__:
            print(f"made with deit-ablate {version}; this is {__version__}, in which recipes mean the same", file=out)
        for each in lineage:
            base = anew.recorded_execution(given.store.outcome(each) or {})
            base = anew.with_program(base, given, given.folder / "sources", required=each == chosen)
            how = layered(base, given_execution(execution, device=device, data_dir=data_dir, loaders=loaders))
            _train(each, store, how, out)
        from deit_ablate.report.reproduced import compare, differences

        sys.path.insert(0, str(given.folder / "sources"))  # a metric of one's own
        answer = compare(given.store, store, given.sweep, chosen)
        changed = differences(recorded, store.outcome(chosen) or {})
    if changed and answer.verdict != "same bits":
        console.say("made with: " + ", ".join(changed), out=out)
    if json_:
        values = {key: console.json_value(value) for key, value in vars(answer).items()}
        print(json.dumps({"run": chosen, "reproduced": answer.reproduced, **values, "made_with": changed}))
    else:
        console.say(answer.words())
    raise typer.Exit(0 if answer.reproduced else 1)


def _chosen(given: bundles.Bundle, path: Path, name: str | None) -> str:
    """The run that is trained anew. Raises InputError where the bundle has none of this name that is done."""
    if name is None:
        return str(given.manifest["run"])
    found: list[str] = []
    for target in (f"{given.sweep}:{name}", name):
        with contextlib.suppress(InputError):
            found = found or runs_of(target, given.store)
    chosen = bundles.quickest(given.store, found)
    if chosen is None:
        cells = (given.store.sweeps.plan(given.sweep) or {"cells": []})["cells"]
        done = [cell for cell in cells if (given.store.result(cell[3]) or {}).get("status") == "done"]
        listed = few([cell_name(*cell[:3]) for cell in done], 20)
        raise InputError(f"no run {name!r} that is done", where=str(path), key="--run", expected=listed)
    return chosen


def _train(run: str, store: Store, how: Execution, out: Any) -> None:
    """Train a run to its end, unless it was; leaves with the exit code where it does not get there."""
    if store.outcome(run) is not None:
        print(f"run {run} was trained already", file=out)
        return
    runs = stored_runs([run], store)
    code = train_one(runs[run], runs, store, how, out)
    if code == SAVED:
        print(f"{run} is saved, or in another process's hands: the same command goes on", file=sys.stderr)
        raise typer.Exit(SAVED)
    if code:
        console.say(f"not reproduced: {run} could not be trained (exit code {code})")
        raise typer.Exit(1)
