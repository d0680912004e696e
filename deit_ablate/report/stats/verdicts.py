"""Rows against their baseline: what a few seeds of each say, as a verdict with its evidence. Imports numpy.

Pure functions of numbers. The test, the interval and Holm are in ``moderated``; here they become words. What a verdict
accounts for is the noise of training, and that of the finite test set only where a sweep asks for it (``population``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np

from deit_ablate.report.stats.exact import check_count, did_not_train_words, rate_words
from deit_ablate.report.stats.moderated import (
    Array,
    Comparisons,
    Flags,
    Looks,
    Moderated,
    holds,
    holm,
    moderate,
)
from deit_ablate.report.stats.population import ImageNoise, NewImages, Population
from deit_ablate.report.stats.power import ALPHA, MOST, Sides, lent
from deit_ablate.sweep.comparisons import FEWEST
from deit_ablate.sweep.metrics import Better

Verdict: TypeAlias = Literal[
    "better",
    "worse",
    "better_small",
    "worse_small",
    "equivalent",
    "undecided",
    "too_few",
    "one_seed",
    "did_not_train",
    "no_effect",
    "no_predictions",
    "baseline",
    "none",
]
"""``_small``: different, and by less than the margin. ``none``: there is nothing to compare, no run or no baseline.
``no_effect``: the row's weights are the baseline's. ``no_predictions``: rows are judged for new images,
and its runs kept none."""
DIFFERENT: frozenset[Verdict] = frozenset({"better", "worse", "better_small", "worse_small"})

LARGE_SCATTER = 3
"""How many times the typical scatter a row may have before its own interval is called too short."""
NO_SPREAD = "undecided: no spread to test with"
ADDED_AFTER_LOOKING = "seeds were added after looking; 5% no longer holds"
"""For a table with seeds beyond those that were planned before the first look (false findings: 7 to 19%)."""


@dataclass(frozen=True)
class Rules:
    """By what a table's rows are judged. ``better``: which way the figures are better; the others: see ``judge``."""

    margin: float | None = None
    strict: bool = False
    better: Better = "higher"
    population: Population = field(default_factory=Population)
    """What is known of the finite test set, and whether rows are judged for new images."""

    def __post_init__(self) -> None:
        """Raises ValueError for a margin within which nothing, or everything, is equivalent."""
        if self.margin is not None and not 0 < self.margin < math.inf:
            raise ValueError(f"a margin of equivalence is a number above 0, not {self.margin}")


BY_DEFAULT = Rules()


@dataclass(frozen=True)
class Effect:
    """A row against the row that it is compared with, in what the metric is counted in (of top-1 points); NaN is
    unknown."""

    runs: int
    """Of the row that have a figure; ``other_runs`` of the other one. Where paired, the number of pairs is both."""
    other_runs: int
    paired: bool
    """Whether the two share a run or a parent at each seed, and are compared seed by seed."""
    difference: float
    """Of the means, row - other."""
    standard_error: float
    """Of ``difference``, with moderated variances."""
    df: float
    half_width: float
    """Of the 95% interval of this row alone (thick whisker)."""
    half_width_simultaneous: float
    """Of the interval that holds for all rows of the table at once, by Bonferroni (thin whisker)."""
    p: float
    """Of "no difference", two-sided; ``p_holm`` adjusted over the table's rows."""
    p_holm: float
    p_equivalent: float
    """Of "a difference of the margin or more"; NaN without a margin. ``p_equivalent_holm`` as above."""
    p_equivalent_holm: float
    p_plain: float
    """Of the plain test (Welch's, or the paired t), which borrows nothing; NaN of a contrast, whose ``p`` is one."""
    image_standard_error: float
    """What the finite test set alone adds to ``difference``; NaN where no predictions are known."""
    half_width_new_images: float
    """Of the 95% interval of this row alone for new images of this kind."""
    verdict: Verdict
    words: str
    """The verdict for people."""
    notes: tuple[str, ...] = ()


def untested(verdict: Literal["baseline", "none"], notes: tuple[str, ...] = ()) -> Effect:
    """What stands in the baseline's own row, or in every row of a sweep without one."""
    unknown: dict[str, Any] = {field.name: math.nan for field in fields(Effect) if field.type == "float"}
    return Effect(runs=0, other_runs=0, paired=False, **unknown, verdict=verdict, words="", notes=notes)


def judge(
    rows: Mapping[str, Mapping[int, float]],
    baseline: Mapping[int, float],
    rules: Rules = BY_DEFAULT,
    *,
    paired: Collection[str] = (),
    resolution: float = 0.0,
) -> Judged:
    """Judge each row of a table against the baseline. Both map a seed to a figure, such as top-1 in percent; NaN is a
    missing value.

    ``paired``: the rows that share a run or a parent with the baseline at each seed, known from the plan; the others
    are compared by all runs of both. ``resolution``: a figure's smallest step, in points (one test image), so that
    seeds that agree by its coarseness aren't taken for exact; 0 where it isn't known. By Holm (1979) over each kind of
    verdict, or by Bonferroni where ``rules`` are strict (``p_holm`` stays Holm's).

    Every row counts in the correction, also one that has no verdict for want of 3 runs: it was asked about. Variance
    is borrowed only from rows that have one. Raises ValueError for an infinite value.
    """
    pairs = [(row + 1, 0) for row in range(len(rows))]
    return _compared(tuple(rows), [baseline, *rows.values()], pairs, rules, paired, resolution)


def steps(
    rows: Mapping[str, Mapping[int, float]], *, paired: Collection[str] = (), resolution: float = 0.0
) -> dict[str, Effect]:
    """Judge each row, from the second on, against the one before it; arguments as of ``judge``."""
    names = tuple(rows)[1:]
    pairs = [(i + 1, i) for i in range(len(names))]
    return _compared(names, list(rows.values()), pairs, BY_DEFAULT, paired, resolution).effects({})


def _compared(
    names: tuple[str, ...],
    groups: Sequence[Mapping[int, float]],
    pairs: Sequence[tuple[int, int]],
    rules: Rules,
    paired: Collection[str],
    resolution: float,
) -> Judged:
    """``pairs``: of each name the numbers of its two groups."""
    comparisons = Comparisons.of(pairs, [i for i, name in enumerate(names) if name in paired])
    now = moderate(side_by_side(groups), comparisons, resolution)
    if rules.population.judged:
        now = rules.population.noise(names).widen(now)
    return Judged.of(names, rules, now, comparisons.paired)


def side_by_side(groups: Sequence[Mapping[int, float]], seeds: Sequence[int] | None = None) -> Array:
    """Groups of runs (seed -> figure) as an array (groups, seeds), NaN where missing: with these seeds in this order,
    or all there are. Raises ValueError for an infinite value."""
    if any(math.isinf(value) for values in groups for value in values.values()):
        raise ValueError("a difference of infinite values is not defined")
    chosen = sorted({seed for values in groups for seed in values}) if seeds is None else seeds
    filled = np.array([[values.get(seed, math.nan) for seed in chosen] for values in groups], dtype=np.float64)
    return filled.reshape(len(groups), len(chosen))


@dataclass(frozen=True)
class Judged:
    """A table that has been judged: p values (rows,), and whether each row differs, or is the same, as flags (rows,).

    ``now`` is what its verdicts rest on. ``alpha`` is the level of the intervals that hold for all rows at once, one
    for the table or one for each row.
    """

    names: tuple[str, ...]
    rules: Rules
    now: Moderated
    paired: Flags
    alpha: float | Array
    borrowed: Array
    """Degrees of freedom (rows,) that each row's variances were lent."""
    p: Array
    p_equivalent: Array
    differs: Flags
    same: Flags

    @classmethod
    def of(
        cls,
        names: tuple[str, ...],
        rules: Rules,
        now: Moderated,
        paired: Flags,
        alpha: float | Array = ALPHA,
        borrowed: Array | None = None,
        looks: Looks | None = None,
    ) -> Judged:
        """By the p values of ``now``, or those of all ``looks``. ``borrowed``: by default what so many groups lend."""
        if borrowed is None:
            groups = np.where(paired, paired.sum(), len(paired) + 1 - paired.sum())
            borrowed = np.array([lent(int(n), bool(pair)) for n, pair in zip(groups, paired, strict=True)])
        p, equal = (now.p, np.full(len(names), np.nan)) if looks is None else (looks.p, looks.p_equivalent)
        if rules.margin is not None and looks is None:
            equal = now.p_equivalent(rules.margin)
        differs, same = (holds(np.where(now.enough, one, np.nan), rules.strict) for one in (p, equal))
        return cls(names, rules, now, paired, alpha, borrowed, p, equal, differs, same)

    @cached_property
    def _noise(self) -> ImageNoise:
        """What the finite test set adds to each row."""
        return self.rules.population.noise(self.names)

    def effects(
        self,
        diverged: Mapping[str, tuple[int, int]],
        undecided: Callable[[int], str] | None = None,
        more: str = "",
    ) -> dict[str, Effect]:
        """``undecided`` words the verdict of a row, by its number, that has runs enough and was not decided; ``more``
        says what becomes of one that has too few because runs diverged (by default: add seeds)."""
        now, rules = self.now, self.rules
        new_images = now if isinstance(now, NewImages) else self._noise.widen(now)
        columns = {
            "difference": now.difference,
            "standard_error": now.standard_error,
            "df": now.df,
            "half_width": now.half_width(),
            "half_width_simultaneous": now.half_width(np.asarray(self.alpha) / max(1, len(self.names))),
            "p": self.p,
            "p_holm": holm(np.where(now.enough, self.p, np.nan)),
            "p_equivalent": self.p_equivalent,
            "p_equivalent_holm": holm(np.where(now.enough, self.p_equivalent, np.nan)),
            "p_plain": now.p_plain,
            "image_standard_error": self._noise.standard_error,
            "half_width_new_images": new_images.half_width(),
        }
        found = {}
        for i, name in enumerate(self.names):
            k, ended = diverged.get(name, (0, 0))
            check_count(k, ended)
            fewest = min(int(now.runs[i]), int(now.other_runs[i]))
            gain = float(now.difference[i]) * (-1 if rules.better == "lower" else 1)
            verdict = _verdict(fewest, gain, bool(self.differs[i]), bool(self.same[i]), k, ended)
            words = self._words(verdict, i, k, ended, more)
            if verdict == "undecided":
                words = (undecided or self.undecided)(i)
            if verdict == "undecided" and rules.population.judged and (why := rules.population.unknown(name)):
                verdict, words = "no_predictions", f"not judged for new images: {why}"
            found[name] = Effect(
                runs=int(now.runs[i]),
                other_runs=int(now.other_runs[i]),
                paired=bool(self.paired[i]),
                **{column: float(values[i]) for column, values in columns.items()},
                verdict=verdict,
                words=words,
                notes=tuple(self._notes(i, k, ended)),
            )
        return found

    def baseline(self) -> Effect:
        """What stands in the baseline's own row."""
        unpaired = np.flatnonzero(~self.paired)
        if not len(unpaired):
            return untested("baseline")
        now, one = self.now, unpaired[0]
        large = large_scatter(float(now.other_own[one]), float(now.typical[one]))
        note = f"its runs, the baseline's, scatter {large}: every interval against it is too short"
        return untested("baseline", notes=(note,) if large else ())

    def undecided(self, row: int) -> str:
        """What would decide a row, as in "undecided; about 7 seeds if it is as large as it looks; to show equivalence,
        more than 50"."""
        if self.now.standard_error[row] == 0:
            return NO_SPREAD
        open_rows = len(self.paired) if self.rules.strict else int((~(self.differs | self.same)).sum())
        sides, margin = self.sides(row), self.rules.margin
        needed = needed_words(sides.seeds_to_decide(open_rows, difference=float(self.now.difference[row])))
        if margin is None:
            return needed
        return needed + equivalence_words(sides.seeds_to_decide(open_rows, margin=margin))

    def sides(self, row: int) -> Sides:
        """The two groups of runs that a row's comparison is of."""
        now = self.now
        # What the verdict's interval owes to the images no further seed takes away.
        images = float(self._noise.standard_error[row] ** 2) if self.rules.population.judged else 0.0
        variances = float(now.variance[row]), float(now.other_variance[row])
        return Sides(variances, (int(now.runs[row]), int(now.other_runs[row])), float(self.borrowed[row]), images)

    def _words(self, verdict: Verdict, row: int, k: int, ended: int, more: str) -> str:
        runs, others = int(self.now.runs[row]), int(self.now.other_runs[row])
        what, fewest, margin = "pair" if self.paired[row] else "run", min(runs, others), self.rules.margin
        if verdict == "did_not_train":
            return did_not_train_words(ended)
        if runs < FEWEST and k:
            have = {0: f"no {what} is left", 1: f"1 {what} is too few", 2: f"2 {what}s are too few"}[runs]
            more = more or ("add a seed" if runs == FEWEST - 1 else f"add {FEWEST - runs} seeds")
            return f"undecided: {rate_words(k, ended)}; {have}; {more}"
        of_baseline = "" if runs <= others else " of the baseline"
        return {
            "none": "no pair of seeds with the baseline" if self.paired[row] else f"no run{of_baseline} to compare",
            "one_seed": f"one seed{of_baseline}: cannot tell",
            "too_few": f"{fewest} {what}s{of_baseline}: too few for a verdict",
            "equivalent": f"equivalent (within ±{margin:g})" if margin else "",
            "better_small": f"better, by less than {margin:g}" if margin else "",
            "worse_small": f"worse, by less than {margin:g}" if margin else "",
        }.get(verdict, verdict)

    def _notes(self, row: int, k: int, ended: int) -> list[str]:
        now, notes = self.now, []
        runs = int(now.runs[row])
        if large := large_scatter(float(now.own[row]), float(now.typical[row])):
            of = "its differences" if self.paired[row] else "its runs"
            notes.append(f"{of} scatter {large}: its own interval is too short at n={runs}")
        if now.standard_error[row] == 0:
            notes.append("the figure is the same at every seed, and its smallest step is not known: nothing is tested")
        elif runs and now.floored[row]:
            notes.append("its seeds agree within one test image: the scatter of a rounded figure is assumed")
        if k and runs:
            notes.append(
                f"{rate_words(k, ended)}: the difference is that of runs that converge, "
                "about 0.4 sd too good if it is the worst fifth of runs that diverges"
            )
        return notes


def needed_words(seeds: int | None) -> str:
    return f"undecided; {_about(seeds)} seeds if it is as large as it looks"


def equivalence_words(seeds: int | None) -> str:
    return f"; to show equivalence, {_about(seeds)}"


def _about(seeds: int | None) -> str:
    return f"more than {MOST}" if seeds is None else f"about {seeds}"


def large_scatter(own: float, typical: float) -> str:
    """As in "4.2 times as much as is typical here"; empty where it is not that large, or not known."""
    if not own > LARGE_SCATTER**2 * typical:
        return ""
    return f"{math.sqrt(own / typical):.1f} times as much as is typical here" if typical > 0 else "as no other's do"


def _verdict(fewest: int, gain: float, differs: bool, same: bool, k: int, ended: int) -> Verdict:
    if ended and k == ended:
        return "did_not_train"
    if fewest < FEWEST:
        few: tuple[Verdict, ...] = ("none", "one_seed", "too_few")
        return few[fewest]
    if differs and same:
        return "better_small" if gain > 0 else "worse_small"
    if differs:
        return "better" if gain > 0 else "worse"
    return "equivalent" if same else "undecided"
