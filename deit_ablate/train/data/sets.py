"""Data sets: what is trained and tested on, how it is split, and its fingerprint.

To add a data set, write a function that returns a ``Dataset`` and give it an entry in ``DATASETS``; a custom one is
named ``module:function`` in the recipe.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from deit_ablate.errors import DataError, TrainError
from deit_ablate.recipe import Data, Recipe, split_sizes
from deit_ablate.train.data.check import check_pictures, content_sha256
from deit_ablate.train.data.images import (
    Array,
    ArrayImages,
    Ignored,
    Images,
    class_names,
    files_sha256,
    list_part,
    names_and_sizes,
)
from deit_ablate.train.data.published import (
    CIFAR,
    FASHION_CLASSES,
    FASHION_DEBIAN,
    FASHION_FILES,
    cifar_file,
    idx_file,
    there,
)
from deit_ablate.train.registry import lookup
from deit_ablate.train.streams import generator, stream

SPLIT_SEED = 0
"""Of the validation part and of ``train_images``: never the run's seed, so that all runs see one split."""


@dataclass(frozen=True)
class Dataset:
    """``train`` and ``test`` as they come; mean and std per channel, of pixels in [0, 1]; fingerprint: SHA-256."""

    name: str
    classes: tuple[str, ...]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: Images
    test: Images
    fingerprint: str
    fingerprint_of: str = "content"
    """What was hashed: "content" (all of it), or "sample" (of a large image folder, see ``check.content_sha256``)."""
    listing: str = ""
    """Of an image folder: the SHA-256 of its files' names and sizes, which earlier versions took as fingerprint."""
    ignored: dict[str, int] = field(default_factory=dict)
    """Of an image folder: how many entries are no part of the data (``images.Ignored``)."""

    def has(self, fingerprint: str) -> bool:
        """Whether these are the data that were once given this fingerprint."""
        return fingerprint in (self.fingerprint, self.listing or self.fingerprint)


# -- the data sets --------------------------------------------------------------------------------------------------


def digits(data: Data, folder: Path | None) -> Dataset:
    """Scikit-learn's 1,797 handwritten digits, 8x8, resized bilinearly to the resolution; a third is for testing.

    Source: UCI "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998, CC BY 4.0), see NOTICE.
    The grey levels 0..16 become 0..255. The 599 test images are a stratified third, the same in every run.
    """
    with np.load(Path(__file__).with_name("digits.npz")) as file:
        pixels, targets = file["pixels"], file["targets"].astype(np.int64)
    fingerprint = _sha256(pixels, targets)
    pixels = np.round(pixels * (255 / 16)).astype(np.uint8)
    tested = stratified(targets, len(targets) // 3, stream(SPLIT_SEED, "digits/test"))
    trained = np.setdiff1d(np.arange(len(targets)), tested)
    pixels = _resized(pixels, data.resolution)
    return Dataset(
        name="digits",
        classes=tuple("0123456789"),
        channels=1,
        mean=(0.3050,),
        std=(0.3757,),
        train=ArrayImages(pixels[trained], targets[trained]),
        test=ArrayImages(pixels[tested], targets[tested]),
        fingerprint=fingerprint,
    )


def fashion_mnist(data: Data, folder: Path | None) -> Dataset:
    """Fashion-MNIST (Xiao et al., arXiv 1708.07747): 60,000 + 10,000 images, 28x28, from IDX files (.gz or plain)."""
    folder = folder or FASHION_DEBIAN
    pixels, targets, test_pixels, test_targets = (idx_file(folder, name) for name in FASHION_FILES)
    if len(pixels) != len(targets) or len(test_pixels) != len(test_targets):
        raise DataError(f"{folder}: images and labels differ in number; a file is damaged or of another data set")
    if max(targets.max(initial=0), test_targets.max(initial=0)) >= len(FASHION_CLASSES):
        raise DataError(f"{folder}: a label is above 9; a file is damaged or of another data set")
    return Dataset(
        name="fashion-mnist",
        classes=FASHION_CLASSES,
        channels=1,
        mean=(0.2860,),
        std=(0.3530,),
        train=ArrayImages(_resized(pixels, data.resolution), targets.astype(np.int64)),
        test=ArrayImages(_resized(test_pixels, data.resolution), test_targets.astype(np.int64)),
        fingerprint=_sha256(pixels, targets, test_pixels, test_targets),
    )


def cifar(data: Data, folder: Path | None) -> Dataset:
    """CIFAR-10 and CIFAR-100, its fine classes (Krizhevsky, 2009): 50,000 + 10,000 colour images, 32x32, from the
    binary version. (The Python version is pickles: to read them is to run them.)

    Images stay at 32 pixels and are resized when asked for: all at 224 would fill 9 GB.
    """
    name, kind = data.name, CIFAR[data.name]
    place = f"the folder {kind.folder} out of {kind.archive} (the binary version), or the folder that holds it"
    if folder is None:
        raise DataError(f"{name} needs a data folder (--data-dir, DEIT_ABLATE_DATA): {place}")
    files = (*kind.train, kind.test, kind.names)
    held = {place: sum((place / file).is_file() for file in files) for place in (folder, folder / kind.folder)}
    inside = max(held, key=lambda place: held[place])
    if not held[inside]:
        raise DataError(f"no {kind.train[0]} in {folder} or in {folder / kind.folder}: give {place}")
    parts = [cifar_file(inside / file, kind) for file in (*kind.train, kind.test)]
    pixels, targets = (np.concatenate(arrays) for arrays in zip(*parts[:-1], strict=True))
    test_pixels, test_targets = parts[-1]
    if len(pixels) != 5 * len(test_pixels) or len({len(each) for each, _ in parts[:-1]}) != 1:
        counts = ", ".join(f"{file}: {len(each)}" for file, (each, _) in zip(files, parts, strict=False))
        raise DataError(
            f"{inside}: a file is cut short, for a whole copy has 5 training images a test image ({counts})"
        )
    lines = there(inside / kind.names).read_text("utf-8", "replace").splitlines()
    classes = tuple(line.strip() for line in lines if line.strip())
    if len(classes) != kind.classes:
        raise DataError(f"{inside / kind.names} is damaged: it has {len(classes)} names of classes, not {kind.classes}")
    return Dataset(
        name=name,
        classes=classes,
        channels=3,
        mean=kind.mean,
        std=kind.std,
        train=ArrayImages(pixels, targets),
        test=ArrayImages(test_pixels, test_targets),
        fingerprint=_sha256(pixels, targets, test_pixels, test_targets),
    )


def imagefolder(data: Data, folder: Path | None) -> Dataset:
    """Any tree of ``train/<class>/*`` and ``val/<class>/*`` pictures; they are read as RGB; ``val`` is the test split.

    Hidden files and folders are no part of it. Raises DataError for what the user can mend.
    """
    if folder is None:
        raise DataError(f"{data.name} needs a data folder with train/ and val/ in it (--data-dir, DEIT_ABLATE_DATA)")
    for part in ("train", "val"):
        if not os.path.isdir(folder / part):
            raise DataError(f"{folder} has no folder {part}/ (expected {part}/<class>/<pictures>)")
    ignored = Ignored(hidden=0, other=0)
    classes, tested = (class_names(os.fsencode(folder / part), ignored) for part in ("train", "val"))
    if classes != tested:
        alone = {"train": sorted({*classes} - {*tested}), "val": sorted({*tested} - {*classes})}
        where = "; ".join(f"only in {part}/: {_few(names)}" for part, names in alone.items() if names)
        raise DataError(f"{folder}: train/ and val/ hold different classes ({where})")
    if len(classes) == 1:
        raise DataError(f"{folder} holds one class only ({_few(classes)}): expected two or more folders in train/")
    train, test = (list_part(folder, part, classes) for part in ("train", "val"))
    for each in (train, test):
        ignored.update(each.ignored)
    fingerprint, hashed = content_sha256((train, test))
    return Dataset(
        name=data.name,
        classes=tuple(classes),
        channels=3,
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
        train=train.images,
        test=test.images,
        fingerprint=fingerprint,
        fingerprint_of=hashed,
        listing=files_sha256(names_and_sizes((train, test))),
        ignored=dict(ignored),
    )


def imagenet(data: Data, folder: Path | None) -> Dataset:
    """ImageNet-1k (ILSVRC 2012) as an image folder. Raises DataError where it is not whole."""
    dataset = imagefolder(data, folder)
    found = (len(dataset.classes), len(dataset.train), len(dataset.test))
    if found != (1000, 1_281_167, 50_000):
        raise DataError(
            f"{folder} is not the whole ImageNet-1k: it has {found[0]} classes, {found[1]} training and {found[2]} "
            "validation images, not 1000, 1281167 and 50000 (for a part of it use `name: imagefolder` with an id)"
        )
    return dataset


@dataclass(frozen=True)
class DatasetEntry:
    """``load(the recipe's data block, the data folder or None)``, and what is known without reading the data."""

    load: Callable[[Data, Path | None], Dataset]
    folder: str | None = "--data-dir"
    """None for data that are part of the package, "--data-dir" where the user must say, or the usual folder."""
    fetched: bool = False
    """Whether ``data.download`` knows where to fetch it."""
    classes: int | None = None
    train: int | None = None
    """Training images, those for validation among them."""
    test: int | None = None
    channels: int | None = None
    resolution: int | None = None
    """Side of an image as it comes, in pixels."""
    files: bool = False
    """Whether an image is a file, which may turn out to be no picture: what ``data.corrupt`` is for. All others lie in
    memory."""


DATASETS: dict[str, DatasetEntry] = {
    "digits": DatasetEntry(digits, None, classes=10, train=1198, test=599, channels=1, resolution=16),
    "fashion-mnist": DatasetEntry(
        fashion_mnist, str(FASHION_DEBIAN), True, classes=10, train=60_000, test=10_000, channels=1, resolution=28
    ),
    "cifar10": DatasetEntry(cifar, fetched=True, classes=10, train=50_000, test=10_000, channels=3, resolution=32),
    "cifar100": DatasetEntry(cifar, fetched=True, classes=100, train=50_000, test=10_000, channels=3, resolution=32),
    "imagenet": DatasetEntry(
        imagenet, classes=1000, train=1_281_167, test=50_000, channels=3, resolution=224, files=True
    ),
    "imagefolder": DatasetEntry(imagefolder, channels=3, files=True),
}


_held: dict[tuple[str, Path | None], Dataset] = {}


def hold(data: Data, folder: Path | None) -> None:
    """Load a data set that lies in memory, and keep it for the ``load_data`` of this process and of those that it
    forks, which share its pages. One at a time; custom ones and image folders are not held."""
    entry = DATASETS.get(data.name)
    if entry and not entry.files and (key := _key(data, folder)) not in _held:
        loaded = entry.load(data, folder)
        _held.clear()
        _held[key] = loaded


def _key(data: Data, folder: Path | None) -> tuple[str, Path | None]:
    return data.model_dump_json(), folder


def _loaded(data: Data, folder: Path | None) -> Dataset:
    entry = lookup("data set", data.name, DATASETS)
    held = _held.get(_key(data, folder))
    return held or (entry.load if isinstance(entry, DatasetEntry) else entry)(data, folder)


# -- one run's view of a data set -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Splits:
    """A data set with the part of its training images that this recipe trains on and the part it is scored on."""

    dataset: Dataset
    train: Array
    """Indices into ``dataset.train``, ascending."""
    validation: Array

    def facts(self) -> dict[str, Any]:
        """What a record says about the data: plain values."""
        return {
            "name": self.dataset.name,
            "fingerprint": self.dataset.fingerprint,
            "fingerprint_of": self.dataset.fingerprint_of,
            **({"listing": self.dataset.listing} if self.dataset.listing else {}),
            **{f"ignored_{what}": count for what, count in self.dataset.ignored.items()},
            "classes": list(self.dataset.classes),
            "channels": self.dataset.channels,
            "train": len(self.train),
            "validation": len(self.validation),
            "test": len(self.dataset.test),
        }


def load_data(recipe: Recipe, data_dir: Path | None) -> Splits:
    """The recipe's data set, split. Raises TrainError for what the user can mend (folder, files, sizes)."""
    if data_dir is not None and not os.path.isdir(data_dir):
        raise DataError(f"the data folder {data_dir} does not exist, or is not a folder")
    dataset = _loaded(recipe.data, data_dir)
    training, validation = split_sizes(len(dataset.train), recipe.data)
    targets = dataset.train.targets
    held = stratified(targets, validation, stream(SPLIT_SEED, "validation"))
    rest = np.setdiff1d(np.arange(len(targets)), held)
    kept = rest[stratified(targets[rest], training, stream(SPLIT_SEED, "train_images"))]
    if len(kept) < recipe.schedule.batch_size:
        raise TrainError(f"a batch of {recipe.schedule.batch_size} is more than the {len(kept)} training images")
    if recipe.data.corrupt == "fail":
        check_pictures(dataset.test if recipe.data.test else None, dataset.train, held, kept)
    return Splits(dataset, kept, held)


def data_loader(data_dir: Path | None) -> Callable[[Recipe], Splits]:
    """``load_data`` of this folder, which loads once what several recipes share."""
    loaded: dict[str, Splits] = {}

    def splits_of(recipe: Recipe) -> Splits:
        key = f"{recipe.data!r} {recipe.schedule.batch_size}"
        if key not in loaded:
            loaded[key] = load_data(recipe, data_dir)
        return loaded[key]

    return splits_of


def stratified(targets: Array, count: int, seed: int) -> Array:
    """``count`` indices, ascending, with the classes in proportion (largest remainders), drawn by ``seed``."""
    if count >= len(targets):
        return np.arange(len(targets))
    classes, sizes = np.unique(targets, return_counts=True)
    shares = sizes * (count / max(1, len(targets)))
    takes = np.floor(shares).astype(int)
    takes[np.argsort(takes - shares, kind="stable")[: count - takes.sum()]] += 1
    draw = generator(seed)
    chosen = [
        draw.permutation(np.flatnonzero(targets == label))[:take] for label, take in zip(classes, takes, strict=True)
    ]
    return np.sort(np.concatenate(chosen)) if chosen else np.arange(0)


# -- files ----------------------------------------------------------------------------------------------------------


def _resized(pixels: Array, resolution: int) -> Array:
    if pixels.shape[1:3] == (resolution, resolution):
        return pixels
    size = (resolution, resolution)
    return np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)) for image in pixels])


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _sha256(*arrays: Array) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
