"""Torchvision's data sets by name, from a folder in which they lie as it puts them. Nothing is downloaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torchvision

from deit_ablate.errors import DataError
from deit_ablate.recipe import Data
from deit_ablate.train.data.check import content_sha256
from deit_ablate.train.data.dataset import Dataset, arrays_sha256, made_of, roles
from deit_ablate.train.data.images import Array, ArrayImages, FileImages

Parts = Mapping[str, Mapping[str, Any]]
"""train, val, test -> the keyword arguments with which torchvision's class gives this part."""

TRAIN: Parts = {"train": {"train": True}, "test": {"train": False}}
SPLIT: Parts = {"train": {"split": "train"}, "test": {"split": "test"}}
WITH_VAL: Parts = {"train": {"split": "train"}, "val": {"split": "val"}, "test": {"split": "test"}}


class Known(NamedTuple):
    """One of torchvision's data sets: its parts, and what is known without reading it, as ``sets.DatasetEntry`` has
    it."""

    parts: Parts
    classes: int
    train: int | None
    """None for a set with a validation part of its own, whose size the recipe's share does not decide."""
    test: int
    channels: int = 3
    resolution: int | None = None
    """None for a set of files, each a picture of another size; all others lie in memory."""


VISION = {
    "MNIST": Known(TRAIN, 10, 60_000, 10_000, 1, 28),
    "KMNIST": Known(TRAIN, 10, 60_000, 10_000, 1, 28),
    "FashionMNIST": Known(TRAIN, 10, 60_000, 10_000, 1, 28),
    "CIFAR10": Known(TRAIN, 10, 50_000, 10_000, 3, 32),
    "CIFAR100": Known(TRAIN, 100, 50_000, 10_000, 3, 32),
    "SVHN": Known(SPLIT, 10, 73_257, 26_032, 3, 32),
    "STL10": Known(SPLIT, 10, 5000, 8000, 3, 96),
    "Food101": Known(SPLIT, 101, 75_750, 25_250),
    "GTSRB": Known(SPLIT, 43, 26_640, 12_630),
    "OxfordIIITPet": Known({"train": {"split": "trainval"}, "test": {"split": "test"}}, 37, 3680, 3669),
    "Imagenette": Known({"train": {"split": "train"}, "val": {"split": "val"}}, 10, 9469, 3925),
    "DTD": Known(WITH_VAL, 47, None, 1880),
    "Flowers102": Known(WITH_VAL, 102, None, 6149),
    "FGVCAircraft": Known(WITH_VAL, 100, None, 3333),
}
"""Those known by ``torchvision:<class>``."""


def vision(data: Data, folder: Path | None) -> Dataset:
    """One of ``VISION``. Raises DataError for what the user can mend."""
    if folder is None:
        raise DataError(f"{data.name} needs the folder in which torchvision keeps it (--data-dir, DEIT_ABLATE_DATA)")
    parts = VISION[_class(data.name)].parts
    found = {part: opened(data.name, folder, part) for part in parts}
    in_memory = hasattr(found["train"], "data")
    images, labels = {}, {}
    for part, each in found.items():
        images[part], labels[part] = (_arrays if in_memory else _files)(each)
    targets = np.concatenate([*labels.values()])
    split = np.repeat([*found], [len(each) for each in labels.values()])
    use = roles(targets, split, data, {part: f"torchvision's {how.get('split', part)}" for part, how in parts.items()})
    pixels = np.concatenate([*images.values()])
    known = list(getattr(found["train"], "classes", ()))
    count = int(targets.max()) + 1
    classes = tuple(map(_text, known)) if len(known) == count else tuple(map(str, range(count)))
    if in_memory:
        fingerprint = arrays_sha256(pixels, targets, split), "content"
        mean, std = _moments(pixels[use.train])
        made = made_of(data, classes, ArrayImages(pixels, targets), use, fingerprint)
        return replace(made, channels=1 if pixels.ndim == 3 else 3, mean=mean, std=std)
    pictures = FileImages.of(folder, [os.fsencode(os.path.relpath(path, folder)) for path in pixels], targets)
    sizes = np.array([_size(path) for path in pixels])
    labelled = [f"{label}\0{part}".encode() for label, part in zip(targets, split, strict=True)]
    return made_of(data, classes, pictures, use, content_sha256(pictures, sizes, labelled))


def opened(name: str, folder: Path, part: str, *, download: bool = False) -> Any:
    """Torchvision's data set of a part. Raises DataError where it is not in the folder, or not whole."""
    try:
        arguments = VISION[_class(name)].parts[part]
        return getattr(torchvision.datasets, _class(name))(str(folder), download=download, **arguments)
    except (RuntimeError, OSError, ValueError, EOFError) as error:
        if download:
            raise
        why = "" if "download=True" in str(error) else f" ({error})"
        hint = "`deit-ablate fetch SWEEP --data-dir DIR` downloads it"
        raise DataError(f"torchvision finds no whole {_class(name)} in {folder}{why}: {hint}") from error


def _class(name: str) -> str:
    return name.partition(":")[2]


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
