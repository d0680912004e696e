"""Our rows beside published ones."""

import math
import random

import numpy as np
import pytest
from scipy import stats
from studies import effects

from deit_ablate.report.stats.agreement import agreement, kendall, tau_by_chance

PUBLISHED = {"sgd": -6.0, "lamb": -1.0, "mixup": 0.5, "erasing": -0.5, "none": 0.0}


def table(shifts, n=3, noise=0.1, seed=0):
    draw = random.Random(seed)
    baseline = {s: 80 + draw.gauss(0, noise) for s in range(n)}
    return {name: {s: 80 + by + draw.gauss(0, noise) for s in range(n)} for name, by in shifts.items()}, baseline


def compare(shifts, published=PUBLISHED, margin=None, **how):
    rows, baseline = table(shifts, **how)
    return agreement(rows, baseline, published, effects(rows, baseline, margin=margin))


def test_the_same_rows_agree():
    found = compare({"sgd": -5.0, "lamb": -2.0, "mixup": 1.0, "erasing": 0.0})
    assert (found.agree, found.decided, found.undecided) == (3, 3, 1)
    assert (found.pairs, found.resolved, found.in_order) == (6, 6, 6)
    assert found.tau == 1
    assert found.words[:2] == (
        "signs agree in 3 of 3 decided rows (1 undecided)",
        "6 of 6 row pairs are resolved; 6 in the published order",
    )
    assert "spread over seeds, not a confidence interval" in found.words[2]


@pytest.mark.parametrize(("shares", "says"), [([1, 3, 2, 4], "33%"), ([2, 4, 1, 3], "100%")])
def test_chance_is_a_plain_percentage(shares, says):
    names = [*PUBLISHED][:4]
    rows = {name: dict.fromkeys(range(3), 80.0 + place) for name, place in zip(names, shares, strict=True)}
    baseline = dict.fromkeys(range(3), 80.0)
    published = dict(zip(names, [1.0, 2.0, 3.0, 4.0], strict=True))
    found = agreement(rows, baseline, published, effects(rows, baseline))
    assert found.words[-1].endswith(f"4 unrelated rows come as far from 0 in {says} of cases")


def test_opposite_rows_disagree():
    found = compare({"sgd": 5.0, "lamb": 2.0, "mixup": -1.0})
    assert (found.agree, found.decided) == (0, 3)
    assert (found.resolved, found.in_order) == (3, 0)
    assert (found.tau, found.tau_low, found.tau_high) == (-1, -1, -1)


def test_only_decided_rows_have_a_sign():
    found = compare({"sgd": -5.0, "erasing": 0.0, "mixup": 0.01}, margin=1)
    assert (found.decided, found.equivalent, found.undecided) == (1, 2, 0)
    assert found.words[0] == "signs agree in 1 of 1 decided rows (0 undecided, 2 equivalent)"
    found = compare({"none": -5.0, "lamb": -5.0})
    assert (found.agree, found.decided, found.unsigned) == (1, 1, 1)
    assert "1 published without a difference" in found.words[0]


def test_rows_nobody_published_are_left_out():
    shifts = {"sgd": -5.0, "ours": 3.0, "lamb": -2.0}
    assert compare(shifts).pairs == 1
    assert compare(shifts, {**PUBLISHED, "ours": math.nan}).pairs == 1
    nothing = compare(shifts, {})
    assert (nothing.decided, nothing.pairs) == (0, 0)
    assert math.isnan(nothing.tau)
    assert nothing.words == ("signs agree in 0 of 0 decided rows (0 undecided)",)


def test_two_seeds_resolve_no_pair():
    found = compare({"sgd": -50.0, "lamb": 50.0}, n=2)
    assert (found.decided, found.resolved) == (0, 0)


def test_tau_spreads_with_the_noise_and_is_the_same_every_time():
    shifts = {"sgd": -0.6, "lamb": -0.4, "mixup": 0.1, "erasing": -0.2}
    loud, again = (compare(shifts, noise=1.0, n=4) for _ in range(2))
    assert loud == again
    assert loud.tau_low < loud.tau_high
    quiet = compare(shifts, noise=1e-6, n=4)
    assert quiet.tau_high - quiet.tau_low == 0


def test_senseless_input_is_refused():
    with pytest.raises(ValueError, match="published"):
        compare({"sgd": 1.0}, {"sgd": math.inf})
    rows, baseline = table({"sgd": 1.0})
    with pytest.raises(ValueError, match="no verdict on sgd"):
        agreement(rows, baseline, PUBLISHED, {})


def test_kendall_by_hand():
    # Of 6 pairs 5 are in order and 1 is not; with one pair tied in ours, (4 - 1) / sqrt(5 x 6).
    ours = np.array([[1.0, 2, 3, 4], [1.0, 1, 3, 4], [1.0, np.nan, 3, 4], [1.0, 1, 1, 1], [np.nan, 1, np.nan, np.nan]])
    found = kendall(ours, np.array([1.0, 3, 2, 4]))
    assert found == pytest.approx([4 / 6, 3 / math.sqrt(30), 1, math.nan, math.nan], nan_ok=True)


def test_kendall_is_scipys_to_the_bit():
    random = np.random.RandomState(0)
    for rows in (2, 3, 7, 13):
        ours, theirs = random.randint(0, 6, (200, rows)).astype(float), random.randint(0, 9, rows).astype(float)
        ours[:50], ours[50:60] = random.normal(size=(50, rows)), theirs
        expected = [stats.kendalltau(each, theirs).statistic for each in ours]
        assert kendall(ours, theirs).tolist() == pytest.approx(expected, abs=0, rel=0, nan_ok=True)


def test_what_chance_does():
    # Of the 6 orders of three rows, 2 have |tau| = 1; of 12 rows, scipy knows.
    assert tau_by_chance(3, 1.0) == pytest.approx(2 / 6)
    assert tau_by_chance(3, -1 / 3) == 1
    order = [1, 0, 3, 2, 6, 4, 5, 9, 11, 7, 10, 8]
    known = stats.kendalltau(range(12), order, method="exact")
    assert tau_by_chance(12, known.statistic) == pytest.approx(known.pvalue)
    assert math.isnan(tau_by_chance(1, 1.0))
