"""What a tracker is told of a run: names, the recipe, a line an epoch, scores; no machine's name and no path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from deit_ablate.errors import Damaged
from deit_ablate.recipe import flatten
from deit_ablate.report.redaction import Redactor
from deit_ablate.store import Attempt, Store, index

Value: TypeAlias = str | int | float | bool


@dataclass(frozen=True)
class TrackedRun:
    """A run of a sweep."""

    id: str
    sweep: str
    row: str
    seed: int
    stage: str
    """Empty in a sweep without stages."""
    others: tuple[str, ...]
    """Names of further cells of the sweep that this run stands for."""
    config: Mapping[str, Value]
    """Its recipe, by dotted key."""
    started: float
    """When its first attempt began, in seconds since 1970."""

    @property
    def name(self) -> str:
        return ":".join([self.sweep, self.row, str(self.seed), *([self.stage] if self.stage else [])])

    @property
    def facts(self) -> dict[str, str]:
        """What runs are told apart and grouped by."""
        found = {"sweep": self.sweep, "row": self.row, "seed": str(self.seed), "stage": self.stage}
        return {**found, "run": self.id, "also": ", ".join(self.others)}

    @property
    def tags(self) -> list[str]:
        return [tag[:64] for tag in (self.sweep, self.stage) if tag]

    @property
    def unique_name(self) -> str:
        """The name, for trackers that know a run by nothing else: a row whose recipe was changed is another run."""
        return f"{self.name} {self.id[:8]}"


@dataclass(frozen=True)
class Point:
    """The numbers of one epoch."""

    step: int
    time: float
    """In seconds since 1970."""
    values: Mapping[str, float]


def tracked_runs(store: Store, plan: Mapping[str, Any], among: Sequence[str] | None = None) -> dict[str, TrackedRun]:
    """The runs of a plan.json (those ``among`` these) that have an attempt, by id; one that several cells share has the
    first one's name."""
    cells: dict[str, list[tuple[str, int, str]]] = {}
    for row, seed, stage, run in plan["cells"]:
        if among is None or run in among:
            cells.setdefault(run, []).append((row, seed, stage))
    found = {}
    for run, named in cells.items():
        stored, attempts = store.sound_recipe(run), store.attempts(run)
        if stored and attempts:
            (row, seed, stage), *others = named
            also = tuple(":".join(str(part) for part in cell if part != "") for cell in others)
            config, started = _config(stored["recipe"]), _started(attempts[0])
            found[run] = TrackedRun(run, plan["sweep"], row, seed, stage, also, config, started)
    return found


def _config(recipe: Mapping[str, Any]) -> dict[str, Value]:
    redacted = Redactor()
    leaves = {**index.flat(recipe), "seed": recipe.get("seed")}
    texts = {key: "none" if value is None else value for key, value in leaves.items()}
    return {key: redacted(value) if isinstance(value, str) else value for key, value in texts.items()}


def _started(first: Attempt) -> float:
    try:
        return float(first.owner.get("time") or 0.0)
    except Damaged:
        return 0.0


def points(store: Store, run: TrackedRun) -> list[Point]:
    """A line for each epoch that is recorded, with whatever numbers it has."""
    found, time = list[Point](), run.started
    for line in store.sound_history(run.id):
        time += line.get("seconds") or 0.0
        found.append(Point(line.get("step") or line["epoch"], time, dict(numbers(line, without=("step",)))))
    return found


def scores(store: Store, run: TrackedRun, epochs: Sequence[Point]) -> Point:
    """The numbers in the outcome of a finished run, its metrics and its cost, at its last epoch; of another none."""
    outcome = store.result(run.id) or {}
    found = {"final": outcome.get("metrics") or {}, "cost": outcome.get("cost") or {}}
    last = epochs[-1] if epochs else Point(-1, run.started, {})
    return Point(last.step, last.time, dict(numbers(found)))


def numbers(values: Mapping[str, Any], *, without: Sequence[str] = ()) -> Iterator[tuple[str, float]]:
    """The numbers in nested mappings, by keys with a slash between, as trackers group them."""
    for key, value in flatten(values):
        if key not in without and isinstance(value, (int, float)) and not isinstance(value, bool):
            yield key.replace(".", "/"), float(value)
