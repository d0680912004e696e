"""Teachers that come from files, by timm's names, and runs that teach at another resolution."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from timm.layers import resample_abs_pos_embed
from timm.models import get_pretrained_cfg
from tiny import tiny
from torch import Tensor, nn
from torch.nn import functional as F

from deit_ablate import files
from deit_ablate.errors import TrainError
from deit_ablate.recipe import Recipe
from deit_ablate.train import checkpoint, teachers
from deit_ablate.train.classifier import HEADS, Classifier, Head, Transform, timm_weights
from deit_ablate.train.data.images import ArrayImages
from deit_ablate.train.data.sets import Dataset, Splits, load_data
from deit_ablate.train.distill import recipe_model
from deit_ablate.train.evaluate import classifiers
from deit_ablate.train.initial import fit, read_weights
from deit_ablate.train.loop import Journal, train
from deit_ablate.train.model import Shape, build_model, heads
from deit_ablate.train.teachers import (
    Parent,
    Teacher,
    build_teacher,
    download_weights,
    fetch,
    named_teacher,
    teacher_file,
)

CPU = torch.device("cpu")
ONE: dict[str, Any] = {"schedule": {"epochs": 1}}
VIT, CONVNET, DISTILLED = "test_vit.r160_in1k", "test_resnet.r160_in1k", "deit_tiny_distilled_patch16_224.fb_in1k"


def model_of(name: str, **options: Any) -> Any:
    """A small timm model for digits, its weights drawn at random, batch norm and heads included."""
    torch.manual_seed(1)
    model = timm.create_model(name, **{"num_classes": 10, "in_chans": 1, **options})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def vit() -> Any:
    return model_of(VIT, img_size=32)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def digits() -> Splits:
    return load_data(tiny(), None)


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def same(found: dict[str, Tensor], model: nn.Module) -> bool:
    wanted = model.state_dict()
    return found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)


# -- files ----------------------------------------------------------------------------------------------------------

LAYOUTS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda w: w,
    "official DeiT": lambda w: {"model": w, "args": argparse.Namespace(lr=5e-4, output_dir="x"), "epoch": 299},
    "reference code, in training": lambda w: {
        "model": w,
        "model_ema": {k: v * 0 for k, v in w.items()},
        "optimizer": {},
    },
    "timm": lambda w: {"state_dict": w, "arch": "test_vit", "state_dict_ema": {k: v * 0 for k, v in w.items()}},
    "average alone": lambda w: {"model_ema": w},
    "ours": lambda w: {"step": 3, "history": [], "data": "f", "model": w, "ema": None, "optimizer": {}},
    "DDP": lambda w: {f"module.{key}": value for key, value in w.items()},
    "compiled": lambda w: {"model": {f"_orig_mod.{key}": value for key, value in w.items()}},
}


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_every_layout_of_a_checkpoint_gives_its_weights(layout: str, vit: Any, tmp_path: Path) -> None:
    path = saved(tmp_path / "weights.pth", LAYOUTS[layout](vit.state_dict()))
    assert same(read_weights(path)[0], vit)


def test_a_file_is_known_by_its_content_not_by_its_name(vit: Any, tmp_path: Path) -> None:
    safetensors.torch.save_file(vit.state_dict(), tmp_path / "pytorch_model.bin")
    assert same(read_weights(tmp_path / "pytorch_model.bin")[0], vit)
    torch.save(vit.state_dict(), tmp_path / "legacy.safetensors", _use_new_zipfile_serialization=False)
    assert same(read_weights(tmp_path / "legacy.safetensors")[0], vit)


class Hostile:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("new", [True, False])
def test_a_file_that_asks_for_code_is_refused(new: bool, vit: Any, tmp_path: Path) -> None:
    content = {"model": vit.state_dict(), "args": Hostile(f"touch {tmp_path}/ran")}
    torch.save(content, tmp_path / "hostile.pth", _use_new_zipfile_serialization=new)
    with pytest.raises(TrainError, match=r"asks for code to be run \(posix.system\), which is refused"):
        read_weights(tmp_path / "hostile.pth")
    assert not (tmp_path / "ran").exists()


def test_what_is_no_weights_file_is_said(vit: Any, tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.pth", vit.state_dict()).read_bytes()
    safetensors.torch.save_file(vit.state_dict(), tmp_path / "whole.safetensors")
    tensors = (tmp_path / "whole.safetensors").read_bytes()
    for content in (
        b"",
        b"hello, these are no weights",
        whole[: len(whole) // 2],
        tensors[: len(tensors) // 2],
        tensors[:8] + b"{" * 90,
    ):
        (tmp_path / "damaged").write_bytes(content)
        with pytest.raises(TrainError, match="damaged is not a whole weights file"):
            read_weights(tmp_path / "damaged")
    np.savez(tmp_path / "jax.npz", a=np.zeros(3))
    with pytest.raises(TrainError, match="jax.npz is not a whole weights file"):
        read_weights(tmp_path / "jax.npz")
    for content in ([1, 2], 3):
        with pytest.raises(TrainError, match="not a state dict"):
            read_weights(saved(tmp_path / "other.pth", content))
    for content in ({}, {"model": {"a": 1}}, {"epoch": 3}):
        with pytest.raises(TrainError, match="holds no state dict"):
            read_weights(saved(tmp_path / "none.pth", content))
    with pytest.raises(TrainError, match="does not exist"):
        read_weights(tmp_path / "gone.pth")
    with pytest.raises(TrainError, match="cannot be read: Is a directory"):
        read_weights(tmp_path)


# -- models by name -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), [(VIT, {"img_size": 32}), (CONVNET, {}), ("test_efficientnet", {})])
def test_a_named_model_with_a_file_answers_as_the_model_that_wrote_it(
    name: str, options: dict[str, Any], images: Tensor, tmp_path: Path
) -> None:
    written = model_of(name, **options)
    found = named_teacher(name, saved(tmp_path / "w.pth", {"model": written.state_dict()}), None, 10, 1)
    assert same(found.model.state_dict(), written)
    assert found.resolution == options.get("img_size", get_pretrained_cfg(name).input_size[-1])
    assert not found.model.training
    larger = F.interpolate(images, size=(found.resolution, found.resolution))
    assert torch.equal(found.model(larger), written(larger))
    assert "state_dict" not in found.model.pretrained_cfg  # type: ignore[operator]


def test_names_of_the_weights_are_converted_as_timm_does(tmp_path: Path, images: Tensor) -> None:
    """OpenCLIP has timm's model under other names."""
    written = model_of(VIT, img_size=32)
    openclip = {f"visual.trunk.{key}": value for key, value in written.state_dict().items()}
    found = named_teacher(VIT, saved(tmp_path / "w.pth", openclip), 32, 10, 1)
    assert same(found.model.state_dict(), written)


def test_position_embeddings_tell_the_resolution_and_are_interpolated_to_another(vit: Any, tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", vit.state_dict())
    assert named_teacher(VIT, path, None, 10, 1).resolution == 32
    larger = named_teacher(VIT, path, 64, 10, 1)
    assert larger.resolution == 64
    prefix = vit.num_prefix_tokens
    wanted = resample_abs_pos_embed(vit.pos_embed, new_size=[4, 4], num_prefix_tokens=prefix, interpolation="bicubic")
    assert torch.equal(larger.model.pos_embed, wanted)  # type: ignore[arg-type]
    assert torch.equal(larger.model.pos_embed[:, :prefix], vit.pos_embed[:, :prefix])  # type: ignore[index]
    assert larger.model(torch.zeros(1, 1, 64, 64)).shape == (1, 10)


def test_a_teacher_of_two_heads_answers_with_their_fused_softmaxes(
    images: Tensor, digits: Splits, tmp_path: Path
) -> None:
    written = model_of(DISTILLED, img_size=16)
    path = saved(tmp_path / "w.pth", {"model": written.state_dict()})
    teacher = built(digits, tmp_path, path, teacher=DISTILLED)
    assert torch.equal(teacher(images), classifiers(heads(written, images))["fused_softmax"])
    assert teacher(images).exp().sum(1).allclose(torch.ones(4))


@pytest.mark.parametrize("head", HEADS[1:])
def test_a_teacher_whose_weights_are_of_one_head_alone_answers_with_that_one(
    images: Tensor, digits: Splits, head: Head
) -> None:
    """As `deit-ablate weights` writes it: doubled beside a head of zeros, for timm's average."""
    recipe = tiny(distill={"type": "two-class-tokens"})
    model, loaded = (recipe_model(recipe, digits.dataset) for _ in range(2))
    transform, classes = Transform(recipe, digits.dataset), digits.dataset.classes
    loaded.load_state_dict(timm_weights(Classifier(model, transform, classes, head)))
    assert torch.equal(Teacher(loaded, 16, CPU)(images), classifiers(heads(model.eval(), images))[head])


def test_what_does_not_fit_is_said(vit: Any, tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", vit.state_dict())
    thousand = saved(tmp_path / "1000.pth", model_of(VIT, num_classes=1000, img_size=32).state_dict())
    for weights, resolution, classes, channels, said in (
        (path, None, 100, 1, f"the teacher {VIT} knows 10 classes, and the data have 100"),
        (thousand, None, 10, 1, f"the teacher {VIT} knows 1000 classes, and the data have 10"),
        (None, None, 10, 3, f"the teacher {VIT} knows 1000 classes, and the data have 10"),
        (None, None, 1000, 1, f"the teacher {VIT} sees 3 channels, and the data have 1"),
        (path, None, 10, 3, f"w.pth does not fit the teacher {VIT}: "),
        (path, 33, 10, 1, f"the teacher {VIT} does not take images of 33 pixels"),
    ):
        with pytest.raises(TrainError, match=said):
            named_teacher(VIT, weights, resolution, classes, channels)
    with pytest.raises(TrainError, match=f"w.pth does not fit the teacher {CONVNET}: .*Missing key"):
        named_teacher(CONVNET, path, None, 10, 1)
    lacking = {key: value for key, value in vit.state_dict().items() if not key.startswith("blocks.1")}
    with pytest.raises(TrainError, match=r"does not fit .*Missing key.*blocks\.1"):
        named_teacher(VIT, saved(tmp_path / "lacking.pth", lacking), None, 10, 1)
    with pytest.raises(TrainError, match="no model called 'regnety_16'; did you mean 'regnety_16"):
        named_teacher("regnety_16", path, None, 10, 1)
    with pytest.raises(TrainError, match=r"no such weights: Invalid pretrained tag \(mine\) for test_vit"):
        named_teacher("test_vit.mine", path, None, 10, 1)


def test_without_a_network_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_network(*_: Any, **__: Any) -> Any:
        raise OSError("Name or service not known\nand more")

    monkeypatch.setattr(timm, "create_model", no_network)
    said = (
        r"the weights of test_vit.r160_in1k could not be fetched from timm's hub \(Name or service not known\): "
        r"give them "
        r"as a file \(distill.teacher_weights: FILE, or model.init: FILE\), "
        r"or run `deit-ablate fetch SWEEP` on a machine with a network"
    )
    with pytest.raises(TrainError, match=said):
        named_teacher(VIT, None, None, 1000, 3)
    with pytest.raises(TrainError, match="timm has no weights of vit_base_patch16_18x2_224: give them as a file"):
        named_teacher("vit_base_patch16_18x2_224", None, None, 1000, 3)


# -- what the teacher sees ------------------------------------------------------------------------------------------


def built(data: Splits, folder: Path, weights: Path | None, parent: Parent | None = None, **distill: Any) -> Teacher:
    if weights is not None and "teacher_weights" not in distill:
        distill["teacher_weights"] = f"sha256:{files.sha256(weights)}"
    teacher = build_teacher(tiny(distill={"type": "soft", **distill}), data, parent, weights, CPU)
    assert teacher is not None
    return teacher


def test_images_come_in_the_teachers_own_normalisation_and_resolution(tmp_path: Path) -> None:
    pixels, targets = np.zeros((40, 16, 16, 3), np.uint8), np.arange(40) % 10
    pictures = ArrayImages(pixels, targets)
    colour = Dataset("colour", tuple("0123456789"), 3, (0.1, 0.2, 0.3), (0.3, 0.4, 0.5), pictures, pictures, "f")
    data = Splits(colour, np.arange(40), np.arange(0))
    written = model_of(CONVNET, in_chans=3)
    path = saved(tmp_path / "w.pth", written.state_dict())

    raw = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values)[:, None, None] for values in (colour.mean, colour.std))
    config = get_pretrained_cfg(CONVNET)
    assert config.mean != colour.mean
    their_mean, their_std = (torch.tensor(values)[:, None, None] for values in (config.mean, config.std))
    answers = built(data, tmp_path, path, teacher=CONVNET, teacher_resolution=24)((raw - mean) / std)
    larger = F.interpolate(raw, size=(24, 24), mode="bicubic", align_corners=False, antialias=True)
    assert torch.allclose(answers, written((larger - their_mean) / their_std), atol=1e-5)
    assert answers.dtype == torch.float32
    assert not answers.requires_grad

    # A file of ours was trained with the data set's normalisation, whatever timm says of the name.
    ours = saved(tmp_path / "ours.pth", LAYOUTS["ours"](written.state_dict()))
    student = (raw - mean) / std
    assert torch.equal(built(data, tmp_path, ours, teacher=CONVNET, teacher_resolution=16)(student), written(student))


def test_the_file_is_the_one_that_the_recipe_names(vit: Any, digits: Splits, tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", vit.state_dict())
    with pytest.raises(TrainError, match="its content is another"):
        built(digits, tmp_path, path, teacher=VIT, teacher_weights=f"sha256:{'0' * 64}")
    with pytest.raises(TrainError, match="give its path as teacher_weights"):
        built(digits, tmp_path, None, teacher=VIT, teacher_weights=f"sha256:{'0' * 64}")
    with pytest.raises(TrainError, match=r"distill.type soft needs a teacher: .*distill\.teacher"):
        built(digits, tmp_path, None)
    with pytest.raises(TrainError, match="two teachers"):
        built(digits, tmp_path, path, parent=Parent(tiny(), path), teacher=VIT)
    assert build_teacher(tiny(), digits, None, None, CPU) is None


def test_a_student_learns_from_a_named_teacher(vit: Any, tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", vit.state_dict())
    named = {"type": "hard", "teacher": VIT, "teacher_weights": f"sha256:{files.sha256(path)}"}
    outcome = train(tiny(**ONE, distill=named), teacher_weights=path)
    again = train(tiny(**ONE, distill=named), teacher_weights=path)
    alone = train(tiny(**ONE))
    assert outcome.weights_sha256 == again.weights_sha256 != alone.weights_sha256


# -- runs that teach ------------------------------------------------------------------------------------------------


def trained(recipe: Recipe, path: Path) -> Parent:
    journal = Journal()
    train(recipe, journal=journal)
    assert journal.state is not None
    checkpoint.save(path, journal.state)
    return Parent(recipe, path)


def model_at(parent: Parent, data: Splits, resolution: int) -> nn.Module:
    """The parent's model at a resolution, put together here."""
    shape = Shape(resolution, data.dataset.channels, 10, 1, 0.0, 0.0)
    model = build_model(parent.recipe.model.name, parent.recipe.model.options, shape)
    fit(model, checkpoint.load(parent.weights)["model"], "it", antialias=False)
    return model.eval()


@pytest.mark.parametrize("kind", ["convnet", "transformer", "resnet"])
def test_a_run_teaches_at_its_resolution_or_at_the_one_that_is_asked_for(
    kind: str, images: Tensor, digits: Splits, tmp_path: Path
) -> None:
    models: dict[str, dict[str, Any]] = {
        "convnet": {"model": {"name": "small_convnet", "options": {"width": 8}}},
        "transformer": {},
        "resnet": {"model": {"name": "test_resnet", "options": {}}, "regularize": {"dropout": 0.0}},
    }
    parent = trained(tiny(**ONE, **models[kind]), tmp_path / "parent.pt")
    at_16, at_24 = model_at(parent, digits, 16), model_at(parent, digits, 24)
    larger = F.interpolate(images, size=(24, 24), mode="bicubic", align_corners=False, antialias=True)
    with torch.no_grad():
        assert torch.equal(built(digits, tmp_path, None, parent)(images), at_16(images)), "to the bit, as it was"
        asked = built(digits, tmp_path, None, parent, teacher_resolution=24)
        assert torch.equal(asked(images), at_24(larger)), "from images of another size"
        assert torch.equal(asked(larger), at_24(larger)), "the teacher at the target resolution"
        assert torch.equal(built(digits, tmp_path, None, parent, teacher_resolution=16)(images), at_16(images))
    assert not torch.equal(at_24(larger), at_16(images))
    fewer = Splits(replace(digits.dataset, classes=tuple("012345678")), digits.train, digits.validation)
    for resolution in (None, 24):
        with pytest.raises(TrainError, match=r"the teacher's weights .* do not fit"):
            built(fewer, tmp_path, None, parent, teacher_resolution=resolution)


# -- the store's part -----------------------------------------------------------------------------------------------


class Memory:
    """A store of weights in a folder, without its promises."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.fetched = folder, 0

    def find(self, wanted: str) -> Path | None:
        path = self.folder / wanted.replace(":", "-")
        return path if path.exists() else None

    def keep_hub(self, name: str, write: Callable[[Path], None]) -> Path:
        self.fetched += 1
        write(self.folder / name)
        return self.folder / name

    def hub_sha256(self, name: str) -> str | None:
        return files.sha256(self.folder / name)


def test_hub_weights_are_fetched_once_and_read_from_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = model_of(CONVNET, num_classes=1000, in_chans=3)
    monkeypatch.setattr(teachers, "_from_hub", lambda *_: hub)
    store = Memory(tmp_path)
    recipe = tiny(distill={"type": "hard", "teacher": CONVNET})
    first, second = teacher_file(recipe, store), teacher_file(recipe, store)
    assert first == second
    assert store.fetched == 1
    assert first is not None
    assert same(named_teacher(CONVNET, first, None, 1000, 3).model.state_dict(), hub)
    assert teacher_file(tiny(distill={"teacher": CONVNET}), store) is None, "nothing is distilled"
    lost = tiny(distill={"type": "hard", "teacher": CONVNET, "teacher_weights": f"sha256:{'1' * 64}"})
    with pytest.raises(TrainError, match=r"\(sha256:1+\) are not in the store: `deit-ablate fetch"):
        teacher_file(lost, store)
    monkeypatch.setattr(store, "hub_sha256", lambda name: "0")
    with pytest.raises(TrainError, match="is not what was fetched"):
        teacher_file(recipe, store)


def test_the_same_weights_are_written_as_the_same_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(teachers, "_from_hub", lambda *_: model_of(VIT, num_classes=1000, in_chans=3))
    for name in ("a", "b"):
        download_weights(VIT, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_fetching_goes_on_after_what_cannot_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def hub(name: str, *_: Any) -> Any:
        if name == VIT:
            raise TrainError("no network")
        return model_of(name, num_classes=1000, in_chans=3)

    monkeypatch.setattr(teachers, "_from_hub", hub)
    requests = [{"kind": "weights", "name": name} for name in (VIT, CONVNET, CONVNET)]
    requests += [{"kind": "data", "name": "digits", "folder": str(tmp_path)}]
    answers = list(fetch(requests, Memory(tmp_path)))
    assert [answer["name"] for answer in answers] == [VIT, CONVNET, CONVNET, "digits"]
    assert [bool(answer["error"]) for answer in answers] == [True, False, False, True]
    assert [answer["files"] for answer in answers[1:3]] == [[str(tmp_path / CONVNET)], []]
