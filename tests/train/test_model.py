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
from deit_ablate.train.initial import fit
from deit_ablate.train.loop import initial_model
from deit_ablate.train.model import MODELS, Shape, build_model, heads

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


def test_students_with_and_without_the_second_token_start_alike() -> None:
    recipe = tiny()
    data = load_data(recipe, None)
    one, two = (
        initial_model(tiny(distill={"type": type}), data, None).state_dict() for type in ("none", "two-class-tokens")
    )
    assert two.keys() - one.keys() == {"dist_token", "head_dist.weight", "head_dist.bias"}
    for name, values in one.items():
        shared = torch.cat([two[name][:, :1], two[name][:, 2:]], dim=1) if name == "pos_embed" else two[name]
        assert torch.equal(values, shared), name
    assert not torch.equal(two["head.weight"], two["head_dist.weight"])
    assert not torch.equal(two["cls_token"], two["dist_token"])
    assert two["pos_embed"][:, 1].std().item() == pytest.approx(0.02, rel=0.6)


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
    fit(large, small.state_dict(), "it", antialias=False)
    assert torch.equal(large.pos_embed[:, :2], small.pos_embed[:, :2])
    rows = large.pos_embed[0, 2:, 0].view(6, 6)
    assert torch.allclose(rows[:, 0], rows[:, 5])
    # align_corners false: the middle rows 2 and 3 lie at 7/6 and 11/6 of the small grid, a ramp stays a ramp there
    assert rows[2:4, 0].tolist() == pytest.approx([7 / 6, 11 / 6], abs=0.1)
    same = torch.rand(2, 1, 16, 16)
    again: Any = build_model("deit", SMALL, TWO)
    fit(again, small.state_dict(), "it", antialias=False)
    assert torch.equal(heads(again.eval(), same)[0], heads(small.eval(), same)[0])


def test_a_head_of_other_classes_starts_afresh_and_another_width_is_refused() -> None:
    parent = build_model("deit", SMALL, SHAPE)
    child: Any = build_model("deit", SMALL, Shape(16, 1, 3, 1, 0.0, 0.0))
    before = child.head.weight.clone()
    fit(child, parent.state_dict(), "it", antialias=False)
    assert torch.equal(child.head.weight, before)
    with pytest.raises(TrainError, match="it is of another model"):
        fit(build_model("deit", {**SMALL, "embed_dim": 32}, SHAPE), parent.state_dict(), "it", antialias=False)
