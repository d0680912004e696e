"""What a run takes from an earlier one: a teacher's logits, or weights to start from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deit_ablate import files
from deit_ablate.errors import TrainError
from deit_ablate.recipe import Recipe
from deit_ablate.train import checkpoint
from deit_ablate.train.data.sets import Dataset, Splits
from deit_ablate.train.distill import distillation_of
from deit_ablate.train.evaluate import classifiers
from deit_ablate.train.model import build_model, heads, load_weights, shape_of
from deit_ablate.train.teachers import named_teacher


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
    """Logits (B, K), float32, of a trained model in evaluation mode, without gradients, for the student's very images
    (B, C, H, W), which come in the data set's normalisation.

    They are resized (bicubic, antialiased) where the teacher's resolution is another, and brought into the teacher's
    own normalisation where that is another. A teacher of two heads answers with their fused softmaxes.
    """

    def __init__(
        self, model: nn.Module, resolution: int, device: torch.device, into: tuple[Tensor, Tensor] | None = None
    ) -> None:
        """``into``: factor and summand per channel, (C, 1, 1), from the data set's normalisation to the teacher's."""
        self.model = model.to(device).eval().requires_grad_(False)
        self.resolution = resolution
        self.into = None if into is None else tuple(part.to(device) for part in into)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        if images.shape[-1] != self.resolution:
            size = (self.resolution, self.resolution)
            images = F.interpolate(images, size=size, mode="bicubic", align_corners=False, antialias=True)
        if self.into is not None:
            images = images * self.into[0] + self.into[1]
        outputs = heads(self.model, images)
        return (outputs[0] if outputs[1] is None else classifiers(outputs)["fused_softmax"]).float()


def build_teacher(
    recipe: Recipe, data: Splits, parent: Parent | None, weights: Path | None, device: torch.device
) -> Teacher | None:
    """The teacher that the distillation type asks for, or None where it asks for none: a run (``parent``), or the
    model that the recipe names, with the weights of this file or timm's own.

    Raises TrainError where there is no teacher, or two, and where its weights are not those that are meant or do not
    fit.
    """
    wanted = recipe.distill
    if not distillation_of(wanted.type).teacher:
        return None
    if parent is not None and wanted.teacher is not None:
        raise TrainError("two teachers: a stage of the sweep (parents['teacher']) and distill.teacher; give one")
    if parent is not None:
        return _run_as_teacher(parent, data.dataset, wanted.teacher_resolution, device)
    if wanted.teacher is None:
        raise TrainError(
            f"distill.type {wanted.type} needs a teacher: a stage of the sweep, given as parents['teacher'], or a "
            "pretrained model, named by distill.teacher"
        )
    if wanted.teacher_weights is not None:
        _must_be(weights, wanted.teacher_weights)
    named = named_teacher(
        wanted.teacher, weights, wanted.teacher_resolution, len(data.dataset.classes), data.dataset.channels
    )
    return Teacher(named.model, named.resolution, device, _between(data.dataset, named.mean, named.std))


def _must_be(weights: Path | None, sha256: str) -> None:
    if weights is None:
        raise TrainError("distill.teacher_weights names a file by its content: give its path as teacher_weights")
    if f"sha256:{files.sha256(weights)}" != sha256:
        raise TrainError(f"{weights} is not the file that distill.teacher_weights names: its content is another")


def _run_as_teacher(parent: Parent, dataset: Dataset, resolution: int | None, device: torch.device) -> Teacher:
    """A finished run, at the resolution that it was trained at or at another: a transformer's position embeddings are
    then interpolated, as when fine-tuning. Its normalisation is the data set's, so it is the student's."""
    recipe = parent.recipe
    shape = shape_of(recipe, len(dataset.classes), dataset.channels, distillation_of(recipe.distill.type).heads)
    resolution = resolution or recipe.data.resolution
    model = build_model(recipe.model.name, recipe.model.options, replace(shape, resolution=resolution))
    weights = parent_weights(parent)
    try:
        if resolution == recipe.data.resolution:
            model.load_state_dict(weights)
        else:
            _same_classes(model, weights)
            load_weights(model, weights)
    except (RuntimeError, TrainError) as error:
        raise TrainError(
            f"the teacher's weights ({parent.weights}) do not fit its recipe or this data: {error}"
        ) from error
    return Teacher(model, resolution, device)


def _same_classes(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """``load_weights`` lets a head of other classes start afresh: of a teacher that would be noise."""
    for name, own in model.state_dict().items():
        if name.startswith("head") and name in weights and weights[name].shape != own.shape:
            raise TrainError(f"{name} has shape {tuple(weights[name].shape)}, not {tuple(own.shape)}")


def _between(
    dataset: Dataset, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> tuple[Tensor, Tensor] | None:
    """Factor and summand, (C, 1, 1), from the data set's normalisation to this one; None where they are the same:
    (pixels - mean) / std, with pixels = normalised * std' + mean'."""
    if mean is None or std is None or (tuple(dataset.mean) == mean and tuple(dataset.std) == std):
        return None
    theirs_mean, theirs_std, our_mean, our_std = (
        torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (mean, std, dataset.mean, dataset.std)
    )
    return (our_std / theirs_std).float(), ((our_mean - theirs_mean) / theirs_std).float()
