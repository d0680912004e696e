"""What a run's files say, flat. Of finished runs, which never change, it is kept in an index: 10,000 small files are
slow to open, above all on a network. The index is rebuilt from the files whenever it does not fit them, and never the
truth.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from deit_ablate import files
from deit_ablate.errors import Damaged, InputError
from deit_ablate.identity import canonical_json
from deit_ablate.recipe import flatten
from deit_ablate.store import Attempt, State, Store

if TYPE_CHECKING:
    import numpy as np

SCHEMA = 3
WORTH_AN_INDEX = 200
"""Finished runs that are not in the index until it is written anew."""

COST = (
    "train_seconds",
    "wall_seconds",
    "images_per_second",
    "inference_images_per_second",
    "inference_batch",
    "peak_memory_bytes",
    "parameters",
    "flops",
)


class Index(BaseModel):
    """What index.json holds: by run its stamp, record, recipe's key and state; and the recipes."""

    recipes: dict[str, dict[str, Any]]
    runs: dict[str, tuple[list[int], dict[str, Any], str, tuple[str, str, int]]]


class Records:
    """The records of some runs of a store."""

    def __init__(self, store: Store, runs: Iterable[str]):
        self.store = store
        content = _read_index(store)
        self._runs: dict[str, list[Any]] = content["runs"]
        self._recipes: dict[str, dict[str, Any]] = content["recipes"]
        self._stamps = {run: stamp for run in runs if (stamp := outcome_stamp(store, run)) is not None}
        self._new = 0

    def finished(self) -> dict[str, State]:
        """The states of the runs that the index has."""
        known = (run for run, stamp in self._stamps.items() if self._runs.get(run, [None])[0] == stamp)
        return {run: State(*self._runs[run][3]) for run in known}

    def of(self, run: str, state: State) -> tuple[dict[str, Any], dict[str, Any]]:
        """A run's record and its recipe by dotted key (less the seed); both read anew where the index has neither."""
        stamp = self._stamps.get(run)
        entry = self._runs.get(run)
        if entry is not None and entry[0] == stamp:
            return entry[1], self._recipes[entry[2]]
        record, recipe = _record(self.store, run, state), _recipe(self.store, run)
        if state.finished and stamp is not None:
            key = hashlib.sha256(canonical_json(recipe).encode()).hexdigest()[:16]
            self._recipes[key] = recipe
            self._runs[run] = [stamp, record, key, [state.name, state.detail, state.attempt]]
            self._new += 1
        return record, recipe

    def keep(self) -> None:
        """Write the index anew where that is worth it; a store that cannot be written is read without."""
        if self._new < WORTH_AN_INDEX:
            return
        content = {"schema": SCHEMA, "recipes": self._recipes, "runs": self._runs}
        with contextlib.suppress(OSError):
            files.replace(_path(self.store), json.dumps(content).encode())


def _path(store: Store) -> Any:
    return store.root / "index.json"


def _read_index(store: Store) -> dict[str, Any]:
    with contextlib.suppress(Damaged, ValidationError):
        content = files.read_json(_path(store))
        if isinstance(content, dict) and content.get("schema") == SCHEMA:
            return Index.model_validate(content).model_dump()
    return {"runs": {}, "recipes": {}}


def outcome_stamp(store: Store, run: str) -> list[int] | None:
    """What tells a run's outcome and recipe from others without reading them; None for a run that is not over."""
    try:
        found = [os.stat(f"{store.root}/runs/{run}/{name}.json") for name in ("outcome", "recipe")]
    except OSError:
        return None
    return [number for each in found for number in (each.st_mtime_ns, each.st_size)]


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
    """A recorded number, or NaN where there is none."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def _record(store: Store, run: str, state: State) -> dict[str, Any]:
    outcome = (store.outcome(run) if state.finished else None) or {}
    metrics, cost = outcome.get("metrics") or {}, outcome.get("cost") or {}
    test = metrics.get("test") or {}
    execution, provenance = outcome.get("execution") or {}, outcome.get("provenance") or {}
    ranks, parts = execution.get("ranks"), execution.get("accumulation")
    hardware, git, data = provenance.get("hardware") or {}, provenance.get("git") or {}, outcome.get("data") or {}
    packages = provenance.get("packages") or {}
    attempts = store.attempts(run) if state.name != "missing" else []
    return {
        "state": state.name,
        "detail": state.detail,
        "test": test,
        "validation": metrics.get("validation") or {},
        "train_loss": metrics.get("train_loss"),
        "weights_sha256": outcome.get("weights_sha256"),
        **{f"test_{name}": value for name, value in test.items()},
        **{name: cost.get(name) for name in COST},
        "epochs": _epochs(attempts, outcome.get("attempt")),
        "ranks": ranks,
        "chunks": ranks * parts if ranks and parts else None,
        "threads": execution.get("threads"),
        "compile": _switch(execution.get("compile")),
        "channels_last": _switch(execution.get("channels_last")),
        "deterministic": _switch(execution.get("deterministic")),
        "attempts": len(attempts),
        "version": provenance.get("version"),
        "commit": (git.get("commit") or "") + (" + changes" if git.get("dirty") else ""),
        "packages": ", ".join(f"{name} {version}" for name, version in sorted(packages.items())),
        "device": _device(cost.get("device")),
        "gpu": hardware.get("gpu"),
        "cpu": hardware.get("cpu"),
        "host": hardware.get("host"),
        "data_fingerprint": data.get("fingerprint"),
        "data_test": data.get("test"),
        "command": provenance.get("command"),
    }


def _switch(value: bool | str | None) -> str | None:
    return value if isinstance(value, str) else None if value is None else "on" if value else "off"


def _device(recorded: str | None) -> str | None:
    """cpu or cuda; early records have the GPU's name instead, which stands with the hardware too."""
    return recorded if recorded in (None, "cpu") else "cuda"


def _epochs(attempts: Sequence[Attempt], finished: int | None) -> int:
    """Lines of the history that ``Store.history`` reads, counted without parsing them."""
    chosen = [attempt for attempt in attempts if attempt.number == finished] or attempts[-1:]
    try:
        return (files.read_regular(chosen[0].metrics) or b"").count(b"\n") if chosen else 0
    except Damaged:
        return 0


def _recipe(store: Store, run: str) -> dict[str, Any]:
    """The registered recipe by dotted key, less the seed; nothing for a run that was never started."""
    registered: Mapping[str, Any] = store.sound_recipe(run) or {"recipe": {}}
    leaves = ((key, value) for key, value in flatten(registered["recipe"]) if key != "seed" and value != {})
    return {key: canonical_json(value) if isinstance(value, (list, dict)) else value for key, value in leaves}
