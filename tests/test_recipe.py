"""What a training is, by default."""

from __future__ import annotations

import pytest

from deit_ablate.identity import derived
from deit_ablate.recipe import Recipe


def test_the_defaults_are_deits_table_9() -> None:
    recipe = Recipe()
    assert (recipe.schedule.epochs, recipe.schedule.batch_size, recipe.schedule.warmup_epochs) == (300, 1024, 5)
    assert (
        recipe.optimizer.name,
        recipe.optimizer.base_lr,
        recipe.optimizer.weight_decay,
        recipe.optimizer.clip_grad,
    ) == ("adamw", 5e-4, 0.05, None)
    assert (recipe.regularize.label_smoothing, recipe.regularize.dropout, recipe.regularize.drop_path) == (0.1, 0, 0.1)
    assert (recipe.augment.repeats, recipe.augment.mixup, recipe.augment.cutmix, recipe.augment.erasing) == (
        3,
        0.8,
        1.0,
        0.25,
    )
    assert recipe.augment.auto_augment == "rand-m9-mstd0.5-inc1", "9/0.5"
    assert derived(recipe)["effective_lr"] == pytest.approx(1e-3), "0.0005 x 1024 / 512"
