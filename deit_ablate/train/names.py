"""What can be called by name: the content of ``names.json``, and answers about names that are not in it.

The rest of the package plans sweeps without torch, from ``names.json``; this module, which has torch, writes it
(``make names``) and answers what it cannot know: timm names newer than the file, and custom ``module:function``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from timm.models.deit import VisionTransformerDistilled

from deit_ablate.errors import TrainError, nearest
from deit_ablate.names import PACKAGE, hashes
from deit_ablate.program import code_of
from deit_ablate.recipe import AddedField
from deit_ablate.train import augment, distill, mixing, model, optim, registry
from deit_ablate.train.augment import AUGMENTATIONS, TENSOR_AUGMENTATIONS, Custom
from deit_ablate.train.data import sets, vision
from deit_ablate.train.data.sets import DATASETS, DatasetEntry
from deit_ablate.train.distill import DISTILLATIONS, LOSSES, Distillation, Labels, distillation_of
from deit_ablate.train.mixing import MIXINGS
from deit_ablate.train.model import MODELS, Shape, build_model
from deit_ablate.train.optim import OPTIMIZERS, SCHEDULES, optimizer_options, schedule_options, timm_optimizers
from deit_ablate.train.registry import OptionError, check_options, load, lookup, option_kinds

Facts = dict[str, Any]
SOURCES = (augment, distill, mixing, model, optim, registry, sets, vision, sys.modules[__name__])
"""The modules that hold the registries, and those that say what is known of their entries."""
BUILDS = ("load", "term", "build")
"""Fields of registry entries that are functions."""


def offered() -> Facts:
    """The content of ``names.json``: every registry's names with their options and facts, timm's names, and the hashes
    of the sources that say so."""
    return {
        "sources": hashes(Path(str(module.__file__)).relative_to(PACKAGE).as_posix() for module in SOURCES),
        "timm": timm.__version__,
        "models": {name: _model_facts(name) for name in MODELS},
        "timm_models": sorted(timm.list_models()),
        "timm_distilled": sorted(name for name in timm.list_models("*distilled*") if _has_token(name)),
        "timm_pretrained": sorted(timm.list_models(pretrained=True)),
        "optimizers": {name: _optimizer_facts(name) for name in sorted(KINDS["optimizers"].known())},
        "distillations": {name: _entry_facts(kind) for name, kind in DISTILLATIONS.items()},
        "datasets": {name: _entry_facts(entry) for name, entry in DATASETS.items()},
        "losses": {name: _entry_facts(entry) for name, entry in LOSSES.items()},
        "schedules": {name: _schedule_facts(name) for name in SCHEDULES},
        "fields": dict(_fields()),
    }


def _fields() -> Iterator[tuple[str, Facts]]:
    """The fields of the recipe's ``augment`` that come with an entry."""
    for entries in (AUGMENTATIONS, TENSOR_AUGMENTATIONS, MIXINGS):
        for name, entry in entries.items():
            if isinstance(entry.field, AddedField):
                yield name, {**dataclasses.asdict(entry.field), "mixes": entries is MIXINGS}


def ask(requests: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """An answer to each request {"kind": one of KINDS, "name", "options", ...}.

    An answer has "ok", "error" (None where ok), "option" (the one at fault, or None), "expected" and "nearest" (the
    nearest name, or None), "sources" (the code of a ``module:function``, else empty) and "facts" (what ``names.json``
    would hold).
    ``resolution``, ``channels``, ``classes`` and ``heads`` in a request of a model are those that it must have (224, 3,
    10 and 1 where nothing is known of them before the data are read).
    """
    return [_answer(request) for request in requests]


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    name, kind = request["name"], KINDS.get(request["kind"])
    answer: dict[str, Any] = dict.fromkeys(("error", "option", "expected", "nearest"))
    answer |= {"ok": False, "sources": {}, "facts": {}}
    try:
        if kind is None:
            raise TrainError(f"nothing of the kind {request['kind']!r} has a name")
        if ":" in name:
            answer["sources"] = code_of(name)
        answer["facts"] = kind.facts(request)
        answer["ok"] = True
    except TrainError as error:
        answer["error"] = str(error)
        answer["option"] = error.option if isinstance(error, OptionError) else None
        if kind is not None and ":" not in name and name not in (known := kind.known()):
            answer["nearest"] = nearest(name, known)
            answer["expected"] = f"a name such as {answer['nearest']}" if answer["nearest"] else None
    except Exception as error:  # custom code may raise anything; planning must still say what and where
        answer["error"] = f"{name}: {type(error).__name__}: {error}"
    return answer


def _model(request: dict[str, Any]) -> Facts:
    """Build it, on the meta device, which costs no memory: a random-weights model of any size takes milliseconds."""
    name, options = request["name"], request.get("options") or {}
    channels, classes, heads = request.get("channels", 3), request.get("classes", 10), request.get("heads", 1)
    shape = Shape(request.get("resolution") or 224, channels, classes, heads, 0.0, 0.0)
    if ":" not in name and name not in MODELS and not timm.is_model(name):
        raise TrainError(f"no model is called {name!r}")
    logging.disable(logging.WARNING)
    try:
        with torch.device("meta"):
            built = build_model(name, options, shape, check=False)
    finally:
        logging.disable(logging.NOTSET)
    known = option_kinds(load(name), skip=("shape",)) if ":" in name else None
    return {"options": known, "parameters": sum(parameter.numel() for parameter in built.parameters())}


def _model_facts(name: str) -> Facts:
    parameters, built = inspect.signature(MODELS[name]).parameters, []
    for count in (1, 2):
        with torch.device("meta"), contextlib.suppress(TrainError):
            build_model(name, {}, Shape(224, 3, 10, count, 0.0, 0.0))
            built.append(count)
    facts = {"options": option_kinds(MODELS[name], skip=("shape",)), "heads": built}
    return facts | ({"patch": parameters["patch_size"].default} if "patch_size" in parameters else {})


def _has_token(name: str) -> bool:
    """Whether one of timm's models has a distillation token that the trainer knows."""
    with torch.device("meta"):
        return isinstance(timm.create_model(name), VisionTransformerDistilled)


def _optimizer(request: dict[str, Any]) -> Facts:
    name = request["name"]
    if ":" in name and not callable(load(name)):
        raise TrainError(f"{name} is not a function")
    facts = _optimizer_facts(name)
    check_options(f"the optimizer {name}", request.get("options") or {}, facts["options"])
    return facts


def _optimizer_facts(name: str) -> Facts:
    entry = OPTIMIZERS.get(name)
    return {"options": optimizer_options(name), "base_lr": entry.base_lr if entry else None}


def _schedule_facts(name: str) -> Facts:
    return {
        "options": schedule_options(name),
        "min_lr": "lr_min" in inspect.signature(SCHEDULES[name].build).parameters,
    }


def _entry_facts(entry: Distillation | DatasetEntry | Labels) -> Facts:
    """What an entry says, less the function that it is of."""
    return {field.name: getattr(entry, field.name) for field in dataclasses.fields(entry) if field.name not in BUILDS}


def _dataset(request: dict[str, Any]) -> Facts:
    name = request["name"]
    if name in DATASETS:
        return _entry_facts(DATASETS[name])
    if ":" not in name:
        raise TrainError(f"no data set is called {name!r}")
    function = load(name)
    if not callable(function) or len(inspect.signature(function).parameters) != 2:
        raise TrainError(f"{name} is not a function of (the recipe's data block, the data folder)")
    return {}


def _augmentation(request: dict[str, Any]) -> Facts:
    return {"takes": Custom.of(request["name"], request.get("options") or {}).takes}


class Kind(NamedTuple):
    """What is called by name: all names that are known, and the facts that answer a request (or its TrainError)."""

    known: Callable[[], list[str]]
    facts: Callable[[dict[str, Any]], Facts]


KINDS: dict[str, Kind] = {
    "models": Kind(lambda: [*MODELS, *timm.list_models()], _model),
    "optimizers": Kind(lambda: list(dict.fromkeys([*OPTIMIZERS, *timm_optimizers()])), _optimizer),
    "distillations": Kind(lambda: list(DISTILLATIONS), lambda request: _entry_facts(distillation_of(request["name"]))),
    "datasets": Kind(lambda: list(DATASETS), _dataset),
    "losses": Kind(lambda: list(LOSSES), lambda request: _entry_facts(lookup("loss", request["name"], LOSSES))),
    "schedules": Kind(lambda: list(SCHEDULES), lambda request: {"options": schedule_options(request["name"])}),
    "augmentations": Kind(list, _augmentation),  # by name only custom ones: the others have fields of the recipe
}
