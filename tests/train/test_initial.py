"""Weights files to start from: fitted to other classes, channels, resolutions and heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import safetensors.torch
import timm
import torch
from support import VIT
from timm.models import get_pretrained_cfg
from tiny import TINY, tiny

from deit_ablate.errors import TrainError
from deit_ablate.store.weights import TeacherWeights
from deit_ablate.train.classifier import Classifier, Head, Transform, timm_weights
from deit_ablate.train.data.sets import load_data
from deit_ablate.train.loop import Journal, Parent, initial_model, train
from deit_ablate.train.model import Shape, build_model
from deit_ablate.train.teachers import fetch, with_start

SMALL = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
DATA = load_data(tiny(), None)


def written(path: Path, name: str = "deit_tiny_patch16_224", **options: Any) -> dict[str, torch.Tensor]:
    """A checkpoint as the DeiT authors have it, of timm's model: its state dict."""
    torch.manual_seed(7)
    model = timm.create_model(name, **{**SMALL, "img_size": 32, "num_classes": 5, **options})
    torch.save({"model": model.state_dict()}, path)
    return model.state_dict()


def started(path: Path, **blocks: Any) -> dict[str, torch.Tensor]:
    recipe = tiny(**{**blocks, "model": {**TINY["model"], **blocks.get("model", {}), "init": str(path)}})
    return initial_model(recipe, DATA, None).state_dict()


def test_a_file_of_other_classes_channels_and_resolution(tmp_path: Path) -> None:
    theirs, ours = written(tmp_path / "w.pth"), started(tmp_path / "w.pth")
    fresh = initial_model(tiny(), DATA, None).state_dict()
    assert torch.equal(ours["blocks.1.mlp.fc1.weight"], theirs["blocks.1.mlp.fc1.weight"])
    assert torch.equal(ours["head.weight"], fresh["head.weight"]), "a head of other classes starts afresh"
    summed = theirs["patch_embed.proj.weight"].sum(1, keepdim=True)
    assert torch.allclose(ours["patch_embed.proj.weight"], summed), "three channels into one, as timm does it"
    assert ours["pos_embed"].shape == (1, 5, 16)
    assert torch.equal(ours["pos_embed"][:, 0], theirs["pos_embed"][:, 0])


def test_a_file_that_fits_is_taken_to_the_bit(tmp_path: Path) -> None:
    theirs = written(tmp_path / "w.pth", img_size=16, num_classes=10, in_chans=1)
    ours = started(tmp_path / "w.pth")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("token", [True, False])
def test_the_distillation_token_comes_and_goes(tmp_path: Path, token: bool) -> None:
    name = "deit_tiny_distilled_patch16_224" if token else "deit_tiny_patch16_224"
    theirs = written(tmp_path / "w.pth", name, img_size=16, num_classes=10, in_chans=1)
    ours = started(tmp_path / "w.pth", distill={"type": "none" if token else "two-class-tokens"})
    assert torch.equal(ours["head.weight"], theirs["head.weight"])
    assert torch.equal(ours["pos_embed"][:, :1], theirs["pos_embed"][:, :1])
    assert torch.equal(ours["pos_embed"][:, -4:], theirs["pos_embed"][:, -4:])
    assert ("head_dist.weight" in ours) == (not token)


@pytest.mark.parametrize(
    ("head", "kept", "left"), [("class", "head", "head_dist"), ("distillation", "head_dist", "head")]
)
def test_a_file_of_one_head_alone_gives_it_as_it_was_trained(tmp_path: Path, head: Head, kept: str, left: str) -> None:
    """The layer is doubled in the file, and the other one's zero, for timm's average."""
    two = {"distill": {"type": "two-class-tokens"}}
    theirs, fresh = initial_model(tiny(seed=1, **two), DATA, None), initial_model(tiny(**two), DATA, None).state_dict()
    classifier = Classifier(theirs, Transform(tiny(**two), DATA.dataset), DATA.dataset.classes, head)
    safetensors.torch.save_file(timm_weights(classifier), tmp_path / "w.safetensors")
    ours = started(tmp_path / "w.safetensors", **two)
    assert torch.equal(ours["dist_token"], theirs.state_dict()["dist_token"])
    assert torch.equal(ours[f"{kept}.weight"], theirs.state_dict()[f"{kept}.weight"])
    assert torch.equal(ours[f"{left}.weight"], fresh[f"{left}.weight"]), "afresh"
    if head == "class":
        assert torch.equal(started(tmp_path / "w.safetensors")["head.weight"], theirs.state_dict()["head.weight"])
    else:
        with pytest.raises(TrainError, match="it is of the distillation head alone, which this model has not"):
            started(tmp_path / "w.safetensors")


def test_a_convnet_and_its_first_layer(tmp_path: Path) -> None:
    theirs = timm.create_model("test_resnet", num_classes=5).state_dict()
    torch.save(theirs, tmp_path / "w.pth")
    ours = started(tmp_path / "w.pth", model={"name": "test_resnet", "options": {}}, regularize={"dropout": 0.0})
    first = next(name for name in theirs if theirs[name].ndim == 4)
    assert torch.allclose(ours[first], theirs[first].sum(1, keepdim=True))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs if name != first and "fc" not in name)


@pytest.mark.parametrize("classes", [10, 5])
def test_the_small_convnet_of_other_classes_and_channels(tmp_path: Path, classes: int) -> None:
    convnet = {"model": {"name": "small_convnet", "options": {"width": 8}}}
    theirs = build_model("small_convnet", {"width": 8}, Shape(16, 3, classes, 1, 0.0, 0.0)).state_dict()
    torch.save(theirs, tmp_path / "w.pth")
    ours, fresh = started(tmp_path / "w.pth", **convnet), initial_model(tiny(**convnet), DATA, None).state_dict()
    assert torch.allclose(ours["0.weight"], theirs["0.weight"].sum(1, keepdim=True))
    assert torch.equal(ours["11.weight"], (theirs if classes == 10 else fresh)["11.weight"])
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs if name.partition(".")[0] not in ("0", "11"))


def test_what_does_not_fit_is_refused_on_the_meta_device_too(tmp_path: Path) -> None:
    written(tmp_path / "w.pth", depth=3)
    with pytest.raises(TrainError, match=r"w.pth .model.init. is of another model: blocks.2"):
        started(tmp_path / "w.pth")
    written(tmp_path / "w.pth", embed_dim=32)
    with torch.device("meta"), pytest.raises(TrainError, match="has the shape"):
        started(tmp_path / "w.pth")
    written(tmp_path / "w.pth")
    with torch.device("meta"):
        started(tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes(b"nothing")
    with pytest.raises(TrainError, match="is not a whole weights file"):
        started(tmp_path / "w.pth")


@pytest.mark.parametrize("fetched", [True, False])
def test_weights_of_timms_hub_by_name(fetched: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By timm's own road to its hub, whose cache on this machine holds the file."""
    torch.manual_seed(7)
    theirs = timm.create_model(VIT.partition(".")[0]).state_dict()
    repository = get_pretrained_cfg(VIT).hf_hub_id.replace("/", "--")  # type: ignore[union-attr]
    cached = tmp_path / f"models--{repository}"
    (cached / "snapshots" / "1").mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("1")
    safetensors.torch.save_file(theirs, cached / "snapshots" / "1" / "model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    model = {"name": "test_vit", "options": {}, "init": f"timm:{VIT}"}
    recipe = tiny(model=model, data={"resolution": 32})
    if fetched:  # as `deit-ablate fetch` brings them, for runs that have no network
        store = TeacherWeights(tmp_path / "results")
        assert [answer["error"] for answer in fetch([{"kind": "weights", "name": VIT}], store)] == [None]
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "none"))
        at_hand = with_start(recipe.model_dump(mode="json"), store)
        recipe = type(recipe)(**at_hand)
    ours = initial_model(recipe, DATA, None).state_dict()
    assert torch.equal(ours["blocks.1.mlp.fc1.weight"], theirs["blocks.1.mlp.fc1.weight"])
    assert torch.allclose(ours["patch_embed.proj.weight"], theirs["patch_embed.proj.weight"].sum(1, keepdim=True))
    assert len(ours["head.weight"]) == 10
    if fetched:
        (path,) = (tmp_path / "results" / "weights").glob("*.safetensors")
        path.write_bytes(b"another")
        with pytest.raises(TrainError, match="is not what was fetched"):
            with_start(tiny(model=model).model_dump(mode="json"), store)


def test_a_run_to_start_from_is_fitted_as_a_file_is(tmp_path: Path) -> None:
    theirs = written(tmp_path / "w.pth", in_chans=1)
    torch.save({"step": 0, "model": theirs, "ema": None}, tmp_path / "run.pt")
    recipe = tiny(distill={"type": "two-class-tokens"})
    ours = initial_model(recipe, DATA, Parent(tiny(), tmp_path / "run.pt")).state_dict()
    assert torch.equal(ours["blocks.1.mlp.fc1.weight"], theirs["blocks.1.mlp.fc1.weight"])
    assert len(ours["head.weight"]) == len(ours["head_dist.weight"]) == 10


# -- frozen parts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "trained"),
    [
        (["head"], {"head.weight", "head.bias"}),
        (
            ["blocks.1.attn"],
            {f"blocks.1.attn.{part}.{kind}" for part in ("qkv", "proj") for kind in ("weight", "bias")},
        ),
        (["cls_token", "norm"], {"cls_token", "norm.weight", "norm.bias"}),
    ],
)
def test_only_what_train_only_names_moves_and_has_a_state(parts: list[str], trained: set[str]) -> None:
    recipe, journal = tiny(model={"train_only": parts}, distill={"type": "two-class-tokens"}), Journal()
    before = initial_model(recipe, DATA, None)
    assert {name for name, each in before.named_parameters() if each.requires_grad} == trained
    train(recipe, journal=journal)
    assert journal.state is not None
    moved = {
        name for name, value in journal.state["model"].items() if not torch.equal(value, before.state_dict()[name])
    }
    assert moved == trained
    assert len(journal.state["optimizer"]["state"]) == len(trained)


def test_a_part_that_no_parameter_has_is_refused() -> None:
    with pytest.raises(TrainError, match=r"model.train_only 'heads' is in no parameter's name \(there are .*attn, qkv"):
        initial_model(tiny(model={"train_only": ["head", "heads"]}), DATA, None)


def test_a_frozen_norm_keeps_its_running_statistics() -> None:
    model = {"name": "test_resnet", "options": {}}
    for parts, moves in ((["fc"], False), (["bn1", "fc"], True)):
        recipe, journal = tiny(model={**model, "train_only": parts}, data={"resolution": 32}), Journal()
        before = initial_model(recipe, DATA, None).state_dict()
        train(recipe, journal=journal)
        assert journal.state is not None
        after, averaged = journal.state["model"], journal.state["ema"]
        assert torch.equal(after["bn1.running_mean"], before["bn1.running_mean"]) != moves
        name = "layer1.0.bn1.running_var"
        assert torch.equal(after[name], before[name]) != moves
        assert torch.equal(averaged["layer1.0.conv1.weight"], before["layer1.0.conv1.weight"])
