"""What a search has found, as a file: search export."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
import yaml

from deit_ablate.cli import console
from deit_ablate.cli.targets import DEFAULT_RESULTS, Results, known_sweep
from deit_ablate.errors import InputError, did_you_mean
from deit_ablate.search.trials import Trial, best, read_trials
from deit_ablate.store import Store


def search(
    action: Annotated[str, typer.Argument(help="export", metavar="export")],
    sweep: Annotated[str, typer.Argument(help="A sweep that has searched, or sweep:row.")],
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Write the winner of a search as a profile: `deit-ablate search export SWEEP > sweeps/profiles/tuned.yaml`.

    A sweep file beside it then says `profile: tuned`, with the stages that the search had; `deit-ablate train` takes the
    file as it is, but for a student's, whose teacher is a stage. The winner is the
    confirmed one; of a search that is not confirmed the best trial, which flatters.
    """
    if action != "export":
        raise InputError(f"got {action!r}", where=("search", 0, 0), expected="export")
    store = Store(results)
    name, _, row = sweep.partition(":")
    plan = store.sweeps.plan(known_sweep(store, name)) or {}
    if "search" not in plan:
        raise InputError(f"{name} has no search", where=(sweep, 0, 0), expected="a sweep with a `search:` block")
    trial, confirmed = _found(store, plan, row)
    # Of a trial with stages, what was searched holds from the first one that it trains.
    first = next(run for row_, n, stage, run in plan["cells"] if n == trial.number and stage.startswith("trial"))
    stored = store.recipe(first) or {}
    recipe: dict[str, Any] = {**stored["recipe"]}
    recipe["data"] = {key: value for key, value in recipe["data"].items() if key != "test"}
    del recipe["seed"]
    how = "confirmed" if confirmed else "not confirmed: `deit-ablate run SWEEP --confirm` tells how much it flatters"
    lines = [
        f"# Trial {trial.number} of {name} ({trial.row}), run {trial.run}; {how}",
        *(f"#   {key}: {console.show_value(value)}" for key, value in trial.params.items()),
        *(
            f"# It stands on another run ({role}): a sweep of this profile needs that stage."
            for role in stored["parents"]
        ),
        *(
            ["# It is the first of several stages; the later ones stand in the sweep file."]
            if first != trial.run
            else []
        ),
    ]
    print("\n".join(map(console.plain, lines)))
    title = f"Found by the search {name} ({trial.row})"
    print(yaml.safe_dump({"title": title, "recipe": recipe}, sort_keys=False, default_flow_style=None), end="")
    if not confirmed:
        print("note: this trial is not confirmed", file=sys.stderr)


def _found(store: Store, plan: dict[str, Any], row: str) -> tuple[Trial, bool]:
    """The winner of a row (or the trial of a two-objective front), and whether it is confirmed. Raises InputError."""
    search, trials = plan["search"], read_trials(store, plan)
    winners = search["winners"]
    names = list(winners) if len(search["objectives"]) > 1 and winners else list(search["spaces"])
    if not row and len(names) > 1:
        raise InputError(
            f"{plan['sweep']} has several rows",
            expected=f"`search export {plan['sweep']}:ROW`, with one of {', '.join(names)}",
        )
    row = row or names[0]
    if row not in names:
        raise InputError(f"no row {row!r}{did_you_mean(row, names)}", expected="one of " + ", ".join(names))
    if row in winners:
        return next(trial for trial in trials if trial.number == winners[row]), True
    found = best([trial for trial in trials if trial.row == row], search["objectives"], 1)
    if not found:
        raise InputError(
            f"no trial of {row!r} has a value", expected="one that is done, neither pruned nor diverged nor failed"
        )
    return found[0], False
