"""What each test image adds to runs' figures, by the predictions that they kept, and what follows for a table.

Arrays of 10,000 runs are slow to open. What a table needs of them is a few numbers a row, which are kept beside its
plan where they took many runs; they are computed again whenever a run has another outcome, and never the truth.
Imports numpy.
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
from deit_ablate.report.metrics import NOT_KEPT, OfImages, of_images
from deit_ablate.report.records import arrays
from deit_ablate.report.stats.moderated import Array
from deit_ablate.report.stats.population import ImageNoise, Population, image_noise
from deit_ablate.store import Store
from deit_ablate.store.index import WORTH_AN_INDEX
from deit_ablate.sweep.metrics import planned_metrics

SCHEMA = 1
GONE = "gone or damaged"


@dataclass(frozen=True)
class Row:
    """The runs of a row that have the metric: ``records`` as ``Summary.final`` has them, and its value in each."""

    shows: str | None
    records: Sequence[Mapping[str, Any]]
    figures: Sequence[float]


def population(
    store: Store, sweep: str, plan: Mapping[str, Any], rows: Mapping[str, Row], paired: Collection[str]
) -> Population:
    """What the test images add to the difference of each row from the baseline, or why that is not known.

    It takes the predictions of all the runs that the difference is of, on the same images; nothing is said of rows
    that have no such runs (two of each).
    """
    baseline, judged, metric = plan["baseline"], bool(plan.get("population")), planned_metrics(plan)[0]
    if len(rows[baseline].records) < 2:
        return Population({}, judged)
    compared = {name: row for name, row in rows.items() if name != baseline and len(row.records) > 1}
    if metric.lacks_images:
        return Population(dict.fromkeys(compared, metric.lacks_images), judged)
    used = [
        [name, row.shows, name in paired, [[r["seed"], r["run"], store.index.stamp(r["run"])] for r in row.records]]
        for name, row in {baseline: rows[baseline], **compared}.items()
    ]
    key = hashlib.sha256(canonical_json([SCHEMA, metric.name, used]).encode()).hexdigest()
    path = store.sweeps.folder(sweep) / "images.json"
    # What a function of one's own depends on beside its code nobody knows.
    found = _kept(path, key) if metric.figure else None
    if found is None:
        found = _found(store, of_images(store, plan), {baseline: rows[baseline], **compared}, paired)
        many = len({r["run"] for row in compared.values() for r in row.records}) >= WORTH_AN_INDEX
        if many and metric.figure and not any(isinstance(each, str) and GONE in each for each in found.values()):
            plain = {
                name: value if isinstance(value, str) else {part: float(own) for part, own in asdict(value).items()}
                for name, value in found.items()
            }
            content = {"schema": SCHEMA, "key": key, "rows": plain}
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


@dataclass(frozen=True)
class _Values:
    """Of a row: ``values`` (runs, images) in the metric's unit by their ``seeds``, and the images' true classes and
    data set."""

    seeds: tuple[int, ...]
    values: Array
    targets: Array
    data: frozenset[str]


def _found(store: Store, of: OfImages, rows: Mapping[str, Row], paired: Collection[str]) -> dict[str, ImageNoise | str]:
    """``rows``: the baseline first."""
    read = functools.lru_cache(maxsize=WORTH_AN_INDEX)(lambda run: arrays(store, run, store.outcome(run) or {}))

    def values(row: Row) -> _Values | str:
        found, targets = [], None
        for record, figure in zip(row.records, row.figures, strict=True):
            try:
                kept = read(record["run"])
            except InputError:  # what is gone or damaged is in no number, and disables nothing else
                return f"{NOT_KEPT} (run {record['run']}: {GONE})"
            own = of(kept, record["run"], row.shows)
            if isinstance(own, str):
                return own
            if not math.isclose(float(own.mean()), figure, abs_tol=1e-6):
                return f"the predictions of run {record['run']} do not give its figure"
            if targets is not None and not np.array_equal(targets, kept["test_targets"]):
                return "its runs were not tested on the same images"
            targets = kept["test_targets"]
            found.append(own)
        seeds = tuple(record["seed"] for record in row.records)
        data = frozenset(record["data_fingerprint"] for record in row.records) - {""}
        assert targets is not None
        return _Values(seeds, np.stack(found), targets, data)

    (_, first), *compared = rows.items()
    other = values(first)
    if isinstance(other, str):
        return dict.fromkeys((name for name, _ in compared), f"of the baseline: {other}")
    noise: dict[str, ImageNoise | str] = {}
    for name, row in compared:
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
