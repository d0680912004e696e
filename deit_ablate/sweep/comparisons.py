"""How rows will be compared, which a plan knows before any result: by pairs of runs or not, and over how many seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

FEWEST = 3
"""Runs of a row, and of the baseline, under which there is no verdict."""
LOOKS: tuple[int, ...] = (3, 6, 9, 12)
"""Seeds at each look, where a sweep that is run until its rows are decided declares none."""


def baseline_seeds(rows: int, seeds: int) -> int:
    """How many seeds of the baseline are best beside ``seeds`` of each of ``rows`` rows: √rows times as many.

    Every row is compared with the baseline: at equal cost its further runs shorten all intervals (Dunnett 1955). Under
    3 seeds nothing is compared, and there are no more.
    """
    return math.isqrt(seeds * seeds * rows - 1) + 1 if rows > 1 and seeds >= FEWEST else seeds


@dataclass(frozen=True)
class Comparison:
    """How the rows of a plan are compared with its baseline."""

    paired: tuple[str, ...] = ()
    """Rows that share a run or a parent with the baseline at each seed."""
    with_baseline: tuple[str, ...] = ()
    """The baseline, and the rows that are other figures of its very runs: they have its seeds."""
    alone: int = 0
    """How many rows are compared by all runs of both."""
    fixed: int | None = None
    """The baseline's seeds, where the sweep says them."""

    def seeds(self, seeds: int) -> int:
        """The baseline's seeds beside so many of a row."""
        return max(seeds, self.fixed) if self.fixed is not None else baseline_seeds(self.alone, seeds)


class Lineages:
    """The runs of a stage and all that they come from: which rows are paired by structure."""

    def __init__(self, cells: Iterable[Sequence[object]], parents: Mapping[str, Sequence[str]], stage: str) -> None:
        """``cells``: (variant, seed, stage, run) each; ``parents``: run -> the runs that it starts or learns from."""
        self._parents = parents
        self._known: dict[str, frozenset[str]] = {}
        self._runs: dict[str, dict[int, str]] = {}
        for variant, seed, of_stage, run in cells:
            if of_stage == stage:
                self._runs.setdefault(str(variant), {})[int(str(seed))] = str(run)

    def same(self, one: str, two: str) -> bool:
        """Whether two rows are figures of the same runs."""
        return self._runs[one] == self._runs[two]

    def paired(self, one: str, two: str) -> bool:
        """Whether two rows have, at each seed that both have, a run in common that is not that of all seeds.

        Two figures of one run do, two fine-tunings of one pre-training, and students of one teacher if it is drawn anew
        with each seed; equal seeds alone make no two trainings alike.
        """
        first, second = self._runs.get(one, {}), self._runs.get(two, {})
        both = sorted(first.keys() & second.keys())
        if len(both) < 2:
            return False
        of_all = frozenset.intersection(*(self._lineage(first[seed]) for seed in both))
        return all((self._lineage(first[seed]) & self._lineage(second[seed])) - of_all for seed in both)

    def _lineage(self, run: str) -> frozenset[str]:
        if run not in self._known:
            above = (self._lineage(parent) for parent in self._parents.get(run, ()))
            self._known[run] = frozenset({run}).union(*above)
        return self._known[run]
