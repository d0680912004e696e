"""Glyphs: letters of many fonts, each picture drawn anew with its own place, turn, slant, size, brightness and clutter.

Drawn, not collected: as many test images as a small difference needs, and nuisances that augmentation is for. All
arithmetic on pixels is of integers and all draws are of numpy's frozen generator, so that the bytes are the same
everywhere.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np
from numpy.random import RandomState

from deit_ablate.train.data.dataset import SPLIT_SEED
from deit_ablate.train.data.images import Array
from deit_ablate.train.streams import generator, stream

CLASSES = tuple("ABCDEFGHIJ")
COUNT = 10_000
"""Images of each part."""
SIDE = 28
"""Of an image, in pixels."""
MASTER = 32
"""Side of the pictures in glyphs.npz, in which a capital is 18 pixels high."""
EDGED = MASTER + 2
"""With an empty pixel on each side, where what lies outside of a picture is read."""
CLUTTER = 2
"""Small letters of any class that lie behind the one that counts."""
ONE = 1 << 12
"""A pixel, and the factor 1 of a matrix, in fixed point."""


@functools.lru_cache(maxsize=2)
def draw_part(part: str) -> tuple[Array, Array]:
    """The images of "train" or "test": pixels (COUNT, SIDE, SIDE) uint8 and classes (COUNT,) int64, equally many."""
    with np.load(Path(__file__).with_name("glyphs.npz")) as file:
        masters = file["pixels"]
    fonts = masters.shape[1]
    masters = np.pad(masters.astype(np.int32), ((0, 0), (0, 0), (1, 1), (1, 1))).reshape(-1, EDGED, EDGED)
    draw = generator(stream(SPLIT_SEED, f"glyphs/{part}"))
    targets = draw.permutation(np.arange(COUNT) % len(CLASSES))
    blocks = np.split(targets, COUNT // 1000)  # a thousand at a time, to stay small
    return np.concatenate([_draw(masters, block * fonts, fonts, draw) for block in blocks]), targets.astype(np.int64)


def _draw(masters: Array, first: Array, fonts: int, draw: RandomState) -> Array:
    """Light letters on a dark ground. ``first``: the place of each letter's first font among ``masters``."""
    count = len(first)
    ground = draw.randint(0, 120, size=count)[:, None, None]
    slope = draw.randint(-15, 16, size=(2, count))[:, :, None, None]
    place = 2 * np.arange(SIDE) - SIDE + 1
    canvas = ground + (slope[0] * place[None, None, :] + slope[1] * place[None, :, None]) // SIDE
    for _ in range(CLUTTER):
        which = draw.randint(0, len(masters), size=count)
        shape = _matrices(draw, count, turn=math.pi, slant=0.3, size=(0.3, 0.5))
        canvas = _over(
            canvas, draw.randint(0, 256, size=count), cover(masters, which, shape, _centres(draw, count, 14))
        )
    which = first + draw.randint(0, fonts, size=count)
    shape = _matrices(draw, count, turn=math.radians(15), slant=0.15, size=(0.75, 1.0))
    covered = cover(masters, which, shape, _centres(draw, count, 2))
    canvas = _over(canvas, ground[:, 0, 0] + draw.randint(90, 128, size=count), covered)
    noise = draw.randint(-8, 9, size=(2, *canvas.shape)).sum(0)
    return np.clip(canvas + noise, 0, 255).astype(np.uint8)


def _over(canvas: Array, ink: Array, cover: Array) -> Array:
    return canvas + (ink[:, None, None] - canvas) * cover // 255


def _centres(draw: RandomState, count: int, reach: float) -> Array:
    """(count, 2), in 1/ONE pixels: up to ``reach`` pixels off the middle."""
    return np.round((SIDE / 2 + (2 * draw.random_sample((count, 2)) - 1) * reach) * ONE).astype(np.int32)


def _matrices(draw: RandomState, count: int, *, turn: float, slant: float, size: tuple[float, float]) -> Array:
    """(count, 2, 2), in 1/ONE: from an offset on the canvas to one on a master; up to ``turn`` radians each way."""
    angle, shear = ((2 * draw.random_sample(count) - 1) * most for most in (turn, slant))
    scale = size[0] * (size[1] / size[0]) ** draw.random_sample(count)
    across = np.stack([np.cos(angle), np.sin(angle)], -1)
    down = np.stack([-np.sin(angle), np.cos(angle)], -1)
    rows = np.stack([across + shear[:, None] * down, down], 1) / scale[:, None, None]
    # Rounded here: sine and power may differ in their last bit between machines, whole numbers do not.
    return np.round(rows * ONE).astype(np.int32)


def cover(masters: Array, which: Array, matrices: Array, centres: Array) -> Array:
    """How much of each pixel a letter covers, bilinear: (N, SIDE, SIDE) int32 in 0..255."""
    grid = np.arange(SIDE, dtype=np.int32) * ONE + ONE // 2
    x, y = (((grid - centres[:, axis, None]) >> 4) for axis in (0, 1))  # 1/256 pixels: products stay within 32 bits
    middle = (EDGED * ONE - ONE) // 2
    u, v = (
        np.clip(
            ((row[:, 0, None, None] * x[:, None, :] + row[:, 1, None, None] * y[:, :, None]) >> 8) + middle,
            0,
            (EDGED - 1) * ONE - 1,
        )
        for row in (matrices[:, 0], matrices[:, 1])
    )
    corner = which.astype(np.int32)[:, None, None] * EDGED**2 + (v >> 12) * EDGED + (u >> 12)
    right, below = (u & (ONE - 1)) >> 4, (v & (ONE - 1)) >> 4  # in 1/256
    flat = masters.reshape(-1)
    upper, lower = (flat[start] * 256 + (flat[start + 1] - flat[start]) * right for start in (corner, corner + EDGED))
    covered: Array = (upper * 256 + (lower - upper) * below) >> 16
    return covered
