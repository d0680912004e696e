"""Moderated variances and Holm's correction: by hand, one table or many, and their error rates."""

import numpy as np
import pytest

from deit_ablate.report.stats.moderated import holds, holm, moderate
from deit_ablate.report.stats.power import detectable


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


def test_many_tables_at_once_are_the_same_as_one_by_one():
    draw = np.random.default_rng(5)
    tables = draw.normal(size=(7, 4, 6))
    tables[draw.random(tables.shape) < 0.2] = np.nan
    together = moderate(tables)
    for i, table in enumerate(tables):
        alone = moderate(table)
        np.testing.assert_allclose(alone.p, together.p[i])
        np.testing.assert_allclose(holm(alone.p), holm(together.p)[i])


@pytest.mark.parametrize(
    ("rows", "seeds_", "low", "high"),
    [(3, 3, 0.030, 0.060), (5, 3, 0.022, 0.050), (12, 3, 0.004, 0.018), (5, 10, 0.025, 0.053)],
)
def test_false_differences_are_as_rare_as_promised(rows, seeds_, low, high):
    """A part of the protocol's table T1 (0.045, 0.036, 0.010, 0.039), at 4 to 5 standard errors of 4,000 tables."""
    draw = np.random.default_rng(1)
    noise = draw.normal(size=(4000, rows + 1, seeds_))
    false = holds(moderate(noise[:, 1:] - noise[:, :1]).p).any(axis=-1).mean()
    assert low < false < high


def test_a_difference_of_the_planned_size_is_found():
    """One of five rows at 4 sd, 3 seeds: the protocol's T3 has 0.70."""
    draw = np.random.default_rng(2)
    noise = draw.normal(size=(4000, 6, 3))
    noise[:, 1] += 4
    found = holds(moderate(noise[:, 1:] - noise[:, :1]).p)[:, 0].mean()
    assert 0.66 < found < 0.74
    assert detectable(5, 3) == pytest.approx(4.04, abs=0.005)
