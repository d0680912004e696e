"""One comparison is what a table of one row says; a campaign's tries are counted once, in order, whoever asks."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from studies import Study, effects

from deit_ablate import files
from deit_ablate.errors import Damaged, InputError
from deit_ablate.report.judge import Group, Question, answer, answer_in_campaign, of_file, of_row
from deit_ablate.report.stats.campaign import Budget
from deit_ablate.store import Store
from deit_ablate.store.campaigns import Campaigns

BASE = [97.0, 98.0, 99.0, 97.5, 98.2]
BETTER = [103.0, 103.4, 102.9, 103.1]


def numbers(values: Sequence[float], label: str = "numbers") -> Group:
    return Group(label, dict(enumerate(values)))


def asked(candidate: Sequence[float], baseline: Sequence[float] | None = None, **more: Any) -> dict[str, Any]:
    against = None if baseline is None else numbers(baseline)
    return answer(Question.of(numbers(candidate), against, **{"better": "higher", **more}))


# -- two groups, and a target ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "same", "margin"),
    [
        ({"a": BASE, "b": [96.1, 96.8, 95.9]}, {}, None),
        ({"a": BASE, "b": [97.2, 98.3, 97.9, 98.6, 98.0]}, {}, 3.0),
        ({"a": BASE, "b": BASE}, {"b": "a"}, 0.4),
    ],
)
def test_a_row_is_judged_as_in_a_table_of_one_row(
    study: Callable[..., Study], rows: dict[str, list[float]], same: dict[str, str], margin: float | None
) -> None:
    shown = {name: "ema" if name in same else None for name in rows}
    fates = {
        name: {
            seed: {"top1": top1, "test": {"top1_ema": top1 + 0.1 * seed + 0.2}, "status": "done"}
            for seed, top1 in enumerate(values)
        }
        for name, values in rows.items()
    }
    made = study(fates, baseline="a", shows=shown, same=same, margin=margin)
    found = answer(Question.of(of_row(made.store, "study", "b"), of_row(made.store, "study", "a")))
    row = made.summary().rows[1]
    assert found["paired"] is bool(same) is row["paired"]
    assert (found["verdict"], found["words"]) == (row["verdict"], row["verdict_words"])
    assert found["difference"] == row["difference"]
    assert found["half_width"] == row["difference_half_width"]
    assert found["p"] == row["p"]
    assert (found["margin"], found["metric"], found["unit"]) == (margin, "test top-1", "points")


def test_the_sweeps_metric_says_which_way_is_better(study: Callable[..., Study]) -> None:
    fates = {
        name: {seed: {"top1": 50.0, "test": {"loss": loss + 0.01 * seed}, "status": "done"} for seed in range(4)}
        for name, loss in {"a": 1.0, "b": 0.5}.items()
    }
    made = study(fates, metric={"name": "loss", "place": [0, 0]}, margin=0.01)
    candidate = of_row(made.store, "study", "b")
    found = answer(Question.of(candidate, of_row(made.store, "study", "a")))
    assert (found["verdict"], found["better"], found["unit"], found["mean"]) == ("better", "lower", "nats", 0.515)
    assert answer(Question.of(candidate, target=0.9))["verdict"] == "better"
    assert answer(Question.of(candidate, numbers([0.1, 0.11, 0.12]), margin=0.5))["verdict"] == "worse_small"
    with pytest.raises(InputError, match="expected 'lower', as loss has"):
        Question.of(candidate, target=0.9, better="higher")


def test_rows_of_two_sweeps_are_paired_where_they_share_runs(study: Callable[..., Study]) -> None:
    rows = {"a": dict(enumerate(BASE))}
    one, two = study(rows, name="one"), study(rows, name="two")
    plan = two.store.sweeps.plan("two") or {}
    two.store.sweeps.save_plan("two", {**plan, "cells": (one.store.sweeps.plan("one") or {})["cells"]})
    sides = [of_row(one.store, name, "a") for name in ("one", "two")]
    with pytest.raises(InputError, match="two:a and one:a are the same runs and figures"):
        Question.of(*sides)
    shown = {"a": {seed: {"top1": top1, "status": "done"} for seed, top1 in enumerate(BASE)}}
    study(shown, name="three", shows={"a": "class"})
    plan = two.store.sweeps.plan("three") or {}
    two.store.sweeps.save_plan("three", {**plan, "cells": [["a", s, "", one.runs["a", s]] for s in range(4)]})
    assert Question.of(of_row(one.store, "three", "a"), sides[0]).paired
    other = study({"a": {seed: top1 - 9 for seed, top1 in enumerate(BASE)}}, name="other")
    apart = Question.of(of_row(other.store, "other", "a"), sides[0])
    assert not apart.paired
    assert answer(apart)["verdict"] == "worse"


def test_a_target_is_a_t_test_of_one_group() -> None:
    losses = [3.271, 3.268, 3.279, 3.274, 3.27]
    test = stats.ttest_1samp(losses, 3.28)
    found = asked(losses, target=3.28, better="lower")
    assert found["verdict"] == "better"
    assert found["p"] == pytest.approx(test.pvalue)
    interval = test.confidence_interval()
    assert found["half_width"] == pytest.approx((interval.high - interval.low) / 2)
    assert found["difference"] == pytest.approx(3.2724 - 3.28)
    assert (found["baseline"], found["baseline_runs"], found["paired"]) == (None, None, False)
    assert asked(losses, target=3.2, better="lower")["verdict"] == "worse"
    assert asked(losses, target=3.273, better="lower", margin=0.01)["verdict"] == "equivalent"
    assert asked([3.2, 3.3], target=3.28, better="lower")["words"] == "2 runs: too few for a verdict"


def test_a_target_is_not_rounded_as_a_run_is(study: Callable[..., Study]) -> None:
    """Four equal shares of 599 images: all that is unknown is what one image's step hides, s²/12 of each run."""
    made = study({"a": dict.fromkeys(range(4), 79.9666)})
    error = 100 / 599 / math.sqrt(12) / 2
    found = answer(Question.of(of_row(made.store, "study", "a"), target=80.06))
    assert found["half_width"] == pytest.approx(stats.t.ppf(0.975, 3) * error)


def test_what_undecided_needs_is_given_in_numbers_and_words() -> None:
    found = asked([97.5, 98.9, 98.3], BASE, margin=1.0)
    row = effects({"b": {0: 97.5, 1: 98.9, 2: 98.3}}, dict(enumerate(BASE)), margin=1.0)["b"]
    assert found["words"] == row.words
    assert found["words"].startswith(("undecided; about", "undecided; more than 50 seeds"))
    assert f"to show equivalence, about {found['seeds_for_equivalence']}" in found["words"]
    assert (found["seeds_to_decide"] is None) == ("more than 50" in found["words"])


def test_runs_that_diverged_are_no_figures(study: Callable[..., Study]) -> None:
    lost = {seed: {"status": "diverged", "reason": "non-finite loss"} for seed in range(3)}
    made = study({"a": {**dict(enumerate(BASE)), 5: "diverged"}, "b": lost, "c": {0: 97.0, 1: "missing"}})
    base, gone, few = (of_row(made.store, "study", name) for name in "abc")
    found = answer(Question.of(gone, base))
    assert found["verdict"] == "did_not_train"
    assert found["mean"] is found["difference"] is None
    assert any("of the baseline 1 of 6 diverged" in note for note in found["notes"])
    assert answer(Question.of(few, base))["words"] == "one seed: cannot tell"
    assert "Infinity" not in json.dumps(found, allow_nan=False)


def test_what_a_table_judges_otherwise_is_a_note(study: Callable[..., Study]) -> None:
    made = study({"a": dict(enumerate(BASE)), "b": dict(enumerate(BETTER))}, looks=[3, 6], margin=0.5)
    sides = of_row(made.store, "study", "b"), of_row(made.store, "study", "a")
    notes = answer(Question.of(*sides, margin=0.2))["notes"]
    assert "study declares `looks`, and its table judges so: this is one look at all runs" in notes
    assert "the sweep's declared margin is 0.5" in notes


def test_groups_that_do_not_go_together(study: Callable[..., Study]) -> None:
    made = study({"a": dict(enumerate(BASE))}, name="one")
    loss = study({"a": dict(enumerate(BASE))}, name="two", metric={"name": "loss", "place": [0, 0]})
    one, two = of_row(made.store, "one", "a"), of_row(loss.store, "two", "a")
    for sides, says in (
        ((one, two), "two metrics: one:a has top1 and two:a has loss; expected two groups of one metric"),
        ((one, one), "one:a and one:a are the same runs and figures; expected two groups"),
        ((numbers(BASE), numbers(BASE)), "nothing says which way the numbers are better; expected --better"),
    ):
        with pytest.raises(InputError, match=says):
            Question.of(*sides)


# -- campaigns ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def campaigns(store: Store) -> Campaigns:
    return Campaigns(store)


def tried(campaigns: Campaigns, candidate: Sequence[float] | Group, baseline: Sequence[float] = BASE) -> dict[str, Any]:
    group = candidate if isinstance(candidate, Group) else numbers(candidate)
    return answer_in_campaign(campaigns, "lr", Question.of(group, numbers(baseline), better="higher"))


def shifted(by: float) -> list[float]:
    return [value + by for value in (97.6, 98.4, 98.0)]


def test_a_try_is_kept_at_the_campaigns_level(campaigns: Campaigns) -> None:
    budget = Budget()
    for number, by in enumerate((0.5, 1.9, 6.0, 0.9, 5.5, -4.0), 1):
        found = tried(campaigns, shifted(by))
        look, made = budget.next(), found["campaign"]
        kept = made["p"] <= look.part
        budget.add(look, kept)
        assert (made["try"], made["candidate"], made["look"]) == (number, number, 1)
        assert (made["level"], made["spent"]) == (look.part, look.level)
        assert made["keep"] is kept is (found["verdict"] == "better")
        assert (made["kept"], made["candidates"]) == (len(budget.kept), number)
    assert list(budget.kept) == [3, 5]
    # What 5% would call better is undecided here, and needs the seeds of this level.
    two = tried(campaigns, shifted(1.9))
    alone = answer(Question.of(numbers(shifted(1.9)), numbers(BASE), better="higher"))
    assert (alone["verdict"], two["verdict"]) == ("better", "undecided")
    assert two["seeds_to_decide"] > 3
    assert found["verdict"] == "worse"


def test_the_same_asked_again_is_the_recorded_answer(campaigns: Campaigns, tmp_path: Path) -> None:
    first = tried(campaigns, BETTER)
    tried(campaigns, shifted(0))
    again = tried(campaigns, numbers(BETTER[::-1], "another name"))
    assert again == first | {"campaign": {**first["campaign"], "repeated": True}}
    assert len(campaigns.read("lr").tries) == 2


def test_more_runs_of_a_candidate_are_a_look_at_it(campaigns: Campaigns, study: Callable[..., Study]) -> None:
    first = tried(campaigns, shifted(1))
    tried(campaigns, shifted(0))
    second = tried(campaigns, [*shifted(1), 99.2])
    assert (second["campaign"]["candidate"], second["campaign"]["look"], second["campaign"]["spent"]) == (1, 2, 0)
    assert second["campaign"]["level"] == first["campaign"]["level"] / 2
    # Of rows by their runs, whatever they are called, and whatever they are compared with.
    rows = {"a": {seed: 98.0 + 0.1 * seed for seed in range(3)}, "b": {0: 98.0, 1: 98.1, 2: 99.0}}
    made = study(rows, same={"b": "a"})
    other = answer_in_campaign(campaigns, "own", Question.of(of_row(made.store, "study", "a"), numbers(BASE)))
    assert other["campaign"]["candidate"] == 1
    again = answer_in_campaign(campaigns, "own", Question.of(of_row(made.store, "study", "b"), numbers(BETTER)))
    assert (again["campaign"]["candidate"], again["campaign"]["look"]) == (1, 2)


def test_a_candidate_that_was_kept_stays_so(campaigns: Campaigns) -> None:
    assert tried(campaigns, BETTER)["campaign"]["keep"]
    later = tried(campaigns, [*BETTER, 80.0, 81.0])
    assert later["verdict"] != "better"
    assert (later["campaign"]["keep"], later["campaign"]["kept"]) == (True, 1)


def test_without_a_test_nothing_is_spent(campaigns: Campaigns, store: Store) -> None:
    for few in ([99.0, 98.0], [98.0]):
        found = tried(campaigns, few)
        assert found["campaign"] is None
        assert any("no try of the campaign lr" in note for note in found["notes"])
    assert not (store.root / "campaigns").exists()


def test_a_campaign_is_of_one_metric(campaigns: Campaigns) -> None:
    tried(campaigns, BETTER)
    for group, better, says in (
        (numbers(BASE), "lower", r"numbers without a name \(higher is better\), and this is of .* \(lower is better\)"),
        (Group("x", dict(enumerate(BASE)), column="loss"), "higher", r"and this is of loss \(higher is better\)"),
    ):
        with pytest.raises(InputError, match=says):
            answer_in_campaign(campaigns, "lr", Question.of(group, target=1.0, better=better))


def _rewrite(path: Path, **values: Any) -> None:
    files.replace(path, files.to_json({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("tamper", "file", "says"),
    [
        (lambda folder: (folder / "2.json").unlink(), "2.json", "missing, and there are later tries"),
        (lambda folder: (folder / "2.json").write_text("{"), "2.json", "not JSON, or cut short"),
        (lambda folder: _rewrite(folder / "2.json", level="much"), "2.json", "level: Input should be"),
        (lambda folder: _rewrite(folder / "1.json", level=0.5), "2.json", "one of them was changed, moved or left out"),
        (lambda folder: (folder / "3.json").rename(folder / "2.json"), "2.json", "not written after the tries before"),
        (lambda folder: _rewrite(folder / "3.json", kept=True), "3.json", "do not say whether it was kept"),
        (
            lambda folder: _rewrite(folder / "3.json", answer={"words": "better"}),
            "3.json",
            "answer.verdict: Field required",
        ),
        (lambda folder: _rewrite(folder / "3.json", schema=9), "3.json", "written by a later version"),
    ],
)
def test_a_try_cannot_be_changed_afterwards(
    campaigns: Campaigns, store: Store, tamper: Callable[[Path], object], file: str, says: str
) -> None:
    for by in (0.0, 0.5, 1.0):
        tried(campaigns, shifted(by))
    tamper(store.root / "campaigns" / "lr")
    with pytest.raises(Damaged, match=says) as error:
        tried(campaigns, BETTER)
    assert error.value.path.endswith(f"lr/{file}")


ASKING = """
import sys
from deit_ablate.report.judge import Group, Question, answer_in_campaign
from deit_ablate.store import Store
from deit_ablate.store.campaigns import Campaigns
print("ready", flush=True)
input()
base = Group("y", {seed: 50 + seed for seed in range(5)})
for first in (float(sys.argv[2]) + by for by in (*range(12), 90 - float(sys.argv[2]))):  # 90 is asked by both
    own = Group("x", {seed: first + 0.1 * seed * (first + 1) for seed in range(3)})
    found = answer_in_campaign(Campaigns(Store(sys.argv[1])), "both", Question.of(own, base, better="higher"))
    print(found["campaign"]["try"])
"""


def test_two_processes_at_once_have_a_number_each(campaigns: Campaigns, store: Store) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", ASKING, str(store.root), own], stdin=-1, stdout=-1, text=True)
        for own in ("10", "30.5")
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    taken = [[int(number) for number in process.communicate()[0].split()] for process in processes]
    assert taken[0].pop() == taken[1].pop()
    campaign = campaigns.read("both")
    both = next(made["number"] for made in campaign.tries if 90 in made["sides"][0]["numbers"])
    assert sorted([*taken[0], *taken[1], both]) == list(range(1, 26))
    assert [made["candidate"] for made in campaign.tries] == list(range(1, 26))
    budget = Budget()
    for made in campaign.tries:
        look = budget.next()
        assert math.isclose(look.level, made["level"])
        budget.add(look, made["kept"])


def test_a_file_is_a_group(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("seed,loss\n0,1\n1,2\n")
    group = of_file(tmp_path / "a.csv", "loss")
    assert (group.values, group.column) == ({0: 1.0, 1: 2.0}, "loss")
