"""Data sets of one's own that are files: a folder a class, and a table of files."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from deit_ablate.errors import DataError, few
from deit_ablate.recipe import Data
from deit_ablate.train.data.check import content_sha256
from deit_ablate.train.data.dataset import PARTS, SPLITS, Dataset, made_of, roles
from deit_ablate.train.data.images import FileImages, Ignored, class_names, files_sha256, list_pictures


def imagefolder(data: Data, folder: Path | None, parts: tuple[str, ...] = PARTS) -> Dataset:
    """Any tree of ``<part>/<class>/*`` pictures, in parts train, val and test (see ``dataset.roles``), read as RGB.

    Hidden files and folders are no part of it. Raises DataError for what the user can mend.
    """
    if folder is None:
        raise DataError(f"{data.name} needs a data folder with train/ and val/ in it (--data-dir, DEIT_ABLATE_DATA)")
    found = [part for part in parts if os.path.isdir(folder / part)]
    if "train" not in found:
        raise DataError(f"{folder} has no folder train/ (expected train/<class>/<pictures>)")
    ignored = Ignored(hidden=0, other=0)
    classes = class_names(os.fsencode(folder / "train"), ignored)
    for part in found[1:]:
        _same_classes(folder, part, classes, class_names(os.fsencode(folder / part), ignored))
    if len(classes) == 1:
        raise DataError(f"{folder} holds one class only ({few(classes)}): expected two or more folders in train/")
    pictures, sizes, part_of = list_pictures(folder, found, classes, ignored)
    use = roles(pictures.targets, part_of, data, {part: f"{part}/" for part in found})
    fingerprint = content_sha256(pictures, sizes)
    listing = files_sha256((pictures.name(index), size) for index, size in enumerate(sizes.tolist()))
    return replace(made_of(data, classes, pictures, use, fingerprint), listing=listing, ignored=dict(ignored))


def _same_classes(folder: Path, part: str, classes: list[str], here: list[str]) -> None:
    if classes == here:
        return
    alone = {"train": sorted({*classes} - {*here}), part: sorted({*here} - {*classes})}
    where = "; ".join(f"only in {name}/: {few(names)}" for name, names in alone.items() if names)
    raise DataError(f"{folder}: train/ and {part}/ hold different classes ({where})")


def imagenet(data: Data, folder: Path | None) -> Dataset:
    """ImageNet-1k (ILSVRC 2012) as an image folder: its val/ is the test split, as in all that is published, and its
    test/, which has no labels, is not read. Raises DataError where it is not whole."""
    for part in ("train", "val"):
        if folder is not None and not os.path.isdir(folder / part):
            raise DataError(f"{folder} has no folder {part}/ (expected {part}/<class>/<pictures>)")
    dataset = imagefolder(data, folder, ("train", "val"))
    found = (len(dataset.classes), len(dataset.train), len(dataset.test))
    if found != (1000, 1_281_167, 50_000):
        raise DataError(
            f"{folder} is not the whole ImageNet-1k: it has {found[0]} classes, {found[1]} training and {found[2]} "
            "validation images, not 1000, 1281167 and 50000 (for a part of it use `name: imagefolder` with an id)"
        )
    return dataset


# -- a table of files -----------------------------------------------------------------------------------------------

COLUMNS = {"path": ("path", "file", "filename", "image"), "label": ("label", "class"), "split": ("split",)}
"""What a table may call a column."""


def table(data: Data, folder: Path | None) -> Dataset:
    """Pictures that a CSV or TSV file names: columns path, label and, where there is one, split (train, val or test).

    Paths are relative to the data folder. Raises DataError, with the line, for what the user can mend.
    """
    if data.file is None:
        raise DataError(f"{data.name} needs a table of pictures (data.file)")
    if folder is None:
        raise DataError(f"{data.name} needs the folder to which the paths in its table are relative (--data-dir)")
    rows = _rows(Path(data.file))
    classes = sorted({label for _, _, label, _ in rows}, key=_in_order)
    if len(classes) < 2:
        raise DataError(f"the table data.file has one class only ({few(classes)}): expected two or more labels")
    number = {label: place for place, label in enumerate(classes)}
    names, targets = [os.fsencode(path) for _, path, _, _ in rows], np.array([number[row[2]] for row in rows])
    sizes = [_size(folder / path, line) for line, path, _, _ in rows]
    part_of = np.array([part for _, _, _, part in rows])
    found = [part for part in PARTS if part in part_of]
    if "train" not in found:
        raise DataError(f"the table data.file has no rows of the split train, but of {few(found)}")
    use = roles(targets, part_of, data, {part: f"split {part}" if len(found) > 1 else "the table" for part in found})
    pictures = FileImages.of(folder, names, targets)
    labels = [f"{label}\0{part}".encode() for _, _, label, part in rows]
    return made_of(data, classes, pictures, use, content_sha256(pictures, np.array(sizes), labels))


Row = tuple[int, str, str, str]
"""Line, path, label, part."""


def _rows(path: Path) -> list[Row]:
    found: list[Row] = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            head = file.readline()
            lines = csv.reader(file, "excel-tab" if "\t" in head else "excel", strict=True)
            columns = _columns(next(csv.reader([head], lines.dialect)))
            for line in lines:
                if line:
                    found.append(_row(line, columns, lines.line_num + 1))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"the table data.file cannot be read: {error}") from error
    if not found:
        raise DataError("the table data.file has no rows")
    seen: dict[str, int] = {}
    for number, name, _, _ in found:
        if seen.setdefault(name, number) != number:
            raise DataError(f"line {number} of the table data.file names {name!r} again, after line {seen[name]}")
    return found


def _columns(head: list[str]) -> dict[str, int]:
    """Of path, label and split, where they are."""
    given = [name.strip().lower() for name in head]
    found = {
        what: given.index(name) for what, names in COLUMNS.items() if (name := next(filter(given.count, names), None))
    }
    for what in ("path", "label"):
        if what not in found:
            raise DataError(f"the table data.file has no column {what!r}, but {few(head)}: expected path,label[,split]")
    return found


def _row(line: list[str], columns: dict[str, int], number: int) -> Row:
    if len(line) <= max(columns.values()):
        raise DataError(f"line {number} of the table data.file has {len(line)} values: expected path,label[,split]")
    path, label = (line[columns[what]].strip() for what in ("path", "label"))
    part = line[columns["split"]].strip() if "split" in columns else "train"
    if part.lower() not in SPLITS:
        raise DataError(f"line {number} of the table data.file has the split {part!r}: expected train, val or test")
    if not path or not label:
        raise DataError(f"line {number} of the table data.file has no {'label' if path else 'path'}")
    if "\0" in path:
        raise DataError(f"line {number} of the table data.file has a path that is none")
    return number, path, label, SPLITS[part.lower()]


def _in_order(label: str) -> tuple[bool, int, str]:
    """Numbers by their value, before names."""
    return not label.isdecimal(), int(label) if label.isdecimal() else 0, label


def _size(path: Path, line: int) -> int:
    try:
        return os.stat(path).st_size
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"line {line} of the table data.file names a file that is not there: {path}") from None
