"""Verdicts on rows: the worked example of the protocol, its edges, and properties that any table must have."""

import math
import random
import statistics
import subprocess
import sys

import pytest
from scipy import stats
from studies import effects

from deit_ablate.report.stats.verdicts import DIFFERENT, judge, steps, untested

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


def by_hand(rows, baseline):
    """The protocol once more, in plain Python: (difference, standard error, df) of each row."""
    groups = [list(values.values()) for values in (baseline, *rows.values())]
    own = [statistics.variance(values) for values in groups]
    typical = sorted(s / (stats.chi2.median(len(v) - 1) / (len(v) - 1)) for s, v in zip(own, groups, strict=True))
    place = min(2 / 3 * (len(groups) - 1), len(groups) - 2)
    lower, share = typical[int(place)], place - int(place)
    lent = lower + share * (typical[int(place) + 1] - lower) if share else lower
    more = min(2.5, 0.7 * (len(groups) - 1))
    moderated = [
        max(s, (more * lent + (len(v) - 1) * s) / (more + len(v) - 1)) for s, v in zip(own, groups, strict=True)
    ]
    shares = [v / len(values) for v, values in zip(moderated, groups, strict=True)]
    for values, share in zip(groups[1:], shares[1:], strict=True):
        squared = share + shares[0]
        df = squared**2 / (share**2 / (more + len(values) - 1) + shares[0] ** 2 / (more + len(groups[0]) - 1))
        yield statistics.mean(values) - statistics.mean(groups[0]), math.sqrt(squared), df


def test_the_worked_example():
    found = effects(ROWS, BASELINE, margin=0.5)
    expected = list(by_hand(ROWS, BASELINE))
    assert [effect.difference for effect in found.values()] == pytest.approx([e[0] for e in expected])
    assert [effect.standard_error for effect in found.values()] == pytest.approx([e[1] for e in expected])
    assert [effect.df for effect in found.values()] == pytest.approx([e[2] for e in expected])
    p = [2 * stats.t.sf(abs(difference) / error, df) for difference, error, df in expected]
    assert [effect.p for effect in found.values()] == pytest.approx(p)
    equal = [max(stats.t.sf((d + 0.5) / e, df), stats.t.cdf((d - 0.5) / e, df)) for d, e, df in expected]
    assert [effect.p_equivalent for effect in found.values()] == pytest.approx(equal)
    for effect, (_, error, df) in zip(found.values(), expected, strict=True):
        assert effect.half_width == pytest.approx(stats.t.ppf(0.975, df) * error)
        assert effect.half_width_simultaneous == pytest.approx(stats.t.ppf(1 - 0.025 / 5, df) * error)
        assert (effect.runs, effect.other_runs, effect.paired) == (3, 3, False)


def test_the_worked_example_in_words():
    found = effects(ROWS, BASELINE, margin=0.5)
    assert [effect.words.partition(";")[0] for effect in found.values()] == [
        "equivalent (within ±0.5)",
        "worse",
        "worse",
        "worse",
        "undecided",
    ]
    assert list(found) == list(ROWS)


def test_without_a_margin_no_row_is_equivalent():
    found = effects(ROWS, BASELINE)
    assert [effect.verdict for effect in found.values()] == ["undecided", "worse", "worse", "worse", "undecided"]
    assert math.isnan(found["one"].p_equivalent)
    assert math.isnan(found["one"].p_equivalent_holm)


def test_the_plain_p_is_that_of_scipy():
    for trial in range(20):
        rows, baseline = random_table(1, 3 + trial % 5, trial)
        more = {**baseline, 90: 80.5, 91: 79.0}
        ours = list(rows["row 0"].values())
        unpaired = effects(rows, more)["row 0"]
        assert unpaired.p_plain == pytest.approx(stats.ttest_ind(ours, list(more.values()), equal_var=False).pvalue)
        assert unpaired.p == unpaired.p_holm
        paired = effects(rows, baseline, paired=["row 0"])["row 0"]
        expected = stats.ttest_rel(ours, list(baseline.values()))
        assert paired.p_plain == pytest.approx(expected.pvalue)
        assert paired.p == pytest.approx(expected.pvalue)  # a pair alone borrows nothing
        interval = expected.confidence_interval()
        assert paired.difference - paired.half_width == pytest.approx(interval.low)
        assert paired.difference + paired.half_width_simultaneous == pytest.approx(interval.high)


def test_more_runs_of_the_baseline_shorten_every_interval():
    rows, baseline = random_table(3, 3, 1)
    draw = random.Random(9)
    more = {**baseline, **{s: 80 + draw.gauss(0, 1) for s in range(3, 9)}}
    few, many = effects(rows, baseline), effects(rows, more)
    for name in rows:
        assert many[name].half_width < few[name].half_width
        assert (many[name].runs, many[name].other_runs) == (3, 9)


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


def test_the_order_of_rows_and_seeds_changes_nothing_and_of_pairs_what_all_seeds_share():
    rows, baseline = random_table(5, 4, 3)
    found = effects(rows, baseline, margin=1)
    renamed = {name: {9 - s: v for s, v in rows[name].items()} for name in reversed(rows)}
    for name, effect in effects(renamed, baseline, margin=1).items():
        assert effect.p_holm == pytest.approx(found[name].p_holm)
    luck = {0: 3.0, 1: -5.0, 2: 0.5, 3: 10.0}
    moved = {name: {s: v + luck[s] for s, v in values.items()} for name, values in rows.items()}
    lucky = {s: v + luck[s] for s, v in baseline.items()}
    paired, again = (effects(*table, paired=list(rows)) for table in ((rows, baseline), (moved, lucky)))
    for name in rows:
        assert again[name].p_holm == pytest.approx(paired[name].p_holm)
        assert again[name].verdict == paired[name].verdict


def test_a_row_is_better_by_less_than_the_margin():
    draw = random.Random(1)
    baseline = {s: 80 + draw.gauss(0, 0.05) for s in range(10)}
    rows = {"a": {s: v + 0.2 + draw.gauss(0, 0.05) for s, v in baseline.items()}}
    (found,) = effects(rows, baseline, margin=0.5).values()
    assert (found.verdict, found.words) == ("better_small", "better, by less than 0.5")
    (found,) = effects({"a": baseline}, rows["a"], margin=0.5).values()
    assert (found.verdict, found.words) == ("worse_small", "worse, by less than 0.5")


@pytest.mark.parametrize(
    ("row", "paired", "verdict", "words"),
    [
        ({}, False, "none", "no run to compare"),
        ({9: 80.0}, True, "none", "no pair of seeds with the baseline"),
        ({0: 80.0}, False, "one_seed", "one seed: cannot tell"),
        ({0: 80.0, 1: math.nan, 2: 81.0}, False, "too_few", "2 runs: too few for a verdict"),
        ({0: 80.0, 1: 79.0, 9: 81.0}, True, "too_few", "2 pairs: too few for a verdict"),
    ],
)
def test_too_few_runs_get_no_verdict_however_large_the_difference(row, paired, verdict, words):
    high = {seed: value + 50 for seed, value in BASELINE.items()}
    found = effects({"few": row, **ROWS}, high, paired=["few"] if paired else [])
    assert (found["few"].verdict, found["few"].words) == (verdict, words)
    assert math.isnan(found["few"].p_holm)
    assert found["one"].verdict == "worse"
    if verdict == "one_seed":
        assert found["few"].difference == pytest.approx(80 - statistics.mean(high.values()))
        assert math.isnan(found["few"].half_width)


def test_two_runs_of_the_baseline_are_too_few_as_well():
    (found,) = effects({"row": seeds(70, 71, 72)}, seeds(80, 81)).values()
    assert (found.verdict, found.words) == ("too_few", "2 runs of the baseline: too few for a verdict")


def test_a_row_without_runs_still_counts_in_the_correction():
    alone, beside = effects({"a": ROWS["three"]}, BASELINE)["a"], effects({"a": ROWS["three"], "b": {}}, BASELINE)["a"]
    assert beside.p == alone.p  # it lends no variance, so there is none to borrow
    assert beside.p_holm == pytest.approx(2 * alone.p_holm)
    assert beside.half_width_simultaneous > alone.half_width_simultaneous


def test_pairs_are_of_equal_seeds_and_missing_ones_make_none():
    row, baseline = {2: 95.0, 1: 97.0, 5: 12.0, 3: math.nan, 7: 90.0}, {1: 98.0, 2: 97.0, 3: 99.0, 4: 99.0, 7: 91.0}
    (found,) = effects({"row": row}, baseline, paired=["row"]).values()
    assert found.runs == found.other_runs == 3
    assert found.difference == pytest.approx(-4 / 3)  # -1, -2, -1
    assert found.standard_error == pytest.approx(math.sqrt(1 / 3 / 3))


def test_each_row_against_the_one_before_it():
    rows = {"a": seeds(80, 81, 82), "b": seeds(90, 91, 92), "c": seeds(91, 90, 92)}
    found = steps(rows)
    assert {name: effect.difference for name, effect in found.items()} == {"b": pytest.approx(10), "c": 0}
    expected = list(by_hand({"b": rows["b"], "c": rows["c"]}, rows["a"]))
    assert found["b"].standard_error == pytest.approx(expected[0][1])
    assert steps(rows, paired=["b"])["b"].paired
    assert steps({"a": rows["a"]}) == steps({}) == {}


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
    with pytest.raises(ValueError, match="4 of 3"):
        effects(ROWS, BASELINE, diverged={"one": (4, 3)})


def test_seeds_that_agree_exactly_prove_nothing_by_themselves():
    # 81.7 - 81.6 and 81.9 - 81.8 are equal only up to rounding: that must not become a tiny variance and a tiny p.
    row, baseline = seeds(81.7, 81.9, 82.1), seeds(81.6, 81.8, 82.0)
    (found,) = effects({"same": row}, baseline, paired=["same"], margin=0.5).values()
    assert (found.standard_error, found.verdict, found.words) == (0, "undecided", "undecided: no spread to test with")
    assert math.isnan(found.p)
    assert "same at every seed" in found.notes[0]
    assert math.isnan(found.p_plain)


def test_one_test_image_is_the_least_that_seeds_are_taken_to_scatter():
    # 360 test images: a step of 0.2778 points, a standard error of 0.2778 / sqrt(6 * 3) = 0.0655 at 3 seeds.
    for paired in ((), ("same",)):
        (found,) = effects(
            {"same": seeds(80, 80, 80)}, seeds(80, 80, 80), paired=paired, margin=0.5, resolution=100 / 360
        ).values()
        assert found.standard_error == pytest.approx(0.2778 / math.sqrt(18), abs=1e-4)
        assert found.p == 1
        assert found.verdict == "equivalent"
        assert "one test image" in found.notes[0]
    noisy, plain = effects(ROWS, BASELINE, resolution=100 / 50_000), effects(ROWS, BASELINE)
    assert repr(noisy) == repr(plain)  # real scatter is far above 0.002 points


def test_strict_is_stricter():
    # Holm multiplies the largest p by 1; strict multiplies each by the number of rows.
    rows, baseline = {"a": ROWS["two"], "b": ROWS["four"], "c": seeds(81.45, 81.3, 81.55)}, BASELINE
    holm_, strict = (effects(rows, baseline, strict=strict) for strict in (False, True))
    assert holm_["c"].p * 3 > 0.05 >= holm_["c"].p_holm
    assert (holm_["c"].verdict, strict["c"].verdict) == ("worse", "undecided")
    assert strict["a"].verdict == "worse"


def test_the_seeds_that_an_undecided_row_needs_by_hand():
    # A row paired with the baseline, differences 0, 1, 2: sd 1, and the margin is 1. The fewest n with
    # sqrt(n) >= t(.975) + t(.8), of n-1 degrees of freedom, to find 1, and >= t(.95) + t(.9) to show that it is less:
    # n = 9: 2.3060 + 0.8889 = 3.195 > 3; n = 10: 2.2622 + 0.8834 = 3.146 < 3.162, and 1.8331 + 1.3830 = 3.216 > 3.162;
    # n = 11: 1.8125 + 1.3722 = 3.185 < 3.317.
    given = {"a": seeds(80, 81, 82)}, seeds(80, 80, 80)
    (found,) = effects(*given, paired=["a"], margin=1).values()
    assert found.words == "undecided; about 10 seeds if it is as large as it looks; to show equivalence, about 11"
    (found,) = effects(*given, paired=["a"]).values()
    assert found.words == "undecided; about 10 seeds if it is as large as it looks"
    (found,) = effects({"a": seeds(79, 80, 81)}, seeds(80, 80, 80), paired=["a"], margin=0.1).values()
    assert found.words == (
        "undecided; more than 50 seeds if it is as large as it looks; to show equivalence, more than 50"
    )


def test_a_difference_that_looks_large_needs_few_seeds_whatever_the_margin():
    """What a reader would do next is not told by the margin alone: a row at -3.4 with intervals of 4 needs few more."""
    rows = {"sgd": seeds(92.3, 95.2, 89.8), "lamb": seeds(96.6, 96.2, 96.4)}
    found = effects(rows, seeds(95.6, 96.0, 96.1), margin=0.5)["sgd"]
    assert found.verdict == "undecided"
    needed, equal = (
        int(word) if word.isdigit() else word for word in (found.words.split()[2], found.words.split()[-1])
    )
    assert 4 <= needed <= 12
    assert found.words.endswith("to show equivalence, more than 50")
    assert equal == 50


def test_seeds_that_are_said_to_decide_do():
    """Of rows with the difference that was seen, about eight in ten are decided with the seeds that were said."""
    draw = random.Random(4)
    rows, baseline = {"a": seeds(78.6, 79.7, 79.0)}, seeds(80.5, 79.5, 80.0)
    found = effects(rows, baseline)["a"]
    needed, decided = int(found.words.split()[2]), 0
    scatter = found.standard_error / math.sqrt(2 / 3)
    assert found.verdict == "undecided"
    for _ in range(300):
        row = {s: 80 + found.difference + draw.gauss(0, scatter) for s in range(needed)}
        other = {s: 80 + draw.gauss(0, scatter) for s in range(needed)}
        decided += effects({"a": row}, other)["a"].verdict in DIFFERENT
    assert decided / 300 > 0.7


@pytest.mark.parametrize(
    ("values", "counts", "verdict", "words"),
    [
        ({0: 70, 1: 71}, (1, 3), "too_few", "undecided: 1 of 3 diverged (0.8–91%); 2 runs are too few; add a seed"),
        ({0: 70}, (2, 3), "one_seed", "undecided: 2 of 3 diverged (9.4–99%); 1 run is too few; add 2 seeds"),
        ({}, (3, 3), "did_not_train", "did not train (3 of 3; rate at least 29%)"),
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


def test_a_row_of_large_scatter_is_named_and_leaves_the_others_as_they_were():
    for rows_, baseline in (random_table(m, 4, 11) for m in (1, 2, 5)):
        wild = dict(rows_, **{"row 0": {s: 80 + 40 * (-1) ** s for s in range(4)}})
        calm, stormy = effects(rows_, baseline), effects(wild, baseline)
        assert "times as much as is typical here: its own interval is too short at n=4" in stormy["row 0"].notes[0]
        for name in list(rows_)[1:]:
            assert stormy[name].standard_error < 1.5 * calm[name].standard_error
            assert not stormy[name].notes


def test_a_baseline_of_large_scatter_is_said_to_shorten_every_interval():
    rows, _ = random_table(5, 4, 11)
    judged = judge(rows, {s: 80 + 40 * (-1) ** s for s in range(4)})
    assert "every interval against it is too short" in judged.baseline().notes[0]
    assert not any(effect.notes for effect in judged.effects({}).values())
    assert judge(rows, random_table(1, 4, 2)[1]).baseline().notes == ()


def test_a_table_without_diverged_runs_needs_no_scipy_stats():
    """It costs most of a second, which the interval of a rate of divergence alone is worth."""
    code = (
        "import sys; from deit_ablate.report.stats import agreement, exact, power, sequential, verdicts;"
        "rows = {'a': {s: s * 1.0 for s in range(8)}, 'b': {0: 1.0, 1: 2.0, 2: 2.0}};"
        "level = {s: 0.5 for s in range(8)};"
        "verdicts.judge(rows, level, verdicts.Rules(1)).effects({'b': (0, 4)});"
        "power.plan_words(5, 3); exact.mean_interval([1, 2]);"
        "sequential.sequential({'a': rows['a']}, level);"
        "assert 'scipy.stats' not in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
