"""Values of metrics, of records and of what runs have predicted: the code of one's own among them. Imports numpy."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from deit_ablate.errors import InputError, Position
from deit_ablate.report.records import arrays, number
from deit_ablate.report.stats.moderated import Array
from deit_ablate.store import Store
from deit_ablate.sweep.metrics import OF_PROGRAMS, Metric, planned_metrics

HEADLINE = ("fused_softmax", "class")
"""The classifier that a run is judged by: the first that it has."""
NOT_KEPT = "predictions not on record"


def value(metric: Metric, record: Mapping[str, Any], shows: str | None) -> float:
    """A metric of one run, of a record as ``frame.load`` has it; NaN where there is none: of runs that are not done."""
    if record["state"] != "done" or not metric.shown(shows):
        return math.nan
    return number(record.get(metric.column))


def reported_columns(cells: Sequence[dict[str, Any]]) -> list[str]:
    """Give each cell of a finished run the metrics that its program has reported; returns their columns."""
    found: dict[str, None] = {}
    for cell in cells:
        for name, reported in (cell["program"] or {}).items():
            column = OF_PROGRAMS + name
            found[column], cell[column] = None, reported
    return sorted(found)


def own_columns(store: Store, plan: Mapping[str, Any], cells: Sequence[dict[str, Any]]) -> list[str]:
    """Give each cell of a finished run what the plan's functions of one's own make of it; returns their names.

    They are computed whenever they are read: what a function depends on beside its code nobody knows. Raises InputError
    at the line of a function that is not there, fails, or returns something else than numbers.
    """
    shows = {row["name"]: row["shows"] for row in plan["variants"]}
    metrics = list(_named(store, plan))
    for own in metrics:
        own.function()  # at once, also where no run has finished
        known = dict[tuple[str, str | None], float]()
        for cell in cells:
            which = cell["run"], shows.get(cell["variant"])
            if cell["state"] == "done" and own.metric.shown(which[1]) and which not in known:
                kept = arrays(store, which[0], store.result(which[0]) or {})
                known[which] = float(own.values(kept, *which).mean())
            cell[own.metric.name] = known.get(which)
    return [own.metric.name for own in metrics]


@dataclass(frozen=True)
class Named:
    """A function of one's own, and where the sweep file names it."""

    metric: Metric
    key: str
    where: Position

    def function(self) -> Callable[[Any], Any]:
        module, _, name = self.metric.name.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except Exception as error:  # whatever the module does when it is imported
            raise self.error(error) from error

    def values(self, kept: Mapping[str, Array], run: str, shows: str | None) -> Array:
        """What it makes of the arrays of a run whose row shows this: a number, or one for each test image; NaN where
        there is nothing to give it, or any of what it returns is not finite. Raises InputError."""
        try:
            given = _given(kept, shows)
            return _result(self.function(), given) if given else np.array(math.nan)
        except Exception as error:  # it is the user's code
            raise self.error(error, f", of run {run}") from error

    def error(self, error: Exception, of: str = "") -> InputError:
        why = str(error) if isinstance(error, NoNumber) else f"fails, {type(error).__name__}: {error}"
        expected = "a function of a run's arrays that returns a number, or a number for each test image"
        return InputError(f"{self.metric.name} {why}{of}", where=self.where, key=self.key, expected=expected)


def _named(store: Store, plan: Mapping[str, Any]) -> Iterator[Named]:
    file = os.path.relpath(store.root.resolve() / plan["source"])
    for place, metric in enumerate(planned_metrics(plan)):
        if not metric.figure:
            yield Named(metric, "metrics" if place else "metric", (file, *metric.place))


class NoNumber(ValueError):
    """What a function has returned is no figure of a run."""


def _given(kept: Mapping[str, Array], shows: str | None) -> dict[str, Array]:
    """What a function gets: the arrays that the run has left, and those of the classifier that the row shows under
    short names; nothing of a run that was not tested."""
    found = [shows] if shows else HEADLINE
    classifier = next((name for name in found if f"test_pred_{name}" in kept), None)
    if classifier is None or "test_targets" not in kept:
        return {}
    short = {"targets": "test_targets", "predictions": f"test_pred_{classifier}"}
    short["confidence"] = f"test_confidence_{classifier}"
    given = {**kept, **{name: kept[stored] for name, stored in short.items() if stored in kept}}
    # Half precision is for the disk: a mean of thousands of such numbers would be none.
    return {name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in given.items()}


def _result(function: Callable[[Any], Any], given: dict[str, Array]) -> Array:
    found = np.asarray(function(given), dtype=np.float64)
    if found.shape not in ((), given["targets"].shape):
        raise NoNumber(f"returned an array of shape {found.shape} of {len(given['targets'])} images")
    return found if math.isfinite(found.mean()) else np.array(math.nan)


OfImages: TypeAlias = Callable[[Mapping[str, Array], str, str | None], Array | str]


def of_images(store: Store, plan: Mapping[str, Any]) -> OfImages:
    """What says, of a run's arrays, its id and what its row shows, what each test image (N,) gives the metric of the
    verdicts, which is their mean: of top-1 100 where the class is right. Words where that is not known."""
    metric = planned_metrics(plan)[0]
    if not metric.figure:
        own = next(_named(store, plan))

        def values(kept: Mapping[str, Array], run: str, shows: str | None) -> Array | str:
            found = own.values(kept, run, shows)
            return found if found.ndim else f"{metric.name} gives no number for each image"

        return values

    def right(kept: Mapping[str, Array], run: str, shows: str | None) -> Array | str:
        figure = "" if metric.program else metric.figure.removeprefix("top1").removeprefix("_")
        given = _given(kept, figure or shows)
        return 100.0 * (given["predictions"] == given["targets"]) if given else NOT_KEPT

    return right
