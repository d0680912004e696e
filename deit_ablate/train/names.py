"""What can be called by name: the content of ``names.json``, and answers about names that are not in it.

The rest of the package plans sweeps without torch, from ``names.json``; this module, which has torch, writes it
(``make names``) and answers what it cannot know: timm names newer than the file, and ``module:function``.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable
from typing import Any

import timm
import torch

from deit_ablate.errors import TrainError, nearest
from deit_ablate.train.data.sets import DATASETS, FASHION_DEBIAN
from deit_ablate.train.distill import DISTILLATIONS, Distillation, distillation_of
from deit_ablate.train.model import MODELS, Shape, build_model
from deit_ablate.train.optim import OPTIMIZERS, optimizer_options, timm_optimizers
from deit_ablate.train.registry import check_options, load, option_names, source_sha256

DATASET_FACTS: dict[str, dict[str, int | str | None]] = {
    "digits": {"folder": None, "classes": 10, "train": 1198, "test": 599, "channels": 1, "resolution": 16},
    "fashion-mnist": {
        "folder": str(FASHION_DEBIAN),
        "classes": 10,
        "train": 60_000,
        "test": 10_000,
        "channels": 1,
        "resolution": 28,
    },
    "cifar10": {
        "folder": "--data-dir",
        "classes": 10,
        "train": 50_000,
        "test": 10_000,
        "channels": 3,
        "resolution": 32,
    },
    "cifar100": {
        "folder": "--data-dir",
        "classes": 100,
        "train": 50_000,
        "test": 10_000,
        "channels": 3,
        "resolution": 32,
    },
    "imagenet": {
        "folder": "--data-dir",
        "classes": 1000,
        "train": 1_281_167,
        "test": 50_000,
        "channels": 3,
        "resolution": 224,
    },
    "imagefolder": {
        "folder": "--data-dir",
        "classes": None,
        "train": None,
        "test": None,
        "channels": 3,
        "resolution": None,
    },
}
"""What is known of a data set without reading it; ``train`` counts the images before any are set aside.

``folder`` says where it lies: null where it is shipped, "--data-dir" where the user must say, else a usual place.
"""


def offered() -> dict[str, Any]:
    """The content of ``names.json``: every registry's names with their options, and timm's names."""
    unknown = dict.fromkeys(("folder", "classes", "train", "test", "channels", "resolution"))
    return {
        "timm": timm.__version__,
        "models": {name: {"options": option_names(function, skip=("shape",))} for name, function in MODELS.items()},
        "timm_models": sorted(timm.list_models()),
        "timm_pretrained": sorted(timm.list_models(pretrained=True)),
        "optimizers": {name: _optimizer_facts(name) for name in sorted({*OPTIMIZERS, *timm_optimizers()})},
        "distillations": {name: _distillation_facts(kind) for name, kind in DISTILLATIONS.items()},
        "datasets": {name: dict(DATASET_FACTS.get(name, unknown)) for name in DATASETS},
    }


def ask(requests: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """An answer to each request {"kind": models | optimizers | distillations | datasets, "name", "options", ...}.

    An answer has "ok", "error" (None where ok), "expected" (the options or the nearest name, or None), "nearest",
    "source_sha256" (of the module in ``module:function``, else None) and "facts" (what ``names.json`` would hold).
    ``resolution`` in a request of a model is the size that it must take (224 where absent).
    """
    return [_answer(request) for request in requests]


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    kind, name = request["kind"], request["name"]
    answer: dict[str, Any] = {
        "ok": False,
        "error": None,
        "expected": None,
        "nearest": None,
        "source_sha256": None,
        "facts": {},
    }
    try:
        if kind not in _CHECKS:
            raise TrainError(f"nothing of the kind {kind!r} has a name")
        if ":" in name:
            answer["source_sha256"] = source_sha256(name)
        answer["facts"] = _CHECKS[kind](request)
        answer["ok"] = True
    except TrainError as error:
        answer["error"] = str(error)
        answer["nearest"] = nearest(name, _KNOWN[kind]()) if kind in _KNOWN and not _known(kind, name) else None
        answer["expected"] = f"a name such as {answer['nearest']}" if answer["nearest"] else None
    except Exception as error:  # code of one's own may raise anything; planning must still say what and where
        answer["error"] = f"{name}: {type(error).__name__}: {error}"
    return answer


def _known(kind: str, name: str) -> bool:
    return ":" in name or name in _KNOWN[kind]()


def _model(request: dict[str, Any]) -> dict[str, Any]:
    """Build it, on the meta device, which costs no memory: a random-weights model of any size takes milliseconds."""
    name, options = request["name"], request.get("options") or {}
    shape = Shape(request.get("resolution") or 224, 3, 10, 1, 0.0, 0.0)
    if ":" not in name and name not in MODELS and not timm.is_model(name):
        raise TrainError(f"no model is called {name!r}")
    logging.disable(logging.WARNING)
    try:
        with torch.device("meta"):
            model = build_model(name, options, shape, check=False)
    finally:
        logging.disable(logging.NOTSET)
    known = option_names(load(name), skip=("shape",)) if ":" in name else None
    return {"options": known, "parameters": sum(parameter.numel() for parameter in model.parameters())}


def _optimizer(request: dict[str, Any]) -> dict[str, Any]:
    name = request["name"]
    if ":" in name and not callable(load(name)):
        raise TrainError(f"{name} is not a function")
    facts = _optimizer_facts(name)
    check_options(f"the optimizer {name}", request.get("options") or {}, facts["options"])
    return facts


def _distillation(request: dict[str, Any]) -> dict[str, Any]:
    return _distillation_facts(distillation_of(request["name"]))


def _dataset(request: dict[str, Any]) -> dict[str, Any]:
    name = request["name"]
    if name in DATASETS:
        return dict(DATASET_FACTS.get(name, {}))
    if ":" not in name:
        raise TrainError(f"no data set is called {name!r}")
    function = load(name)
    if not callable(function) or len(inspect.signature(function).parameters) != 2:
        raise TrainError(f"{name} is not a function of (the recipe's data block, the data folder)")
    return {}


_CHECKS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "models": _model,
    "optimizers": _optimizer,
    "distillations": _distillation,
    "datasets": _dataset,
}
_KNOWN: dict[str, Callable[[], list[str]]] = {
    "models": lambda: [*MODELS, *timm.list_models()],
    "optimizers": lambda: [*OPTIMIZERS, *timm_optimizers()],
    "distillations": lambda: list(DISTILLATIONS),
    "datasets": lambda: list(DATASETS),
}


def _optimizer_facts(name: str) -> dict[str, Any]:
    entry = OPTIMIZERS.get(name)
    return {"options": optimizer_options(name), "base_lr": entry.base_lr if entry else None}


def _distillation_facts(kind: Distillation) -> dict[str, Any]:
    return {"heads": kind.heads, "teacher": kind.teacher, "alpha": kind.alpha, "tau": kind.tau}
