"""Pillow's operations on many pictures at once: the same bytes as Pillow's for each alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from deit_ablate.train import pixels
from deit_ablate.train.augment import to_pictures, to_pixels

SHAPES = [(1, 16, 16), (3, 16, 16), (1, 9, 13), (3, 28, 28)]
COUNT = 120


@pytest.fixture(params=SHAPES, ids=str)
def images(request: pytest.FixtureRequest) -> torch.Tensor:
    """Noise, soft contrasts, one level alone, two levels, and nearly black with one white pixel."""
    random, shape = np.random.RandomState(0), (COUNT, *request.param)
    made = random.randint(0, 256, shape, dtype=np.uint8)
    made[: COUNT // 2] = random.normal(100, 30, (COUNT // 2, *request.param)).clip(0, 255)
    made[0], made[1] = 7, 0
    made[2, :, 0, 0] = 255
    made[3] = np.where(made[3] > 200, 200, 10)
    return torch.from_numpy(made)


def factors(low: float, high: float) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(1).uniform(low, high, COUNT))


def one_by_one(images: torch.Tensor, operation: Callable[..., Image.Image], *arguments: Any) -> torch.Tensor:
    pictures = to_pictures(images)
    made = [
        operation(picture, *each) for picture, *each in zip(pictures, *(a.tolist() for a in arguments), strict=True)
    ]
    return to_pixels(map(np.asarray, made))


def enhanced(name: str) -> Callable[[Image.Image, float], Image.Image]:
    return lambda picture, factor: getattr(ImageEnhance, name)(picture).enhance(factor)


def test_pictures_become_pixels_and_pictures_again(images: torch.Tensor) -> None:
    assert torch.equal(to_pixels(map(np.asarray, to_pictures(images))), images)


def test_tables_of_a_picture_itself(images: torch.Tensor) -> None:
    ours = pixels.look_up(images, pixels.autocontrast_tables(images))
    assert torch.equal(ours, one_by_one(images, ImageOps.autocontrast))
    ours = pixels.look_up(images, pixels.equalize_tables(images))
    assert torch.equal(ours, one_by_one(images, ImageOps.equalize))


def test_blends(images: torch.Tensor) -> None:
    factor = factors(0, 2)
    ours = pixels.look_up(images, pixels.brightness_tables(factor))
    assert torch.equal(ours, one_by_one(images, enhanced("Brightness"), factor))
    ours = pixels.look_up(images, pixels.contrast_tables(images, factor))
    assert torch.equal(ours, one_by_one(images, enhanced("Contrast"), factor))
    assert torch.equal(pixels.colored(images, factor), one_by_one(images, enhanced("Color"), factor))
    assert torch.equal(pixels.sharpened(images, factor), one_by_one(images, enhanced("Sharpness"), factor))


def test_a_picture_too_small_for_a_filter_is_blended_with_itself() -> None:
    tiny = torch.arange(2 * 8, dtype=torch.uint8).view(2, 1, 2, 4) * 9
    factor = torch.tensor([0.1, 1.9])
    assert torch.equal(pixels.sharpened(tiny, factor), one_by_one(tiny, enhanced("Sharpness"), factor))


@pytest.mark.parametrize("kind", ["shear", "translate", "both"])
def test_affine(images: torch.Tensor, kind: str) -> None:
    by, fill = factors(-0.3, 0.3).tolist(), (10, 20, 30)[: images.shape[1]]
    width = images.shape[3]
    matrices = {
        "shear": [(1, each, 0, 0, 1, 0) for each in by],
        "translate": [(1, 0, 0, 0, 1, each * width) for each in by],
        "both": [(1 - each, each, each * width, -each, 1, each) for each in by],
    }[kind]
    ours = pixels.affine(images, torch.tensor(matrices, dtype=torch.float64), torch.tensor(fill, dtype=torch.uint8))
    color = fill if len(fill) > 1 else fill[0]

    def theirs(picture: Image.Image, *matrix: float) -> Image.Image:
        how = {"resample": Image.Resampling.BICUBIC, "fillcolor": color}
        return picture.transform(picture.size, Image.Transform.AFFINE, matrix, **how)  # type: ignore[arg-type]

    assert torch.equal(ours, one_by_one(images, theirs, *torch.tensor(matrices, dtype=torch.float64).T))


def test_rotation(images: torch.Tensor) -> None:
    degrees = factors(-30, 30)
    degrees[0] = 0
    ours = pixels.affine(images, pixels.rotation(degrees, *images.shape[2:]), torch.zeros(1, dtype=torch.uint8))
    how = {"resample": Image.Resampling.BICUBIC, "fillcolor": 0}
    assert torch.equal(ours, one_by_one(images, lambda picture, turn: picture.rotate(turn, **how), degrees))


@pytest.mark.parametrize("side", [7, 16, 33])
def test_crop_and_resize(images: torch.Tensor, side: int) -> None:
    random, (height, width) = np.random.RandomState(2), images.shape[2:]
    down, across = random.randint(3, height + 1, COUNT), random.randint(3, width + 1, COUNT)
    top, left = (random.rand(2, COUNT) * (height - down + 1, width - across + 1)).astype(int)
    ours = pixels.resampled(images, torch.from_numpy(np.stack([top, left, down, across], axis=1)), side)

    def theirs(picture: Image.Image, y: int, x: int, h: int, w: int) -> Image.Image:
        return picture.crop((x, y, x + w, y + h)).resize((side, side), Image.Resampling.BICUBIC)

    assert torch.equal(ours, one_by_one(images, theirs, top, left, down, across))


def test_no_picture_depends_on_the_others(images: torch.Tensor) -> None:
    factor, degrees = factors(0, 2), factors(-30, 30)
    fill, boxes = torch.zeros(1, dtype=torch.uint8), torch.tensor([[1, 2, 5, 7]]).expand(COUNT, 4)

    def all_of_them(some: slice) -> list[torch.Tensor]:
        part = images[some]
        return [
            pixels.look_up(part, pixels.equalize_tables(part)),
            pixels.look_up(part, pixels.contrast_tables(part, factor[some])),
            pixels.sharpened(part, factor[some]),
            pixels.affine(part, pixels.rotation(degrees[some], *images.shape[2:]), fill),
            pixels.resampled(part, boxes[some], 11),
        ]

    alone, together = all_of_them(slice(17, 18)), all_of_them(slice(None))
    assert all(torch.equal(one, many[17:18]) for one, many in zip(alone, together, strict=True))
