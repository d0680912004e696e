"""Exact figures of small counts: how often runs diverge, whether more often than the baseline, the sign-flip test.

Imports numpy, and scipy.special when used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from deit_ablate.report.stats.moderated import holm

FEWEST_FLIPS, MOST_FLIPS = 6, 40
"""Pairs under which a sign-flip p says nothing (2 of 2^5 patterns are 0.06), and above which it isn't enumerated."""


@dataclass(frozen=True)
class Divergence:
    """``diverged`` of ``ended`` runs; the rate's 95% interval ``low`` to ``high`` (0 to 1); p against the baseline."""

    diverged: int
    ended: int
    low: float
    high: float
    p: float
    p_holm: float

    @property
    def words(self) -> str:
        """As in "1 of 3 diverged (0.8–91%)"."""
        return rate_words(self.diverged, self.ended)


def divergence(rows: Mapping[str, tuple[int, int]], baseline: tuple[int, int]) -> dict[str, Divergence]:
    """Do rows diverge more, or less, often than the baseline? (diverged, ended) each; Fisher's exact test, with Holm.

    A family of its own beside the table's differences. At 3 runs each nothing can be shown (p is at least 0.1), at 4
    all against none is 0.029. A row without an ended run has NaN. Raises ValueError as ``rate`` does.
    """
    p = np.array([fisher(counts, baseline) for counts in rows.values()], dtype=np.float64)
    adjusted = holm(p)
    return {
        name: Divergence(k, n, *rate(k, n), float(p[i]), float(adjusted[i]))
        for i, (name, (k, n)) in enumerate(rows.items())
    }


def rate(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of a rate of which ``k`` of ``n`` were seen, 0 to 1 (Clopper & Pearson 1934); NaN of no runs.

    Raises ValueError where k is not in 0..n.
    """
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n} is no count")
    if n == 0:
        return math.nan, math.nan
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    return (
        float(betaincinv(k, n - k + 1, tail)) if k > 0 else 0.0,
        float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0,
    )


def rate_words(k: int, n: int) -> str:
    """As in "1 of 3 diverged (0.8–91%)". Raises ValueError as ``rate`` does."""
    if n == 0:
        return "no run has ended"
    low, high = rate(k, n)
    return f"{k} of {n} diverged ({_percent(low)}–{_percent(high)}%)"


def did_not_train_words(n: int) -> str:
    """As in "did not train (3 of 3; rate at least 29%)"."""
    return f"did not train ({n} of {n}; rate at least {_percent(rate(n, n)[0])}%)"


def fisher(one: tuple[int, int], two: tuple[int, int]) -> float:
    """Two-sided p of Fisher's exact test that two (k, n) have one rate; NaN where either n is 0. Raises as ``rate``."""
    (k1, n1), (k2, n2) = one, two
    for k, n in (one, two):
        rate(k, n)
    if n1 == 0 or n2 == 0:
        return math.nan
    together = k1 + k2
    ways = [math.comb(n1, k) * math.comb(n2, together - k) for k in range(together + 1)]
    return float(Fraction(sum(way for way in ways if way <= ways[k1]), sum(ways)))


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided p of the mean's distance from 0 over all 2^n signs of n paired differences; NaN under 6 or over 40.

    It is at least 2^(1-n), so after Holm over 5 rows it needs 8 pairs to reach 0.05: to read beside the t test.
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
    beyond = (
        len(other) - np.searchsorted(other, seen - half, side="left") + np.searchsorted(other, -seen - half, "right")
    )
    return float(beyond.sum()) / 2.0**n


def _signed_sums(values: np.typing.NDArray[np.float64]) -> np.typing.NDArray[np.float64]:
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f}" if percent >= 9.95 or percent == 0 else f"{percent:.1f}"
