"""Contrasts are what textbooks compute, whatever runs are missing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from deit_ablate.report.stats.contrasts import effects, estimate
from deit_ablate.report.stats.verdicts import Rules

ROWS = {
    "a": {0: 90.0, 1: 91.0, 2: 90.4, 3: 90.9},
    "b": {0: 92.0, 1: 92.9, 2: 91.1},
    "c": {0: 88.0, 1: 88.1, 2: 88.4},
    "d": {0: 95.0, 1: 93.9, 2: 94.4},
}


def test_a_contrast_of_two_rows_is_welchs_test() -> None:
    found = effects({name: ROWS[name] for name in "ab"}, {"b - a": {"b": 1, "a": -1}})["b - a"]
    welch = stats.ttest_ind(list(ROWS["b"].values()), list(ROWS["a"].values()), equal_var=False)
    assert found.p == pytest.approx(welch.pvalue)
    assert found.df == pytest.approx(welch.df)
    low, high = welch.confidence_interval()
    assert (found.difference - found.half_width, found.difference + found.half_width) == pytest.approx((low, high))


def test_an_interaction_by_hand() -> None:
    contrasts = {"A": {"a": 0.5, "b": 0.5, "c": -0.5, "d": -0.5}, "A × B": {"a": 1, "b": -1, "c": -1, "d": 1}}
    found = effects(ROWS, contrasts, Rules(margin=50))
    means = {name: np.mean(list(own.values())) for name, own in ROWS.items()}
    shares = [np.var(list(own.values()), ddof=1) / len(own) for own in ROWS.values()]
    two = found["A × B"]
    assert two.difference == pytest.approx((means["a"] - means["b"]) - (means["c"] - means["d"]))
    assert two.standard_error == pytest.approx(math.sqrt(sum(shares)))
    parts = sum(share**2 / (len(own) - 1) for share, own in zip(shares, ROWS.values(), strict=True))
    assert two.df == found["A"].df == pytest.approx(sum(shares) ** 2 / parts)
    assert found["A"].standard_error == pytest.approx(two.standard_error / 2)
    assert two.half_width_simultaneous == pytest.approx(stats.t.ppf(1 - 0.05 / 4, two.df) * two.standard_error)
    assert two.p_holm == pytest.approx(2 * two.p)
    assert (two.runs, two.verdict) == (3, "better_small")


def test_by_seed_it_is_the_t_test_of_the_seeds_contrasts() -> None:
    weights = {"a": 1, "b": -1, "c": -1, "d": 1}
    found = effects(ROWS, {"A × B": weights}, by_seed=True)["A × B"]
    each = [sum(weight * ROWS[row][seed] for row, weight in weights.items()) for seed in (0, 1, 2)]
    assert found.p == pytest.approx(stats.ttest_1samp(each, 0).pvalue)
    assert (found.runs, found.df, found.difference) == (3, 2, pytest.approx(np.mean(each)))


def test_without_runs_enough_nothing_is_said() -> None:
    weights = {"a": 1.0, "b": -1.0}
    few = effects({"a": {0: 90.0, 1: 91.0}, "b": {0: 92.0, 1: 92.4}}, {"x": weights})["x"]
    assert (few.verdict, few.words) == ("too_few", "2 runs: too few for a verdict")
    assert few.half_width > 0
    one = effects({"a": {0: 90.0, 1: 91.0}, "b": {0: 92.0}}, {"x": weights})["x"]
    assert (one.verdict, one.difference) == ("one_seed", -1.5)
    assert math.isnan(one.half_width)
    none = effects({"a": ROWS["a"], "b": {}, "c": ROWS["c"]}, {"x": weights, "y": {"a": 1, "c": -1}})
    assert none["x"].verdict == "none"
    assert math.isnan(none["x"].difference)
    assert none["y"].verdict == "better"


def test_equal_figures_are_no_certainty() -> None:
    rows = {"a": dict.fromkeys(range(3), 90.0), "b": dict.fromkeys(range(3), 90.1)}
    weights = {"x": {"a": 1.0, "b": -1.0}}
    assert effects(rows, weights)["x"].words == "undecided: no spread to test with"
    rounded = effects(rows, weights, resolution=1.0)["x"]
    assert rounded.standard_error == pytest.approx(math.sqrt(2 / 12 / 3))
    assert rounded.verdict == "undecided"
    assert "its seeds agree within one test image" in rounded.notes[0]


def test_many_tables_at_once_are_each_by_itself() -> None:
    values = np.random.default_rng(0).standard_normal((5, 4, 3))
    coefficients = np.array([[0.5, 0.5, -0.5, -0.5], [1, 0, -1, 0]])
    for by_seed in (False, True):
        together = estimate(values, coefficients, 0.1, by_seed=by_seed)
        for k in range(5):
            alone = estimate(values[k], coefficients, 0.1, by_seed=by_seed)
            np.testing.assert_allclose(together.p[k], alone.p)
            np.testing.assert_allclose(together.df[k], alone.df)
