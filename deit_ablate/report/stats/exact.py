"""What a few runs say by themselves: intervals of a mean and of a rate of divergence.

Imports numpy, and scipy when used: of a mean scipy.special, of a rate scipy.stats, which takes most of a second.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from deit_ablate.report.stats.moderated import ROUNDING
from deit_ablate.report.stats.power import ALPHA


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

    return Interval(math.fsum(given) / n, float(stdtrit(n - 1, 0.975)) * math.sqrt(_variance(given) / n), n)


def signal_to_noise(metrics: Sequence[Mapping[str, Mapping[int, float]]]) -> list[float]:
    """Of each metric (row -> seed -> value) the sd of the rows' means over the sd of a run from seed to seed, which is
    the root of the mean of the rows' variances. Over the rows that have 2 runs or more of every metric, so that ratios
    can be compared; NaN for fewer than 2 such rows, or without noise.
    """
    alike = [row for row in metrics[0] if all(len(values[row]) > 1 for values in metrics)] if metrics else []
    if len(alike) < 2:
        return [math.nan] * len(metrics)
    found = []
    for values in metrics:
        runs = [list(values[row].values()) for row in alike]
        noise = math.fsum(map(_variance, runs)) / len(runs)
        signal = _variance([math.fsum(own) / len(own) for own in runs])
        found.append(math.sqrt(signal / noise) if noise > ROUNDING else math.nan)
    return found


def _variance(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


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


def at_chance(top1: float, images: int, classes: int) -> bool:
    """Whether a top-1 in percent over so many images is no evidence of having learnt: not above one in ``classes`` by
    the exact binomial test at 5%. A statement about a value, which is kept and used."""
    from scipy.special import bdtrc

    right = round(top1 * images / 100)
    return right == 0 or float(bdtrc(right - 1, images, 1 / classes)) > ALPHA


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f}" if percent >= 9.95 or percent == 0 else f"{percent:.1f}"
