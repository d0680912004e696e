"""WebDataset's shards: tar files with a picture and a label (``.cls``) a sample, read in any order.

A shard is gone through once for where each picture lies; the index is kept in the user's cache. A picture is then read
from its place in the file, so that the order of training, its draws and an exact resume are those of an image folder.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deit_ablate import files
from deit_ablate.errors import DataError, counted, few
from deit_ablate.names import cache_folder
from deit_ablate.recipe import Data
from deit_ablate.train.data.check import content_sha256
from deit_ablate.train.data.dataset import PARTS, SPLITS, Dataset, made_of, roles
from deit_ablate.train.data.images import LISTERS, Array, Encoded, FileImages, Ignored, list_tree, shown

MOST_LABEL_BYTES = 1000
CLASSES = "classes.txt"
"""Beside the shards: the name of class 0, 1, ..., a line each."""


@dataclass(frozen=True, eq=False)
class TarImages(Encoded):
    """Pictures in tar files. ``files`` names them, as if a shard were a folder; ``shard``, ``offset`` and ``size`` (N,)
    say where they lie: in which of ``shards``, from which byte on, how many bytes."""

    shards: tuple[bytes, ...]
    files: FileImages
    shard: Array
    offset: Array
    size: Array

    @property
    def targets(self) -> Array:  # type: ignore[override]
        return self.files.targets

    def of_these(self, indices: Array) -> TarImages:
        where = (each[indices] for each in (self.shard, self.offset, self.size))
        return TarImages(self.shards, self.files.of_these(indices), *where)

    def name(self, index: int) -> bytes:
        return self.files.name(index)

    def shown(self, index: int) -> str:
        return self.files.shown(index)

    def content(self, index: int) -> bytes:
        return self._read(index, int(self.offset[index]), int(self.size[index]))

    def ends(self, index: int, size: int, length: int) -> bytes:
        start = int(self.offset[index])
        return self._read(index, start, length) + self._read(index, start + size - length, length)

    def _read(self, index: int, start: int, length: int) -> bytes:
        with open(self.shards[self.shard[index]], "rb", buffering=0) as file:
            file.seek(start)
            return file.read(length)


def webdataset(data: Data, folder: Path | None) -> Dataset:
    """All tar files below a folder; which part each belongs to, its folder's or its own name says: ``train/0.tar``,
    ``imagenet1k-validation-00.tar``. Raises DataError for what the user can mend."""
    if folder is None:
        raise DataError(f"{data.name} needs a data folder with tar files in it (--data-dir, DEIT_ABLATE_DATA)")
    ignored = Ignored(hidden=0, other=0)
    listed = list_tree(os.fsencode(folder), lambda name: _is_shard(name, ignored), ignored.is_shown)
    shards = [(os.path.join(relative, name), size) for relative, names in listed for name, size in names]
    if not shards:
        raise DataError(f"{folder} has no tar files: expected such as train-000.tar and test-000.tar")
    index = _indexed(folder, shards)
    if not len(index.offset):
        raise DataError(f"the tar files in {folder} have no samples: expected KEY.jpg (or .png, ...) beside KEY.cls")
    classes, targets = _classes(folder, index.labels)
    part_of = [*_parts([name for name, _ in shards])]
    parts = np.array(part_of)[index.shard]
    count = {part: part_of.count(part) for part in PARTS if part in parts}
    if "train" not in count:
        raise DataError(f"{folder} has no tar files of the part train, but of {few([*count])}")
    words = {part: f"{counted(many, 'tar file')} of {part}" for part, many in count.items()}
    use = roles(targets, parts, data, words)
    named = FileImages.of(folder, index.names, targets)
    pictures = TarImages(
        tuple(os.path.join(os.fsencode(folder), name) for name, _ in shards),
        named,
        index.shard,
        index.offset,
        index.size,
    )
    fingerprint = content_sha256(pictures, index.size, index.labels)
    return replace(made_of(data, classes, pictures, use, fingerprint), ignored=dict(ignored))


def _is_shard(name: bytes, ignored: Ignored) -> bool:
    if not ignored.is_shown(name):
        return False
    if name.lower().endswith((b".tar.gz", b".tgz", b".tar.bz2", b".tar.xz", b".tar.zst")):
        raise DataError(f"{shown(name)} is compressed, so that no place in it can be read alone: unpack it to a .tar")
    return name.lower().endswith(b".tar")


def _parts(names: Sequence[bytes]) -> Iterator[str]:
    """The part of each shard."""
    found = [_part(os.fsdecode(name)) for name in names]
    if not any(found):
        found = ["train"] * len(names)
    for name, part in zip(names, found, strict=True):
        if part is None:
            raise DataError(f"{shown(name)}: its name says no part: expected train, val or test in it")
        yield part


def _part(path: str) -> str | None:
    """Of the innermost of its folders that names one, else of the words in its own name."""
    *folders, name = path.split(os.sep)
    words = [*(folder.lower() for folder in reversed(folders)), *re.split("[^a-z]+", name.lower())]
    return next((SPLITS[word] for word in words if word in SPLITS), None)


# -- the index ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Index:
    """Of each sample: ``shard/key.jpg``, its label as it stands in the shard, and where its picture lies."""

    names: list[bytes]
    labels: list[bytes]
    shard: Array
    offset: Array
    size: Array

    def to_bytes(self) -> bytes:
        buffer = io.BytesIO()
        texts = (np.frombuffer(b"\0".join(texts), np.uint8) for texts in (self.names, self.labels))
        np.savez(buffer, *texts, self.shard, self.offset, self.size)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Index:
        """Raises an Exception of some kind where this is none."""
        with np.load(io.BytesIO(content), allow_pickle=False) as kept:
            names, labels, *numbers = (kept[f"arr_{place}"] for place in range(5))
        made = cls(names.tobytes().split(b"\0"), labels.tobytes().split(b"\0"), *numbers)
        if {len(each) for each in (made.names, made.labels, *numbers)} != {len(made.names)}:
            raise ValueError("not of one length")
        return made


def _indexed(folder: Path, shards: Sequence[tuple[bytes, int]]) -> Index:
    """The shards' index: kept from before, while their names, sizes and times are the same, or made now."""
    root = os.path.realpath(os.fsencode(folder))
    about = [(name, size, os.stat(os.path.join(root, name)).st_mtime_ns) for name, size in shards]
    digest = hashlib.sha256(repr((1, root, about)).encode()).hexdigest()[:32]
    path = cache_folder() / "shards" / f"{digest}.npz"
    try:
        return Index.from_bytes(path.read_bytes())
    except Exception:  # not there, damaged, or not ours to read: it is made anew
        pass
    with ThreadPoolExecutor(LISTERS) as pool:
        found = list(pool.map(lambda shard: _samples(folder, shard), [name for name, _ in shards]))
    samples = [sample for each in found for sample in each]
    numbers = (np.array([sample[place] for sample in samples], dtype=np.int64) for place in (2, 3))
    shard = np.repeat(np.arange(len(found)), [len(each) for each in found])
    made = Index([sample[0] for sample in samples], [sample[1] for sample in samples], shard, *numbers)
    if samples:
        try:
            files.make_folder(path.parent)
            files.replace(path, made.to_bytes())
        except OSError:
            pass  # a home that cannot be written: the next process goes through the shards again
    return made


Sample = tuple[bytes, bytes, int, int]
"""Name, label, offset, size."""


def _samples(folder: Path, shard: bytes) -> list[Sample]:
    """A shard's samples in its order. Raises DataError, naming what is wrong with it."""
    path, found = os.path.join(os.fsencode(folder), shard), dict[bytes, dict[bool, tuple[bytes, bytes, int, int]]]()
    ignored = Ignored()
    try:
        with tarfile.open(os.fsdecode(path), "r:", encoding="utf-8", errors="surrogateescape") as tar:
            for member in tar:
                name = os.fsencode(member.name.removeprefix("./"))
                base = os.path.basename(name)
                is_label = base.endswith(b".cls")
                if not member.isreg() or not ((is_label and ignored.is_shown(base)) or ignored.is_picture(base)):
                    continue
                if member.issparse() or b"\0" in name:
                    raise DataError(f"{shown(path)}: {shown(name)} is no plain file")
                key = os.path.join(os.path.dirname(name), base.split(b".")[0])
                content = b""
                if is_label and (file := tar.extractfile(member)):
                    content = file.read(MOST_LABEL_BYTES + 1).strip()
                sample = found.setdefault(key, {})
                if is_label in sample:
                    raise DataError(f"{shown(path)}: {shown(key)} has two {'labels' if is_label else 'pictures'}")
                sample[is_label] = (os.path.join(shard, name), content, member.offset_data, member.size)
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{shown(path)} is no whole tar file: {error}") from error
    samples = []
    for key, sample in found.items():
        if len(sample) < 2:
            missing = "picture" if True in sample else "label (.cls)"
            raise DataError(f"{shown(path)}: {shown(key)} has no {missing}")
        name, _, offset, size = sample[False]
        label = sample[True][1]
        if not label or len(label) > MOST_LABEL_BYTES or b"\0" in label:
            raise DataError(f"{shown(path)}: the label of {shown(key)} is empty, or none")
        samples.append((name, label, offset, size))
    return samples


def _classes(folder: Path, labels: Sequence[bytes]) -> tuple[list[str], Array]:
    """Class names and (N,) int64. Labels are numbers from 0 on, or names."""
    kinds = sorted(set(labels))
    try:
        texts = [each.decode() for each in kinds]
    except UnicodeDecodeError:
        raise DataError(f"{folder}: a label in the tar files is not UTF-8") from None
    names = folder / CLASSES
    if all(text.isascii() and text.isdigit() for text in texts):
        number = {kind: int(kind) for kind in kinds}
        most = max(number.values()) + 1
        if names.is_file():
            classes = [line.strip() for line in names.read_text("utf-8").splitlines() if line.strip()]
            if len(classes) < most:
                raise DataError(f"{names} names {len(classes)} classes, and the tar files have a label {most - 1}")
        else:
            if most > 2 * len(number) + 100:
                raise DataError(f"{folder}: {len(number)} different labels reach up to {most - 1}: expected 0, 1, ...")
            classes = [str(label) for label in range(most)]
    else:
        classes, number = texts, {kind: place for place, kind in enumerate(kinds)}
    if len(classes) < 2:
        raise DataError(f"the tar files in {folder} hold one class only ({few(classes)}): expected two or more labels")
    return classes, np.array([number[label] for label in labels], dtype=np.int64)
