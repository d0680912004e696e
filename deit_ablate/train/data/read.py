"""Files that are decoded by the batch (``data.decoder: device``): what a loader reads of them, and what the device that
trains makes of that."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deit_ablate.errors import TrainError
from deit_ablate.train.data.images import FORMATS, ORIENTATIONS, Array, Encoded, orientation
from deit_ablate.train.pixels import Pictures

Found = Callable[[int], tuple[Image.Image, int]]
"""The picture in an image's place by Pillow, and which image that is. Raises Undecodable."""


@dataclass(frozen=True)
class Read:
    """The files of a batch of views. One tensor holds them all, for each that a loader sends takes a file handle."""

    content: Tensor
    """uint8, one after the other: the bytes of a JPEG file, or the pixels of a picture that Pillow has decoded."""
    shapes: list[tuple[int, ...]]
    """(bytes,) or (3, H, W) of each."""
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
                parts.append(_pixels(picture))
                stands_in.append(image)
        flat = torch.from_numpy(np.concatenate([part.reshape(-1) for part in parts]))
        return cls(flat, [part.shape for part in parts], stands_in, torch.tensor([place[index] for index in indices]))

    def decoded(self, device: torch.device, found: Found) -> tuple[Pictures, list[int]]:
        """The pictures on the device, and the image that each view is of: another one where a file turns out to be
        damaged, and the recipe skips it. Raises Undecodable."""
        sizes = [int(np.prod(shape)) for shape in self.shapes]
        parts, images = list(self.content.split(sizes)), list(self.images)
        files = _jpegs([part for part, shape in zip(parts, self.shapes, strict=True) if len(shape) == 1], device)
        made = []
        for number, (part, shape) in enumerate(zip(parts, self.shapes, strict=True)):
            pixels = next(files) if len(shape) == 1 else part.view(shape)
            if pixels is None:  # damaged, or of a kind that this decoder does not know: Pillow says which
                picture, images[number] = found(images[number])
                pixels = torch.from_numpy(_pixels(picture))
            made.append(pixels.to(device))
        return Pictures(made, self.of), [images[number] for number in self.of.tolist()]


def _pixels(picture: Image.Image) -> Array:
    """(3, H, W)."""
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def check_decoder(device: torch.device) -> None:
    """Raises TrainError where torchvision cannot decode on this device, and not this file or that alone."""
    content = io.BytesIO()
    Image.new("RGB", (16, 16)).save(content, "JPEG")
    try:
        _decode_jpeg([torch.frombuffer(bytearray(content.getvalue()), dtype=torch.uint8)], device)
    except RuntimeError as error:
        raise TrainError(f"torchvision cannot decode on {device}: set data.decoder to pillow ({error})") from error


def _jpegs(files: list[Tensor], device: torch.device) -> Iterator[Tensor | None]:
    """Each (3, H, W) on the device, of a file's bytes; None for one that is refused, whatever the others are."""
    try:
        yield from _decode_jpeg(files, device)
    except RuntimeError as error:
        if "out of memory" in str(error):  # which torchvision does not tell from damage
            raise torch.OutOfMemoryError(str(error)) from error
        if len(files) == 1:
            yield None
            return
        for file in files:
            yield from _jpegs([file], device)


def _decode_jpeg(files: list[Tensor], device: torch.device) -> list[Tensor]:
    """By libjpeg-turbo on a CPU, by nvJPEG on a GPU. Raises RuntimeError where one of them, or all, cannot be."""
    # Not at the top: torchvision has announced that these move to another library (torchcodec), and only this needs it.
    from torchvision.io import ImageReadMode, decode_jpeg

    if not files:
        return []
    if device.type == "cuda":  # nvJPEG writes on a stream of its own, to memory that this one may not have done with
        torch.cuda.current_stream(device).synchronize()
    try:
        return list(decode_jpeg(files, ImageReadMode.RGB, device=device))
    except RuntimeError:
        if device.type == "cuda":  # what it had begun
            torch.cuda.synchronize(device)
        raise


def mean_sizes(images: Encoded, count: int = 32) -> tuple[float, float]:
    """Pixels of a picture and bytes that a loader sends of it, the means of some; 0 where none of them can be read."""
    found = []
    for index in np.linspace(0, len(images) - 1, min(count, len(images))).astype(int).tolist():
        content = images.content(index)
        try:
            width, height = Image.open(io.BytesIO(content), formats=FORMATS).size
        except Exception:  # whatever Pillow makes of a damaged file: others tell of it
            continue
        found.append((width * height, len(content) if decodes_alike(content) else 3 * width * height))
    pixels, size = np.mean(found, axis=0).tolist() if found else (0.0, 0.0)
    return pixels, size


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
