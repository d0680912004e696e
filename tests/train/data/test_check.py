"""What is looked at before the first step: the content of an image folder, and whether its files are pictures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deit_ablate.errors import DataError
from deit_ablate.recipe import Recipe
from deit_ablate.train.data import check
from deit_ablate.train.data.sets import Splits, load_data


def load(folder: Path, **data: object) -> Splits:
    data = {"name": "imagefolder", "id": "some", "resolution": 16, "validation": 0.2, **data}
    return load_data(Recipe.model_validate({"data": data, "schedule": {"batch_size": 2}}), folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part, count in (("train", 10), ("val", 8)):
        for label, red in (("cat", 0), ("dog", 200)):
            (tmp_path / part / label).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (9, 9), (red, number, 0)).save(tmp_path / part / label / f"{number}.bmp")
    return tmp_path


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_one_bit_of_one_picture_is_other_data(folder: Path) -> None:
    before = load(folder).dataset
    assert before.fingerprint_of == "content"
    flip(folder / "val" / "dog" / "3.bmp", -1)
    after = load(folder).dataset
    assert after.listing == before.listing, "names and sizes are as they were"
    assert after.fingerprint != before.fingerprint
    flip(folder / "val" / "dog" / "3.bmp", -1)
    assert load(folder).dataset.fingerprint == before.fingerprint


def test_of_a_large_folder_both_ends_of_files_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "END", 80)
    monkeypatch.setattr(check, "WHOLE", 160 * 36)  # of all its 36 files
    before = load(folder).dataset
    assert before.fingerprint_of == "sample"
    path = folder / "train" / "cat" / "0.bmp"
    seen = {}
    for place in (0, 100, 200, -1):
        content = path.read_bytes()
        flip(path, place)
        seen[place] = load(folder, corrupt="skip").dataset.fingerprint != before.fingerprint
        path.write_bytes(content)
    assert seen == {0: True, 100: False, 200: False, -1: True}
    monkeypatch.setattr(check, "WHOLE", 160 * 5)  # of five of them
    before, changed = load(folder).dataset, 0
    for path in folder.glob("*/*/*.bmp"):
        content = path.read_bytes()
        flip(path, -1)
        changed += load(folder).dataset.fingerprint != before.fingerprint
        path.write_bytes(content)
    assert changed == 5


def test_damaged_pictures_are_named_before_the_first_step(folder: Path) -> None:
    for path in (folder / "val" / "dog").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(DataError) as caught:
        load(folder)
    assert str(caught.value).count("cannot be read as a picture") == 8
    for path in (folder / "train").glob("*/1.bmp"):
        path.write_bytes(path.read_bytes()[:60])
    for path in (folder / "train").glob("*/2.bmp"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="; and 2 more$") as caught:
        load(folder)
    assert str(caught.value).count("cannot be read as a picture") == 10
    assert len(load(folder, corrupt="skip").dataset.test) == 16, "such a run passes them over when it meets them"


def test_a_jpeg_that_breaks_off_is_found(folder: Path) -> None:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    (folder / "val" / "cat" / "9.jpg").write_bytes(buffer.getvalue())
    load(folder)
    (folder / "val" / "cat" / "9.jpg").write_bytes(buffer.getvalue()[:-2000])
    with pytest.raises(DataError, match="val/cat/9.jpg cannot be read as a picture: .*truncated"):
        load(folder)


def test_what_is_not_read_is_not_checked_and_more_than_that_is_sampled(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (folder / "val").glob("*/*.bmp"):
        path.write_bytes(b"no picture")
    load(folder, test=False)
    monkeypatch.setattr(check, "CHECKED", 12)
    with pytest.raises(DataError) as caught:
        load(folder)
    assert "more" in str(caught.value) or str(caught.value).count("cannot be read") >= 8
    monkeypatch.setattr(check, "CHECKED", 30)
    for path in (folder / "train").glob("*/*.bmp"):
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="; and 10 more$"):
        load(folder)
