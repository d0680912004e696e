"""What a run's files say, flat."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deit_ablate import files
from deit_ablate.errors import Damaged, InputError
from deit_ablate.store import State, Store, index

if TYPE_CHECKING:
    import numpy as np

LARGEST = 1e50
"""Of a number whose variance's square is still one."""


def arrays(store: Store, run: str, outcome: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of the attempt that a run's outcome names. Raises InputError where they are gone, Damaged where they
    are not those that it was written with, or not classes of the same images."""
    path = store.attempt(run, outcome["attempt"]).arrays
    found = files.read_arrays(path, outcome.get("arrays_sha256"))
    if found is None:
        raise InputError(f"the arrays of run {run} are gone", expected="its arrays.npz, as the run wrote it")
    tests = [array for name, array in found.items() if name.startswith("test_")]
    classes = [array for name, array in found.items() if name == "test_targets" or name.startswith("test_pred_")]
    if len({len(array) for array in tests}) > 1 or any(array.dtype.kind == "f" for array in classes):
        raise Damaged(path, "its arrays are not classes of the same images")
    return found


def number(value: Any) -> float:
    """A recorded number, or NaN where there is none, or none that can be reckoned with."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST
    return float(value) if known else math.nan


def record(store: Store, run: str, state: State) -> tuple[dict[str, Any], dict[str, Any]]:
    """A run's record and its recipe by dotted key (less the seed), which is empty for a run that was never started."""
    found = store.index.record(run) if state.finished else None
    if found is None:
        outcome = (store.outcome(run) if state.finished else None) or {}
        attempts = store.attempts(run) if state.name != "missing" else []
        counted = {"attempts": len(attempts), "epochs": index.epochs(attempts, outcome.get("attempt"))}
        registered: Mapping[str, Any] = store.sound_recipe(run) or {"recipe": {}}
        found = {**index.record(outcome), **counted}, index.flat(registered["recipe"])
    test = {f"test_{name}": value for name, value in found[0]["test"].items()}
    return {"state": state.name, "detail": state.detail, **found[0], **test}, found[1]
