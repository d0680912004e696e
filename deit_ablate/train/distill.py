"""The loss: a base term on the labels, and the teacher's term, by distillation type.

total = (1 - alpha) base + alpha term (Touvron et al., arXiv 2012.12877v2, Eqs. 2 and 3; alpha is the paper's
lambda). To add a type, write its term and give it a line in ``DISTILLATIONS``; one of your own is named
``module:function`` and is (or returns) a ``Distillation``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn
from torch.nn import functional as F

from deit_ablate.recipe import Recipe
from deit_ablate.train.errors import TrainError
from deit_ablate.train.model import Heads
from deit_ablate.train.registry import lookup

Term = Callable[[Tensor, Tensor, float], Tensor]
"""Student's logits (B, K), teacher's logits (B, K), temperature -> a scalar."""
Loss = Callable[[Heads, Tensor, "Tensor | None"], dict[str, Tensor]]


def soft(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """Eq. 2: tau^2 KL(teacher || student) of the softened distributions, mean over the batch (Hinton et al., 2015).

    The reference code divides by B x K instead, K times weaker than the equation; this is the equation.
    """
    student_log, teacher_log = F.log_softmax(student / tau, dim=1), F.log_softmax(teacher / tau, dim=1)
    return F.kl_div(student_log, teacher_log, reduction="batchmean", log_target=True) * tau**2


def hard(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """Eq. 3: cross-entropy with the teacher's decision as label, not smoothed; tau plays no part."""
    return F.cross_entropy(student, teacher.argmax(dim=1))


@dataclass(frozen=True)
class Distillation:
    """How a student learns from its teacher. With two heads the term is on the distillation head, else on the class head."""

    term: Term | None
    heads: int = 1
    teacher: bool = True
    alpha: float = 0.5
    """The type's own weight of the term: the paper's lambda 0.1 (soft) and 1/2 (hard)."""
    tau: bool = False
    """Whether the term reads the temperature."""


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


def base_loss(recipe: Recipe) -> nn.Module:
    """On the labels: soft-target cross-entropy for mixed (B, K) targets, which hold the smoothing, else smoothed."""
    if recipe.mixes:
        return SoftTargetCrossEntropy()
    smoothing = recipe.regularize.label_smoothing
    return LabelSmoothingCrossEntropy(smoothing) if smoothing else nn.CrossEntropyLoss()


def build_loss(recipe: Recipe) -> Loss:
    """The one seam between loop and losses: loss(outputs, targets, teacher's logits) -> {"total", "base", ...}.

    ``outputs`` are the student's heads; the parts are scalars, and "total" is what is minimised.
    """
    kind, base = distillation_of(recipe.distill.type), base_loss(recipe)
    term, tau = kind.term, recipe.distill.tau
    alpha = kind.alpha if recipe.distill.alpha is None else recipe.distill.alpha

    def labels_only(outputs: Heads, targets: Tensor, teacher: Tensor | None) -> dict[str, Tensor]:
        total = base(outputs[0], targets)
        return {"total": total, "base": total}

    def with_teacher(outputs: Heads, targets: Tensor, teacher: Tensor | None) -> dict[str, Tensor]:
        assert term is not None
        assert teacher is not None
        student = outputs[0] if outputs[1] is None else outputs[1]
        parts = {"base": base(outputs[0], targets), "distillation": term(student, teacher, tau)}
        return {"total": (1 - alpha) * parts["base"] + alpha * parts["distillation"], **parts}

    return labels_only if term is None else with_teacher
