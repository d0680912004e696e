"""Values of metrics, of records and of what runs have predicted: the code of one's own among them. Imports numpy."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deit_ablate.errors import InputError, Position
from deit_ablate.report.records import arrays, number
from deit_ablate.report.stats.moderated import Array
from deit_ablate.store import Store
from deit_ablate.sweep.metrics import Metric, planned_metrics

HEADLINE = ("fused_softmax", "class")
"""The classifier that a run is judged by: the first that it has."""


def value(metric: Metric, record: Mapping[str, Any], shows: str | None) -> float:
    """A metric of one run, of a record as ``frame.load`` has it; NaN where there is none: of runs that are not done."""
    if record["state"] != "done" or not metric.shown(shows):
        return math.nan
    return number(record.get(metric.column))


def own_columns(store: Store, plan: Mapping[str, Any], cells: Sequence[dict[str, Any]]) -> list[str]:
    """Give each cell of a finished run what the plan's functions of one's own make of it; returns their names.

    They are computed whenever they are read: what a function depends on beside its code nobody knows. Raises InputError
    at the line of a function that is not there, fails, or returns no number.
    """
    shows = {row["name"]: row["shows"] for row in plan["variants"]}
    metrics = list(_named(store, plan))
    for own in metrics:
        function, known = own.function(), dict[tuple[str, str | None], float]()
        for cell in cells:
            which = cell["run"], shows.get(cell["variant"])
            if cell["state"] == "done" and own.metric.shown(which[1]) and which not in known:
                kept = arrays(store, which[0], store.result(which[0]) or {})
                try:
                    known[which] = _result(function, _given(kept, which[1]))
                except Exception as error:  # it is the user's code
                    raise own.error(error, f", of run {which[0]}") from error
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


def _result(function: Callable[[Any], Any], given: dict[str, Array]) -> float:
    """What the function returns, of a number for each test image their mean; NaN where there is nothing to give it."""
    if not given:
        return math.nan
    found = np.asarray(function(given), dtype=np.float64)
    if found.shape not in ((), given["targets"].shape):
        raise NoNumber(f"returned an array of shape {found.shape} of {len(given['targets'])} images")
    mean = float(found.mean())
    if not math.isfinite(mean):
        raise NoNumber(f"returned {'an array with ' if found.ndim else ''}{mean}")
    return mean
