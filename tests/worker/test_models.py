"""Trained models out of a store: in a notebook, in timm's form and ONNX, and what they say of pictures."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from support import Command

import deit_ablate
from deit_ablate.errors import InputError, TrainError
from deit_ablate.identity import recipe_of_record
from deit_ablate.store import Store
from deit_ablate.sweep.plan import Plan
from deit_ablate.train import checkpoint
from deit_ablate.train.data.sets import Splits, load_data
from deit_ablate.worker.models import answers


@pytest.fixture(scope="module")
def results(finished: tuple[Path, Plan]) -> Path:
    return finished[0] / "results"


def digits(store: Store, run: str) -> Splits:
    stored = store.recipe(run)
    assert stored
    return load_data(recipe_of_record(stored["recipe"], lambda sha256: None), None)


def accuracy(model: Any, data: Splits) -> float:
    """Through the transform, picture by picture, as a user would."""
    images = torch.stack([model.transform(data.dataset.test[index]) for index in range(len(data.dataset.test))])
    with torch.no_grad():
        decided = model(images).argmax(dim=1)
    return 100 * float((decided.numpy() == data.dataset.test.targets).mean())


def asked(results: Path, finished: tuple[Path, Plan], output: Path, stage: str = "student", **given: Any) -> Any:
    run = next(cell.run for cell in finished[1].cells if cell.stage == stage)
    request = {"results": str(results), "run": run, "head": "fused", "ema": False, "data_dir": None}
    return next(iter(answers("weights", {**request, "output": str(output), **given})))


@pytest.mark.parametrize(
    ("target", "options", "metric"),
    [
        ("tiny:token:0", {}, "top1"),
        ("tiny:token:0", {"head": "class"}, "top1_class"),
        ("tiny:token:0", {"head": "distillation"}, "top1_distillation"),
        ("tiny:token:0:teacher", {"ema": True}, "top1_ema"),
    ],
)
def test_a_model_that_is_loaded_decides_as_its_record_says(
    results: Path, target: str, options: dict[str, Any], metric: str
) -> None:
    model = deit_ablate.load_model(results, target, **options)
    store = Store(results)
    run = next(each for each in store.runs() if ("teacher" in target) == (not store.recipe(each)["parents"]))  # type: ignore[index]
    recorded = store.outcome(run)["metrics"]["test"][metric]  # type: ignore[index]
    assert not model.training
    assert model.classes == tuple("0123456789")
    assert accuracy(model, digits(store, run)) == pytest.approx(recorded)


def test_models_that_cannot_be_had(results: Path, copied: tuple[Store, str]) -> None:
    with pytest.raises(TrainError, match="has one head"):
        deit_ablate.load_model(results, "tiny:token:0:teacher", head="distillation")
    store, run = copied
    path = store.weights(run)
    assert path is not None
    checkpoint.save(path, {**checkpoint.load(path), "ema": None})
    with pytest.raises(TrainError, match="has no moving average"):
        deit_ablate.load_model(store.root, run, ema=True)
    path.unlink()
    with pytest.raises(InputError, match="its weights are gone"):
        deit_ablate.load_model(store.root, run)


@pytest.mark.parametrize("head", ["fused", "class", "distillation"])
def test_timm_gives_the_same_logits_from_the_file(
    results: Path, finished: tuple[Path, Plan], tmp_path: Path, head: str
) -> None:
    answer = asked(results, finished, tmp_path / "x.safetensors", head=head)
    assert answer["timm"]
    beside = json.loads((tmp_path / "x.json").read_text())
    assert beside["deit_ablate"]["metrics"]["test"]["images"] == 599
    theirs = timm.create_model(
        beside["architecture"],
        num_classes=beside["num_classes"],
        checkpoint_path=str(tmp_path / "x.safetensors"),
        **beside["model_args"],
    ).eval()
    ours = deit_ablate.load_model(results, "tiny:token:0", head=head)  # type: ignore[arg-type]
    images = torch.randn(5, 1, 16, 16)
    with torch.no_grad():
        expected = ours.model.eval()(images) if head == "fused" else ours(images)  # timm averages two heads' logits
        assert torch.allclose(theirs(images), expected, atol=1e-5)


def test_timm_loads_the_folder_of_a_model_safetensors(
    results: Path, finished: tuple[Path, Plan], tmp_path: Path
) -> None:
    asked(results, finished, tmp_path / "model.safetensors")
    theirs: Any = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert list(theirs.pretrained_cfg["mean"]) == [0.3050]
    ours = deit_ablate.load_model(results, "tiny:token:0")
    images = torch.randn(2, 1, 16, 16)
    with torch.no_grad():
        assert torch.allclose(theirs(images), ours.model.eval()(images), atol=1e-5)


def test_a_model_that_timm_has_not_is_written_under_our_name(
    results: Path, finished: tuple[Path, Plan], tmp_path: Path
) -> None:
    answer = asked(results, finished, tmp_path / "t.safetensors", stage="teacher", ema=True)
    beside = json.loads((tmp_path / "t.json").read_text())
    assert not answer["timm"]
    assert "architecture" not in beside
    assert beside["deit_ablate"]["model"] == {"name": "small_convnet", "options": {"width": 8}}
    assert beside["deit_ablate"]["weights"] == "ema"
    written = safetensors.torch.load_file(tmp_path / "t.safetensors")
    average = deit_ablate.load_model(results, "tiny:token:0:teacher", ema=True).model.state_dict()
    assert all(torch.equal(written[name], average[name]) for name in average)


def test_onnx_computes_what_torch_does_for_any_batch(
    results: Path, finished: tuple[Path, Plan], tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    answer = asked(results, finished, tmp_path / "x.onnx")
    assert answer["onnx"]["difference"] < 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"))
    images = torch.randn(3, 1, 16, 16)
    found = session.run(None, {"images": images.numpy()})[0]
    with torch.no_grad():
        expected = deit_ablate.load_model(results, "tiny:token:0")(images).numpy()
    assert np.allclose(found, expected, atol=1e-4)


def test_the_commands(copied: tuple[Store, str], command: Command) -> None:
    store, run = copied
    data = digits(store, run)
    (command.folder / "mine" / "below").mkdir(parents=True)
    for index in range(3):
        data.dataset.test[index].save(command.folder / "mine" / "below" / f"{index}.png")
    (command.folder / "mine" / "broken.png").write_bytes(b"nothing")
    (command.folder / "mine" / ".hidden.png").write_bytes(b"nothing")
    done = command("predict", "tiny:token", "mine", code=1)
    assert "mine/broken.png: " in done.stderr
    assert ".hidden" not in done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["file"] for row in rows] == [f"mine/below/{index}.png" for index in range(3)]
    model = deit_ablate.load_model(store.root, run)
    with torch.no_grad():
        shares = model(torch.stack([model.transform(data.dataset.test[index]) for index in range(3)])).softmax(1)
    assert [row["class_1"] for row in rows] == [str(int(row.argmax())) for row in shares]
    assert [float(row["probability_5"]) for row in rows] == pytest.approx(
        [float(row.topk(5).values[4]) for row in shares], abs=2e-6
    )

    assert command("weights", "tiny:token", "-o", "x.safetensors").stdout == "x.safetensors\nx.json\n"
    assert "expected .safetensors or .onnx" in command("weights", "tiny:token", "-o", "x.pth", code=2).stderr
    assert "'clas' is not one of" in command("weights", run, "-o", "x.safetensors", "--head", "clas", code=2).stderr
    store.weights(run).unlink()  # type: ignore[union-attr]
    assert "its weights are gone" in command("weights", run, "-o", "y.safetensors", code=2).stderr
    assert not (command.folder / "y.safetensors").exists()
