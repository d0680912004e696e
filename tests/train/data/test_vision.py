"""Torchvision's data sets by name, from folders that are laid out as torchvision lays them out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import write_idx

from deit_ablate.errors import DataError, TrainError
from deit_ablate.recipe import Recipe
from deit_ablate.train.data.download import download
from deit_ablate.train.data.images import ArrayImages, FileImages
from deit_ablate.train.data.sets import DATASETS, Splits, load_data
from deit_ablate.train.data.vision import VISION


def load(name: str, folder: Path | None, **data: Any) -> Splits:
    data = {"name": f"torchvision:{name}", "resolution": 16, "validation": 0.2, **data}
    return load_data(Recipe.model_validate({"data": data, "schedule": {"batch_size": 2}}), folder)


def test_every_one_has_an_entry_and_is_torchvisions(tmp_path: Path) -> None:
    assert {f"torchvision:{name}" for name in VISION} == {name for name in DATASETS if ":" in name}
    for name in VISION:
        with pytest.raises(DataError, match=f"torchvision finds no whole {name} in .*fetch SWEEP --data-dir"):
            load(name, tmp_path)
        with pytest.raises(DataError, match="needs the folder in which torchvision keeps it"):
            load(name, None)


def test_one_that_lies_in_memory(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    draw = np.random.RandomState(0)
    for part, count in (("train", 40), ("t10k", 10)):
        write_idx(raw / f"{part}-images-idx3-ubyte", draw.randint(0, 256, (count, 28, 28)))
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(count) % 10)
    found = load("MNIST", tmp_path)
    dataset = found.dataset
    assert isinstance(dataset.train, ArrayImages)
    assert (len(found.train), len(found.validation), len(dataset.test)) == (32, 8, 10)
    assert (len(dataset.classes), dataset.channels, dataset.classes[3]) == (10, 1, "3 - three")
    assert dataset.mean[0] == pytest.approx(dataset.train.pixels.mean() / 255, abs=1e-4)
    assert dataset.std[0] == pytest.approx(dataset.train.pixels.std() / 255, abs=1e-4)
    assert found.sources["test"] == "torchvision's test"
    assert download("torchvision:MNIST", tmp_path) == [], "what is there is not fetched"
    write_idx(raw / "t10k-labels-idx1-ubyte", np.arange(10)[::-1])
    assert load("MNIST", tmp_path).dataset.fingerprint != dataset.fingerprint


def test_one_of_files_with_a_validation_part_of_its_own(tmp_path: Path) -> None:
    base = tmp_path / "dtd" / "dtd"
    (base / "labels").mkdir(parents=True)
    for place, (part, count) in enumerate((("train", 4), ("val", 2), ("test", 3))):
        lines = []
        for label in ("banded", "dotted"):
            (base / "images" / label).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                lines.append(f"{label}/{part}{number}.jpg")
                Image.new("RGB", (20, 20), (number, place, 0)).save(base / "images" / lines[-1])
        (base / "labels" / f"{part}1.txt").write_text("\n".join(lines) + "\n")
    found = load("DTD", tmp_path)
    assert (len(found.train), len(found.validation), len(found.dataset.test)) == (8, 4, 6)
    assert found.dataset.classes == ("banded", "dotted")
    assert found.sources["validation"] == "torchvision's val"
    train = found.dataset.train
    assert isinstance(train, FileImages)
    assert all(b"/val" in train.name(int(index)) for index in found.validation)
    assert not any(b"/val" in train.name(int(index)) for index in found.train)
    (base / "images" / "dotted" / "test1.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="dotted/test1.jpg cannot be read as a picture"):
        load("DTD", tmp_path)
    (base / "images" / "dotted" / "test2.jpg").unlink()
    with pytest.raises(DataError, match="test2.jpg is not there"):
        load("DTD", tmp_path)


def test_one_of_files_whose_lists_are_json_or_a_table(tmp_path: Path) -> None:
    food, pets = tmp_path / "food-101", tmp_path / "oxford-iiit-pet"
    (food / "meta").mkdir(parents=True)
    for part, count in (("train", 4), ("test", 2)):
        lists = {label: [f"{label}/{part}{number}" for number in range(count)] for label in ("pie", "soup")}
        (food / "meta" / f"{part}.json").write_text(json.dumps(lists))
        for name in (name for names in lists.values() for name in names):
            (food / "images" / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9)).save(food / "images" / f"{name}.jpg")
    assert load("Food101", tmp_path).facts()["per_class"] == {"pie": [3, 1, 2], "soup": [3, 1, 2]}
    for inside in ("images", "annotations/trimaps"):
        (pets / inside).mkdir(parents=True)
    for part, count in (("trainval", 5), ("test", 2)):
        names = [f"{label}_{part}{number}" for number in range(count) for label in ("Bengal", "boxer")]
        lines = [f"{name} {1 + (name[0] == 'b')} 1 1" for name in names]
        (pets / "annotations" / f"{part}.txt").write_text("\n".join(lines))
        for name in names:
            Image.new("L", (9, 9)).save(pets / "images" / f"{name}.jpg")
    found = load("OxfordIIITPet", tmp_path)
    assert found.facts()["per_class"] == {"Bengal": [4, 1, 2], "Boxer": [4, 1, 2]}
    assert found.dataset.train[0].mode == "RGB"


def test_a_name_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="did you mean 'torchvision:CIFAR10'"):
        load("CIFAR1", tmp_path)
