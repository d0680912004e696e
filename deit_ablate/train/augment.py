"""Augmentation per image: timm's and torchvision's operations, each seeded from a stream of its own.

To add one, write a function of the recipe and the data set that returns the operation, or None where the recipe
has it off, and give it a line in ``AUGMENTATIONS`` (on PIL images, in order) or ``TENSOR_AUGMENTATIONS`` (on
normalised tensors).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data.auto_augment import auto_augment_transform, rand_augment_transform
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torchvision import transforms

from deit_ablate.errors import TrainError
from deit_ablate.recipe import Recipe
from deit_ablate.train.data.sets import Dataset
from deit_ablate.train.streams import seed_generators, stream

Operation = Callable[[Any], Any]


def crop(recipe: Recipe, dataset: Dataset) -> Operation | None:
    """The picture at the recipe's resolution: Inception crop (bicubic), padded by an eighth and cropped, or resized."""
    augment, side = recipe.augment, recipe.data.resolution
    if augment.crop == "random-resized":
        return RandomResizedCropAndInterpolation(
            side, scale=augment.crop_scale, ratio=augment.crop_ratio, interpolation="bicubic"
        )
    if augment.crop == "none":
        return _resize(side)
    padded = transforms.RandomCrop(side, padding=max(1, side // 8))
    return transforms.Compose([_resize(side), padded])


def flip(recipe: Recipe, dataset: Dataset) -> Operation | None:
    """A horizontal flip with the recipe's probability."""
    return transforms.RandomHorizontalFlip(recipe.augment.hflip) if recipe.augment.hflip else None


def policy(recipe: Recipe, dataset: Dataset) -> Operation | None:
    """RandAugment or AutoAugment, in timm's notation. Raises TrainError for a notation that timm does not know."""
    text = recipe.augment.auto_augment
    if text is None:
        return None
    grey = tuple(min(255, round(255 * mean)) for mean in dataset.mean)
    settings = {
        "translate_const": int(recipe.data.resolution * 0.45),
        "img_mean": grey if len(grey) > 1 else grey[0],
        "interpolation": Image.Resampling.BICUBIC,
    }
    try:
        found = (rand_augment_transform if text.startswith("rand") else auto_augment_transform)(text, settings)
    except (AssertionError, ValueError, KeyError) as error:
        raise TrainError(f"timm does not understand the policy {text!r} {error}".rstrip()) from error
    for operation in getattr(found, "ops", None) or [each for pair in found.policy for each in pair]:
        if "Posterize" in operation.name:
            operation.aug_fn = _posterize
    return found


def jitter(recipe: Recipe, dataset: Dataset) -> Operation | None:
    """Colour jitter (brightness, contrast, saturation); as in the reference code only where no policy is set."""
    strength = recipe.augment.color_jitter
    if not strength or recipe.augment.auto_augment is not None:
        return None
    return transforms.ColorJitter(strength, strength, strength)


def erasing(recipe: Recipe, dataset: Dataset) -> Operation | None:
    """Random erasing: one box of normal noise, in place on a normalised (C, H, W) tensor."""
    if not recipe.augment.erasing:
        return None
    return RandomErasing(recipe.augment.erasing, mode="pixel", max_count=1, device="cpu")


AUGMENTATIONS: dict[str, Callable[[Recipe, Dataset], Operation | None]] = {
    "crop": crop,
    "flip": flip,
    "policy": policy,
    "jitter": jitter,
}
TENSOR_AUGMENTATIONS: dict[str, Callable[[Recipe, Dataset], Operation | None]] = {
    "erasing": erasing,
}


class Augmenter:
    """Training images out of pictures: a function of (seed, epoch, index, repeat), whoever calls it and when."""

    def __init__(self, recipe: Recipe, dataset: Dataset) -> None:
        self.seed = recipe.seed
        self.normalise = Normalise(dataset)
        self.operations = {
            name: operation for name, build in AUGMENTATIONS.items() if (operation := build(recipe, dataset))
        }
        self.tensor_operations = {
            name: operation for name, build in TENSOR_AUGMENTATIONS.items() if (operation := build(recipe, dataset))
        }

    def __call__(self, pictures: Sequence[Image.Image], views: Sequence[tuple[int, int, int]]) -> Tensor:
        """Pictures, each with its (epoch, index, repeat), to normalised images: (B, C, H, W) float32."""
        arrays = []
        for picture, view in zip(pictures, views, strict=True):
            for name, operation in self.operations.items():
                self._seed(name, view)
                picture = operation(picture)
            arrays.append(np.asarray(picture))
        images = self.normalise(arrays)
        for name, operation in self.tensor_operations.items():
            for image, view in zip(images, views, strict=True):
                self._seed(name, view)
                operation(image)
        return images

    def _seed(self, name: str, view: tuple[int, int, int]) -> None:
        seed_generators(stream(self.seed, f"augment/{name}", *view))


class Normalise:
    """uint8 pictures (H, W) or (H, W, C), all of one size, to (B, C, H, W) float32 of mean 0 and deviation 1."""

    def __init__(self, dataset: Dataset) -> None:
        self.mean = torch.tensor(dataset.mean).mul(255).view(1, -1, 1, 1)
        self.factor = torch.tensor(dataset.std).mul(255).reciprocal().view(1, -1, 1, 1)

    def __call__(self, arrays: Sequence[np.ndarray[Any, Any]]) -> Tensor:
        batch = torch.from_numpy(np.stack(arrays))
        batch = batch.unsqueeze(1) if batch.ndim == 3 else batch.permute(0, 3, 1, 2)
        return batch.to(torch.float32, memory_format=torch.contiguous_format).sub_(self.mean).mul_(self.factor)


def evaluation(recipe: Recipe) -> Operation | None:
    """Resized to resolution / eval_crop (bicubic) and cropped in the centre, as the reference code does."""
    side = recipe.data.resolution
    whole = math.floor(side / recipe.data.eval_crop)
    resize = transforms.Resize(whole, transforms.InterpolationMode.BICUBIC)
    return transforms.Compose([resize, transforms.CenterCrop(side)])


def _resize(side: int) -> Operation:
    resize = transforms.Resize((side, side), transforms.InterpolationMode.BICUBIC)
    return lambda picture: picture if picture.size == (side, side) else resize(picture)


def _posterize(picture: Image.Image, bits_to_keep: int, **_: Any) -> Image.Image:
    """Timm's posterize; 0 bits is black, as it was before Pillow 13 refused it."""
    if bits_to_keep >= 8:
        return picture
    return ImageOps.posterize(picture, bits_to_keep) if bits_to_keep > 0 else picture.point(lambda value: 0)
