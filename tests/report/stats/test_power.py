"""What a plan can find, and the optimism of a search's winner: against closed forms and scipy."""

import math

import pytest
from scipy import stats

from deit_ablate.report.stats.power import (
    confirmed_words,
    detectable,
    detectable_effect,
    effects_words,
    expected_maximum,
    optimism,
    plan_words,
    provable_margin,
)


def test_the_smallest_effect_that_is_found_by_hand():
    """One row, 3 seeds of it and of the baseline."""
    # The lower of two variances of 2 degrees of freedom is usually at their 1/3 quantile, -2 ln(2/3), over the median
    # 2 ln 2: 0.58496. Lent with 0.7 degrees of freedom: (0.7 * 0.58496 + 2) / 2.7 = 0.89240 for each variance.
    variance = (0.7 * math.log(3 / 2) / math.log(2) + 2) / 2.7
    df = 2 * 2.7
    errors = stats.t.ppf(0.975, df) + stats.t.ppf(0.8, df)
    assert detectable(1, 3) == pytest.approx(errors * math.sqrt(2 * variance / 3))


@pytest.mark.parametrize("rows", [1, 5, 12])
def test_more_seeds_find_less(rows):
    found = [detectable(rows, seeds) for seeds in (3, 5, 10, 20)]
    assert found == sorted(found, reverse=True)
    assert detectable(rows, 5, 12) < detectable(rows, 5)
    assert provable_margin(rows, 5, 12) < provable_margin(rows, 5)


def test_a_plan_in_words():
    assert plan_words(5, 3) == (
        "3 seeds, 5 rows: finds differences of about 3.7 sd (power 0.7), "
        "shows equivalence within about ±3.8 sd (sd: of one row from seed to seed)"
    )
    assert plan_words(5, 3, 7).startswith(
        "3 seeds, 5 rows, 7 seeds of the baseline: finds differences of about 3.2 sd (power 0.7), "
    )
    assert plan_words(12, 10).startswith("10 seeds, 12 rows: finds differences of about 1.8 sd (power 0.8), ")
    assert plan_words(2, 1) == "1 seed, 2 rows: cannot tell rows apart"
    assert plan_words(1, 2) == "2 seeds, 1 row: too few for a verdict, which takes 3"
    assert plan_words(0, 3) == "no rows are compared"
    assert detectable(5, 2) == provable_margin(5, 2) == math.inf


def test_senseless_plans_are_refused():
    for call in (detectable, provable_margin):
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


def test_what_a_factorial_finds_by_hand():
    """8 rows of 3 seeds: an effect is a difference of two means of 12 runs, by 16 degrees of freedom; 6 are judged."""
    errors = stats.t.ppf(1 - 0.05 / 12, 16) + stats.t.ppf(0.8, 16)
    assert detectable_effect(6, 8, 3) == pytest.approx(errors * math.sqrt(2 / 12))
    assert effects_words(6, 8, 3).startswith("6 effects, each from all rows: finds main effects of about 1.6 sd, and ")
    assert "interactions of 3.2 sd" in effects_words(6, 8, 3)
    assert effects_words(6, 8, 2) == "effects: too few seeds for a verdict, which takes 3"
