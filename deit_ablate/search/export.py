"""What a search has found: the winner of a row, its recipe, and where it comes from. It is a profile; of a program,
which has none, its parameters, to be pasted into the sweep file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from deit_ablate.errors import InputError, unknown_name
from deit_ablate.program import is_program
from deit_ablate.search.trials import TRIAL, Trial, best, read_trials
from deit_ablate.store import Store
from deit_ablate.sweep.confounds import value_words


@dataclass(frozen=True)
class Export:
    """A profile that holds a winner's recipe, or the ``parameters:`` of a program's. ``comments`` tell of the search,
    a line each."""

    comments: list[str]
    profile: dict[str, Any]
    confirmed: bool

    def yaml(self) -> str:
        return yaml.safe_dump(self.profile, sort_keys=False, default_flow_style=None)


def export(store: Store, plan: Mapping[str, Any], row: str = "") -> Export:
    """The winner of a row of a search's plan.json (which may have one row alone). Raises InputError."""
    trial, confirmed = find_winner(store, plan, row)
    # Of a trial with stages, what was searched holds from the first one that it trains.
    first = next(run for _, number, stage, run in plan["cells"] if number == trial.number and stage.startswith(TRIAL))
    stored = store.recipe(first) or {}
    name = plan["sweep"]
    found = _found(stored["recipe"], plan, f"Found by the search {name} ({trial.row})")
    how = "confirmed" if confirmed else "not confirmed: `deit-ablate run SWEEP --confirm` measures its optimism"
    comments = [
        f"Trial {trial.number} of {name} ({trial.row}), run {trial.run}; {how}",
        *(f"  {key}: {value_words(value)}" for key, value in trial.params.items()),
        *(f"It depends on another run ({role}): a sweep of it needs that stage." for role in stored["parents"]),
    ]
    if first != trial.run:
        comments.append("It is the first of several stages; the later ones are in the sweep file.")
    if "recipe" not in found:
        comments.append("For the sweep file, over its own `parameters:`; a program has no profiles.")
    comments = [" ".join(line.splitlines()) for line in comments]  # a value may have line breaks
    return Export(comments, found, confirmed)


def _found(recipe: Mapping[str, Any], plan: Mapping[str, Any], title: str) -> dict[str, Any]:
    """What another sweep takes of a winner's recipe. A recipe spells 1.0 as 1; a default that does is a whole number,
    and would refuse 0.5 in a row."""
    if is_program(recipe):
        return {"parameters": _declared(recipe["parameters"], (plan.get("program") or {}).get("numbers", ()))}
    own = {key: value for key, value in recipe.items() if key != "seed"}
    own["data"] = {key: value for key, value in own["data"].items() if key != "test"}
    return {"title": title, "recipe": own}


def _declared(values: Mapping[str, Any], numbers: Collection[str], above: str = "") -> dict[str, Any]:
    """Parameters, those of these (dotted) names as floating-point numbers."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found[key] = _declared(value, numbers, f"{above}{key}.")
        else:
            found[key] = float(value) if above + key in numbers and value is not None else value
    return found


def find_winner(store: Store, plan: Mapping[str, Any], row: str = "") -> tuple[Trial, bool]:
    """The winner of a row (or a trial of a front of two objectives), and whether it is confirmed. Raises InputError."""
    search, trials = plan["search"], read_trials(store, plan)
    winners = search["winners"]
    names = list(winners) if len(search["objectives"]) > 1 and winners else list(search["spaces"])
    if not row and len(names) > 1:
        expected = f"`search export {plan['sweep']}:ROW`, with one of {', '.join(names)}"
        raise InputError(f"{plan['sweep']} has several rows", expected=expected)
    row = row or names[0]
    if row not in names:
        raise unknown_name("no row", row, names)
    if row in winners:
        return next(trial for trial in trials if trial.number == winners[row]), True
    found = best([trial for trial in trials if trial.row == row], search["objectives"], 1)
    if not found:
        expected = "one that is done, neither pruned nor diverged nor failed"
        raise InputError(f"no trial of {row!r} has a value", expected=expected)
    return found[0], False
