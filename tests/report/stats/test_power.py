"""What a plan can find, exact figures of divergence, and a search's winner: against closed forms and scipy."""

import math
import random

import pytest
from scipy import stats

from deit_ablate.report.stats.exact import divergence, fisher, rate, rate_words, sign_flip
from deit_ablate.report.stats.power import (
    confirmed_words,
    detectable,
    expected_maximum,
    optimism,
    plan_words,
    power,
    provable_margin,
    seeds_for,
)


@pytest.mark.parametrize(
    ("rows", "expected"), [(1, (4.38, 2.35, 1.41)), (5, (4.04, 2.78, 1.76)), (12, (4.82, 3.21, 1.97))]
)
def test_the_smallest_effect_that_is_found(rows, expected):
    """The protocol's T6, at 3, 5 and 10 seeds."""
    assert [detectable(rows, seeds) for seeds in (3, 5, 10)] == pytest.approx(expected, abs=0.005)


def test_correlated_seeds_find_smaller_effects():
    assert detectable(5, 5, 0.75) == pytest.approx(detectable(5, 5) / 2)
    assert power(1, 5, 5, 0.75) == pytest.approx(power(2, 5, 5))


@pytest.mark.parametrize(
    ("seeds", "expected"), [(3, (0.117, 0.291, 0.705)), (5, (0.231, 0.663, 0.995)), (10, (0.514, 0.977))]
)
def test_power_of_one_row_in_closed_form(seeds, expected):
    """The protocol's T3, effects of 1, 2 and 4 sd."""
    assert [power(2.0**k, 1, seeds) for k in range(len(expected))] == pytest.approx(expected, abs=0.0006)


@pytest.mark.parametrize(("rows", "seeds", "effect"), [(1, 3, 2.0), (5, 3, 4.04), (12, 10, 1.5), (7, 40, 0.3)])
def test_power_is_that_of_the_noncentral_t(rows, seeds, effect):
    df = min(3, rows - 1) + seeds - 1
    threshold, shift = stats.t.ppf(1 - 0.025 / rows, df), effect / math.sqrt(2 / seeds)
    expected = stats.nct.sf(threshold, df, shift) + stats.nct.cdf(-threshold, df, shift)
    assert power(effect, rows, seeds) == pytest.approx(expected, abs=1e-6)
    assert power(-effect, rows, seeds) == pytest.approx(expected, abs=1e-6)


def test_power_has_no_gaps_where_scipy_has():
    assert power(8, 1, 3) == pytest.approx(0.9912, abs=1e-4)  # stats.nct.cdf(-4.3, 2, 9.8) is nan
    assert power(0, 1, 3) == pytest.approx(0.05, abs=1e-6)
    assert power(100, 12, 50) == pytest.approx(1)


def test_seeds_for_an_effect():
    assert seeds_for(4.04, 5) == 4  # 3 seeds find 4.043
    assert seeds_for(4.05, 5) == 3
    assert seeds_for(-2.77, 5) == 6  # 5 find 2.780
    assert seeds_for(0.1, 5) is None


def test_a_plan_in_words():
    assert plan_words(5, 3) == (
        "3 seeds, 5 rows: finds differences of about 4.0 sd (power 0.7), "
        "shows equivalence within about ±4.0 sd (sd: of one row from seed to seed)"
    )
    assert plan_words(12, 10).startswith("10 seeds, 12 rows: finds differences of about 2.0 sd (power 0.8), ")
    assert plan_words(2, 1) == "1 seed, 2 rows: cannot tell rows apart"
    assert plan_words(1, 2) == "2 seeds, 1 row: too few for a verdict, which takes 3"
    assert plan_words(0, 3) == "no rows are compared"
    assert detectable(5, 2) == provable_margin(5, 2) == math.inf
    assert power(5, 5, 2) == 0


def test_senseless_plans_are_refused():
    for call in (detectable, provable_margin):
        with pytest.raises(ValueError, match="without rows"):
            call(0, 3)
        with pytest.raises(ValueError, match="correlation"):
            call(5, 3, 1.0)
    with pytest.raises(ValueError, match="correlation"):
        power(1, 5, 3, -2)


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


def test_fisher_is_scipys():
    assert fisher((3, 3), (0, 3)) == pytest.approx(0.1)
    assert fisher((4, 4), (0, 4)) == pytest.approx(0.0286, abs=1e-4)
    assert fisher((6, 6), (0, 6)) == pytest.approx(0.0022, abs=1e-4)
    assert math.isnan(fisher((0, 0), (1, 3)))
    draw = random.Random(0)
    for _ in range(40):
        n1, n2 = draw.randint(1, 9), draw.randint(1, 9)
        k1, k2 = draw.randint(0, n1), draw.randint(0, n2)
        expected = stats.fisher_exact([[k1, n1 - k1], [k2, n2 - k2]])[1]
        assert fisher((k1, n1), (k2, n2)) == pytest.approx(expected)


def test_divergence_is_a_family_of_its_own():
    found = divergence({"never": (6, 6), "once": (1, 6), "not run": (0, 0)}, (0, 6))
    assert found["never"].p_holm == pytest.approx(3 * 0.0021645, rel=1e-4)
    assert found["once"].p_holm == 1
    assert math.isnan(found["not run"].p_holm)
    assert found["once"].words == "1 of 6 diverged (0.4–64%)"
    assert divergence({"never": (3, 3)}, (0, 3))["never"].p_holm == pytest.approx(0.1)  # three runs show nothing


@pytest.mark.parametrize("n", [6, 7, 9])
def test_sign_flip_is_scipys_permutation_test(n):
    draw = random.Random(n)
    differences = [round(draw.gauss(0.4, 1), 1) for _ in range(n)]  # rounded: with ties
    expected = stats.permutation_test(
        (differences,), lambda x: sum(x) / n, permutation_type="samples", n_resamples=math.inf, vectorized=False
    ).pvalue
    assert sign_flip(differences) == pytest.approx(expected)


def test_sign_flip_at_its_ends():
    assert sign_flip([0.3] * 12) == 2 / 2**12
    assert sign_flip([0.0] * 6) == 1
    assert math.isnan(sign_flip([1.0] * 5))
    assert math.isnan(sign_flip([1.0] * 41))


def test_the_largest_of_n_normals():
    # 0, 1/sqrt(pi), 3/(2 sqrt(pi)) are exact; 1.5388 of ten is in every table of order statistics.
    expected = (0, 1 / math.sqrt(math.pi), 1.5 / math.sqrt(math.pi), 1.53875)
    assert [expected_maximum(n) for n in (1, 2, 3, 10)] == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="0 values"):
        expected_maximum(0)


@pytest.mark.parametrize(
    ("trials", "expected"), [(20, (0.84, 1.33, 1.67)), (50, (1.00, 1.58, 2.01)), (100, (1.12, 1.77, 2.24))]
)
def test_a_winner_flatters(trials, expected):
    """The protocol's T12 in units of the noise, at noise / between = 0.5, 1, 2."""
    assert [optimism(trials, ratio, 1) / ratio for ratio in (0.5, 1, 2)] == pytest.approx(expected, abs=0.015)


def test_a_search_without_noise_or_choice_does_not_flatter():
    assert optimism(50, 0, 1) == optimism(50, 0, 0) == 0
    assert optimism(1, 1, 1) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="not negative"):
        optimism(5, -1, 1)
    assert confirmed_words(91.25, 90.5, 5) == "search value 91.25, confirmed 90.50 (5 new seeds), difference -0.75"
