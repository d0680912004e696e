"""What the trainer's registries and timm offer, known without importing torch: names, their options and facts.

``names.json`` holds the answer of ``python -m deit_ablate.worker offered`` (``make names`` writes it), and the hashes
of the sources that it was made from. Where one of them has changed since, because somebody has added an optimizer,
the worker is asked anew and its answer kept in the user's cache: a stale file costs one slower plan, never a name.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from deit_ablate import files
from deit_ablate.execution import worker_command

PACKAGE = Path(__file__).parent
ASKING = "DEIT_ABLATE_ASKING_FOR_NAMES"
"""Set for the worker that is asked: it must not ask in turn, whatever it imports."""

Hashes = dict[str, str | None]


@functools.cache
def names() -> dict[str, Any]:
    """By kind (models, optimizers, distillations, datasets, fields, timm_models, ...) what can be called by name."""
    stored: dict[str, Any] = json.loads((PACKAGE / "names.json").read_text())
    if hashes(stored["sources"]) == stored["sources"] or ASKING in os.environ:
        return stored
    if (cached := _cached()) is not None:
        return cached
    environment = {**os.environ, ASKING: "1"}
    asked = subprocess.run(worker_command("offered"), capture_output=True, text=True, env=environment)
    if asked.returncode != 0:
        return stored  # without torch here, what is not in the file cannot be checked, and check_names will say so
    fresh: dict[str, Any] = json.loads(asked.stdout)
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
option's kind is one of them, ``list[number]`` and the like, ``=text`` for a text of a few, several joined by ``|``, or
``unknown``."""


def misfit(kind: str, value: Any) -> str:
    """What is expected of an option of this kind instead of ``value``; an empty text where the value will do.

    A text that reads as a truth value or a number will do only where texts are taken: to Python "no" is true.
    """
    texts = [] if isinstance(value, dict) else [part for part in _parts(value) if isinstance(part, str)]
    hint = next(filter(None, map(_meant, texts)), "")
    parts = kind.split("|")
    if any(_fits(part, value) for part in parts) or ("unknown" in parts and not hint):
        return ""
    words = [_words(part) for part in parts if part != "unknown"] or ["true, false or a number"]
    return " or ".join(words) + (f" ({hint})" if hint else "")


def _parts(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _fits(kind: str, value: Any) -> bool:
    if kind.startswith("="):
        return bool(value == kind[1:])
    outer, _, inner = kind.removesuffix("]").partition("[")
    if outer not in KINDS or not KINDS[outer][1](value):
        return False
    return outer != "list" or not any(misfit(inner or "unknown", part) for part in value)


def _words(kind: str) -> str:
    outer, _, inner = kind.removesuffix("]").partition("[")
    words = kind[1:] if kind.startswith("=") else KINDS[outer][0]
    return f"{words}, each {KINDS[inner][0]}" if inner else words


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
    except (OSError, ValueError, KeyError, TypeError):
        return None  # damaged, or not ours to read: it is written anew


def _cache() -> Path:
    """One file a copy of the package, so that two checkouts do not overwrite each other's answers."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "deit-ablate" / f"names-{hashlib.sha256(os.fsencode(PACKAGE)).hexdigest()[:16]}.json"
