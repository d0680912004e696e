"""Looking a name up: in a registry (a dictionary), or as a custom ``module:function``."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from deit_ablate.errors import TrainError, did_you_mean
from deit_ablate.names import misfit

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


FEW = 12
"""Names up to which an error lists them all."""


def lookup(kind: str, name: str, registry: Mapping[str, Entry]) -> Entry:
    """The registry's entry, or a custom ``module:function``. Raises TrainError naming the nearest known name."""
    if name in registry:
        return registry[name]
    if ":" in name and not name.startswith("torchvision:"):
        entry: Entry = load(name)
        return entry
    few = f" (there are {', '.join(registry)})" if len(registry) <= FEW else ""
    raise TrainError(f"no {kind} is called {name!r}{did_you_mean(name, registry)}{few}")


def option_kinds(function: Callable[..., Any], skip: Iterable[str]) -> dict[str, str]:
    """The keyword arguments that a function or class takes, less ``skip`` -> the kind of each (``names.KINDS``), by its
    annotation and default; ``**`` is among them where it takes any."""
    whole = function.func if isinstance(function, functools.partial) else function
    try:
        hints = typing.get_type_hints(whole.__init__ if inspect.isclass(whole) else whole)
    except Exception:  # names that only a type checker imports
        hints = {}
    kinds = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            kinds["**"] = "unknown"
        elif name not in set(skip) and parameter.kind is not parameter.VAR_POSITIONAL:
            kinds[name] = "|".join(_kinds(hints.get(name, parameter.annotation), parameter.default))
    return kinds


_KIND_OF: dict[Any, str] = {bool: "bool", int: "int", float: "number", str: "str", type(None): "null", Any: "unknown"}


def _kinds(annotation: Any, default: Any) -> list[str]:
    empty = inspect.Parameter.empty
    found = [] if annotation is empty else list(_of_type(annotation))
    if default is not empty and found != ["unknown"]:
        of_default = list(_of_type(type(default)))
        if not found:  # an int by default may be any number, and None may be anything
            of_default = ["number"] if of_default == ["int"] else [] if default is None else of_default
        found += [kind for kind in of_default if f"={default}" not in found]
    if "number" in found:
        found = [kind for kind in found if kind != "int"]
    lists = [kind for kind in found if kind.startswith("list[")]
    return list(dict.fromkeys(kind for kind in found if not (kind == "list" and lists))) or ["unknown"]


def _of_type(annotation: Any) -> Iterator[str]:
    """The kinds of value of a type; none for what a recipe cannot hold, such as a function."""
    origin, arguments = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if origin in _KIND_OF:
        yield _KIND_OF[origin]
    elif origin in (typing.Union, types.UnionType):
        for each in arguments:
            yield from _of_type(each)
    elif origin is typing.Annotated:
        yield from _of_type(arguments[0])
    elif origin is typing.Literal:
        for each in arguments:
            yield f"={each}" if isinstance(each, str) else _KIND_OF.get(type(each), "unknown")
    elif inspect.isclass(origin) and issubclass(origin, Mapping):
        yield "dict"
    elif inspect.isclass(origin) and issubclass(origin, Sequence):
        items = [_of_item(each) for each in arguments if each is not ...]
        yield f"list[{','.join(items)}]" if items not in ([], ["unknown"]) else "list"


def _of_item(annotation: Any) -> str:
    """The kind of a list's items: one that is not of several and no list in turn, else ``unknown``."""
    found = {*_of_type(annotation)}
    return found.pop() if len(found) == 1 and found <= {*_KIND_OF.values()} else "unknown"


class OptionError(TrainError):
    """An option that a model, an optimizer or an augmentation does not take, or not with this value."""

    def __init__(self, option: str, message: str) -> None:
        self.option = option
        super().__init__(message)


def check_options(owner: str, options: Mapping[str, Any], kinds: Mapping[str, str]) -> None:
    """Raises OptionError for an option that the owner does not have, or whose value is of another kind."""
    for option, value in options.items():
        kind = kinds.get(option, kinds.get("**"))
        if kind is None:
            known = ", ".join(kinds) or "none"
            raise OptionError(option, f"{owner} has no option {option!r}{did_you_mean(option, kinds)} (it has {known})")
        if expected := misfit(kind, value):
            raise OptionError(option, f"{owner}, option {option!r}: got {json.dumps(value)}; expected {expected}")
