"""What a training is: the defaults, and which fields are switches."""

from __future__ import annotations

import pytest

from deit_ablate.errors import InputError
from deit_ablate.identity import derived
from deit_ablate.recipe import Recipe, switches
from deit_ablate.sweep.overrides import to_recipe
from deit_ablate.sweep.yaml import parse


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


def test_switches_have_their_off_value_beside_the_field() -> None:
    off = switches()
    assert off["augment.auto_augment"] is None
    assert off["augment.repeats"] == 1
    assert off["augment.custom"] == []
    assert "augment.crop" not in off
    for key, value in off.items():
        block, _, name = key.partition(".")
        assert getattr(Recipe.model_validate({block: {name: value}}), block).model_dump()[name] == value


def test_a_custom_augmentation_is_a_name_or_a_name_with_options() -> None:
    first, second = made('augment: {custom: ["mylab:noise", {name: mylab:blur, options: {sigma: 2}}]}').augment.custom
    assert (first.name, first.options, second.name, second.options) == ("mylab:noise", {}, "mylab:blur", {"sigma": 2})
    for wrong, said in (
        ("[noise]", 'x.yaml:1:20: augment.custom.0: got "noise"; expected module:function'),
        ("[{name: mylab:noise, option: {}}]", "augment.custom.0.option: unknown key 'option'; did you mean 'options'?"),
        ("mylab:noise", 'augment.custom: got "mylab:noise"; expected a list'),
        (
            "[{name: mylab:noise, options: {by: .nan}}]",
            "augment.custom.0.options.by: got NaN; expected a finite number",
        ),
        ("[{name: mylab:noise, options: {by: [[0, .nan]]}}]", "custom.0.options.by.0.1: got NaN; expected a finite"),
    ):
        with pytest.raises(InputError) as error:
            made(f"augment: {{custom: {wrong}}}")
        assert said in str(error.value)


def made(text: str) -> Recipe:
    return to_recipe(parse(text, "x.yaml"))
