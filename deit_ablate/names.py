"""What the trainer's registries and timm offer, known without importing torch: names, their options and facts.

``names.json`` holds the answer of the worker to ``offered`` (``make names`` writes it), and the hashes
of the sources that it was made from. Where one of them has changed since, because somebody has added an optimizer,
the worker is asked anew and its answer kept in the user's cache: a stale file costs one slower plan, never a name.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from deit_ablate import files
from deit_ablate.errors import Damaged
from deit_ablate.execution import WorkerFailed, worker_answers

PACKAGE = Path(__file__).parent
ASKING = "DEIT_ABLATE_ASKING_FOR_NAMES"
"""Set for the worker that is asked: it must not ask in turn, whatever it imports."""

MOST_ANSWERS = 1000
"""Answers that the user's cache holds, of a kilobyte each: the oldest go first."""

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
    made_from = hashes({**stored["sources"], **fresh["sources"]})
    keep_in_cache(_cache(), {"for": made_from, "names": fresh}, MOST_ANSWERS)
    return fresh


def fact(kind: str, name: str, key: str, default: Any = None) -> Any:
    """One fact of a name (see ``names.json``); ``default`` for a name that no registry has, such as a custom one."""
    return names()[kind].get(name, {}).get(key, default)


KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "int": ("a whole number", lambda value: _number(value) and float(value).is_integer()),
    "number": ("a number", lambda value: _number(value)),
    "str": ("text", lambda value: isinstance(value, str)),
    "list": ("a list", lambda value: isinstance(value, list)),
    "dict": ("a mapping", lambda value: isinstance(value, dict)),
    "null": ("null", lambda value: value is None),
}
"""What an option may be, by its function's signature (``train.registry.option_kinds``) -> in words, and its test. An
option's kind is one of them, ``list[number]`` and the like, ``list[number,number]`` for a list of that many, ``=text``
for a text of a few, several joined by ``|``, or ``unknown``."""


def misfit(kind: str, value: Any) -> str:
    """What is expected of an option of this kind instead of ``value``; an empty text where the value will do.

    A text that reads as a truth value or a number will do only where texts are taken: to Python "no" is true.
    """
    texts = [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, str)]
    hint = next(filter(None, map(_meant, texts)), "")
    parts = kind.split("|")
    if any(_fits(part, value) for part in parts) or ("unknown" in parts and not hint):
        return ""
    words = [_words(part) for part in parts if part != "unknown"] or ["true, false or a number"]
    return " or ".join(words) + (f" ({hint})" if hint else "")


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _fits(kind: str, value: Any) -> bool:
    if kind.startswith("="):
        return bool(value == kind[1:])
    outer, _, inner = kind.removesuffix("]").partition("[")
    if outer not in KINDS or not KINDS[outer][1](value):
        return False
    if outer != "list":
        return True
    kinds = inner.split(",") if "," in inner else [inner or "unknown"] * len(value)
    return len(kinds) == len(value) and not any(map(misfit, kinds, value))


def _words(kind: str) -> str:
    outer, _, inner = kind.removesuffix("]").partition("[")
    words = kind[1:] if kind.startswith("=") else KINDS[outer][0]
    kinds = inner.split(",") if inner else []
    words += f" of {len(kinds)}" if len(kinds) > 1 else ""
    return f"{words}, each {KINDS[kinds[0]][0]}" if len({*kinds}) == 1 and kinds[0] in KINDS else words


def _meant(text: str) -> str:
    """How a text that reads as a truth value or a number is written as one; an empty text for others."""
    if text.lower() in ("yes", "no", "on", "off"):
        return "YAML 1.2 writes true and false"
    if text.lower() in ("true", "false"):
        return "write it without quotes"
    try:
        float(text)
    except ValueError:
        return ""
    return "write it without quotes"


def hashes(paths: Iterable[str]) -> Hashes:
    """SHA-256 of the package's files with these relative paths; None for one that is not there."""
    found = ((path, PACKAGE / path) for path in paths)
    return {path: hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None for path, file in found}


def _cached() -> dict[str, Any] | None:
    try:
        cached = files.read_json(_cache())
        return dict(cached["names"]) if cached and hashes(cached["for"]) == cached["for"] else None
    except (OSError, Damaged, KeyError, TypeError):
        return None  # damaged, or not ours to read: it is written anew


def _cache() -> Path:
    """One file a copy of the package, so that two checkouts do not overwrite each other's answers."""
    return cache_folder() / "names" / f"{hashlib.sha256(os.fsencode(PACKAGE)).hexdigest()[:16]}.json"


def cache_folder() -> Path:
    """The user's, of what can be made anew."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "deit-ablate"


def installed_timm() -> str | None:
    """The version of timm here, which is not imported to ask; None where there is none."""
    try:
        return importlib.metadata.version("timm")
    except importlib.metadata.PackageNotFoundError:
        return None


def _answer_path(about: Any) -> Path:
    made_by = [hashes(names()["sources"]), installed_timm(), os.environ.get("DEIT_ABLATE_WORKER"), str(PACKAGE)]
    digest = hashlib.sha256(json.dumps([about, made_by, sys.path], sort_keys=True).encode()).hexdigest()
    return cache_folder() / "answers" / f"{digest[:32]}.json"


def kept_answer(about: Any) -> dict[str, Any] | None:
    """What the worker has answered before about this (plain values), in the user's cache."""
    try:
        kept = files.read_json(_answer_path(about))
        return kept if isinstance(kept, dict) and kept.get("ok") is True and isinstance(kept["sources"], dict) else None
    except (OSError, Damaged, KeyError):
        return None  # damaged, or not ours to read: the worker is asked again


def keep_answer(about: Any, answer: dict[str, Any]) -> None:
    keep_in_cache(_answer_path(about), answer, MOST_ANSWERS)


def keep_in_cache(path: Path, value: Any, most: int) -> None:
    """Write a file of the user's cache, if that can be written; of its folder the ``most`` that are newest stay."""
    with contextlib.suppress(OSError):
        files.make_folder(path.parent)
        files.replace(path, files.to_json(value))
        for old in sorted(path.parent.iterdir(), key=lambda kept: kept.stat().st_mtime)[:-most]:
            old.unlink(missing_ok=True)
