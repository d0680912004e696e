"""Augmentations of many pictures in memory at once: uint8 (B, C, H, W), each view by the draws of its own stream.

What timm and torchvision do with one picture after the other, with the same distributions and, for the same draws, the
same bytes (``tests/train/test_batched.py``). ``augment.AUGMENTATIONS`` names these beside the operations that files go
through, one by one.

What is done with each picture is drawn and decided on the CPU, wherever the pictures are: a GPU that had decided would
have to be waited for at each operation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timm.data.auto_augment import AutoAugment
from torch import Tensor

from deit_ablate.train import pixels
from deit_ablate.train.pixels import Pictures, sent
from deit_ablate.train.streams import Draws

Together = Callable[[Any, Draws], Tensor]
"""Pictures, on any device, and what draws for each of them on the CPU, to pictures: uint8 (B, C, H, W), or normalised
ones (float32). A crop, which comes first, is given ``pixels.Pictures`` too."""
ATTEMPTS = 10
"""Boxes that timm draws for one that fits, for a crop and for erasing."""


def resize(side: int) -> Together:
    """All of each picture at ``side`` x ``side``, bicubic."""

    def resized(images: Tensor | Pictures, draws: Draws) -> Tensor:
        if isinstance(images, Tensor) and images.shape[2:] == (side, side):
            return images
        height, width = pixels.sizes(images)
        zero = torch.zeros_like(height)
        return pixels.resampled(images, torch.cat((zero, zero, height, width), dim=1), side)

    return resized


def crop_padded(side: int, padding: int, reflected: bool = False) -> Together:
    """``side`` x ``side`` of a picture of that size with ``padding`` around it, black or its mirror image."""
    whole = resize(side)

    def cropped(images: Tensor | Pictures, draws: Draws) -> Tensor:
        images = whole(images, draws)
        images = images if reflected else torch.nn.functional.pad(images, [padding] * 4)
        top, left = sent((draws.uniform(2) * (2 * padding + 1)).long(), images.device).unbind(1)
        along = torch.arange(side, device=images.device)
        rows, columns = (start[:, None] + along for start in (top, left))
        if reflected:
            rows, columns = (side - 1 - (side - 1 - (at - padding).abs()).abs() for at in (rows, columns))
        rows, columns = rows[:, None, :, None], columns[:, None, None, :]
        pictures = torch.arange(len(images), device=images.device)[:, None, None, None]
        channels = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
        return images[pictures, channels, rows, columns]

    return cropped


def crop_resized(side: int, scale: tuple[float, float], ratio: tuple[float, float]) -> Together:
    """The Inception crop, as timm draws it: a share of the area, and a ratio of the sides uniform in its logarithm."""

    def cropped(images: Tensor | Pictures, draws: Draws) -> Tensor:
        size = pixels.sizes(images)
        boxes, found = drawn_boxes(draws, size, scale, ratio)
        return pixels.resampled(images, torch.where(found[:, None], boxes, _central(*size, ratio)), side)

    return cropped


def drawn_boxes(
    draws: Draws, size: tuple[Any, Any], scale: tuple[float, float], ratio: tuple[float, float], within: int = 0
) -> tuple[Tensor, Tensor]:
    """For each view the first of ten boxes (top, left, height, width) that fits in ``size`` (height and width, or
    (B, 1) of each) less ``within``, and whether one does: (B, 4) int64, (B,) bool."""
    height, width = size
    share, shape, top, left = draws.uniform(ATTEMPTS, 4).unbind(2)
    area = (scale[0] + (scale[1] - scale[0]) * share) * (height * width)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = (low + (high - low) * shape).exp()
    across, down = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (across <= width - within) & (down <= height - within)
    boxes = torch.stack((top * (height - down + 1), left * (width - across + 1), down, across), dim=2).floor().long()
    first = fits.int().argmax(1)
    return boxes[torch.arange(len(boxes)), first], fits.any(1)


def _central(height: Tensor, width: Tensor, ratio: tuple[float, float]) -> Tensor:
    """Timm's crop where none of the drawn ones fits: (B, 4), of heights and widths (B, 1)."""
    shape = width.double() / height
    down = torch.where(shape < min(ratio), (width.double() / min(ratio)).round().long(), height)
    across = torch.where(shape > max(ratio), (height.double() * max(ratio)).round().long(), width)
    return torch.cat(((height - down) // 2, (width - across) // 2, down, across), dim=1)


def flip(probability: float) -> Together:
    """Left becomes right with this probability."""

    def flipped(images: Tensor, draws: Draws) -> Tensor:
        chosen = sent(draws.uniform(1)[:, 0] < probability, images.device)
        return torch.where(chosen.view(-1, 1, 1, 1), images.flip(3), images)

    return flipped


# -- RandAugment and its kin -----------------------------------------------------------------------------------------


def _signed(level: Tensor, sign: Tensor) -> Tensor:
    return torch.where(sign > 0.5, -level, level)


def _factor(level: Tensor, sign: Tensor) -> Tensor:
    return level * 1.8 + 0.1


def _factor_increasing(level: Tensor, sign: Tensor) -> Tensor:
    return (1 + _signed(level * 0.9, sign)).clamp(min=0.1)


def _threshold(level: Tensor, sign: Tensor) -> Tensor:
    return (level * 256).trunc().clamp(max=256)


def _bits(level: Tensor, sign: Tensor) -> Tensor:
    return (level * 4).trunc()


Make = Callable[[Tensor, Tensor], Tensor]
"""Pictures and an argument for each (B,) to pictures."""


@dataclass(frozen=True)
class Kind:
    """``argument``, of a level in [0, 1] and a uniform number for the sign (B,) each, is what an operation is done by:
    by ``make``, or, of those that take pixels from elsewhere, by the matrices (B, 6) that ``matrix`` has for it."""

    argument: Callable[[Tensor, Tensor], Tensor]
    make: Make | None = None
    matrix: Callable[[Tensor, int, int], Tensor] | None = None
    """Of the argument, a picture's height and its width."""


def _levels(tables: Callable[[Tensor, Tensor], Tensor]) -> Make:
    """What changes each level alone: ``tables`` of the levels (1, 1, 256) and arguments (B, 1, 1)."""

    def made(images: Tensor, argument: Tensor) -> Tensor:
        levels = torch.arange(pixels.LEVELS, device=images.device).view(1, 1, -1)
        return pixels.look_up(images, tables(levels, argument.view(-1, 1, 1)).to(torch.uint8))

    return made


def _moved(place: int) -> Callable[[Tensor, int, int], Tensor]:
    """The identity with the argument at one place of its matrix."""

    def matrices(argument: Tensor, height: int, width: int) -> Tensor:
        made = torch.tensor([[1.0, 0, 0, 0, 1, 0]], dtype=torch.float64).repeat(len(argument), 1)
        made[:, place] = argument
        return made

    return matrices


def _posterized(levels: Tensor, bits: Tensor) -> Tensor:
    unit = 2 ** (8 - bits.clamp(0, 8)).long()
    return levels // unit * unit


BRIGHTNESS: Make = lambda images, factor: pixels.look_up(images, pixels.brightness_tables(factor))  # noqa: E731
CONTRAST: Make = lambda images, factor: pixels.look_up(images, pixels.contrast_tables(images, factor))  # noqa: E731


def _kinds(operation: Any, side: int) -> dict[str, Kind]:
    """Timm's names of operations -> what they do; the constants are those of timm's ``LEVEL_TO_ARG``."""
    settings = operation.hparams
    far, part = float(settings.get("translate_const", 0)), settings.get("translate_pct", 0.45)

    def scaled(by: float) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda level, sign: _signed(level * by, sign)

    posterize = _levels(_posterized)
    solarize = _levels(lambda levels, limit: torch.where(levels < limit, levels, 255 - levels))
    add = _levels(lambda levels, add: torch.where(levels < 128, (levels + add).clamp(max=255), levels))
    kinds = {
        "AutoContrast": Kind(_signed, lambda images, _: pixels.look_up(images, pixels.autocontrast_tables(images))),
        "Equalize": Kind(_signed, lambda images, _: pixels.look_up(images, pixels.equalize_tables(images))),
        "Invert": Kind(_signed, lambda images, _: 255 - images),
        "Posterize": Kind(_bits, posterize),
        "PosterizeIncreasing": Kind(lambda level, sign: 4 - _bits(level, sign), posterize),
        "PosterizeOriginal": Kind(lambda level, sign: 4 + _bits(level, sign), posterize),
        "Solarize": Kind(_threshold, solarize),
        "SolarizeIncreasing": Kind(lambda level, sign: 256 - _threshold(level, sign), solarize),
        "SolarizeAdd": Kind(lambda level, sign: (level * 110).trunc().clamp(max=128), add),
        "Desaturate": Kind(lambda level, sign: 0.5 - 0.5 * level, pixels.colored),
        "Rotate": Kind(scaled(30), matrix=pixels.rotation),
        "ShearX": Kind(scaled(0.3), matrix=_moved(1)),
        "ShearY": Kind(scaled(0.3), matrix=_moved(3)),
        "TranslateX": Kind(scaled(far), matrix=_moved(2)),
        "TranslateY": Kind(scaled(far), matrix=_moved(5)),
        "TranslateXRel": Kind(scaled(part * side), matrix=_moved(2)),
        "TranslateYRel": Kind(scaled(part * side), matrix=_moved(5)),
    }
    enhanced = {"Color": pixels.colored, "Contrast": CONTRAST, "Brightness": BRIGHTNESS, "Sharpness": pixels.sharpened}
    for name, make in enhanced.items():
        kinds |= {name: Kind(_factor, make), f"{name}Increasing": Kind(_factor_increasing, make)}
    return kinds


def policy(found: Any, side: int) -> Together | None:
    """What timm's RandAugment or AutoAugment does, for all at once; None for one with an operation that is not here
    (blurs)."""
    auto = isinstance(found, AutoAugment)
    choices = found.policy if auto else [[operation] * found.num_layers for operation in found.ops]
    layers = list(itertools.zip_longest(*choices))
    every = [operation for choice in choices for operation in choice]
    if not every:
        return lambda images, draws: images
    kinds = _kinds(every[0], side)
    if any(operation.name not in kinds for operation in every):
        return None
    steps = [_Layer(layer, kinds) for layer in layers]

    def augmented(images: Tensor, draws: Draws) -> Tensor:
        drawn = draws.uniform(len(steps), 5)
        for number, step in enumerate(steps):
            choice = drawn[:, 0 if auto else number, 0]  # an AutoAugment policy is chosen once, a layer each time
            images = step(images, choice, drawn[:, number, 1:])
        return images

    return augmented


class _Layer:
    """One of timm's operations for each view, by chance, applied by chance with a magnitude drawn at random."""

    def __init__(self, operations: Sequence[Any], kinds: Mapping[str, Kind]) -> None:
        """``operations``: timm's, None where a choice has fewer than others."""
        given = [operation for operation in operations if operation is not None]
        names = sorted({operation.name for operation in given})
        self.kinds = [kinds[name] for name in names]
        self.kind_of = torch.tensor([names.index(each.name) if each else -1 for each in operations])
        self.probability = torch.tensor([each.prob if each else -1.0 for each in operations], dtype=torch.float64)
        self.magnitude = torch.tensor([each.magnitude if each else 0.0 for each in operations], dtype=torch.float64)
        self.deviation, self.limit = given[0].magnitude_std, given[0].magnitude_max or 10.0
        color = given[0].kwargs["fillcolor"]
        self.fill = torch.tensor(color if isinstance(color, tuple) else (color,), dtype=torch.uint8)

    def __call__(self, images: Tensor, choice: Tensor, drawn: Tensor) -> Tensor:
        """``choice`` (B,) and ``drawn`` (B, 4) are uniform numbers."""
        chosen = (choice * len(self.kind_of)).long()
        level = self._magnitude(self.magnitude[chosen], drawn[:, 1], drawn[:, 2]).clamp(0, self.limit) / 10
        number_of = torch.where(drawn[:, 0] <= self.probability[chosen], self.kind_of[chosen], -1)
        images, (height, width) = images.clone(), images.shape[2:]
        moved, matrices = [], []
        for number, kind in enumerate(self.kinds):
            rows = (number_of == number).nonzero()[:, 0]
            argument = kind.argument(level[rows], drawn[rows, 3])
            if kind.matrix:  # all of these at once
                moved.append(rows)
                matrices.append(kind.matrix(argument, height, width))
            elif kind.make and len(rows):
                at = sent(rows, images.device)
                images[at] = kind.make(images[at], sent(argument, images.device))
        if len(rows := torch.cat([number_of.new_empty(0), *moved])):
            at = sent(rows, images.device)
            images[at] = pixels.affine(images[at], torch.cat(matrices), self.fill)
        return images

    def _magnitude(self, magnitude: Tensor, first: Tensor, second: Tensor) -> Tensor:
        if not self.deviation:
            return magnitude
        if math.isinf(self.deviation):
            return magnitude * first
        normal = (-2 * torch.log1p(-first)).sqrt() * (2 * math.pi * second).cos()
        return magnitude + self.deviation * normal


def jitter(strength: float) -> Together:
    """Brightness, contrast and saturation, each by a factor around 1, in an order drawn at random."""
    kinds = (BRIGHTNESS, CONTRAST, pixels.colored)

    def jittered(images: Tensor, draws: Draws) -> Tensor:
        drawn = draws.uniform(6)
        order, low = drawn[:, :3].argsort(1), max(0.0, 1 - strength)
        factors = low + (1 + strength - low) * drawn[:, 3:]
        images = images.clone()
        for turn, (number, make) in itertools.product(range(3), enumerate(kinds)):
            rows = (order[:, turn] == number).nonzero()[:, 0]
            if len(rows):
                at = sent(rows, images.device)
                images[at] = make(images[at], sent(factors[rows, number], images.device))
        return images

    return jittered


# -- on normalised images --------------------------------------------------------------------------------------------


def erase(probability: float, area: tuple[float, float] = (0.02, 1 / 3), aspect: float = 0.3) -> Together:
    """Random erasing (Zhong et al., 2020) as timm draws it: one box of normal noise, on normalised images, in place.

    ``area``: the range of the box's share of the image; ``aspect``: the smallest ratio of its sides.
    """

    def erased(images: Tensor, draws: Draws) -> Tensor:
        device, (channels, height, width) = images.device, images.shape[1:]
        rows = (draws.uniform(1)[:, 0] < probability).nonzero()[:, 0]
        some = draws.of(rows)
        boxes, found = drawn_boxes(some.apart("box"), (height, width), area, (aspect, 1 / aspect), within=1)
        rows, boxes, found = (sent(each, device) for each in (rows, boxes, found))
        top, left, down, across = boxes[:, :, None].unbind(1)
        y, x = (torch.arange(length, device=device) for length in (height, width))
        inside = ((y >= top) & (y < top + down))[:, :, None] & ((x >= left) & (x < left + across))[:, None]
        inside = inside & found[:, None, None]
        # Noise is drawn only for where it goes: a box is a sixth of its picture.
        view, row, column = inside.nonzero().unbind(1)
        places = (row * width + column)[:, None] * channels + torch.arange(channels, device=device)
        noise = some.apart("noise").on(device).normal_at(view, places)
        images[rows[view], :, row, column] = noise.to(images.dtype)
        return images

    return erased
