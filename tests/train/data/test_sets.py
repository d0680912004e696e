"""Data sets by name: counts, splits, fingerprints, and a clear word where something is missing."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import recipe_for, tiny, write_cifar, write_fashion, write_idx, write_table, write_tree

from deit_ablate.errors import TrainError
from deit_ablate.recipe import split_sizes
from deit_ablate.train.data.glyphs import EDGED, ONE, cover
from deit_ablate.train.data.published import CIFAR
from deit_ablate.train.data.sets import DATASETS, Dataset, load_data, stratified

ELSEWHERE = ("imagenet", "webdataset", "huggingface")
"""Data sets that the files beside this one test, as test_vision.py does torchvision's."""


@pytest.fixture
def folder_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A small data folder of each data set that needs one."""

    def make(name: str) -> Path | None:
        if name == "fashion-mnist":
            write_fashion(tmp_path)
        elif name in CIFAR:
            write_cifar(tmp_path, name, 40)
        elif name in ("imagefolder", "imagenet"):
            write_tree(tmp_path, {"cat": 12, "dog": 12})
        elif name == "csv":
            write_table(tmp_path)
        else:
            return None
        return tmp_path

    return make


@pytest.mark.parametrize("name", [name for name in DATASETS if name not in ELSEWHERE and ":" not in name])
def test_every_data_set_splits_without_overlap_and_is_fingerprinted(name: str, folder_for: Any) -> None:
    folder = folder_for(name)
    given = {"file": str(folder / "labels.csv")} if folder and DATASETS[name].file else {}
    recipe = recipe_for(name, validation=0.2, **given)
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
    assert load_data(recipe_for(name, resolution=24, **given), folder).dataset.fingerprint == data.dataset.fingerprint


def test_digits_are_scikit_learns_and_a_third_is_never_trained_on() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    theirs = datasets.load_digits()
    data = load_data(recipe_for("digits", resolution=8), None).dataset
    entry = DATASETS["digits"]
    assert (len(data.train), len(data.test), len(data.classes)) == (entry.train, entry.test, entry.classes)
    assert np.bincount(data.test.targets).min() >= 58
    ours = np.concatenate([data.train.pixels, data.test.pixels])  # type: ignore[attr-defined]
    expected = np.round(theirs.images * (255 / 16)).astype(np.uint8)
    order = sorted(range(1797), key=lambda index: (ours[index].tobytes(), index))
    their_order = sorted(range(1797), key=lambda index: (expected[index].tobytes(), index))
    assert np.array_equal(ours[order], expected[their_order])
    labels = np.concatenate([data.train.targets, data.test.targets])
    assert np.array_equal(labels[order], theirs.target[their_order])


@pytest.mark.parametrize("resolution", [6, 11, 16])
def test_many_pictures_are_resized_as_each_is_alone(resolution: int) -> None:
    small, data = (load_data(recipe_for("digits", resolution=size), None).dataset.train for size in (8, resolution))
    for number in range(0, len(data), 7):
        alone = small[number].resize((resolution, resolution), Image.Resampling.BILINEAR)
        assert alone.tobytes() == data[number].tobytes()


def test_glyphs_are_the_same_bytes_everywhere_and_each_is_drawn_anew() -> None:
    entry, data = DATASETS["glyphs"], load_data(recipe_for("glyphs", resolution=28), None).dataset
    assert data.fingerprint == "6b3a6e0683c9ee94ed7f6d927e1e03387ca30b6bf38a4d0c5e179305cb549e65"
    assert (len(data.train), len(data.test), len(data.classes)) == (entry.train, entry.test, entry.classes)
    pixels = np.concatenate([data.train.pixels, data.test.pixels])  # type: ignore[attr-defined]
    assert len({image.tobytes() for image in pixels}) == 20_000
    assert np.bincount(data.test.targets).tolist() == [1000] * 10
    train = data.train.pixels / 255  # type: ignore[attr-defined]
    assert (data.mean[0], data.std[0]) == pytest.approx((train.mean(), train.std()), abs=5e-5)


def test_the_middle_of_a_letter_is_where_it_was_put_and_its_size_and_turn_are_the_matrix_s() -> None:
    bar = np.zeros((1, EDGED, EDGED), np.int32)
    bar[0, 15:19, 7:27] = 255  # 20 pixels wide and 4 high, about the middle (17, 17)
    centre = np.array([[10 * ONE, 14 * ONE]], np.int32)
    lying, standing, small = (
        np.array([matrix], np.int32) * ONE for matrix in ([[1, 0], [0, 1]], [[0, 1], [-1, 0]], [[2, 0], [0, 2]])
    )
    columns, rows = (np.ptp(np.flatnonzero(cover(bar, np.array([0]), lying, centre)[0].any(axis))) for axis in (0, 1))
    assert (columns, rows) == (19, 3)
    columns, rows = (
        np.ptp(np.flatnonzero(cover(bar, np.array([0]), standing, centre)[0].any(axis))) for axis in (0, 1)
    )
    assert (columns, rows) == (3, 19)
    half = cover(bar, np.array([0]), small, centre)[0]
    assert np.flatnonzero(half.any(0)).tolist() == list(range(5, 15))
    assert np.flatnonzero(half.any(1)).tolist() == [13, 14]


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


def test_damaged_idx_files_are_named(tmp_path: Path) -> None:
    def said(pattern: str) -> None:
        with pytest.raises(TrainError, match=pattern):
            load_data(recipe_for("fashion-mnist"), tmp_path)

    write_fashion(tmp_path)
    images, labels = tmp_path / "train-images-idx3-ubyte.gz", tmp_path / "train-labels-idx1-ubyte.gz"
    content = bytearray(images.read_bytes())
    content[len(content) // 2] ^= 0xFF
    images.write_bytes(content)
    said(r"train-images-idx3-ubyte\.gz is damaged")
    shutil.copy(labels, images)
    said("not an IDX file of bytes, or of another kind")
    write_fashion(tmp_path)
    write_idx(labels, np.full(60, 10))
    said("a label is above 9")


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_is_read_from_its_binary_version(name: str, tmp_path: Path) -> None:
    inside = write_cifar(tmp_path, name, 20)
    data = load_data(recipe_for(name, validation=0), tmp_path).dataset
    entry = DATASETS[name]
    assert (len(data.train), len(data.test)) == (100, 20)
    assert (len(data.classes), data.channels) == (entry.classes, entry.channels)
    assert data.classes[3] == "class 3"
    fourth = np.asarray(data.test[3])
    assert fourth.shape == (32, 32, 3)
    assert fourth[0, 0].tolist() == [7, 8, 9]
    assert fourth[5, 6].tolist() == [3, 4, 5]
    expected = list(range(20)) * 5 if name == "cifar10" else list(range(100))
    assert data.train.targets.tolist() == [number % len(data.classes) for number in expected]
    assert load_data(recipe_for(name), inside).dataset.fingerprint == data.fingerprint


@pytest.mark.parametrize("name", CIFAR)
def test_damaged_and_missing_cifar_files_are_named(name: str, tmp_path: Path) -> None:
    kind = CIFAR[name]

    def said(pattern: str, folder: Path | None = tmp_path) -> None:
        with pytest.raises(TrainError, match=pattern):
            load_data(recipe_for(name), folder)

    said(f"{name} needs a data folder .*{kind.folder} out of {kind.archive}", None)
    said(rf"no {kind.train[0]} in .*{kind.folder} out of {kind.archive} \(the binary version\)")
    inside = write_cifar(tmp_path, name, 20)
    last = inside / kind.train[-1]
    whole = last.read_bytes()
    last.write_bytes(whole[:-1])
    said(f"{last.name} is damaged: .* no whole number of records of {kind.record}")
    last.write_bytes(b"")
    said(f"{last.name} is damaged")
    last.write_bytes(whole[: -kind.record])
    said(f"a file is cut short, .*{last.name}: {len(whole) // kind.record - 1}")
    last.write_bytes(whole[: kind.labels - 1] + bytes([kind.classes]) + whole[kind.labels :])
    said(f"{last.name} is damaged: it has a label of {kind.classes}")
    last.unlink()
    said(f"there is no file .*{last.name}")
    last.write_bytes(whole)
    (inside / kind.names).write_text("airplane\n")
    said(f"{kind.names} is damaged: it has 1 names")


def test_a_library_that_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TrainError, match=r"the package datasets is needed .*pip install 'deit-ablate\[datasets\]'"):
        load_data(recipe_for("huggingface", id="mine"), tmp_path)


# -- what all have in common ----------------------------------------------------------------------------------------


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(TrainError, match="a batch of 64 is more than the 32 training images"):
        load_data(tiny(data={"train_images": 32}, schedule={"batch_size": 64}), None)


def own(data: Any, folder: Path | None) -> Dataset:
    return DATASETS["digits"].load(data, folder)


def test_a_data_set_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    assert len(load_data(recipe_for(f"{__name__}:own"), None).dataset.test) == 599
    with pytest.raises(TrainError, match="did you mean 'digits'"):
        load_data(recipe_for("digit"), None)
