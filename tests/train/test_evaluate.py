"""Scores by hand: each head alone, the heads fused, and how alike two tokens are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from deit_ablate.errors import TrainError
from deit_ablate.train.evaluate import classifiers, evaluate
from deit_ablate.train.model import Shape, build_model

SMALL = {"patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2}


TWO = Shape(16, 1, 10, 2, 0.0, 0.0)


def test_heads_are_fused_both_ways() -> None:
    # softmax (3/4, 1/4, 0) and (0, 0.4, 0.6): their sum decides for class 0; the mean logits for class 1
    logits = (torch.tensor([[0.75, 0.25, 1e-9]]).log(), torch.tensor([[1e-9, 0.4, 0.6]]).log())
    found = classifiers(logits)
    assert list(found) == ["class", "distillation", "fused_logits", "fused_softmax"]
    assert found["fused_softmax"].exp()[0].tolist() == pytest.approx([0.375, 0.325, 0.3], abs=1e-6)
    assert {name: int(values.argmax()) for name, values in found.items()} == {
        "class": 0,
        "distillation": 2,
        "fused_logits": 1,
        "fused_softmax": 0,
    }


def test_scores_by_hand() -> None:
    class Fixed(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)

    images = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.2, 0.2, 0.6]]).log().view(3, 1, 1, 3)
    batches = [(images[:2], torch.tensor([0, 0])), (images[2:], torch.tensor([2]))]
    scores = evaluate(Fixed(), batches, torch.device("cpu"), keep=True)
    assert scores.metrics["images"] == 3
    assert scores.metrics["top1"] == scores.metrics["top1_class"] == pytest.approx(200 / 3)
    expected = -(torch.tensor([0.5, 0.25, 0.6]).log().sum().item()) / 3
    assert scores.metrics["loss"] == pytest.approx(expected)
    assert "top5" not in scores.metrics
    assert scores.arrays["pred_class"].tolist() == [0, 1, 2]
    assert scores.arrays["confidence_class"].tolist() == pytest.approx([0.5, 0.5, 0.6], abs=1e-3)


def test_no_model_is_given_a_batch_of_which_no_picture_can_be_decoded() -> None:
    model, cpu = build_model("deit", SMALL, TWO), torch.device("cpu")
    full, empty = ((torch.rand(count, 1, 16, 16), torch.zeros(count, dtype=torch.long)) for count in (5, 0))
    scores, expected = (evaluate(model, some, cpu, True, model) for some in ([empty, full, empty], [full]))
    assert scores.metrics == expected.metrics
    assert all((scores.arrays[name] == array).all() for name, array in expected.arrays.items())
    with pytest.raises(TrainError, match="^none of the images to evaluate on can be decoded$"):
        evaluate(model, [empty], cpu)


def test_token_similarity_by_hand() -> None:
    model: Any = build_model("deit", SMALL, TWO)
    with torch.no_grad():
        model.cls_token.copy_(torch.eye(16)[0])
        model.dist_token.copy_(torch.eye(16)[0] * 3 + torch.eye(16)[1] * 4)
    scores = evaluate(
        model, [(torch.rand(5, 1, 16, 16), torch.zeros(5, dtype=torch.long))], torch.device("cpu"), keep=True
    )
    similarity = scores.arrays["token_similarity"]
    assert similarity.shape == (4,)
    assert similarity[0] == pytest.approx(0.6)
    assert (abs(similarity) <= 1).all()
    assert not model.blocks[0]._forward_hooks
