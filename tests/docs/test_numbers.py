"""Numbers and lists in the pages' prose that can be computed are computed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from support import planned
from timm.data.mixup import rand_bbox
from torch import nn

from deit_ablate.recipe import Data, Recipe
from deit_ablate.train import cost
from deit_ablate.train.data.sets import DATASETS, digits
from deit_ablate.train.distill import DISTILLATIONS, distillation_loss
from deit_ablate.train.model import Shape, build_model

ROOT = Path(__file__).parents[2]
FIDELITY = (ROOT / "docs/fidelity.md").read_text()


def number(pattern: str, text: str = FIDELITY) -> float:
    """What the one group of the pattern says; the sentence must be there."""
    found = re.search(pattern, " ".join(text.split()))
    assert found, pattern
    return float(found[1].replace(",", ""))


@pytest.mark.parametrize("page", ["results/reference/README.md", "docs/guide/distillation.md"])
def test_the_small_studys_images_and_parameters(page: str) -> None:
    text = (ROOT / page).read_text()
    recipe = Recipe.model_validate(
        yaml.safe_load((ROOT / "sweeps/profiles/fashion-mnist-small.yaml").read_text())["recipe"]
    )
    images = number(r"small DeiT \([\d,]+ parameters\) on ([\d,]+) images of", text)
    folder = ROOT / "results/reference/optimizers@fashion-mnist-small"
    record = json.loads((folder / "records.jsonl").read_text().splitlines()[0])["recipe"]["recipe"]
    last = json.loads((folder / "curves.jsonl").read_text().splitlines()[-1])
    assert images == recipe.data.train_images == record["data"]["train_images"]
    assert f'"step": {images // 64 * 15:.0f}' in json.dumps(last), "15 epochs of whole batches of that many images"
    shape = Shape(28, 1, 10, 1, 0, 0)
    parameters = cost.parameters(build_model(recipe.model.name, recipe.model.options, shape))
    assert number(r"small DeiT \(([\d,]+) parameters\)", text) == round(parameters, -3)


def test_the_folder_of_a_study_with_an_override() -> None:
    page = (ROOT / "docs/guide/first-study.md").read_text()
    named = re.search(r"`--set (\S+)` \| an override .* \(`(\S+?)`\)", page)
    assert named
    assert planned(ROOT / "sweeps/optimizers.yaml", sets=[named[1]]).sweep.name == named[2]


def test_the_area_of_a_cutmix_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected over a uniform lambda (Beta(1, 1)) and all centres, the picture's edge cutting boxes off."""

    def areas(side: int) -> tuple[float, float]:
        centre = np.arange(side)
        now = before = 0.0
        monkeypatch.setattr(np.random, "randint", lambda low, high, size=None: centre)
        for lam in (np.arange(500) + 0.5) / 500:
            low, high, *_ = rand_bbox((side, side), lam)
            half = int(side * np.sqrt(1 - lam)) // 2  # timm 0.3.2 takes this on either side of the centre
            now += float(np.mean(high - low) ** 2)
            before += float(np.mean(np.clip(centre + half, 0, side) - np.clip(centre - half, 0, side)) ** 2)
        return now, before

    for side, pattern in ((16, r"(\d+)% more area at 16 pixels"), (224, r"more area at 16 pixels, ([\d.]+)% at 224")):
        now, before = areas(side)
        assert number(pattern) == pytest.approx(100 * (now / before - 1), abs=0.5 if side == 16 else 0.05)


def test_the_class_tokens_deviation() -> None:
    told = re.search(
        r"timm's own `(\w+)`, … start it at ([\d.]+), ≠ timm's other transformers .* keep ([\de-]+)", FIDELITY
    )
    assert told
    for name, deviation in (
        ("deit_tiny", told[2]),
        (told[1], told[2]),
        ("deit_tiny_patch16_224", told[2]),
        ("vit_tiny_patch16_224", told[3]),
        ("deit3_small_patch16_224", told[3]),
    ):
        model: Any = build_model(name, {} if name == "deit_tiny" else {"depth": 1}, Shape(32, 3, 10, 1, 0, 0))
        assert model.cls_token.std().item() == pytest.approx(float(deviation), rel=0.25), name


def test_the_digits_deviation() -> None:
    for side, pattern in ((8, r"8-pixel originals: ([\d.]+);"), (16, r"resized to 16 pixels it is ([\d.]+)\)")):
        data: Any = digits(Data(name="digits", resolution=side), None)
        assert number(pattern) == pytest.approx(float(np.std(data.train.pixels / 255)), abs=5e-4)
        assert data.std == pytest.approx([0.3757])


def test_the_evaluation_crops() -> None:
    assert number(r"\((\d+) at 224") == int(224 / 0.875)
    assert number(r"256 at 224, (\d+) at 384") == int(384 / 0.875)


def test_every_data_set_is_named_where_the_field_is_described() -> None:
    text = Recipe.model_json_schema()["$defs"]["Data"]["properties"]["name"]["description"]
    named = set(re.findall(r"[a-z][a-z0-9-]+", text.partition(":")[2]))
    assert {name.partition(":")[0] for name in DATASETS} <= named


@pytest.mark.parametrize("name", list(DISTILLATIONS))
def test_the_parts_of_a_distillation_loss(name: str) -> None:
    class Student(nn.Module):
        def forward(self, images: torch.Tensor) -> Any:
            return (images, 2 * images) if DISTILLATIONS[name].heads == 2 else images

    parts = distillation_loss(torch.rand(2, 3), torch.tensor([0, 2]), Student(), nn.Identity(), type=name)
    documented = {"total", "base"} | ({"distillation"} if DISTILLATIONS[name].teacher else set())
    documented |= {"class", "second"} if name == "two-class-tokens" else set()
    assert set(parts) == documented
    assert all(f'"{part}"' in (distillation_loss.__doc__ or "") for part in parts)
