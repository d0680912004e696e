"""Looking a name up: in a registry (a dictionary), or as a custom ``module:function``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from deit_ablate.errors import TrainError, did_you_mean

Entry = TypeVar("Entry")


def load(name: str) -> Any:
    """The object called ``module:function``. Raises TrainError where there is no such module or attribute."""
    module_name, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except ImportError as error:
        raise TrainError(f"{name}: cannot import {module_name!r} ({error})") from error
    except AttributeError:
        raise TrainError(f"{name}: {module_name!r} has no {attribute!r}") from None


def source_sha256(name: str) -> str:
    """SHA-256 of the source of the module in ``module:function``. Raises TrainError where it has no source file."""
    module_name = name.partition(":")[0]
    try:
        found = importlib.util.find_spec(module_name)
    except (ImportError, ValueError) as error:
        raise TrainError(f"{name}: cannot find {module_name!r} ({error})") from error
    if found is None:
        raise TrainError(f"{name}: cannot find {module_name!r}; install it, or add its folder to PYTHONPATH")
    if found.origin is None or not Path(found.origin).is_file():
        raise TrainError(f"{name}: {module_name!r} has no source file")
    return hashlib.sha256(Path(found.origin).read_bytes()).hexdigest()


FEW = 12
"""Names up to which an error lists them all."""


def lookup(kind: str, name: str, registry: Mapping[str, Entry]) -> Entry:
    """The registry's entry, or a custom ``module:function``. Raises TrainError naming the nearest known name."""
    if name in registry:
        return registry[name]
    if ":" in name:
        entry: Entry = load(name)
        return entry
    few = f" (there are {', '.join(registry)})" if len(registry) <= FEW else ""
    raise TrainError(f"no {kind} is called {name!r}{did_you_mean(name, registry)}{few}")


def option_names(function: Callable[..., Any], skip: Iterable[str]) -> list[str] | None:
    """The keyword arguments that a function takes, less ``skip``; None where it takes any (``**kwargs``)."""
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters if parameter.name not in set(skip)]


def check_options(owner: str, options: Mapping[str, Any], known: list[str] | None) -> None:
    """Raises TrainError for an option that the owner does not have."""
    for option in options:
        if known is not None and option not in known:
            raise TrainError(
                f"{owner} has no option {option!r}{did_you_mean(option, known)} (it has {', '.join(known) or 'none'})"
            )
