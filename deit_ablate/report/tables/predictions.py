"""How often classifiers decide differently on the same test images (Table 4 of Touvron et al., arXiv 2012.12877v2).

Imports pandas.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from deit_ablate.errors import InputError
from deit_ablate.report.tables.table import Column, Table
from deit_ablate.report.tables.tokens import Array, Recorded, RunGroup, left_out, recorded
from deit_ablate.store import Store

TRUTH = "ground truth"
HEADS = {"class": "class only", "distillation": "distillation only", "fused_softmax": "class+distillation"}
"""A head of a model with two -> the paper's words for it; fused is the headline, the sum of both softmaxes."""
ALIKE = {"class": "first token only", "distillation": "second token only", "fused_softmax": "both tokens"}
"""The same of a model with two class tokens, which no teacher tells apart."""


@dataclass(frozen=True)
class Predictions:
    """Classifiers on the same test images: name -> run id -> the class (N,) that each image is given.

    The first is ``TRUTH``, whose one "run" is "". ``notes`` are footnotes on what was left out.
    """

    classifiers: Mapping[str, Mapping[str, Array]]
    notes: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        return len(self.classifiers[TRUTH][""])


def disagreement(classifiers: Mapping[str, Mapping[str, Array]]) -> pd.DataFrame:
    """The share of samples, 0 to 1, that each two classifiers give different classes: symmetric, by name.

    A classifier is its runs (seeds), each with the classes that it gives: run -> (N,). Two classifiers that have runs
    in common (two heads) are compared within each of these; any others over all pairs of one's runs and the other's.
    On the diagonal is 0, or of several runs the mean over pairs of different ones. Raises ValueError for arrays of
    different lengths, or none.
    """
    if len({len(array) for own in classifiers.values() for array in own.values()}) != 1:
        raise ValueError("classifiers are compared on the same samples: these arrays are not of one length")
    values = np.zeros((len(classifiers), len(classifiers)))
    for (i, one), (j, two) in itertools.combinations_with_replacement(enumerate(classifiers.values()), 2):
        values[i, j] = values[j, i] = _between(one, two, same=i == j)
    return pd.DataFrame(values, index=list(classifiers), columns=list(classifiers))


def _between(one: Mapping[str, Array], two: Mapping[str, Array], same: bool) -> float:
    if same:
        pairs = list(itertools.combinations(one.values(), 2))
    elif common := [run for run in one if run in two]:
        pairs = [(one[run], two[run]) for run in common]
    else:
        pairs = list(itertools.product(one.values(), two.values()))
    return float(np.mean([np.mean(a != b) for a, b in pairs])) if pairs else 0.0


def with_teachers(store: Store, students: Sequence[RunGroup]) -> list[RunGroup]:
    """These groups and, before them, the runs that taught those of a whole sweep: Table 4 has the convnet too.

    A teacher of several rows comes once; one that is named by a model or a file is no run and has no predictions.
    """
    taught: dict[tuple[str, ...], list[str]] = {}
    for group in students:
        if group.requested:
            continue
        parents = [(store.sound_recipe(run) or {"parents": {}})["parents"].get("teacher") for run in group.runs]
        teachers = tuple(dict.fromkeys(parent["run"] for parent in parents if parent))
        if teachers:
            taught.setdefault(teachers, []).append(group.name)
    present = {run for group in students for run in group.runs}
    teachers_of = [
        RunGroup("teacher" if len(taught) == 1 else f"teacher of {', '.join(names)}", teachers, requested=False)
        for teachers, names in taught.items()
        if not present.issuperset(teachers)
    ]
    return [*teachers_of, *students]


def predictions(store: Store, groups: Sequence[RunGroup], head: str = "all") -> Predictions:
    """The ground truth, then each group: its headline; with head "all" each head of a model with two, and both fused.

    ``head`` "class", "distillation" or "fused_softmax" takes that one of a model with two heads; a model with one head
    has no other. A row that shows one head, or the moving average (EMA), is that where ``head`` is "all". The same runs
    and head come once. Of the average earlier versions kept no predictions: such rows are left out, or an InputError
    where requested. Raises InputError also as ``tokens.recorded`` does, and for runs that were not tested on the same
    images.
    """
    if head != "all" and head not in HEADS:
        raise InputError(f"there is no head {head!r}", where=("--head", 0, 0), expected=", ".join([*HEADS, "all"]))
    every = recorded(store, groups)
    lacking = [kept.group for kept in every if kept.group.shows == "ema" and not _have(kept, "ema")]
    for group in lacking:
        if group.requested or len(lacking) == len(every):
            problem = f"{group.name} shows the moving average of the weights, whose predictions are not recorded"
            raise InputError(problem, expected="a row of the raw weights")
    every = [kept for kept in every if kept.group not in lacking]
    classifiers: dict[str, Mapping[str, Array]] = {TRUTH: {"": _same_truth(store, every)}}
    seen: set[tuple[str, frozenset[str]]] = set()
    for kept in every:
        for name, key in _heads(store, kept, head).items():
            if (key, frozenset(kept.arrays)) in seen:
                continue
            seen.add((key, frozenset(kept.arrays)))
            if name in (*classifiers, "classifier"):  # the latter is the CSV's first column
                name = f"{name} ({next(iter(kept.arrays))})"
            classifiers[name] = {run: arrays[f"test_pred_{key}"] for run, arrays in kept.arrays.items()}
    ema = ", ".join(group.name for group in lacking)
    notes = [f"No predictions on record of the moving average (EMA): {ema}."] if lacking else []
    raw = [group for group in groups if group not in lacking]
    return Predictions(classifiers, tuple(left_out(every, raw) + notes))


def _have(kept: Recorded, classifier: str) -> bool:
    return all(f"test_pred_{classifier}" in arrays for arrays in kept.arrays.values())


def _heads(store: Store, kept: Recorded, head: str) -> dict[str, str]:
    """Name of a classifier -> the head whose predictions it is."""
    if kept.group.shows == "ema":
        return {kept.group.name: "ema"} if head == "all" else {}
    if not _have(kept, "distillation"):
        return {kept.group.name: "class"}
    chosen = [head] if head != "all" else [kept.group.shows] if kept.group.shows in HEADS else list(HEADS)
    recipe = (store.recipe(next(iter(kept.arrays))) or {"recipe": {}})["recipe"]
    words = ALIKE if recipe.get("distill", {}).get("type") == "two-class-tokens" else HEADS
    return {f"{kept.group.name}: {words[key]}": key for key in chosen}


def _same_truth(store: Store, every: Sequence[Recorded]) -> Array:
    """The classes (N,) of the test images, which all these runs were tested on. Raises InputError where they
    weren't."""
    first: tuple[str, str, Any, Array] | None = None
    for kept in every:
        for run, arrays in kept.arrays.items():
            if "test_targets" not in arrays:
                raise InputError(f"run {run} of {kept.group.name} has no predictions on record")
            data = ((store.recipe(run) or {}).get("recipe") or {}).get("data", {}).get("id", "")
            # The fingerprint is pinned under the data's id; where there is none (a copied store), the id stands for it.
            print_of = (store.data_facts(data) or {}).get("fingerprint") or data
            first = first or (kept.group.name, data, print_of, arrays["test_targets"])
            if print_of != first[2]:
                problem = f"{kept.group.name} was tested on the data {data}, {first[0]} on {first[1]}"
                raise InputError(problem, expected="runs on the same data")
            if not np.array_equal(arrays["test_targets"], first[3]):
                problem = (
                    f"{kept.group.name} and {first[0]} were not tested on the same images: their true classes differ"
                )
                raise InputError(problem, expected="runs on the same test images")
    assert first is not None
    return first[3]


def disagreement_table(found: Predictions) -> Table:
    """The matrix as Table 4 has it. Its columns are numbered as its rows are; the CSV has names."""
    matrix = disagreement(found.classifiers)
    names = list(found.classifiers)

    def share(name: str, row: Mapping[str, Any]) -> str:
        return f"{row[name]:.3f}"

    columns = [Column("classifier", lambda row: f"{names.index(row['classifier']) + 1} {row['classifier']}", long=True)]
    columns += [Column(str(number), partial(share, name), right=True) for number, name in enumerate(names, start=1)]
    frame = matrix.rename_axis("classifier").reset_index()
    notes = ["Columns are numbered as rows are."]
    if any(len(runs) > 1 for runs in found.classifiers.values()):
        notes.append(
            "Means over seeds: of heads of the same runs within each run, of other classifiers over all pairs of runs; "
            "on the diagonal over pairs of different seeds (0 of one seed)."
        )
    title = f"Disagreement: share of {found.images:,} test images that are classified differently"
    return Table("disagreement", title, frame, tuple(columns), (*notes, *found.notes))
