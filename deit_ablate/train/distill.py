"""The loss: a base term on the labels, and the teacher's term, by distillation type.

total = (1 - alpha) base + alpha term (Touvron et al., arXiv 2012.12877v2, Eqs. 2 and 3; alpha is the paper's
lambda). To add a type, write its term and give it an entry in ``DISTILLATIONS``; a custom one is named
``module:function`` and is (or returns) a ``Distillation``. A loss on the labels is an entry in ``LOSSES``. In a
notebook, ``distillation_loss`` is all of it in one call.

timm.task has "soft", "soft-token" and "hard-token" with the same values (a test holds this), in tasks that take over
student and teacher. Here a loss is a function of logits, so that the loop alone decides where a model draws at random.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn
from torch.nn import functional as F

from deit_ablate.errors import TrainError
from deit_ablate.recipe import Distill, Recipe, Regularize
from deit_ablate.train.data.sets import Dataset
from deit_ablate.train.evaluate import classifiers
from deit_ablate.train.mixing import smoothing_over_all
from deit_ablate.train.model import Heads, Shape, at_rest, build_model, heads, in_fp32
from deit_ablate.train.registry import lookup

Term = Callable[[Tensor, Tensor, float], Tensor]
"""Student's logits (B, K), teacher's logits (B, K), temperature -> a scalar, the mean over the batch."""
Base = Callable[[Tensor, Tensor], Tensor]
"""Logits (B, K) and targets, (B,) classes or (B, K) shares -> a scalar, the mean over the batch."""
Loss = Callable[[Heads, Tensor, "Tensor | None"], dict[str, Tensor]]


def soft(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """Eq. 2: tau^2 KL(teacher || student) of the softened distributions, mean over the batch (Hinton et al., 2015).

    The reference code divides by B x K instead, K times weaker than the equation: ``normalisation: element``.
    """
    student_log, teacher_log = F.log_softmax(student / tau, dim=1), F.log_softmax(teacher / tau, dim=1)
    return F.kl_div(student_log, teacher_log, reduction="batchmean", log_target=True) * tau**2


def hard(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """Eq. 3: cross-entropy with the teacher's decision as label, not smoothed; tau plays no part."""
    return F.cross_entropy(student, teacher.argmax(dim=1))


@dataclass(frozen=True)
class Distillation:
    """How a student learns from its teacher. With two heads the term is on the distillation head,
    else on the class head.

    Without a term the labels are all there is, for both heads where there are two.
    """

    term: Term | None
    heads: int = 1
    teacher: bool = True
    alpha: float = 0.5
    """The type's own weight of the term: the paper's lambda 0.1 (soft) and 1/2 (hard)."""
    tau: bool = False
    """Whether the term is a soft one: it reads the temperature, and ``normalisation: element`` divides it by K."""


DISTILLATIONS: dict[str, Distillation] = {
    "none": Distillation(None, teacher=False, alpha=0.0),
    "soft": Distillation(soft, alpha=0.1, tau=True),
    "hard": Distillation(hard, alpha=0.5),
    "soft-token": Distillation(soft, heads=2, alpha=0.1, tau=True),
    "hard-token": Distillation(hard, heads=2, alpha=0.5),
    "two-class-tokens": Distillation(None, heads=2, teacher=False, alpha=0.0),
}


def distillation_of(name: str) -> Distillation:
    """The type by name. Raises TrainError for an unknown one."""
    found = lookup("distillation type", name, DISTILLATIONS)
    if not isinstance(found, Distillation) and callable(found):
        found = found()
    if not isinstance(found, Distillation):
        raise TrainError(f"{name} is not a Distillation, nor a function that returns one")
    return found


def recipe_model(recipe: Recipe, dataset: Dataset, resolution: int | None = None) -> nn.Module:
    """The recipe's model for this data, with fresh weights (the caller seeds the generators) and the heads that its
    distillation type asks for; at another resolution where one is given. Raises TrainError where it cannot be built."""
    shape = Shape(
        resolution or recipe.data.resolution,
        dataset.channels,
        len(dataset.classes),
        distillation_of(recipe.distill.type).heads,
        recipe.regularize.drop_path,
        recipe.regularize.dropout,
    )
    return build_model(recipe.model.name, recipe.model.options, shape)


def cross_entropy(regularize: Regularize, mixed: bool) -> Base:
    """Soft-target cross-entropy for mixed (B, K) targets, which hold the smoothing, else smoothed."""
    smoothing = regularize.label_smoothing
    if mixed:
        return SoftTargetCrossEntropy()
    if not smoothing:
        return nn.CrossEntropyLoss()
    if regularize.smoothing_over == "all":
        return LabelSmoothingCrossEntropy(smoothing)

    def over_the_others(logits: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = LabelSmoothingCrossEntropy(smoothing_over_all(regularize, logits.shape[1]))(logits, targets)
        return loss

    return over_the_others


def bce(regularize: Regularize, mixed: bool) -> Base:
    """Timm's binary cross-entropy, the mean over batch and classes: on mixed (B, K) targets, which hold the smoothing,
    or on smoothed ones. Raises TrainError for a threshold that the smoothing lifts every class above."""
    threshold = regularize.target_threshold

    def binary(logits: Tensor, targets: Tensor) -> Tensor:
        smoothing = smoothing_over_all(regularize, logits.shape[1])
        if threshold is not None and threshold < smoothing / logits.shape[1]:
            raise TrainError(
                f"regularize.label_smoothing {regularize.label_smoothing:g} lifts the target of every class above "
                f"regularize.target_threshold {threshold:g}: all would count as 1"
            )
        loss: Tensor = BinaryCrossEntropy(smoothing, threshold)(logits, targets)
        return loss

    return binary


@dataclass(frozen=True)
class Labels:
    """A loss on the labels: ``build(recipe's block regularize, whether targets are mixed)``."""

    build: Callable[[Regularize, bool], Base]
    threshold: bool = False
    """Whether it reads ``target_threshold``."""


LOSSES: dict[str, Labels] = {"cross-entropy": Labels(cross_entropy), "bce": Labels(bce, threshold=True)}


def base_loss(regularize: Regularize, mixed: bool) -> Base:
    """The recipe's loss on the labels. Raises TrainError for an unknown one."""
    return lookup("loss", regularize.loss, LOSSES).build(regularize, mixed)


def build_loss(recipe: Recipe) -> Loss:
    """The one seam between loop and losses: loss(outputs, targets, teacher's logits) -> {"total", "base", ...}.

    ``outputs`` are the student's heads; the parts are scalars, and "total" is what is minimised. Computed in fp32
    whatever the precision of the logits.
    """
    return _loss(recipe.distill, base_loss(recipe.regularize, recipe.mixes))


def _loss(settings: Distill, base: Base) -> Loss:
    kind = distillation_of(settings.type)
    term, tau = kind.term, settings.tau
    alpha = kind.alpha if settings.alpha is None else settings.alpha
    by_element = kind.tau and settings.normalisation == "element"

    def labels_alone(outputs: Heads, targets: Tensor, teacher: Tensor | None) -> dict[str, Tensor]:
        first, second = in_fp32(outputs[0]), outputs[1]
        if kind.heads == 1 or second is None:
            total = base(first, targets)
            return {"total": total, "base": total}
        parts = {"class": base(first, targets), "second": base(in_fp32(second), targets)}
        total = (parts["class"] + parts["second"]) / 2
        return {"total": total, "base": total, **parts}

    def with_teacher(outputs: Heads, targets: Tensor, teacher: Tensor | None) -> dict[str, Tensor]:
        assert term is not None
        assert teacher is not None
        first = in_fp32(outputs[0])
        student = first if outputs[1] is None else in_fp32(outputs[1])
        distillation = term(student, in_fp32(teacher), tau)
        if by_element:
            distillation = distillation / student.shape[1]
        parts = {"base": base(first, targets), "distillation": distillation}
        return {"total": (1 - alpha) * parts["base"] + alpha * parts["distillation"], **parts}

    return labels_alone if term is None else with_teacher


# -- in a notebook --------------------------------------------------------------------------------------------------


def distillation_loss(
    images: Tensor,
    targets: Tensor,
    student: nn.Module,
    teacher: nn.Module | None,
    *,
    type: str = "hard-token",
    alpha: float | None = None,
    tau: float = 3.0,
    smoothing: float = 0.1,
    smoothing_over: Literal["all", "others"] = "all",
    normalisation: Literal["batch", "element"] = "batch",
) -> dict[str, Tensor]:
    """The loss of one batch, from images: {"total", "base"} and its parts, scalars; call ``backward`` on the total.

    The part of a type with a teacher is "distillation", those of two-class-tokens are "class" and "second".

        loss = distillation_loss(images, targets, student, teacher, type="soft-token", alpha=0.5)["total"]

    ``images`` (B, C, H, W) go to both models. ``targets``: classes (B,), which are smoothed here, or the shares
    (B, K) that mixup gives, which hold their own smoothing. ``student``: a model of two heads for the token types
    (a pair of (B, K) logits, or one of timm's distilled DeiTs as it is), else of one. ``teacher``: any model of
    (B, K) logits, or of a pair of them, whose softmaxes are then fused; it runs in evaluation mode, without gradients,
    and is left as it was found. The options are those of a recipe's ``distill`` and ``regularize``, ``alpha`` None
    being the type's own.
    Raises TrainError for a model whose heads or classes do not fit, ValidationError for a value out of range.
    """
    settings = Distill(type=type, alpha=alpha, tau=tau, normalisation=normalisation)
    regularize = Regularize(label_smoothing=smoothing, smoothing_over=smoothing_over)
    kind = distillation_of(type)
    loss_of = _loss(settings, base_loss(regularize, mixed=targets.ndim == 2))
    answers = None
    if kind.teacher:
        if teacher is None:
            raise TrainError(f"the distillation type {type} needs a teacher")
        with at_rest(teacher):
            teachers = heads(teacher, images)
        answers = teachers[0] if teachers[1] is None else classifiers(teachers)["fused_softmax"]
    outputs = heads(student, images)
    if (outputs[1] is None) != (kind.heads == 1):
        raise TrainError(
            f"the distillation type {type} asks for {kind.heads} head(s), and the student has "
            f"{1 if outputs[1] is None else 2}: its forward should return "
            + ("(B, K) logits" if kind.heads == 1 else "a pair of (B, K) logits")
        )
    if answers is not None and answers.shape != outputs[0].shape:
        raise TrainError(
            f"the teacher's logits are {tuple(answers.shape)}, the student's {tuple(outputs[0].shape)}: "
            "they must be of the same classes"
        )
    return loss_of(outputs, targets, answers)
