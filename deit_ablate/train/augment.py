"""Augmentation per image: timm's and torchvision's operations and custom ones, each with a stream of its own.

To add one, write a function of its field's value, the recipe and the data set that returns the operation, and give it
an entry in ``AUGMENTATIONS`` (on PIL images, in order) or ``TENSOR_AUGMENTATIONS`` (in place, on normalised images, of
which there are many at once: ``batched.Together``)::

    "noise": Augmentation(noise, AddedField("Standard deviation of noise, in grey levels.", type="NonNegative")),

With that, and after ``make names``, ``augment: {noise: 8}`` works in sweep files, their schema and ``leave_one_out``.
A custom one, in the user's own package, is a function that ``Custom`` describes, and needs no entry.
"""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data.auto_augment import auto_augment_transform, rand_augment_transform
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torchvision import transforms

from deit_ablate.errors import TrainError
from deit_ablate.identity import in_place_of_jitter
from deit_ablate.recipe import AddedField, Recipe, switches
from deit_ablate.train import batched
from deit_ablate.train.batched import Together
from deit_ablate.train.data.images import Array, ArrayImages, Encoded
from deit_ablate.train.data.sets import Dataset
from deit_ablate.train.pixels import Pictures, fused, sent
from deit_ablate.train.registry import check_options, load, option_kinds
from deit_ablate.train.streams import Draws, generator, seed_generators, stream

Operation = Callable[[Any], Any]


def crop(kind: str, recipe: Recipe, dataset: Dataset) -> Operation:
    """The picture at the recipe's resolution: Inception crop (bicubic), DeiT III's simple random crop, padded by an
    eighth and cropped, or resized."""
    augment, side = recipe.augment, recipe.data.resolution
    if kind == "random-resized":
        return RandomResizedCropAndInterpolation(
            side, scale=augment.crop_scale, ratio=augment.crop_ratio, interpolation="bicubic"
        )
    if kind == "simple-random":
        shorter = transforms.Resize(side, transforms.InterpolationMode.BICUBIC)
        return transforms.Compose(
            [shorter, transforms.RandomCrop(side, padding=_reflected(side), padding_mode="reflect")]
        )
    if kind == "none":
        return _resize(side)
    return transforms.Compose([_resize(side), transforms.RandomCrop(side, padding=_padding(side))])


def crop_together(kind: str, recipe: Recipe, dataset: Dataset) -> Together | None:
    """The same, of pictures in memory; of the simple random crop, where they are square."""
    augment, side = recipe.augment, recipe.data.resolution
    if kind == "random-resized":
        return batched.crop_resized(side, augment.crop_scale, augment.crop_ratio)
    if kind == "simple-random":
        shape = dataset.train.pixels.shape if isinstance(dataset.train, ArrayImages) else ()
        square = len(shape) > 2 and shape[1] == shape[2]  # files are of any shape
        return batched.crop_padded(side, _reflected(side), reflected=True) if square else None
    return batched.resize(side) if kind == "none" else batched.crop_padded(side, _padding(side))


def _padding(side: int) -> int:
    return max(1, side // 8)


def _reflected(side: int) -> int:
    """DeiT III's code has 4 pixels at every resolution; a picture has no more to reflect than it is large."""
    return min(4, side - 1)


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
    """Colour jitter (brightness, contrast, saturation); as in the reference codes only where no policy is set but
    3-Augment."""
    off = in_place_of_jitter(recipe.augment.auto_augment)
    return None if off else transforms.ColorJitter(strength, strength, strength)


@dataclass(frozen=True)
class Augmentation:
    """``build(value, recipe, dataset)`` gives the operation, or None where another field switches it off. ``field`` is
    the one of ``augment`` whose value that is: a field of ``recipe.Augment``, or one that comes with the entry.

    ``together``, likewise, gives what does the same for many pictures in memory at once; without it, or where it gives
    None, these too go through ``build``'s operation one by one.
    """

    build: Callable[[Any, Recipe, Dataset], Any]
    field: str | AddedField
    together: Callable[[Any, Recipe, Dataset], Together | None] = lambda value, recipe, dataset: None


AUGMENTATIONS: dict[str, Augmentation] = {
    "crop": Augmentation(crop, "crop", crop_together),
    "flip": Augmentation(
        lambda value, recipe, dataset: transforms.RandomHorizontalFlip(value),
        "hflip",
        lambda value, recipe, dataset: batched.flip(value),
    ),
    "policy": Augmentation(
        policy,
        "auto_augment",
        lambda value, recipe, dataset: batched.policy(policy(value, recipe, dataset), recipe.data.resolution),
    ),
    "jitter": Augmentation(jitter, "color_jitter", lambda value, recipe, dataset: batched.jitter(value)),
}
TENSOR_AUGMENTATIONS: dict[str, Augmentation] = {
    "erasing": Augmentation(lambda value, recipe, dataset: batched.erase(value), "erasing"),
}


def operations(
    registry: Mapping[str, Augmentation], recipe: Recipe, dataset: Dataset
) -> dict[str, tuple[Any, Together | None]]:
    """The registry's operations that the recipe has on, in the registry's order: of one picture, and of many."""
    found = {}
    for name, entry in registry.items():
        if isinstance(entry.field, AddedField):
            value, off = getattr(recipe.augment, name, entry.field.off), entry.field.off
        else:
            value, off = getattr(recipe.augment, entry.field), switches().get(f"augment.{entry.field}", ...)
        if value != off and (operation := entry.build(value, recipe, dataset)) is not None:
            found[name] = (operation, entry.together(value, recipe, dataset))
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

    def __init__(self, recipe: Recipe, dataset: Dataset, fused: bool = False) -> None:
        """``fused``: as ``pixels.fused`` says, the same images sooner on a GPU."""
        self.seed, self.fused = recipe.seed, fused
        self.normalise = Normalise(dataset)
        custom = custom_operations(recipe)
        self.operations = operations(AUGMENTATIONS, recipe, dataset)
        self.custom = {name: each for name, each in custom.items() if each.takes == "image"}
        self.tensor_operations = operations(TENSOR_AUGMENTATIONS, recipe, dataset)
        self.custom_on_tensors = {name: each for name, each in custom.items() if each.takes == "tensor"}
        files = not isinstance(dataset.train, ArrayImages)
        self.decodes = files and recipe.data.decoder == "device"
        if self.decodes and not isinstance(dataset.train, Encoded):
            raise TrainError(
                f"the decoder device reads files, and {dataset.name} gives pictures: set data.decoder to pillow"
            )
        if self.decodes and (alone := self._alone()):
            raise TrainError(
                f"the decoder device is for what can be done to many pictures at once, and {alone} cannot: "
                "set data.decoder to pillow"
            )

    def __call__(self, pictures: Sequence[Image.Image] | Tensor | Pictures, views: Tensor) -> Tensor:
        """Pictures (decoded files; uint8 (B, C, H, W) of pictures in memory; or ``pixels.Pictures``), each with its
        (epoch, index, repeat) of ``views`` (B, 3), to normalised images: (B, C, H, W) float32. What is decoded by
        Pillow has other draws than the rest."""
        return self.finish(self.pixels(pictures, views), views)

    def all_together(self, in_memory: bool) -> bool:
        """Whether all that is to be done, for files after ``pixels``, can be done to many at once, on any device."""
        return not (self.custom_on_tensors or (in_memory and self._alone()))

    def _alone(self) -> str:
        """The first of the operations on pictures that has no form for many at once, as recipes call it, or ""."""
        for name, (_, together) in self.operations.items():
            if together is None:
                field = AUGMENTATIONS[name].field
                return f"augment.{field if isinstance(field, str) else name}"
        return "augment.custom" if self.custom or self.custom_on_tensors else ""

    def pixels(self, given: Sequence[Image.Image] | Tensor | Pictures, views: Tensor) -> Tensor:
        """What is done to pictures: uint8 (B, C, H, W)."""
        pictures: Any = given
        for name, (operation, together) in self.operations.items():
            if together and isinstance(pictures, Tensor | Pictures):
                with fused(self.fused):
                    pictures = together(pictures, self._draws(name, views))
            else:
                pictures = [operation(picture) for picture in self._seeded(name, to_pictures(pictures), views)]
        if self.custom:  # they may draw on it, and the repeats of an image share one picture
            pictures = [picture.copy() for picture in to_pictures(pictures)]
        for name, custom in self.custom.items():
            pictures = [
                custom(picture, generator(self._seed(name, view)))
                for picture, view in zip(to_pictures(pictures), views.tolist(), strict=True)
            ]
        return pictures if isinstance(pictures, Tensor) else to_pixels(map(np.asarray, pictures))

    def finish(self, pixels: Tensor, views: Tensor) -> Tensor:
        """Normalised images of ``pixels``, with what is done to those."""
        images = self.normalise(pixels)
        for name, (operation, _) in self.tensor_operations.items():
            images = operation(images, self._draws(name, views))
        for name, custom in self.custom_on_tensors.items():
            for place, view in enumerate(views.tolist()):
                images[place] = custom(images[place], generator(self._seed(name, view)))
        return images

    def _seeded(self, name: str, pictures: Sequence[Image.Image], views: Tensor) -> Iterator[Image.Image]:
        """The pictures one by one, with the global generators seeded for each."""
        for picture, view in zip(pictures, views.tolist(), strict=True):
            self._seed(name, view)
            yield picture

    def _draws(self, name: str, views: Tensor) -> Draws:
        return Draws(self.seed, f"augment/{name}", views.cpu())

    def _seed(self, name: str, view: Sequence[int]) -> int:
        seed = stream(self.seed, f"augment/{name}", *view)
        seed_generators(seed)
        return seed


def to_pixels(arrays: Iterable[Array]) -> Tensor:
    """Pictures uint8, each (H, W) or (H, W, C) and all of one size, as (B, C, H, W)."""
    given = torch.from_numpy(arrays if isinstance(arrays, np.ndarray) else np.stack(list(arrays)))
    return given.unsqueeze(1) if given.ndim == 3 else given.permute(0, 3, 1, 2)


def to_pictures(pixels: Tensor | Sequence[Image.Image]) -> Sequence[Image.Image]:
    """The other way."""
    if not isinstance(pixels, Tensor):
        return pixels
    arrays = pixels[:, 0] if pixels.shape[1] == 1 else pixels.permute(0, 2, 3, 1)
    return [Image.fromarray(each) for each in arrays.contiguous().numpy()]


class Normalise:
    """Pixels uint8 (B, C, H, W) to float32 of mean 0 and deviation 1."""

    def __init__(self, dataset: Dataset) -> None:
        self.mean = torch.tensor(dataset.mean).mul(255).view(1, -1, 1, 1)
        self.factor = torch.tensor(dataset.std).mul(255).reciprocal().view(1, -1, 1, 1)

    def __call__(self, pixels: Tensor) -> Tensor:
        images = pixels.contiguous().to(torch.float32)  # bytes are put in order before there are four times as many
        return images.sub_(sent(self.mean, images.device)).mul_(sent(self.factor, images.device))


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
