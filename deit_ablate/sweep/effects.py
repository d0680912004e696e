"""Which runs must not be the same training: each row's and those of the row that it is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deit_ablate.errors import InputError
from deit_ablate.identity import difference
from deit_ablate.sweep.confounds import value_words
from deit_ablate.sweep.overrides import disagreement
from deit_ablate.sweep.plan import Plan, Run
from deit_ablate.sweep.yaml import Node


@dataclass(frozen=True)
class Pair:
    """A row and the one that it is compared with."""

    row: str
    other: str
    runs: tuple[tuple[Run, Run], ...]
    """Of the row and of the other at one seed: the last stage's, then those that they come from, where they differ."""
    ends: frozenset[str]
    """The runs of the row's last stage, at all seeds."""

    @property
    def changed(self) -> tuple[Run, dict[str, tuple[Any, Any]]]:
        """A run of the row, and its keys with (value in the other's, value here)."""
        found = ((here, difference(here.recipe, there.recipe)) for here, there in self.runs)
        return next((pair for pair in found if pair[1]), (self.runs[0][0], {}))

    def refusal(self, written: Mapping[str, Node], others: Sequence[Pair]) -> InputError:
        """What is wrong with a row whose training is the other's, at the line of its key; ``others`` are such too."""
        run, changed = self.changed
        shown = ", ".join(f"{key} {value_words(a)} → {value_words(b)}" for key, (a, b) in changed.items())
        same = f"with {shown} it is the training of {self.other!r}, bit for bit"
        problem = f"the row {self.row!r} changes nothing: {same}"
        if others:
            also = (f"{pair.row!r} with {', '.join(pair.changed[1])}" for pair in others)
            problem += f"; nor do these: {', '.join(also)}"
        return disagreement(written[run.id], list(changed), problem, "a value that acts, or --allow-no-effect")


def pairs(plan: Plan) -> Iterator[Pair]:
    """Each row with the baseline, and in a cumulative sweep with the row before. Not two figures of the same runs,
    which must be identical, nor rows of a search, which differ in what is searched, nor runs of a program, which nobody
    else can try out."""
    sweep = plan.sweep
    if sweep.baseline is None or sweep.search is not None or sweep.program is not None:
        return
    runs: dict[str, dict[int, Run]] = {}
    for cell in plan.cells:
        if cell.stage == sweep.final.name:
            runs.setdefault(cell.variant, {})[cell.seed] = plan.runs[cell.run]
    shows = {variant.name: variant.shows for variant in sweep.variants}
    before = sweep.baseline
    for row, of_row in runs.items():
        others = dict.fromkeys((sweep.baseline, before) if sweep.kind == "cumulative" else (sweep.baseline,))
        for other in others:
            common = [seed for seed in of_row if seed in runs[other]]
            if row == other or shows[row] != shows[other] or not common:
                continue
            found = _differing(plan.runs, of_row[common[0]], runs[other][common[0]])
            if found:
                yield Pair(row, other, tuple(found), frozenset(run.id for run in of_row.values()))
        before = row


def _differing(runs: Mapping[str, Run], here: Run, there: Run) -> list[tuple[Run, Run]] | None:
    """Two runs and those that they come from, as far as they differ; None where they come from other kinds of run."""
    if here.id == there.id:
        return []
    kind, other = ({role: parent["weights"] for role, parent in run.parents.items()} for run in (here, there))
    if kind != other:
        return None
    found = [(here, there)]
    for role, parent in here.parents.items():
        above = _differing(runs, runs[parent["run"]], runs[there.parents[role]["run"]])
        if above is None:
            return None
        found += above
    return found
