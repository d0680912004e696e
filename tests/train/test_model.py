"""Models by name, their heads, and starting from a parent's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny
from torch import nn

from deit_ablate.errors import TrainError
from deit_ablate.train import cost
from deit_ablate.train.data.sets import load_data
from deit_ablate.train.evaluate import classifiers, evaluate
from deit_ablate.train.loop import initial_model
from deit_ablate.train.model import MODELS, Shape, build_model, heads, load_weights

SMALL = {"patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2}
SHAPE = Shape(resolution=16, channels=1, classes=10, heads=1, drop_path=0.0, dropout=0.0)
TWO = Shape(16, 1, 10, 2, 0.0, 0.0)


@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_gives_logits_for_gray_and_colour(name: str) -> None:
    options = {} if name == "small_convnet" else SMALL
    for channels in (1, 3):
        model = build_model(name, options, Shape(16, channels, 7, 1, 0.1, 0.1))
        logits, token = heads(model, torch.rand(2, channels, 16, 16))
        assert logits.shape == (2, 7)
        assert token is None


@pytest.mark.parametrize(("name", "millions"), [("deit_tiny", 5.72), ("deit_small", 22.05), ("deit_base", 86.57)])
def test_the_papers_sizes(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = build_model(name, {}, Shape(224, 3, 1000, 1, 0.1, 0.0), check=False)
    assert cost.parameters(model) / 1e6 == pytest.approx(millions, abs=0.01)


def test_two_heads_stay_apart_in_training_and_in_evaluation() -> None:
    model = build_model("deit", SMALL, TWO)
    for mode in (True, False):
        first, second = heads(model.train(mode), torch.rand(2, 1, 16, 16))
        assert second is not None
        assert not torch.allclose(first, second)


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


def test_dropout_and_drop_path_are_where_the_reference_code_has_them() -> None:
    model: Any = build_model("deit", SMALL, Shape(16, 1, 10, 1, drop_path=0.2, dropout=0.3))
    assert [
        block.drop_path1.drop_prob if hasattr(block.drop_path1, "drop_prob") else 0 for block in model.blocks
    ] == pytest.approx([0, 0.1, 0.2])
    assert (model.pos_drop.p, model.blocks[0].attn.proj_drop.p, model.blocks[0].mlp.drop1.p, model.head_drop.p) == (
        0.3,
        0.3,
        0.3,
        0,
    )
    convnet: Any = build_model("small_convnet", {}, Shape(16, 1, 10, 1, drop_path=0.2, dropout=0.3))
    assert [module.p for module in convnet if isinstance(module, nn.Dropout)] == [0.3]


def test_initial_weights_are_the_seeds_alone() -> None:
    recipe = tiny()
    data = load_data(recipe, None)
    first, second, other = (
        cost.weights_sha256(initial_model(each, data, None))
        for each in (recipe, tiny(augment={"mixup": 0.0}), tiny(seed=1))
    )
    assert first == second != other
    model: Any = initial_model(tiny(model={"options": {**SMALL, "embed_dim": 128}}), data, None)
    assert model.cls_token.std().item() == pytest.approx(0.02, rel=0.3)
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.1)


def test_timm_models_by_name_and_what_they_cannot_honour() -> None:
    assert heads(build_model("resnet10t", {}, Shape(32, 1, 5, 1, 0.1, 0.1)), torch.rand(2, 1, 32, 32))[0].shape == (
        2,
        5,
    )
    vit: Any = build_model("vit_tiny_patch16_224", {"depth": 2}, Shape(32, 1, 5, 1, 0.1, 0.2))
    assert len(vit.blocks) == 2
    assert (vit.pos_drop.p, vit.head_drop.p) == (0.2, 0)
    with pytest.raises(TrainError, match=r"cannot honour regularize.drop_path"):
        build_model("vgg11", {}, Shape(32, 3, 5, 1, 0.1, 0.0))
    with pytest.raises(TrainError, match="resnet10t has no option 'depht'"):
        build_model("resnet10t", {"depht": 3}, Shape(32, 3, 5, 1, 0.0, 0.0))


@pytest.mark.parametrize(
    ("name", "options", "shape", "message"),
    [
        ("deit", {"patch_size": 5}, SHAPE, "16 is not a multiple of the patch size 5"),
        ("deit", {**SMALL, "num_heads": 3}, SHAPE, "embed_dim 16 is not a multiple of num_heads 3"),
        ("deit", {"heads": 3}, SHAPE, "has no option 'heads'"),
        ("deit_tny", {}, SHAPE, "did you mean 'deit_tiny'"),
        ("small_convnet", {}, TWO, "small_convnet has no distillation token"),
        ("resnet10t", {}, TWO, r"has 1 head\(s\)"),
        ("deit_tiny_distilled_patch16_224", {}, Shape(32, 3, 10, 1, 0, 0), r"has 2 head\(s\)"),
        (f"{__name__}:nothing", {}, SHAPE, "has no 'nothing'"),
        ("no_such_module:net", {}, SHAPE, "cannot import"),
        (f"{__name__}:wrong_classes", {}, SHAPE, r"logits of shape \(1, 3\)"),
    ],
)
def test_what_cannot_be_built_is_said_in_words(
    name: str, options: Any, shape: Shape, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    with pytest.raises(TrainError, match=message):
        build_model(name, options, shape)


def wrong_classes(shape: Shape) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 3))


def test_position_embeddings_grow_bicubically_and_tokens_are_copied() -> None:
    small: Any = build_model("deit", SMALL, TWO)
    large: Any = build_model("deit", SMALL, Shape(24, 1, 10, 2, 0.0, 0.0))
    ramp = torch.arange(4.0)[:, None, None].expand(4, 4, 16).reshape(1, 16, 16)  # grows by 1 a row of patches
    with torch.no_grad():
        small.pos_embed[:, 2:] = ramp
    load_weights(large, small.state_dict())
    assert torch.equal(large.pos_embed[:, :2], small.pos_embed[:, :2])
    rows = large.pos_embed[0, 2:, 0].view(6, 6)
    assert torch.allclose(rows[:, 0], rows[:, 5])
    # align_corners false: the middle rows 2 and 3 lie at 7/6 and 11/6 of the small grid, a ramp stays a ramp there
    assert rows[2:4, 0].tolist() == pytest.approx([7 / 6, 11 / 6], abs=0.1)
    same = torch.rand(2, 1, 16, 16)
    again: Any = build_model("deit", SMALL, TWO)
    load_weights(again, small.state_dict())
    assert torch.equal(heads(again.eval(), same)[0], heads(small.eval(), same)[0])


def test_a_head_of_other_classes_starts_afresh_and_another_width_is_refused() -> None:
    parent = build_model("deit", SMALL, SHAPE)
    child: Any = build_model("deit", SMALL, Shape(16, 1, 3, 1, 0.0, 0.0))
    before = child.head.weight.clone()
    load_weights(child, parent.state_dict())
    assert torch.equal(child.head.weight, before)
    with pytest.raises(TrainError, match="the parent's weights do not fit"):
        load_weights(build_model("deit", {**SMALL, "embed_dim": 32}, SHAPE), parent.state_dict())


def test_flops_by_hand() -> None:
    model = build_model("deit", {**SMALL, "depth": 1}, SHAPE)
    tokens, width = 17, 16
    embed, block = 2 * 16 * 16 * width, 2 * tokens * 12 * width**2 + 2 * 2 * tokens**2 * width
    assert cost.forward_flops(model, 1, 16) == embed + block + 2 * width * 10
    assert model.training
