"""Moderated variances and Holm's correction: by hand, one table or many, and their error rates."""

import math

import numpy as np
import pytest

from deit_ablate.report.stats.moderated import Comparisons, holds, holm, look_by_look, moderate
from deit_ablate.report.stats.power import detectable


def tables(draw, many, rows, seeds, baseline):
    """Baselines and rows without any difference: (tables, 1 + rows, seeds), NaN where a group has fewer."""
    noise = draw.normal(size=(many, rows + 1, max(seeds, baseline)))
    noise[:, 1:, seeds:] = np.nan
    noise[:, 0, baseline:] = np.nan
    return noise


def test_holm_by_hand_and_its_properties():
    # 0.01 * 3, then 0.02 * 2, then 0.04 * 1, each at least the one before.
    assert holm(np.array([0.04, 0.01, 0.02])) == pytest.approx([0.04, 0.03, 0.04])
    assert holm(np.array([0.03, 0.02])) == pytest.approx([0.04, 0.04])
    with_gap = holm(np.array([0.01, np.nan]))
    assert with_gap[0] == pytest.approx(0.02)
    assert np.isnan(with_gap[1])
    draw = np.random.default_rng(0)
    for _ in range(50):
        p = draw.random(draw.integers(1, 9)) ** 3
        adjusted, order = holm(p), np.argsort(p)
        assert (np.diff(adjusted[order]) >= 0).all()
        assert ((adjusted >= p) & (adjusted <= np.minimum(1, p * len(p)))).all()
        assert (holds(p, strict=True) <= holds(p)).all()


def test_moderated_variances_by_hand():
    # Three groups of variances 1, 4 and 1. The median of a chi-square of 2 degrees of freedom is 2 ln 2, so typical
    # ones are s² / ln 2 = 1.4427, 5.7708, 1.4427, of which the second largest is lent with 0.7 * 2 degrees of freedom:
    # (1.4 * 1.4427 + 2 * 1) / 3.4 = 1.18229; the group of variance 4 would be lowered to 2.95, and keeps its own.
    values = np.array([[80.0, 81.0, 82.0], [90.0, 92.0, 94.0], [81.0, 82.0, 83.0]])
    now = moderate(values, Comparisons.with_baseline(2))
    assert now.typical == pytest.approx([1 / math.log(2)] * 2)
    assert now.variance == pytest.approx([4, 1.18229], abs=1e-5)
    assert now.other_variance == pytest.approx([1.18229] * 2, abs=1e-5)
    assert now.difference == pytest.approx([11, 1])
    assert now.standard_error**2 == pytest.approx([(4 + 1.18229) / 3, 2 * 1.18229 / 3], abs=1e-5)
    # Welch & Satterthwaite with 2 + 1.4 degrees of freedom each.
    assert now.df == pytest.approx([3.4 * (4 + 1.18229) ** 2 / (4**2 + 1.18229**2), 2 * 3.4], abs=1e-4)


def test_paired_differences_by_hand():
    # Differences -1, 0, 1 (variance 1), 2, 3, 4 (1) and 0, 3, 6 (9): the second largest typical one is 1 / ln 2, lent
    # with 1.4 degrees of freedom: (1.4 * 1.4427 + 2) / 3.4 = 1.18229; the third keeps its own.
    values = np.array([[80.0, 70.0, 75.0], [79.0, 70.0, 76.0], [82.0, 73.0, 79.0], [80.0, 73.0, 81.0]])
    now = moderate(values, Comparisons.with_baseline(3, paired=[0, 1, 2]))
    assert now.difference == pytest.approx([0, 3, 3])
    assert now.own == pytest.approx([1, 1, 9])
    assert now.standard_error == pytest.approx([math.sqrt(1.18229 / 3)] * 2 + [math.sqrt(3)], abs=1e-5)
    assert now.df == pytest.approx([3.4] * 3)
    for rows in (1, 2):  # which lend one another nothing
        plain = moderate(values[: rows + 1], Comparisons.with_baseline(rows, paired=range(rows)))
        assert plain.standard_error == pytest.approx([math.sqrt(1 / 3)] * rows)
        assert (plain.df == 2).all()


def test_paired_and_unpaired_rows_lend_one_another_nothing():
    draw = np.random.default_rng(3)
    values = draw.normal(size=(5, 4))
    mixed = moderate(values, Comparisons.with_baseline(4, paired=[1, 3]))
    unpaired = moderate(values[[0, 1, 3]], Comparisons.with_baseline(2))
    paired = moderate(values[[0, 2, 4]], Comparisons.with_baseline(2, paired=[0, 1]))
    for field in ("difference", "standard_error", "df", "p"):
        found = getattr(mixed, field)
        np.testing.assert_allclose(found[[0, 2]], getattr(unpaired, field))
        np.testing.assert_allclose(found[[1, 3]], getattr(paired, field))


def test_many_tables_at_once_are_the_same_as_one_by_one():
    draw = np.random.default_rng(5)
    every = draw.normal(size=(7, 5, 6))
    every[draw.random(every.shape) < 0.2] = np.nan
    comparisons = Comparisons.with_baseline(4, paired=[2])
    together = moderate(every, comparisons)
    for i, table in enumerate(every):
        alone = moderate(table, comparisons)
        np.testing.assert_allclose(alone.p, together.p[i])
        np.testing.assert_allclose(holm(alone.p), holm(together.p)[i])


@pytest.mark.parametrize(
    ("rows", "seeds", "baseline", "low", "high"),
    [(1, 3, 3, 0.035, 0.065), (2, 3, 5, 0.035, 0.062), (5, 3, 7, 0.007, 0.026), (12, 5, 18, 0.005, 0.024)],
)
def test_false_differences_are_as_rare_as_promised(rows, seeds, baseline, low, high):
    """As ``benchmarks/error_rates.py`` has it (0.049, 0.048, 0.016, 0.014), at 4 standard errors of 4,000 tables."""
    noise = tables(np.random.default_rng(1), 4000, rows, seeds, baseline)
    false = holds(moderate(noise, Comparisons.with_baseline(rows)).p).any(axis=-1).mean()
    assert low < false < high


def test_a_row_that_scatters_ten_times_as_much_costs_little():
    """At most 7.5% of tables, where the table's other rows lent it their variance too freely before (12.8%)."""
    noise = tables(np.random.default_rng(1), 8000, 5, 3, 7)
    noise[:, 1] *= 10
    assert holds(moderate(noise, Comparisons.with_baseline(5)).p).any(axis=-1).mean() < 0.075


def test_a_difference_of_the_planned_size_is_found():
    """One of five rows at 4 sd, 3 seeds of a row and 7 of the baseline: nine in ten; of the size that the plan says,
    seven in ten."""
    noise = tables(np.random.default_rng(2), 4000, 5, 3, 7)
    for size, low, high in ((4, 0.88, 0.94), (detectable(5, 3, 7), 0.70, 0.78)):
        shifted = noise.copy()
        shifted[:, 1] += size
        found = holds(moderate(shifted, Comparisons.with_baseline(5)).p)[:, 0].mean()
        assert low < found < high


def test_looking_four_times_keeps_the_five_percent():
    """Simulated: 1.9% by weights, several times that without them."""
    noise = tables(np.random.default_rng(3), 3000, 5, 12, 27)
    looks, comparisons = [(3, 7), (6, 14), (9, 21), (12, 27)], Comparisons.with_baseline(5)
    weighted = look_by_look(noise, comparisons, looks, (0.1, 0.2, 0.3, 0.4)).decided.any(axis=-1).mean()
    naive = look_by_look(noise, comparisons, looks, (1, 1, 1, 1)).decided.any(axis=-1).mean()
    assert weighted < 0.045
    assert naive > 0.06
