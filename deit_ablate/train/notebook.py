"""What a notebook calls: ``train`` with a bar of progress, and a DeiT with its distillation as two calls.

``DeiT`` and ``DistillWrapper`` have the arguments that users of the vit-pytorch package know; what they build is our
``model`` and ``distill``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor, nn

from deit_ablate.errors import TrainError
from deit_ablate.recipe import Recipe
from deit_ablate.train import loop
from deit_ablate.train.distill import distillation_loss
from deit_ablate.train.model import with_class_token
from deit_ablate.train.outcome import Outcome


class Bar(loop.Journal):
    """A journal in memory that shows epochs and steps as they go."""

    def __init__(self, epochs: int, progress: Progress) -> None:
        super().__init__()
        self.epochs, self.shown = epochs, progress
        self.task = progress.add_task("", total=None)

    def progress(self, epoch: int, step: int, steps: int, loss: float) -> None:
        said = f"epoch {epoch + 1} of {self.epochs}, loss {loss:.3f}"
        self.shown.update(self.task, description=said, total=self.epochs * steps, completed=epoch * steps + step)


def train(recipe: Recipe, *, progress: bool = True, **execution: Any) -> Outcome:
    """``loop.train`` with a bar of progress (on standard error), which a ``journal`` of one's own has not."""
    if not progress or "journal" in execution:
        return loop.train(recipe, **execution)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as shown:
        return loop.train(recipe, journal=Bar(recipe.schedule.epochs, shown), **execution)


def DeiT(  # noqa: PLR0913 (the arguments of vit-pytorch)
    *,
    image_size: int = 224,
    patch_size: int = 16,
    num_classes: int = 1000,
    dim: int = 192,
    depth: int = 12,
    heads: int = 3,
    mlp_dim: int | None = None,
    channels: int = 3,
    dropout: float = 0.0,
    emb_dropout: float = 0.0,
    drop_path: float = 0.0,
) -> VisionTransformerDistilled:
    """A DeiT with its distillation token: images (B, channels, image_size, image_size) to logits (B, num_classes), the
    mean of both heads'; ``deit_ablate.train.model.heads`` gives each.

    The attention heads share ``dim`` out between them (vit-pytorch's have 64 dimensions each); ``mlp_dim`` is four
    times ``dim`` by default. ``dropout`` acts on each block's projections, ``emb_dropout`` on the embeddings.
    Raises TrainError for a size that is no whole number of patches, and a ``dim`` that is none of heads.
    """
    return with_class_token(
        VisionTransformerDistilled,
        img_size=image_size,
        patch_size=patch_size,
        num_classes=num_classes,
        embed_dim=dim,
        depth=depth,
        num_heads=heads,
        mlp_ratio=4.0 if mlp_dim is None else mlp_dim / dim,
        in_chans=channels,
        proj_drop_rate=dropout,
        pos_drop_rate=emb_dropout,
        drop_path_rate=drop_path,
    )


class DistillWrapper(nn.Module):
    """A student with its teacher: ``DistillWrapper(student, teacher)(images, labels)`` is the loss of a batch.

    ``student``: a ``DeiT``, or another model of two heads; ``teacher``: any model of (B, K) logits of the same classes,
    which learns nothing and runs in evaluation mode. ``temperature`` softens both distributions, ``alpha`` is the
    teacher's share of the loss, ``hard`` takes the teacher's decision as label instead. ``smoothing``: of the labels.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        *,
        temperature: float = 3.0,
        alpha: float = 0.5,
        hard: bool = False,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if student is teacher:
            raise TrainError("the student is its own teacher")
        self.student, self.teacher = student, teacher
        kind = "hard-token" if hard else "soft-token"
        self._loss = partial(distillation_loss, type=kind, alpha=alpha, tau=temperature, smoothing=smoothing)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar, of images (B, C, H, W) and labels: classes (B,), or shares (B, K), which mixup gives."""
        return self._loss(images, labels, self.student, self.teacher)["total"]
