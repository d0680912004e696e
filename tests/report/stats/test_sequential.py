"""Looks at 3, 6, 9 and 12 seeds."""

import math
import random

import pytest
from studies import effects

from deit_ablate.report.stats.sequential import LOOKS, Schedule, sequential
from deit_ablate.report.stats.verdicts import Rules


def draws(n, seed, shift=0.0):
    draw = random.Random(seed)
    return {s: 80 + shift + draw.gauss(0, 1) for s in range(n)}


def table(n, **shifts):
    return {name: draws(n, i + 1, shift) for i, (name, shift) in enumerate(shifts.items())}, draws(n, 0)


def test_before_and_at_the_first_look():
    rows, baseline = table(2, far=-60.0, near=0.0)
    early = sequential(rows, baseline)
    assert (early.look, early.words) == (0, "look 0 of 4 (0 of 12 seeds)")
    assert (early.going_on, early.next_seeds) == (("far", "near"), (0, 1, 2))
    assert {effect.verdict for effect in early.effects.values()} == {"too_few"}

    rows, baseline = table(3, far=-60.0, near=0.0)
    first = sequential(rows, baseline)
    assert first.words == "look 1 of 4 (3 of 12 seeds)"
    assert first.stopped == {"far": 3}
    assert first.effects["far"].verdict == "worse"
    assert first.effects["near"].words == "undecided at look 1 of 4; goes on to 6 seeds"
    assert (first.going_on, first.next_seeds) == (("near",), (0, 1, 2, 3, 4, 5))
    assert first.notes == ("rows stopped at 3 overstate their effect (far)",)


def test_the_first_look_asks_ten_times_as_much():
    """Its weight is 0.1: p / 0.1, over which Holm goes."""
    rows, baseline = table(3, a=-4.0, b=2.0, c=0.0)
    fixed, looked = effects(rows, baseline), sequential(rows, baseline).effects
    for name in rows:
        assert looked[name].p == pytest.approx(min(1, fixed[name].p / 0.1))
        assert looked[name].difference == fixed[name].difference
        assert looked[name].half_width == fixed[name].half_width
        assert looked[name].half_width_simultaneous > fixed[name].half_width_simultaneous


def test_a_look_waits_for_every_undecided_row_and_the_baseline_but_not_for_stopped_rows():
    rows, baseline = table(6, far=-60.0, near=0.0, other=0.1)
    rows["far"] = {s: v for s, v in rows["far"].items() if s < 3}
    assert sequential(rows, baseline).look == 2
    waiting = dict(rows, other={s: v for s, v in rows["other"].items() if s != 4})
    assert sequential(waiting, baseline).look == 1
    assert sequential(rows, {s: v for s, v in baseline.items() if s != 4}).look == 1


def test_runs_beyond_a_look_and_seeds_of_stopped_rows_change_nothing():
    rows, baseline = table(6, far=-60.0, near=0.0)
    at_six = sequential(rows, baseline)
    more, longer = table(8, far=-60.0, near=0.0)
    assert repr(sequential(more, longer)) == repr(at_six)  # in words, as NaN is not equal to itself
    assert at_six.effects["far"].runs == 3
    assert at_six.effects["near"].runs == 6


def test_the_last_look_ends_it():
    rows, baseline = table(12, near=0.0, other=0.0)
    done = sequential(rows, baseline)
    assert done.words == "look 4 of 4 (12 of 12 seeds)"
    assert (done.going_on, done.next_seeds) == ((), ())
    assert {effect.words for effect in done.effects.values()} == {"undecided after the last look (12 seeds)"}


def test_it_ends_at_once_when_all_is_decided():
    rows, baseline = table(3, far=-60.0, high=60.0)
    done = sequential(rows, baseline)
    assert (done.look, done.going_on, done.next_seeds) == (1, (), ())
    assert sequential({}, baseline).effects == {}


def test_equivalence_stops_a_row_too():
    rows, baseline = table(3, near=0.0, other=0.0)
    done = sequential(rows, baseline, Rules(margin=50))
    assert done.stopped == {"near": 3, "other": 3}
    assert {effect.words for effect in done.effects.values()} == {"equivalent (within ±50)"}
    assert done.notes == ()  # an equivalent row has no effect to overstate


def test_a_decision_stands():
    """Whatever the seeds after a row's last look bring: it is judged by those before."""
    rows, baseline = table(3, far=-60.0, near=0.0)
    later, longer = table(12, far=-60.0, near=0.0)
    later["far"] = {s: v + (120 if s >= 3 else 0) for s, v in later["far"].items()}
    before, after = sequential(rows, baseline), sequential(later, longer)
    assert after.effects["far"].verdict == before.effects["far"].verdict == "worse"
    assert after.effects["far"].p == before.effects["far"].p
    assert after.effects["far"].runs == 3  # what came after its last look is not in the figure that is shown


def test_diverged_runs_have_ended_and_a_row_that_never_trains_is_not_waited_for():
    rows, baseline = table(6, near=0.0, shaky=0.0)
    rows["shaky"][1] = math.nan
    rows["never"] = dict.fromkeys(range(3), math.nan)
    first = sequential({name: {s: v for s, v in row.items() if s < 3} for name, row in rows.items()}, baseline)
    assert first.effects["never"].words == "did not train (3 of 3; rate at least 29%)"
    expected = "undecided: 1 of 3 diverged (0.8–91%); 2 runs are too few; goes on to 6 seeds"
    assert first.effects["shaky"].words == expected
    assert first.going_on == ("near", "shaky")
    second = sequential(rows, baseline)
    assert second.look == 2
    assert second.effects["shaky"].runs == 5


def test_seeds_outside_the_plan_are_not_used():
    rows, baseline = table(12, near=0.0)
    rows["near"][77] = baseline[77] = 90.0
    outside = sequential(rows, baseline)
    assert outside.effects["near"].runs == 12
    assert outside.notes == (
        "seeds outside the plan are not used (77): with seeds added after looking 5% no longer holds",
    )


def test_the_baseline_has_looks_of_its_own():
    rows, _ = table(6, far=-60.0, near=0.0)
    schedule = Schedule.of(LOOKS, (5, 9, 13, 17))
    assert sequential(rows, draws(8, 0), schedule=schedule).look == 1
    second = sequential(rows, draws(9, 0), schedule=schedule)
    assert second.look == 2
    assert (second.effects["near"].runs, second.effects["near"].other_runs) == (6, 9)
    assert second.effects["far"].other_runs == 9  # judged at the first look, shown with what the baseline has now
    assert second.next_seeds == tuple(range(9))


def test_each_row_is_seen_alone_where_a_look_is_not_taken_together():
    rows, baseline = table(9, far=-60.0, near=0.0, behind=0.1)
    rows["far"] = {s: v for s, v in rows["far"].items() if s < 3}
    rows["behind"] = {s: v for s, v in rows["behind"].items() if s < 2}
    alone = sequential(rows, baseline, schedule=Schedule(together=False))
    assert (alone.look, alone.taken) == (3, {"far": 1, "near": 3, "behind": 0})
    assert alone.stopped == {"far": 3}
    assert alone.effects["near"].words == "undecided at look 3 of 4; goes on to 12 seeds"
    assert alone.going_on == ("near", "behind")
    assert sequential(rows, baseline).look == 0, "together it would wait"
    rows["behind"] = draws(9, 3, 0.1)
    both = sequential(rows, baseline, schedule=Schedule(together=False))
    assert both.taken == {"far": 1, "near": 3, "behind": 3}
    assert repr(both.effects) == repr(sequential(rows, baseline).effects), "the same once all are there"
    rows["near"], rows["behind"] = draws(12, 2), draws(3, 3, 0.1)
    last = sequential(rows, draws(12, 0), schedule=Schedule(together=False))
    assert (last.taken["near"], last.taken["behind"], last.going_on) == (4, 1, ("behind",))
    assert last.effects["near"].words == "undecided after the last look (12 seeds)"


def test_a_run_that_diverged_before_a_first_look_says_nothing_yet():
    rows, baseline = table(3, near=0.0, shaky=0.0)
    rows["shaky"] = {0: math.nan}
    early = sequential(rows, baseline, schedule=Schedule(together=False))
    assert early.going_on == ("near", "shaky")


def test_the_chance_of_a_decision_grows_with_what_was_seen():
    rows, baseline = table(3, null=0.0, near=1.0, nearer=2.5)
    found = sequential(rows, baseline, Rules(margin=0.1)).chances
    assert 0 <= found["null"] < found["near"] < found["nearer"] <= 1
    assert sequential(*table(2, a=0.0)).chances == {"a": 1.0}, "the first look, which every row needs"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"looks": (2, 4), "baseline": (3, 4), "weights": (0.5, 0.5)}, "from 3 on"),
        ({"looks": (3, 3), "baseline": (3, 4), "weights": (0.5, 0.5)}, "growing"),
        ({"looks": (3, 4), "baseline": (3, 3), "weights": (0.5, 0.5)}, "growing"),
        ({"looks": (), "baseline": (), "weights": ()}, "growing"),
        ({"looks": (3, 6)}, "weight"),
        ({"weights": (0.5, 0.5)}, "weight"),
        ({"weights": (0.4, 0.4, 0.4, 0.4)}, "weight"),
    ],
)
def test_senseless_plans_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**given)
    with pytest.raises(ValueError, match="margin"):
        sequential(*table(3, a=0.0), Rules(margin=-1))
