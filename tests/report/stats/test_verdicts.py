"""Verdicts on rows: the worked example of the protocol, its edges, and properties that any table must have."""

import math
import random
import subprocess
import sys

import pytest
from scipy import stats

from deit_ablate.report.stats.verdicts import effects, untested

BASELINE = {0: 81.8, 1: 81.6, 2: 81.9}
ROWS = {
    name: dict(enumerate(values))
    for name, values in {
        "one": (81.7, 81.7, 81.8),
        "two": (79.5, 79.8, 79.6),
        "three": (81.3, 81.1, 81.2),
        "four": (76.4, 76.9, 76.2),
        "five": (81.9, 81.7, 82.1),
    }.items()
}


def seeds(*values):
    return dict(enumerate(values))


def random_table(m, n, seed, spread=1.0):
    draw = random.Random(seed)
    rows = {f"row {i}": {s: 80 + draw.gauss(0, spread) for s in range(n)} for i in range(m)}
    return rows, {s: 80 + draw.gauss(0, spread) for s in range(n)}


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("difference", (-0.0333, -2.1333, -0.5667, -5.2667, 0.1333)),
        ("own_variance", (0.013333, 0.083333, 0.013333, 0.263333, 0.003333)),
        ("standard_error", (0.0750, 0.1223, 0.0750, 0.19738, 0.06551)),
        ("p", (0.67530, 1.135e-5, 6.438e-4, 1.382e-6, 0.09745)),
        ("p_holm", (0.67530, 4.540e-5, 1.931e-3, 6.912e-6, 0.19490)),
        ("p_equivalent_holm", (0.003920, 1, 1, 1, 0.005028)),
        ("p_paired", (0.6667, 0.00605, 0.01356, 0.00315, 0.05719)),
    ],
)
def test_the_worked_example(field, expected):
    found = effects(ROWS, BASELINE, margin=0.5)
    assert [getattr(effect, field) for effect in found.values()] == pytest.approx(expected, abs=1e-4)
    if field in ("p", "p_holm"):
        assert [getattr(effect, field) for effect in found.values()] == pytest.approx(expected, rel=1e-3)


def test_the_worked_example_in_words():
    found = effects(ROWS, BASELINE, margin=0.5)
    assert [effect.words for effect in found.values()] == [
        "equivalent (within ±0.5)",
        "worse",
        "worse",
        "worse",
        "equivalent (within ±0.5)",
    ]
    assert {effect.df for effect in found.values()} == {5}  # 2 of its own and 3 lent
    # Row four's variance is 13.7 times the typical one (0.0192359), and 3 squared is 9.
    assert [name for name, effect in found.items() if effect.notes] == ["four"]
    assert "its own interval is too short at n=3" in found["four"].notes[0]
    # t(5) quantiles of a printed table: 2.5706 at 0.975, 4.0321 at 0.995 = 1 - 0.025/5.
    assert found["one"].half_width == pytest.approx(2.5706 * 0.0750, abs=1e-4)
    assert found["one"].half_width_simultaneous == pytest.approx(4.0321 * 0.0750, abs=1e-4)
    assert list(found) == list(ROWS)


def test_without_a_margin_no_row_is_equivalent():
    found = effects(ROWS, BASELINE)
    assert [effect.verdict for effect in found.values()] == ["undecided", "worse", "worse", "worse", "undecided"]
    assert math.isnan(found["one"].p_equivalent)
    assert math.isnan(found["one"].p_equivalent_holm)


def test_one_row_is_the_paired_t_test_of_scipy():
    for trial in range(20):
        rows, baseline = random_table(1, 3 + trial % 5, trial)
        (found,) = effects(rows, baseline).values()
        ours, theirs = list(rows["row 0"].values()), list(baseline.values())
        expected = stats.ttest_rel(ours, theirs)
        assert found.p == pytest.approx(expected.pvalue)
        assert found.p == found.p_holm == pytest.approx(found.p_paired)
        interval = expected.confidence_interval()
        assert found.difference - found.half_width == pytest.approx(interval.low)
        assert found.difference + found.half_width_simultaneous == pytest.approx(interval.high)
        assert found.correlation == pytest.approx(stats.pearsonr(ours, theirs).statistic)


def test_swapping_signs_swaps_better_and_worse():
    rows, baseline = random_table(4, 5, 7)
    rows["row 1"] = {seed: value + 6 for seed, value in rows["row 1"].items()}
    mirrored = {name: {s: 160 - v for s, v in row.items()} for name, row in rows.items()}
    found = effects(rows, baseline, margin=3)
    other = effects(mirrored, {s: 160 - v for s, v in baseline.items()}, margin=3)
    for name, effect in found.items():
        assert other[name].difference == pytest.approx(-effect.difference)
        assert other[name].p_holm == pytest.approx(effect.p_holm)
        assert other[name].p_equivalent == pytest.approx(effect.p_equivalent)
    assert (found["row 1"].verdict, other["row 1"].verdict) == ("better", "worse")


def test_the_order_of_rows_and_what_all_seeds_share_change_nothing():
    rows, baseline = random_table(5, 4, 3)
    luck = {0: 3.0, 1: -5.0, 2: 0.5, 3: 10.0}
    moved = {name: {s: v + luck[s] for s, v in rows[name].items()} for name in reversed(rows)}
    found, again = (
        effects(rows, baseline, margin=1),
        effects(moved, {s: v + luck[s] for s, v in baseline.items()}, margin=1),
    )
    for name in rows:
        assert again[name].p_holm == pytest.approx(found[name].p_holm)
        assert again[name].verdict == found[name].verdict


def test_a_row_is_better_by_less_than_the_margin():
    draw = random.Random(1)
    baseline = {s: 80 + draw.gauss(0, 0.05) for s in range(10)}
    rows = {"a": {s: v + 0.2 + draw.gauss(0, 0.05) for s, v in baseline.items()}}
    (found,) = effects(rows, baseline, margin=0.5).values()
    assert (found.verdict, found.words) == ("better_small", "better, by less than 0.5")
    (found,) = effects({"a": baseline}, rows["a"], margin=0.5).values()
    assert (found.verdict, found.words) == ("worse_small", "worse, by less than 0.5")


@pytest.mark.parametrize(
    ("row", "verdict", "words"),
    [
        ({}, "none", "no pair of seeds with the baseline"),
        ({9: 80.0}, "none", "no pair of seeds with the baseline"),
        ({0: 80.0}, "one_seed", "one seed: cannot tell"),
        ({0: 80.0, 1: math.nan, 2: 81.0}, "too_few", "2 pairs: too few for a verdict"),
    ],
)
def test_too_few_seeds_get_no_verdict_however_large_the_difference(row, verdict, words):
    found = effects({"few": row, **ROWS}, {seed: value + 50 for seed, value in BASELINE.items()})
    assert (found["few"].verdict, found["few"].words) == (verdict, words)
    assert math.isnan(found["few"].p_holm)
    assert found["one"].verdict == "worse"
    if verdict == "one_seed":
        assert found["few"].difference == pytest.approx(80 - 131.8)
        assert math.isnan(found["few"].half_width)


def test_a_row_without_pairs_still_counts_in_the_correction():
    alone, beside = effects({"a": ROWS["three"]}, BASELINE)["a"], effects({"a": ROWS["three"], "b": {}}, BASELINE)["a"]
    assert beside.p == alone.p  # it lends no variance, so there is none to borrow
    assert beside.p_holm == pytest.approx(2 * alone.p_holm)
    assert beside.half_width_simultaneous > alone.half_width_simultaneous


def test_seeds_are_paired_and_missing_ones_make_no_pair():
    row, baseline = {2: 95.0, 1: 97.0, 5: 12.0, 3: math.nan, 7: 90.0}, {1: 98.0, 2: 97.0, 3: 99.0, 4: 99.0, 7: 91.0}
    (found,) = effects({"row": row}, baseline).values()
    assert found.pairs == 3
    assert found.difference == pytest.approx(-4 / 3)  # -1, -2, -1
    assert found.own_variance == pytest.approx(1 / 3)


def test_an_empty_table_and_an_empty_baseline():
    assert effects({}, BASELINE) == {}
    assert effects({}, {}) == {}
    assert {effect.verdict for effect in effects(ROWS, {}).values()} == {"none"}
    assert untested("baseline").verdict == "baseline"
    assert math.isnan(untested("none").p)


def test_senseless_input_is_refused():
    with pytest.raises(ValueError, match="infinite"):
        effects({"a": seeds(1, math.inf)}, BASELINE)
    with pytest.raises(ValueError, match="infinite"):
        effects(ROWS, {0: -math.inf})
    for margin in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="margin"):
            effects(ROWS, BASELINE, margin=margin)
    with pytest.raises(ValueError, match="test images"):
        effects(ROWS, BASELINE, test_images=0)
    with pytest.raises(ValueError, match="4 of 3"):
        effects(ROWS, BASELINE, diverged={"one": (4, 3)})


def test_seeds_that_agree_exactly_prove_nothing_by_themselves():
    # 81.7 - 81.6 and 81.9 - 81.8 are equal only up to rounding: that must not become a tiny variance and a tiny p.
    row, baseline = seeds(81.7, 81.9, 82.1), seeds(81.6, 81.8, 82.0)
    (found,) = effects({"same": row}, baseline, margin=0.5).values()
    assert (found.own_variance, found.verdict, found.words) == (0, "undecided", "undecided: no spread to test with")
    assert math.isnan(found.p)
    assert "same at every seed" in found.notes[0]
    assert math.isnan(found.p_paired)


def test_one_test_image_is_the_least_that_seeds_are_taken_to_scatter():
    # 360 test images: a step of 0.2778 points, a standard error of 0.2778 / sqrt(6 * 3) = 0.0655 at 3 seeds.
    (found,) = effects({"same": seeds(80, 80, 80)}, seeds(80, 80, 80), margin=0.5, test_images=360).values()
    assert found.standard_error == pytest.approx(0.2778 / math.sqrt(18), abs=1e-4)
    assert found.p == 1
    assert found.verdict == "equivalent"
    assert "one test image" in found.notes[0]
    noisy, plain = effects(ROWS, BASELINE, test_images=50_000), effects(ROWS, BASELINE)
    assert repr(noisy) == repr(plain)  # real scatter is far above 0.002 points


def test_strict_is_stricter():
    # Holm multiplies the largest p by 1; strict multiplies each by the number of rows.
    rows, baseline = {"a": ROWS["two"], "b": ROWS["four"], "c": seeds(81.3, 81.15, 81.45)}, BASELINE
    holm_, strict = (effects(rows, baseline, strict=strict) for strict in (False, True))
    assert holm_["c"].p * 3 > 0.05 >= holm_["c"].p_holm
    assert (holm_["c"].verdict, strict["c"].verdict) == ("worse", "undecided")
    assert strict["a"].verdict == "worse"


def test_undecided_rows_say_what_would_decide_them():
    rows, baseline = random_table(5, 3, 2)
    words = {effect.words for effect in effects(rows, baseline, margin=2).values() if effect.verdict == "undecided"}
    assert words
    for text in words:
        assert text.startswith("undecided; about ")
        seeds_, low, high = (int(part) for part in text.replace("(", "").replace(")", "").split() if part.isdigit())
        assert low >= 4  # 3 are there already
        assert low <= seeds_ <= high == 2 * seeds_
    (far,) = {effect.words for effect in effects(rows, baseline, margin=0.01).values()}
    assert far == "undecided; more than 50 seeds"
    for effect in effects(rows, baseline).values():
        assert effect.words.startswith("undecided; if the effect is as observed, ")
        assert effect.words.endswith(("seeds (order of magnitude)", "more than 50 seeds"))


def test_the_seeds_that_an_undecided_row_needs_by_hand():
    # One row, differences -1, 0, 1: sd 1, margin 1. The fewest n with sqrt(n) >= t(.975) + t(.8) and t(.95) + t(.9), of
    # n-1 degrees of freedom:
    # n = 9: 2.3060 + 0.8889 = 3.195 > 3; n = 10: 2.2622 + 0.8834 = 3.146 < 3.162, and 1.8331 + 1.3830 = 3.216 > 3.162;
    # n = 11: 1.8125 + 1.3722 = 3.185 < 3.317.
    (found,) = effects({"a": seeds(79, 80, 81)}, seeds(80, 80, 80), margin=1).values()
    assert found.words == "undecided; about 11 seeds (6 to 22)"
    # Without a margin the observed difference, here 1 with sd 1, has to be found: n = 10 does.
    (found,) = effects({"a": seeds(80, 81, 82)}, seeds(80, 80, 80)).values()
    assert found.words == "undecided; if the effect is as observed, about 10 seeds (order of magnitude)"
    (found,) = effects({"a": seeds(79, 80, 81)}, seeds(80, 80, 80)).values()
    assert found.words == "undecided; if the effect is as observed, more than 50 seeds"


@pytest.mark.parametrize(
    ("values", "counts", "verdict", "words"),
    [
        ({0: 70, 1: 71}, (1, 3), "too_few", "undecided: 1 of 3 diverged (0.8–91%); 2 pairs are too few; add a seed"),
        ({0: 70}, (2, 3), "one_seed", "undecided: 2 of 3 diverged (9.4–99%); 1 pair is too few; add 2 seeds"),
        ({}, (3, 3), "did_not_train", "did not train (3 of 3; rate at least 29%)"),
        ({5: 70}, (1, 2), "none", "undecided: 1 of 2 diverged (1.3–99%); no pair is left; add 3 seeds"),
    ],
)
def test_diverged_runs_are_named_and_are_no_verdict(values, counts, verdict, words):
    found = effects({"a": values, **ROWS}, BASELINE, diverged={"a": counts, "one": (0, 3)})["a"]
    assert (found.verdict, found.words) == (verdict, words)


def test_a_mean_over_converged_runs_is_marked_as_such():
    baseline, row = seeds(80, 80.1, 79.9, 80.05, 80), {0: 70.0, 1: 70.2, 2: 69.9, 4: 70.1}
    found = effects({"a": row}, baseline, diverged={"a": (1, 5)})["a"]
    assert found.verdict == "worse"
    assert "1 of 5 diverged (0.5–72%)" in found.notes[0]
    assert "runs that converge" in found.notes[0]


def test_the_sign_flip_p_is_given_from_six_pairs_on():
    few, enough = ({s: 81 + 0.1 * s for s in range(n)} for n in (5, 6))
    baseline = dict.fromkeys(range(6), 80.0)
    assert math.isnan(effects({"a": few}, baseline)["a"].p_sign_flip)
    assert effects({"a": enough}, baseline)["a"].p_sign_flip == 2 / 2**6


def test_a_row_of_large_scatter_leaves_the_others_errors_as_they_were():
    # Without lending, four seeds of one wild row leave the others' errors as they were, to within a factor of 1.5.
    rows, baseline = random_table(5, 4, 11)
    wild = dict(rows, **{"row 0": {s: 80 + 40 * (-1) ** s for s in range(4)}})
    calm, stormy = effects(rows, baseline), effects(wild, baseline)
    for name in list(rows)[1:]:
        assert stormy[name].standard_error < 1.5 * calm[name].standard_error


def test_a_table_without_diverged_runs_needs_no_scipy_stats():
    """It costs most of a second, which the interval of a rate of divergence alone is worth."""
    code = (
        "import sys; from deit_ablate.report.stats import agreement, exact, power, sequential, verdicts;"
        "rows = {'a': {s: s * 1.0 for s in range(8)}, 'b': {0: 1.0, 1: 2.0, 2: 2.0}};"
        "level = {s: 0.5 for s in range(8)};"
        "verdicts.effects(rows, level, margin=1, diverged={'b': (0, 4)});"
        "power.plan_words(5, 3); power.power(1, 5, 3); exact.mean_interval([1, 2]);"
        "sequential.sequential({'a': rows['a']}, level);"
        "assert 'scipy.stats' not in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
