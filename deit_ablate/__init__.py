"""deit-ablate: run the ablation study of a vision transformer's training recipe.

from deit_ablate import Recipe, load, load_curves, load_model, profile, train
frame = load("results", "optimizers")          # one row a run
curves = load_curves("results", "optimizers")  # one row a run and epoch
model = load_model("results", "optimizers:adamw:0")  # in evaluation mode, with its transform and classes
outcome = train(profile("digits", "schedule.epochs=10"))
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_PLACES = {
    "Recipe": "recipe",
    "profile": "sweep.profiles",
    "load": "report.frame",
    "load_curves": "report.frame",
    "DeiT": "train.notebook",
    "DistillWrapper": "train.notebook",
    "distillation_loss": "train.distill",
    "check_resume": "worker.trainer",
    "load_model": "worker.models",
}
"""What a notebook imports from here -> where it is; imported when used: pandas takes half a second, torch five."""


def __getattr__(name: str) -> Any:
    """One of _PLACES, or ``train``: the package of the trainer, which can be called."""
    if name in _PLACES:
        return getattr(importlib.import_module(f"deit_ablate.{_PLACES[name]}"), name)
    if name == "train":
        return importlib.import_module("deit_ablate.train")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_PLACES, "train", "__version__"])
