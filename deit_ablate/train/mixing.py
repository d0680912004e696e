"""Augmentation per batch: mixup and CutMix, and the targets that go with them.

To add one, write a function of its field's value, the recipe and the number of classes that returns the operation,
and give it an entry in ``MIXINGS`` with an ``AddedField``. Where a recipe has it on, the targets of every batch must be
shares (B, K), which hold the label smoothing, and images must be paired as timm does: the i-th with the i-th from the
end, so that a batch can be cut into chunks (``distributed.Share``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from timm.data import mixup as timm_mixup
from torch import Tensor

from deit_ablate.errors import TrainError
from deit_ablate.recipe import AddedField, Recipe, Regularize
from deit_ablate.train.streams import seed_generators, stream

Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Images (B, C, H, W), changed in place, and targets (B,) to images and targets (B,) or (B, K)."""


class Mixup(timm_mixup.Mixup):
    """Timm's, whose decisions do not shift one another: whether a batch is mixed, by which of the two, mixup's share,
    CutMix's share and the place of its box each begin with a number of their own from numpy's generator."""

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Timm's, whose targets are blended only where images are: most batches of a recipe may not be."""
        share, rest = self._mix_batch(images), self.label_smoothing / self.num_classes
        shares = timm_mixup.one_hot(targets, self.num_classes, 1 - self.label_smoothing + rest, rest)
        return images, shares if share == 1 else shares * share + shares.flip(0) * (1 - share)

    def _params_per_batch(self) -> tuple[float, bool]:
        mixup, cutmix, box = np.random.randint(2**32, size=3, dtype=np.uint64).tolist()
        mixed, cut = np.random.rand(2)
        if mixed >= self.mix_prob:
            return 1.0, False
        both = self.mixup_alpha > 0 and self.cutmix_alpha > 0
        use_cutmix = cut < self.switch_prob if both else self.cutmix_alpha > 0
        alpha = self.cutmix_alpha if use_cutmix else self.mixup_alpha
        np.random.seed(cutmix if use_cutmix else mixup)  # a RandomState of its own takes 50 times as long to make
        share = np.random.beta(alpha, alpha)
        np.random.seed(box)  # timm draws the box next
        return float(share), bool(use_cutmix)


def mixup_cutmix(value: None, recipe: Recipe, classes: int) -> Mixing | None:
    """Timm's mixup and CutMix, per batch, with the label smoothing in the mixed targets (B, K).

    A batch that ``mix_prob`` leaves alone gets smoothed targets (B, K) too.

    With one of the two off the other gets every batch, as in the reference code. Draws from numpy's generator.
    """
    augment = recipe.augment
    if not augment.mixup_or_cutmix:
        return None
    return Mixup(
        mixup_alpha=augment.mixup,
        cutmix_alpha=augment.cutmix,
        prob=augment.mix_prob,
        switch_prob=augment.mix_switch,
        mode="batch",
        label_smoothing=smoothing_over_all(recipe.regularize, classes),
        num_classes=classes,
    )


def smoothing_over_all(regularize: Regularize, classes: int) -> float:
    """The smoothing as timm's losses and mixed targets take it: spread over all K classes, the label's among them.

    ``others`` leaves 1 - eps on the label and puts eps / (K - 1) on each other class. That is eps' = eps K / (K - 1)
    spread over all: 1 - eps' + eps' / K = 1 - eps, and eps' / K = eps / (K - 1).
    Raises TrainError where the label would get no more than each other class.
    """
    smoothing = regularize.label_smoothing
    if not smoothing or regularize.smoothing_over == "all":
        return smoothing
    if smoothing * classes >= classes - 1:
        raise TrainError(
            f"regularize.label_smoothing {smoothing:g} over the {classes - 1} wrong classes leaves the label no more "
            f"than each of them: it must be below {(classes - 1) / classes:g}"
        )
    return smoothing * classes / (classes - 1)


@dataclass(frozen=True)
class Mixer:
    """``build(value, recipe, classes)`` gives the operation, or None where it is off. ``value`` is the recipe's, of the
    ``field`` that comes with the entry; it is None where the fields are those of ``recipe.Augment``."""

    build: Callable[[Any, Recipe, int], Mixing | None]
    field: AddedField | None = None


MIXINGS: dict[str, Mixer] = {
    "mixup-cutmix": Mixer(mixup_cutmix),
}


def build_mixing(recipe: Recipe, classes: int) -> Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]:
    """All that the recipe has on, in order: mix(images, targets, step), each operation in its own stream of the step.
    Images and targets are as they are where it has none."""
    operations: dict[str, Mixing] = {}
    for name, entry in MIXINGS.items():
        value = getattr(recipe.augment, name, entry.field.off) if entry.field else None
        on = entry.field is None or value != entry.field.off
        if on and (operation := entry.build(value, recipe, classes)) is not None:
            operations[name] = operation

    def mix(images: Tensor, targets: Tensor, step: int) -> tuple[Tensor, Tensor]:
        for name, operation in operations.items():
            seed_generators(stream(recipe.seed, f"mix/{name}", step))
            images, targets = operation(images, targets)
        return images, targets

    return mix
