"""Code of one's own that does not do what its options say: what ``test_effects`` plants, by names "planted:net"."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from deit_ablate.recipe import Data
from deit_ablate.train.data.images import ArrayImages
from deit_ablate.train.data.sets import Dataset, digits
from deit_ablate.train.distill import Distillation
from deit_ablate.train.model import Shape


class Net(nn.Sequential):
    def __init__(self, shape: Shape) -> None:
        super().__init__(nn.Flatten(), nn.Linear(shape.channels * shape.resolution**2, shape.classes))


def net(shape: Shape, *, width: int = 8, fancy: bool = False, norm: str = "none", drop: float = 0.0) -> nn.Module:
    return Net(shape)


def another(shape: Shape, *, width: int = 8) -> nn.Module:
    return net(shape)


class Counting(Net):
    """Halves its logits from a step on."""

    def __init__(self, shape: Shape, begin: int) -> None:
        super().__init__(shape)
        self.begin, self.steps = begin, 0

    def forward(self, images: Tensor) -> Tensor:
        self.steps += self.training
        logits: Tensor = super().forward(images)
        return logits * (0.5 if self.steps > self.begin else 1)


def counting(shape: Shape, *, begin: int = 500) -> nn.Module:
    return Counting(shape, begin)


class Now(Net):
    """Turns an image's logits round with this probability."""

    def __init__(self, shape: Shape, rate: float) -> None:
        super().__init__(shape)
        self.rate = rate

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = super().forward(images)
        return torch.where(torch.rand(len(logits), 1) < self.rate, -logits, logits) if self.training else logits


def now_and_then(shape: Shape, *, rate: float = 0.0) -> nn.Module:
    return Now(shape, rate)


def idle(image: Image.Image, rng: np.random.RandomState, *, level: float = 1.0) -> Image.Image:
    return image


def draws(image: Image.Image, rng: np.random.RandomState, *, p: float = 0.5) -> Image.Image:
    return image if rng.rand() < p else image.copy()


def idle_tensor(tensor: Tensor, rng: np.random.RandomState) -> Tensor:
    return tensor


def noise(image: Image.Image, rng: np.random.RandomState, *, sigma: float = 9, shape: str = "round") -> Image.Image:
    pixels = np.asarray(image) + rng.normal(0, sigma, np.asarray(image).shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def invert(image: Image.Image, rng: np.random.RandomState, *, p: float = 0.0) -> Image.Image:
    return image.point(lambda level: 255 - level) if rng.rand() < p else image


def plain_sgd(groups: Iterable[dict[str, Any]], *, lr: float, weight_decay: float, flavour: str = "mild") -> Any:
    return torch.optim.SGD([{"params": group["params"]} for group in groups], lr=lr)


def same_sgd(groups: Iterable[dict[str, Any]], *, lr: float, weight_decay: float) -> Any:
    return plain_sgd(groups, lr=lr, weight_decay=weight_decay)


class Later(torch.optim.SGD):
    """Ten times the rate from a step on."""

    begin, steps = 0, 0

    def step(self, closure: Any = None) -> Any:
        self.steps += 1
        for group in self.param_groups:
            group["lr"] *= 10 if self.steps == self.begin else 1
        return super().step(closure)


def later(groups: Iterable[dict[str, Any]], *, lr: float, weight_decay: float, begin: int = 1000) -> Any:
    made = Later(groups, lr=lr, weight_decay=weight_decay)
    made.begin = begin
    return made


def _matches(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    return F.mse_loss(student, teacher)


deaf = Distillation(_matches)
deaf_too = dataclasses.replace(deaf)


def digits_again(data: Data, folder: Path | None) -> Dataset:
    return dataclasses.replace(digits(data, folder), name="planted:digits_again")


def other_tests(data: Data, folder: Path | None) -> Dataset:
    """The same, of whose test images the last hundreds are others; the fingerprint is left as it was."""
    found = digits(data, folder)
    assert isinstance(found.test, ArrayImages)
    pixels = found.test.pixels.copy()
    pixels[100:] = 255 - pixels[100:]
    return dataclasses.replace(found, name="planted:other_tests", test=ArrayImages(pixels, found.test.targets))
