"""Optimizers, parameter groups and the learning rate."""

from __future__ import annotations

import copy
import functools
import io
import math
from typing import Any

import pytest
import torch
from support import PROFILES, SWEEPS, planned
from timm.optim import create_optimizer_v2
from tiny import tiny
from torch import nn
from torch.nn import functional as F

from deit_ablate import files
from deit_ablate.errors import TrainError
from deit_ablate.recipe import Recipe
from deit_ablate.train.model import Shape, build_model, heads
from deit_ablate.train.optim import (
    OPTIMIZERS,
    SCHEDULES,
    Ema,
    build_optimizer,
    build_schedule,
    parameter_groups,
    timm_optimizers,
)
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


EVERY = sorted({*OPTIMIZERS, *timm_optimizers()})
DIGITS = torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def small_deit() -> nn.Module:
    """With all kinds of parameters: a convolution, matrices, vectors, two tokens and position embeddings."""
    seed_generators(0)
    options = {"embed_dim": 16, "depth": 1, "num_heads": 2, "patch_size": 8}
    return build_model("deit", options, Shape(16, 1, 10, 2, 0, 0))


def train_deit(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    losses = []
    for number in steps:
        seed_generators(number)
        first, second = heads(model, DIGITS)
        assert second is not None
        loss = F.cross_entropy(first, torch.arange(8)) + F.cross_entropy(second, torch.arange(8))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def recipe_for(name: str, **changes: Any) -> Recipe:
    lr = SLOW.get(name, 0.02)  # of a batch of 512, so that it is the effective one
    optimizer = {"name": name, "base_lr": lr, "weight_decay": 0.01, "clip_grad": None, **changes}
    return tiny(optimizer=optimizer, schedule={"batch_size": 512})


@pytest.mark.parametrize("name", EVERY)
def test_every_optimizer_descends_repeats_itself_and_resumes_to_the_bit(name: str) -> None:
    model = quadratic()
    optimizer = build_optimizer(recipe_for(name), model)
    losses = [step(model, optimizer, number) for number in range(6)]
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    losses += [step(model, optimizer, number) for number in range(6, 15)]
    assert losses[-1] < losses[0]

    again = quadratic()
    optimizer = build_optimizer(recipe_for(name), again)
    assert [step(again, optimizer, number) for number in range(15)] == losses

    file.seek(0)
    state = torch.load(file, weights_only=True)
    resumed = quadratic()
    resumed.load_state_dict(state["model"])
    optimizer = build_optimizer(recipe_for(name), resumed)
    optimizer.load_state_dict(state["optimizer"])
    assert [step(resumed, optimizer, number) for number in range(6, 15)] == losses[6:]
    assert torch.equal(resumed.weight, model.weight)


@pytest.mark.parametrize("name", EVERY)
def test_every_optimizer_trains_a_deit_and_resumes_to_the_bit(name: str) -> None:
    model = small_deit()
    optimizer = build_optimizer(recipe_for(name), model)
    losses = train_deit(model, optimizer, range(3))
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    losses += train_deit(model, optimizer, range(3, 6))
    assert losses[-1] < losses[0]
    resumed = small_deit()
    resumed.load_state_dict(weights)
    optimizer = build_optimizer(recipe_for(name), resumed)
    optimizer.load_state_dict(state)
    assert train_deit(resumed, optimizer, range(3, 6)) == losses[3:]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(resumed.parameters(), model.parameters(), strict=True))


# -- by hand: one weight, w = 1 and gradient w (or 2 of 2), so that every number below is a fraction ------------------


def one_weight(
    start: float, name: str, steps: int, weight_decay: float, lr: float = 0.1, **options: Any
) -> list[float]:
    """The weight after each step of minimising w^2 / 2. A matrix of one, so that weight decay applies."""
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(start)
    recipe = recipe_for(name, base_lr=lr, weight_decay=weight_decay, options=options)
    optimizer = build_optimizer(recipe, model)
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        (model.weight.square().sum() / 2).backward()
        optimizer.step()
        found.append(model.weight.item())
    return found


def test_sgd_by_hand() -> None:
    # v = 1, step 1 + 0.9 v = 1.9; then g = 0.81, v = 0.9 + 0.81 = 1.71, step 0.81 + 0.9 x 1.71 = 2.349
    assert one_weight(1.0, "sgd", 2, 0.0) == pytest.approx([0.81, 0.81 - 0.2349])
    # classical: steps v = 1 and v = 0.9 + 0.9
    assert one_weight(1.0, "sgd", 2, 0.0, nesterov=False) == pytest.approx([0.9, 0.72])
    # decay is coupled: g = w + 0.5 w = 1.5, step 1.9 x 1.5
    assert one_weight(1.0, "sgd", 1, 0.5) == pytest.approx([1 - 0.285])


def test_adamw_by_hand() -> None:
    # decoupled decay: w (1 - 0.1 x 0.5), then a step of lr in the gradient's direction
    assert one_weight(1.0, "adamw", 1, 0.5) == pytest.approx([0.95 - 0.1])


def test_lamb_by_hand() -> None:
    # the update is sign(g) + 0.5 w = 2, the trust ratio |w| / |update| = 1
    assert one_weight(2.0, "lamb", 1, 0.5) == pytest.approx([2 - 0.1 * 1 * 2], rel=1e-5)


def test_lion_by_hand() -> None:
    # sign of 0.1 g; decay as AdamW's
    assert one_weight(1.0, "lion", 1, 0.5) == pytest.approx([0.95 - 0.1])


def test_muon_turns_a_matrix_s_gradient_into_an_orthogonal_one_and_leaves_the_rest_to_adamw() -> None:
    seed_generators(0)
    model = nn.Linear(8, 8)
    optimizer = build_optimizer(recipe_for("muon", base_lr=0.1, weight_decay=0.0), model)
    before = copy.deepcopy(model)
    inputs = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
    F.mse_loss(model(inputs), inputs).backward()
    optimizer.step()
    # Newton-Schulz brings singular values near 1; lr x 0.2 sqrt(8) is timm's match to AdamW's step size
    singular = torch.linalg.svdvals((before.weight - model.weight).detach()) / (0.1 * 0.2 * 8**0.5)
    assert ((singular > 0.5) & (singular < 1.5)).all()
    step = (before.bias - model.bias).detach()  # AdamW's first: lr in the gradient's direction
    assert model.bias.grad is not None
    assert step.tolist() == pytest.approx((0.1 * model.bias.grad.sign()).tolist(), rel=1e-4)


def test_which_parameters_are_muon_s() -> None:
    def muons(**options: Any) -> set[str]:
        model = small_deit()
        optimizer = build_optimizer(recipe_for("muon", options=options), model)
        train_deit(model, optimizer, range(1))
        return {name for name, parameter in model.named_parameters() if optimizer.state[parameter]["use_muon"]}

    hidden = {f"blocks.0.{name}.weight" for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
    assert muons() == hidden | {"head.weight", "head_dist.weight"}  # by shape; tokens, positions and 1-d are AdamW's
    assert muons(fallback_list=["head*", "patch_embed.*"]) == hidden
    with pytest.raises(TrainError, match="fallback_list 'haed' names no parameter"):
        muons(fallback_list=["haed"])
    with pytest.raises(TrainError, match="adamw has no option 'fallback_list'"):
        build_optimizer(recipe_for("adamw", options={"fallback_list": ["head*"]}), small_deit())


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
    with pytest.raises(TrainError, match=r"adamw has no option 'beta'; did you mean 'betas'"):
        build_optimizer(recipe_for("adamw", options={"beta": 0.9}), quadratic())
    with pytest.raises(TrainError, match="lion has no option 'eps'"):  # timm alone would drop it without a word
        build_optimizer(recipe_for("lion", options={"eps": 1e-3}), quadratic())
    with pytest.raises(TrainError, match="did you mean 'adamw'"):
        build_optimizer(recipe_for("adamww"), quadratic())
    with pytest.raises(TrainError, match="adamw refuses"):
        build_optimizer(recipe_for("adamw", options={"betas": [2.0, 0.9]}), quadratic())


DECAYED = {
    "patch_embed.proj.weight",
    "blocks.0.attn.qkv.weight",
    "blocks.0.attn.proj.weight",
    "blocks.0.mlp.fc1.weight",
    "blocks.0.mlp.fc2.weight",
    "head.weight",
    "head_dist.weight",
}


@functools.cache
def shared_deit() -> nn.Module:
    return small_deit()


@pytest.mark.parametrize("name", EVERY)
def test_no_decay_for_biases_norms_tokens_and_positions(name: str) -> None:
    model = shared_deit()
    groups = build_optimizer(recipe_for(name, weight_decay=0.05), model).param_groups
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    found = {name: decays[id(parameter)] for name, parameter in model.named_parameters()}
    assert found == {name: 0.05 if name in DECAYED else 0.0 for name in found}
    assert {"cls_token", "dist_token", "pos_embed", "norm.weight", "head.bias", "patch_embed.proj.bias"} <= set(found)


def test_a_model_of_ones_own_may_name_what_is_not_decayed() -> None:
    class Own(nn.Linear):
        def no_weight_decay(self) -> set[str]:
            return {"weight"}

    assert [group["weight_decay"] for group in parameter_groups(Own(2, 2), 0.05)] == [0.0]
    assert [group["weight_decay"] for group in parameter_groups(nn.Linear(2, 2), 0.05)] == [0.0, 0.05]


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


HALF = [0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(4)]
SCHEDULES_BY_HAND: dict[str, tuple[dict[str, Any], list[float]]] = {
    "poly": ({"power": 0.5}, [(1 - step / 8) ** 0.5 for step in range(8)]),
    "tanh": ({}, [0.5 * (1 - math.tanh(-7 + 10 * step / 8)) for step in range(8)]),
    "step": ({"decay_t": 1}, [1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]),
    # timm's milestone m applies from step m - 1
    "multistep": ({"decay_t": [3, 1], "decay_rate": 0.5}, [1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]),
    "wsd": ({"decay_t": 2}, [1, 1, 1, 1, 1, 0.5, 1 - 0.5**0.5, 1 - 0.75**0.5]),
    "cosine": ({"t_initial": 2, "cycle_limit": 2, "cycle_decay": 0.5}, [*HALF, *(0.5 * each for each in HALF)]),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_by_hand_with_times_in_epochs(name: str) -> None:
    options, expected = SCHEDULES_BY_HAND[name]
    plan = {"name": name, "options": options, "epochs": 4, "batch_size": 512, "warmup_epochs": 0, "min_lr": 0}
    assert rates(Recipe(optimizer={"base_lr": 1}, schedule=plan), steps_per_epoch=2) == pytest.approx(expected)
    lagging = rates(Recipe(optimizer={"base_lr": 1}, schedule={**plan, "stepping": "epoch"}), steps_per_epoch=2)
    assert lagging[::2] == lagging[1::2], "a change once an epoch"
    assert lagging[0] == lagging[2], "and one epoch late"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("plateau", {}, "no schedule is called 'plateau'"),
        ("step", {}, "step refuses schedule.options .*decay_t"),
        ("step", {"decay_t": 0}, "decay_t should be epochs above 0"),
        ("wsd", {"decay_t": 299}, "wsd refuses schedule.options .*Invalid decay_t"),
        ("poly", {"noise_std": 1.0}, "has no option 'noise_std'"),
    ],
)
def test_a_schedule_that_does_not_suit_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainError, match=message):
        rates(Recipe(schedule={"name": name, "options": options}), steps_per_epoch=2)


SCALES = {"patch_embed.proj.weight": 0.25, "cls_token": 0.25, "blocks.0.attn.qkv.bias": 0.5, "head.weight": 1}


@pytest.mark.parametrize("name", ["adamw", "lamb", "lion"])
def test_each_layer_has_its_share_of_the_rate_as_timm_has_it(name: str) -> None:
    """Of a DeiT of one block: embeddings, block, and the heads with the last norm."""
    model = small_deit()
    recipe = Recipe(optimizer={"name": name, "base_lr": 1e-3, "layer_decay": 0.5}, schedule={"batch_size": 512})
    optimizer = build_optimizer(recipe, model)
    theirs = create_optimizer_v2(model, name, lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    set_lr = build_schedule(recipe, optimizer, 2)
    for step, peak in ((10, 1e-3), (599, None)):
        lr = set_lr(step)
        assert peak is None or lr == pytest.approx(peak, rel=0.01)
        found = {id(each): group for group in optimizer.param_groups for each in group["params"]}
        for group in theirs.param_groups:
            for each in group["params"]:
                assert found[id(each)]["lr"] == pytest.approx(lr * group["lr_scale"])
                assert found[id(each)]["weight_decay"] == group["weight_decay"]
        named = dict(model.named_parameters())
        assert {key: found[id(named[key])]["lr"] / lr for key in SCALES} == pytest.approx(SCALES)


def test_a_model_of_one_layer_has_no_layer_decay() -> None:
    with pytest.raises(TrainError, match="layer_decay"):
        build_optimizer(Recipe(optimizer={"layer_decay": 0.5}), nn.Linear(2, 2))


def test_the_schedule_is_a_function_of_the_step() -> None:
    recipe = tiny()
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-3)
    set_lr = build_schedule(recipe, optimizer, 6)
    forward = [set_lr(step) for step in range(12)]
    assert [set_lr(step) for step in reversed(range(12))] == forward[::-1]
    assert copy.deepcopy(optimizer.param_groups[0]["lr"]) == forward[0]


def test_the_moving_average_by_hand() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    ema = Ema(model, decay=0.75)
    with torch.no_grad():
        model[0].weight.fill_(3.0)
        model[1].running_mean.fill_(2.0)  # type: ignore[union-attr, operator]
        model[1].num_batches_tracked.fill_(9)  # type: ignore[union-attr, operator]
    ema.update()
    average: Any = ema.model
    assert average[0].weight.item() == pytest.approx(1.5)  # 3/4 of 1 and 1/4 of 3
    assert average[1].running_mean.item() == pytest.approx(0.5)
    assert average[1].num_batches_tracked.item() == 9
    assert not average[0].weight.requires_grad


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("sweep", SWEEPS)
def test_optimizers_and_schedules_of_shipped_sweeps_can_be_built(sweep: str, profile: str) -> None:
    """timm may ask for other options than it did: a row of a shipped study is no place to find that out."""
    model = nn.Linear(2, 2)
    recipes = [
        Recipe.model_validate(run.recipe)
        for run in planned(files.shipped("sweeps") / sweep, profile=profile).runs.values()
    ]
    for recipe in {(str(one.optimizer), str(one.schedule)): one for one in recipes}.values():
        plain = recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update={"layer_decay": None})})
        set_lr = build_schedule(recipe, build_optimizer(plain, model), 10)
        assert all(0 <= set_lr(step) < torch.inf for step in range(0, 10 * recipe.schedule.epochs, 7))
