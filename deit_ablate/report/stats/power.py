"""What a planned table can find, before it runs, and by how much a search's winner flatters. Imports no numpy.

Effects are in sd: how much the top-1 of one row's trainings scatters from seed to seed. ``rows`` counts those that are
compared, without the baseline. scipy.special is imported when used (it gives Student's quantiles).
"""

from __future__ import annotations

import math

ALPHA = 0.05
"""The share of tables with a false difference that is accepted; likewise of those with a false equivalence."""
POWER = 0.8
PRIOR_DF = 3
"""How many degrees of freedom a row borrows from the others at most."""
FEWEST = 3
"""Pairs of seeds under which there is no verdict."""
MOST = 50
"""Seeds above which a plan says "more than"."""


def detectable(rows: int, seeds: int, correlation: float = 0.0) -> float:
    """The difference from the baseline, in sd, that a table finds with a power of about 0.8; infinite under 3 seeds.

    ``correlation`` is that of a row with the baseline over seeds. The variance is taken as if the rows lent exactly
    their 3 degrees of freedom, so that the true power is lower at few seeds: 0.71 at 3 seeds and 5 rows. Raises
    ValueError for no rows, or a correlation that is not in [-1, 1).
    """
    scale = _scale(rows, max(seeds, 1), correlation)
    if seeds < FEWEST:
        return math.inf
    df = _df(rows, seeds)
    return (_quantile(df, 1 - ALPHA / 2 / rows) + _quantile(df, POWER)) * scale


def provable_margin(rows: int, seeds: int, correlation: float = 0.0) -> float:
    """The margin, in sd, within which a row without any difference is found equivalent with a power of about 0.8.

    Each of the two one-sided tests is given a power of 0.9. Infinite under 3 seeds; raises as ``detectable`` does.
    """
    scale = _scale(rows, max(seeds, 1), correlation)
    if seeds < FEWEST:
        return math.inf
    df = _df(rows, seeds)
    return (_quantile(df, 1 - ALPHA / rows) + _quantile(df, (1 + POWER) / 2)) * scale


def power(effect: float, rows: int, seeds: int, correlation: float = 0.0) -> float:
    """The chance that the first step of Holm finds a difference of ``effect`` sd, by the noncentral t; 0 under 3 seeds.

    Too high by 0.05 at 3 seeds of several rows, where the borrowed variance is itself uncertain. Raises as
    ``detectable`` does.
    """
    scale = _scale(rows, max(seeds, 1), correlation)
    if seeds < FEWEST:
        return 0.0
    df = _df(rows, seeds)
    shift, threshold = effect / scale, _quantile(df, 1 - ALPHA / 2 / rows)
    # The noncentral t of scipy gives nan in its tails: average the normal's tails over the spread s instead, whose
    # density in log s is proportional to exp(df (log s - s²/2)).
    steps = 800
    low, high = -8 / math.sqrt(df) - 12 / df, 1 + 6 / math.sqrt(2 * df)
    total = found = 0.0
    for step in range(steps + 1):
        log_s = low + (high - low) * step / steps
        s = math.exp(log_s)
        weight = math.exp(df * (log_s - s * s / 2 + 0.5))
        total += weight
        found += weight * (_normal(shift - threshold * s) + _normal(-shift - threshold * s))
    return found / total


def seeds_for(effect: float, rows: int, correlation: float = 0.0) -> int | None:
    """The fewest seeds at which ``detectable`` is no more than ``effect`` sd; None above 50. Raises as it does."""
    for seeds in range(FEWEST, MOST + 1):
        if detectable(rows, seeds, correlation) <= abs(effect):
            return seeds
    return None


def plan_words(rows: int, seeds: int, correlation: float = 0.0) -> str:
    """What a plan of so many rows (without the baseline) and seeds can tell, in a line for people."""
    if rows == 0:
        return "no rows are compared"
    counted = f"{seeds} seed{'s' * (seeds != 1)}, {rows} row{'s' * (rows != 1)}"
    if seeds < 2:
        return f"{counted}: cannot tell rows apart"
    if seeds < FEWEST:
        return f"{counted}: too few for a verdict, which takes {FEWEST}"
    real = "0.7" if seeds < 5 else "0.8"
    return (
        f"{counted}: finds differences of about {detectable(rows, seeds, correlation):.1f} sd (power {real}), "
        f"shows equivalence within about ±{provable_margin(rows, seeds, correlation):.1f} sd "
        "(sd: of one row from seed to seed)"
    )


def seeds_to_decide(
    spread: float, prior_df: float, rows: int, done: int, margin: float | None = None, difference: float = 0.0
) -> int | None:
    """The fewest seeds, more than the ``done`` ones, at which a row would be decided with a power of 0.8; None above 50.

    ``spread`` is the moderated sd of its differences in points, ``rows`` how many rows are undecided. With a ``margin``
    (points) either verdict must be within reach of a difference of that size, or of none; without, the observed
    ``difference`` (points) is taken to be the true one.
    """
    for seeds in range(max(FEWEST, done + 1), MOST + 1):
        df = prior_df + seeds - 1
        needed = _quantile(df, 1 - ALPHA / 2 / rows) + _quantile(df, POWER)
        if margin is not None:
            needed = max(needed, _quantile(df, 1 - ALPHA / rows) + _quantile(df, (1 + POWER) / 2))
        reach = abs(difference) if margin is None else margin
        if reach > 0 and reach * math.sqrt(seeds) >= needed * spread:
            return seeds
    return None


def expected_maximum(n: int) -> float:
    """The mean of the largest of ``n`` independent standard normal values. Raises ValueError for n < 1."""
    if n < 1:
        raise ValueError(f"the largest of {n} values does not exist")
    # E = ∫ x n φ(x) Φ(x)^(n-1) dx by the trapezoid rule, which is exact to rounding for an integrand this smooth.
    step = 1 / 64
    grid = (step * k for k in range(-10 * 64, 10 * 64 + 1))
    return step * math.fsum(x * n * math.exp(-x * x / 2) / math.sqrt(2 * math.pi) * _normal(x) ** (n - 1) for x in grid)


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
    """A search's winner: what the search saw, what new seeds that chose nothing say, the difference; all in one unit."""
    return (
        f"search value {searched:.{digits}f}, confirmed {confirmed:.{digits}f} "
        f"({seeds} new seed{'s' * (seeds != 1)}), difference {confirmed - searched:+.{digits}f}"
    )


def _df(rows: int, seeds: int) -> int:
    return min(PRIOR_DF, rows - 1) + seeds - 1


def _scale(rows: int, seeds: int, correlation: float) -> float:
    """The standard error of a difference, in sd."""
    if rows < 1:
        raise ValueError("a table without rows finds nothing")
    if not -1 <= correlation < 1:
        raise ValueError(f"the correlation of a row with the baseline lies in [-1, 1), not at {correlation}")
    return math.sqrt(2 * (1 - correlation) / seeds)


def _quantile(df: float, probability: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


def _normal(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2
