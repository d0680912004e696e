"""Augmentation per batch: mixup and CutMix, and the targets that go with them.

To add one, write a function of the recipe and the number of classes that returns the operation, or None where
the recipe has it off, and give it a line in ``MIXINGS``.
"""

from __future__ import annotations

from collections.abc import Callable

from timm.data.mixup import Mixup
from torch import Tensor

from deit_ablate.recipe import Recipe

Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Images (B, C, H, W), changed in place, and targets (B,) to images and targets (B,) or (B, K)."""


def mixup_cutmix(recipe: Recipe, classes: int) -> Mixing | None:
    """Timm's mixup and CutMix, per batch, with the label smoothing in the mixed targets (B, K).

    With one of the two off the other gets every batch, as in the reference code. Draws from numpy's generator.
    """
    if not recipe.mixes:
        return None
    augment = recipe.augment
    return Mixup(
        mixup_alpha=augment.mixup, cutmix_alpha=augment.cutmix, prob=augment.mix_prob, switch_prob=augment.mix_switch,
        mode="batch", label_smoothing=recipe.regularize.label_smoothing, num_classes=classes,
    )  # fmt: skip


MIXINGS: dict[str, Callable[[Recipe, int], Mixing | None]] = {
    "mixup-cutmix": mixup_cutmix,
}


def build_mixing(recipe: Recipe, classes: int) -> Mixing:
    """All that the recipe has on, in order; images and targets as they are where it has none."""
    operations = [operation for build in MIXINGS.values() if (operation := build(recipe, classes))]

    def mix(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        for operation in operations:
            images, targets = operation(images, targets)
        return images, targets

    return mix
