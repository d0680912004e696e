"""What the trainer's registries and timm offer, known without importing torch: names, their options and facts.

``names.json`` holds the answer of the worker to ``offered`` (``make names`` writes it), and the hashes
of the sources that it was made from. Where one of them has changed since, because somebody has added an optimizer,
the worker is asked anew and its answer kept in the user's cache: a stale file costs one slower plan, never a name.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deit_ablate import files
from deit_ablate.execution import WorkerFailed, worker_answers

PACKAGE = Path(__file__).parent
ASKING = "DEIT_ABLATE_ASKING_FOR_NAMES"
"""Set for the worker that is asked: it must not ask in turn, whatever it imports."""

Hashes = dict[str, str | None]


@functools.cache
def names() -> dict[str, Any]:
    """By kind (models, optimizers, distillations, datasets, fields, timm_models, ...) what can be called by name."""
    stored: dict[str, Any] = json.loads((PACKAGE / "names.json").read_bytes())
    if hashes(stored["sources"]) == stored["sources"] or ASKING in os.environ:
        return stored
    if (cached := _cached()) is not None:
        return cached
    try:
        fresh: dict[str, Any] = next(worker_answers("offered", environment={**os.environ, ASKING: "1"}))
    except WorkerFailed:
        return stored  # without torch here, what is not in the file cannot be checked, and check_names will say so
    try:
        files.make_folder(_cache().parent)
        made_from = hashes({**stored["sources"], **fresh["sources"]})
        files.replace(_cache(), files.to_json({"for": made_from, "names": fresh}))
    except OSError:
        pass  # a home that cannot be written: the next process asks again
    return fresh


def fact(kind: str, name: str, key: str, default: Any = None) -> Any:
    """One fact of a name (see ``names.json``); ``default`` for a name that no registry has, such as a custom one."""
    return names()[kind].get(name, {}).get(key, default)


def hashes(paths: Iterable[str]) -> Hashes:
    """SHA-256 of the package's files with these relative paths; None for one that is not there."""
    found = ((path, PACKAGE / path) for path in paths)
    return {path: hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None for path, file in found}


def _cached() -> dict[str, Any] | None:
    try:
        cached = files.read_json(_cache())
        return dict(cached["names"]) if cached and hashes(cached["for"]) == cached["for"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # damaged, or not ours to read: it is written anew


def _cache() -> Path:
    """One file a copy of the package, so that two checkouts do not overwrite each other's answers."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "deit-ablate" / f"names-{hashlib.sha256(os.fsencode(PACKAGE)).hexdigest()[:16]}.json"
