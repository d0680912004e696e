"""Data sets by name: counts, splits, fingerprints, and a clear word where something is missing."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import shutil
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny, write_tree

from deit_ablate.errors import TrainError
from deit_ablate.recipe import Recipe, split_sizes
from deit_ablate.train.data import download as downloads
from deit_ablate.train.data.download import download
from deit_ablate.train.data.sets import CIFAR, DATASETS, Dataset, load_data, stratified


def write_idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_fashion(folder: Path, suffix: str = ".gz") -> None:
    draw = np.random.RandomState(0)
    for part, count in (("train", 60), ("t10k", 20)):
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", draw.randint(0, 256, (count, 28, 28)))
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", np.arange(count) % 10)


def write_cifar(folder: Path, name: str, count: int) -> Path:
    """``count`` test images and five times as many to train on; in image n of a file all reds are n, greens n + 1,
    blues n + 2, but for the first pixel's, which are 7, 8, 9; classes go round."""
    kind = CIFAR[name]
    inside = folder / kind.folder
    inside.mkdir(parents=True)
    for file in (*kind.train, kind.test):
        records = []
        for number in range(count if file == kind.test else 5 * count // len(kind.train)):
            labels = [99] * (kind.labels - 1) + [number % kind.classes]
            planes = np.repeat(np.array([number, number + 1, number + 2], np.uint8), 1024)
            planes[[0, 1024, 2048]] = (7, 8, 9)
            records.append(bytes(labels) + planes.tobytes())
        (inside / file).write_bytes(b"".join(records))
    (inside / kind.names).write_text("".join(f"class {number}\n" for number in range(kind.classes)) + "\n")
    return inside


def recipe_for(name: str, **data: Any) -> Recipe:
    return tiny(data={"name": name, "train_images": None, "id": "mine" if name == "imagefolder" else None, **data})


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


# -- fetching -------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder served on this machine, and its address."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{serving.server_address[1]}/"
        serving.shutdown()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_fashion_mnist_is_fetched_whole_or_not_at_all(
    server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, address = server
    write_fashion(served)
    files = sorted(path.name for path in served.iterdir())
    monkeypatch.setattr(downloads.FashionMNIST, "mirrors", [address + "gone/", address])
    monkeypatch.setattr(downloads.FashionMNIST, "resources", [(file, md5(served / file)) for file in files])
    (served / files[3]).rename(tmp_path / "away")
    with pytest.raises(TrainError, match=rf"{files[3]} could not be fetched .*: put {files[0]}, .* into .*data"):
        download("fashion-mnist", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []
    (served / files[3]).write_bytes(b"another")
    with pytest.raises(TrainError, match="cut short or altered"):
        download("fashion-mnist", tmp_path / "data")
    (tmp_path / "away").rename(served / files[3])
    assert sorted(download("fashion-mnist", tmp_path / "data")) == files
    assert len(load_data(recipe_for("fashion-mnist"), tmp_path / "data").dataset.train) == 60
    assert download("fashion-mnist", tmp_path / "data") == []


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **attributes: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for attribute, value in attributes.items():
        setattr(member, attribute, value)
    tar.addfile(member, io.BytesIO(content))


def test_of_an_archive_only_the_expected_files_are_unpacked(
    server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, address = server
    kind, folder = CIFAR["cifar100"], tmp_path / "data"
    inside = write_cifar(tmp_path / "made", "cifar100", 40)

    def serve(*left_out: str) -> None:
        with tarfile.open(served / kind.archive, "w:gz") as tar:
            add(tar, "../outside", b"x")
            add(tar, str(tmp_path / "absolute"), b"x")
            add(tar, f"{kind.folder}/more.py", b"x")
            add(tar, f"{kind.folder}/{kind.test}", type=tarfile.SYMTYPE, linkname=str(tmp_path / "linked"))
            for file in sorted(inside.iterdir()):
                if file.name not in left_out:
                    add(tar, f"./{kind.folder}/{file.name}", file.read_bytes(), mode=0o7777)
        monkeypatch.setitem(CIFAR, "cifar100", replace(kind, md5=md5(served / kind.archive)))

    monkeypatch.setattr(downloads, "CIFAR_HOME", address)
    serve(kind.test)
    with pytest.raises(TrainError, match=f"holds no {kind.folder}/{kind.test}"):
        download("cifar100", folder)
    assert list(folder.iterdir()) == []
    serve()
    fetched = download("cifar100", folder)
    assert sorted(fetched) == [f"{kind.folder}/{file.name}" for file in sorted(inside.iterdir())]
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == [kind.folder, *sorted(fetched)]
    assert not any(path.stat().st_mode & 0o7133 for path in (folder / kind.folder).iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"data", "made", "served"}
    assert len(load_data(recipe_for("cifar100"), folder).dataset.train) == 200


def test_without_a_network_it_is_said_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(downloads, "CIFAR_HOME", "http://127.0.0.1:9/")
    with pytest.raises(
        TrainError, match=r"cifar-10-binary\.tar\.gz could not be fetched .* holds cifar-10-batches-bin/"
    ):
        download("cifar10", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_fetched_is_said_so(tmp_path: Path) -> None:
    for name in ("imagenet", "imagefolder"):
        with pytest.raises(TrainError, match=rf"{name} cannot be fetched: supply a folder with train/<class>"):
            download(name, tmp_path)
    with pytest.raises(TrainError, match="part of this package"):
        download("digits", tmp_path)
    with pytest.raises(TrainError, match="did you mean 'cifar10'"):
        download("cifar1", tmp_path)


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
