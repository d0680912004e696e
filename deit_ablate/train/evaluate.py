"""Scoring a model: each head alone and the heads fused, and how alike the two tokens are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deit_ablate.errors import TrainError
from deit_ablate.train.data.images import Array
from deit_ablate.train.data.loader import Batch
from deit_ablate.train.distributed import ALONE, Group
from deit_ablate.train.model import Heads, at_rest, heads, in_fp32


@dataclass(frozen=True)
class Scores:
    """``metrics``: images, classes, loss, top1 (the headline), top5, top1_<head>, in percent; ``arrays``: per image."""

    metrics: dict[str, Any]
    arrays: dict[str, Array]


def classifiers(outputs: Heads) -> dict[str, Tensor]:
    """Log-probabilities (B, K) of every way to decide, the headline last.

    Where there are two heads they are fused in both published ways: the sum of the softmaxes (the paper) and the
    softmax of the mean logits (the reference code).
    """
    class_logits, distillation = in_fp32(outputs[0]), None if outputs[1] is None else in_fp32(outputs[1])
    found = {"class": F.log_softmax(class_logits, dim=1)}
    if distillation is not None:
        found["distillation"] = F.log_softmax(distillation, dim=1)
        found["fused_logits"] = F.log_softmax((class_logits + distillation) / 2, dim=1)
        found["fused_softmax"] = torch.stack((found["class"], found["distillation"])).logsumexp(0) - np.log(2)
    return found


@dataclass(frozen=True)
class _Part:
    """What one batch adds. Per image (B,): its class, each classifier's decision, and its probability (float16)."""

    targets: Tensor
    decided: dict[str, Tensor]
    """The classifiers', the headline last, and then the average's where there is one: ``ema``."""
    confident: dict[str, Tensor]
    classes: int
    loss: float
    """The headline's, summed over the images."""
    top5: float
    """Images whose class is among the headline's first five; 0 where there are no more classes than that."""
    similarity: Array
    """(layers + 1,) summed over the images; empty where it is not wanted."""


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    device: torch.device,
    keep: bool = False,
    average: nn.Module | None = None,
    half: Callable[[], AbstractContextManager[Any]] = nullcontext,
    group: Group = ALONE,
) -> Scores:
    """Top-1 (and top-5 of more than 5 classes) in percent and the cross-entropy on labels, over all the batches.

    The headline ``top1``, ``top5`` and ``loss`` are of the fused softmaxes where there are two heads, else of the
    class head; ``half`` is the context of a forward pass. ``top1_ema`` is that of ``average``, where there is one, in
    the same pass over the images. With ``keep``, each classifier's predictions (int), the average's among them, and the
    classifiers' probability of theirs (float16) per image, and ``token_similarity`` where there are two tokens.

    ``group``: the ranks that each have some of the ``batches``, dealt out in turn. Every one of them gets the scores
    over all, added up batch by batch as one process does: the same bits.
    """
    mine: list[_Part | None] = []  # None keeps the place of a batch none of whose pictures can be decoded
    with at_rest(model), token_similarity(model, keep) as similarity:
        for images, targets in batches:
            inputs = images.to(device), targets.to(device)
            mine.append(_scored(model, average, half, *inputs, similarity) if len(targets) else None)
    parts = [part for part in group.gathered(mine) if part is not None]
    if not parts:
        raise TrainError("none of the images to evaluate on can be decoded")
    count = sum(len(part.targets) for part in parts)
    labels = torch.cat([part.targets for part in parts])
    decided = {name: torch.cat([part.decided[name] for part in parts]) for name in parts[0].decided}
    confident = {name: torch.cat([part.confident[name] for part in parts]) for name in parts[0].confident}
    top1 = {name: 100 * int((found == labels).sum()) / count for name, found in decided.items()}
    loss, top5, similar = 0.0, 0.0, np.zeros(len(parts[0].similarity))
    for part in parts:  # one after the other: sum() gives other bits in newer Pythons
        loss, top5, similar = loss + part.loss, top5 + part.top5, similar + part.similarity
    metrics: dict[str, Any] = {
        "images": count,
        "classes": parts[0].classes,
        "loss": loss / count if math.isfinite(loss) else None,
        "top1": top1[list(confident)[-1]],
    }
    if parts[0].classes > 5:
        metrics["top5"] = 100 * top5 / count
    metrics |= {f"top1_{name}": value for name, value in top1.items()}
    if not keep:
        return Scores(metrics, {})
    arrays = {"targets": _small(labels), **{f"pred_{name}": _small(found) for name, found in decided.items()}}
    arrays |= {f"confidence_{name}": found.numpy() for name, found in confident.items()}
    if len(similar):
        arrays["token_similarity"] = similar / count
    return Scores(metrics, arrays)


def _scored(
    model: nn.Module,
    average: nn.Module | None,
    half: Callable[[], AbstractContextManager[Any]],
    images: Tensor,
    targets: Tensor,
    similarity: list[float],
) -> _Part:
    with half():
        outputs, averaged = heads(model, images), heads(average, images) if average is not None else None
    found = classifiers(outputs)
    headline = list(found.values())[-1]
    best = {name: log_probabilities.max(dim=1) for name, log_probabilities in found.items()}
    decided = {name: values.indices.cpu() for name, values in best.items()}
    if averaged is not None:
        decided["ema"] = list(classifiers(averaged).values())[-1].argmax(dim=1).cpu()
    classes = headline.shape[1]
    return _Part(
        targets=targets.cpu(),
        decided=decided,
        confident={name: values.values.exp().to(torch.float16).cpu() for name, values in best.items()},
        classes=classes,
        loss=float(F.nll_loss(headline, targets, reduction="sum")),
        top5=float((headline.topk(5).indices == targets[:, None]).sum()) if classes > 5 else 0.0,
        similarity=np.array(similarity),
    )


def _small(labels: Tensor) -> Array:
    return labels.numpy().astype(np.int16 if labels.numel() == 0 or int(labels.max()) < 2**15 else np.int32)


@contextmanager
def token_similarity(model: nn.Module, wanted: bool) -> Iterator[list[float]]:
    """Cosine of class and distillation token, summed over the images of the last pass: first between the learned input
    tokens (which no image changes), then after each block. Empty for a model without the two tokens or blocks.

    Source: the paper's analysis of tokens (0.06 between the input tokens of DeiT-B, 0.93 after the last block).
    """
    blocks = getattr(model, "blocks", None)
    if not wanted or blocks is None or not hasattr(model, "dist_token") or not hasattr(model, "cls_token"):
        yield []
        return
    sums = [0.0] * (len(blocks) + 1)

    def note(layer: int, tokens: Tensor) -> None:
        sums[layer] = float(F.cosine_similarity(tokens[:, 0].double(), tokens[:, 1].double(), dim=1).sum())

    learned: list[Any] = [model.cls_token, model.dist_token]

    def at_input(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        pair = torch.cat(learned, dim=1)
        note(0, pair.expand(len(arguments[0]), -1, -1))

    hooks = [blocks[0].register_forward_pre_hook(at_input)]
    for layer, block in enumerate(blocks, start=1):
        hooks.append(block.register_forward_hook(lambda _module, _inputs, tokens, layer=layer: note(layer, tokens)))
    try:
        yield sums
    finally:
        for hook in hooks:
            hook.remove()
