"""What a plan can find, and the optimism of a search's winner: against closed forms and scipy."""

import math

import pytest
from scipy import stats

from deit_ablate.report.stats.power import (
    confirmed_words,
    detectable,
    expected_maximum,
    optimism,
    plan_words,
    power,
    provable_margin,
)


@pytest.mark.parametrize(
    ("rows", "expected"), [(1, (4.38, 2.35, 1.41)), (5, (4.04, 2.78, 1.76)), (12, (4.82, 3.21, 1.97))]
)
def test_the_smallest_effect_that_is_found(rows, expected):
    """The protocol's T6, at 3, 5 and 10 seeds."""
    assert [detectable(rows, seeds) for seeds in (3, 5, 10)] == pytest.approx(expected, abs=0.005)


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
    for call in (detectable, provable_margin, lambda *plan: power(1, *plan)):
        with pytest.raises(ValueError, match="without rows"):
            call(0, 3)


def test_the_largest_of_n_normals():
    # 0, 1/sqrt(pi), 3/(2 sqrt(pi)) are exact; 1.5388 of ten is in every table of order statistics.
    expected = (0, 1 / math.sqrt(math.pi), 1.5 / math.sqrt(math.pi), 1.53875)
    assert [expected_maximum(n) for n in (1, 2, 3, 10)] == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="0 values"):
        expected_maximum(0)


@pytest.mark.parametrize(
    ("trials", "expected"), [(20, (0.84, 1.33, 1.67)), (50, (1.00, 1.58, 2.01)), (100, (1.12, 1.77, 2.24))]
)
def test_the_optimism_of_a_winner(trials, expected):
    """The protocol's T12 in units of the noise, at noise / between = 0.5, 1, 2."""
    assert [optimism(trials, ratio, 1) / ratio for ratio in (0.5, 1, 2)] == pytest.approx(expected, abs=0.015)


def test_a_search_without_noise_or_choice_has_no_optimism():
    assert optimism(50, 0, 1) == optimism(50, 0, 0) == 0
    assert optimism(1, 1, 1) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="not negative"):
        optimism(5, -1, 1)
    assert confirmed_words(91.25, 90.5, 5) == "search value 91.25, confirmed 90.50 (5 new seeds), difference -0.75"
