"""The distillation token: its place in the sequence, what it learns from, and the control with two class tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import Recording, tiny
from torch import Tensor, nn

from deit_ablate.train.distill import build_loss, distillation_loss
from deit_ablate.train.loop import train
from deit_ablate.train.model import Shape, build_model, heads
from deit_ablate.train.streams import seed_generators

IMAGES = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2])
PLAIN: dict[str, Any] = {"augment": {"mixup": 0.0, "cutmix": 0.0}, "regularize": {"label_smoothing": 0.0}}


def distilled() -> Any:
    """A vision transformer with both tokens, its weights large enough that every token has a say."""
    seed_generators(0)
    options = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    model = build_model("deit", options, Shape(16, 1, 5, 2, 0.0, 0.0)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def convnet() -> nn.Module:
    seed_generators(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 5))


# -- place ----------------------------------------------------------------------------------------------------------


def logits_with(model: Any, tokens: list[int], positions: list[int]) -> tuple[Tensor, Tensor]:
    """The forward pass written out, with the sequence (class, distillation, patches...) taken in another order.

    ``tokens`` and ``positions`` say which token, and which position embedding, comes at each place.
    """
    patches = model.patch_embed(IMAGES)
    own = [token.expand(len(IMAGES), -1, -1) for token in (model.cls_token, model.dist_token)]
    sequence = torch.cat([*own, patches], dim=1)[:, tokens] + model.pos_embed[:, positions]
    sequence = model.norm(model.blocks(sequence))
    return model.head(sequence[:, tokens.index(0)]), model.head_dist(sequence[:, tokens.index(1)])


IN_ORDER = [0, 1, 2, 3, 4, 5]
LAST = [0, 2, 3, 4, 5, 1]
"""The distillation token at the end of the sequence."""


@torch.no_grad()
def test_the_forward_pass_written_out_is_the_models() -> None:
    model = distilled()
    for ours, theirs in zip(logits_with(model, IN_ORDER, IN_ORDER), heads(model, IMAGES), strict=True):
        assert theirs is not None
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("order", [LAST, [1, 0, 2, 3, 4, 5], [5, 3, 1, 4, 0, 2]])
@torch.no_grad()
def test_its_place_in_the_sequence_changes_nothing_but_its_position_embedding(order: list[int]) -> None:
    model = distilled()
    expected = logits_with(model, IN_ORDER, IN_ORDER)
    for moved, still in zip(logits_with(model, order, order), expected, strict=True):
        torch.testing.assert_close(moved, still)
    elsewhere = logits_with(model, order, IN_ORDER)  # the tokens move, the position embeddings do not
    assert not torch.allclose(elsewhere[1], expected[1], atol=1e-3)
    model.pos_embed.zero_()
    for moved, still in zip(logits_with(model, order, IN_ORDER), logits_with(model, IN_ORDER, IN_ORDER), strict=True):
        torch.testing.assert_close(moved, still)


# -- who learns from whom -------------------------------------------------------------------------------------------


def gradients(model: nn.Module, loss: Tensor) -> dict[str, float]:
    """The size of the gradient of each part of the model: trunk, head, head_dist."""
    found = {"trunk": 0.0, "head": 0.0, "head_dist": 0.0}
    names, parameters = zip(*model.named_parameters(), strict=True)
    for name, gradient in zip(
        names, torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True), strict=True
    ):
        first = name.split(".")[0]
        part = first if first in found else "trunk"
        found[part] += 0.0 if gradient is None else gradient.abs().sum().item()
    return found


@pytest.mark.parametrize("kind", ["soft-token", "hard-token"])
def test_each_head_learns_from_its_own_term_and_the_trunk_from_both(kind: str) -> None:
    student, teacher = distilled().train(), convnet()
    parts = distillation_loss(IMAGES, LABELS, student, teacher, type=kind)
    labels, told = gradients(student, parts["base"]), gradients(student, parts["distillation"])
    assert labels["head_dist"] == told["head"] == 0
    assert min(labels["head"], told["head_dist"], labels["trunk"], told["trunk"]) > 0
    both = gradients(student, parts["total"])
    assert min(both.values()) > 0
    parts["total"].backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_without_the_token_the_one_head_learns_from_both(kind: str) -> None:
    seed_generators(0)
    options = {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    student, teacher = build_model("deit", options, Shape(16, 1, 5, 1, 0.0, 0.0)), convnet()
    parts = distillation_loss(IMAGES, LABELS, student, teacher, type=kind)
    for name in ("base", "distillation", "total"):
        assert gradients(student, parts[name])["head"] > 0
    parts["total"].backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


# -- two class tokens -----------------------------------------------------------------------------------------------


def twins() -> Any:
    """A model whose two tokens, their positions and their heads are equal."""
    model = distilled().train()
    with torch.no_grad():
        model.dist_token.copy_(model.cls_token)
        model.pos_embed[:, 1].copy_(model.pos_embed[:, 0])
        model.head_dist.load_state_dict(model.head.state_dict())
    return model


@pytest.mark.parametrize(("kind", "alike"), [("two-class-tokens", True), ("hard-token", False)])
def test_two_class_tokens_that_are_alike_stay_so_and_a_teacher_tells_them_apart(kind: str, alike: bool) -> None:
    model, optimizer_steps = twins(), 3
    loss_of = build_loss(tiny(**PLAIN, distill={"type": kind}))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    told = torch.eye(5)[[3, 3, 4]]  # a teacher of another opinion
    for _ in range(optimizer_steps):
        optimizer.zero_grad()
        loss_of(heads(model, IMAGES), LABELS, told)["total"].backward()
        optimizer.step()
    assert torch.allclose(model.dist_token, model.cls_token, atol=1e-5) == alike
    assert torch.allclose(model.head_dist.weight, model.head.weight, atol=1e-5) == alike


def test_a_training_with_two_class_tokens() -> None:
    journal = Recording()
    recipe = tiny(
        distill={"type": "two-class-tokens"}, schedule={"epochs": 1, "warmup_epochs": 0.5}, data={"train_images": 48}
    )
    outcome = train(recipe, journal=journal)
    parts = journal.lines[0]["loss_parts"]
    assert set(parts) == {"base", "class", "second"}
    assert journal.lines[0]["train_loss"] == pytest.approx((parts["class"] + parts["second"]) / 2)
    assert parts["base"] == pytest.approx(journal.lines[0]["train_loss"])
    assert outcome.arrays["token_similarity"].shape == (3,)
    assert outcome.metrics["test"]["top1"] == outcome.metrics["test"]["top1_fused_softmax"]
