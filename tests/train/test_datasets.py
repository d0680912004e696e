"""Data sets by name: counts, splits, fingerprints, and a clear word where something is missing."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import tiny

from deit_ablate.recipe import Recipe, split_sizes
from deit_ablate.train.data import DATASETS, Dataset, FileImages, load_data, stratified
from deit_ablate.train.errors import TrainError
from deit_ablate.train.names import DATASET_FACTS


def write_idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_fashion(folder: Path, suffix: str = ".gz") -> None:
    draw = np.random.RandomState(0)
    for part, count in (("train", 60), ("t10k", 20)):
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", draw.randint(0, 256, (count, 28, 28)))
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", np.arange(count) % 10)


def write_tree(folder: Path, counts: dict[str, int], mode: str = "RGB") -> None:
    for part in ("train", "val"):
        for label, count in counts.items():
            (folder / part / label).mkdir(parents=True)
            for number in range(count):
                Image.new(mode, (20 + number, 24), number).save(folder / part / label / f"{number}.png")


def recipe_for(name: str, **data: Any) -> Recipe:
    return tiny(data={"name": name, "train_images": None, "id": "mine" if name == "imagefolder" else None, **data})


@pytest.fixture
def folder_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A small data folder of each data set that needs one."""

    def make(name: str) -> Path | None:
        if name == "fashion-mnist":
            write_fashion(tmp_path)
        elif name in ("imagefolder", "imagenet"):
            write_tree(tmp_path, {"cat": 12, "dog": 12})
        else:
            return None
        return tmp_path

    return make


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "imagenet"])
def test_every_data_set_splits_without_overlap_and_is_fingerprinted(name: str, folder_for: Any) -> None:
    folder = folder_for(name)
    recipe = recipe_for(name, validation=0.2)
    data = load_data(recipe, folder)
    available = len(data.dataset.train)
    assert (len(data.train), len(data.validation)) == split_sizes(available, recipe.data)
    assert not set(data.train) & set(data.validation)
    assert set(data.dataset.train.targets) == set(range(len(data.dataset.classes)))
    picture = data.dataset.train[int(data.train[0])]
    assert picture.mode == ("L" if data.dataset.channels == 1 else "RGB")
    again = load_data(recipe, folder)
    assert again.dataset.fingerprint == data.dataset.fingerprint
    assert np.array_equal(again.validation, data.validation)
    assert load_data(recipe_for(name, resolution=24), folder).dataset.fingerprint == data.dataset.fingerprint


def test_digits_are_scikit_learns_and_a_third_is_never_trained_on() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    theirs = datasets.load_digits()
    data = load_data(recipe_for("digits", resolution=8), None).dataset
    facts = DATASET_FACTS["digits"]
    assert (len(data.train), len(data.test), len(data.classes)) == (facts["train"], facts["test"], facts["classes"])
    assert np.bincount(data.test.targets).min() >= 58
    ours = np.concatenate([data.train.pixels, data.test.pixels])  # type: ignore[attr-defined]
    expected = np.round(theirs.images * (255 / 16)).astype(np.uint8)
    order = sorted(range(1797), key=lambda index: (ours[index].tobytes(), index))
    their_order = sorted(range(1797), key=lambda index: (expected[index].tobytes(), index))
    assert np.array_equal(ours[order], expected[their_order])
    labels = np.concatenate([data.train.targets, data.test.targets])
    assert np.array_equal(labels[order], theirs.target[their_order])


def test_the_split_is_the_same_for_every_seed_and_kept_when_training_on_fewer() -> None:
    whole, other = load_data(recipe_for("digits"), None), load_data(tiny(data={"train_images": None}, seed=7), None)
    assert np.array_equal(whole.validation, other.validation)
    fewer = load_data(recipe_for("digits", train_images=200), None)
    assert np.array_equal(fewer.validation, whole.validation)
    assert len(fewer.train) == 200
    assert set(fewer.train) <= set(whole.train)
    assert np.bincount(fewer.dataset.train.targets[fewer.train]).tolist() == pytest.approx([20] * 10, abs=1)
    assert len(load_data(recipe_for("digits", validation=0), None).validation) == 0


def test_stratified_shares_by_largest_remainder() -> None:
    targets = np.array([0] * 50 + [1] * 30 + [2] * 20)
    chosen = stratified(targets, 11, seed=3)  # shares 5.5, 3.3, 2.2: the odd one goes to class 0
    assert np.bincount(targets[chosen]).tolist() == [6, 3, 2]
    assert len(set(chosen)) == 11
    assert not np.array_equal(chosen, stratified(targets, 11, seed=4))


def test_fashion_mnist_reads_plain_files_too_and_names_both_ways_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"(?s)train-images-idx3-ubyte.*--data-dir.*dataset-fashion-mnist"):
        load_data(recipe_for("fashion-mnist"), tmp_path)
    write_fashion(tmp_path, "")
    plain = load_data(recipe_for("fashion-mnist", resolution=28), tmp_path).dataset
    assert (len(plain.train), len(plain.test), len(plain.classes)) == (60, 20, 10)
    write_fashion(tmp_path, ".gz")
    assert load_data(recipe_for("fashion-mnist"), tmp_path).dataset.fingerprint == plain.fingerprint
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(b"nonsense")
    with pytest.raises(TrainError, match=r"train-labels-idx1-ubyte\.gz is damaged"):
        load_data(recipe_for("fashion-mnist"), tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.arange(59) % 10)
    with pytest.raises(TrainError, match="differ in number"):
        load_data(recipe_for("fashion-mnist"), tmp_path)


def test_image_folders_say_what_is_wrong(tmp_path: Path) -> None:
    recipe = recipe_for("imagefolder", validation=0)
    with pytest.raises(TrainError, match="needs a data folder"):
        load_data(recipe, None)
    with pytest.raises(TrainError, match="does not exist"):
        load_data(recipe, tmp_path / "nowhere")
    with pytest.raises(TrainError, match="no folder train/"):
        load_data(recipe, tmp_path)
    write_tree(tmp_path, {"cat": 9, "dog": 9}, mode="L")
    data = load_data(recipe, tmp_path).dataset
    assert data.classes == ("cat", "dog")
    assert data.train[0].mode == "RGB"
    (tmp_path / "train" / "empty").mkdir()
    with pytest.raises(TrainError, match="empty"):
        load_data(recipe, tmp_path)
    (tmp_path / "train" / "empty" / "0.png").write_bytes(b"not a picture")
    with pytest.raises(TrainError, match="different classes, such as empty"):
        load_data(recipe, tmp_path)
    images = FileImages((str(tmp_path / "train" / "empty" / "0.png"),), np.zeros(1, dtype=np.int64))
    with pytest.raises(TrainError, match=r"0\.png cannot be read as a picture"):
        images[0]
    (tmp_path / "train" / "empty" / "0.png").unlink()
    (tmp_path / "train" / "empty").rmdir()
    with pytest.raises(TrainError, match="not the whole ImageNet-1k"):
        load_data(recipe_for("imagenet"), tmp_path)


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(TrainError, match="a batch of 64 is more than the 32 training images"):
        load_data(tiny(data={"train_images": 32}, schedule={"batch_size": 64}), None)


def own(data: Any, folder: Path | None) -> Dataset:
    return DATASETS["digits"](data, folder)


def test_a_data_set_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    assert len(load_data(recipe_for("test_datasets:own"), None).dataset.test) == 599
    with pytest.raises(TrainError, match="did you mean 'digits'"):
        load_data(recipe_for("digit"), None)
