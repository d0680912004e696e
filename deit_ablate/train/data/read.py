"""Files that are decoded by the batch (``data.decoder: device``): what a loader reads of them, and what the device that
trains makes of that."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deit_ablate.train.data.images import FORMATS, ORIENTATIONS, Encoded, orientation
from deit_ablate.train.pixels import Pictures

Found = Callable[[int], tuple[Image.Image, int]]
"""The picture in an image's place by Pillow, and which image that is. Raises Undecodable."""


@dataclass(frozen=True)
class Read:
    """The files of a batch of views. One tensor holds them all, for each that a loader sends takes a file handle."""

    content: Tensor
    """uint8, one after the other: the bytes of a JPEG file, or the pixels of a picture that Pillow has decoded."""
    shapes: list[tuple[int, ...]]
    """(bytes,) or (H, W, 3) of each."""
    images: list[int]
    """Which image each is."""
    of: Tensor
    """(B,) int64: which of them each view is of."""

    @classmethod
    def of_views(cls, images: Encoded, indices: Sequence[int], found: Found) -> Read:
        """Of these images, each read once. What a device would not decode as Pillow does, Pillow decodes here."""
        unique = list(dict.fromkeys(indices))
        place = {index: number for number, index in enumerate(unique)}
        parts, stands_in = [], []
        for index in unique:
            content = images.content(index)
            if decodes_alike(content):
                parts.append(np.frombuffer(content, np.uint8))
                stands_in.append(index)
            else:
                picture, image = found(index)
                parts.append(np.asarray(picture))
                stands_in.append(image)
        flat = torch.from_numpy(np.concatenate([part.reshape(-1) for part in parts]))
        return cls(flat, [part.shape for part in parts], stands_in, torch.tensor([place[index] for index in indices]))

    def decoded(self, device: torch.device, found: Found) -> tuple[Pictures, list[int]]:
        """The pictures on the device, and the image that each view is of: another one where a file turns out to be
        damaged, and the recipe skips it. Raises Undecodable."""
        sizes = [int(np.prod(shape)) for shape in self.shapes]
        parts, images = list(self.content.split(sizes)), list(self.images)
        files = [number for number, shape in enumerate(self.shapes) if len(shape) == 1]
        made: dict[int, Tensor] = {}
        try:
            made.update(zip(files, _jpegs([parts[number] for number in files], device), strict=True))
        except RuntimeError:  # one of them is damaged: which, and what then, Pillow says
            for number in files:
                picture, images[number] = found(images[number])
                made[number] = _as_tensor(torch.from_numpy(np.array(picture)), device)
        for number, shape in enumerate(self.shapes):
            if number not in made:
                made[number] = _as_tensor(parts[number].view(shape), device)
        pictures = Pictures([made[number] for number in range(len(parts))], self.of)
        return pictures, [images[number] for number in self.of.tolist()]


def _jpegs(files: list[Tensor], device: torch.device) -> list[Tensor]:
    """Each (3, H, W) on the device, of a file's bytes: by libjpeg-turbo on a CPU, by nvJPEG on a GPU. Raises
    RuntimeError where one is damaged."""
    # Not at the top: torchvision has announced that these move to another library (torchcodec), and only this needs it.
    from torchvision.io import ImageReadMode, decode_jpeg

    return list(decode_jpeg(files, ImageReadMode.RGB, device=device)) if files else []


def _as_tensor(pixels: Tensor, device: torch.device) -> Tensor:
    """(3, H, W) on the device, of (H, W, 3)."""
    return pixels.to(device).permute(2, 0, 1)


def mean_pixels(images: Encoded, count: int = 32) -> float:
    """Pixels of a picture, the mean of some of them; 0 where none of these can be read."""
    found = []
    for index in np.linspace(0, len(images) - 1, min(count, len(images))).astype(int).tolist():
        try:
            width, height = Image.open(io.BytesIO(images.content(index)), formats=FORMATS).size
        except Exception:  # whatever Pillow makes of a damaged file: others tell of it
            continue
        found.append(width * height)
    return float(np.mean(found)) if found else 0.0


def decodes_alike(content: bytes) -> bool:
    """Whether a file is a JPEG in grey or in colour (YCbCr) that is whole and upright: devices' decoders know neither
    inks nor orientation, and a GPU's does not say that a file was cut off."""
    if not content.startswith(b"\xff\xd8") or not content.endswith(b"\xff\xd9"):
        return False
    try:
        image = Image.open(io.BytesIO(content), formats=("JPEG",))
    except Exception:  # of a damaged file Pillow makes SyntaxError, struct.error, OverflowError, ...
        return False
    ycbcr = image.mode == "L" or (image.mode == "RGB" and image.info.get("adobe_transform", 1) == 1)
    return ycbcr and orientation(image) not in ORIENTATIONS
