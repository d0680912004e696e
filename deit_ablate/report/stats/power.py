"""What a planned table can find, before it runs, and the optimism (selection bias) of a search's winner.

Effects are in sd: how much the top-1 of one row's trainings scatters from seed to seed. ``rows`` counts those that are
compared, without the baseline. Imports no numpy, and scipy.special (for Student's quantiles) only when used.
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


def detectable(rows: int, seeds: int) -> float:
    """The difference from the baseline, in sd, that a table finds with a power of about 0.8; infinite under 3 seeds.

    The variance is taken as if the rows lent exactly their 3 degrees of freedom, so that the true power is lower at few
    seeds: 0.71 at 3 seeds and 5 rows. Raises ValueError for no rows.
    """
    df = _df(rows, seeds)
    return math.inf if seeds < FEWEST else _errors_to_differ(df, rows) * math.sqrt(2 / seeds)


def provable_margin(rows: int, seeds: int) -> float:
    """The margin, in sd, within which a row without any difference is found equivalent with a power of about 0.8.

    Each of the two one-sided tests is given a power of 0.9. Infinite under 3 seeds; raises as ``detectable`` does.
    """
    df = _df(rows, seeds)
    return math.inf if seeds < FEWEST else _errors_to_be_equivalent(df, rows) * math.sqrt(2 / seeds)


def power(effect: float, rows: int, seeds: int) -> float:
    """The chance that the first step of Holm finds a difference of ``effect`` sd, by the noncentral t; 0 under 3 seeds.

    Too high by 0.05 at 3 seeds of several rows, where the borrowed variance is itself uncertain. Raises as
    ``detectable`` does.
    """
    df = _df(rows, seeds)
    if seeds < FEWEST:
        return 0.0
    shift, threshold = effect / math.sqrt(2 / seeds), _quantile(df, 1 - ALPHA / 2 / rows)
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


def plan_words(rows: int, seeds: int) -> str:
    """What a plan of so many rows (without the baseline) and seeds can find, in one line."""
    if rows == 0:
        return "no rows are compared"
    counted = f"{seeds} seed{'s' * (seeds != 1)}, {rows} row{'s' * (rows != 1)}"
    if seeds < 2:
        return f"{counted}: cannot tell rows apart"
    if seeds < FEWEST:
        return f"{counted}: too few for a verdict, which takes {FEWEST}"
    real = "0.7" if seeds < 5 else "0.8"
    return (
        f"{counted}: finds differences of about {detectable(rows, seeds):.1f} sd (power {real}), "
        f"shows equivalence within about ±{provable_margin(rows, seeds):.1f} sd (sd: of one row from seed to seed)"
    )


def seeds_to_decide(
    spread: float, prior_df: float, rows: int, done: int, margin: float | None = None, difference: float = 0.0
) -> int | None:
    """The fewest seeds, more than ``done``, at which a row would be decided with a power of 0.8; None above 50.

    ``spread`` is the moderated sd of its differences in points, ``rows`` how many rows are undecided. With a ``margin``
    (points) either verdict must be within reach of a difference of that size, or of none; without, the observed
    ``difference`` (points) is taken to be the true one.
    """
    for seeds in range(max(FEWEST, done + 1), MOST + 1):
        df = prior_df + seeds - 1
        needed = _errors_to_differ(df, rows)
        if margin is not None:
            needed = max(needed, _errors_to_be_equivalent(df, rows))
        reach = abs(difference) if margin is None else margin
        if reach > 0 and reach * math.sqrt(seeds) >= needed * spread:
            return seeds
    return None


def expected_maximum(n: int) -> float:
    """The mean of the largest of ``n`` independent standard normal values. Raises ValueError for n < 1."""
    if n < 1:
        raise ValueError(f"the largest of {n} values is not defined")
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
    """A search's winner: its value in the search, its mean over new seeds, and the difference; all in one unit."""
    return (
        f"search value {searched:.{digits}f}, confirmed {confirmed:.{digits}f} "
        f"({seeds} new seed{'s' * (seeds != 1)}), difference {confirmed - searched:+.{digits}f}"
    )


def _df(rows: int, seeds: int) -> int:
    """Degrees of freedom of a row's moderated variance."""
    if rows < 1:
        raise ValueError("a table without rows finds nothing")
    return min(PRIOR_DF, rows - 1) + seeds - 1


def _errors_to_differ(df: float, rows: int) -> float:
    """The difference, in standard errors, that the first step of Holm finds with a power of 0.8."""
    return _quantile(df, 1 - ALPHA / 2 / rows) + _quantile(df, POWER)


def _errors_to_be_equivalent(df: float, rows: int) -> float:
    """The margin, in standard errors, within which no difference is found equivalent with a power of 0.8."""
    return _quantile(df, 1 - ALPHA / rows) + _quantile(df, (1 + POWER) / 2)


def _quantile(df: float, probability: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


def _normal(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2
