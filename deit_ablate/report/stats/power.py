"""What a planned table can find, before it runs, and the optimism (selection bias) of a search's winner.

Effects are in sd: how much the metric of one row's trainings scatters from seed to seed. ``rows`` counts those that are
compared, without the baseline. Imports numpy, and scipy.special (for Student's quantiles), only when used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from deit_ablate.errors import counted
from deit_ablate.sweep.comparisons import FEWEST

ALPHA = 0.05
"""The share of tables with a false difference that is accepted; likewise of those with a false equivalence."""
POWER = 0.8
PRIOR_DF = 2.5
"""How many degrees of freedom a group of runs borrows at most."""
LENT_BY_EACH = 0.7
"""How many of them each other group lends."""
FEWEST_LENDERS = 2, 3
"""How many groups, and how many paired differences, lend one another anything: of two differences, which share the
baseline's noise, the smaller one's variance would only seem better known (7.9% of tables had a false difference)."""
PRIOR_QUANTILE = 2 / 3
"""Which quantile of the groups' variances is lent."""
MOST = 50
"""Seeds above which a plan says "more than"."""


def detectable(rows: int, seeds: int, baseline: int | None = None) -> float:
    """The difference from the baseline, in sd, that a table finds with a power of about 0.8; infinite under 3 seeds.

    ``baseline``: its seeds, by default as many as a row's. What the rows lend is taken at its usual size, so that the
    true power is lower at few seeds of several rows. Raises ValueError for no rows.
    """
    return _in_sd(rows, seeds, baseline, _errors_to_differ)


def provable_margin(rows: int, seeds: int, baseline: int | None = None) -> float:
    """The margin, in sd, within which a row without any difference is found equivalent with a power of about 0.8.

    Each of the two one-sided tests is given a power of 0.9. Infinite under 3 seeds; raises as ``detectable`` does.
    """
    return _in_sd(rows, seeds, baseline, _errors_to_be_equivalent)


def _in_sd(rows: int, seeds: int, baseline: int | None, errors: Callable[[Any, float], Any]) -> float:
    if rows < 1:
        raise ValueError("a table without rows finds nothing")
    baseline = seeds if baseline is None else baseline
    if min(seeds, baseline) < FEWEST:
        return math.inf
    error, df = standard_error([_usual(rows, n) for n in (seeds, baseline)], [seeds, baseline], lent(rows + 1))
    return float(errors(df, rows) * error)


def lent(groups: int, paired: bool = False) -> float:
    """The degrees of freedom that each of so many groups of runs (paired differences) borrows."""
    return min(PRIOR_DF, LENT_BY_EACH * (groups - 1)) if groups >= FEWEST_LENDERS[paired] else 0.0


def standard_error(variances: Sequence[float], runs: Sequence[Any], borrowed: float) -> tuple[Any, Any]:
    """Of a difference of two means: in the unit of the values, with its degrees of freedom (Welch & Satterthwaite).
    ``runs``: of each group a number, or an array of them."""
    shares = [variance / n for variance, n in zip(variances, runs, strict=True)]
    parts = sum(share**2 / (borrowed + n - 1) for share, n in zip(shares, runs, strict=True))
    return sum(shares) ** 0.5, sum(shares) ** 2 / parts if any(variances) else math.inf


def _usual(rows: int, seeds: int) -> float:
    """What the moderated variance of a group is where all of ``rows`` + 1 groups have variance 1."""
    from scipy.special import chdtri

    groups, df, borrowed = rows + 1, seeds - 1, lent(rows + 1)
    place = max(0.0, min(PRIOR_QUANTILE * (groups - 1), groups - 2))
    typical = float(chdtri(df, 1 - (place + 1) / (groups + 1)) / chdtri(df, 0.5))
    return (borrowed * typical + df) / (borrowed + df)


def plan_words(rows: int, seeds: int, baseline: int | None = None) -> str:
    """What a plan of so many rows (without the baseline) and seeds can find, in one line."""
    if rows == 0:
        return "no rows are compared"
    baseline = seeds if baseline is None else baseline
    size = f"{counted(seeds, 'seed')}, {counted(rows, 'row')}"
    size += f", {baseline} seeds of the baseline" if baseline != seeds else ""
    if seeds < 2:
        return f"{size}: cannot tell rows apart"
    if seeds < FEWEST:
        return f"{size}: too few for a verdict, which takes {FEWEST}"
    real = "0.7" if seeds < 5 else "0.8"
    return (
        f"{size}: finds differences of about {detectable(rows, seeds, baseline):.1f} sd (power {real}), shows "
        f"equivalence within about ±{provable_margin(rows, seeds, baseline):.1f} sd (sd: of one row from seed to seed)"
    )


def detectable_effect(effects: int, rows: int, seeds: int) -> float:
    """The main effect, in sd, that a factorial of so many rows and effects finds with a power of about 0.8 (0.7 at few
    seeds, as the degrees of freedom are estimated). Infinite under 3 seeds."""
    if seeds < FEWEST:
        return math.inf
    return float(_errors_to_differ(rows * (seeds - 1), effects) * 2 / math.sqrt(rows * seeds))


def effects_words(effects: int, rows: int, seeds: int) -> str:
    """What a factorial of so many rows, seeds of each, and effects that are judged can find, in one line."""
    found = detectable_effect(effects, rows, seeds)
    if math.isinf(found):
        return f"effects: too few seeds for a verdict, which takes {FEWEST}"
    return (
        f"{effects} effects, each from all rows: finds main effects of about {found:.1f} sd, and interactions of "
        f"{2 * found:.1f} sd (what one factor makes of what the other adds); power {0.7 if seeds < 5 else 0.8}"
    )


@dataclass(frozen=True)
class Sides:
    """Two groups of runs that are compared: moderated variances and numbers of runs, row first.

    Of paired differences the second variance is 0. ``borrowed``: degrees of freedom that the variances were lent.
    ``images``: variance of the difference that the finite test set adds, whatever the seeds.
    """

    variances: tuple[float, float]
    runs: tuple[int, int]
    borrowed: float
    images: float = 0.0

    def seeds_to_decide(self, rows: float, *, difference: float = 0.0, margin: float | None = None) -> int | None:
        """The fewest seeds of the row, more than it has, that decide it with a power of 0.8; None above 50.

        The baseline grows with the row. ``rows``: how many are undecided, and share the 5%. To find ``difference`` if
        it is the true one; with a ``margin``, to show that there is none beyond it.
        """
        reach, errors = (abs(difference), _errors_to_differ) if margin is None else (margin, _errors_to_be_equivalent)
        row, baseline = self.runs
        import numpy as np

        seeds = np.arange(max(FEWEST, row + 1), MOST + 1)
        grown = seeds, np.maximum(baseline, np.round(baseline * seeds / row))
        error, df = standard_error(self.variances, grown, self.borrowed)
        total = np.hypot(error, math.sqrt(self.images))
        df = df * np.divide(total, error, out=np.ones(len(seeds)), where=error > 0) ** 4
        enough = seeds[reach >= errors(df, rows) * total]
        return int(enough[0]) if reach > 0 and len(enough) else None


def expected_maximum(n: int) -> float:
    """The mean of the largest of ``n`` independent standard normal values. Raises ValueError for n < 1."""
    if n < 1:
        raise ValueError(f"the largest of {n} values is not defined")
    # E = ∫ x n φ(x) Φ(x)^(n-1) dx by the trapezoid rule, which is exact to rounding for an integrand this smooth.
    step = 1 / 64
    grid, normal = (step * k for k in range(-10 * 64, 10 * 64 + 1)), NormalDist()
    return step * math.fsum(x * n * normal.pdf(x) * normal.cdf(x) ** (n - 1) for x in grid)


def optimism(trials: int, noise: float, between: float) -> float:
    """By how much the best of ``trials`` search values exceeds its own true value on average, in the unit of the sd.

    ``noise`` is the sd of one trial over seeds, ``between`` the sd of the trials' true values; both normal. Raises
    ValueError for no trials or a negative sd.
    """
    if noise < 0 or between < 0:
        raise ValueError("a standard deviation is not negative")
    total = math.hypot(noise, between)
    return noise**2 / total * expected_maximum(trials) if total else 0.0


def confirmed_words(searched: float, confirmed: float, seeds: int, digits: int = 2) -> str:
    """A search's winner: its value in the search, its mean over new seeds, and the difference; all in one unit."""
    return (
        f"search value {searched:.{digits}f}, confirmed {confirmed:.{digits}f} "
        f"({counted(seeds, 'new seed')}), difference {confirmed - searched:+.{digits}f}"
    )


def _errors_to_differ(df: Any, rows: float) -> Any:
    """The difference, in standard errors, that the first step of Holm finds with a power of 0.8."""
    return _quantile(df, 1 - ALPHA / 2 / rows) + _quantile(df, POWER)


def _errors_to_be_equivalent(df: Any, rows: float) -> Any:
    """The margin, in standard errors, within which no difference is found equivalent with a power of 0.8."""
    return _quantile(df, 1 - ALPHA / rows) + _quantile(df, (1 + POWER) / 2)


def _quantile(df: Any, probability: float) -> Any:
    from scipy.special import stdtrit

    return stdtrit(df, probability)
