"""The losses, by pencil and paper.

Logits are logarithms of small numbers, so that every probability below is a fraction:
class head       ln(1, 1, 2): softmax (1/4, 1/4, 1/2)
distillation     ln(1, 3, 4): softmax (1/8, 3/8, 1/2)
teacher          ln(2, 1, 1): softmax (1/2, 1/4, 1/4), argmax 0;  the label is 1
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from timm.data.mixup import mixup_target
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy
from timm.models import create_model
from tiny import tiny
from torch import Tensor, nn
from torch.nn import functional as F

from deit_ablate.errors import TrainError
from deit_ablate.train.distill import DISTILLATIONS, Distillation, build_loss, distillation_loss
from deit_ablate.train.mixing import build_mixing
from deit_ablate.train.streams import seed_generators

CLASS = torch.tensor([[1.0, 1.0, 2.0]]).log()
TOKEN = torch.tensor([[1.0, 3.0, 4.0]]).log()
TEACHER = torch.tensor([[2.0, 1.0, 1.0]]).log()
LABEL = torch.tensor([1])
UNMIXED: dict[str, Any] = {"augment": {"mixup": 0.0, "cutmix": 0.0}}
PLAIN: dict[str, Any] = {**UNMIXED, "regularize": {"label_smoothing": 0.0}}

LN2, LN3 = math.log(2), math.log(3)
BASE = 2 * LN2  # -ln(1/4), whatever the type: the labels are the class head's
HAND: dict[str, tuple[float, float | None]] = {
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
    "two-class-tokens": (0.0, None),
}
TAUGHT = [kind for kind, entry in DISTILLATIONS.items() if entry.teacher]


def outputs_of(kind: str) -> tuple[Tensor, Tensor | None]:
    return CLASS, TOKEN if DISTILLATIONS[kind].heads == 2 else None


@pytest.mark.parametrize("normalisation", ["batch", "element"])
@pytest.mark.parametrize("kind", TAUGHT)
def test_equations_2_and_3_with_the_hand_worked_value(kind: str, normalisation: str) -> None:
    alpha, term = HAND[kind]
    assert term is not None
    if normalisation == "element" and DISTILLATIONS[kind].tau:
        term /= 3  # of K = 3 classes; a hard term has no such choice
    recipe = tiny(**PLAIN, distill={"type": kind, "tau": 1.0, "normalisation": normalisation})
    parts = build_loss(recipe)(outputs_of(kind), LABEL, TEACHER)
    assert set(parts) == {"total", "base", "distillation"}
    assert parts["base"].item() == pytest.approx(BASE)
    assert parts["distillation"].item() == pytest.approx(term)
    assert parts["total"].item() == pytest.approx((1 - alpha) * BASE + alpha * term)


def test_without_a_teacher_the_labels_are_all_there_is() -> None:
    parts = build_loss(tiny(**PLAIN))((CLASS, None), LABEL, None)
    assert {name: part.item() for name, part in parts.items()} == {
        "total": pytest.approx(BASE),
        "base": pytest.approx(BASE),
    }
    # the second token learns from the label too: -ln(3/8) = 3 ln 2 - ln 3; the loss is the mean of both
    parts = build_loss(tiny(**PLAIN, distill={"type": "two-class-tokens"}))((CLASS, TOKEN), LABEL, None)
    second = 3 * LN2 - LN3
    mean = pytest.approx((BASE + second) / 2)
    assert {name: part.item() for name, part in parts.items()} == {
        "total": mean,
        "base": mean,
        "class": pytest.approx(BASE),
        "second": pytest.approx(second),
    }


@pytest.mark.parametrize("kind", ["soft", "soft-token"])
def test_temperature_softens_both_sides_and_scales_by_its_square(kind: str) -> None:
    # tau 2 takes square roots: the teacher's weights become (sqrt 2, 1, 1), the student's (1, 1, sqrt 2) or
    # (1, sqrt 3, 2)
    root = math.sqrt(2)
    student = [1, 1, root] if kind == "soft" else [1, math.sqrt(3), 2]
    teacher = [root, 1, 1]
    kl = sum(
        told / sum(teacher) * math.log((told / sum(teacher)) / (own / sum(student)))
        for told, own in zip(teacher, student, strict=True)
    )
    for normalisation, divisor in (("batch", 1), ("element", 3)):
        recipe = tiny(**PLAIN, distill={"type": kind, "tau": 2.0, "normalisation": normalisation})
        parts = build_loss(recipe)(outputs_of(kind), LABEL, TEACHER)
        assert parts["distillation"].item() == pytest.approx(4 * kl / divisor)


@pytest.mark.parametrize("normalisation", ["batch", "element"])
def test_the_loss_of_a_batch_is_the_mean_of_its_images(normalisation: str) -> None:
    recipe = tiny(**PLAIN, distill={"type": "soft", "tau": 1.0, "normalisation": normalisation})
    loss = build_loss(recipe)
    first = loss((CLASS, None), LABEL, TEACHER)["distillation"].item()
    second = loss((TOKEN, None), LABEL, TEACHER)["distillation"].item()
    both = loss((torch.cat((CLASS, TOKEN)), None), LABEL.repeat(2), TEACHER.repeat(2, 1))["distillation"].item()
    assert both == pytest.approx((first + second) / 2)


def test_normalisation_by_element_is_the_reference_codes() -> None:
    # facebookresearch/deit losses.py: F.kl_div(..., reduction='sum', log_target=True) * T^2 / outputs_kd.numel()
    generator = torch.Generator().manual_seed(0)
    token, teacher = torch.randn(4, 7, generator=generator), torch.randn(4, 7, generator=generator)
    tau = 3.0
    expected = (
        F.kl_div(
            F.log_softmax(token / tau, dim=1), F.log_softmax(teacher / tau, dim=1), reduction="sum", log_target=True
        )
        * (tau * tau)
        / token.numel()
    )
    recipe = tiny(**PLAIN, distill={"type": "soft-token", "normalisation": "element"})
    parts = build_loss(recipe)((torch.zeros(4, 7), token), torch.arange(4), teacher)
    assert parts["distillation"].item() == pytest.approx(expected.item())


def test_alpha_overrides_the_types_own() -> None:
    parts = build_loss(tiny(**PLAIN, distill={"type": "hard", "alpha": 0.25}))((CLASS, None), LABEL, TEACHER)
    assert parts["total"].item() == pytest.approx(0.75 * BASE + 0.25 * 2 * LN2)


def test_a_type_of_ones_own_has_both_normalisations(monkeypatch: pytest.MonkeyPatch) -> None:
    def squared(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
        return tau * (student - teacher).square().sum(dim=1).mean()

    # (ln 1 - ln 2)^2 + 0 + (ln 2 - ln 1)^2 = 2 ln^2 2
    monkeypatch.setitem(DISTILLATIONS, "squared", Distillation(squared, alpha=0.4, tau=True))
    for normalisation, divisor in (("batch", 1), ("element", 3)):
        recipe = tiny(**PLAIN, distill={"type": "squared", "tau": 5.0, "normalisation": normalisation})
        parts = build_loss(recipe)((CLASS, None), LABEL, TEACHER)
        assert parts["distillation"].item() == pytest.approx(10 * LN2**2 / divisor)


# -- smoothing ------------------------------------------------------------------------------------------------------

SMOOTHED = {
    # 0.3 over all 3 classes: 0.8 on the label, 0.1 on each other: 0.8 ln 4 + 0.1 ln 4 + 0.1 ln 2
    "all": 1.9 * LN2,
    # 0.3 over the 2 others: 0.7 on the label, 0.15 on each other: 0.7 ln 4 + 0.15 ln 4 + 0.15 ln 2
    "others": 1.85 * LN2,
}


@pytest.mark.parametrize("over", list(SMOOTHED))
def test_smoothing_is_for_the_labels_not_for_the_teacher(over: str) -> None:
    regularize = {"label_smoothing": 0.3, "smoothing_over": over}
    for kind in ("hard", "hard-token"):
        recipe = tiny(**UNMIXED, regularize=regularize, distill={"type": kind})
        parts = build_loss(recipe)(outputs_of(kind), LABEL, TEACHER)
        assert parts["base"].item() == pytest.approx(SMOOTHED[over])
        assert parts["distillation"].item() == pytest.approx(HAND[kind][1])


@pytest.mark.parametrize(
    ("over", "right", "wrong"),
    [
        ("all", 0.8, 0.1),
        ("others", 0.7, 0.15),
    ],
)
def test_mixed_targets_hold_the_smoothing(over: str, right: float, wrong: float) -> None:
    recipe = tiny(augment={"cutmix": 0.0}, regularize={"label_smoothing": 0.3, "smoothing_over": over})
    images = torch.arange(2.0).view(2, 1, 1, 1).repeat(1, 1, 4, 4)
    mixed, targets = build_mixing(recipe, 3)(images, torch.tensor([1, 2]), 3)
    share = 1 - mixed[0, 0, 0, 0].item()  # of the first image, which is 0, in the pair with the second, which is 1
    assert 0 < share < 1
    expected = [wrong, share * right + (1 - share) * wrong, share * wrong + (1 - share) * right]
    assert targets[0].tolist() == pytest.approx(expected)
    assert targets.sum(dim=1).tolist() == pytest.approx([1, 1])
    # and the loss smooths no second time: -sum target ln p, p = (1/4, 1/4, 1/2)
    loss = build_loss(recipe)((CLASS, None), targets[:1], None)["total"].item()
    assert loss == pytest.approx((expected[0] + expected[1]) * 2 * LN2 + expected[2] * LN2)


def test_over_all_classes_is_timms_to_the_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(16, 10, generator=generator), torch.arange(16) % 10
    recipe = tiny(**UNMIXED, regularize={"label_smoothing": 0.1})
    assert build_loss(recipe)((logits, None), targets, None)["total"] == LabelSmoothingCrossEntropy(0.1)(
        logits, targets
    )
    _, mixed = build_mixing(tiny(augment={"mix_prob": 1e-9}), 10)(torch.zeros(16, 1, 4, 4), targets, 1)
    assert torch.equal(mixed, mixup_target(targets, 10, 1.0, 0.1))


def test_smoothing_that_leaves_the_label_no_more_than_the_others_is_refused() -> None:
    regularize = {"label_smoothing": 0.7, "smoothing_over": "others"}
    with pytest.raises(TrainError, match=r"label_smoothing 0.7 over the 2 wrong classes .* below 0.66"):
        build_mixing(tiny(regularize=regularize), 3)
    with pytest.raises(TrainError, match="it must be below"):
        build_loss(tiny(**UNMIXED, regularize=regularize))((CLASS, None), LABEL, None)
    assert build_mixing(tiny(regularize=regularize), 10)


def test_mixed_targets_are_soft_ones() -> None:
    # half of class 1 and half of class 2: 1/2 ln 4 + 1/2 ln 2
    parts = build_loss(tiny())((CLASS, None), torch.tensor([[0.0, 0.5, 0.5]]), None)
    assert parts["total"].item() == pytest.approx(1.5 * LN2)


# -- gradients and precision ----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", list(DISTILLATIONS))
def test_losses_of_half_precision_logits_are_computed_in_fp32(kind: str, dtype: torch.dtype) -> None:
    loss = build_loss(tiny(**PLAIN, distill={"type": kind}))
    first, second = outputs_of(kind)
    halved = (first.to(dtype), None if second is None else second.to(dtype))
    parts = loss(halved, LABEL, TEACHER.to(dtype))
    rounded = loss(
        (halved[0].float(), None if halved[1] is None else halved[1].float()), LABEL, TEACHER.to(dtype).float()
    )
    for name, part in parts.items():
        assert part.dtype == torch.float32
        assert torch.equal(part, rounded[name])


# -- in a notebook --------------------------------------------------------------------------------------------------


class Fixed(nn.Module):
    """Gives the same logits for every image: one head or two."""

    def __init__(self, *logits: Tensor) -> None:
        super().__init__()
        self.heads = nn.ParameterList([nn.Parameter(each.clone()) for each in logits])

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        found = tuple(logits.expand(len(images), -1) for logits in self.heads)
        return found if len(found) > 1 else found[0]


IMAGES = torch.zeros(2, 1, 4, 4)
LABELS = torch.tensor([1, 1])


@pytest.mark.parametrize("kind", list(DISTILLATIONS))
def test_one_call_gives_the_loss(kind: str) -> None:
    alpha, term = HAND[kind]
    outputs = outputs_of(kind)
    student = Fixed(*(each for each in outputs if each is not None))
    teacher = Fixed(TEACHER) if DISTILLATIONS[kind].teacher else None
    parts = distillation_loss(IMAGES, LABELS, student, teacher, type=kind, tau=1.0, smoothing=0.0)
    expected = BASE if term is None else (1 - alpha) * BASE + alpha * term
    if kind == "two-class-tokens":
        expected = (BASE + 3 * LN2 - LN3) / 2
    assert parts["total"].item() == pytest.approx(expected)
    parts["total"].backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert teacher is None or all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_users_formula(alpha: float) -> None:
    """(1 - a) CE(class logits, y) + a (tau^2 KL(teacher || student) or CE(distillation logits, teacher's argmax))."""
    generator = torch.Generator().manual_seed(0)
    first, second, told = (torch.randn(8, 5, generator=generator) for _ in range(3))
    labels, tau = torch.arange(8) % 5, 4.0
    student = Fixed(first, second)
    images = torch.zeros(8, 1, 2, 2)
    ce = -(first.softmax(1)[torch.arange(8), labels]).log().mean()
    p, q = (told / tau).softmax(1), (second / tau).softmax(1)
    kl = (p * (p / q).log()).sum(1).mean()
    hard = -(second.softmax(1)[torch.arange(8), told.argmax(1)]).log().mean()
    for kind, term in (("soft-token", tau**2 * kl), ("hard-token", hard)):
        parts = distillation_loss(images, labels, student, Fixed(told), type=kind, alpha=alpha, tau=tau, smoothing=0.0)
        assert parts["total"].item() == pytest.approx(((1 - alpha) * ce + alpha * term).item(), rel=1e-5)


def test_its_smoothing_and_normalisation() -> None:
    for over in ("all", "others"):
        parts = distillation_loss(
            IMAGES, LABELS, Fixed(CLASS, TOKEN), Fixed(TEACHER), smoothing=0.3, smoothing_over=over
        )
        assert parts["base"].item() == pytest.approx(SMOOTHED[over])
    options: dict[str, Any] = {"type": "soft-token", "tau": 1.0}
    parts = distillation_loss(IMAGES, LABELS, Fixed(CLASS, TOKEN), Fixed(TEACHER), normalisation="element", **options)
    assert parts["distillation"].item() == pytest.approx((LN2 - LN3 / 4) / 3)
    shares = torch.tensor([[0.0, 0.5, 0.5]]).repeat(2, 1)  # as mixup gives them: not smoothed again
    parts = distillation_loss(IMAGES, shares, Fixed(CLASS, TOKEN), Fixed(TEACHER), smoothing=0.9)
    assert parts["base"].item() == pytest.approx(1.5 * LN2)


def test_a_teacher_of_two_heads_answers_with_both() -> None:
    # softmaxes (1/2, 1/4, 1/4) and (1/8, 3/8, 1/2): their mean (5/16, 5/16, 3/8) decides for class 2: -ln(1/2)
    parts = distillation_loss(IMAGES, LABELS, Fixed(CLASS, TOKEN), Fixed(TEACHER, TOKEN))
    assert parts["distillation"].item() == pytest.approx(LN2)


def test_the_teacher_is_left_as_it_was_found() -> None:
    teacher = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 3))
    teacher[2].eval()
    images = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    modes = [module.training for module in teacher.modules()]
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    student = Fixed(CLASS, TOKEN)
    first = distillation_loss(images, torch.zeros(4, dtype=torch.long), student, teacher, type="soft-token")
    first["total"].backward()
    second = distillation_loss(images, torch.zeros(4, dtype=torch.long), student, teacher, type="soft-token")
    assert first["total"].item() == second["total"].item()  # no dropout
    assert [module.training for module in teacher.modules()] == modes
    assert student.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in teacher.parameters())

    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("no")

    broken = Broken()
    with pytest.raises(RuntimeError, match="no"):
        distillation_loss(images, LABELS, student, broken)
    assert broken.training


def test_what_does_not_fit_is_said() -> None:
    two = Fixed(CLASS, TOKEN)
    with pytest.raises(TrainError, match=r"hard-token asks for 2 head\(s\), and the student has 1"):
        distillation_loss(IMAGES, LABELS, Fixed(CLASS), Fixed(TEACHER))
    with pytest.raises(TrainError, match=r"soft asks for 1 head\(s\), and the student has 2"):
        distillation_loss(IMAGES, LABELS, two, Fixed(TEACHER), type="soft")
    with pytest.raises(TrainError, match=r"teacher's logits are \(2, 4\), the student's \(2, 3\)"):
        distillation_loss(IMAGES, LABELS, two, Fixed(torch.zeros(1, 4)))
    with pytest.raises(TrainError, match="hard-token needs a teacher"):
        distillation_loss(IMAGES, LABELS, two, None)
    with pytest.raises(TrainError, match="did you mean 'hard-token'"):
        distillation_loss(IMAGES, LABELS, two, Fixed(TEACHER), type="hard-tokens")
    wrong: list[dict[str, Any]] = [{"alpha": 1.5}, {"tau": 0.0}, {"smoothing": 1.0}, {"normalisation": "class"}]
    for options in wrong:
        with pytest.raises(ValidationError):
            distillation_loss(IMAGES, LABELS, two, Fixed(TEACHER), **options)


# -- timm.task, where it defines the same thing ---------------------------------------------------------------------

SMALL = {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}


@pytest.mark.parametrize("kind", ["soft", "soft-token", "hard-token"])
def test_the_same_values_as_timms_tasks(kind: str) -> None:
    tasks = pytest.importorskip("timm.task")
    seed_generators(0)
    distilled = "distilled_" if kind.endswith("token") else ""
    student = create_model(f"deit_tiny_{distilled}patch16_224", **SMALL)
    teacher = create_model("deit_tiny_patch16_224", **SMALL)
    with torch.no_grad():  # fresh heads are small: let student and teacher disagree
        for model in (student, teacher):
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    images, labels = torch.randn(6, 3, 32, 32), torch.arange(6) % 5
    alpha, tau = 0.3, 2.0
    options: dict[str, Any] = {"task_loss_weight": 1 - alpha, "criterion": LabelSmoothingCrossEntropy(0.1)}
    ours = distillation_loss(images, labels, student, teacher, type=kind, alpha=alpha, tau=tau)
    if kind == "soft":
        task = tasks.LogitDistillationTask(student, teacher, temperature=tau, verbose=False, **options)
        task.train()
        theirs, term = task(images, labels), "kd_loss"
    else:
        task = tasks.TokenDistillationTask(
            student, teacher, temperature=tau, distill_type=kind.removesuffix("-token"), verbose=False, **options
        )
        task.train()
        theirs, term = task(images, labels), "distill_loss"
    assert ours["total"].item() == pytest.approx(theirs["loss"].item(), rel=1e-5)
    assert ours["base"].item() == pytest.approx(theirs["task_loss"].item(), rel=1e-5)
    assert ours["distillation"].item() == pytest.approx(theirs[term].item(), rel=1e-5)
    assert ours["distillation"].item() > 0.01


BCE_BY_HAND: list[tuple[dict[str, Any], float]] = [
    # logits 0, 0, ln 2: sigmoids 1/2, 1/2, 2/3; the label is 1
    ({"label_smoothing": 0}, (LN2 + LN2 + LN3) / 3),
    # targets 0.1, 0.8, 0.1: the last class costs 0.1 ln 3/2 + 0.9 ln 3
    ({"label_smoothing": 0.3}, (LN2 + LN2 + 0.1 * (LN3 - LN2) + 0.9 * LN3) / 3),
    ({"label_smoothing": 0.3, "target_threshold": 0.2}, (LN2 + LN2 + LN3) / 3),
]


@pytest.mark.parametrize(("regularize", "expected"), BCE_BY_HAND)
def test_binary_cross_entropy_by_hand(regularize: dict[str, Any], expected: float) -> None:
    recipe = tiny(**UNMIXED, regularize={"loss": "bce", **regularize})
    logits = torch.tensor([[0.0, 0.0, LN2]])
    assert build_loss(recipe)((logits, None), LABEL, None)["total"].item() == pytest.approx(expected)


@pytest.mark.parametrize("threshold", [None, 0.0, 0.2])
def test_binary_cross_entropy_of_mixed_targets_is_timms(threshold: float | None) -> None:
    """With 0, DeiT III's: both classes of a mixed image count as 1."""
    recipe = tiny(regularize={"loss": "bce", "label_smoothing": 0, "target_threshold": threshold})
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    targets = mixup_target(torch.tensor([0, 1, 1, 2]), 3, 0.7, 0.0)
    found = build_loss(recipe)((logits, None), targets, None)["total"]
    assert torch.equal(found, BinaryCrossEntropy(0.0, threshold)(logits, targets))
    if threshold == 0:
        assert torch.equal(found, F.binary_cross_entropy_with_logits(logits, (targets > 0).float()))


@pytest.mark.parametrize("kind", DISTILLATIONS)
def test_every_distillation_type_works_with_binary_cross_entropy(kind: str) -> None:
    settings = DISTILLATIONS[kind]
    recipe = tiny(**UNMIXED, regularize={"loss": "bce", "label_smoothing": 0}, distill={"type": kind, "alpha": 0.25})
    teacher = TEACHER if settings.teacher else None
    parts = build_loss(recipe)((CLASS, TOKEN if settings.heads == 2 else None), LABEL, teacher)
    on_labels = (LN2 + LN2 + LN3) / 3  # of the class head
    if kind == "two-class-tokens":
        # logits 0, ln 3, ln 4: sigmoids 1/2, 3/4, 4/5
        on_labels = (on_labels + (LN2 + math.log(4 / 3) + math.log(5)) / 3) / 2
    expected = 0.75 * on_labels + 0.25 * parts["distillation"].item() if settings.teacher else on_labels
    assert parts["total"].item() == pytest.approx(expected)


def test_a_threshold_below_the_smoothing_is_refused() -> None:
    recipe = tiny(**UNMIXED, regularize={"loss": "bce", "label_smoothing": 0.1, "target_threshold": 0.0})
    with pytest.raises(TrainError, match="all would count as 1"):
        build_loss(recipe)((CLASS, None), LABEL, None)
    with pytest.raises(TrainError, match="no loss is called 'bse'"):
        build_loss(tiny(regularize={"loss": "bse"}))
