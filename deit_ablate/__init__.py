"""deit-ablate: run the ablation study of a vision transformer's training recipe.

import deit_ablate
frame = deit_ablate.load("results", "optimizers")          # one row a run
curves = deit_ablate.load_curves("results", "optimizers")  # one row a run and epoch
model = deit_ablate.load_model("results", "optimizers:adamw:0")  # in evaluation mode, with its transform and classes
"""

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``load`` and ``load_curves`` (see ``report.frame``), imported when used: pandas takes half a second; and
    ``check_resume`` (see ``worker.trainer``), for tests of a function that trains, and ``load_model`` (see
    ``worker.models``), which imports torch."""
    if name in ("load", "load_curves"):
        return getattr(importlib.import_module("deit_ablate.report.frame"), name)
    if name == "check_resume":
        return getattr(importlib.import_module("deit_ablate.worker.trainer"), name)
    if name == "load_model":
        return getattr(importlib.import_module("deit_ablate.worker.models"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
