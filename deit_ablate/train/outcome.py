"""The end of a training: what is measured then, and what it is called."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from deit_ablate.recipe import Recipe
from deit_ablate.train import cost
from deit_ablate.train.checkpoint import Position
from deit_ablate.train.classifier import Classifier, Transform
from deit_ablate.train.data.images import Array, Images
from deit_ablate.train.data.loader import evaluation_batches
from deit_ablate.train.data.sets import Splits
from deit_ablate.train.distributed import Group
from deit_ablate.train.evaluate import Scores, evaluate
from deit_ablate.train.optim import Ema
from deit_ablate.train.precision import autocast


@dataclass(frozen=True)
class Outcome:
    """How a training ended, and what is known then.

    ``metrics``: {"test": scores or None, "validation": scores or None, "train_loss"}, top-1 in percent.
    ``arrays``: per test image, ``test_targets``, ``test_pred_<classifier>`` (int), ``test_confidence_<classifier>``
    (float16), and ``token_similarity`` (layers + 1,) where there are two tokens.
    ``cost``: train_seconds (of the steps, over all attempts), epoch_seconds_median, images_per_second,
    peak_memory_bytes, parameters, flops (of one image's forward pass; a multiply-add counts as two), device (cpu or
    cuda), loaders.
    """

    status: Literal["done", "diverged", "stopped"]
    reason: str | None
    metrics: dict[str, Any]
    arrays: dict[str, Array]
    cost: dict[str, Any]
    weights_sha256: str
    model: Classifier | None = field(default=None, repr=False, compare=False)
    """The model with its raw weights, in evaluation mode, with its ``transform`` and ``classes``."""

    def __repr__(self) -> str:
        """On a line: how it ended, and the figures that a notebook asks for."""
        test = self.metrics.get("test") or self.metrics.get("validation") or {}
        top1 = f", top1={test['top1']:.2f}" if "top1" in test else ""
        reason = f", reason={self.reason!r}" if self.reason else ""
        return f"Outcome({self.status}{reason}{top1}, {self.cost.get('train_seconds', math.nan):.1f} s of training)"


EVALUATION_SHARE = 0.03
"""Of the time of training, which scores on the validation part may take unless the execution says how often."""
FORWARD_SHARE = 1 / 3
"""Of a training step, which a forward pass takes: the backward pass is about twice as much."""


def epochs_between(training: int, validation: int, models: int) -> int:
    """Epochs between two scores of so many models on ``validation`` images, by EVALUATION_SHARE."""
    return max(1, math.ceil(models * FORWARD_SHARE * validation / training / EVALUATION_SHARE))


def models_scored(recipe: Recipe) -> int:
    """The raw weights, and the averaged ones where the recipe has them."""
    return 2 if recipe.regularize.ema_decay else 1


class Examiner:
    """Scores the model on the validation part (any time) and on the test split (once), and writes the outcome."""

    def __init__(
        self,
        recipe: Recipe,
        data: Splits,
        model: nn.Module,
        ema: Ema | None,
        device: torch.device,
        loaders: int,
        group: Group,
        every: int | None = None,
    ) -> None:
        """``every``: epochs between two scores on the validation part; None for as many as keep them cheap."""
        self.recipe, self.data, self.model, self.ema = recipe, data, model, ema
        self.device, self.loaders, self.group = device, loaders, group
        self.every = every or epochs_between(len(data.train), len(data.validation), models_scored(recipe))

    def validate(self, epoch: int) -> dict[str, Any] | None:
        """Scores of the raw weights (and top1_ema) on the validation part after an epoch (from 0), or None where none
        are due, or there is no such part."""
        last = epoch + 1 == self.recipe.schedule.epochs
        if not len(self.data.validation) or not (last or (epoch + 1) % self.every == 0):
            return None
        return self._score(self.data.dataset.train, self.data.validation, keep=False).metrics

    def finished(self, at: Position) -> Outcome:
        """The last epoch is done: the test split, for the first and only time."""
        if not self.recipe.data.test:
            return self._outcome("done", None, at, None, {})
        test = self._score(self.data.dataset.test, None, keep=True)
        arrays = {key if key == "token_similarity" else f"test_{key}": array for key, array in test.arrays.items()}
        return self._outcome("done", None, at, test.metrics, arrays)

    def diverged(self, at: Position, how: str) -> Outcome:
        """The loss is no number, or has exploded: this ends the run."""
        return self._outcome("diverged", how, at, None, {})

    def stopped(self, at: Position) -> Outcome:
        return self._outcome("stopped", f"asked to stop after step {at.step}", at, None, {})

    def _score(self, images: Images, indices: Array | None, keep: bool) -> Scores:
        """Of the first rank's weights, in batches that all ranks share; every rank has the scores."""
        group, average = self.group, self.ema.model if self.ema else None
        group.share_buffers(self.model, *([average] if average else []))
        batches = evaluation_batches(self.recipe, self.data.dataset, images, indices, self.loaders, self.device, group)
        return evaluate(self.model, batches, self.device, keep, average, autocast(self.recipe, self.device), group)

    def _outcome(
        self,
        status: Literal["done", "diverged", "stopped"],
        reason: str | None,
        at: Position,
        test: dict[str, Any] | None,
        arrays: dict[str, Array],
    ) -> Outcome:
        last = at.history[-1] if at.history else {"validation": None, "train_loss": None}
        metrics = {"test": test, "validation": last["validation"], "train_loss": last["train_loss"]}
        dataset = self.data.dataset
        spent, sha256 = self._cost(at), cost.weights_sha256(self.model)
        classifier = Classifier(self.model, Transform(self.recipe, dataset), dataset.classes)
        return Outcome(status, reason, metrics, arrays, spent, sha256, classifier)

    def _cost(self, at: Position) -> dict[str, Any]:
        seconds = at.train_seconds
        epochs = [line["seconds"] for line in at.history]
        peak_memory = cost.peak_memory(self.device)  # of the training: before anything else is measured
        channels, resolution = self.data.dataset.channels, self.recipe.data.resolution
        # A training that was stopped, or met a non-finite loss, ended within an epoch: that one is not in the history.
        timed = len(at.history) == self.recipe.schedule.epochs and self.group.first
        rate, batch = cost.inference(self.model, channels, resolution) if timed else (None, None)
        return {
            "train_seconds": seconds,
            "epoch_seconds_median": statistics.median(epochs) if epochs else None,
            "images_per_second": at.step * self.recipe.schedule.batch_size / seconds if seconds else None,
            "inference_images_per_second": rate,
            "inference_batch": batch,
            "peak_memory_bytes": peak_memory,
            "parameters": cost.parameters(self.model),
            "flops": cost.forward_flops(self.model, channels, resolution),
            "device": self.device.type,
            "loaders": self.loaders,
        }
