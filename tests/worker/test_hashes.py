"""run --verify-data: a picture that changed anywhere, without changing its size, is named."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import TINY, Command
from tiny import tiny

from deit_ablate.store import Store
from deit_ablate.train.data.check import whole_hashes
from deit_ablate.train.data.sets import data_loader, load_data
from deit_ablate.worker.hashes import verified

OF = [("cat", number) for number in range(6)] + [("dog", number) for number in range(6)]


def picture(label: str, number: int) -> bytes:
    buffer = io.BytesIO()
    draw = np.random.RandomState(number + 100 * (label == "dog"))
    Image.fromarray(draw.randint(0, 256, (20, 20, 3)).astype(np.uint8)).save(buffer, "BMP")
    return buffer.getvalue()


def tree(folder: Path, name: str = "train/{}/{}.bmp") -> None:
    for label, number in OF:
        path = folder / name.format(label, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(label, number))


def imagefolder(folder: Path) -> dict[str, Any]:
    tree(folder)
    return {}


def csv(folder: Path) -> dict[str, Any]:
    tree(folder)
    lines = [f"train/{label}/{number}.bmp,{label}" for label, number in OF]
    (folder / "table.csv").write_text("\n".join(["path,label", *lines]))
    return {"file": str(folder / "table.csv")}


def webdataset(folder: Path) -> dict[str, Any]:
    with tarfile.open(folder / "train-0.tar", "w") as tar:
        for label, number in OF:
            for suffix, content in (("bmp", picture(label, number)), ("cls", label.encode())):
                entry = tarfile.TarInfo(f"{label}/{number}.{suffix}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return {}


def food101(folder: Path) -> dict[str, Any]:
    tree(folder, "food-101/images/{}/{}.jpg")
    (folder / "food-101" / "meta").mkdir()
    for part, chosen in (("train", OF[::2]), ("test", OF[1::2])):
        lists = {label: [f"{label}/{n}" for of, n in chosen if of == label] for label in ("cat", "dog")}
        (folder / "food-101" / "meta" / f"{part}.json").write_text(json.dumps(lists))
    return {"name": "torchvision:Food101"}


def huggingface(folder: Path) -> dict[str, Any]:
    datasets = pytest.importorskip("datasets")
    values = {"image": [{"bytes": picture(*each), "path": None} for each in OF], "label": [each[0] for each in OF]}
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    table = datasets.Dataset.from_dict(values, features=datasets.Features(features))
    datasets.DatasetDict({"train": table}).save_to_disk(folder)
    return {}


def flip(folder: Path, place: int = 600) -> None:
    """One bit in the middle of the picture dog 3, wherever it lies."""
    content = picture("dog", 3)[:place]
    (path,) = (path for path in folder.rglob("*") if path.is_file() and content in path.read_bytes())
    whole = bytearray(path.read_bytes())
    whole[bytes(whole).index(content) + place] ^= 1
    path.write_bytes(whole)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (imagefolder, "train/dog/3.bmp"),
        (csv, "train/dog/3.bmp"),
        (webdataset, "train-0.tar/dog/3.bmp"),
        (food101, "food-101/images/dog/3.jpg"),
        (huggingface, "train/9"),
    ],
)
def test_a_picture_that_changed_in_its_middle_is_named(
    make: Callable[[Path], dict[str, Any]], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder, store = tmp_path / "data", Store(tmp_path / "results")
    folder.mkdir()
    data = {"name": make.__name__, "id": "mine", **make(folder)}
    request = {"results": str(store.root), "data_dir": str(folder), "data": [data]}
    (first,) = verified(request)
    assert (first["pictures"], first["pinned"], first["error"]) == (12, False, None)
    flip(folder)
    assert [each["changed"] for each in verified(request)] == [[]], (
        "no run has finished on the data, and these are hashed anew"
    )
    flip(folder)
    assert [each["pictures"] for each in verified(request)] == [12]
    recipe = tiny(data={**data, "train_images": None}, schedule={"batch_size": 2})
    store.pin_data("mine", load_data(recipe, folder).facts())
    flip(folder)
    (answer,) = verified(request)
    assert (answer["changed"], answer["pinned"]) == ([f"1 changed ({name})"], True)
    flip(folder)
    assert [each["changed"] for each in verified(request)] == [[]]


def test_the_command_names_the_file_and_trains_nothing(
    sweep: Callable[..., Path], command: Command, store: Store, tmp_path: Path
) -> None:
    tree(tmp_path / "pets")
    sweep(
        "seeds: 1\nvariants: {a: {}}\n",
        base=TINY.replace("{train_images: 192}", "{name: imagefolder, id: pets}").replace("32", "4"),
    )
    run = ["run", "tiny.yaml", "--data-dir", "pets"]
    assert "data pets: 12 pictures, hashed for the first time" in command(*run, "--verify-data").stdout
    listed = (store.root / "data" / "pets.sha256").read_text()
    assert "  train/dog/3.bmp\n" in listed
    flip(tmp_path / "pets")
    (tmp_path / "pets" / "train" / "cat" / "new.bmp").write_bytes(picture("cat", 9))
    said = command(*run, "--verify-data", "--seeds", "2", code=2).stderr
    wrong = "data pets: not as they were when hashed first: 1 changed (train/dog/3.bmp), 1 new (train/cat/new.bmp)"
    assert f"error: {wrong}; expected the files as they were, or another data.id" in said
    assert (store.root / "data" / "pets.sha256").read_text() == listed
    assert len(store.runs()) == 1


def test_of_data_in_memory_the_fingerprint_is_of_all() -> None:
    assert whole_hashes(data_loader(None)(tiny()).dataset) == {}
