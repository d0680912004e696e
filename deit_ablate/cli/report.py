"""The command that writes what people read: report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from deit_ablate.cli import console
from deit_ablate.cli.targets import DEFAULT_RESULTS, Results, known_sweep
from deit_ablate.errors import InputError
from deit_ablate.store import Store


def report(
    sweep: Annotated[str | None, typer.Argument(help="A sweep's name under the results folder.")] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="An index over all sweeps; writes their missing and older reports.")
    ] = False,
    redact: Annotated[
        bool,
        typer.Option("--redact", help="Leave out hosts, accounts, user names, absolute paths and uncommitted changes."),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file; results/SWEEP/report.html without it.")
    ] = None,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Write a sweep as one HTML file that needs nothing else: findings in words, table, figures, provenance."""
    if all_ == (sweep is not None):
        raise InputError("what is to be reported?", expected="a sweep's name, or --all")
    if all_ and output is not None:
        raise InputError(
            "--all writes into the results folder", where=("--output", 0, 0), expected="--output with a sweep"
        )
    store = Store(results)
    if sweep is not None:
        name = known_sweep(store, sweep)
        from deit_ablate.report.html import write_page
        from deit_ablate.report.summary import summarize

        print(console.plain(str(write_page(summarize(store, name), redact=redact, output=output))))
        return
    if not store.sweeps.names():
        raise InputError(f"no sweeps in {results}", expected="a results folder with a sweep that was run")
    from deit_ablate.report.html import write_index

    written = write_index(store, redact=redact)
    for path in (*written.pages, written.index):
        print(console.plain(str(path)))
    for name, why in written.unreadable.items():
        print(f"error: {console.plain(name)} cannot be read: {console.plain(why)}", file=sys.stderr)
    if written.unreadable:
        raise typer.Exit(1)
