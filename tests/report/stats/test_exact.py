"""Intervals of a mean and of a rate: by hand and from printed tables."""

import math

import pytest
from scipy import stats

from deit_ablate.report.stats.exact import at_chance, mean_interval, rate, rate_words

# Two-sided 95% points of Student's t, from a printed table: 12.7062 (1 degree of freedom), 4.3027 (2), 2.7764 (4).


@pytest.mark.parametrize(
    ("values", "mean", "half_width"),
    [
        ([97, 98, 99], 98, 4.30265 / math.sqrt(3)),  # sd 1
        ([95, 97], 96, 12.7062),  # sd sqrt 2, so the standard error is 1
        ([1, 2, 3, 4, 5], 3, 2.77645 * math.sqrt(2.5 / 5)),  # variance 10/4
        ([81.8, 81.8, 81.8], 81.8, 0),
    ],
)
def test_mean_interval_by_hand(values, mean, half_width):
    interval = mean_interval(values)
    assert interval.mean == pytest.approx(mean, abs=1e-9)
    assert interval.half_width == pytest.approx(half_width, abs=2e-5)
    assert interval.n == len(values)


def test_too_few_values_have_no_interval():
    one, none = mean_interval([97.0]), mean_interval([])
    assert (one.mean, one.n) == (97, 1)
    assert math.isnan(one.half_width)
    assert none.n == 0
    assert math.isnan(none.mean)
    assert math.isnan(none.half_width)


def test_missing_values_are_left_out():
    assert mean_interval([97, math.nan, 99]) == mean_interval([97, 99])


def test_senseless_input_is_refused():
    with pytest.raises(ValueError, match="infinite"):
        mean_interval([1, math.inf])


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (3, ((0, 70.8), (0.8, 90.6), (29.2, 100))),
        (5, ((0, 52.2), (0.5, 71.6), (47.8, 100))),
        (10, ((0, 30.8), (0.3, 44.5), (69.2, 100))),
    ],
)
def test_rates_of_divergence(n, expected):
    """The protocol's T10: of none, one and all of n."""
    for k, (low, high) in zip((0, 1, n), expected, strict=True):
        assert [100 * end for end in rate(k, n)] == pytest.approx((low, high), abs=0.05)


def test_rates_in_words():
    assert rate_words(1, 3) == "1 of 3 diverged (0.8–91%)"
    assert rate_words(0, 3) == "0 of 3 diverged (0–71%)"
    assert rate_words(3, 10) == "3 of 10 diverged (6.7–65%)"
    assert rate_words(0, 0) == "no run has ended"
    with pytest.raises(ValueError, match="4 of 3"):
        rate(4, 3)


def test_chance_is_an_exact_statement():
    # 25 of 600 images among 200 classes is eight times chance; 5 of 600, with 3 expected, is not (p = 0.18).
    assert not at_chance(100 * 25 / 600, 600, 200)
    assert at_chance(100 * 5 / 600, 600, 200)
    expected = {k: stats.binomtest(k, 600, 1 / 200, alternative="greater").pvalue > 0.05 for k in range(12)}
    assert {k: at_chance(100 * k / 600, 600, 200) for k in expected} == expected
    assert len(set(expected.values())) == 2
