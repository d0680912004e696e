"""Pillow's operations on many pictures at once: uint8 (B, C, H, W), C 1 or 3, all of one size, on any device.

Each gives the bytes that Pillow gives for each picture alone (``tests/train/test_pixels.py`` compares them). None
depends on which other pictures are in the batch: sums are of whole numbers, which are exact in any order.

Boxes, matrices and whatever else says what is to be done with each picture may lie on the CPU, where it was drawn: to a
GPU it is sent without waiting.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

LEVELS = 256
ALIKE, TOGETHER = 64, 2**24
"""Boxes of several sizes that are resampled together at most (more would be of more different sizes), and their pixels,
each of which takes a hundred bytes meanwhile."""
_fusing = ContextVar("fusing", default=False)


@contextmanager
def fused(on: bool) -> Iterator[None]:
    """Within it, where ``on``, what takes dozens of passes over the pixels on a GPU takes one, by torch.compile, after
    half a minute of compiling: the same bytes but for one in ten million, where a product and a sum are rounded once.
    """
    token = _fusing.set(on)
    try:
        yield
    finally:
        _fusing.reset(token)


def _fusible(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function of pictures and of what is done with each, whose number may differ at each call."""
    compiled = functools.cache(lambda: torch.compile(function, dynamic=True))

    @functools.wraps(function)
    def called(images: Tensor, each: Tensor, *arguments: object) -> Tensor:
        fuse = _fusing.get() and images.is_cuda and len(each) > 1  # for 1, torch would compile anew
        return (compiled() if fuse else function)(images, each, *arguments)

    return called


def sent(given: Tensor, device: torch.device) -> Tensor:
    """On the device; to a GPU without waiting for it: what is copied from is read before this returns."""
    return given.to(device, non_blocking=True)


@dataclass(frozen=True)
class Pictures:
    """Pictures of several sizes on one device, uint8 (3, H, W) each, and which of them each of B views is of: (B,)."""

    pictures: Sequence[Tensor]
    of: Tensor


def sizes(images: Tensor | Pictures) -> tuple[Tensor, Tensor]:
    """Height and width of each view's picture, on the CPU: (B, 1) int64 each."""
    if isinstance(images, Tensor):
        height, width = (torch.full((len(images), 1), size) for size in images.shape[2:])
        return height, width
    found = torch.tensor([picture.shape[1:] for picture in images.pictures])[images.of]
    return found[:, :1], found[:, 1:]


def grey(images: Tensor) -> Tensor:
    """Luma (B, 1, H, W) as Pillow's convert("L") has it (ITU-R 601-2, in 16 bits); of one channel, itself."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.int().split(1, 1)
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000).bitwise_right_shift(16).to(torch.uint8)


def look_up(images: Tensor, tables: Tensor) -> Tensor:
    """Each pixel replaced by its entry in ``tables`` (B, C or 1, 256) uint8."""
    flat = images.flatten(2).long()
    tables = tables.expand(*images.shape[:2], LEVELS)
    return tables.gather(2, flat).view_as(images)


def histograms(images: Tensor) -> Tensor:
    """How many pixels have each level: (B, C, 256) int64."""
    flat = images.flatten(2)
    pictures = flat.shape[0] * flat.shape[1]
    first = torch.arange(pictures, device=images.device).view(*flat.shape[:2], 1) * LEVELS
    counted = torch.bincount((flat + first).flatten(), minlength=pictures * LEVELS)
    return counted.view(*flat.shape[:2], LEVELS)


def autocontrast_tables(images: Tensor) -> Tensor:
    """ImageOps.autocontrast without a cutoff: the darkest level becomes 0, the lightest 255. (B, C, 256)."""
    present = histograms(images) > 0
    levels = torch.arange(LEVELS, dtype=torch.float64, device=images.device)
    low = present.int().argmax(2, keepdim=True)
    high = LEVELS - 1 - present.flip(2).int().argmax(2, keepdim=True)
    scale = torch.full_like(low, 255, dtype=torch.float64) / (high - low).clamp(min=1)
    stretched = (levels * scale + -low * scale).trunc().clamp(0, 255)
    return torch.where(high > low, stretched, levels).to(torch.uint8)


def equalize_tables(images: Tensor) -> Tensor:
    """ImageOps.equalize: levels so that all are about equally frequent. (B, C, 256)."""
    counted = histograms(images)
    last = counted.shape[2] - 1 - (counted > 0).flip(2).int().argmax(2, keepdim=True)
    step = (counted.sum(2, keepdim=True) - counted.gather(2, last)) // 255
    before = counted.cumsum(2) - counted
    equal = ((step // 2 + before) // step.clamp(min=1)).clamp(max=255)
    levels = torch.arange(LEVELS, device=images.device)
    one_level = (counted > 0).sum(2, keepdim=True) <= 1
    return torch.where(one_level | (step == 0), levels, equal).to(torch.uint8)


def blended(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Image.blend: from ``start`` to ``end`` (numbers 0 to 255) by ``share`` (B, 1, ...), also beyond both."""
    start = start.float()
    return (start + share.float() * (end.float() - start)).clamp(0, 255).to(torch.uint8)


def brightness_tables(factor: Tensor) -> Tensor:
    """ImageEnhance.Brightness for factors (B,): (B, 1, 256)."""
    levels = torch.arange(LEVELS, device=factor.device).view(1, 1, LEVELS)
    return blended(torch.zeros_like(levels), levels, factor.view(-1, 1, 1))


def contrast_tables(images: Tensor, factor: Tensor) -> Tensor:
    """ImageEnhance.Contrast, which blends with the mean grey level, for factors (B,): (B, 1, 256)."""
    sums = grey(images).flatten(1).sum(1)
    count = images[0, 0].numel()
    mean = ((2 * sums + count) // (2 * count)).view(-1, 1, 1)  # rounded, half up: Pillow's int(mean + 0.5)
    levels = torch.arange(LEVELS, device=images.device).view(1, 1, LEVELS)
    return blended(mean, levels, factor.view(-1, 1, 1))


def colored(images: Tensor, factor: Tensor) -> Tensor:
    """ImageEnhance.Color, which blends with the picture in grey, for factors (B,)."""
    return images if images.shape[1] == 1 else blended(grey(images), images, factor.view(-1, 1, 1, 1))


def sharpened(images: Tensor, factor: Tensor) -> Tensor:
    """ImageEnhance.Sharpness, which blends with ImageFilter.SMOOTH, for factors (B,). A border of a pixel is as it
    was."""
    smooth = images.clone()
    if min(images.shape[2:]) > 2:
        whole = images.short()
        rows = whole[:, :, :-2] + whole[:, :, 1:-1] + whole[:, :, 2:]
        around = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * whole[:, :, 1:-1, 1:-1]
        smooth[:, :, 1:-1, 1:-1] = (around.float() / 13 + 0.5).to(torch.uint8)
    return blended(smooth, images, factor.view(-1, 1, 1, 1))


def cubic(at: Callable[[int], Tensor], share: Tensor) -> Tensor:
    """Pillow's cubic convolution (a = -1) between ``at(0)`` and ``at(1)``."""
    before, here, after, second = map(at, range(-1, 3))
    return here + share * (
        (after - before) + share * (2 * (before - here) + after - second + share * (here - before + second - after))
    )


def affine(images: Tensor, matrices: Tensor, fill: Tensor) -> Tensor:
    """Image.transform(AFFINE, BICUBIC): pixel (x, y) is taken from a x + b y + c, d x + e y + f of ``matrices`` (B, 6)
    float64; what comes from outside is ``fill`` (C,) uint8."""
    fill = sent(fill, images.device)
    if _fusing.get() and images.is_cuda:
        return _taken(images, sent(matrices, images.device), fill, True, True)
    # Where all rows or all columns lie on pixels, these alone are the same for a quarter of the work.
    a, b, c, d, e, f = matrices.unbind(1)
    across, down = (a != 1) | (b != 0) | (c != c.round()), (d != 0) | (e != 1) | (f != f.round())
    made = torch.empty_like(images)
    for between_columns, between_rows in ((True, True), (True, False), (False, True), (False, False)):
        chosen = ((across == between_columns) & (down == between_rows)).nonzero()[:, 0]
        if len(chosen) == len(images):
            return _taken(images, sent(matrices, images.device), fill, between_columns, between_rows)
        if len(chosen):
            rows, some = sent(chosen, images.device), sent(matrices[chosen], images.device)
            made[rows] = _taken(images[rows], some, fill, between_columns, between_rows)
    return made


@_fusible
def _taken(images: Tensor, matrices: Tensor, fill: Tensor, between_columns: bool, between_rows: bool) -> Tensor:
    count, channels, height, width = images.shape
    x = torch.arange(width, dtype=torch.float64, device=images.device).add(0.5).view(1, 1, width)
    y = torch.arange(height, dtype=torch.float64, device=images.device).add(0.5).view(1, height, 1)
    a, b, c, d, e, f = (each.view(-1, 1, 1) for each in matrices.unbind(1))
    from_x, from_y = a * x + b * y + c, d * x + e * y + f
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    from_x, from_y = from_x - 0.5, from_y - 0.5
    left, top = from_x.floor(), from_y.floor()
    share_x, share_y = ((from_x - left).view(count, 1, -1), (from_y - top).view(count, 1, -1))
    pixels = images.flatten(2)
    rows = {step: (top + step).clamp(0, height - 1).mul(width).long().view(count, 1, -1) for step in range(-1, 3)}
    columns = {step: (left + step).clamp(0, width - 1).long().view(count, 1, -1) for step in range(-1, 3)}

    def at(row: int, column: int) -> Tensor:
        return pixels.gather(2, (rows[row] + columns[column]).expand(-1, channels, -1)).double()

    def at_row(row: int) -> Tensor:
        return cubic(lambda column: at(row, column), share_x) if between_columns else at(row, 0)

    made = cubic(at_row, share_y) if between_rows else at_row(0)
    made = made.clamp(0, 255).to(torch.uint8).view_as(images)
    return torch.where(inside.unsqueeze(1), made, fill.view(1, -1, 1, 1))


def _weights(start: Tensor, length: Tensor, size: int, side: int) -> Tensor:
    """How much of each of ``size`` pixels goes into each of ``side``, of the ``length`` from ``start`` on: both (B,);
    (B, side, size) float64, in units of 2**-22 as Pillow has them."""
    start, length = start.double().view(-1, 1, 1), length.double().view(-1, 1, 1)
    scale = length / length.new_full((), side)  # by a plain number a GPU multiplies with its reciprocal
    stretch = scale.clamp(min=1)
    places = torch.arange(side, dtype=torch.float64, device=start.device).view(1, side, 1)
    center = (places + 0.5) * scale
    pixel = torch.arange(size, dtype=torch.float64, device=start.device).view(1, 1, size) - start
    first = (center - 2 * stretch + 0.5).trunc().clamp(min=0)
    last = torch.minimum((center + 2 * stretch + 0.5).trunc(), length)
    distance = ((pixel - center + 0.5) / stretch).abs()
    near = ((1.5 * distance - 2.5) * distance) * distance + 1
    far = (((distance - 5) * distance + 8) * distance - 4) * -0.5
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(distance)))
    weights = torch.where((pixel >= first) & (pixel < last), weights, torch.zeros_like(weights))
    return (weights / weights.sum(2, keepdim=True) * 2**22).round()


def resampled(images: Tensor | Pictures, boxes: Tensor, side: int) -> Tensor:
    """Image.crop and resize (BICUBIC): the boxes (B, 4), each (top, left, height, width), at ``side`` x ``side``."""
    if isinstance(images, Tensor):
        return _resampled(images, sent(boxes, images.device), side)
    flat = torch.cat([picture.flatten() for picture in images.pictures])
    areas = torch.tensor([picture[0].numel() for picture in images.pictures])
    starts, widths = 3 * (areas.cumsum(0) - areas)[images.of], sizes(images)[1][:, 0]
    top, left, height, width = boxes.unbind(1)
    places = torch.stack((starts + top * widths + left, areas[images.of], widths, height, width), dim=1)
    made = flat.new_empty(len(boxes), 3, side, side)
    for rows in _alike(boxes[:, 2:]):
        down, across = boxes[rows, 2:].amax(0).tolist()
        made[sent(rows, flat.device)] = _cut(flat, sent(places[rows], flat.device), down, across, side)
    return made


def _alike(sizes: Tensor) -> Iterator[Tensor]:
    """Numbers of boxes of these heights and widths (B, 2) that are resampled together, the smallest first."""
    left = sizes.prod(1).argsort()
    while len(left):
        some = left[:ALIKE]
        while len(some) > 1 and len(some) * int(sizes[some].amax(0).prod()) > TOGETHER:
            some = some[: len(some) // 2]
        yield some
        left = left[len(some) :]


@_fusible
def _cut(flat: Tensor, places: Tensor, down: int, across: int, side: int) -> Tensor:
    """Boxes of at most ``down`` x ``across``, resampled. ``places`` (B, 5): where in the pictures ``flat`` a box
    begins, how far apart there are channels and rows, its height and its width."""
    first, channel, row, height, width = (each.view(-1, 1, 1, 1) for each in places.unbind(1))
    channels, y, x = (torch.arange(length, device=flat.device) for length in (3, down, across))
    y, x = y.view(1, 1, -1, 1), x.view(1, 1, 1, -1)
    inside = (y < height) & (x < width)
    at = torch.where(inside, first + channels.view(1, 3, 1, 1) * channel + y * row + x, 0)
    boxes = torch.stack((torch.zeros_like(places[:, 3]), torch.zeros_like(places[:, 3]), *places[:, 3:].unbind(1)), 1)
    return _weighed(torch.where(inside, flat[at], 0), boxes, side)


def _weighed(images: Tensor, boxes: Tensor, side: int) -> Tensor:
    top, left, height, width = boxes.unbind(1)
    across = _weights(left, width, images.shape[3], side).unsqueeze(1)
    down = _weights(top, height, images.shape[2], side).unsqueeze(1)
    # Products and sums of whole numbers below 2**53: exact in any order, whatever the batch.
    rows = _to_bytes(images.double() @ across.transpose(2, 3))
    return _to_bytes(down @ rows.double())


_resampled = _fusible(_weighed)


def _to_bytes(sums: Tensor) -> Tensor:
    return ((sums + 2**21) / 2**22).floor().clamp(0, 255).to(torch.uint8)


def rotation(degrees: Tensor, height: int, width: int) -> Tensor:
    """The matrices (B, 6) with which Image.rotate turns about the centre by ``degrees`` (B,)."""
    angle = degrees.double().deg2rad().neg()
    cosine, sine = angle.cos().round(decimals=15), angle.sin().round(decimals=15)
    x, y = width / 2, height / 2
    across, down = -x * cosine + -y * sine + x, -x * -sine + -y * cosine + y
    return torch.stack((cosine, sine, across, -sine, cosine, down), dim=1)
