"""Optimizers, parameter groups and the learning rate."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from tiny import tiny
from torch import nn

from deit_ablate.recipe import Recipe
from deit_ablate.train.errors import TrainError
from deit_ablate.train.model import Shape, build_model
from deit_ablate.train.optim import OPTIMIZERS, build_optimizer, build_schedule, parameter_groups, timm_optimizers
from deit_ablate.train.streams import seed_generators

INPUTS = torch.tensor([[1.0, 0.0, 0.5, -1.0], [0.0, 1.0, -0.5, 1.0], [1.0, 1.0, 0.0, 0.0], [0.5, -1.0, 1.0, 0.0]])
SLOW = {"adadelta": 1.0}
"""Optimizers whose learning rate is on another scale than 0.02."""


def quadratic() -> nn.Linear:
    model = nn.Linear(4, 4)
    with torch.no_grad():
        model.weight.copy_(torch.eye(4) + 0.5)
        model.bias.fill_(0.3)
    return model


def step(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> float:
    seed_generators(number)
    loss = model(INPUTS).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def recipe_for(name: str, **changes: Any) -> Recipe:
    lr = SLOW.get(name, 0.02)  # of a batch of 512, so that it is the effective one
    optimizer = {"name": name, "base_lr": lr, "weight_decay": 0.01, "clip_grad": None, **changes}
    return tiny(optimizer=optimizer, schedule={"batch_size": 512})


@pytest.mark.parametrize("name", sorted({*OPTIMIZERS, *timm_optimizers()}))
def test_every_optimizer_descends_and_resumes_to_the_bit(name: str) -> None:
    model = quadratic()
    optimizer = build_optimizer(recipe_for(name), model)
    losses = [step(model, optimizer, number) for number in range(6)]
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    losses += [step(model, optimizer, number) for number in range(6, 15)]
    assert losses[-1] < losses[0]

    file.seek(0)
    state = torch.load(file, weights_only=True)
    resumed = quadratic()
    resumed.load_state_dict(state["model"])
    optimizer = build_optimizer(recipe_for(name), resumed)
    optimizer.load_state_dict(state["optimizer"])
    assert [step(resumed, optimizer, number) for number in range(6, 15)] == losses[6:]
    assert torch.equal(resumed.weight, model.weight)


def test_sgd_is_nesterov_unless_told_otherwise() -> None:
    groups = build_optimizer(recipe_for("sgd"), quadratic()).param_groups
    assert all(group["nesterov"] and group["momentum"] == 0.9 for group in groups)
    groups = build_optimizer(recipe_for("sgd", options={"momentum": 0.5, "nesterov": False}), quadratic()).param_groups
    assert all(not group["nesterov"] and group["momentum"] == 0.5 for group in groups)


def test_options_reach_the_optimizer_and_wrong_ones_are_refused() -> None:
    assert build_optimizer(recipe_for("adamw", options={"betas": [0.8, 0.9]}), quadratic()).defaults["betas"] == (
        0.8,
        0.9,
    )
    with pytest.raises(TrainError, match=r"adamw has no option 'beta' .did you mean 'betas'"):
        build_optimizer(recipe_for("adamw", options={"beta": 0.9}), quadratic())
    with pytest.raises(TrainError, match="lion has no option 'eps'"):  # timm alone would drop it without a word
        build_optimizer(recipe_for("lion", options={"eps": 1e-3}), quadratic())
    with pytest.raises(TrainError, match="did you mean 'adamw'"):
        build_optimizer(recipe_for("adamww"), quadratic())
    with pytest.raises(TrainError, match="adamw refuses"):
        build_optimizer(recipe_for("adamw", options={"betas": [2.0, 0.9]}), quadratic())


def test_no_decay_for_biases_norms_tokens_and_positions() -> None:
    model = build_model(
        "deit", {"embed_dim": 16, "depth": 1, "num_heads": 2, "patch_size": 8}, Shape(16, 1, 10, 2, 0, 0)
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed: dict[float, set[str]] = {}
    for group in parameter_groups(model, 0.05):
        decayed.setdefault(group["weight_decay"], set()).update(names[id(parameter)] for parameter in group["params"])
    assert decayed[0.05] == {
        "patch_embed.proj.weight",
        "blocks.0.attn.qkv.weight",
        "blocks.0.attn.proj.weight",
        "blocks.0.mlp.fc1.weight",
        "blocks.0.mlp.fc2.weight",
        "head.weight",
        "head_dist.weight",
    }
    assert {"cls_token", "dist_token", "pos_embed", "norm.weight", "head.bias", "patch_embed.proj.bias"} <= decayed[0.0]
    assert decayed[0.05] | decayed[0.0] == set(names.values())


def rates(recipe: Recipe, steps_per_epoch: int) -> list[float]:
    optimizer = torch.optim.SGD(
        [nn.Parameter(torch.zeros(1))], lr=recipe.optimizer.base_lr * recipe.schedule.batch_size / 512
    )
    set_lr = build_schedule(recipe, optimizer, steps_per_epoch)
    return [set_lr(step) for step in range(recipe.schedule.epochs * steps_per_epoch)]


def test_by_epoch_it_lags_as_the_reference_code_does() -> None:
    recipe = Recipe(schedule={"stepping": "epoch"})  # Table 9: base lr 5e-4, batch 1024, 300 epochs, 5 of warm-up
    found = rates(recipe, steps_per_epoch=2)
    assert found[0:14:2] == found[1:14:2]
    expected = [1e-6, 1e-6, 2.008e-4, 4.006e-4, 6.004e-4, 8.002e-4, 9.993e-4]
    assert found[0:14:2] == pytest.approx(expected, rel=1e-4)
    assert found[-1] == pytest.approx(1e-5, rel=0.02)


def test_by_step_it_rises_evenly_and_falls_to_the_minimum() -> None:
    recipe = Recipe(
        schedule={"epochs": 10, "warmup_epochs": 2.5, "batch_size": 1024, "warmup_lr": 1e-6, "min_lr": 1e-5}
    )
    found = rates(recipe, steps_per_epoch=4)
    assert found[:10] == pytest.approx([1e-6 + step * (1e-3 - 1e-6) / 10 for step in range(10)])
    # the cosine runs from step 0, so at half time the rate is half way between maximum and minimum
    assert found[20] == pytest.approx((1e-3 + 1e-5) / 2)
    assert found[10:] == sorted(found[10:], reverse=True)
    assert 1e-5 < found[-1] < 2e-5


def test_warm_up_and_minimum_are_not_scaled_but_never_above_the_peak() -> None:
    recipe = Recipe(
        optimizer={"base_lr": 1e-6},
        schedule={"epochs": 4, "warmup_epochs": 1, "batch_size": 512, "min_lr": 1e-3, "warmup_lr": 1e-2},
    )
    assert rates(recipe, steps_per_epoch=3) == pytest.approx([1e-6] * 12)


def test_the_schedule_is_a_function_of_the_step() -> None:
    recipe = tiny()
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-3)
    set_lr = build_schedule(recipe, optimizer, 6)
    forward = [set_lr(step) for step in range(12)]
    assert [set_lr(step) for step in reversed(range(12))] == forward[::-1]
    assert copy.deepcopy(optimizer.param_groups[0]["lr"]) == forward[0]
