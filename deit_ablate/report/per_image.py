"""What runs got right image by image, from the predictions that they kept, and what follows for a table. Imports numpy.

Arrays of 10,000 runs are slow to open. What a table needs of them is a few numbers a row, which are kept beside its
plan where they took many runs; they are computed again whenever a run has another outcome, and never the truth.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from deit_ablate import files
from deit_ablate.errors import Damaged, InputError
from deit_ablate.identity import canonical_json
from deit_ablate.report.records import WORTH_AN_INDEX, arrays_of, outcome_stamp
from deit_ablate.report.stats.moderated import Array
from deit_ablate.report.stats.population import ImageNoise, Population, image_noise
from deit_ablate.store import Store

SCHEMA = 1
NOT_KEPT = "predictions not on record"
GONE = "gone or damaged"


def per_image(arrays: Mapping[str, Array], figure: str) -> Array | None:
    """Points that each test image (N,) gives a run's figure, which is their mean: of ``top1`` (or ``top1_<head>``) 100
    where the class is right. None where the run kept no predictions of it, as of the moving average."""
    head = figure.removeprefix("top1").removeprefix("_")
    head = head or ("fused_softmax" if "test_pred_fused_softmax" in arrays else "class")
    predicted, targets = arrays.get(f"test_pred_{head}"), arrays.get("test_targets")
    return None if predicted is None or targets is None else 100.0 * (predicted == targets)


@dataclass(frozen=True)
class Row:
    """The runs of a row that have a figure: ``records`` as ``Summary.final`` has them."""

    figure: str
    records: Sequence[Mapping[str, Any]]


def population(
    store: Store, sweep: str, rows: Mapping[str, Row], baseline: str, paired: Collection[str], judged: bool
) -> Population:
    """What the test images add to the difference of each row from the baseline, or why that is not known.

    It takes the predictions of all the runs that the difference is of, on the same images; nothing is said of rows
    that have no such runs (two of each).
    """
    if len(rows[baseline].records) < 2:
        return Population({}, judged)
    compared = {name: row for name, row in rows.items() if name != baseline and len(row.records) > 1}
    used = [
        [name, row.figure, name in paired, [[r["seed"], r["run"], outcome_stamp(store, r["run"])] for r in row.records]]
        for name, row in {baseline: rows[baseline], **compared}.items()
    ]
    key = hashlib.sha256(canonical_json([SCHEMA, used]).encode()).hexdigest()
    path = store.sweeps.folder(sweep) / "images.json"
    found = _kept(path, key)
    if found is None:
        found = _found(store, rows[baseline], compared, paired)
        many = len({r["run"] for row in compared.values() for r in row.records}) >= WORTH_AN_INDEX
        if many and not any(isinstance(each, str) and GONE in each for each in found.values()):
            content = {"schema": SCHEMA, "key": key, "rows": {name: _plain(value) for name, value in found.items()}}
            with contextlib.suppress(OSError):
                files.replace(path, json.dumps(content).encode())
    return Population(found, judged)


class _Kept(BaseModel):
    """What images.json holds: the noise of each row, or why it is not known, by what ``key`` is the hash of."""

    key: str
    rows: dict[str, dict[str, float] | str]


def _kept(path: Any, key: str) -> dict[str, ImageNoise | str] | None:
    with contextlib.suppress(Damaged, ValidationError, TypeError):
        content = files.read_json(path)
        if content is not None and (kept := _Kept.model_validate(content)).key == key:
            return {
                name: value if isinstance(value, str) else ImageNoise(**{k: np.array(v) for k, v in value.items()})
                for name, value in kept.rows.items()
            }
    return None


def _plain(value: ImageNoise | str) -> dict[str, float] | str:
    return value if isinstance(value, str) else {name: float(part) for name, part in asdict(value).items()}


@dataclass(frozen=True)
class _Values:
    """Of a row: ``values`` (runs, images) in points by their ``seeds``, and the images' true classes and data set."""

    seeds: tuple[int, ...]
    values: Array
    targets: Array
    data: frozenset[str]


def _found(
    store: Store, baseline: Row, compared: Mapping[str, Row], paired: Collection[str]
) -> dict[str, ImageNoise | str]:
    read = functools.lru_cache(maxsize=WORTH_AN_INDEX)(lambda run: arrays_of(store, run, store.outcome(run) or {}))

    def values(row: Row) -> _Values | str:
        found, targets = [], None
        for record in row.records:
            try:
                arrays = read(record["run"])
            except InputError:  # what is gone or damaged is in no number, and disables nothing else
                return f"{NOT_KEPT} (run {record['run']}: {GONE})"
            own = per_image(arrays, row.figure)
            if own is None:
                return NOT_KEPT
            if not math.isclose(float(own.mean()), record["top1"], abs_tol=1e-6):
                return f"the predictions of run {record['run']} do not give its figure"
            if targets is not None and not np.array_equal(targets, arrays["test_targets"]):
                return "its runs were not tested on the same images"
            targets = arrays["test_targets"]
            found.append(own)
        seeds = tuple(record["seed"] for record in row.records)
        data = frozenset(record["data_fingerprint"] for record in row.records) - {""}
        assert targets is not None
        return _Values(seeds, np.stack(found), targets, data)

    other = values(baseline)
    if isinstance(other, str):
        return dict.fromkeys(compared, f"of the baseline: {other}")
    noise: dict[str, ImageNoise | str] = {}
    for name, row in compared.items():
        own = values(row)
        noise[name] = own if isinstance(own, str) else _noise(own, other, name in paired)
    return noise


def _noise(own: _Values, other: _Values, paired: bool) -> ImageNoise | str:
    if len(own.data | other.data) > 1 or not np.array_equal(own.targets, other.targets):
        return "not tested on the baseline's images"
    if not paired:
        return image_noise(own.values, other.values)
    both = [seed for seed in own.seeds if seed in other.seeds]
    one, two = (each.values[[each.seeds.index(seed) for seed in both]] for each in (own, other))
    return image_noise(one - two, None)
