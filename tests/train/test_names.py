"""names.json is what the registries offer, and what it does not know is answered."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import timm
from PIL import Image
from tiny import tiny
from torch import nn

from deit_ablate.names import names as known_names
from deit_ablate.program import code_of
from deit_ablate.train.data.sets import DATASETS, load_data
from deit_ablate.train.distill import Distillation, hard
from deit_ablate.train.model import Shape
from deit_ablate.train.names import ask, offered


def test_names_json_is_not_stale() -> None:
    stored, fresh = known_names(), json.loads(json.dumps(offered()))
    if stored["timm"] != timm.__version__:
        pytest.skip(f"names.json was made with timm {stored['timm']}")
    assert stored == fresh, "run `make names`"


def test_what_is_said_of_digits_is_so() -> None:
    facts, data = known_names()["datasets"]["digits"], load_data(tiny(data={"train_images": None}), None).dataset
    found = {"classes": len(data.classes), "train": len(data.train), "test": len(data.test), "channels": data.channels}
    assert {key: facts[key] for key in found} == found


def own_model(shape: Shape, *, width: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(shape.channels * shape.resolution**2, width), nn.Linear(width, shape.classes)
    )


def own_optimizer(groups: Any, *, lr: float, weight_decay: float, nesting: int = 1) -> Any:
    raise NotImplementedError


OWN_DISTILLATION = Distillation(hard, heads=2, alpha=0.3)


def own_data(data: Any, folder: Any) -> Any:
    return DATASETS["digits"].load(data, folder)


def own_augmentation(image: Image.Image, rng: np.random.RandomState, *, sigma: float) -> Image.Image:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("request_", "facts"),
    [
        (
            {"kind": "models", "name": "vit_tiny_patch16_224", "options": {"depth": 2}, "resolution": 32},
            {"options": None},
        ),
        ({"kind": "models", "name": f"{__name__}:own_model", "options": {"width": 5}}, {"options": {"width": "int"}}),
        (
            {"kind": "optimizers", "name": f"{__name__}:own_optimizer", "options": {"nesting": 2}},
            {"options": {"nesting": "int"}, "base_lr": None},
        ),
        ({"kind": "optimizers", "name": "lion", "options": {"betas": [0.9, 0.99]}}, {"base_lr": None}),
        (
            {"kind": "distillations", "name": f"{__name__}:OWN_DISTILLATION"},
            {"heads": 2, "teacher": True, "alpha": 0.3, "tau": False},
        ),
        ({"kind": "datasets", "name": f"{__name__}:own_data"}, {}),
        (
            {"kind": "augmentations", "name": f"{__name__}:own_augmentation", "options": {"sigma": 2}},
            {"takes": "image"},
        ),
    ],
)
def test_known_to_torch_alone(request_: dict[str, Any], facts: dict[str, Any]) -> None:
    (answer,) = ask([request_])
    assert answer["ok"], answer["error"]
    assert answer["error"] is None
    assert facts.items() <= answer["facts"].items()
    expected = code_of(__name__) if ":" in request_["name"] else {}
    assert answer["sources"] == expected


@pytest.mark.parametrize(
    ("request_", "error", "near"),
    [
        ({"kind": "models", "name": "deit_tinyy"}, "no model is called 'deit_tinyy'", "deit_tiny"),
        ({"kind": "models", "name": "resnet18", "options": {"dpeth": 1}}, "resnet18 has no option 'dpeth'", None),
        (
            {"kind": "models", "name": "deit", "options": {"patch_size": 5}, "resolution": 16},
            "16 is not a multiple of the patch size 5",
            None,
        ),
        (
            {"kind": "models", "name": f"{__name__}:own_model", "options": {"wdith": 5}},
            "did you mean 'width'",
            None,
        ),
        (
            {"kind": "models", "name": f"{__name__}:own_model", "options": {"width": "5"}},
            "option 'width': got \"5\"; expected a whole number (write it without quotes)",
            None,
        ),
        (
            {"kind": "models", "name": "vit_tiny_patch16_224", "options": {"qkv_bias": 1}},
            "option 'qkv_bias': got 1; expected true or false",
            None,
        ),
        ({"kind": "models", "name": f"{__name__}:nothing"}, "has no 'nothing'", None),
        ({"kind": "models", "name": "no_such_module:net"}, "cannot find 'no_such_module'", None),
        ({"kind": "optimizers", "name": "adamx"}, "no optimizer is called 'adamx'", "adamw"),
        ({"kind": "optimizers", "name": "fusedadam"}, "needs apex", None),
        ({"kind": "optimizers", "name": "adamw", "options": {"momentum": 1}}, "adamw has no option 'momentum'", None),
        ({"kind": "distillations", "name": "hardtoken"}, "no distillation type is called", "hard-token"),
        ({"kind": "distillations", "name": f"{__name__}:own_model"}, "own_model", None),
        ({"kind": "datasets", "name": "digit"}, "no data set is called 'digit'", "digits"),
        ({"kind": "datasets", "name": f"{__name__}:OWN_DISTILLATION"}, "is not a function of", None),
        (
            {"kind": "augmentations", "name": f"{__name__}:own_augmentation", "options": {"sigmma": 2}},
            "did you mean 'sigma'",
            None,
        ),
        (
            {"kind": "augmentations", "name": f"{__name__}:own_augmentation"},
            "missing a required argument: 'sigma'",
            None,
        ),
        (
            {"kind": "augmentations", "name": f"{__name__}:own_augmentation", "options": {"sigma": "wide"}},
            "option 'sigma': got \"wide\"; expected a number",
            None,
        ),
        ({"kind": "augmentations", "name": f"{__name__}:own_data"}, "is not a function of (image, rng, ...)", None),
        ({"kind": "augmentations", "name": f"{__name__}:OWN_DISTILLATION"}, "is not a function", None),
        ({"kind": "augmentations", "name": "noise"}, "", None),
        ({"kind": "teapots", "name": "short"}, "nothing of the kind 'teapots'", None),
    ],
)
def test_unknown_names_and_options_are_explained(request_: dict[str, Any], error: str, near: str | None) -> None:
    (answer,) = ask([request_])
    assert not answer["ok"]
    assert error in answer["error"]
    if near:
        assert answer["nearest"] is not None
        assert answer["nearest"].startswith(near[:4])
