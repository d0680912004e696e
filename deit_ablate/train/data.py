"""Data sets: what is trained and tested on, how it is split, and its fingerprint.

To add a data set, write a function that returns a ``Dataset`` and give it a line in ``DATASETS``; one of your
own is named ``module:function`` in the recipe.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torchvision.datasets import ImageFolder

from deit_ablate.recipe import Data, Recipe, split_sizes
from deit_ablate.train.errors import TrainError
from deit_ablate.train.registry import lookup
from deit_ablate.train.streams import generator, stream

Array = npt.NDArray[Any]
SPLIT_SEED = 0
"""Of the validation part and of ``train_images``: never the run's seed, so that all runs see one split."""


class Images(Protocol):
    """A sequence of pictures (PIL, mode L or RGB) with their classes, ``targets`` (N,) int64."""

    @property
    def targets(self) -> Array: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Image.Image: ...


@dataclass(frozen=True)
class ArrayImages:
    """Pictures in memory: ``pixels`` uint8, (N, H, W) grayscale or (N, H, W, 3)."""

    pixels: Array
    targets: Array

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])


@dataclass(frozen=True)
class FileImages:
    """Pictures in files, decoded when asked for, as RGB. Raises TrainError naming a file that is no picture."""

    paths: tuple[str, ...]
    targets: Array

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Image.Image:
        try:
            with Image.open(self.paths[index]) as image:
                return image.convert("RGB")
        except (UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise TrainError(f"{self.paths[index]} cannot be read as a picture: {error}") from error
        except OSError as error:
            if error.errno is not None:
                raise  # the storage is at fault, not the picture
            raise TrainError(f"{self.paths[index]} cannot be read as a picture: {error}") from error


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
        name="digits", classes=tuple("0123456789"), channels=1, mean=(0.3050,), std=(0.3757,),
        train=ArrayImages(pixels[trained], targets[trained]), test=ArrayImages(pixels[tested], targets[tested]),
        fingerprint=fingerprint,
    )  # fmt: skip


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
FASHION_DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def fashion_mnist(data: Data, folder: Path | None) -> Dataset:
    """Fashion-MNIST (Xiao et al., arXiv 1708.07747): 60,000 + 10,000 images, 28x28, from IDX files (.gz or plain)."""
    folder = folder or FASHION_DEBIAN
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    pixels, targets, test_pixels, test_targets = (_idx(folder, name) for name in names)
    if len(pixels) != len(targets) or len(test_pixels) != len(test_targets):
        raise TrainError(f"{folder}: images and labels differ in number; a file is damaged or of another data set")
    return Dataset(
        name="fashion-mnist", classes=FASHION_CLASSES, channels=1, mean=(0.2860,), std=(0.3530,),
        train=ArrayImages(_resized(pixels, data.resolution), targets.astype(np.int64)),
        test=ArrayImages(_resized(test_pixels, data.resolution), test_targets.astype(np.int64)),
        fingerprint=_sha256(pixels, targets, test_pixels, test_targets),
    )  # fmt: skip


def imagefolder(data: Data, folder: Path | None) -> Dataset:
    """Any tree of ``train/<class>/*`` and ``val/<class>/*`` pictures; they are read as RGB; ``val`` is the test split.

    The fingerprint is over the sorted (relative path, size) pairs, not over the pixels.
    """
    if folder is None:
        raise TrainError(f"{data.name} needs a data folder with train/ and val/ in it (--data-dir, DEIT_ABLATE_DATA)")
    parts: dict[str, ImageFolder] = {}
    for part in ("train", "val"):
        if not (folder / part).is_dir():
            raise TrainError(f"{folder} has no folder {part}/ (expected {part}/<class>/<pictures>)")
        try:
            parts[part] = ImageFolder(str(folder / part))
        except FileNotFoundError as error:
            raise TrainError(f"{folder / part}: {error}") from error
    if parts["train"].classes != parts["val"].classes:
        differing = sorted(set(parts["train"].classes) ^ set(parts["val"].classes))
        raise TrainError(f"{folder}: train/ and val/ hold different classes, such as {', '.join(differing[:5])}")
    train, test = (
        FileImages(tuple(path for path, _ in part.samples), np.asarray(part.targets, dtype=np.int64))
        for part in parts.values()
    )
    return Dataset(
        name=data.name, classes=tuple(parts["train"].classes), channels=3, mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD, train=train, test=test, fingerprint=_files_sha256(folder, (*train.paths, *test.paths)),
    )  # fmt: skip


def imagenet(data: Data, folder: Path | None) -> Dataset:
    """ImageNet-1k (ILSVRC 2012) as an image folder. Raises TrainError where it is not whole."""
    dataset = imagefolder(data, folder)
    found = (len(dataset.classes), len(dataset.train), len(dataset.test))
    if found != (1000, 1_281_167, 50_000):
        raise TrainError(
            f"{folder} is not the whole ImageNet-1k: it has {found[0]} classes, {found[1]} training and {found[2]} "
            "validation images, not 1000, 1281167 and 50000 (for a part of it use `name: imagefolder` with an id)"
        )
    return dataset


DATASETS: dict[str, Callable[[Data, Path | None], Dataset]] = {
    "digits": digits,
    "fashion-mnist": fashion_mnist,
    "imagenet": imagenet,
    "imagefolder": imagefolder,
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
            "name": self.dataset.name, "fingerprint": self.dataset.fingerprint, "classes": list(self.dataset.classes),
            "channels": self.dataset.channels, "train": len(self.train), "validation": len(self.validation),
            "test": len(self.dataset.test),
        }  # fmt: skip


def load_data(recipe: Recipe, data_dir: Path | None) -> Splits:
    """The recipe's data set, split. Raises TrainError for what the user can mend (folder, files, sizes)."""
    if data_dir is not None and not data_dir.is_dir():
        raise TrainError(f"the data folder {data_dir} does not exist")
    dataset = lookup("data set", recipe.data.name, DATASETS)(recipe.data, data_dir)
    training, validation = split_sizes(len(dataset.train), recipe.data)
    targets = dataset.train.targets
    held = stratified(targets, validation, stream(SPLIT_SEED, "validation"))
    rest = np.setdiff1d(np.arange(len(targets)), held)
    kept = rest[stratified(targets[rest], training, stream(SPLIT_SEED, "train_images"))]
    if len(kept) < recipe.schedule.batch_size:
        raise TrainError(f"a batch of {recipe.schedule.batch_size} is more than the {len(kept)} training images")
    return Splits(dataset, kept, held)


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
        raise TrainError(
            f"no {name}.gz in {folder}: give the folder that holds Fashion-MNIST's four IDX files (--data-dir, "
            f"DEIT_ABLATE_DATA), or install Debian's package dataset-fashion-mnist, which puts them into {FASHION_DEBIAN}"
        )
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        dimensions = content[3]
        shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, 4))
        if content[:3] != b"\0\0\x08" or dimensions not in (1, 3):
            raise ValueError("not an IDX file of bytes")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (ValueError, IndexError, EOFError, gzip.BadGzipFile) as error:
        raise TrainError(f"{path} is damaged: {error}") from error


def _sha256(*arrays: Array) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _files_sha256(folder: Path, paths: Iterable[str]) -> str:
    entries = sorted((Path(path).relative_to(folder).as_posix(), Path(path).stat().st_size) for path in paths)
    lines = "".join(f"{name}\0{size}\n" for name, size in entries)
    return hashlib.sha256(f"{len(entries)}\n{lines}".encode()).hexdigest()
