"""What a run takes from an earlier one: a teacher's logits, or weights to start from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from deit_ablate.recipe import Recipe
from deit_ablate.train import checkpoint
from deit_ablate.train.data import Dataset, Splits
from deit_ablate.train.distill import distillation_of
from deit_ablate.train.errors import TrainError
from deit_ablate.train.evaluate import classifiers
from deit_ablate.train.model import build_model, heads, shape_of


@dataclass(frozen=True)
class Parent:
    """A finished run: its recipe, the checkpoint file that holds its weights, and which of them are meant."""

    recipe: Recipe
    weights: Path
    which: Literal["last", "ema"] = "last"


def parent_weights(parent: Parent) -> dict[str, Tensor]:
    """The parent's state dict, on the CPU. Raises CheckpointError for a damaged file, TrainError where it has no EMA."""
    state = checkpoint.load(parent.weights)
    weights: dict[str, Tensor] | None = state["ema" if parent.which == "ema" else "model"]
    if weights is None:
        raise TrainError(f"{parent.weights} holds no moving average: the parent ran with regularize.ema_decay: null")
    return weights


class Teacher:
    """Logits (B, K) of a trained model in evaluation mode, without gradients, for the student's very images.

    The normalisation is the data set's, so it is the same for both; images are resized (bicubic) where the
    teacher's resolution is another. A teacher of two heads answers with their fused softmaxes.
    """

    def __init__(self, parent: Parent, dataset: Dataset, device: torch.device) -> None:
        recipe = parent.recipe
        count = distillation_of(recipe.distill.type).heads
        shape = shape_of(recipe, len(dataset.classes), dataset.channels, count)
        model = build_model(recipe.model.name, recipe.model.options, shape)
        try:
            model.load_state_dict(parent_weights(parent))
        except RuntimeError as error:
            raise TrainError(
                f"the teacher's weights ({parent.weights}) do not fit its recipe or this data: {error}"
            ) from error
        self.model = model.to(device).eval().requires_grad_(False)
        self.resolution = recipe.data.resolution

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        if images.shape[-1] != self.resolution:
            size = (self.resolution, self.resolution)
            images = F.interpolate(images, size=size, mode="bicubic", align_corners=False, antialias=True)
        outputs = heads(self.model, images)
        return outputs[0] if outputs[1] is None else classifiers(outputs)["fused_softmax"]


def build_teacher(
    recipe: Recipe, data: Splits, parent: Parent | None, weights: Path | None, device: torch.device
) -> Teacher | None:
    """The teacher that the distillation type asks for. Raises TrainError where it asks for one and there is none."""
    if not distillation_of(recipe.distill.type).teacher:
        return None
    if parent is None:
        raise TrainError(
            f"distill.type {recipe.distill.type} needs a teacher: a stage of the sweep, given as parents['teacher']"
        )
    return Teacher(parent, data.dataset, device)
