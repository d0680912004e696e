"""How alike a model's two tokens are, layer by layer, from what runs recorded of their test images. Imports pandas.

The paper's analysis (section 4 of Touvron et al., arXiv 2012.12877v2): class and distillation token start far apart
and become alike. Its numbers are data, in ``analysis/paper/token_similarity.csv``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from deit_ablate import files
from deit_ablate.errors import InputError
from deit_ablate.report.frame import final_stage, rows
from deit_ablate.report.records import arrays
from deit_ablate.report.tables.table import NOTHING, Column, Table, measure
from deit_ablate.store import Store
from deit_ablate.sweep.labels import labels_of, words

Array = npt.NDArray[Any]
TWO_TOKENS = "a deit model with distill.type soft-token, hard-token or two-class-tokens"

# -- runs, and what they recorded ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunGroup:
    """Runs that are reported as one: a row of a sweep over its seeds, or a run alone."""

    name: str
    runs: tuple[str, ...]
    shows: str = ""
    """The figure that the row shows: class, distillation, ema, or empty for the headline."""
    label: str = ""
    """What a table calls it; its name where this is empty."""
    requested: bool = True
    """By name, so that it is an error where something lacks; of a whole sweep such a row is left out instead."""

    @property
    def called(self) -> str:
        """In plain text."""
        return words(self.label or self.name)


@dataclass(frozen=True)
class Recorded:
    """The arrays that a group's finished runs left: run id -> name -> array."""

    group: RunGroup
    arrays: Mapping[str, Mapping[str, Array]]


def groups(plan: Mapping[str, Any], variant: str = "*", seed: str = "*", stage: str | None = None) -> list[RunGroup]:
    """The rows of a plan in its order: of each variant its runs, or, where a seed is named, that one's run alone.

    ``*`` is any; ``stage`` is the final one unless named.
    """
    final = final_stage(plan)
    shows, labels = {row["name"]: row["shows"] or "" for row in plan["variants"]}, labels_of(plan)
    runs: dict[tuple[str, ...], list[str]] = {}
    for name, number, own, run in plan["cells"]:
        if variant in ("*", name) and seed in ("*", str(number)) and own == (final if stage is None else stage):
            runs.setdefault((name,) if seed == "*" else (name, str(number)), []).append(run)
    more = [*["*"] * (seed == "*"), stage] if stage else []
    return [
        RunGroup(
            ":".join([name, *key, *more]),
            tuple(dict.fromkeys(found)),
            shows[name] if stage in (None, final) else "",
            ":".join([labels[name], *key, *more]) if name in labels else "",
            requested=variant != "*",
        )
        for (name, *key), found in runs.items()
    ]


def recorded(store: Store, wanted: Sequence[RunGroup]) -> list[Recorded]:
    """What each group's finished runs recorded; runs that are not done are left out, and groups without any.

    Raises InputError for a group that was requested and has no finished run, where none of the groups has one, and for
    arrays that are gone or are not those that the outcome was written with.
    """
    found = []
    for group in wanted:
        outcomes = {run: store.result(run) or {} for run in group.runs}
        # As in tables, a row is of the runs that are done; a run that was named alone may be at chance.
        good = ("done", "diverged") if len(group.runs) == 1 and group.requested else ("done",)
        finished = {run: end for run, end in outcomes.items() if end.get("status") in good}
        if finished:
            found.append(Recorded(group, {run: arrays(store, run, end) for run, end in finished.items()}))
        elif group.requested:
            for damage in filter(None, map(store.damage, group.runs)):
                raise damage
            raise InputError(f"{group.name} is not done", expected="a run that is done, or a row with one")
    if not found:
        names = ", ".join(group.name for group in wanted)
        raise InputError(f"none of these is done: {names}", expected="a run that is done")
    return found


def left_out(found: Sequence[Recorded], wanted: Sequence[RunGroup]) -> list[str]:
    """A footnote on the runs of these groups that are in no number because they are not done."""
    done = {kept.group.name: len(kept.arrays) for kept in found}
    counted = [(group, done.get(group.name, 0)) for group in wanted]
    named = [f"{group.called} {count} of {len(group.runs)}" for group, count in counted if count < len(group.runs)]
    return [f"Runs that are done, the others being left out: {', '.join(named)}."] if named else []


# -- token similarity ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Similarity:
    """Cosine of a row's two tokens: ``values`` maps a run to (layers + 1,), first between the learned input tokens,
    then after each block, a mean over the test images."""

    name: str
    values: Mapping[str, Array]
    label: str = ""
    """What tables call it; its name where this is empty."""

    @property
    def mean(self) -> Array:
        """(layers + 1,), over the runs."""
        return np.stack(list(self.values.values())).mean(axis=0)

    @property
    def sd(self) -> Array:
        """(layers + 1,): the standard deviation over the runs (of n - 1), NaN of one run."""
        stacked = np.stack(list(self.values.values()))
        return stacked.std(axis=0, ddof=1) if len(stacked) > 1 else np.full(stacked.shape[1], math.nan)


@dataclass(frozen=True)
class Similarities:
    """What ``similarities`` found, a row each, and footnotes on what it left out."""

    rows: tuple[Similarity, ...]
    notes: tuple[str, ...]

    @property
    def layers(self) -> int:
        """Blocks of the deepest model."""
        return max(len(row.mean) for row in self.rows) - 1


def published() -> list[dict[str, Any]]:
    """The paper's cosines: of which "tokens", "at" the "input" or the "last block", and the "source"."""
    return rows(pd.read_csv(files.shipped("analysis") / "paper" / "token_similarity.csv"))


def similarities(store: Store, wanted: Sequence[RunGroup]) -> Similarities:
    """The token similarities of these groups. Rows of a whole sweep whose models have no two tokens are left out.

    Raises InputError, naming it, for a group that was requested without two tokens, where none has them, and as
    ``recorded`` does. Two rows that show different figures of the same runs are one here.
    """
    once: dict[tuple[str, ...], RunGroup] = {}
    for group in wanted:
        once.setdefault(group.runs, group)
    wanted = list(once.values())
    every = recorded(store, wanted)
    found, without = [], []
    for kept in every:
        if all("token_similarity" in arrays for arrays in kept.arrays.values()):
            values = {run: arrays["token_similarity"] for run, arrays in kept.arrays.items()}
            found.append(Similarity(kept.group.name, values, kept.group.label))
        elif kept.group.requested:
            raise InputError(f"{kept.group.name} has no two tokens", expected=TWO_TOKENS)
        else:
            without.append(kept.group)
    names = ", ".join(group.called for group in without)
    if not found:
        raise InputError(f"no two tokens in any of {names}", expected=TWO_TOKENS)
    notes = left_out(every, [group for group in wanted if group not in without])
    notes += [f"Without two tokens: {names}."] if names else []
    return Similarities(tuple(found), tuple(notes))


def tokens_table(found: Similarities) -> Table:
    """A layer a row, a row of the study a column: the cosine, of several seeds mean ± standard deviation."""
    columns = [Column("layer", lambda line: str(line["layer"]) if line["layer"] else "input", right=True)]
    for row in found.rows:
        seeds = f" ({len(row.values)} seeds)" if len(row.values) > 1 else ""
        columns.append(Column((row.label or row.name) + seeds, _cell(row), right=True, math=True))
    notes = ["Layer: input is between the learned tokens, then after each block, a mean over the test images."]
    if any(len(row.values) > 1 for row in found.rows):
        notes.append("± is the standard deviation over seeds.")
    notes += found.notes
    notes += ["Published ({tokens}, {at}): {cosine:g}.".format(**number) for number in published()]
    frame = pd.DataFrame({"layer": range(found.layers + 1)})
    return Table(
        "token-similarity", "Cosine similarity of the class and the second token", frame, tuple(columns), tuple(notes)
    )


def _cell(row: Similarity) -> Callable[[Mapping[str, Any]], str]:
    cells = [measure(mean, sd, digits=3) for mean, sd in zip(row.mean, row.sd, strict=True)]
    return lambda line: cells[line["layer"]] if line["layer"] < len(cells) else NOTHING


def tokens_values(store: Store, found: Similarities) -> Table:
    """What the CSV holds: one line a run and layer, with the run's seed; layer 0 is the input."""
    lines = []
    for name, run, values in ((row.name, run, values) for row in found.rows for run, values in row.values.items()):
        seed = (store.recipe(run) or {"recipe": {}})["recipe"].get("seed")
        own = {"row": name, "run": run, "seed": seed}
        lines += [{**own, "layer": layer, "cosine": float(cosine)} for layer, cosine in enumerate(values)]
    return Table("token-similarity", "", pd.DataFrame(lines), (), ())
