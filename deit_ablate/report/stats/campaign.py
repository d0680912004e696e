"""One error budget over a whole campaign of hundreds of tries: which level each try is judged at. Imports numpy.

A try is *kept* where its p of "no better" is at most its level. Levels are those of LORD++ (Ramdas et al. 2017, after
Javanmard and Montanari 2018): of all candidates so far together they never come to more than RATE times the number of
those kept (or 1), so that at most this share of the kept ones is false in expectation, the false discovery rate. What
is guaranteed is for p values that are valid whatever came before; tries that share their baseline's runs are covered
by simulation (``benchmarks/campaigns.py``), as is the choice: alpha spending, which holds the chance of any false keep,
keeps 29% of improvements there where this keeps 72%, and LOND 48%.

A candidate has one level. Looks at it, as it has more runs, share that: a half, a quarter, ... By Bonferroni over the
looks that is valid however one decides whether to go on, at numbers of runs that are fixed beforehand (as those of
``sequential`` are); a keep at any look is a keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from deit_ablate.report.stats.moderated import Array, Comparisons, Moderated

RATE = 0.1
"""The share of false keeps among keeps that a campaign may have in expectation."""
FIRST = 0.5
"""Which part of it can be spent before anything is kept."""
DECAY = 1.2
"""Levels fall as the number of candidates to the power of minus this: of those tried (1.05 to 1.6) what finds most in
300."""


@dataclass(frozen=True)
class Look:
    """A look at a candidate (both by number, from 1), the candidate's level, and the part of it that this look has."""

    candidate: int
    number: int
    level: float
    part: float


@dataclass
class Budget:
    """What a campaign has spent, and what it has kept."""

    levels: list[float] = field(default_factory=list)
    """Of each candidate so far."""
    looks: list[int] = field(default_factory=list)
    """How many there were at each."""
    kept: dict[int, int] = field(default_factory=dict)
    """A candidate that was kept -> how many candidates there were by then."""

    def next(self, candidate: int | None = None) -> Look:
        """The next look, at a candidate that there is or (None) at a new one."""
        number = len(self.levels) + 1 if candidate is None else candidate
        own = self.level(number) if candidate is None else self.levels[candidate - 1]
        look = 1 if candidate is None else self.looks[candidate - 1] + 1
        return Look(number, look, own, own / 2**look)

    def level(self, candidate: int) -> float:
        """Of the next candidate, which has this number."""
        return level(candidate, list(self.kept.values()))

    def add(self, look: Look, kept: bool) -> None:
        """Raises ValueError where it is not the next one."""
        if look.number == 1:
            self.levels.append(look.level)
            self.looks.append(0)
        if look.candidate > len(self.levels) or self.looks[look.candidate - 1] != look.number - 1:
            raise ValueError(f"look {look.number} at candidate {look.candidate} is not the next one")
        self.looks[look.candidate - 1] += 1
        if kept:
            self.kept.setdefault(look.candidate, len(self.levels))


def level(candidate: int, keeps: Sequence[int]) -> float:
    """The level of a campaign's candidate of this number, from 1. ``keeps``: of each one that was kept by then, how
    many candidates the campaign had when it was."""
    from scipy.special import zeta

    # The first keep brings what the beginning has not had, each other one the whole rate.
    parts = [FIRST * RATE, *([(1 - FIRST) * RATE] if keeps else []), *[RATE] * (len(keeps) - 1)]
    since = candidate - np.array([0, *sorted(keeps)], dtype=np.float64)
    return float((np.array(parts) * since**-DECAY).sum() / zeta(DECAY))


def p_better(now: Moderated, comparisons: Comparisons, sign: int) -> Array:
    """One-sided p of "first is no better than second" (comparisons,); ``sign``: of a difference that is better.

    Levels of a campaign are far below 5%, where neither Welch's test (which takes a small group's luck for precision:
    3 runs beside 10 are found better 6 times too often at 0.01%) nor Student's (which takes unequal scatter for equal)
    holds by itself. So it is the largest of three: theirs, and that of the test which tables use, which knows the
    rounding of a figure. Of pairs all three are the paired t. NaN where nothing can be tested.
    """
    from scipy.special import stdtr

    runs, others = now.runs.astype(np.float64), now.other_runs.astype(np.float64)
    squared, welch = now.unmoderated()
    with np.errstate(divide="ignore", invalid="ignore"):
        free = runs - 1 + np.where(comparisons.paired, 0, others - 1)
        pooled = ((runs - 1) * now.own + (others - 1) * now.other_own) / free * (1 / runs + 1 / others)
        pooled = np.where(comparisons.paired, squared, pooled)
        tests = ((squared, welch), (pooled, free), (now.standard_error**2, now.df))
        found = [stdtr(df, -sign * now.difference / np.sqrt(variance)) for variance, df in tests]
        # Equal figures have no variance but that of their rounding, which the last one alone knows.
        return np.where(now.standard_error > 0, np.fmax(np.fmax(found[0], found[1]), found[2]), np.nan)
