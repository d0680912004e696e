"""Levels of a campaign by hand, its budget over thousands of candidates, and p against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from deit_ablate.report.stats.campaign import RATE, Budget, Look, p_better
from deit_ablate.report.stats.moderated import Comparisons, moderate


def test_levels_by_hand() -> None:
    budget, whole = Budget(), float(special.zeta(1.2))  # 5.5916
    first = budget.next()
    assert first.level == pytest.approx(0.05 / 5.5916, rel=1e-4)
    assert first.part == first.level / 2
    budget.add(first, kept=False)
    second = budget.next()
    assert second.level == pytest.approx(0.05 * 2**-1.2 / whole)
    budget.add(second, kept=True)
    # The first keep brings the other half of the rate, the second one all of it.
    third = budget.next()
    assert third.level == pytest.approx((0.05 * 3**-1.2 + 0.05) / whole)
    budget.add(third, kept=True)
    assert budget.next().level == pytest.approx((0.05 * 4**-1.2 + 0.05 * 2**-1.2 + 0.1) / whole)


def test_looks_at_a_candidate_share_its_level_and_one_keep_counts() -> None:
    budget = Budget()
    for kept in (False, True, True):
        budget.add(budget.next(1 if budget.levels else None), kept)
    assert budget.looks == [3]
    assert budget.kept == {1: 1}
    fourth = budget.next(1)
    assert (fourth.candidate, fourth.number, fourth.part) == (1, 4, budget.levels[0] / 16)
    # What is kept at a late look rewards the candidates that come after it, not those that there were.
    budget = Budget()
    for _ in range(3):
        budget.add(budget.next(), kept=False)
    budget.add(budget.next(1), kept=True)
    whole = float(special.zeta(1.2))
    assert budget.next().level == pytest.approx((0.05 * 4**-1.2 + 0.05) / whole)


@pytest.mark.parametrize("look", [Look(1, 2, 0.1, 0.05), Look(3, 1, 0.1, 0.05), Look(2, 2, 0.1, 0.05)])
def test_a_look_out_of_order_is_refused(look: Look) -> None:
    budget = Budget()
    budget.add(budget.next(), kept=False)
    budget.add(budget.next(1), kept=False)
    with pytest.raises(ValueError, match="not the next one"):
        budget.add(look, kept=False)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 1.0])
def test_all_levels_together_are_at_most_a_tenth_of_what_is_kept(share: float) -> None:
    draw, budget = np.random.default_rng(3), Budget()
    for _ in range(1000):
        budget.add(budget.next(), bool(draw.random() < share))
        assert math.fsum(budget.levels) <= RATE * max(1, len(budget.kept)) + 1e-12


def p(one: list[float], two: list[float], *, paired: bool = False, sign: int = 1, resolution: float = 0.0) -> float:
    values = np.full((2, max(len(one), len(two))), np.nan)
    values[1, : len(one)], values[0, : len(two)] = one, two
    comparisons = Comparisons.with_baseline(1, [0] if paired else [])
    return float(p_better(moderate(values, comparisons, resolution), comparisons, sign)[0])


FEW, MANY = [1.9, 2.0, 2.1], [0.0, 1.0, 2.0, 0.5, 1.5, 1.0, 0.2, 1.8]


def test_it_is_no_smaller_than_welchs_and_students_test() -> None:
    # A small group that agrees by luck: Student's is the careful one; beside a wild small one Welch's.
    student, welch = (stats.ttest_ind(FEW, MANY, equal_var=equal, alternative="greater").pvalue for equal in (1, 0))
    assert p(FEW, MANY) == pytest.approx(student)
    assert student > 5 * welch
    wild = [1.0, 3.0, 5.0]
    student, welch = (stats.ttest_ind(wild, MANY, equal_var=equal, alternative="greater").pvalue for equal in (1, 0))
    assert p(wild, MANY) >= welch > 5 * student


def test_which_way_is_better() -> None:
    assert p(FEW, MANY) + p(FEW, MANY, sign=-1) > 1
    assert p([-x for x in FEW], [-x for x in MANY], sign=-1) == pytest.approx(p(FEW, MANY))


def test_pairs_and_a_target_are_the_t_test_of_the_differences() -> None:
    one, two = [3.1, 2.9, 3.6, 3.3], [2.8, 2.9, 3.1, 3.2]
    expected = stats.ttest_rel(one, two, alternative="greater").pvalue
    assert p(one, two, paired=True) == pytest.approx(expected)
    assert p(one, [3.0] * 4, paired=True) == pytest.approx(stats.ttest_1samp(one, 3.0, alternative="greater").pvalue)


def test_equal_figures_have_the_scatter_of_their_rounding_or_no_test() -> None:
    assert math.isnan(p([90.0] * 3, [89.0] * 3))
    assert 0 < p([90.0] * 3, [89.0] * 3, resolution=1.0) < 0.1
