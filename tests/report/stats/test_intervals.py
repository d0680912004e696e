import math

import pytest

from deit_ablate.report.stats.intervals import mean_interval, paired_difference

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


def test_another_level():
    assert mean_interval([97, 98, 99], 0.90).half_width == pytest.approx(2.91999 / math.sqrt(3), abs=1e-5)


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
    with pytest.raises(ValueError, match="level"):
        mean_interval([1, 2], 95)


def test_paired_difference_by_hand():
    # Pairs at seeds 1 and 2 alone: 97 - 98 = -1 and 95 - 97 = -2; their sd is sqrt(1/2), the standard error 1/2.
    difference = paired_difference({2: 95, 1: 97, 5: 12.0, 3: math.nan}, {1: 98, 2: 97, 3: 99, 4: 99})
    assert difference.mean == pytest.approx(-1.5)
    assert difference.half_width == pytest.approx(12.7062 / 2, abs=1e-4)
    assert difference.n == 2


def test_pairing_takes_common_noise_out():
    # The rows move together by whole points; the differences are 1 at every seed.
    difference = paired_difference({0: 91, 1: 96, 2: 99}, {0: 90, 1: 95, 2: 98})
    assert (difference.mean, difference.half_width) == (1, 0)


def test_one_pair_and_none():
    assert math.isnan(paired_difference({0: 2.0}, {0: 1.0}).half_width)
    assert paired_difference({0: 2.0}, {1: 1.0}).n == 0
