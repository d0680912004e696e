"""What a few runs say by themselves: intervals of a mean and of a rate of divergence, and the sign-flip test.

Imports numpy, and scipy when used: of a mean scipy.special, of a rate scipy.stats, which takes most of a second.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

FEWEST_FLIPS, MOST_FLIPS = 6, 40
"""Pairs under which a sign-flip p says nothing (2 of 2^5 patterns are 0.06), and above which it isn't enumerated."""


@dataclass(frozen=True)
class Interval:
    """mean ± half_width, in the unit of the values, from ``n`` of them. What n does not allow is NaN."""

    mean: float
    half_width: float
    n: int


def mean_interval(values: Iterable[float]) -> Interval:
    """The mean and the half-width of its two-sided 95% t interval; one value has no interval, none no mean.

    Missing values (NaN) are left out. Raises ValueError for an infinite value.
    """
    given = [float(value) for value in values if not math.isnan(value)]
    if any(math.isinf(value) for value in given):
        raise ValueError("a mean of infinite values is not defined")
    n = len(given)
    if n < 2:
        return Interval(given[0] if given else math.nan, math.nan, n)
    from scipy.special import stdtrit

    mean = math.fsum(given) / n
    variance = math.fsum((value - mean) ** 2 for value in given) / (n - 1)
    return Interval(mean, float(stdtrit(n - 1, 0.975)) * math.sqrt(variance / n), n)


def check_count(k: int, n: int) -> None:
    """Raises ValueError where ``k`` of ``n`` runs cannot be."""
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n} runs is not a possible count")


def rate(k: int, n: int) -> tuple[float, float]:
    """The 95% interval of a rate of which ``k`` of ``n`` were seen, 0 to 1 (Clopper & Pearson 1934); NaN of no runs.

    Raises ValueError where k is not in 0..n.
    """
    check_count(k, n)
    if n == 0:
        return math.nan, math.nan
    from scipy.stats import binomtest

    interval = binomtest(k, n).proportion_ci()
    return float(interval.low), float(interval.high)


def rate_words(k: int, n: int) -> str:
    """As in "1 of 3 diverged (0.8–91%)". Raises ValueError as ``rate`` does."""
    if n == 0:
        return "no run has ended"
    low, high = rate(k, n)
    return f"{k} of {n} diverged ({_percent(low)}–{_percent(high)}%)"


def did_not_train_words(n: int) -> str:
    """As in "did not train (3 of 3; rate at least 29%)"."""
    return f"did not train ({n} of {n}; rate at least {_percent(rate(n, n)[0])}%)"


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided p of the mean's distance from 0 over all 2^n signs of n paired differences; NaN under 6 or over 40.

    It is at least 2^(1-n), so after Holm over 5 rows it needs 8 pairs to reach 0.05: to read beside the t test. Written
    here because scipy's permutation test compares unrounded sums, and so miscounts ties.
    """
    n = len(differences)
    if not FEWEST_FLIPS <= n <= MOST_FLIPS:
        return math.nan
    values = np.asarray(differences, dtype=np.float64)
    # Sums of one half's signs are looked up among the sorted sums of the other's: 2^(n/2) look-ups, not 2^n sums.
    half, other = (_signed_sums(part) for part in (values[: n // 2], values[n // 2 :]))
    other.sort()
    seen = abs(float(values.sum())) - 1e-9 * float(np.abs(values).sum())  # ties are ties also after rounding
    if seen <= 0:
        return 1.0
    above = len(other) - np.searchsorted(other, seen - half, side="left")
    below = np.searchsorted(other, -seen - half, side="right")
    return float((above + below).sum()) / 2.0**n


def _signed_sums(values: np.typing.NDArray[np.float64]) -> np.typing.NDArray[np.float64]:
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f}" if percent >= 9.95 or percent == 0 else f"{percent:.1f}"
