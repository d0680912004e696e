"""Data of one's own in files: which part is for what, what counts as a picture, and tables of pictures."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import write_tree

from deit_ablate.errors import DataError
from deit_ablate.recipe import Recipe
from deit_ablate.store.datafacts import data_lines
from deit_ablate.train.data.images import FileImages
from deit_ablate.train.data.sets import Splits, load_data


def load(folder: Path | None, **data: Any) -> Splits:
    data = {"name": "imagefolder", "id": "some", "resolution": 16, "validation": 0.2, **data}
    return load_data(Recipe.model_validate({"data": data, "schedule": {"batch_size": 2}}), folder)


def fill(folder: Path, **parts: int) -> Path:
    """So many pictures a class, of two classes, in each part; no two of them are alike."""
    for place, (part, count) in enumerate(parts.items()):
        for red, label in enumerate(("cat", "dog")):
            (folder / part / label).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (4, 4), (200 * red, number, place)).save(folder / part / label / f"{number}.bmp")
    return folder


def names(splits: Splits) -> dict[str, Counter[str]]:
    """By what they are for: the parts that the pictures lie in."""
    train, test = splits.dataset.train, splits.dataset.test
    assert isinstance(train, FileImages)
    assert isinstance(test, FileImages)
    used = {"train": (train, splits.train), "validation": (train, splits.validation), "test": (test, range(len(test)))}
    paths = {use: [os.fsdecode(images.name(index)) for index in chosen] for use, (images, chosen) in used.items()}
    every = [path for found in paths.values() for path in found]
    assert len(every) == len(set(every)), "no picture is for two things"
    return {use: Counter(path.split("/")[0] for path in found) for use, found in paths.items()}


# -- parts ----------------------------------------------------------------------------------------------------------


def test_a_folder_with_train_and_val_is_what_it_was_in_earlier_versions(tmp_path: Path) -> None:
    found = load(fill(tmp_path, train=10, val=5))
    assert found.dataset.fingerprint == "a1facadfb27e3907b4542bdb66be92165bbf9536a5a1da0f0b52984c7a022c74"
    assert found.validation.tolist() == [6, 8, 17, 19]
    assert names(found) == {"train": {"train": 16}, "validation": {"train": 4}, "test": {"val": 10}}
    share = "20% of the training pictures, cut by a fixed seed"
    assert found.sources == {"train": "train/", "validation": share, "test": "val/"}


@pytest.mark.parametrize(
    ("parts", "validation", "expected"),
    [
        (
            {"train": 10, "val": 3, "test": 5},
            0.2,
            {"train": {"train": 20}, "validation": {"val": 6}, "test": {"test": 10}},
        ),
        ({"train": 10, "val": 3, "test": 5}, 0, {"train": {"train": 20}, "validation": {}, "test": {"test": 10}}),
        ({"train": 10, "test": 5}, 0.2, {"train": {"train": 16}, "validation": {"train": 4}, "test": {"test": 10}}),
        ({"train": 10}, 0.25, {"train": {"train": 12}, "validation": {"train": 4}, "test": {"train": 4}}),
    ],
)
def test_parts_are_read_by_name_and_a_share_is_cut_where_one_is_missing(
    tmp_path: Path, parts: dict[str, int], validation: float, expected: dict[str, dict[str, int]]
) -> None:
    found = load(fill(tmp_path, **parts), validation=validation)
    assert names(found) == expected
    facts = found.facts()
    assert [facts[use] for use in ("train", "validation", "test")] == [
        sum(found.values()) for found in expected.values()
    ]
    half = [facts[use] / 2 for use in ("train", "validation", "test")]
    assert facts["per_class"] == {"cat": half, "dog": half}, "classes are in proportion"
    again = load(tmp_path, validation=validation)
    assert names(again) == names(found)
    assert np.array_equal(again.validation, found.validation)


def test_a_test_part_makes_other_data_of_a_folder(tmp_path: Path) -> None:
    before = load(fill(tmp_path, train=10, val=5)).dataset
    after = load(fill(tmp_path, test=2)).dataset
    assert not before.has(after.fingerprint)
    assert not after.has(before.fingerprint)
    assert not after.has(before.listing), "nor is it what earlier versions pinned by names and sizes"


def test_the_share_for_testing_is_the_recipes(tmp_path: Path) -> None:
    fill(tmp_path, train=10)
    assert len(load(tmp_path, options={"test_share": 0.5}).dataset.test) == 10
    for share, says in ((1.5, "expected a share above 0"), (0.01, "20 pictures, of which 1% make no test split")):
        with pytest.raises(DataError, match=says):
            load(tmp_path, options={"test_share": share})
    fill(tmp_path, val=2)
    with pytest.raises(DataError, match=r"test_share is of no use: val/ is the test split"):
        load(tmp_path, options={"test_share": 0.5})


def test_parts_of_other_classes_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, train=2, val=2, test=2)
    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "owl")
    with pytest.raises(
        DataError, match=r"train/ and test/ hold different classes \(only in train/: dog; only in test/: owl\)"
    ):
        load(tmp_path)


def test_imagenets_test_folder_has_no_labels_and_is_not_read(tmp_path: Path) -> None:
    fill(tmp_path, train=4, val=2)
    (tmp_path / "test").mkdir()
    with pytest.raises(DataError, match="2 classes, 8 training and 4 validation images, not 1000"):
        load(tmp_path, name="imagenet", id=None)
    (tmp_path / "val").rename(tmp_path / "valid")
    with pytest.raises(DataError, match="has no folder val/"):
        load(tmp_path, name="imagenet", id=None)


# -- what is said ---------------------------------------------------------------------------------------------------


def test_classes_counts_parts_and_what_is_not_read_are_said(tmp_path: Path) -> None:
    fill(tmp_path, train=10, val=5)
    Image.new("P", (4, 4)).save(tmp_path / "train" / "cat" / "moving.gif")
    Image.new("RGB", (4, 4)).save(tmp_path / "train" / "dog" / "one.jfif", "JPEG")
    for name in ("._0.bmp", "Thumbs.db", ".DS_Store", "a.heic", "b.HEIC", "notes.txt", "LICENSE"):
        (tmp_path / "train" / "cat" / name).write_bytes(b"none")
    (tmp_path / "val" / ".ipynb_checkpoints").mkdir()
    assert data_lines(load(tmp_path).facts()) == [
        "2 classes; pictures: 18 training (train/), "
        "4 validation (20% of the training pictures, cut by a fixed seed), 10 test (val/)",
        "by class (training/validation/test): cat 9/2/5, dog 9/2/5",
        "4 hidden files or folders (.DS_Store, ._*, Thumbs.db, ...) are no part of the data",
        "4 files are not read: their extensions are none of a picture's (.heic 2, .txt 1)",
    ]


def test_of_many_classes_the_smallest_and_the_largest_are_said(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"c{number:03}": 1 + (number == 7) for number in range(21)})
    said = data_lines(load(tmp_path, validation=0).facts())[1]
    assert said == "by class: training 1 to 2, validation 0 to 0, test 1 to 2"
    assert data_lines({"name": "digits", "classes": ["0", "1"]}) == [], "what is known by name is not repeated"


def test_a_moving_gif_is_its_first_frame(tmp_path: Path) -> None:
    fill(tmp_path, train=4, val=2)
    frames = [Image.new("RGB", (4, 4), color) for color in ((250, 0, 0), (0, 250, 0))]
    frames[0].save(tmp_path / "val" / "cat" / "0.gif", save_all=True, append_images=frames[1:])
    pictures = load(tmp_path).dataset.test
    assert isinstance(pictures, FileImages)
    (place,) = [index for index in range(len(pictures)) if pictures.name(index).endswith(b"gif")]
    picture = pictures[place]
    assert picture.mode == "RGB"
    assert picture.getpixel((0, 0)) == (250, 0, 0)


# -- tables ---------------------------------------------------------------------------------------------------------


def table(folder: Path, text: str, **data: Any) -> Splits:
    (folder / "labels.csv").write_bytes(text.encode())
    return load(folder, name="csv", id=None, file=str(folder / "labels.csv"), **data)


def test_a_table_says_path_label_and_part(tmp_path: Path) -> None:
    fill(tmp_path, train=4, val=2, test=2)
    rows = [
        f"{part}/{label}/{n}.bmp\t{label} 10%\t{part}"
        for part in ("train", "val")
        for label in ("cat", "dog")
        for n in (0, 1)
    ]
    found = table(tmp_path, "\ufeffFile\tLabel\tSPLIT\r\n" + "\r\n".join(rows) + "\r\n", validation=0)
    assert found.dataset.classes == ("cat 10%", "dog 10%")
    assert names(found) == {"train": {"train": 4}, "validation": {}, "test": {"val": 4}}
    assert found.sources["test"] == "split val"
    rows += [f'"test/{label}/0.bmp",{number},valid' for number, label in ((10, "cat"), (9, "dog"))]
    found = table(
        tmp_path,
        "path,label,split\n"
        + "\n".join(row.replace("\t", ",").replace("cat 10%", "10").replace("dog 10%", "9") for row in rows).replace(
            ",val\n", ",test\n"
        )
        + "\n\n",
    )
    assert found.dataset.classes == ("9", "10"), "numbers are ordered as such"
    assert names(found) == {"train": {"train": 4}, "validation": {"test": 2}, "test": {"val": 4}}
    assert found.dataset.test.targets.tolist() == [1, 1, 0, 0]


def test_another_label_is_other_data(tmp_path: Path) -> None:
    fill(tmp_path, train=4)
    rows = [f"train/{label}/{n}.bmp,{label}\n" for label in ("cat", "dog") for n in range(4)]
    before = table(tmp_path, "path,label\n" + "".join(rows)).dataset
    rows[0] = rows[0].replace(",cat", ",dog")
    assert table(tmp_path, "path,label\n" + "".join(rows)).dataset.fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no column 'path'"),
        ("path,label\n", "has no rows"),
        ("picture,label\na,b\n", "has no column 'path', but picture, label: expected path,label"),
        (
            "path,label\ntrain/cat/0.bmp,cat\n\ngone.bmp,dog\n",
            "line 4 of the table data.file names a file that is not there: .*gone.bmp",
        ),
        ("path,label\ntrain/cat/0.bmp,cat\n", "has one class only \\(cat\\)"),
        ("path,label\ntrain/cat/0.bmp\n", "line 2 of the table data.file has 1 values"),
        ("path,label\ntrain/cat/0.bmp,\n", "line 2 of the table data.file has no label"),
        ("path,label,split\ntrain/cat/0.bmp,a,trial\n", "line 2 of the table data.file has the split 'trial'"),
        (
            "path,label,split\ntrain/cat/0.bmp,a,test\ntrain/cat/1.bmp,b,test\n",
            "has no rows of the split train, but of test",
        ),
        ("path,label\na,b\na,c\n", "line 3 of the table data.file names 'a' again, after line 2"),
        ('path,label\n"a,b\n', "cannot be read: unexpected end"),
    ],
)
def test_a_table_that_is_wrong_is_refused_at_its_line(tmp_path: Path, text: str, says: str) -> None:
    fill(tmp_path, train=2)
    with pytest.raises(DataError, match=says):
        table(tmp_path, text)
