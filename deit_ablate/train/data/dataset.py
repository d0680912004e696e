"""What a data set is, and which of its pictures are trained on, chosen by and tested on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from deit_ablate.errors import DataError
from deit_ablate.recipe import Data
from deit_ablate.train.data.images import Array, ArrayImages, Encoded, Images
from deit_ablate.train.streams import generator, stream

SPLIT_SEED = 0
"""Of the test split, the validation part and ``train_images``: never the run's seed, so that all runs see one split."""
TEST_SHARE = 0.2
"""Of the pictures that become the test split where there is none, unless the recipe says otherwise."""

PARTS = ("train", "val", "test")
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    "test": "test",
}
"""What a data set may call a part -> the part."""


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
    """What was hashed: "content" (all of it), or "sample" (of many pictures, see ``check.content_sha256``)."""
    listing: str = ""
    """Of an image folder: the SHA-256 of its files' names and sizes, which earlier versions took as fingerprint."""
    ignored: dict[str, int] = field(default_factory=dict)
    """Of an image folder: how many entries are no part of the data (``images.Ignored``)."""
    validation: Array | None = None
    """Indices into ``train``, ascending, of the validation part where the data come with one of their own."""
    sources: dict[str, str] = field(default_factory=dict)
    """train, validation, test -> in words where these pictures are from, as ``val/``."""
    resized: bool = False
    """Whether the pictures were resized to the resolution when they were loaded, bilinearly."""

    def has(self, fingerprint: str) -> bool:
        """Whether these are the data that were once given this fingerprint."""
        return fingerprint in (self.fingerprint, self.listing or self.fingerprint)


@dataclass(frozen=True)
class Roles:
    """Which of a data set's pictures are for what: indices, ascending, and ``Dataset.sources``."""

    train: Array
    """Those of the validation part among them, where the data come with one."""
    test: Array
    validation: Array | None
    """Places in ``train``."""
    sources: dict[str, str]


def roles(targets: Array, part_of: Array, data: Data, shown: Mapping[str, str]) -> Roles:
    """What is trained, validated and tested on, of pictures that lie in parts called train, val and test.

    ``test`` is the test split. Without it ``val`` is, as in ImageNet; with both, ``val`` is the validation part (if the
    recipe has one at all). With neither, a share of ``train`` is the test split: stratified, by a fixed seed.
    ``part_of`` (N,): each picture's part; ``shown``: the parts that there are -> what an error and a record call them.
    """
    parts = {part: np.flatnonzero(part_of == part) for part in shown}
    train = parts["train"]
    if "test" not in parts and "val" not in parts:
        share = data.options.get("test_share", TEST_SHARE)
        if not 0 < share < 1:
            raise DataError(f"data.options.test_share is {share:g}: expected a share above 0 and below 1")
        cut = stratified(targets[train], round(len(train) * share), stream(SPLIT_SEED, "test"))
        if not 0 < len(cut) < len(train):
            raise DataError(f"{shown['train']} has {len(train)} pictures, of which {share:.0%} make no test split")
        part = f"{share:.0%} of {shown['train']}, cut by a fixed seed"
        kept = {"train": f"the rest of {shown['train']}", "test": part}
        return Roles(np.delete(train, cut), train[cut], None, kept)
    if "test_share" in data.options:
        raise DataError(f"data.options.test_share is of no use: {shown.get('test') or shown['val']} is the test split")
    if "test" not in parts:
        return Roles(train, parts["val"], None, {"train": shown["train"], "test": shown["val"]})
    sources = {"train": shown["train"], "test": shown["test"]}
    held = parts.get("val", train[:0])
    if not (data.validation and len(held)):
        return Roles(train, parts["test"], None, sources)
    together = np.union1d(train, held)
    validation = np.flatnonzero(np.isin(together, held))
    return Roles(together, parts["test"], validation, {**sources, "validation": shown["val"]})


def made_of(
    data: Data, classes: Sequence[str], pictures: Encoded | ArrayImages, use: Roles, fingerprint: tuple[str, str]
) -> Dataset:
    """The data set of these pictures, by what they are used for, with ImageNet's channels and normalisation.
    ``fingerprint``: with what was hashed, as ``check.content_sha256`` gives both."""
    return Dataset(
        name=data.name,
        classes=tuple(classes),
        channels=3,
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
        train=pictures.of_these(use.train),
        test=pictures.of_these(use.test),
        fingerprint=fingerprint[0],
        fingerprint_of=fingerprint[1],
        validation=use.validation,
        sources=use.sources,
    )


def in_memory(
    data: Data,
    classes: tuple[str, ...],
    arrays: tuple[Array, Array, Array, Array],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Dataset:
    """Of ``arrays``, whose hash is the fingerprint: pixels (N, H, W) or (N, H, W, 3) and classes (N,) to train on, and
    to test on. Grey pictures are resized to the resolution here, of colour ones each when it is asked for."""
    pixels, targets, test_pixels, test_targets = arrays
    if len(mean) == 1:
        pixels, test_pixels = (_resized(each, data.resolution) for each in (pixels, test_pixels))
    return Dataset(
        name=data.name,
        classes=classes,
        channels=len(mean),
        mean=mean,
        std=std,
        train=ArrayImages(pixels, targets.astype(np.int64)),
        test=ArrayImages(test_pixels, test_targets.astype(np.int64)),
        fingerprint=arrays_sha256(*arrays),
        resized=len(mean) == 1,
    )


AT_ONCE = 256
"""Pictures that are resized together: as many as the processor's cache holds."""


def _resized(pixels: Array, resolution: int) -> Array:
    """Pictures (N, H, W), each as Pillow resizes it alone: first along its rows, of which many pictures lie below one
    another, then along its columns, of which they lie side by side."""
    if pixels.shape[1:3] == (resolution, resolution):
        return pixels
    resized = np.empty((len(pixels), resolution, resolution), np.uint8)
    for start in range(0, len(pixels), AT_ONCE):
        part = pixels[start : start + AT_ONCE]
        count, height, width = part.shape
        rows = _stretched(part.reshape(-1, width), (resolution, count * height)).reshape(count, height, resolution)
        beside = rows.swapaxes(0, 1).reshape(height, -1)
        columns = _stretched(beside, (count * resolution, resolution)).reshape(resolution, count, resolution)
        resized[start : start + AT_ONCE] = columns.swapaxes(0, 1)
    return resized


def _stretched(picture: Array, size: tuple[int, int]) -> Array:
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))


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


def arrays_sha256(*arrays: Array) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
