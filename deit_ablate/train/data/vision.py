"""Torchvision's data sets by name, from a folder in which they lie as it puts them. Nothing is downloaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torchvision

from deit_ablate.errors import DataError
from deit_ablate.recipe import Data
from deit_ablate.train.data.check import content_sha256
from deit_ablate.train.data.dataset import Dataset, arrays_sha256, made_of, roles
from deit_ablate.train.data.images import Array, ArrayImages, FileImages

Parts = Mapping[str, Mapping[str, Any]]
"""train, val, test -> the keyword arguments with which torchvision's class gives this part."""

TRAIN = {"train": {"train": True}, "test": {"train": False}}
SPLIT = {"train": {"split": "train"}, "test": {"split": "test"}}
WITH_VAL = {"train": {"split": "train"}, "val": {"split": "val"}, "test": {"split": "test"}}
VISION: dict[str, Parts] = {
    "MNIST": TRAIN,
    "KMNIST": TRAIN,
    "FashionMNIST": TRAIN,
    "CIFAR10": TRAIN,
    "CIFAR100": TRAIN,
    "SVHN": SPLIT,
    "STL10": SPLIT,
    "Food101": SPLIT,
    "GTSRB": SPLIT,
    "OxfordIIITPet": {"train": {"split": "trainval"}, "test": {"split": "test"}},
    "Imagenette": {"train": {"split": "train"}, "val": {"split": "val"}},
    "DTD": WITH_VAL,
    "Flowers102": WITH_VAL,
    "FGVCAircraft": WITH_VAL,
}
"""Those known by ``torchvision:<class>``: ``sets.DATASETS`` has an entry of each."""


def vision(data: Data, folder: Path | None) -> Dataset:
    """One of ``VISION``. Raises DataError for what the user can mend."""
    if folder is None:
        raise DataError(f"{data.name} needs the folder in which torchvision keeps it (--data-dir, DEIT_ABLATE_DATA)")
    found = {part: opened(data.name, folder, part) for part in VISION[_class(data.name)]}
    in_memory = hasattr(found["train"], "data")
    images, labels = {}, {}
    for part, each in found.items():
        images[part], labels[part] = (_arrays if in_memory else _files)(each)
    targets = np.concatenate([*labels.values()])
    ends = np.cumsum([len(each) for each in labels.values()])
    places = {part: np.arange(end - len(each), end) for (part, each), end in zip(labels.items(), ends, strict=True)}
    use = roles(targets, places, data, {part: f"torchvision's {_words(data.name, part)}" for part in found})
    pixels = np.concatenate([*images.values()])
    pictures = ArrayImages(pixels, targets) if in_memory else _below(folder, pixels, targets)
    split = np.repeat([*found], [len(each) for each in labels.values()])
    known = list(getattr(found["train"], "classes", ()))
    count = int(targets.max()) + 1
    classes = tuple(map(_text, known)) if len(known) == count else tuple(map(str, range(count)))
    if isinstance(pictures, ArrayImages):
        fingerprint = arrays_sha256(pixels, targets, split), "content"
        mean, std = _moments(pixels[use.train])
        made = made_of(data, classes, pictures, use, fingerprint)
        return replace(made, channels=1 if pixels.ndim == 3 else 3, mean=mean, std=std)
    sizes = np.array([_size(path) for path in pixels])
    labelled = [f"{label}\0{part}".encode() for label, part in zip(targets, split, strict=True)]
    return made_of(data, classes, pictures, use, content_sha256(pictures, sizes, labelled))


def opened(name: str, folder: Path, part: str, *, download: bool = False) -> Any:
    """Torchvision's data set of a part. Raises DataError where it is not in the folder, or not whole."""
    try:
        arguments = VISION[_class(name)][part]
        return getattr(torchvision.datasets, _class(name))(str(folder), download=download, **arguments)
    except (RuntimeError, OSError, ValueError, EOFError) as error:
        if download:
            raise
        why = "" if "download=True" in str(error) else f" ({error})"
        hint = "`deit-ablate fetch SWEEP --data-dir DIR` downloads it"
        raise DataError(f"torchvision finds no whole {_class(name)} in {folder}{why}: {hint}") from error


def _class(name: str) -> str:
    return name.partition(":")[2]


def _words(name: str, part: str) -> str:
    arguments = VISION[_class(name)][part]
    return str(arguments.get("split", part))


def _text(label: Any) -> str:
    return ", ".join(map(str, label)) if isinstance(label, (tuple, list)) else str(label)


def _arrays(found: Any) -> tuple[Array, Array]:
    """(N, H, W) or (N, H, W, 3) uint8; (N,) int64."""
    pixels = np.asarray(found.data)
    labels = found.targets if hasattr(found, "targets") else found.labels
    if pixels.ndim == 4 and pixels.shape[1] == 3:
        pixels = pixels.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), np.asarray(labels, dtype=np.int64)


def _files(found: Any) -> tuple[Array, Array]:
    """Paths (N,), as objects; (N,) int64. Torchvision has no public name for its lists of files."""
    if hasattr(found, "_samples"):
        paths, labels = zip(*found._samples, strict=True)
    else:
        paths, labels = getattr(found, "_image_files", None) or found._images, found._labels
    return np.array([str(path) for path in paths], dtype=object), np.asarray(labels, dtype=np.int64)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        raise DataError(f"the copy is not whole: {path} is not there") from None


def _below(folder: Path, paths: Array, targets: Array) -> FileImages:
    return FileImages.of(folder, [os.fsencode(os.path.relpath(path, folder)) for path in paths], targets)


def _moments(pixels: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation a channel, of pixels in [0, 1]: from counts of levels, the same bits everywhere."""
    levels = np.arange(256)
    channels = np.moveaxis(pixels, -1, 0) if pixels.ndim == 4 else pixels[None]
    counts = [np.bincount(channel.reshape(-1), minlength=256) for channel in channels]
    total = [int(count.sum()) for count in counts]
    first = [int((count * levels).sum()) / size for count, size in zip(counts, total, strict=True)]
    second = [int((count * levels**2).sum()) / size for count, size in zip(counts, total, strict=True)]
    mean = tuple(round(value / 255, 4) for value in first)
    std = tuple(round(max(two - one**2, 0) ** 0.5 / 255, 4) for one, two in zip(first, second, strict=True))
    return mean, std
