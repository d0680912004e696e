"""Scoring a model: each head alone and the heads fused, and how alike the two tokens are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deit_ablate.errors import TrainError
from deit_ablate.train.data.images import Array
from deit_ablate.train.data.loader import Batch
from deit_ablate.train.model import Heads, at_rest, heads


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
    class_logits, distillation = outputs
    found = {"class": F.log_softmax(class_logits, dim=1)}
    if distillation is not None:
        found["distillation"] = F.log_softmax(distillation, dim=1)
        found["fused_logits"] = F.log_softmax((class_logits + distillation) / 2, dim=1)
        found["fused_softmax"] = torch.stack((found["class"], found["distillation"])).logsumexp(0) - np.log(2)
    return found


def evaluate(model: nn.Module, batches: Iterable[Batch], device: torch.device, keep: bool = False) -> Scores:
    """Top-1 (and top-5 of more than 5 classes) in percent and the cross-entropy on labels, over all the batches.

    The headline ``top1``, ``top5`` and ``loss`` are of the fused softmaxes where there are two heads, else of the
    class head. With ``keep``, each classifier's predictions (int) and their probability (float16) per image, and
    ``token_similarity`` where there are two tokens.
    """
    truth: list[Tensor] = []
    decided: dict[str, list[Tensor]] = {}
    confident: dict[str, list[Tensor]] = {}
    loss = top5 = 0.0
    classes = 0
    with at_rest(model), token_similarity(model, keep) as similarities:
        for images, targets in batches:
            found = classifiers(heads(model, images.to(device)))
            targets = targets.to(device)
            truth.append(targets.cpu())
            for name, log_probabilities in found.items():
                best = log_probabilities.max(dim=1)
                decided.setdefault(name, []).append(best.indices.cpu())
                confident.setdefault(name, []).append(best.values.exp().to(torch.float16).cpu())
            headline = found[list(found)[-1]]
            classes = headline.shape[1]
            loss += float(F.nll_loss(headline, targets, reduction="sum"))
            if classes > 5:
                top5 += float((headline.topk(5).indices == targets[:, None]).sum())
    labels = torch.cat(truth)
    correct = {name: int((torch.cat(parts) == labels).sum()) for name, parts in decided.items()}
    count = len(labels)
    if not count:
        raise TrainError("none of the images to evaluate on can be decoded")
    metrics: dict[str, Any] = {
        "images": count,
        "classes": classes,
        "loss": loss / count if math.isfinite(loss) else None,
        "top1": 100 * correct[list(correct)[-1]] / count,
    }
    if classes > 5:
        metrics["top5"] = 100 * top5 / count
    metrics |= {f"top1_{name}": 100 * number / count for name, number in correct.items()}
    if not keep:
        return Scores(metrics, {})
    arrays = {
        "targets": _small(labels),
        **{f"pred_{name}": _small(torch.cat(parts)) for name, parts in decided.items()},
    }
    arrays |= {f"confidence_{name}": torch.cat(parts).numpy() for name, parts in confident.items()}
    if similarities:
        arrays["token_similarity"] = np.array([total / count for total in similarities])
    return Scores(metrics, arrays)


def _small(labels: Tensor) -> Array:
    return labels.numpy().astype(np.int16 if labels.numel() == 0 or int(labels.max()) < 2**15 else np.int32)


@contextmanager
def token_similarity(model: nn.Module, wanted: bool) -> Iterator[list[float]]:
    """Cosine of class and distillation token, summed over the images that pass: first between the learned input
    tokens (which no image changes), then after each block. Empty for a model without the two tokens or blocks.

    Source: the paper's analysis of tokens (0.06 between the input tokens of DeiT-B, 0.93 after the last block).
    """
    blocks = getattr(model, "blocks", None)
    if not wanted or blocks is None or not hasattr(model, "dist_token") or not hasattr(model, "cls_token"):
        yield []
        return
    totals = [0.0] * (len(blocks) + 1)

    def add(layer: int, tokens: Tensor) -> None:
        totals[layer] += float(F.cosine_similarity(tokens[:, 0].double(), tokens[:, 1].double(), dim=1).sum())

    learned: list[Any] = [model.cls_token, model.dist_token]

    def at_input(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        pair = torch.cat(learned, dim=1)
        add(0, pair.expand(len(arguments[0]), -1, -1))

    hooks = [blocks[0].register_forward_pre_hook(at_input)]
    for layer, block in enumerate(blocks, start=1):
        hooks.append(block.register_forward_hook(lambda _module, _inputs, tokens, layer=layer: add(layer, tokens)))
    try:
        yield totals
    finally:
        for hook in hooks:
            hook.remove()
