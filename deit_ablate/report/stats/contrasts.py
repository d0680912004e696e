"""Contrasts of a table's rows: effects and interactions of a factorial, steps that several orders have. Imports numpy.

A contrast is a sum of the rows' means with coefficients that add up to 0. Its variance is the sum of the rows' own, its
degrees of freedom Satterthwaite's (1946): so many rows tell their scatter without borrowing any, and may scatter
unequally. Where rows share runs or parents at each seed, the contrast is taken seed by seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from deit_ablate.report.stats.moderated import ROUNDING, Array, Moderated
from deit_ablate.report.stats.population import Population
from deit_ablate.report.stats.verdicts import BY_DEFAULT, Effect, Judged, Rules, side_by_side


def estimate(values: Array, coefficients: Array, rounding: float | Array = 0.0, *, by_seed: bool = False) -> Moderated:
    """Contrasts ``coefficients`` (contrasts, groups) of ``values`` (..., groups, seeds), NaN where there is no run.

    ``rounding``: the least variance of a figure. ``runs`` is the fewest of the groups that a contrast takes (of the
    seeds that all of them have, ``by_seed``), ``variance`` the squared standard error times these.
    """
    used = coefficients != 0
    if by_seed:  # each contrast is a group of its own, of which it takes the mean
        values = np.where(used[..., None], coefficients[..., None] * values[..., None, :, :], 0).sum(axis=-2)
        rounding = rounding * (coefficients**2).sum(axis=-1)
        coefficients, used = np.eye(len(used)), np.eye(len(used), dtype=bool)
    given = ~np.isnan(values)
    runs = given.sum(axis=-1)
    fewest = np.where(used, runs[..., None, :], values.shape[-1]).min(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):  # without a run there is no mean, with one no variance
        mean = np.where(given, values, 0).sum(axis=-1) / runs
        own = (np.where(given, values - mean[..., None], 0) ** 2).sum(axis=-1) / (runs - 1)
        own[own < ROUNDING] = 0
        variance = np.where(own < rounding, rounding, own)
        share = np.where(used, coefficients**2 * (variance / runs)[..., None, :], 0)
        squared = share.sum(axis=-1)
        df = squared**2 / np.where(used, share**2 / (runs - 1)[..., None, :], 0).sum(axis=-1)
        difference = np.where(used, coefficients * mean[..., None, :], 0).sum(axis=-1)
    nothing = np.zeros_like(squared)
    return Moderated(
        runs=fewest,
        other_runs=fewest,
        difference=difference,
        own=nothing,
        other_own=nothing,
        typical=nothing,
        variance=np.where(fewest > 0, squared, 0) * fewest,
        other_variance=nothing,
        standard_error=np.sqrt(squared),
        df=df,
        floored=np.asarray(np.where(used, (own < rounding)[..., None, :], True).all(axis=-1)),
    )


def effects(
    rows: Mapping[str, Mapping[int, float]],
    contrasts: Mapping[str, Mapping[str, float]],
    rules: Rules = BY_DEFAULT,
    *,
    by_seed: bool = False,
    resolution: float = 0.0,
) -> dict[str, Effect]:
    """Judge each contrast (its rows' coefficients), adjusted over all of them. The other arguments are those of
    ``verdicts.judge``, what is returned is what its ``effects`` do; ``by_seed``: whether rows share runs or parents at
    each seed. What ``rules`` have of the finite test set is of rows, and counts for no contrast."""
    rules = replace(rules, population=Population())
    coefficients = np.array([[own.get(row, 0.0) for row in rows] for own in contrasts.values()], dtype=np.float64)
    now = estimate(side_by_side(list(rows.values())), coefficients, resolution**2 / 12, by_seed=by_seed)
    borrowed = np.maximum(0.0, now.df - (now.runs - 1))
    paired = np.full(len(contrasts), by_seed)
    return Judged.of(tuple(contrasts), rules, now, paired, borrowed=borrowed).effects({})
