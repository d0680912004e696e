"""What a search has found, as a file: search export."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from deit_ablate.cli import console
from deit_ablate.cli.targets import DEFAULT_RESULTS, Results, known_sweep
from deit_ablate.errors import InputError
from deit_ablate.search.export import export
from deit_ablate.store import Store


def search(
    action: Annotated[str, typer.Argument(help="export", metavar="export")],
    sweep: Annotated[str, typer.Argument(help="A sweep that has searched, or sweep:row.")],
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Write the winner of a search as a profile: `deit-ablate search export SWEEP > sweeps/profiles/tuned.yaml`.

    A sweep file beside it then says `profile: tuned`, with the stages that the search had; `deit-ablate train` takes
    the file as it is, except for a student's, whose teacher is a stage. The winner is the confirmed one; of a search
    that is not confirmed the best trial, whose value is optimistic (selection bias).
    """
    if action != "export":
        raise InputError(f"got {action!r}", where=("search", 0, 0), expected="export")
    store = Store(results)
    name, _, row = sweep.partition(":")
    plan = store.sweeps.plan(known_sweep(store, name)) or {}
    if "search" not in plan:
        raise InputError(f"{name} has no search", where=(sweep, 0, 0), expected="a sweep with a `search:` block")
    found = export(store, plan, row)
    for line in found.comments:
        print(f"# {console.plain(line)}")
    print(found.yaml(), end="")
    if not found.confirmed:
        print("note: this trial is not confirmed", file=sys.stderr)
