"""deit-ablate: run the ablation study of a vision transformer's training recipe.

from deit_ablate import Recipe, load, load_curves, load_model, profile, train
frame = load("results", "optimizers")          # one row a run
curves = load_curves("results", "optimizers")  # one row a run and epoch
model = load_model("results", "optimizers:adamw:0")  # in evaluation mode, with its transform and classes
outcome = train(profile("digits", "schedule.epochs=10"))
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what editors and type checkers see; at run time each is imported when it is used
    from deit_ablate.recipe import Recipe as Recipe
    from deit_ablate.report.frame import load as load
    from deit_ablate.report.frame import load_curves as load_curves
    from deit_ablate.sweep.profiles import profile as profile
    from deit_ablate.train.distill import distillation_loss as distillation_loss
    from deit_ablate.train.notebook import DeiT as DeiT
    from deit_ablate.train.notebook import DistillWrapper as DistillWrapper
    from deit_ablate.train.notebook import train as train
    from deit_ablate.worker.models import load_model as load_model
    from deit_ablate.worker.trainer import check_resume as check_resume

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
