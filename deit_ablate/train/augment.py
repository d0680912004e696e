"""Augmentation per image: timm's and torchvision's operations and custom ones, each seeded from a stream of its own.

To add one, write a function of its field's value, the recipe and the data set that returns the operation, and give it
an entry in ``AUGMENTATIONS`` (on PIL images, in order) or ``TENSOR_AUGMENTATIONS`` (in place, on normalised tensors)::

    "noise": Augmentation(noise, AddedField("Standard deviation of noise, in grey levels.", type="NonNegative")),

With that, and after ``make names``, ``augment: {noise: 8}`` works in sweep files, their schema and ``leave_one_out``.
A custom one, in the user's own package, is a function that ``Custom`` describes, and needs no entry.
"""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from deit_ablate.recipe import AddedField, Recipe, switches
from deit_ablate.train.data.sets import Dataset
from deit_ablate.train.registry import check_options, load, option_kinds
from deit_ablate.train.streams import generator, seed_generators, stream

Operation = Callable[[Any], Any]


def crop(kind: str, recipe: Recipe, dataset: Dataset) -> Operation:
    """The picture at the recipe's resolution: Inception crop (bicubic), padded by an eighth and cropped, or resized."""
    augment, side = recipe.augment, recipe.data.resolution
    if kind == "random-resized":
        return RandomResizedCropAndInterpolation(
            side, scale=augment.crop_scale, ratio=augment.crop_ratio, interpolation="bicubic"
        )
    if kind == "none":
        return _resize(side)
    padded = transforms.RandomCrop(side, padding=max(1, side // 8))
    return transforms.Compose([_resize(side), padded])


def flip(probability: float, recipe: Recipe, dataset: Dataset) -> Operation:
    """A horizontal flip with this probability."""
    operation: Operation = transforms.RandomHorizontalFlip(probability)
    return operation


def policy(text: str, recipe: Recipe, dataset: Dataset) -> Operation:
    """RandAugment or AutoAugment, in timm's notation. Raises TrainError for a notation that timm does not know."""
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


def jitter(strength: float, recipe: Recipe, dataset: Dataset) -> Operation | None:
    """Colour jitter (brightness, contrast, saturation); as in the reference code only where no policy is set."""
    return None if recipe.augment.auto_augment is not None else transforms.ColorJitter(strength, strength, strength)


def erasing(probability: float, recipe: Recipe, dataset: Dataset) -> Operation:
    """Random erasing: one box of normal noise, in place on a normalised (C, H, W) tensor."""
    operation: Operation = RandomErasing(probability, mode="pixel", max_count=1, device="cpu")
    return operation


@dataclass(frozen=True)
class Augmentation:
    """``build(value, recipe, dataset)`` gives the operation, or None where another field switches it off. ``field`` is
    the one of ``augment`` whose value that is: a field of ``recipe.Augment``, or one that comes with the entry."""

    build: Callable[[Any, Recipe, Dataset], Operation | None]
    field: str | AddedField


AUGMENTATIONS: dict[str, Augmentation] = {
    "crop": Augmentation(crop, "crop"),
    "flip": Augmentation(flip, "hflip"),
    "policy": Augmentation(policy, "auto_augment"),
    "jitter": Augmentation(jitter, "color_jitter"),
}
TENSOR_AUGMENTATIONS: dict[str, Augmentation] = {
    "erasing": Augmentation(erasing, "erasing"),
}


def operations(registry: Mapping[str, Augmentation], recipe: Recipe, dataset: Dataset) -> dict[str, Operation]:
    """The registry's operations that the recipe has on, in the registry's order."""
    found = {}
    for name, entry in registry.items():
        if isinstance(entry.field, AddedField):
            value, off = getattr(recipe.augment, name, entry.field.off), entry.field.off
        else:
            value, off = getattr(recipe.augment, entry.field), switches().get(f"augment.{entry.field}", ...)
        if value != off and (operation := entry.build(value, recipe, dataset)) is not None:
            found[name] = operation
    return found


@dataclass(frozen=True)
class Custom:
    """A custom augmentation, ``module:function`` in ``augment.custom``. Those of images come after the built-in ones of
    images, those of tensors after normalisation and erasing; each kind in the recipe's order.

    ``function(image, rng, **options)`` is given a PIL image of the recipe's resolution (mode L or RGB) and returns one
    of the same size and mode; ``function(tensor, rng, **options)``, by the name of its first parameter, a normalised
    (C, H, W) float32 tensor, and returns one of that shape. ``rng`` is a ``numpy.random.RandomState``, seeded by the
    recipe's seed, epoch, image and repeat, and by the function's name: to add one leaves the draws of the others as
    they were. The global generators (random, numpy, torch) are seeded alike, for library code that draws from them.
    """

    name: str
    function: Callable[..., Any]
    options: Mapping[str, Any]
    takes: str
    """``image`` or ``tensor``."""

    @classmethod
    def of(cls, name: str, options: Mapping[str, Any]) -> Custom:
        """Raises TrainError where there is no such function, or it does not take these options."""
        function = load(name)
        if not callable(function):
            raise TrainError(f"{name} is not a function")
        parameters = list(inspect.signature(function).parameters.values())
        if len(parameters) < 2 or parameters[0].name not in ("image", "tensor"):
            raise TrainError(f"{name} is not a function of (image, rng, ...) or (tensor, rng, ...)")
        takes, rng = parameters[0].name, parameters[1].name
        check_options(f"the augmentation {name}", options, option_kinds(function, skip=(takes, rng)))
        try:
            inspect.signature(function).bind(None, None, **options)
        except TypeError as error:
            raise TrainError(f"the augmentation {name}: {error}") from error
        return cls(name, function, options, takes)

    def __call__(self, given: Any, rng: np.random.RandomState) -> Any:
        """The changed image or tensor. Raises TrainError where it is of another kind, size or mode."""
        made = self.function(given, rng, **self.options)
        if self.takes == "image":
            right = isinstance(made, Image.Image) and (made.size, made.mode) == (given.size, given.mode)
        else:
            right = isinstance(made, Tensor) and made.shape == given.shape
        if not right:
            raise TrainError(f"the augmentation {self.name} returned no {self.takes} like the one that it was given")
        return made


def custom_operations(recipe: Recipe) -> dict[str, Custom]:
    """The recipe's custom augmentations by the names of their streams: one that is listed twice has two."""
    times: Counter[str] = Counter()
    found = {}
    for wanted in recipe.augment.custom:
        times[wanted.name] += 1
        suffix = f"#{times[wanted.name]}" if times[wanted.name] > 1 else ""
        found[wanted.name + suffix] = Custom.of(wanted.name, wanted.options)
    return found


class Augmenter:
    """Training images out of pictures: a function of (seed, epoch, index, repeat), whoever calls it and when."""

    def __init__(self, recipe: Recipe, dataset: Dataset) -> None:
        self.seed = recipe.seed
        self.normalise = Normalise(dataset)
        custom = custom_operations(recipe)
        self.operations = operations(AUGMENTATIONS, recipe, dataset)
        self.custom = {name: each for name, each in custom.items() if each.takes == "image"}
        self.tensor_operations = operations(TENSOR_AUGMENTATIONS, recipe, dataset)
        self.custom_on_tensors = {name: each for name, each in custom.items() if each.takes == "tensor"}

    def __call__(self, pictures: Sequence[Image.Image], views: Sequence[tuple[int, int, int]]) -> Tensor:
        """Pictures, each with its (epoch, index, repeat), to normalised images: (B, C, H, W) float32."""
        arrays = []
        for picture, view in zip(pictures, views, strict=True):
            for name, operation in self.operations.items():
                self._seed(name, view)
                picture = operation(picture)
            if self.custom:
                picture = picture.copy()  # they may draw on it, and the repeats of an image share one picture
            for name, custom in self.custom.items():
                picture = custom(picture, generator(self._seed(name, view)))
            arrays.append(np.asarray(picture))
        images = self.normalise(arrays)
        for name, operation in self.tensor_operations.items():
            for image, view in zip(images, views, strict=True):
                self._seed(name, view)
                operation(image)
        for name, custom in self.custom_on_tensors.items():
            for place, view in enumerate(views):
                images[place] = custom(images[place], generator(self._seed(name, view)))
        return images

    def _seed(self, name: str, view: tuple[int, int, int]) -> int:
        seed = stream(self.seed, f"augment/{name}", *view)
        seed_generators(seed)
        return seed


class Normalise:
    """uint8 pictures (H, W) or (H, W, C), all of one size, to (B, C, H, W) float32 of mean 0 and deviation 1."""

    def __init__(self, dataset: Dataset) -> None:
        self.mean = torch.tensor(dataset.mean).mul(255).view(1, -1, 1, 1)
        self.factor = torch.tensor(dataset.std).mul(255).reciprocal().view(1, -1, 1, 1)

    def __call__(self, arrays: Sequence[np.ndarray[Any, Any]]) -> Tensor:
        batch = torch.from_numpy(np.stack(arrays))
        batch = batch.unsqueeze(1) if batch.ndim == 3 else batch.permute(0, 3, 1, 2)
        return batch.to(torch.float32, memory_format=torch.contiguous_format).sub_(self.mean).mul_(self.factor)


def evaluation(recipe: Recipe) -> Operation:
    """Resized to resolution / eval_crop (bicubic) and cropped in the centre, as the reference code does."""
    side = recipe.data.resolution
    whole = math.floor(side / recipe.data.eval_crop)
    resize = transforms.Resize(whole, transforms.InterpolationMode.BICUBIC)
    operation: Operation = transforms.Compose([resize, transforms.CenterCrop(side)])
    return operation


def _resize(side: int) -> Operation:
    resize = transforms.Resize((side, side), transforms.InterpolationMode.BICUBIC)
    return lambda picture: picture if picture.size == (side, side) else resize(picture)


def _posterize(picture: Image.Image, bits_to_keep: int, **_: Any) -> Image.Image:
    """Timm's posterize; 0 bits is black, as it was before Pillow 13 refused it."""
    if bits_to_keep >= 8:
        return picture
    return ImageOps.posterize(picture, bits_to_keep) if bits_to_keep > 0 else picture.point(lambda value: 0)
