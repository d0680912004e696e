"""What is looked at in encoded pictures before the first step: their content, and whether they are pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from deit_ablate.errors import DataError
from deit_ablate.train.data.images import LISTERS, Array, Encoded, Images, Undecodable
from deit_ablate.train.streams import generator, stream

if TYPE_CHECKING:
    from deit_ablate.train.data.dataset import Dataset

END = 64 * 1024
"""Bytes at the beginning, and at the end, of a file of a large folder that are hashed."""
WHOLE = 2 * 1024**3
"""Bytes of pictures up to which all are hashed; of a larger folder, at most as many are read."""
CHECKED = 50_000
"""Pictures that are decoded before the first step."""
NAMED = 10
"""Damaged files that a message names."""


def content_sha256(pictures: Encoded, sizes: Array, labels: Sequence[bytes] | None = None) -> tuple[str, str]:
    """The SHA-256 of encoded pictures, and what it is of: "content", or "sample" for more than ``WHOLE`` bytes.

    It is over the sorted (name, size, SHA-256 of the content), with the labels where the names do not say them. For
    "sample", the content is the first and the last 64 KiB, and only of the 16,384 pictures whose names have the
    smallest hashes: every run computes it anew, and must not read a data set of a hundred gigabytes for it.
    ``sizes``: (N,), in bytes. Raises the storage's OSError.
    """
    names = [pictures.name(index) for index in range(len(pictures))]
    order = sorted(range(len(names)), key=lambda index: (names[index], sizes[index]))
    sampled = int(sizes.sum()) > WHOLE
    chosen = set(order)
    if sampled:
        ranked = sorted(order, key=lambda index: hashlib.sha256(names[index]).digest())
        chosen = set(ranked[: WHOLE // (2 * END)])

    def line(index: int) -> bytes:
        size, hashed = int(sizes[index]), b""
        if index in chosen:
            both = sampled and size > 2 * END
            content = pictures.ends(index, size, END) if both else pictures.content(index)
            hashed = hashlib.sha256(content).hexdigest().encode()
        label = b"\0" + labels[index] if labels else b""
        return b"%s\0%d\0%s%s\n" % (names[index], size, hashed, label)

    digest = hashlib.sha256(b"%d\n" % len(names))
    with ThreadPoolExecutor(LISTERS) as pool:
        for each in pool.map(line, order):
            digest.update(each)
    return digest.hexdigest(), "sample" if sampled else "content"


def whole_hashes(dataset: Dataset) -> dict[bytes, str]:
    """Name -> SHA-256 of the whole content of every encoded picture: 64 hex digits. None of data in memory, whose
    fingerprint is of all. In names a line's end is \\n, as ``sha256sum`` has it. Raises the storage's OSError.
    """
    found: dict[bytes, str] = {}
    for images in (dataset.train, dataset.test):
        if isinstance(images, Encoded):

            def line(index: int, images: Encoded = images) -> tuple[bytes, str]:
                name = images.name(index).replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
                return name, hashlib.sha256(images.content(index)).hexdigest()

            with ThreadPoolExecutor(LISTERS) as pool:
                found.update(pool.map(line, range(len(images))))
    return found


def check_pictures(test: Images | None, train: Images, validation: Array, kept: Array) -> None:
    """Decode the encoded pictures that this run will read: those of the test split and the validation part, and
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
    pictures = [(images, index) for images, index in scored if isinstance(images, Encoded)]
    with ThreadPoolExecutor(LISTERS) as pool:
        bad = [problem for problem in pool.map(_problem, pictures) if problem]
    if bad:
        more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        raise DataError(f"{'; '.join(bad[:NAMED])}{more}")


def _problem(picture: tuple[Encoded, int]) -> str:
    images, index = picture
    try:
        images.check(index)
    except Undecodable as error:
        return str(error)
    return ""
