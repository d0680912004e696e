"""What a search found: its best trials, how they fared on fresh seeds, and what of the winners was confirmed.

All figures by which a search chooses are of the validation part. Imports pandas, not Optuna.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from deit_ablate.identity import canonical_json
from deit_ablate.report.frame import final_stage
from deit_ablate.report.stats.exact import Interval, mean_interval
from deit_ablate.report.stats.power import confirmed_words, optimism
from deit_ablate.report.summary import Summary
from deit_ablate.report.tables.table import NOTHING, Column, Table, measure, study_title, unique
from deit_ablate.search.trials import Trial, best, measured, read_trials
from deit_ablate.store import Store
from deit_ablate.sweep.confounds import value_words
from deit_ablate.sweep.labels import labels_of
from deit_ablate.sweep.metrics import TOP1, Metric

SHOWN = 10
"""The best trials of a row that the table shows."""
UNITS = {
    "top1": "validation top-1 (%)",
    "loss": "validation loss",
    "highest": "validation metric",
    "lowest": "validation metric",
    "throughput": "inference (images/s)",
    "parameters": "parameters",
    "flops": "FLOPs an image",
}
"""Objective -> how columns and axes name it."""
DIGITS = {"top1": 2, "loss": 3, "highest": 4, "lowest": 4}
"""Digits after the point; of counts and speeds none."""


@dataclass(frozen=True)
class Found:
    """A row of a search: its trials, and what came of them."""

    row: str
    trials: list[Trial]
    shown: list[Trial]
    """The best ones, best first, and any winner that is not among them."""
    fresh: Mapping[int, list[float]]
    """Trial number -> its values (``main``) on fresh seeds, of the runs that are done."""
    winners: Mapping[int, str]
    """Trial number -> its row of the sweep's table."""
    label: str
    """What the row is called, in plain text."""

    def outcomes(self) -> str:
        """``5 complete, 1 pruned, 2 diverged``: every trial counted once; diverged ones have no value."""
        counted = Counter("diverged" if t.state.name == "diverged" else t.outcome for t in self.trials)
        known = ("complete", "pruned", "diverged", "failed", "open")
        return ", ".join(f"{counted[name]} {name}" for name in known if counted[name]) or "none yet"


@dataclass(frozen=True)
class Searched:
    """A sweep's search, read once from plan.json and the records."""

    plan: Mapping[str, Any]
    rows: list[Found]
    confirmed: Mapping[int, Interval]
    """A winner's number -> its value on the sweep's own seeds, of the runs that are done."""
    test: Mapping[int, Interval]
    """A winner's number -> the metric of the sweep's table (of our trainer test top-1 in percent) on those seeds."""
    tested: Metric
    images: int | None
    """Of the validation part, where all records agree."""
    hours: float | None
    """Training of all trials and candidates."""

    @property
    def main(self) -> int:
        """The place of the objective that is confirmed."""
        return main_objective(self.plan["search"]["objectives"])

    @property
    def objective(self) -> str:
        """The objective that is confirmed."""
        return self.plan["search"]["objectives"][self.main]

    def say(self, value: float) -> str:
        """A value of that objective, with as many digits as it has."""
        return f"{value:.{DIGITS.get(self.objective, 0)}f}"


def main_objective(objectives: Sequence[str]) -> int:
    """The place of the first objective that training decides; of the first where it decides none."""
    return next((place for place, name in enumerate(objectives) if name in ("top1", "loss", "highest", "lowest")), 0)


def is_search(plan: Mapping[str, Any]) -> bool:
    return bool(plan.get("search"))


def has_rows(plan: Mapping[str, Any]) -> bool:
    """Whether the sweep's own table has anything to show: a search has rows once something is confirmed."""
    return not is_search(plan) or bool(plan["search"]["winners"])


def of_search(plan: Mapping[str, Any], stage: str) -> bool:
    """Whether a cell's stage is a search's own (``trial``, ``candidate7``, and those before), not the sweep's."""
    return is_search(plan) and all(stage != own["name"] for own in plan["stages"])


def searched_row(plan: Mapping[str, Any], row: str | None) -> str | None:
    """The sweep file's row that a row of a search's table comes from: a front has several rows of one."""
    number = plan["search"]["winners"].get(row)
    return next((asked["row"] for asked in plan["search"]["asked"] if asked["number"] == number), row)


def place(plan: Mapping[str, Any], variant: str, seed: int, stage: str) -> str:
    """Where a run stands, for people: ``adamw, seed 3``; a trial's cell holds its number in place of a seed."""
    if of_search(plan, stage) and stage.partition("-")[0] == "trial":
        return f"{variant}, trial {seed}{stage.removeprefix('trial').replace('-', ', ', 1)}"
    return ", ".join(part for part in (variant, f"seed {seed}", stage) if part)


def not_confirmed_words(plan: Mapping[str, Any]) -> str:
    """What stands in place of the sweep's table until there is one."""
    trained = "the best trials on fresh seeds, and the best of these on seeds that chose nothing"
    if len(plan["search"]["objectives"]) > 1:
        trained = "trials of the front on seeds that chose nothing"
    return f"Nothing is confirmed yet: deit-ablate run with --confirm trains {trained}."


def read_search(summary: Summary) -> Searched:
    """Raises ValueError where the sweep is no search."""
    store, plan, final = summary.store, summary.plan, final_stage(summary.plan)
    if not is_search(plan):
        raise ValueError(f"{summary.sweep} is no search: its sweep file has no search block")
    search, names = plan["search"], {number: name for name, number in plan["search"]["winners"].items()}
    trials, objectives, candidates = read_trials(store, plan), search["objectives"], search["candidates"]
    main = objectives[main_objective(objectives)]
    found = []
    for row in search["spaces"]:
        own = [trial for trial in trials if trial.row == row]
        shown = best(own, objectives, SHOWN)
        winners = {trial.number: names[trial.number] for trial in own if trial.number in names}
        shown += [trial for trial in own if trial.number in winners and trial not in shown]
        tried = [(trial.number, candidates.get(str(trial.number))) for trial in own]
        fresh = {number: _values(store, runs, main) for number, runs in tried if runs is not None}
        found.append(Found(row, own, shown, fresh, winners, summary.label(row)))
    runs_of: dict[str, list[str]] = {}
    for variant, _, stage, run in plan["cells"]:
        if stage == final:
            runs_of.setdefault(variant, []).append(run)
    tested = summary.metric if summary.metric.program else TOP1
    test = {row["variant"]: Interval(row[tested.mean], row[tested.half_width], row["seeds"]) for row in summary.rows}
    trained = {asked["run"] for asked in search["asked"]} | {run for runs in candidates.values() for run in runs}
    images = {((store.result(run) or {}).get("data") or {}).get("validation") for run in trained} - {None}
    seconds = sum(line.get("seconds") or 0.0 for run in trained for line in store.sound_history(run))
    return Searched(
        plan,
        found,
        {number: mean_interval(_values(store, runs_of.get(name, ()), main)) for number, name in names.items()},
        {number: test[name] for number, name in names.items() if name in test},
        tested,
        images.pop() if len(images) == 1 else None,
        seconds / 3600 if trained else None,
    )


def _values(store: Store, runs: Iterable[str], objective: str) -> list[float]:
    """Of the runs that are done: one that diverged has no value."""
    outcomes = [store.result(run) for run in dict.fromkeys(runs)]
    found = [measured(outcome, objective) for outcome in outcomes if outcome and outcome["status"] == "done"]
    return [value for value in found if value is not None]


# -- the table -----------------------------------------------------------------------------------------------------


def search_table(summary: Summary) -> Table:
    """The best trials of each row (of two objectives the Pareto front), with intervals where there are several seeds.

    Raises ValueError for a sweep that is no search.
    """
    searched = read_search(summary)
    plan, spaces = searched.plan, searched.plan["search"]["spaces"]
    objectives = plan["search"]["objectives"]
    keys = list(dict.fromkeys(key for space in spaces.values() for key in space))
    short = short_names(keys)
    numeric = {key for key in keys if all(own[key]["type"] != "categorical" for own in spaces.values() if key in own)}
    params = {trial.number: trial.params for found in searched.rows for trial in found.shown}
    labels = labels_of(plan)
    number = partial(Column, right=True)
    columns = [Column("row", lambda row: labels.get(row["row"], row["row"]), math=True)] * (len(searched.rows) > 1)
    columns.append(number("trial", lambda row: str(row["trial"])))
    columns += [Column(short[key], partial(_setting, params, key), right=key in numeric) for key in keys]
    columns += [number(UNITS[name], partial(_value, f"search_{name}", DIGITS.get(name, 0))) for name in objectives]
    unit, digits = f": {UNITS[searched.objective]}" if len(objectives) > 1 else "", DIGITS.get(searched.objective, 0)
    if any(found.fresh for found in searched.rows):
        columns.append(number(f"on fresh seeds{unit}", partial(_mean, "fresh", digits)))
    if searched.confirmed:
        columns.append(number(f"confirmed{unit}", partial(_mean, "confirmed", digits)))
        columns.append(number(searched.tested.header, partial(_mean, "test_top1", searched.tested.digits)))
    what = "the Pareto front" if len(objectives) > 1 else "the best trials"
    title = f"{study_title(plan)}: {what} of the search"
    first, last = ["row", "trial", "run"], [f"search_{name}" for name in objectives]
    last += [f"{part}_{what}" for part in ("fresh", "confirmed", "test_top1") for what in ("mean", "half_width", "n")]
    called = unique([*first, *last, *keys])[len(first) + len(last) :]
    names = [*first, *called, *last]
    named = dict(zip(keys, called, strict=True))
    lines = [_line(searched, found, trial, named) for found in searched.rows for trial in found.shown]
    frame = pd.DataFrame(lines, columns=names, dtype=object)
    return Table(f"{plan['sweep']}-search", title, frame, tuple(columns), tuple(footnotes(searched)))


def _line(searched: Searched, found: Found, trial: Trial, named: Mapping[str, str]) -> dict[str, Any]:
    none = mean_interval(())
    line = {"row": found.row, "trial": trial.number, "run": trial.run}
    for key, name in named.items():
        value = trial.params.get(key, math.nan)
        text = value is None or isinstance(value, (list, dict, bool))
        line[name] = canonical_json(value) if text else value
    objectives = searched.plan["search"]["objectives"]
    line |= {f"search_{name}": value for name, value in zip(objectives, trial.values or (), strict=False)}
    for part, own in (
        ("fresh", mean_interval(found.fresh.get(trial.number, ()))),
        ("confirmed", searched.confirmed.get(trial.number, none)),
        ("test_top1", searched.test.get(trial.number, none)),
    ):
        line |= {f"{part}_mean": own.mean, f"{part}_half_width": own.half_width, f"{part}_n": own.n or math.nan}
    return line


def _setting(params: Mapping[int, Mapping[str, Any]], key: str, row: Mapping[str, Any]) -> str:
    return setting(params[row["trial"]][key]) if key in params[row["trial"]] else NOTHING


def setting(value: Any) -> str:
    """A parameter's value for people: three digits of a number (files have all)."""
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}") if isinstance(value, float) else value_words(value)


def _value(name: str, digits: int, row: Mapping[str, Any]) -> str:
    return NOTHING if pd.isna(row[name]) else f"{row[name]:,.{digits}f}"


def _mean(part: str, digits: int, row: Mapping[str, Any]) -> str:
    words = measure(row[f"{part}_mean"], row[f"{part}_half_width"], digits=digits)
    return words if pd.isna(row[f"{part}_n"]) else f"{words} (n = {row[f'{part}_n']})"


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Dotted key -> its last part, where that says enough: ``optimizer.name`` is the optimizer; no two are alike."""
    found = {}
    for key in keys:
        *blocks, last = key.split(".")
        found[key] = blocks[-1] if last in ("name", "on") and blocks else last
    counted = Counter(found.values())
    return {key: short if counted[short] == 1 else key for key, short in found.items()}


# -- footnotes -----------------------------------------------------------------------------------------------------


def footnotes(searched: Searched) -> list[str]:
    """What a reader must know to take the table for what it is."""
    search, trials = searched.plan["search"], [trial for found in searched.rows for trial in found.trials]
    notes = [
        "A search value is of one training, and the best of many: it is too good on average (selection bias). The "
        "confirmed value is of new seeds that chose nothing."
    ]
    if any(found.fresh or found.winners for found in searched.rows):
        notes.append("± is the half-width of a 95% t interval over n seeds.")
    images = f" ({searched.images} images)" if searched.images else ""
    how = f"on the validation part{images}; they and the fresh seeds leave the test split alone"
    if (program := searched.plan.get("program")) is not None:
        how = f"by {program['validation']}, as the program reports it"
    notes.append(f"Trials (seed {search['seed']}) are measured {how}.")
    if searched.hours is not None:
        took = f"{searched.hours:.2g} hours of training"
        notes.append(f"Trials and candidates took {took}, beside those of the winners' runs.")
    if search.get("aside"):
        notes.append(f"Not counted: {search['aside']} trials of earlier versions of the sweep file.")
    for found in searched.rows:
        budget, asked = search["budget"].get(found.row), len(found.trials)
        of = f"{asked} of {budget}" if budget and budget != asked else str(asked)
        notes.append(f"{found.label}: {of} trial{'s' * (max(asked, budget or 0) != 1)}: {found.outcomes()}.")
    for found in searched.rows:
        notes += _row_notes(searched, found)
    if has_rows(searched.plan):
        return notes
    if not search["confirm"]:
        return [*notes, not_confirmed_words(searched.plan)]
    why = "no candidate is done on all fresh seeds"
    if any(trial.outcome == "open" for trial in trials):
        why = "the best trials are confirmed once all have ended"
    elif not any(trial.values for trial in trials):
        why = "no trial has a value"
    return [*notes, f"Nothing is confirmed yet: {why}."]


def _row_notes(searched: Searched, found: Found) -> list[str]:
    notes = []
    complete = {trial.number: trial.values[searched.main] for trial in found.trials if trial.values is not None}
    if found.trials and not complete and all(trial.outcome != "open" for trial in found.trials):
        notes.append(f"{found.label}: no winner, for no trial has a value ({found.outcomes()}).")
    elif has_rows(searched.plan) and not found.winners:
        why = "no candidate is done on all fresh seeds (one that diverged on one of them is out)"
        notes.append(f"{found.label}: no winner, for {why}.")
    planned = len(searched.plan["stages"][-1]["seeds"])
    for number in found.winners:
        which, confirmed = f"{found.label}, trial {number}", searched.confirmed[number]
        if number not in complete or not confirmed.n:
            notes.append(f"{which}: its confirmation on {planned} new seeds has no finished run yet.")
            continue
        words = confirmed_words(complete[number], confirmed.mean, confirmed.n, DIGITS.get(searched.objective, 0))
        if (fresh := mean_interval(found.fresh.get(number, ()))).n:
            words += f" (on the {fresh.n} fresh seeds by which it was chosen: {searched.say(fresh.mean)})"
        lost = planned - confirmed.n
        missing = f"; {lost} of its {planned} seeds {'has' if lost == 1 else 'have'} no value" if lost > 0 else ""
        notes.append(f"{which}: {words}, in {UNITS[searched.objective]}{missing}.")
    if (expected := expected_optimism(searched, found)) is not None:
        size = searched.say(expected) + " points" * (searched.objective == "top1")
        notes.append(
            f"{found.label}: of {len(complete)} trials like these the best is expected to look {size} better than it "
            "is, by chance alone (from their spread, and that of candidates over fresh seeds; rough)."
        )
    return notes


def expected_optimism(searched: Searched, found: Found) -> float | None:
    """By how much the best of a row's trials is expected to look better than it is, in the objective's unit
    (statistics.md, section 7).

    The noise is the pooled sd of its candidates over fresh seeds; what the trials scatter beyond that lies between
    them. None where there are no two fresh seeds of one candidate, or no two trials.
    """
    fresh = [values for values in found.fresh.values() if len(values) > 1]
    values = [trial.values[searched.main] for trial in found.trials if trial.values is not None]
    if not fresh or len(values) < 2:
        return None
    df = sum(len(own) - 1 for own in fresh)
    noise2 = sum(statistics.variance(own) * (len(own) - 1) for own in fresh) / df
    between = math.sqrt(max(0.0, statistics.variance(values) - noise2))
    return optimism(len(values), math.sqrt(noise2), between)
