"""Pictures: in memory or in files, how files become pixels, and how trees of files are listed.

A file is read whole and then decoded: what goes wrong in reading is the storage's fault (OSError), what goes wrong
in decoding is the file's (``Undecodable``), whichever exception the decoder chose.
"""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import os
import stat
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from deit_ablate.errors import DataError

Array = npt.NDArray[Any]
EXTENSIONS = (
    *(b".jpg", b".jpeg", b".png", b".ppm", b".bmp", b".pgm", b".tif", b".tiff", b".webp"),
    *(b".gif", b".jfif"),
)
"""Of the files that count as pictures: torchvision's, so that a tree has the same images here and there, and two more
that occur (of a moving picture the first frame is read)."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")
"""That a file may hold, whatever its extension. Not all that Pillow knows: it reads EPS by running Ghostscript."""
LISTERS = 8
"""Threads that list, copy and check: on a network file system the time goes by waiting."""


class Undecodable(DataError):
    """A file holds no picture, or half of one. Custom data sets may raise it too: see ``data.corrupt``."""

    def __init__(self, message: str) -> None:
        # DataLoader makes a loader's exception anew from the text of its traceback, which ends with our sentence.
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


class Images(Protocol):
    """A sequence of pictures (PIL, mode L or RGB) with their classes, ``targets`` (N,) int64."""

    @property
    def targets(self) -> Array: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Image.Image: ...


@dataclass(frozen=True)
class ArrayImages:
    """Pictures in memory: ``pixels`` uint8, (N, H, W) grayscale or (N, H, W, 3)."""

    pixels: Array
    targets: Array

    def of_these(self, indices: Array) -> ArrayImages:
        return ArrayImages(self.pixels[indices], self.targets[indices])

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])


class Encoded(ABC):
    """Pictures that are decoded when asked for, as RGB. Raises Undecodable naming the picture, and the storage's
    OSError."""

    targets: Array

    @abstractmethod
    def of_these(self, indices: Array) -> Encoded:
        """Those at these places, in this order."""

    @abstractmethod
    def name(self, index: int) -> bytes:
        """Its name among these, the same wherever they lie."""

    @abstractmethod
    def content(self, index: int) -> bytes:
        """All its bytes."""

    @abstractmethod
    def shown(self, index: int) -> str:
        """What errors call it."""

    def ends(self, index: int, size: int, length: int) -> bytes:
        """Its first and its last ``length`` of ``size`` bytes."""
        content = self.content(index)
        return content[:length] + content[size - length :]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Image.Image:
        return self._decoded(index)

    def check(self, index: int) -> None:
        """Raises what reading the picture would, in less time."""
        self._decoded(index, coarse=True)

    def _decoded(self, index: int, coarse: bool = False) -> Image.Image:
        content = self.content(index)
        try:
            return decode(content, coarse=coarse)
        except MemoryError:
            raise
        except Exception as error:  # of a damaged file Pillow makes SyntaxError, struct.error, OverflowError, ...
            why = _why(error, content)
            raise Undecodable(f"{self.shown(index)} cannot be read as a picture: {why}") from error


@dataclass(frozen=True, eq=False)
class FileImages(Encoded):
    """Pictures in files below the folder ``root``.

    ``names`` holds the N relative paths one after the other; ``bounds`` (N + 1,) int64 says where each begins. Two
    objects, not a million: loaders, which are forks, would come to copy the pages of a million, by counting
    references.
    """

    root: bytes
    names: bytes
    bounds: Array
    targets: Array

    @classmethod
    def of(cls, root: str | os.PathLike[str], names: Sequence[bytes], targets: Array) -> FileImages:
        """Files by their paths relative to ``root``."""
        bounds = np.cumsum([0, *map(len, names)], dtype=np.int64)
        return cls(os.fsencode(root), b"".join(names), bounds, np.asarray(targets, dtype=np.int64))

    def of_these(self, indices: Array) -> FileImages:
        if len(indices) and indices[-1] - indices[0] + 1 == len(indices):  # one after the other: a million in no time
            bounds = self.bounds[indices[0] : indices[-1] + 2]
            names = self.names[bounds[0] : bounds[-1]]
            return FileImages(self.root, names, bounds - bounds[0], self.targets[indices])
        return FileImages.of(os.fsdecode(self.root), [self.name(index) for index in indices], self.targets[indices])

    def name(self, index: int) -> bytes:
        """The path relative to ``root``. Raises IndexError."""
        place = range(len(self))[index]
        return self.names[self.bounds[place] : self.bounds[place + 1]]

    def _path(self, index: int) -> bytes:
        return os.path.join(self.root, self.name(index))

    def content(self, index: int) -> bytes:
        with open(self._path(index), "rb") as file:
            return file.read()

    def ends(self, index: int, size: int, length: int) -> bytes:
        with open(self._path(index), "rb") as file:
            first = file.read(length)
            file.seek(size - length)
            return first + file.read(length)

    def shown(self, index: int) -> str:
        return shown(self._path(index))


# -- decoding -------------------------------------------------------------------------------------------------------

ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture upright, by its EXIF orientation: that of PIL.ImageOps.exif_transpose."""


def decode(content: bytes, *, coarse: bool = False) -> Image.Image:
    """An encoded picture as RGB (see ``upright``). Raises whatever Pillow does.

    ``coarse`` reads a JPEG whole but makes a small picture of it: faster, where only damage is looked for.
    """
    image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
    if coarse:
        image.draft(None, (1, 1))
    return upright(image)


def upright(image: Image.Image) -> Image.Image:
    """A picture of any mode as RGB, turned as its EXIF block says. Raises whatever Pillow does.

    16 bits are scaled to 8 (65535 is 255), where Pillow would cut off above 255. Transparency is dropped, as
    torchvision does. 32-bit numbers are refused: what is white among them, no file says.
    """
    image.load()
    turned = orientation(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers of unknown range; save it with 8 or 16 bits a channel")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns of the direct way, which ends at the same colours
    image = image.convert("RGB")
    if turned in ORIENTATIONS:
        image = image.transpose(ORIENTATIONS[turned])
        image.info = {}  # Pillow keeps the EXIF block: whoever reads it would turn the picture again
    return image


def orientation(image: Image.Image) -> int | None:
    """By its EXIF block; None where that has none, or is damaged."""
    # Not exif_transpose, which writes the EXIF block anew, and fails at many that cameras have written.
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
        return value if isinstance(value, int) else None
    except Exception:  # a damaged description is no fault of the picture
        return None


def _why(error: Exception, content: bytes) -> str:
    if not content:
        return "it is empty"
    if isinstance(error, UnidentifiedImageError):
        return f"it is damaged, or none of {', '.join(FORMATS)}"
    return str(error) or type(error).__name__


_told: set[str] = set()


def tell_skipped(error: Undecodable) -> None:
    """Print that a file is passed over: once a process, whichever split it is met in."""
    if str(error) not in _told:
        _told.add(str(error))
        print(f"passed over: {error}", flush=True)


# -- listing --------------------------------------------------------------------------------------------------------

Listed = list[tuple[bytes, list[tuple[bytes, int]]]]
"""Folders in the order of their paths: (path relative to the top, its files' (name, size) in order)."""


def list_tree(
    top: bytes,
    wanted: Callable[[bytes], bool] = lambda name: True,
    entered: Callable[[bytes], bool] = lambda name: True,
) -> Listed:
    """All folders at and below ``top`` whose names are ``entered``, and their files of ``wanted`` names; links are
    followed.

    The order is torchvision's (folders by path, then files by name). Raises DataError naming what cannot be read,
    is no regular file, or is a link to nothing or to a folder above it.
    """
    found: Listed = []
    waiting: list[tuple[bytes, tuple[tuple[int, int], ...]]] = [(b"", ())]
    while waiting:
        relative, above = waiting.pop()
        at = path = os.path.join(top, relative) if relative else top
        files = []
        try:
            status = os.stat(path)
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                raise DataError(f"{shown(path)} is a link to a folder that holds it: the tree has no end")
            with os.scandir(path) as entries:
                for entry in entries:
                    at = entry.path
                    if entry.is_dir():
                        if entered(entry.name):
                            waiting.append((os.path.join(relative, entry.name), (*above, identity)))
                    elif wanted(entry.name):
                        status = entry.stat()
                        if not stat.S_ISREG(status.st_mode):
                            raise DataError(f"{shown(at)} is not a regular file")
                        files.append((entry.name, status.st_size))
        except OSError as error:
            _tell(at, error)
            raise
        found.append((relative, sorted(files)))
    return sorted(found)


def _tell(path: bytes, error: OSError) -> None:
    """Raises a DataError that names the path for what the user can mend; the rest is the storage's."""
    if what := _MENDABLE.get(error.errno or 0):
        raise DataError(f"{shown(path)} {what}") from error


_MENDABLE = {
    errno.EACCES: "may not be read by this user: change its permissions",
    errno.EPERM: "may not be read by this user: change its permissions",
    errno.ENOENT: "is a link to nothing, or was removed just now",
    errno.ELOOP: "is a link to itself",
}


class Ignored(Counter[str]):
    """How many entries of an image folder are no part of the data: ``hidden`` files and folders, and files whose
    extension is ``other`` than those of pictures, also by extension (``.txt``)."""

    def is_shown(self, name: bytes) -> bool:
        """Whether an entry is no system's own file: .DS_Store, ._1.jpg, .ipynb_checkpoints/, Thumbs.db and the like."""
        hidden = name.startswith(b".") or name.lower() in (b"thumbs.db", b"desktop.ini", b"__macosx")
        self["hidden"] += hidden
        return not hidden

    def is_picture(self, name: bytes) -> bool:
        if not self.is_shown(name):
            return False
        picture = name.lower().endswith(EXTENSIONS)
        if not picture:
            self.note_other(name)
        return picture

    def note_other(self, name: bytes) -> None:
        extension = os.path.splitext(name)[1].decode("ascii", "replace").lower()
        self.update(("other", extension if 1 < len(extension) <= 8 else "other kinds"))


def class_names(folder: bytes, ignored: Ignored) -> list[str]:
    """The folders in it, in order. Raises DataError where there is none, or one cannot be read."""
    names = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                shows = ignored.is_shown(entry.name)
                if shows and entry.is_dir():
                    names.append(entry.name)
                elif shows:
                    ignored.note_other(entry.name)
    except OSError as error:
        _tell(folder, error)
        raise
    if not names:
        raise DataError(f"{shown(folder)} has no folders: expected one a class, with pictures in it")
    decoded = []
    for name in sorted(names):
        try:
            decoded.append(name.decode())
        except UnicodeDecodeError:
            raise DataError(f"{shown(os.path.join(folder, name))}: the name of this class is not UTF-8") from None
    return decoded


def list_pictures(
    root: os.PathLike[str], parts: Sequence[str], classes: Sequence[str], ignored: Ignored
) -> tuple[FileImages, Array, Array]:
    """The pictures in ``root/<part>/<class>/**``, part by part and in each class by class; of each its size in bytes
    (N,) int64, and its part (N,). What is no picture is counted in ``ignored``. Raises DataError, also for a class
    without any."""

    def listed(place: tuple[str, str]) -> tuple[list[bytes], list[int], Ignored]:
        inside = os.path.join(*map(str.encode, place))
        folder = os.path.join(os.fsencode(root), inside)
        names, sizes, ignored = [], [], Ignored()
        for relative, files in list_tree(folder, ignored.is_picture, ignored.is_shown):
            below = os.path.join(inside, relative) if relative else inside
            names += [os.path.join(below, name) for name, _ in files]
            sizes += [size for _, size in files]
        if not names:
            raise DataError(
                f"{shown(folder)} holds no pictures ({', '.join(each.decode() for each in EXTENSIONS)}): "
                "fill the folder or remove it"
            )
        return names, sizes, ignored

    places = list(itertools.product(parts, classes))
    with ThreadPoolExecutor(LISTERS) as pool:
        found = list(pool.map(listed, places))
    counts = [len(names) for names, _, _ in found]
    targets = np.repeat([*range(len(classes))] * len(parts), counts)
    images = FileImages.of(root, [name for names, _, _ in found for name in names], targets)
    for _, _, each in found:
        ignored.update(each)
    sizes = np.array([size for _, sizes, _ in found for size in sizes], dtype=np.int64)
    return images, sizes, np.repeat([part for part, _ in places], counts)


def files_sha256(files: Iterable[tuple[bytes, int]]) -> str:
    """SHA-256 of the sorted (relative path, size) pairs."""
    lines = sorted(b"%s\0%d\n" % pair for pair in files)
    digest = hashlib.sha256(b"%d\n" % len(lines))
    for line in lines:
        digest.update(line)
    return digest.hexdigest()


def shown(path: bytes) -> str:
    """A path as text that can be printed anywhere: no control characters, no bytes that are not UTF-8."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
