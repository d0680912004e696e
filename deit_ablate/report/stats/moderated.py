"""The formulas behind a table's verdicts, on arrays: many tables at once, or one. Imports numpy.

Arrays of figures end in (groups, seeds), those of comparisons in (comparisons,); what stands before are independent
tables, so that ``benchmarks/error_rates.py`` simulates thousands of tables with the very lines that judge a real one.
Values are in points of the metric; NaN is missing. A group is a row's runs; the baseline is one too.

Two groups that share no run are compared by Welch's t (1947) on all of their runs, because equal seeds make different
trainings hardly more alike than other seeds do (correlations of -0.3 to 0.3 in our reference studies), and pairing
would cost half of the degrees of freedom. Groups that share a run or a parent at each seed are paired. Either way the
variance of a group is moderated: raised towards what is usual among the groups, as if that were known from a few more
runs (the form of Smyth 2004, doi 10.2202/1544-6115.1027). Two rules keep rows that scatter unequally from costing
error, both chosen by simulation: what is lent is an upper quantile, and a group's variance is never lowered.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from deit_ablate.report.stats.power import ALPHA, FEWEST_LENDERS, LENT_BY_EACH, PRIOR_DF, PRIOR_QUANTILE
from deit_ablate.sweep.comparisons import FEWEST

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.intp]
Number = TypeVar("Number", bound=np.generic)

ROUNDING = 1e-18
"""A variance under this (points squared) is the rounding of equal figures: nothing."""


@dataclass(frozen=True)
class Comparisons:
    """Which groups are compared: ``first`` with ``second`` (their numbers), ``paired`` or not; all (comparisons,)."""

    first: Counts
    second: Counts
    paired: Flags

    @classmethod
    def of(cls, pairs: Sequence[tuple[int, int]], paired: Collection[int] = ()) -> Comparisons:
        """``paired``: the numbers of the comparisons that are paired by seed."""
        sides = np.array(pairs, dtype=np.intp).reshape(len(pairs), 2)
        return cls(sides[:, 0], sides[:, 1], np.isin(np.arange(len(pairs)), list(paired)))

    @classmethod
    def with_baseline(cls, rows: int, paired: Collection[int] = ()) -> Comparisons:
        """Groups 1 to ``rows``, each with group 0."""
        return cls.of([(row + 1, 0) for row in range(rows)], paired)


@dataclass(frozen=True)
class Spread:
    """What is known of the scatter of groups, or of paired differences: all (..., groups)."""

    runs: Counts
    mean: Array
    own: Array
    """Variance over the group's own runs; NaN under 2."""
    typical: Array
    """Variance that the groups lend."""
    variance: Array
    """Moderated, and at least that of a rounded figure."""
    df: Array
    floored: Flags
    """Whether the rounding of the figure decided."""


@dataclass(frozen=True)
class Moderated:
    """Each comparison, first - second. All (..., comparisons).

    ``runs`` and ``other_runs`` are those of the two groups (both the number of pairs where paired). ``own`` and
    ``other_own`` are the variances of their runs (of the differences, and 0, where paired), ``variance`` and
    ``other_variance`` the moderated ones, ``typical`` what was lent. Where a group has under two runs there is no
    standard error (NaN); with no spread at all it is 0, and nothing is tested.
    """

    runs: Counts
    other_runs: Counts
    difference: Array
    own: Array
    other_own: Array
    typical: Array
    variance: Array
    other_variance: Array
    standard_error: Array
    df: Array
    floored: Flags

    @property
    def enough(self) -> Flags:
        """Whether both groups have the runs that a verdict takes."""
        return np.asarray(np.minimum(self.runs, self.other_runs) >= FEWEST)

    @property
    def p(self) -> Array:
        """Two-sided p of "no difference"; NaN where the standard error is 0 or unknown."""
        from scipy.special import stdtr

        return np.asarray(np.minimum(1.0, 2 * stdtr(self.df, -np.abs(self._over_error(self.difference)))))

    @property
    def p_plain(self) -> Array:
        """p of each comparison as if it were the only one: Welch's test or the paired t, without any moderation."""
        from scipy.special import stdtr

        squared, df = self.unmoderated()
        with np.errstate(divide="ignore", invalid="ignore"):
            p = np.minimum(1.0, 2 * stdtr(df, -np.abs(self.difference) / np.sqrt(squared)))
        return np.where(squared > 0, p, np.nan)

    def unmoderated(self) -> tuple[Array, Array]:
        """The squared standard error and its degrees of freedom by the groups' own variances (Welch, Satterthwaite)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            share, other = self.own / self.runs, self.other_own / self.other_runs
            parts = share**2 / (self.runs - 1) + other**2 / (self.other_runs - 1)
            return share + other, (share + other) ** 2 / parts

    def p_equivalent(self, margin: float) -> Array:
        """p of "the difference is ``margin`` points or more": two one-sided tests (TOST, Schuirmann 1987)."""
        from scipy.special import stdtr

        above, below = self._over_error(self.difference + margin), self._over_error(self.difference - margin)
        return np.asarray(np.maximum(stdtr(self.df, -above), stdtr(self.df, below)))

    def half_width(self, alpha: float | Array = ALPHA) -> Array:
        """Half-width of the two-sided interval of level 1 - alpha, in points; over m rows at once: alpha/m."""
        from scipy.special import stdtrit

        return np.asarray(stdtrit(self.df, 1 - np.asarray(alpha) / 2) * self.standard_error)

    def _over_error(self, value: Array) -> Array:
        return np.divide(value, self.standard_error, out=np.full_like(value, np.nan), where=self.standard_error > 0)


def moderate(values: Array, comparisons: Comparisons, resolution: float = 0.0) -> Moderated:
    """Compare groups of runs: ``values`` (..., groups, seeds) in points, NaN where there is no run.

    ``resolution`` is the smallest step of a figure, in points (one test image: 100 / their number): a figure's variance
    is taken to be at least that of its rounding, the step's square / 12.
    """
    paired, rounding = comparisons.paired, resolution**2 / 12
    first, second = comparisons.first, comparisons.second
    compared = np.unique(np.concatenate([first[~paired], second[~paired]]))
    alone = _spread(values[..., compared, :], rounding, paired=False)
    one, two = (np.searchsorted(compared, side[~paired]) for side in (first, second))
    together = _spread(values[..., first[paired], :] - values[..., second[paired], :], 2 * rounding, paired=True)

    def merged(unpaired: npt.NDArray[Number], of_pairs: npt.NDArray[Number]) -> npt.NDArray[Number]:
        result = np.empty((*values.shape[:-2], len(paired)), dtype=unpaired.dtype)
        result[..., ~paired], result[..., paired] = unpaired, of_pairs
        return result

    nothing = np.zeros_like(together.variance)
    runs = merged(alone.runs[..., one], together.runs)
    others = merged(alone.runs[..., two], together.runs)
    variance = merged(alone.variance[..., one], together.variance)
    other_variance = merged(alone.variance[..., two], nothing)
    share, other_share = (
        np.divide(of_group, n, out=np.full(of_group.shape, np.nan), where=n > 0)
        for of_group, n in ((variance, runs), (other_variance, others))
    )
    squared = share + other_share
    df, other_df = (merged(alone.df[..., side], together.df) for side in (one, two))
    # Welch & Satterthwaite; of paired differences the other share is nothing, and the first one's df is left.
    parts = share**2 / df + other_share**2 / other_df
    return Moderated(
        runs=runs,
        other_runs=others,
        difference=merged(alone.mean[..., one] - alone.mean[..., two], together.mean),
        own=merged(alone.own[..., one], together.own),
        other_own=merged(alone.own[..., two], nothing),
        typical=merged(alone.typical[..., one], together.typical),
        variance=variance,
        other_variance=other_variance,
        standard_error=np.sqrt(squared),
        df=np.divide(squared**2, parts, out=df.copy(), where=parts > 0),
        floored=merged(alone.floored[..., one] | alone.floored[..., two], together.floored),
    )


def _spread(values: Array, rounding: float, paired: bool) -> Spread:
    """Of (..., groups, seeds), runs or ``paired`` differences: each group's number, mean and variances."""
    given = ~np.isnan(values)
    runs = given.sum(axis=-1)
    unknown = np.full(runs.shape, np.nan)
    mean = np.divide(np.where(given, values, 0).sum(axis=-1), runs, out=unknown.copy(), where=runs > 0)
    squares = (np.where(given, values - mean[..., None], 0) ** 2).sum(axis=-1)
    own = np.divide(squares, runs - 1, out=unknown.copy(), where=runs > 1)
    own[own < ROUNDING] = 0
    known = runs > 1
    df = np.where(known, runs - 1.0, np.nan)
    typical = _upper(own / _median_of_chi_square(df))
    # What is lent is what the other groups know: one that has a variance alone is lent nothing.
    lenders = known.sum(axis=-1, keepdims=True)
    lent = np.where(lenders < FEWEST_LENDERS[paired], 0, np.minimum(LENT_BY_EACH * (lenders - 1.0), PRIOR_DF))
    variance = np.maximum(own, (lent * np.nan_to_num(typical) + df * own) / (lent + df))
    floored = variance < rounding * (1 - 1e-9)
    variance = np.where(floored, rounding, variance)
    return Spread(runs, mean, own, np.broadcast_to(typical, own.shape), variance, lent + df, floored)


def holm(p: Array) -> Array:
    """Holm's adjusted p (1979) over the last axis: compare with 0.05. Unknown ones (NaN) count as rows and stay NaN."""
    if p.shape[-1] == 0:
        return p.copy()
    order = np.argsort(np.where(np.isnan(p), np.inf, p), axis=-1, kind="stable")
    rest = p.shape[-1] - np.arange(p.shape[-1])
    stepped = np.minimum(1.0, np.maximum.accumulate(np.take_along_axis(p, order, axis=-1) * rest, axis=-1))
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, stepped, axis=-1)
    return adjusted


def holds(p: Array, strict: bool = False) -> Flags:
    """Which rows of a table (last axis) are decided, by Holm at 5%; ``strict``: by Bonferroni. NaN is not decided."""
    adjusted = p * p.shape[-1] if strict else holm(p)
    return np.nan_to_num(adjusted, nan=1.0) <= ALPHA


@dataclass(frozen=True)
class Looks:
    """Verdicts by looks at growing numbers of seeds. All (..., rows), after the last look that was taken.

    ``p`` and ``p_equivalent`` are the smallest of p / weight over a row's looks (NaN where there is none),
    ``last`` the last look (from 0) that saw the row go on, ``decided`` whether it then stopped.
    """

    p: Array
    p_equivalent: Array
    last: Counts
    decided: Flags


def look_by_look(
    values: Array,
    comparisons: Comparisons,
    looks: Sequence[tuple[int, int]],
    weights: Sequence[float],
    margin: float | None = None,
    resolution: float = 0.0,
    strict: bool = False,
    ready: Flags | None = None,
) -> Looks:
    """Decide rows at each look, a pair: how many seeds of a row it sees, and of the baseline.

    ``values`` (..., 1 + rows, seeds) are the baseline's and the rows', in the order of ``comparisons`` (those of
    ``Comparisons.with_baseline``). A row that is decided stops: later looks see it as it was then, its variance among
    the others'. By Bonferroni over the looks p / weight is a p whatever is decided on the way (Wassmer & Brannath
    2016); Holm goes over the rows (Tamhane et al. 2021, doi 10.1002/sim.9128). A look at which a row has too few runs
    gives it no p, nor does one that it is not ``ready`` for (looks, ..., rows): the smallest of fewer p is larger, so
    that a row may leave out a look for whatever reason.
    """
    rows = (*values.shape[:-2], values.shape[-2] - 1)
    p, equal = np.full(rows, np.nan), np.full(rows, np.nan)
    last, decided = np.zeros(rows, dtype=np.intp), np.zeros(rows, dtype=bool)
    for k, weight in enumerate(weights):
        looked = ~decided if ready is None else ~decided & ready[k]
        last = np.where(looked, k, last)
        now = moderate(seen(values, looks, last, k), comparisons, resolution)
        counts = looked & now.enough
        p = np.fmin(p, np.where(counts, np.minimum(1.0, now.p / weight), np.nan))
        decided_now = holds(p, strict)
        if margin is not None:
            equal = np.fmin(equal, np.where(counts, np.minimum(1.0, now.p_equivalent(margin) / weight), np.nan))
            decided_now |= holds(equal, strict)
        decided = decided | decided_now
    return Looks(p, equal, last, decided)


def seen(values: Array, looks: Sequence[tuple[int, int]], last: Counts, baseline: int) -> Array:
    """What is seen of ``values`` (..., 1 + rows, seeds), when look ``baseline`` is the baseline's and ``last`` (...,
    rows) the rows': NaN beyond."""
    of_rows, of_baseline = (np.array([look[side] for look in looks]) for side in (0, 1))
    first = np.broadcast_to(of_baseline[baseline], (*last.shape[:-1], 1))
    seeds = np.concatenate([first, of_rows[last]], axis=-1)
    return np.where(np.arange(values.shape[-1]) < seeds[..., None], values, np.nan)


def _upper(values: Array) -> Array:
    """The upper quantile over the last axis that groups lend, NaN left out, kept as an axis of length 1.

    It is never the largest, so that one wild group lends nothing of its scatter to the others.
    """
    ordered = np.sort(values, axis=-1)
    count = (~np.isnan(values)).sum(axis=-1, keepdims=True)
    if values.shape[-1] == 0:
        return np.full(count.shape, np.nan)
    place = np.clip(np.minimum(PRIOR_QUANTILE * (count - 1), count - 2), 0, None)
    low = np.floor(place).astype(np.intp)
    high = np.clip(low + 1, 0, np.maximum(count - 1, 0))
    lower, higher = (np.take_along_axis(ordered, at, axis=-1) for at in (low, high))
    return np.asarray(lower + (place - low) * (higher - lower))


def _median_of_chi_square(df: Array) -> Array:
    """The median of a chi-square over its degrees of freedom: by how much a typical variance estimate is too small."""
    from scipy.special import chdtri

    return np.asarray(chdtri(df, 0.5) / df)
