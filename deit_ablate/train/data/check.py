"""What is looked at in an image folder before the first step: its files' content, and whether they are pictures."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from deit_ablate.errors import DataError
from deit_ablate.files import sha256
from deit_ablate.train.data.images import LISTERS, Array, FileImages, Images, Part, Undecodable
from deit_ablate.train.streams import generator, stream

END = 64 * 1024
"""Bytes at the beginning, and at the end, of a file of a large folder that are hashed."""
WHOLE = 2 * 1024**3
"""Bytes of pictures up to which all are hashed; of a larger folder, at most as many are read."""
CHECKED = 50_000
"""Pictures that are decoded before the first step."""
NAMED = 10
"""Damaged files that a message names."""


def content_sha256(parts: Sequence[Part]) -> tuple[str, str]:
    """The SHA-256 of an image folder, and what it is of: "content", or "sample" for more than ``WHOLE`` bytes.

    It is over the sorted (relative path, size, SHA-256 of the content). For "sample", the content is the first and
    the last 64 KiB, and only of the 16,384 files whose paths have the smallest hashes: every run computes it anew, and
    must not read a data set of a hundred gigabytes for it. Raises the storage's OSError.
    """
    files = sorted(
        (part.images.name(index), size, part.images.root) for part in parts for index, size in enumerate(part.sizes)
    )
    sampled = sum(int(size) for _, size, _ in files) > WHOLE
    chosen = set(range(len(files)))
    if sampled:
        ranked = sorted(chosen, key=lambda index: hashlib.sha256(files[index][0]).digest())
        chosen = set(ranked[: WHOLE // (2 * END)])

    def line(index: int) -> bytes:
        name, size, root = files[index]
        hashed = _file_sha256(os.path.join(root, name), int(size), sampled) if index in chosen else b""
        return b"%s\0%d\0%s\n" % (name, size, hashed)

    digest = hashlib.sha256(b"%d\n" % len(files))
    with ThreadPoolExecutor(LISTERS) as pool:
        for each in pool.map(line, range(len(files))):
            digest.update(each)
    return digest.hexdigest(), "sample" if sampled else "content"


def _file_sha256(path: bytes, size: int, ends: bool) -> bytes:
    if not ends or size <= 2 * END:
        return sha256(Path(os.fsdecode(path))).encode()
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read(END))
        file.seek(size - END)
        digest.update(file.read(END))
    return digest.hexdigest().encode()


def check_pictures(test: Images | None, train: Images, validation: Array, kept: Array) -> None:
    """Decode the pictures in files that this run will read: those of the test split and the validation part, and
    those that it trains on where all are at most ``CHECKED``. Of more than that many of the first two, ``CHECKED``
    drawn by a fixed seed. Raises DataError that names those that are none.
    """
    scored = [] if test is None else [(test, index) for index in range(len(test))]
    scored += [(train, index) for index in validation.tolist()]
    if len(scored) + len(kept) <= CHECKED:
        scored += [(train, index) for index in kept.tolist()]
    elif len(scored) > CHECKED:
        drawn = generator(stream(0, "checked")).permutation(len(scored))[:CHECKED]
        scored = [scored[index] for index in np.sort(drawn)]
    bad = [problem for problem in _problems(scored) if problem]
    if bad:
        more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        raise DataError(f"{'; '.join(bad[:NAMED])}{more}")


def _problems(pictures: Sequence[tuple[Images, int]]) -> Iterator[str]:
    def look(picture: tuple[FileImages, int]) -> str:
        images, index = picture
        try:
            images.check(index)
        except Undecodable as error:
            return str(error)
        return ""

    files = [(images, index) for images, index in pictures if isinstance(images, FileImages)]
    with ThreadPoolExecutor(LISTERS) as pool:
        yield from pool.map(look, files)
