"""How far our rows agree with published ones: in sign, in order, and how sure that is. Imports numpy, then scipy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from deit_ablate.report.stats.moderated import Array, Comparisons, holds, moderate
from deit_ablate.report.stats.verdicts import DIFFERENT, Effect, side_by_side

RESAMPLES = 2000
NOT_AN_INTERVAL = "spread over seeds, not a confidence interval"
"""What the range of tau is: at 3 seeds it holds the true one in 3 to 90% of tables."""


@dataclass(frozen=True)
class Agreement:
    """``agree`` of ``decided`` rows have the published sign; of the other rows some are ``equivalent`` to the baseline.

    ``resolved`` of ``pairs`` pairs of rows differ by Holm over these pairs, ``in_order`` of them as published. ``tau``:
    Kendall's tau-b of our differences with the published ones over ``rows`` rows (NaN under 2, or where one side is all
    ties), ``tau_low`` to ``tau_high`` the middle 95% over resampled seeds; ``tau_by_chance`` how often as many
    unrelated rows, without ties, are at least as far from 0.
    """

    rows: int
    agree: int
    decided: int
    equivalent: int
    undecided: int
    unsigned: int
    """Decided rows of which the published difference is 0."""
    pairs: int
    resolved: int
    in_order: int
    tau: float
    tau_low: float
    tau_high: float
    tau_by_chance: float

    @property
    def words(self) -> tuple[str, ...]:
        """A sentence each on signs, pairs of rows, and tau (none on what cannot be said)."""
        rest = [f"{self.undecided} undecided"]
        rest += [f"{self.equivalent} equivalent"] if self.equivalent else []
        rest += [f"{self.unsigned} published without a difference"] if self.unsigned else []
        words = [f"signs agree in {self.agree} of {self.decided} decided rows ({', '.join(rest)})"]
        if self.pairs:
            words.append(
                f"{self.resolved} of {self.pairs} row pairs are resolved; {self.in_order} in the published order"
            )
        if not math.isnan(self.tau):
            chance = float(f"{100 * self.tau_by_chance:.2g}")  # 100% rather than 1e+02%
            words.append(
                f"Kendall's tau-b with the published differences {self.tau:.2f} ({self.tau_low:.2f} to "
                f"{self.tau_high:.2f}: {NOT_AN_INTERVAL}); {self.rows} unrelated rows come as far from 0 "
                f"in {chance:g}% of cases"
            )
        return tuple(words)


def agreement(
    rows: Mapping[str, Mapping[int, float]],
    baseline: Mapping[int, float],
    published: Mapping[str, float],
    judged: Mapping[str, Effect],
    *,
    paired: Callable[[str, str], bool] = lambda one, two: False,
    resolution: float = 0.0,
) -> Agreement:
    """Compare with ``published``, row -> its difference from the baseline in points (those without one: left out).

    Rows and baseline are those of ``effects`` (seed -> top-1 in percent), ``judged`` its answer or ``sequential``'s, of
    which the verdicts are taken. Pairs of rows are judged as rows against a baseline are; ``paired`` says of which
    ones the two share a run or a parent at each seed.
    The same input gives the same answer: seeds are resampled by a fixed stream. Raises ValueError for a published
    difference that is not finite or a row that isn't judged, and as ``effects`` does.
    """
    names = [name for name in rows if name in published and not math.isnan(published[name])]
    if any(math.isinf(published[name]) for name in names):
        raise ValueError("a published difference is a number of points")
    if unjudged := [name for name in names if name not in judged]:
        raise ValueError(f"no verdict on {', '.join(unjudged)}")
    different = [name for name in names if judged[name].verdict in DIFFERENT]
    signed = [name for name in different if published[name] != 0]
    # Where a row ended with the baseline's very weights, as one that differs in a later stage does, it is no other.
    equivalent = sum(judged[name].verdict in ("equivalent", "no_effect") for name in names)
    values = side_by_side([baseline, *(rows[name] for name in names)])
    theirs = np.array([published[name] for name in names], dtype=np.float64)
    couples = list(itertools.combinations(range(len(names)), 2))
    together = [k for k, (i, j) in enumerate(couples) if paired(names[i], names[j])]
    resolved, in_order = _pairs(values[1:], theirs, Comparisons.of(couples, together), resolution)
    tau, low, high = _tau_over_seeds(values, theirs)
    with_both = int((~np.isnan(values[1:])).any(axis=1).sum()) if (~np.isnan(values[0])).any() else 0
    return Agreement(
        rows=with_both,
        agree=sum(judged[name].difference * published[name] > 0 for name in signed),
        decided=len(signed),
        equivalent=equivalent,
        undecided=len(names) - len(different) - equivalent,
        unsigned=len(different) - len(signed),
        pairs=len(couples),
        resolved=resolved,
        in_order=in_order,
        tau=tau,
        tau_low=low,
        tau_high=high,
        tau_by_chance=tau_by_chance(with_both, tau),
    )


def _pairs(values: Array, theirs: Array, comparisons: Comparisons, step: float) -> tuple[int, int]:
    """How many pairs of rows are resolved, and how many of these are in their order."""
    if not len(comparisons.first):
        return 0, 0
    now = moderate(values, comparisons, step)
    differs = holds(np.where(now.enough, now.p, np.nan))
    right = np.nan_to_num(now.difference) * (theirs[comparisons.first] - theirs[comparisons.second]) > 0
    return int(differs.sum()), int((differs & right).sum())


def _tau_over_seeds(values: Array, theirs: Array) -> tuple[float, float, float]:
    """Tau of the rows' mean differences from the baseline (the first group), and the middle 95% of it over runs drawn
    anew: by seed, the same ones for all rows, as far as they have them."""
    seeds = values.shape[1]
    if not seeds:
        return math.nan, math.nan, math.nan
    generator = np.random.Generator(np.random.PCG64(0))
    counts = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES)
    weights = np.vstack([np.ones_like(counts[:1]), counts]).astype(np.float64)
    total = weights @ (~np.isnan(values)).T.astype(np.float64)
    means = np.divide(weights @ np.nan_to_num(values).T, total, out=np.full(total.shape, np.nan), where=total > 0)
    differences = np.round(means[:, 1:] - means[:, :1], 9)  # rounded: ties are ties also after a mean
    observed, *resampled = kendall(differences, theirs)
    known = [value for value in resampled if not math.isnan(value)]
    low, high = np.quantile(known, [0.025, 0.975]) if known else (math.nan, math.nan)
    return float(observed), float(low), float(high)


def kendall(ours: Array, theirs: Array) -> Array:
    """Kendall's tau-b (1945) of each of ``ours`` (N, rows) with ``theirs`` (rows,), NaN left out: (N,), NaN where one
    side is all ties, or under 2 values. All at once, for thousands of resamples; scipy.stats has it for one."""
    first, second = np.triu_indices(len(theirs), 1)
    one, other = np.sign(ours[:, first] - ours[:, second]), np.sign(theirs[first] - theirs[second])
    known = ~(np.isnan(one) | np.isnan(other))
    one, other = np.where(known, one, 0), np.where(known, other, 0)
    with np.errstate(invalid="ignore"):
        tau = (one * other).sum(1) / np.sqrt(np.abs(one).sum(1)) / np.sqrt(np.abs(other).sum(1))
    return np.asarray(np.clip(tau, -1, 1))


def tau_by_chance(rows: int, tau: float) -> float:
    """The share, 0 to 1, of orders of ``rows`` rows whose tau is at least as far from 0 (exact, without ties)."""
    if math.isnan(tau) or rows < 2:
        return math.nan
    orders = [1]  # orders[k]: how many orders have k inversions
    for length in range(2, rows + 1):
        orders = [sum(orders[max(0, k - length + 1) : k + 1]) for k in range(len(orders) + length - 1)]
    most = rows * (rows - 1) // 2
    far = sum(count for k, count in enumerate(orders) if abs(most - 2 * k) >= abs(tau) * most - 1e-9)
    return far / math.factorial(rows)
