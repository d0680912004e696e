"""JPEG files to training images of 224 pixels with DeiT's augmentation, on one core: ours beside timm's pipeline."""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from steps import timed
from timm.data import create_transform
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.io import ImageReadMode, decode_jpeg

from deit_ablate.recipe import Recipe
from deit_ablate.train.data.loader import training_batches
from deit_ablate.train.data.sets import Splits, load_data

CLASSES, SIDE = 2, 224


def write_pictures(folder: Path, count: int) -> None:
    """JPEG files of 500 x 375, quality 90: smooth shapes with noise, about as many bytes as a photograph."""
    random = np.random.RandomState(0)
    for part in ("train", "val"):
        for number in range(count):
            coarse = Image.fromarray(random.randint(0, 256, (12, 16, 3), dtype=np.uint8))
            pixels = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC)).astype(np.int16)
            noisy = pixels + random.randint(-12, 13, pixels.shape)
            place = folder / part / str(number % CLASSES)
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(place / f"{number}.jpg", quality=90)


def recipe_of(count: int, repeats: int) -> Recipe:
    """The paper's augmentation (the defaults) on such files, all of them in one batch."""
    data = {"name": "imagefolder", "id": "benchmark", "resolution": SIDE, "validation": 0}
    return Recipe.model_validate(
        {"data": data, "augment": {"repeats": repeats}, "schedule": {"epochs": 1000, "batch_size": count}}
    )


def rival(files: Sequence[Path], repeats: int) -> Callable[[], None]:
    """A batch of timm's pipeline: each repeat is decoded anew, as its loader does."""
    transform: Any = create_transform(
        SIDE,
        is_training=True,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="bicubic",
        re_prob=0.25,
        re_mode="pixel",
    )
    chosen = [file for file in files[: -(-len(files) // repeats)] for _ in range(repeats)][: len(files)]

    def batch() -> None:
        torch.stack([transform(Image.open(file).convert("RGB")) for file in chosen])

    return batch


@dataclass(frozen=True)
class Pipelines:
    """Medians of CPU milliseconds of an image: ours and timm's by the number of repeats, and single operations."""

    ours: dict[int, float]
    theirs: dict[int, float]
    parts: dict[str, float] = field(default_factory=dict)

    def ratio(self, repeats: int) -> float:
        return self.theirs[repeats] / self.ours[repeats]

    def limit(self, repeats: int) -> float:
        """The ratio if all but decoding (once an image) and cropping (once a view) cost nothing."""
        return self.theirs[repeats] / (self.parts["decode, PIL"] / repeats + self.parts["crop"])


def single(files: Sequence[Path], recipe: Recipe, data: Splits) -> Iterator[tuple[str, float]]:
    """Milliseconds of an image in each operation of ours alone, and in another decoder."""
    from deit_ablate.train.augment import Augmenter

    contents = [file.read_bytes() for file in files]
    buffers: list[Any] = [torch.frombuffer(bytearray(content), dtype=torch.uint8) for content in contents]
    unit = 1000 / len(files)
    pictures = [Image.open(io.BytesIO(content)).convert("RGB") for content in contents]
    yield "decode, PIL", unit * timed(lambda: [Image.open(io.BytesIO(each)).convert("RGB") for each in contents])
    yield "decode, torchvision", unit * timed(lambda: [decode_jpeg(each, mode=ImageReadMode.RGB) for each in buffers])
    crop = RandomResizedCropAndInterpolation(SIDE, interpolation="bicubic")
    yield "crop", unit * timed(lambda: [crop(picture) for picture in pictures])
    augmenter, views = Augmenter(recipe, data.dataset), torch.tensor([[0, number, 0] for number in range(len(files))])
    before = 0.0
    every = dict(augmenter.operations)
    augmenter.operations = {}
    for name, operation in every.items():
        augmenter.operations[name] = operation
        now = unit * min(timed(lambda: augmenter.pixels(pictures, views)) for _ in range(2))
        yield f"ours: {name}", now - before
        before = now
    made: Any = augmenter.pixels(pictures, views)
    yield "ours: normalise and erase", unit * timed(lambda: augmenter.finish(made, views))


def same_pixels(files: Sequence[Path]) -> float:
    """The share of pixels in which torchvision's decoder agrees with PIL's."""
    shares = []
    for file in files:
        theirs: Any = decode_jpeg(torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8), ImageReadMode.RGB)
        shares.append(float((np.asarray(Image.open(file).convert("RGB")) == theirs.permute(1, 2, 0).numpy()).mean()))
    return statistics.mean(shares)


def measure(folder: Path, quick: bool) -> Pipelines:
    count, rounds = (6, 1) if quick else (48, 5)
    write_pictures(folder, count)
    files = sorted((folder / "train").rglob("*.jpg"))
    ours: dict[int, float] = {}
    theirs: dict[int, float] = {}
    for repeats in (1, 3):
        recipe = recipe_of(count, repeats)
        data = load_data(recipe, folder)
        batches, other = training_batches(recipe, data, 0, 0), rival(files, repeats)
        times = [(timed(lambda: next(batches)), timed(other)) for _ in range(rounds + 1)][min(1, rounds - 1) :]  # noqa: B023
        ours[repeats], theirs[repeats] = (
            1000 / count * statistics.median(column) for column in zip(*times, strict=True)
        )
    recipe = recipe_of(count, 1)
    parts = dict(single(files, recipe, load_data(recipe, folder)))
    return Pipelines(ours, theirs, {**parts, "pixels alike, torchvision and PIL": same_pixels(files)})


if __name__ == "__main__":
    import tempfile

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made_here:
        found = measure(Path(made_here), False)
        print(found, [(found.ratio(repeats), found.limit(repeats)) for repeats in (1, 3)])
