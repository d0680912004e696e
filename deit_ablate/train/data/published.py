"""Fashion-MNIST and the two CIFARs as they are published: their files, and how these are read."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torchvision.datasets import FashionMNIST

from deit_ablate.errors import DataError
from deit_ablate.recipe import Data
from deit_ablate.train.data.dataset import Dataset, in_memory
from deit_ablate.train.data.images import Array

FASHION_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
FASHION_DEBIAN = Path("/usr/share/datasets/fashion-mnist")


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


def fashion_mnist(data: Data, folder: Path | None) -> Dataset:
    """Fashion-MNIST (Xiao et al., arXiv 1708.07747): 60,000 + 10,000 images, 28x28, from IDX files (.gz or plain)."""
    folder, classes = folder or FASHION_DEBIAN, tuple(FashionMNIST.classes)
    pixels, targets, test_pixels, test_targets = (_idx_file(folder, name) for name in FASHION_FILES)
    if len(pixels) != len(targets) or len(test_pixels) != len(test_targets):
        raise DataError(f"{folder}: images and labels differ in number; a file is damaged or of another data set")
    if max(targets.max(initial=0), test_targets.max(initial=0)) >= len(classes):
        raise DataError(f"{folder}: a label is above 9; a file is damaged or of another data set")
    return in_memory(data, classes, (pixels, targets, test_pixels, test_targets), (0.2860,), (0.3530,))


def _idx_file(folder: Path, name: str) -> Array:
    """One IDX file of bytes (http://yann.lecun.com/exdb/mnist): a magic number, big-endian sizes, the values. Raises
    DataError for one that is missing or damaged."""
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


def cifar(data: Data, folder: Path | None) -> Dataset:
    """CIFAR-10 and CIFAR-100, its fine classes (Krizhevsky, 2009): 50,000 + 10,000 colour images, 32x32, from the
    binary version. (The Python version is pickles: to read them is to run them.)

    Images stay at 32 pixels and are resized when asked for: all at 224 would fill 9 GB.
    """
    kind = CIFAR[data.name]
    place = f"the folder {kind.folder} out of {kind.archive} (the binary version), or the folder that holds it"
    if folder is None:
        raise DataError(f"{data.name} needs a data folder (--data-dir, DEIT_ABLATE_DATA): {place}")
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
    return in_memory(data, classes, (pixels, targets, test_pixels, test_targets), kind.mean, kind.std)


def _cifar_file(path: Path, kind: Cifar) -> tuple[Array, Array]:
    """Records of label bytes and 3,072 bytes of pixels, the red plane first: (N, 32, 32, 3) uint8, (N,) int64.
    Raises DataError for a file that is missing or damaged."""
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
    """The path of a file that a whole copy has. Raises DataError where it is not there."""
    if not path.is_file():
        raise DataError(f"there is no file {path}: the copy is not whole")
    return path
