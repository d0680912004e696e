"""Data sets in the format of Hugging Face, from a folder: what save_to_disk has written (`make test-datasets`)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny

from deit_ablate.errors import DataError, TrainError
from deit_ablate.recipe import Recipe
from deit_ablate.train.data.download import download
from deit_ablate.train.data.loader import training_batches
from deit_ablate.train.data.sets import Splits, load_data

datasets = pytest.importorskip("datasets")


def picture(number: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.RandomState(number).randint(0, 256, (20, 20, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def table(numbers: Sequence[int], **more: Any) -> Any:
    values = {
        "img": [{"bytes": picture(number), "path": None} for number in numbers],
        "label": [n % 2 for n in numbers],
    }
    features = {"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    features |= {name: feature for name, (feature, _) in more.items()}
    values |= {name: [value] * len(numbers) for name, (_, value) in more.items()}
    return datasets.Dataset.from_dict(values, features=datasets.Features(features))


def recipe(**data: Any) -> Recipe:
    data = {"name": "huggingface", "id": "mine", "train_images": None, "validation": 0.2, **data}
    return tiny(data=data, schedule={"batch_size": 4})


def load(folder: Path | None, **data: Any) -> Splits:
    return load_data(recipe(**data), folder)


def test_it_is_the_data_that_a_folder_is(tmp_path: Path) -> None:
    numbers = {"train": [*range(0, 24, 2), *range(1, 24, 2)], "validation": range(24, 30), "test": range(30, 36)}
    for split, chosen in numbers.items():
        for number in chosen:
            path = tmp_path / "folder" / split.replace("validation", "val") / ("cat", "dog")[number % 2]
            path.mkdir(parents=True, exist_ok=True)
            (path / f"{number:03}.png").write_bytes(picture(number))
    datasets.DatasetDict({split: table(chosen) for split, chosen in numbers.items()}).save_to_disk(tmp_path / "hub")
    ours, theirs = load(tmp_path / "hub"), load(tmp_path / "folder", name="imagefolder")
    assert ours.dataset.classes == ("cat", "dog")
    assert ours.sources == {"train": "split train", "validation": "split validation", "test": "split test"}
    assert ours.facts()["per_class"] == theirs.facts()["per_class"]
    for loaders, start in ((0, 2), (2, 0)):
        batches = training_batches(recipe(), ours, start, loaders=loaders)
        expected = training_batches(recipe(name="imagefolder"), theirs, start, loaders=0)
        for (images, targets), (pixels, classes) in zip(batches, expected, strict=True):
            assert torch.equal(images, pixels)
            assert torch.equal(targets, classes)
    assert ours.dataset.fingerprint == load(tmp_path / "hub").dataset.fingerprint
    datasets.DatasetDict({"train": table([*numbers["train"][:-1], 99])}).save_to_disk(tmp_path / "other")
    assert load(tmp_path / "other").dataset.fingerprint != ours.dataset.fingerprint


def test_one_table_columns_by_name_and_pictures_that_are_none(tmp_path: Path) -> None:
    made = table(
        range(20), other=(datasets.Image(), {"bytes": b"none", "path": None}), kind=(datasets.Value("string"), "x")
    )
    made = made.map(lambda row, place: {"kind": "ab"[place % 2]}, with_indices=True)
    made.save_to_disk(tmp_path / "hub")
    with pytest.raises(
        DataError, match=r"which column is the image\? \(Image: img, other\): name it by data.options.image"
    ):
        load(tmp_path / "hub")
    found = load(tmp_path / "hub", options={"image": "img", "label": "kind", "test_share": 0.4})
    assert found.dataset.classes == ("a", "b")
    assert (len(found.train), len(found.validation), len(found.dataset.test)) == (10, 2, 8)
    with pytest.raises(DataError, match="'kind' is none of the columns img, label, other, kind"):
        load(tmp_path / "hub", options={"image": "kind"})
    with pytest.raises(DataError, match="row 0 of the split train cannot be read as a picture"):
        load(tmp_path / "hub", options={"image": "other"})


def test_what_is_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="needs the folder that save_to_disk has written"):
        load(None)
    with pytest.raises(DataError, match="cannot be read as a data set of Hugging Face .*expected save_to_disk's"):
        load(tmp_path)
    with pytest.raises(DataError, match="`deit-ablate fetch SWEEP --data-dir DIR` brings it"):
        load(tmp_path, options={"repo": "some/pets"})
    datasets.DatasetDict({"test": table(range(4))}).save_to_disk(tmp_path / "no")
    with pytest.raises(DataError, match="has no split train, but test"):
        load(tmp_path / "no")
    hidden = table(range(4)).map(lambda row: {"label": -1})
    datasets.DatasetDict({"train": table(range(8)), "test": hidden}).save_to_disk(tmp_path / "hidden")
    with pytest.raises(DataError, match="the split test has pictures without a class"):
        load(tmp_path / "hidden")
    swapped = table(range(4)).cast_column("label", datasets.ClassLabel(names=["dog", "cat"]))
    datasets.DatasetDict({"train": table(range(8)), "test": swapped}).save_to_disk(tmp_path / "swapped")
    with pytest.raises(DataError, match="'label' has other classes in the split test than in train .in another order."):
        load(tmp_path / "swapped")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("no route")))
    with pytest.raises(TrainError, match=r"some/pets could not be fetched \(no route\): save_to_disk it into"):
        download("huggingface", tmp_path / "new", {"repo": "some/pets"})


def test_a_fetch_writes_what_a_run_reads_and_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def given(repo: str, config: str | None, revision: str | None) -> Any:
        asked.append((repo, config, revision))
        return datasets.DatasetDict({"train": table(range(8)), "test": table(range(8, 12))})

    monkeypatch.setattr(datasets, "load_dataset", given)
    options = {"repo": "some/pets", "revision": "v1"}
    assert download("huggingface", tmp_path / "hub", options) == ["some/pets (train)", "some/pets (test)"]
    assert download("huggingface", tmp_path / "hub", options) == []
    assert asked == [("some/pets", None, "v1")]
    assert len(load(tmp_path / "hub", options=options).dataset.test) == 4
    assert len(load(tmp_path / "hub").dataset.test) == 4, "a recipe that names no repository takes what is there"
    other = r"holds repo some/pets revision v1, and the recipe asks for repo some/pets revision v2"
    with pytest.raises(TrainError, match=other):
        download("huggingface", tmp_path / "hub", {**options, "revision": "v2"})
    with pytest.raises(DataError, match=other):
        load(tmp_path / "hub", options={**options, "revision": "v2"})
    table(range(8)).save_to_disk(tmp_path / "own")
    assert download("huggingface", tmp_path / "own", options) == [], "the user's own"
    assert len(load(tmp_path / "own", options=options).dataset.classes) == 2
