"""WebDataset's shards: the pictures of a folder in tar files are the same data, in any order and after a resume."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny

from deit_ablate.errors import DataError
from deit_ablate.recipe import Recipe
from deit_ablate.train.data import shards
from deit_ablate.train.data.loader import training_batches
from deit_ablate.train.data.sets import Splits, load_data
from deit_ablate.train.data.shards import TarImages


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "deit-ablate" / "shards"


def picture(number: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.RandomState(number).randint(0, 256, (20, 20, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "BMP")
    return buffer.getvalue()


def write(path: Path, members: Iterable[tuple[str, bytes]], mode: Any = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def samples(numbers: Iterable[int], *, labels: tuple[str, ...] = ("0", "1")) -> list[tuple[str, bytes]]:
    made = []
    for number in numbers:
        label = f"{labels[number % len(labels)]}\n".encode()
        made += [(f"{number:03}.bmp", picture(number)), (f"{number:03}.cls", label), (f"{number:03}.json", b"{}")]
    return made


def recipe(**data: Any) -> Recipe:
    data = {"name": "webdataset", "id": "mine", "train_images": None, "validation": 0.2, **data}
    return tiny(data=data, schedule={"batch_size": 4})


def load(folder: Path, **data: Any) -> Splits:
    return load_data(recipe(**data), folder)


def test_shards_are_the_data_that_a_folder_is(tmp_path: Path) -> None:
    numbers = {"train": range(24), "val": range(24, 30)}
    for part, chosen in numbers.items():
        for number in sorted(chosen, key=lambda number: number % 2):  # a folder has one class after the other
            path = tmp_path / "folder" / part / "ab"[number % 2] / f"{number:03}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(number))
    ordered = sorted(numbers["train"], key=lambda number: number % 2)
    write(tmp_path / "shards" / "set-train-000.tar", samples(ordered[:10], labels=("a", "b")))
    write(tmp_path / "shards" / "set-train-001.tar", samples(ordered[10:], labels=("a", "b")))
    write(tmp_path / "shards" / "validation" / "000.tar", samples(numbers["val"], labels=("a", "b")))
    ours, theirs = load(tmp_path / "shards"), load(tmp_path / "folder", name="imagefolder")
    assert ours.dataset.classes == theirs.dataset.classes
    assert ours.sources["train"] == "2 tar files of train"
    assert np.array_equal(ours.validation, theirs.validation)
    assert ours.facts()["per_class"] == theirs.facts()["per_class"]
    for loaders, start in ((0, 0), (0, 7), (2, 5)):
        batches = training_batches(recipe(), ours, start, loaders=loaders)
        expected = training_batches(recipe(name="imagefolder"), theirs, start, loaders=0)
        for (images, targets), (pixels, classes) in zip(batches, expected, strict=True):
            assert torch.equal(images, pixels)
            assert torch.equal(targets, classes)


def test_the_index_is_made_once_and_again_where_a_shard_has_changed(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    write(folder / "train.tar", samples(range(12)))
    write(folder / "test.tar", samples(range(12, 18)))
    before = load(folder).dataset
    with monkeypatch.context() as patched:
        patched.setattr(shards, "_samples", None)
        again = load(folder).dataset
    assert again.fingerprint == before.fingerprint
    assert isinstance(again.train, TarImages)
    assert again.train.content(3) == picture(3)
    for kept in cache.iterdir():
        kept.write_bytes(kept.read_bytes()[:100])
    assert load(folder).dataset.fingerprint == before.fingerprint, "a damaged index is made anew"
    write(folder / "test.tar", samples(range(13, 19)))
    assert load(folder).dataset.fingerprint != before.fingerprint
    assert len(list(cache.iterdir())) == 2


def test_another_label_or_another_bit_is_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "train.tar", samples(range(12)))
    seen = {load(tmp_path).dataset.fingerprint}
    changed = samples(range(12))
    changed[4] = ("001.cls", b"0")
    write(tmp_path / "train.tar", changed)
    seen.add(load(tmp_path).dataset.fingerprint)
    changed[4] = ("001.cls", b"1\n")
    changed[3] = ("001.bmp", changed[3][1][:-1] + b"\x01")
    write(tmp_path / "train.tar", changed)
    seen.add(load(tmp_path).dataset.fingerprint)
    assert len(seen) == 3


def test_numbers_are_named_by_a_list_beside_the_shards(tmp_path: Path) -> None:
    write(tmp_path / "train.tar", samples(range(20), labels=("0", "2", "10", "2")))
    assert load(tmp_path).dataset.classes == tuple(map(str, range(11)))
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match="classes.txt names 2 classes, and the tar files have a label 10"):
        load(tmp_path)
    (tmp_path / "classes.txt").write_text("\n".join(f"c{number}" for number in range(11)))
    found = load(tmp_path).dataset
    assert found.classes[10] == "c10"
    assert set(found.train.targets) == {0, 2, 10}


def test_a_picture_that_is_none_is_named_with_its_shard(tmp_path: Path) -> None:
    made = samples(range(12))
    made[3] = ("001.bmp", b"no picture")
    write(tmp_path / "train.tar", made)
    with pytest.raises(DataError, match=r"train\.tar/001\.bmp cannot be read as a picture"):
        load(tmp_path)
    assert len(load(tmp_path, corrupt="skip").dataset.train) == 10


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([("0.bmp", b"x")], "train.tar: 0 has no label"),
        ([("a/0.cls", b"1")], "train.tar: a/0 has no picture"),
        ([("0.bmp", b"x"), ("0.cls", b"1"), ("0.png", b"x")], "0 has two pictures"),
        ([("0.bmp", b"x"), ("0.cls", b" ")], "the label of 0 is empty"),
        ([("0.bmp", b"x"), ("0.cls", b"\xff")], "not UTF-8"),
        ([("0.bmp", b"x"), ("0.cls", b"1000000")], "1 different labels reach up to 1000000"),
        ([("0.bmp", b"x"), ("0.cls", b"cat")], "hold one class only \\(cat\\)"),
        ([("0.json", b"{}")], "have no samples: expected KEY.jpg"),
    ],
)
def test_a_shard_that_is_wrong_is_refused(tmp_path: Path, members: list[tuple[str, bytes]], says: str) -> None:
    write(tmp_path / "train.tar", members)
    with pytest.raises(DataError, match=says):
        load(tmp_path)


def test_a_folder_without_shards_to_train_on_is_refused(tmp_path: Path) -> None:
    def said(pattern: str) -> None:
        with pytest.raises(DataError, match=pattern):
            load(tmp_path)

    said("has no tar files")
    write(tmp_path / "test.tar", samples(range(4)))
    said("has no tar files of the part train, but of test")
    write(tmp_path / "more.tar", samples(range(4)))
    said("more.tar: its name says no part")
    whole = (tmp_path / "more.tar").read_bytes()
    (tmp_path / "more.tar").rename(tmp_path / "train.tar")
    (tmp_path / "train.tar").write_bytes(whole[: 512 + 700])
    said("train.tar is no whole tar file")
    write(tmp_path / "train.tar.gz", samples(range(4)), "w:gz")
    said(r"train\.tar\.gz is compressed")
