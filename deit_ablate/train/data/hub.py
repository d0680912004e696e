"""Data sets in the format of Hugging Face's ``datasets``, from a folder; ``fetch`` brings one from the hub."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deit_ablate import files
from deit_ablate.errors import DataError, TrainError, few
from deit_ablate.recipe import Data
from deit_ablate.train.data.check import content_sha256
from deit_ablate.train.data.dataset import PARTS, SPLITS, Dataset, made_of, roles
from deit_ablate.train.data.images import Array, Encoded


@dataclass(frozen=True, eq=False)
class ArrowImages(Encoded):
    """Encoded pictures in memory-mapped tables. ``part`` and ``row`` (N,) say where: in which of ``tables``, which row.
    ``column`` holds ``{"bytes", "path"}``, of which one is None."""

    tables: tuple[Any, ...]
    splits: tuple[str, ...]
    column: str
    part: Array
    row: Array
    targets: Array

    def of_these(self, indices: Array) -> ArrowImages:
        where = (each[indices] for each in (self.part, self.row, self.targets))
        return ArrowImages(self.tables, self.splits, self.column, *where)

    def name(self, index: int) -> bytes:
        return f"{self.splits[self.part[index]]}/{self.row[index]}".encode()

    def shown(self, index: int) -> str:
        return f"row {self.row[index]} of the split {self.splits[self.part[index]]}"

    def content(self, index: int) -> bytes:
        cell = self.tables[self.part[index]][int(self.row[index])][self.column]
        if cell is None or (cell["bytes"] is None and cell["path"] is None):
            return b""
        return bytes(cell["bytes"]) if cell["bytes"] is not None else Path(cell["path"]).read_bytes()


def huggingface(data: Data, folder: Path | None) -> Dataset:
    """What ``save_to_disk`` has written into a folder. Raises DataError for what the user can mend."""
    if folder is None:
        raise DataError(f"{data.name} needs the folder that save_to_disk has written (--data-dir, DEIT_ABLATE_DATA)")
    _must_be_of(data.options, folder)
    found, splits = _parts(data, folder)
    first = found["train"]
    image = _column(first, data.options.get("image"), "image", "Image")
    label = _column(first, data.options.get("label"), "label", "ClassLabel")
    classes, labels = _classes({splits[part]: each for part, each in found.items()}, label)
    targets = np.concatenate(labels)
    tables = tuple(
        each.select_columns([image]).cast_column(image, _library().Image(decode=False)) for each in found.values()
    )
    counts = [len(each) for each in tables]
    pictures = ArrowImages(
        tables,
        tuple(splits[part] for part in found),
        image,
        np.repeat(np.arange(len(tables)), counts),
        np.concatenate([np.arange(count) for count in counts]),
        targets,
    )
    use = roles(targets, np.repeat([*found], counts), data, {part: f"split {splits[part]}" for part in found})
    sizes = np.concatenate([_sizes(each, image) for each in tables])
    fingerprint = content_sha256(pictures, sizes, [classes[target].encode() for target in targets])
    return made_of(data, classes, pictures, use, fingerprint)


def fetch(options: Mapping[str, Any], folder: Path) -> list[str]:
    """Bring a data set from the hub into a folder; its splits, none where the folder has it already. Raises TrainError
    where the hub does not give it, and where the folder has another."""
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        _must_be_of(options, folder)
        return []
    repo, library = options["repo"], _library()
    try:
        given = library.load_dataset(repo, options.get("config"), revision=options.get("revision"))
    except Exception as error:  # whatever the hub's client raises: of the network, of the name, of the files
        why = " ".join(str(error).split()) or type(error).__name__
        raise TrainError(
            f"{repo} could not be fetched ({why}): save_to_disk it into {folder} by other means"
        ) from error
    files.make_folder(folder)
    files.replace(folder / FETCHED, json.dumps(_source(options)).encode())  # first: what is cut short is not the user's
    given.save_to_disk(str(folder))
    return [f"{repo} ({split})" for split in given]


FETCHED = ".fetched.json"
"""In a folder that ``fetch`` has filled: from which repository, configuration and revision."""


def _source(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: options.get(name) for name in ("repo", "config", "revision")}


def _must_be_of(options: Mapping[str, Any], folder: Path) -> None:
    """Raises DataError where another data set was fetched into the folder than the options name. What the user has
    saved there is taken as it is."""
    found, wanted = files.read_json(folder / FETCHED), _source(options)
    if found and wanted["repo"] and found != wanted:
        shown = (" ".join(f"{name} {value}" for name, value in each.items() if value) for each in (found, wanted))
        raise DataError("{} holds {}, and the recipe asks for {}: fetch it into another folder".format(folder, *shown))


def _library() -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(f"the package datasets is needed ({error}): pip install 'deit-ablate[datasets]'") from error


def _parts(data: Data, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The tables by part, and what the data set calls each part."""
    library = _library()
    try:
        opened = library.load_from_disk(str(folder))
    except Exception as error:  # a folder that is none, or a damaged file of it, in the words of several libraries
        hint = (
            "`deit-ablate fetch SWEEP --data-dir DIR` brings it"
            if "repo" in data.options
            else "expected save_to_disk's"
        )
        why = " ".join(str(error).split())
        raise DataError(f"{folder} cannot be read as a data set of Hugging Face ({why}): {hint}") from error
    given = opened if isinstance(opened, dict) else {"train": opened}
    splits: dict[str, str] = {}
    for split in given:
        if (part := SPLITS.get(split.lower())) in splits:
            raise DataError(f"{folder} has the splits {splits[part]} and {split}, which are both for {part}")
        if part is not None:
            splits[part] = split
    if "train" not in splits:
        raise DataError(f"{folder} has no split train, but {few([*given])}")
    return {part: given[splits[part]] for part in PARTS if part in splits}, splits


def _column(table: Any, wanted: str | None, option: str, kind: str) -> str:
    """The column of this kind; the one that the recipe names, where it does."""
    features: Mapping[str, Any] = table.features
    if wanted is not None:
        if wanted not in features or (kind == "Image" and type(features[wanted]).__name__ != kind):
            raise DataError(f"data.options.{option}: {wanted!r} is none of the columns {few([*features])}")
        return wanted
    found = [name for name, feature in features.items() if type(feature).__name__ == kind]
    if len(found) != 1:
        these = few(found) if found else f"none among {few([*features])}"
        raise DataError(f"which column is the {option}? ({kind}: {these}): name it by data.options.{option}")
    return found[0]


def _classes(tables: Mapping[str, Any], label: str) -> tuple[list[str], list[Array]]:
    """Class names, and of each table (N,) int64."""
    columns = {split: [*table[label]] for split, table in tables.items()}
    for split, values in columns.items():
        if any(value is None or value == -1 for value in values):
            raise DataError(f"the split {split} has pictures without a class: leave it out of the folder")
    names_of = {split: getattr(table.features[label], "names", None) for split, table in tables.items()}
    first, names = next(iter(names_of.items()))
    for split, others in names_of.items():
        if others != names:  # the same number would be two classes
            kinds = sorted({*(names or ())} ^ {*(others or ())})
            raise DataError(
                f"the column {label!r} has other classes in the split {split} than in {first} "
                f"({few(kinds) or 'in another order'}): cast both to one ClassLabel"
            )
    if names is not None:
        classes, number = list(names), None
    else:
        kinds = sorted({value for values in columns.values() for value in values})
        classes, number = [str(kind) for kind in kinds], {kind: place for place, kind in enumerate(kinds)}
    if len(classes) < 2:
        raise DataError(f"the column {label!r} has one class only ({few(classes)}): expected two or more")
    every = [[number[value] for value in values] if number else values for values in columns.values()]
    return classes, [np.array(values, dtype=np.int64) for values in every]


def _sizes(table: Any, image: str) -> Array:
    """(N,) int64, in bytes; of a picture that lies in a file of its own 0."""
    compute = importlib.import_module("pyarrow.compute")
    column = table.with_format("arrow")[:][image]
    return np.asarray(
        compute.fill_null(compute.binary_length(compute.struct_field(column, "bytes")), 0), dtype=np.int64
    )
