"""Data sets: what is trained and tested on, how it is split, and its fingerprint.

To add a data set, write a function that returns a ``Dataset`` and give it an entry in ``DATASETS``; a custom one is
named ``module:function`` in the recipe.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from deit_ablate.errors import DataError, TrainError
from deit_ablate.recipe import Data, Recipe, split_sizes
from deit_ablate.train.data.check import check_pictures
from deit_ablate.train.data.dataset import SPLIT_SEED, arrays_sha256, in_memory, stratified
from deit_ablate.train.data.dataset import Dataset as Dataset
from deit_ablate.train.data.folders import imagefolder, imagenet, table
from deit_ablate.train.data.glyphs import CLASSES as GLYPHS
from deit_ablate.train.data.glyphs import draw_part
from deit_ablate.train.data.hub import huggingface
from deit_ablate.train.data.images import Array
from deit_ablate.train.data.images import ArrayImages as ArrayImages
from deit_ablate.train.data.published import FASHION_DEBIAN, cifar, fashion_mnist
from deit_ablate.train.data.shards import webdataset
from deit_ablate.train.data.vision import VISION, Known, vision
from deit_ablate.train.registry import lookup
from deit_ablate.train.streams import stream

# -- the data sets --------------------------------------------------------------------------------------------------


def digits(data: Data, folder: Path | None) -> Dataset:
    """Scikit-learn's 1,797 handwritten digits, 8x8, resized bilinearly to the resolution; a third is for testing.

    Source: UCI "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998, CC BY 4.0), see NOTICE.
    The grey levels 0..16 become 0..255. The 599 test images are a stratified third, the same in every run.
    """
    with np.load(Path(__file__).with_name("digits.npz")) as file:
        pixels, targets = file["pixels"], file["targets"].astype(np.int64)
    fingerprint = arrays_sha256(pixels, targets)
    pixels = np.round(pixels * (255 / 16)).astype(np.uint8)
    tested = stratified(targets, len(targets) // 3, stream(SPLIT_SEED, "digits/test"))
    trained = np.setdiff1d(np.arange(len(targets)), tested)
    arrays = pixels[trained], targets[trained], pixels[tested], targets[tested]
    made = in_memory(data, tuple("0123456789"), arrays, (0.3050,), (0.3757,))
    return replace(made, name="digits", fingerprint=fingerprint)


def glyphs(data: Data, folder: Path | None) -> Dataset:
    """The letters A to J in the 21 fonts of ``glyphs.npz``, 10,000 + 10,000 images of 28x28, each drawn anew."""
    return in_memory(data, GLYPHS, (*draw_part("train"), *draw_part("test")), (0.2843,), (0.1878,))


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
    needs_id: bool = False
    """Whether the name says nothing of which pictures these are, so that the recipe must name them."""
    file: bool = False
    """Whether ``data.file`` says which pictures these are."""
    options: dict[str, str] = field(default_factory=dict)
    """Option -> its kind (``names.KINDS``)."""
    files: bool = False
    """Whether an image is a file, which may turn out to be no picture: what ``data.corrupt`` is for. All others lie in
    memory."""


HUB = {"repo": "str", "revision": "str", "config": "str", "image": "str", "label": "str", "test_share": "number"}
"""Of the hub: the repository, its revision and configuration. Of the table: the columns of pictures and of classes."""
SHARE = {"test_share": "number"}
"""The option of data sets that may come without a test split."""


def _of_torchvision(known: Known) -> DatasetEntry:
    _, classes, train, test, channels, side = known
    return DatasetEntry(vision, "--data-dir", True, classes, train, test, channels, side, files=side is None)


DATASETS: dict[str, DatasetEntry] = {
    "digits": DatasetEntry(digits, None, classes=10, train=1198, test=599, channels=1, resolution=16),
    "glyphs": DatasetEntry(glyphs, None, classes=10, train=10_000, test=10_000, channels=1, resolution=28),
    "fashion-mnist": DatasetEntry(
        fashion_mnist, str(FASHION_DEBIAN), True, classes=10, train=60_000, test=10_000, channels=1, resolution=28
    ),
    "cifar10": DatasetEntry(cifar, fetched=True, classes=10, train=50_000, test=10_000, channels=3, resolution=32),
    "cifar100": DatasetEntry(cifar, fetched=True, classes=100, train=50_000, test=10_000, channels=3, resolution=32),
    "imagenet": DatasetEntry(
        imagenet, classes=1000, train=1_281_167, test=50_000, channels=3, resolution=224, files=True
    ),
    **{f"torchvision:{name}": _of_torchvision(known) for name, known in VISION.items()},
    "imagefolder": DatasetEntry(imagefolder, channels=3, files=True, needs_id=True, options=SHARE),
    "webdataset": DatasetEntry(webdataset, channels=3, files=True, needs_id=True, options=SHARE),
    "huggingface": DatasetEntry(huggingface, fetched=True, channels=3, files=True, needs_id=True, options=HUB),
    "csv": DatasetEntry(table, channels=3, files=True, file=True, options=SHARE),
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


def load_dataset(data: Data, folder: Path | None) -> Dataset:
    """The whole data set. Raises TrainError for what the user can mend."""
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
    sources: dict[str, str] = field(default_factory=dict)
    """train, validation, test -> in words where these pictures are from; empty for data that come in two parts."""

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
            "mean": list(self.dataset.mean),
            "std": list(self.dataset.std),
            "train": len(self.train),
            "validation": len(self.validation),
            "test": len(self.dataset.test),
            **({"sources": self.sources, "per_class": self._per_class()} if self.sources else {}),
        }

    def _per_class(self) -> dict[str, list[int]]:
        """Class -> its pictures to train on, for validation, for testing."""
        targets = self.dataset.train.targets
        parts = (targets[self.train], targets[self.validation], self.dataset.test.targets)
        counts = [np.bincount(part, minlength=len(self.dataset.classes)).tolist() for part in parts]
        return {name: list(row) for name, *row in zip(self.dataset.classes, *counts, strict=True)}


def load_data(recipe: Recipe, data_dir: Path | None) -> Splits:
    """The recipe's data set, split. Raises TrainError for what the user can mend (folder, files, sizes)."""
    if data_dir is not None and not os.path.isdir(data_dir):
        raise DataError(f"the data folder {data_dir} does not exist, or is not a folder")
    dataset = load_dataset(recipe.data, data_dir)
    training, validation = split_sizes(len(dataset.train), recipe.data)
    targets, sources = dataset.train.targets, dict(dataset.sources)
    held = stratified(targets, validation, stream(SPLIT_SEED, "validation"))
    if dataset.validation is not None:
        held, training = dataset.validation, recipe.data.train_images or len(targets)
    elif sources and validation:
        share = f"{recipe.data.validation:.0%} of the training pictures, cut by a fixed seed"
        sources["validation"] = share
    rest = np.setdiff1d(np.arange(len(targets)), held)
    kept = rest[stratified(targets[rest], training, stream(SPLIT_SEED, "train_images"))]
    if len(kept) < recipe.schedule.batch_size:
        raise TrainError(f"a batch of {recipe.schedule.batch_size} is more than the {len(kept)} training images")
    if recipe.data.corrupt == "fail":
        check_pictures(dataset.test if recipe.data.test else None, dataset.train, held, kept)
    return Splits(dataset, kept, held, sources)


def data_loader(data_dir: Path | None) -> Callable[[Recipe], Splits]:
    """``load_data`` of this folder, which loads once what several recipes share."""
    loaded: dict[str, Splits] = {}

    def splits_of(recipe: Recipe) -> Splits:
        key = f"{recipe.data!r} {recipe.schedule.batch_size}"
        if key not in loaded:
            loaded[key] = load_data(recipe, data_dir)
        return loaded[key]

    return splits_of
