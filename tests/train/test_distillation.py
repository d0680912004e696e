"""The losses, by pencil and paper.

Logits are logarithms of small numbers, so that every probability below is a fraction:
class head       ln(1, 1, 2): softmax (1/4, 1/4, 1/2)
distillation     ln(1, 3, 4): softmax (1/8, 3/8, 1/2)
teacher          ln(2, 1, 1): softmax (1/2, 1/4, 1/4), argmax 0;  the label is 1
"""

from __future__ import annotations

import math

import pytest
import torch
from tiny import tiny

from deit_ablate.train.distill import DISTILLATIONS, build_loss

CLASS = torch.tensor([[1.0, 1.0, 2.0]]).log()
TOKEN = torch.tensor([[1.0, 3.0, 4.0]]).log()
TEACHER = torch.tensor([[2.0, 1.0, 1.0]]).log()
LABEL = torch.tensor([1])
PLAIN = {"augment": {"mixup": 0.0, "cutmix": 0.0}, "regularize": {"label_smoothing": 0.0}}

LN2, LN3 = math.log(2), math.log(3)
BASE = 2 * LN2  # -ln(1/4), whatever the type: the labels are the class head's
HAND = {
    # alpha 0: the labels alone
    "none": (0.0, None),
    # KL(teacher || class) = 1/2 ln 2 + 1/4 ln 1 + 1/4 ln 1/2 = 1/4 ln 2
    "soft": (0.1, LN2 / 4),
    # -ln(1/4), of class 0
    "hard": (0.5, 2 * LN2),
    # KL(teacher || token) = 1/2 ln 4 + 1/4 ln 2/3 + 1/4 ln 1/2 = ln 2 - 1/4 ln 3
    "soft-token": (0.1, LN2 - LN3 / 4),
    # -ln(1/8)
    "hard-token": (0.5, 3 * LN2),
}


@pytest.mark.parametrize("kind", list(DISTILLATIONS))
def test_every_type_gives_the_hand_worked_value(kind: str) -> None:
    alpha, term = HAND[kind]
    outputs = (CLASS, TOKEN if DISTILLATIONS[kind].heads == 2 else None)
    parts = build_loss(tiny(**PLAIN, distill={"type": kind, "tau": 1.0}))(outputs, LABEL, TEACHER)
    assert parts["base"].item() == pytest.approx(BASE)
    if term is None:
        assert "distillation" not in parts
        assert parts["total"].item() == pytest.approx(BASE)
    else:
        assert parts["distillation"].item() == pytest.approx(term)
        assert parts["total"].item() == pytest.approx((1 - alpha) * BASE + alpha * term)


def test_temperature_softens_both_sides_and_scales_by_its_square() -> None:
    # tau 2 halves the logits: student and teacher become ln(1, 1, sqrt 2) and ln(sqrt 2, 1, 1)
    root = math.sqrt(2)
    teacher = [root / (2 + root), 1 / (2 + root), 1 / (2 + root)]
    kl = teacher[0] * math.log(root) + teacher[2] * math.log(1 / root)
    parts = build_loss(tiny(**PLAIN, distill={"type": "soft", "tau": 2.0}))((CLASS, None), LABEL, TEACHER)
    assert parts["distillation"].item() == pytest.approx(4 * kl)


def test_soft_distillation_is_a_mean_over_the_batch_not_over_its_elements() -> None:
    loss = build_loss(tiny(**PLAIN, distill={"type": "soft", "tau": 1.0}))
    once = loss((CLASS, None), LABEL, TEACHER)["distillation"]
    twice = loss((CLASS.repeat(2, 1), None), LABEL.repeat(2), TEACHER.repeat(2, 1))["distillation"]
    assert twice.item() == pytest.approx(once.item())


def test_alpha_overrides_the_types_own() -> None:
    parts = build_loss(tiny(**PLAIN, distill={"type": "hard", "alpha": 0.25}))((CLASS, None), LABEL, TEACHER)
    assert parts["total"].item() == pytest.approx(0.75 * BASE + 0.25 * 2 * LN2)


def test_smoothing_is_for_the_labels_not_for_the_teacher() -> None:
    # smoothing 0.3 of 3 classes: 0.8 on the label, 0.1 on each other: 0.8 ln 4 + 0.1 ln 4 + 0.1 ln 2
    recipe = tiny(augment={"mixup": 0.0, "cutmix": 0.0}, regularize={"label_smoothing": 0.3}, distill={"type": "hard"})
    parts = build_loss(recipe)((CLASS, None), LABEL, TEACHER)
    assert parts["base"].item() == pytest.approx(1.9 * LN2)
    assert parts["distillation"].item() == pytest.approx(2 * LN2)


def test_mixed_targets_are_soft_ones() -> None:
    # half of class 1 and half of class 2: 1/2 ln 4 + 1/2 ln 2
    parts = build_loss(tiny())((CLASS, None), torch.tensor([[0.0, 0.5, 0.5]]), None)
    assert parts["total"].item() == pytest.approx(1.5 * LN2)


@pytest.mark.parametrize("kind", list(DISTILLATIONS))
def test_every_type_has_finite_gradients_that_reach_its_heads(kind: str) -> None:
    head, token = CLASS.clone().requires_grad_(), TOKEN.clone().requires_grad_()
    two = DISTILLATIONS[kind].heads == 2
    build_loss(tiny(**PLAIN, distill={"type": kind}))((head, token if two else None), LABEL, TEACHER)[
        "total"
    ].backward()
    for logits in (head, token) if two else (head,):
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        assert logits.grad.abs().sum() > 0
