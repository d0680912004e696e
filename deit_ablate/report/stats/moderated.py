"""The formulas behind a table's verdicts, on arrays: many tables at once, or one. Imports numpy.

Arrays end in (rows, seeds) or (rows,); what stands before are independent tables, so that ``benchmarks/statistics.py``
simulates thousands of tables with the very lines that judge a real one. Values are in points of top-1; NaN is missing.

The test is a paired t whose variance is moderated: each row's own is drawn towards the rows' median, as if that were
known from a few more seeds (the form of Smyth 2004, doi 10.2202/1544-6115.1027, with a fixed weight in place of its
estimated one, which lets false findings through where rows scatter unequally).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deit_ablate.report.stats.power import ALPHA, PRIOR_DF

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.intp]

ROUNDING = 1e-18
"""A variance under this (points squared) is the rounding of equal differences: nothing."""


@dataclass(frozen=True)
class Moderated:
    """Each row against the baseline. All (..., rows), but ``prior_variance`` and ``prior_df`` (..., 1), one a table.

    ``difference`` in points, variances in points squared. A row with one pair or none has no ``own_variance``, no
    ``standard_error`` and no ``df`` (NaN); one without any spread (its own and the other rows') has a standard error of
    0, with which nothing is tested.
    """

    pairs: Counts
    difference: Array
    own_variance: Array
    prior_variance: Array
    prior_df: Array
    standard_error: Array
    df: Array

    @property
    def p(self) -> Array:
        """Two-sided p of "no difference"; NaN where the standard error is 0 or unknown."""
        from scipy.special import stdtr

        return np.asarray(np.minimum(1.0, 2 * stdtr(self.df, -np.abs(self._over_error(self.difference)))))

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


def moderate(differences: Array, resolution: float = 0.0) -> Moderated:
    """Differences (..., rows, seeds) in points, row - baseline at the same seed, NaN where there is no pair.

    ``resolution`` is the smallest step of a figure, in points (one test image: 100 / their number): a variance is taken
    to be at least that of a rounding difference, its square / 6.
    """
    given = ~np.isnan(differences)
    pairs = given.sum(axis=-1)
    mean = np.divide(
        np.where(given, differences, 0).sum(axis=-1), pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0
    )
    squares = np.where(given, differences - mean[..., None], 0) ** 2
    own = np.divide(squares.sum(axis=-1), pairs - 1, out=np.full(pairs.shape, np.nan), where=pairs > 1)
    own[own < ROUNDING] = 0
    known = pairs > 1
    df = np.where(known, pairs - 1.0, np.nan)
    prior = _median(own / _median_of_chi_square(df))
    # What is borrowed is what the other rows know: a table in which one row alone has a variance lends it nothing.
    prior_df = np.clip(known.sum(axis=-1, keepdims=True) - 1.0, 0, PRIOR_DF)
    moderated = (prior_df * np.nan_to_num(prior) + df * own) / (prior_df + df)
    error = np.sqrt(np.maximum(moderated, resolution**2 / 6) / np.maximum(pairs, 1))
    return Moderated(pairs, mean, own, prior, prior_df, error, prior_df + df)


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
    differences: Array,
    looks: Sequence[int],
    weights: Sequence[float],
    margin: float | None = None,
    resolution: float = 0.0,
    strict: bool = False,
    fewest: int = 3,
) -> Looks:
    """Decide rows at each look, at which ``differences[..., :looks[k]]`` (..., rows, seeds) are known.

    A row that is decided stops: later looks see it as it was then, its variance among the others'. By Bonferroni over
    the looks p / weight is a p whatever is decided on the way (Wassmer & Brannath 2016); Holm goes over the rows
    (Tamhane et al. 2021, doi 10.1002/sim.9128). A look at which a row has under ``fewest`` pairs gives it no p.
    """
    rows = differences.shape[:-1]
    p, equal = np.full(rows, np.nan), np.full(rows, np.nan)
    seeds = np.arange(differences.shape[-1])
    last, decided = np.zeros(rows, dtype=np.intp), np.zeros(rows, dtype=bool)
    for k, weight in enumerate(weights):
        last = np.where(decided, last, k)
        seen = np.where(seeds < np.asarray(looks)[last][..., None], differences, np.nan)
        now = moderate(seen, resolution)
        counts = ~decided & (now.pairs >= fewest)
        p = np.fmin(p, np.where(counts, np.minimum(1.0, now.p / weight), np.nan))
        decided_now = holds(p, strict)
        if margin is not None:
            equal = np.fmin(equal, np.where(counts, np.minimum(1.0, now.p_equivalent(margin) / weight), np.nan))
            decided_now |= holds(equal, strict)
        decided = decided | decided_now
    return Looks(p, equal, last, decided)


def _median(values: Array) -> Array:
    """The median over the last axis, NaN left out, kept as an axis of length 1 (np.nanmedian walks it in Python)."""
    ordered = np.sort(values, axis=-1)
    count = (~np.isnan(values)).sum(axis=-1, keepdims=True)
    if values.shape[-1] == 0:
        return np.full(count.shape, np.nan)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, values.shape[-1] - 1)
    return (np.take_along_axis(ordered, low, axis=-1) + np.take_along_axis(ordered, high, axis=-1)) / 2


def _median_of_chi_square(df: Array) -> Array:
    """The median of a chi-square over its degrees of freedom: by how much a typical variance estimate is too small."""
    from scipy.special import chdtri

    return np.asarray(chdtri(df, 0.5) / df)
