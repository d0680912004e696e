"""The finite test set's part of a difference: exact on small numbers, unbiased, and told apart from training noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deit_ablate.report.stats.moderated import Comparisons, moderate
from deit_ablate.report.stats.population import UNKNOWN, ImageNoise, Population, image_noise
from deit_ablate.report.stats.verdicts import Rules, judge


def test_a_difference_by_hand() -> None:
    # Two runs of each over three images. The row's means are 2 1 3 (of 1 1 3 and 3 1 3), the baseline's 0 1 0.5 (of
    # 0 1 0 and 0 1 1): differences 2 0 2.5, of mean 1.5, variance (0.25 + 2.25 + 1)/2 = 1.75.
    # Run x image within the row: the runs' differences from each other are 2 0 0, less their mean 2/3: 16/9 + 4/9 + 4/9
    # = 24/9, of which half is the sum of squares, 4/3, over (2 - 1)(3 - 1): 2/3. Baseline: 0 0 1 gives 1/6.
    row, other = np.array([[1.0, 1, 3], [3, 1, 3]]), np.array([[0.0, 1, 0], [0, 1, 1]])
    found = image_noise(row, other)
    assert float(found.raw) == pytest.approx(1.75 / 3)
    assert float(found.training) == pytest.approx((2 / 3 + 1 / 6) / 2 / 3)
    assert float(found.standard_error) == pytest.approx(math.sqrt((1.75 - 5 / 12) / 3))
    # Of pairs, the differences are the one group: 1 0 3 and 3 0 2, whose means are the same 2 0 2.5. Their difference
    # 2 0 -1 less its mean 1/3: (25 + 1 + 16)/9 = 42/9, half of it over 2: 7/6.
    paired = image_noise(row - other, None)
    assert float(paired.raw) == pytest.approx(1.75 / 3)
    assert float(paired.training) == pytest.approx(7 / 6 / 2 / 3)


def test_the_variance_of_new_images_and_its_degrees_of_freedom() -> None:
    values = np.array([[0.0, 1, 2], [2, 4, 3]])
    now = moderate(values, Comparisons.with_baseline(1))
    wide = ImageNoise(np.array([0.5]), np.array([0.1]), np.array([101.0])).widen(now)
    training = float(now.standard_error[0]) ** 2
    assert float(wide.standard_error[0]) ** 2 == pytest.approx(training + 0.4)
    assert float(wide.df[0]) == pytest.approx((training + 0.4) ** 2 / (training**2 / float(now.df[0]) + 0.25 / 100))


def test_nothing_is_claimed_of_new_images_that_is_not_claimed_of_these() -> None:
    # By Satterthwaite alone a little more variance would buy degrees of freedom, of which there are few here.
    values = np.array([[0.0, 1, 2], [12, 14, 13]])
    now = moderate(values, Comparisons.with_baseline(1))
    for share in (0, 0.01, 0.1, 1):
        size = np.array([share * float(now.standard_error[0]) ** 2])
        wide = ImageNoise(size, np.zeros(1), np.array([600.0])).widen(now)
        assert wide.half_width() >= now.half_width()
        assert wide.p >= now.p
        assert wide.p_equivalent(20) >= now.p_equivalent(20)


def test_it_is_what_many_tests_would_show() -> None:
    """The mean over many draws of images and runs is the variance that the images add, whatever the training noise."""
    draw = np.random.Generator(np.random.PCG64(1))
    tables, images = 4000, 50
    for scatter in (0.1, 3.0):
        base, row = (
            draw.standard_normal((tables, 1, images)) + scatter * draw.standard_normal((tables, runs, images))
            for runs in (5, 3)
        )
        found = image_noise(row, base)
        assert float((found.raw - found.training).mean()) == pytest.approx(2 / images, rel=0.06)


def test_rows_of_which_nothing_is_known_are_not_judged_for_new_images() -> None:
    base, row = {seed: 90.0 + seed / 10 for seed in range(3)}, {seed: 95.0 + seed / 10 for seed in range(3)}
    known = ImageNoise(*(np.array(part) for part in (0.01, 0.0, 600.0)))
    given = {"known": known, "unknown": "predictions not on record"}

    def verdicts(judged: bool) -> dict[str, str]:
        found = judge({"known": row, "unknown": row}, base, Rules(population=Population(given, judged))).effects({})
        assert math.isnan(found["unknown"].half_width_new_images)
        assert found["known"].half_width_new_images >= judge({"a": row, "b": row}, base).effects({})["a"].half_width
        assert not judged or math.isnan(found["unknown"].p)
        return {name: effect.words for name, effect in found.items()}

    assert verdicts(judged=False) == {"known": "better", "unknown": "better"}
    told = "not judged for new images: predictions not on record"
    assert verdicts(judged=True) == {"known": "better", "unknown": told}


def test_images_keep_more_seeds_from_deciding() -> None:
    base, row = ({seed: 90 + gain + seed / 10 for seed in range(3)} for gain in (0.0, 0.15))
    noise = ImageNoise(*(np.array(part) for part in (0.3**2, 0.0, 600.0)))

    def words(judged: bool) -> str:
        return judge({"a": row}, base, Rules(0.5, population=Population({"a": noise}, judged))).effects({})["a"].words

    assert "to show equivalence, more than" not in words(judged=False)
    assert words(judged=True).endswith("to show equivalence, more than 50")


def test_one_run_says_nothing() -> None:
    one = np.array([[0.0, 100.0, 100.0]])
    assert math.isnan(float(image_noise(one, np.repeat(one, 2, axis=0)).standard_error))
    assert math.isnan(float(UNKNOWN.standard_error))
