"""The command that hands a sweep's records on: as a table, or to an experiment tracker."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from deit_ablate.cli import console
from deit_ablate.cli.options import KnownSweep
from deit_ablate.cli.targets import DEFAULT_RESULTS, Results, known_sweep, states_of
from deit_ablate.errors import InputError
from deit_ablate.report.trackers.exporters import EXPORTERS, Destination, Sending, exporter_class, must_be_known
from deit_ablate.report.trackers.runs import points, scores, tracked_runs
from deit_ablate.store import Store


def export(
    sweep: KnownSweep,
    format_: Annotated[
        Literal["csv", "jsonl", "parquet"] | None,
        typer.Option("--format", help="By default csv; parquet needs pyarrow."),
    ] = None,
    curves: Annotated[bool, typer.Option("--curves", help="One row a run and epoch instead of one a run.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; standard output without it.")] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="TRACKER", help=f"A tracker instead: {', '.join(EXPORTERS)}.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Of a tracker: the folder; results/SWEEP/TRACKER without it.")
    ] = None,
    uri: Annotated[
        str | None, typer.Option("--uri", help="Of mlflow: a server or database, such as http://host:5000.")
    ] = None,
    project: Annotated[
        str | None, typer.Option("--project", help="Of a tracker: the project or experiment, for the sweep's name.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Of wandb: write files for `wandb sync`.")] = False,
    store: Results = DEFAULT_RESULTS,
) -> None:
    """Write a sweep's records as one table: metrics, recipe, provenance, state; a row a run. With --to: send its runs
    to an experiment tracker, each once, however often this is repeated."""
    sweep = known_sweep(store, sweep)
    of_table = {"--format": format_, "--curves": curves, "--output": output}
    of_tracker: dict[str, Any] = {"folder": folder, "uri": uri, "project": project, "offline": offline}
    if to is not None:
        must_be_known(to, ("--to", 0, 0))
        if given := [option for option, value in of_table.items() if value]:
            raise InputError("only of a table", where=given[0], expected="--to without it")
        for option, value in of_tracker.items():
            if value and option not in exporter_class(to).options:
                raise InputError(f"{to} has no such option", where=_option(option))
        if folder and uri:
            raise InputError("both name the place", where="--dir", expected="--dir or --uri")
        _send(store, sweep, to, Destination(sweep, store.sweeps.folder(sweep) / to, **of_tracker))
        return
    if given := [option for option, value in of_tracker.items() if value]:
        raise InputError("only of a tracker", where=_option(given[0]), expected="--to TRACKER with it")
    _write_table(store.root, sweep, format_ or "csv", curves=curves, output=output)


def _option(name: str) -> str:
    return "--dir" if name == "folder" else f"--{name}"


def _send(store: Store, sweep: str, tracker: str, to: Destination) -> None:
    plan = store.sweeps.plan(sweep) or {"cells": []}
    runs = tracked_runs(store, plan)
    states = states_of(store, sweep)
    recorded = {run.id: points(store, run) for run in runs.values()}
    sent = [run for run in runs.values() if recorded[run.id] or states[run.id].finished]
    if not sent:
        expected = f"a sweep of which a run has finished an epoch (`deit-ablate status {sweep}`)"
        raise InputError(f"{sweep} has no results yet", where="--to", expected=expected)
    sending = Sending(tracker, to)
    for run in sent:
        sending.send(run, recorded[run.id])
        sending.end(run, states[run.id], scores(store, run, recorded[run.id]))
    console.say(f"{len(sent)} runs of {sweep} are in {tracker}: {sending.close()}")


def _write_table(results: Path, sweep: str, format_: str, *, curves: bool, output: Path | None) -> None:
    if format_ == "parquet" and output is None:
        raise InputError("parquet is not for a terminal", where="--format", expected="--output FILE")
    from deit_ablate.report.frame import load, load_curves
    from deit_ablate.report.tables.render import escape_csv

    frame = (load_curves if curves else load)(results, sweep).astype({"variant": "string", "stage": "string"})
    if format_ == "parquet":
        try:
            frame.to_parquet(output)
        except ImportError:
            expected = "`pip install pyarrow`, or csv or jsonl"
            raise InputError(
                "parquet needs pyarrow, which is not installed", where="--format", expected=expected
            ) from None
        return
    if format_ == "csv":
        texts: list[Any] = list(frame.select_dtypes("string").columns)
        safe = frame.assign(**{name: frame[name].map(escape_csv, na_action="ignore") for name in texts})
        text = safe.to_csv(index=False, lineterminator="\n")
    else:
        text = frame.to_json(orient="records", lines=True, double_precision=15, force_ascii=False)
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8", newline="\n")
