"""Trainings of about a second, with everything that draws random numbers switched on."""

from __future__ import annotations

import gzip
import io
import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deit_ablate.recipe import Recipe
from deit_ablate.train.data.published import CIFAR
from deit_ablate.train.loop import Journal

TINY: dict[str, dict[str, Any]] = {
    "data": {"name": "digits", "resolution": 16, "eval_crop": 1.0, "train_images": 96},
    "model": {"name": "deit", "options": {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}},
    "augment": {
        "crop": "pad",
        "hflip": 0.5,
        "auto_augment": "rand-m5-mstd0.5-inc1",
        "erasing": 0.5,
        "mixup": 0.8,
        "cutmix": 1.0,
        "repeats": 2,
    },
    "regularize": {"drop_path": 0.2, "dropout": 0.1, "ema_decay": 0.9},
    "optimizer": {"name": "adamw", "base_lr": 0.032, "clip_grad": 1.0},
    "schedule": {"epochs": 2, "batch_size": 16, "warmup_epochs": 0.5},
}
STEPS = 6
"""Of an epoch of TINY: 96 images in batches of 16."""


def tiny(**blocks: Any) -> Recipe:
    """TINY with changes, block by block: ``tiny(augment={"mixup": 0.0}, seed=1)``."""
    values: dict[str, Any] = {name: {**block, **blocks.pop(name, {})} for name, block in TINY.items()}
    return Recipe(**values, **blocks)


class Stopping(Journal):
    """Asks to stop after a number of steps."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.steps, self.after = 0, after

    def stop(self) -> bool:
        self.steps += 1
        return self.steps == self.after


class Recording(Journal):
    """Keeps the epochs' lines and what was said about the data."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}
        self.seen: list[tuple[int, int, int]] = []

    def data(self, facts: dict[str, Any]) -> None:
        self.facts = facts

    def epoch(self, line: dict[str, Any]) -> None:
        self.lines.append(line)

    def progress(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self.seen.append((epoch, step, steps))


def write_tree(folder: Path, counts: dict[str, int], mode: str = "RGB") -> None:
    for part in ("train", "val"):
        for label, count in counts.items():
            (folder / part / label).mkdir(parents=True)
            for number in range(count):
                Image.new(mode, (20 + number, 24), number).save(folder / part / label / f"{number}.png")


def picture(number: int, mode: str = "RGB") -> Image.Image:
    random = np.random.RandomState(number)
    width, height = random.randint(20, 60, 2).tolist()
    coarse = random.randint(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG", **how: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **how)
    return stream.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture(0), exif=exif)


def write_pictures(folder: Path) -> list[bytes]:
    """JPEG files in colour and in grey, one turned, and PNG files, of many sizes: 24 a class."""
    contents = []
    for part, label in itertools.product(("train", "val"), ("cat", "dog")):
        (folder / part / label).mkdir(parents=True)
        for number in range(24):
            kind = "PNG" if number % 5 == 0 else "JPEG"
            content = turned() if number == 7 else encoded(picture(number, "L" if number == 3 else "RGB"), kind)
            (folder / part / label / f"{number:02}.{kind.lower()}").write_bytes(content)
            contents += [content] if part == "train" else []
    return contents


def write_table(folder: Path) -> None:
    """A tree of 48 pictures, those of train/, and a table of them."""
    write_tree(folder, {"cat": 24, "dog": 24})
    lines = [f"train/{label}/{number}.png,{label}" for label in ("cat", "dog") for number in range(24)]
    (folder / "labels.csv").write_text("\n".join(["path,label", *lines]) + "\n")


# -- custom augmentations, by the names "tiny:noise" and so on ------------------------------------------------------


def noise(image: Image.Image, rng: np.random.RandomState, *, sigma: float = 10.0) -> Image.Image:
    pixels = np.asarray(image) + rng.normal(0, sigma, np.asarray(image).shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def scribble(image: Image.Image, rng: np.random.RandomState, *, level: int = 255) -> Image.Image:
    """Draws its first row on the very image that it is given."""
    image.paste(level, (0, 0, image.width, 1))
    return image


def shift(tensor: Tensor, rng: np.random.RandomState) -> Tensor:
    return tensor + float(rng.normal())


def nothing(image: Image.Image, rng: np.random.RandomState) -> Image.Image:
    rng.normal(size=100)
    return image


def library(tensor: Tensor, rng: np.random.RandomState) -> Tensor:
    return tensor + torch.randn(()) + random.random() + np.random.normal()


def returns_nothing(image: Image.Image, rng: np.random.RandomState) -> None:
    pass


def crops(image: Image.Image, rng: np.random.RandomState) -> Image.Image:
    return image.crop((0, 0, 3, 3))


def flattens(tensor: Tensor, rng: np.random.RandomState) -> Tensor:
    return tensor.flatten()


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
