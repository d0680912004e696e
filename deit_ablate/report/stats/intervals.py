"""What a few seeds say: a mean with its t interval, and the difference from the baseline, paired by seed.

Nothing here is a verdict. Imports scipy.special when used (half the time of scipy.stats).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """mean ± half_width, in the unit of the values, from ``n`` of them. What n does not allow is NaN."""

    mean: float
    half_width: float
    n: int


def mean_interval(values: Iterable[float], level: float = 0.95) -> Interval:
    """The mean and the half-width of its two-sided t interval; one value has no interval, none no mean.

    Missing values (NaN) are left out. Raises ValueError for an infinite value, or a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval lies between 0 and 1, not {level}")
    given = [float(value) for value in values if not math.isnan(value)]
    if any(math.isinf(value) for value in given):
        raise ValueError("an infinite value has no place in a mean")
    n = len(given)
    if n == 0:
        return Interval(math.nan, math.nan, 0)
    mean = math.fsum(given) / n
    if n == 1:
        return Interval(mean, math.nan, 1)
    from scipy.special import stdtrit

    variance = math.fsum((value - mean) ** 2 for value in given) / (n - 1)
    return Interval(mean, float(stdtrit(n - 1, 0.5 + level / 2)) * math.sqrt(variance / n), n)


def paired_difference(row: Mapping[int, float], baseline: Mapping[int, float], level: float = 0.95) -> Interval:
    """The mean of row - baseline over the seeds that both have, with its t interval; ``n`` counts the pairs.

    Both map a seed to a value; a missing value (NaN) makes no pair. Raises ValueError as mean_interval does.
    """
    return mean_interval((row[seed] - baseline[seed] for seed in sorted(row.keys() & baseline.keys())), level)
