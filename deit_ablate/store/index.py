"""What the files of finished runs say, flat, and kept in one file: 10,000 small ones are slow to open, above all on a
network. An entry counts only while the files that it was made of are the same; it is made anew from them otherwise,
and never the truth.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from deit_ablate import __version__, files
from deit_ablate.errors import Damaged
from deit_ablate.identity import canonical_json
from deit_ablate.recipe import flatten
from deit_ablate.store.attempt import Attempt, State

if TYPE_CHECKING:
    from deit_ablate.store.store import Store

SCHEMA = 5
WORTH_AN_INDEX = 200
"""Runs from which the index is looked at, and finished ones that are not in it until it is written anew."""

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


def record(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """What an outcome says, flat; of an empty one, None and the like."""
    metrics, cost = outcome.get("metrics") or {}, outcome.get("cost") or {}
    execution, provenance = outcome.get("execution") or {}, outcome.get("provenance") or {}
    ranks, parts = execution.get("ranks"), execution.get("accumulation")
    hardware, git, data = provenance.get("hardware") or {}, provenance.get("git") or {}, outcome.get("data") or {}
    packages = provenance.get("packages") or {}
    return {
        "test": metrics.get("test") or {},
        "program": metrics.get("program") or {},
        "validation": metrics.get("validation") or {},
        "train_loss": metrics.get("train_loss"),
        "weights_sha256": outcome.get("weights_sha256"),
        **{name: cost.get(name) for name in COST},
        "ranks": ranks,
        "chunks": ranks * parts if ranks and parts else None,
        "threads": execution.get("threads"),
        "compile": _switch(execution.get("compile")),
        "channels_last": _switch(execution.get("channels_last")),
        "deterministic": _switch(execution.get("deterministic")),
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


FIELDS = tuple(record({}))
"""What the index has of an outcome, in its order."""

Entry = tuple[
    list[int],
    tuple[str, str, int],
    str,
    Annotated[list[Any], Field(min_length=len(FIELDS), max_length=len(FIELDS))],
    tuple[int, int] | None,
]
"""The stamp of a run, its state, the key of its recipe, the values of FIELDS, and how many attempts and epochs it has
had, where somebody has asked for these."""


class Content(BaseModel):
    """What index.json holds."""

    schema_: int = Field(alias="schema")
    version: str
    """Another version may refuse a file that this one takes."""
    recipes: dict[str, dict[str, Any]]
    runs: dict[str, Entry]


class Index:
    """The index of a store: ``store.index``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._path = store.root / "index.json"
        self._runs: dict[str, Entry] = {}
        self._recipes: dict[str, dict[str, Any]] = {}
        self._keys: dict[str, str] = {}
        """Recipe as JSON -> its key."""
        self._proven: set[str] = set()
        """Runs whose files were those of their entry at the last look."""
        self._new = 0
        with contextlib.suppress(Damaged, ValidationError):
            content = Content.model_validate_json(files.read_regular(self._path) or b"")
            if (content.schema_, content.version) == (SCHEMA, __version__):
                self._runs, self._recipes = content.runs, content.recipes

    def state(self, run: str, *, learn: bool) -> State | None:
        """The state of a run that is finished and sound; None for any other, and for one that is not in the index
        where that is not to ``learn``: to read its files, and keep what they say."""
        self._proven.discard(run)
        stamp, entry = self.stamp(run), self._runs.get(run)
        if stamp is not None and (entry is None or entry[0] != stamp or entry[2] not in self._recipes):
            entry = self._read(run, stamp) if learn else None
        if stamp is None or entry is None:
            return None
        self._proven.add(run)
        return State(*entry[1])

    def record(self, run: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The values of FIELDS of a run that was found finished at the last look, with its attempts and epochs, and its
        recipe by dotted key (less the seed); None for any other run."""
        if run not in self._proven:
            return None
        stamp, state, key, values, counted = self._runs[run]
        if counted is None:
            attempts = self._store.attempts(run)
            counted = len(attempts), epochs(attempts, state[2])
            self._runs[run] = (stamp, state, key, values, counted)
            self._new += 1
        found = dict(zip(FIELDS, values, strict=True))
        return {**found, "attempts": counted[0], "epochs": counted[1]}, self._recipes[key]

    def metrics(self, run: str) -> dict[str, Any] | None:
        """The metrics of a run that was found finished at the last look; None for any other run."""
        return dict(zip(FIELDS, self._runs[run][3], strict=True)) if run in self._proven else None

    def keep(self) -> None:
        """Write the index anew where that is worth it; a store that cannot be written is read without."""
        if self._new < WORTH_AN_INDEX:
            return
        there = self._store.runs()
        runs = {run: entry for run, entry in self._runs.items() if run in there}
        used = {entry[2] for entry in runs.values()}
        recipes = {key: recipe for key, recipe in self._recipes.items() if key in used}
        content = {"schema": SCHEMA, "version": __version__, "recipes": recipes, "runs": runs}
        with contextlib.suppress(OSError):
            files.replace(self._path, json.dumps(content, separators=(",", ":")).encode())
        self._new = 0

    def stamp(self, run: str) -> list[int] | None:
        """What tells a run's files from others without reading them; None for one that is not over. The folder's time
        changes with the names in it; a file's time of change, which nobody can set, with its content and its mode."""
        folder = f"{self._store.root}/runs/{run}"
        try:
            outcome, recipe = (os.stat(f"{folder}/{name}.json") for name in ("outcome", "recipe"))
            inside = os.stat(folder)
        except OSError:
            return None
        return [
            inside.st_mtime_ns,
            *(outcome.st_ino, outcome.st_size, outcome.st_mtime_ns, outcome.st_ctime_ns),
            *(recipe.st_ino, recipe.st_size, recipe.st_mtime_ns, recipe.st_ctime_ns),
        ]

    def _read(self, run: str, stamp: list[int]) -> Entry | None:
        """The entry of a run, of its files; None where they are damaged."""
        try:
            stored, outcome = self._store.recipe(run), self._store.outcome(run)
        except Damaged:
            return None
        if stored is None or outcome is None:
            return None
        state = (outcome["status"], outcome.get("reason") or "", outcome["attempt"])
        key = self._key(stored["recipe"])
        entry = self._runs[run] = (stamp, state, key, [*record(outcome).values()], None)
        self._new += 1
        return entry

    def _key(self, recipe: Mapping[str, Any]) -> str:
        text = canonical_json({**recipe, "seed": 0})
        if text not in self._keys:
            key = self._keys[text] = hashlib.sha256(text.encode()).hexdigest()[:16]
            self._recipes[key] = flat(recipe)
        return self._keys[text]


def flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe by dotted key, less the seed; lists are JSON text."""
    leaves = ((key, value) for key, value in flatten(recipe) if key != "seed" and value != {})
    return {key: canonical_json(value) if isinstance(value, (list, dict)) else value for key, value in leaves}


def epochs(attempts: Sequence[Attempt], finished: int | None) -> int:
    """Lines of the history that ``Store.history`` reads, counted without parsing them."""
    chosen = [attempt for attempt in attempts if attempt.number == finished] or attempts[-1:]
    try:
        return (files.read_regular(chosen[0].metrics) or b"").count(b"\n") if chosen else 0
    except Damaged:
        return 0
