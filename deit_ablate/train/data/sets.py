"""Data sets: what is trained and tested on, how it is split, and its fingerprint.

To add a data set, write a function that returns a ``Dataset`` and give it an entry in ``DATASETS``; a custom one is
named ``module:function`` in the recipe.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
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


FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
FASHION_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
FASHION_DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def fashion_mnist(data: Data, folder: Path | None) -> Dataset:
    """Fashion-MNIST (Xiao et al., arXiv 1708.07747): 60,000 + 10,000 images, 28x28, from IDX files (.gz or plain)."""
    folder = folder or FASHION_DEBIAN
    pixels, targets, test_pixels, test_targets = (_idx(folder, name) for name in FASHION_FILES)
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


@dataclass(frozen=True)
class Cifar:
    """One of the two CIFAR data sets as published: where its files are, and what comes before the pixels in them."""

    classes: int
    folder: str
    train: tuple[str, ...]
    test: str
    names: str
    labels: int
    """Bytes of labels before each image's 3,072 bytes of pixels; the last is the class."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    archive: str
    md5: str

    @property
    def record(self) -> int:
        return self.labels + 3 * 32 * 32


CIFAR = {
    "cifar10": Cifar(
        10,
        "cifar-10-batches-bin",
        tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        "test_batch.bin",
        "batches.meta.txt",
        1,
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
        "cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
    ),
    "cifar100": Cifar(
        100,
        "cifar-100-binary",
        ("train.bin",),
        "test.bin",
        "fine_label_names.txt",
        2,
        (0.5071, 0.4865, 0.4409),
        (0.2673, 0.2564, 0.2762),
        "cifar-100-binary.tar.gz",
        "03b5dce01913d631647c71ecec9e9cb8",
    ),
}


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
    parts = [_cifar_file(inside / file, kind) for file in (*kind.train, kind.test)]
    pixels, targets = (np.concatenate(arrays) for arrays in zip(*parts[:-1], strict=True))
    test_pixels, test_targets = parts[-1]
    if len(pixels) != 5 * len(test_pixels) or len({len(each) for each, _ in parts[:-1]}) != 1:
        counts = ", ".join(f"{file}: {len(each)}" for file, (each, _) in zip(files, parts, strict=False))
        raise DataError(
            f"{inside}: a file is cut short, for a whole copy has 5 training images a test image ({counts})"
        )
    lines = _there(inside / kind.names).read_text("utf-8", "replace").splitlines()
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
    """Whether an image is a file, which may turn out to be no picture: what ``data.corrupt`` is for."""


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
    entry = lookup("data set", recipe.data.name, DATASETS)
    dataset = (entry.load if isinstance(entry, DatasetEntry) else entry)(recipe.data, data_dir)
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


def _idx(folder: Path, name: str) -> Array:
    """One IDX file of bytes (http://yann.lecun.com/exdb/mnist): a magic number, big-endian sizes, the values."""
    path = next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)
    if path is None:
        raise DataError(
            f"no {name}.gz in {folder}: give the folder that holds Fashion-MNIST's four IDX files (--data-dir, "
            f"DEIT_ABLATE_DATA), or install Debian's package dataset-fashion-mnist, which puts them in {FASHION_DEBIAN}"
        )
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        dimensions = content[3]
        shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, 4))
        if content[:3] != b"\0\0\x08" or dimensions != (3 if "idx3" in name else 1):
            raise ValueError("not an IDX file of bytes, or of another kind")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (ValueError, IndexError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}") from error


def _cifar_file(path: Path, kind: Cifar) -> tuple[Array, Array]:
    """Records of label bytes and 3,072 bytes of pixels, the red plane first: (N, 32, 32, 3) uint8, (N,) int64."""
    content = np.frombuffer(_there(path).read_bytes(), np.uint8)
    if not len(content) or len(content) % kind.record:
        raise DataError(f"{path} is damaged: {len(content)} bytes are no whole number of records of {kind.record}")
    records = content.reshape(-1, kind.record)
    targets = records[:, kind.labels - 1].astype(np.int64)
    if targets.max() >= kind.classes:
        raise DataError(f"{path} is damaged: it has a label of {targets.max()} among {kind.classes} classes")
    pixels = records[:, kind.labels :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), targets


def _there(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"there is no file {path}: the copy is not whole")
    return path


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _sha256(*arrays: Array) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
