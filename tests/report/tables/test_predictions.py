"""How often classifiers decide differently: by hand, over seeds, and from what is on disk."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from studies import Study, arrays_of, record

from deit_ablate.errors import InputError
from deit_ablate.report.frame import read_plan
from deit_ablate.report.tables.predictions import TRUTH, disagreement, disagreement_table, predictions, with_teachers
from deit_ablate.report.tables.render import to_csv, to_markdown
from deit_ablate.report.tables.tokens import RunGroup, groups
from deit_ablate.store import Store

TRUE = [0, 1, 2, 3]


def test_by_hand() -> None:
    classes = {"truth": [0, 1, 2, 3], "a": [0, 1, 2, 0], "b": [0, 0, 2, 0]}
    found = disagreement({name: {f"run of {name}": np.array(own)} for name, own in classes.items()})
    assert list(found.index) == list(found.columns) == ["truth", "a", "b"]
    assert found.to_numpy().tolist() == [[0, 0.25, 0.5], [0.25, 0, 0.25], [0.5, 0.25, 0]]


def test_over_seeds_by_hand() -> None:
    one, two, three = np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    heads = {
        "truth": {"": one},
        "class": {"run 0": one, "run 1": two},
        "distillation": {"run 0": two, "run 1": three},
        "other": {"run 2": three, "run 3": one, "run 4": one},
    }
    found = disagreement(heads)
    assert found.loc["truth", "class"] == pytest.approx((0 + 0.25) / 2)
    assert found.loc["class", "class"] == pytest.approx(0.25), "between its two seeds"
    assert found.loc["class", "distillation"] == pytest.approx((0.25 + 0.25) / 2), "within each run"
    assert found.loc["other", "other"] == pytest.approx((0.5 + 0.5 + 0) / 3), "over three pairs of seeds"
    assert found.loc["class", "other"] == pytest.approx((0.5 + 0 + 0 + 0.25 + 0.25 + 0.25) / 6), "over all pairs"
    assert found.loc["truth", "truth"] == 0
    pd.testing.assert_frame_equal(found, found.T)


@pytest.mark.parametrize("given", [{}, {"a": {"1": np.zeros(3)}, "b": {"2": np.zeros(4)}}])
def test_classifiers_of_different_samples_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="same samples"):
        disagreement(given)


@pytest.fixture
def table4(study: Callable[..., Study]) -> Study:
    """Table 4 in small: a convnet that teaches, a student with two heads (two seeds), one without."""
    made = study(
        {
            "none": {0: 50.0, 1: 75.0},
            "token": {0: 75.0, 1: 75.0},
            "its class head": {0: 75.0, 1: 75.0},
            "average": {0: 75.0, 1: 75.0},
        },
        same={"its class head": "token", "average": "token"},
        shows={"its class head": "class", "average": "ema"},
        teacher=100.0,
    )
    record(made, made.teacher, **arrays_of(targets=TRUE, **{"class": TRUE}))
    record(made, made.runs["none", 0], **arrays_of(targets=TRUE, **{"class": [0, 1, 0, 0]}))
    record(made, made.runs["none", 1], **arrays_of(targets=TRUE, **{"class": [0, 1, 2, 0]}))
    for seed, (one, two, fused) in enumerate(
        (([0, 1, 2, 1], [0, 1, 1, 3], [0, 1, 2, 3]), ([0, 0, 2, 3], [0, 0, 2, 3], [0, 0, 2, 3]))
    ):
        record(
            made,
            made.runs["token", seed],
            **arrays_of(targets=TRUE, distillation=two, fused_softmax=fused, fused_logits=one, **{"class": one}),
        )
    return made


def matrix(study: Study, *more: str, head: str = "all") -> pd.DataFrame:
    rows = with_teachers(study.store, groups(read_plan(study.store, "study"), *more))
    return disagreement(predictions(study.store, rows, head).classifiers)


def test_a_sweep_as_table_4_has_it(table4: Study) -> None:
    found = matrix(table4)
    heads = ["token: class only", "token: distillation only", "token: class+distillation"]
    assert list(found) == [TRUTH, "teacher", "none", *heads], "the same runs and head come once"
    assert found.loc[TRUTH, "teacher"] == 0
    assert found.loc[TRUTH, "none"] == pytest.approx((0.5 + 0.25) / 2)
    assert found.loc[TRUTH].to_list()[3:] == pytest.approx([0.25, 0.25, 0.125])
    assert found.loc[heads[0], heads[1]] == pytest.approx((0.5 + 0) / 2), "of each run's own heads"
    assert found.loc[heads[0], heads[0]] == pytest.approx(0.5), "[0, 1, 2, 1] and [0, 0, 2, 3]"
    assert found.loc["none", "none"] == pytest.approx(0.25)
    assert found.loc["none", heads[2]] == pytest.approx((2 + 3 + 1 + 2) / 16)


def test_one_head_of_those_with_two(table4: Study) -> None:
    assert list(matrix(table4, head="distillation")) == [TRUTH, "teacher", "none", "token: distillation only"]
    assert list(matrix(table4, head="fused_softmax"))[-1] == "token: class+distillation"
    with pytest.raises(InputError, match="there is no head 'fused'"):
        matrix(table4, head="fused")


def test_what_is_named_comes_without_its_teacher(table4: Study) -> None:
    assert list(matrix(table4, "its class head")) == [TRUTH, "its class head: class only"]
    assert list(matrix(table4, "none", "1")) == [TRUTH, "none:1"]
    with pytest.raises(InputError, match="average shows the moving average"):
        matrix(table4, "average")


def test_the_moving_average_where_its_predictions_were_kept(table4: Study) -> None:
    for seed in (0, 1):
        run = table4.runs["average", seed]
        kept = {"distillation": TRUE, "fused_softmax": TRUE, "class": TRUE, "ema": [0, 1, 2, 0]}
        record(table4, run, **arrays_of(targets=TRUE, **kept))
    found = matrix(table4)
    assert list(found)[-1] == "average"
    assert found.loc[TRUTH, "average"] == 0.25
    assert list(matrix(table4, "average")) == [TRUTH, "average"]
    assert "average" not in matrix(table4, head="class")


def test_rows_that_have_their_own_teachers_and_names_that_clash(study: Callable[..., Study]) -> None:
    made = study({"teacher": {0: 50.0}, "b": {0: 50.0}}, teacher=75.0)
    for run in (made.teacher, *made.runs.values()):
        record(made, run, **arrays_of(targets=TRUE, **{"class": TRUE}))
    rows = with_teachers(made.store, groups(read_plan(made.store, "study")))
    assert rows[0] == RunGroup("teacher", (made.teacher,), requested=False)
    names = list(predictions(made.store, rows).classifiers)
    assert names == [TRUTH, "teacher", f"teacher ({made.runs['teacher', 0]})", "b"]


def test_two_class_tokens_are_not_called_distillation(tmp_path: Path, study: Callable[..., Study]) -> None:
    made = study({"a": {0: 50.0}})
    recipe = {"data": {"id": "study"}, "distill": {"type": "two-class-tokens"}, "seed": 0}
    run = made.run(recipe, {}, 50.0)
    record(made, run, **arrays_of(targets=TRUE, distillation=TRUE, fused_softmax=TRUE, **{"class": TRUE}))
    names = list(predictions(made.store, [RunGroup("two", (run,))]).classifiers)
    assert names == [TRUTH, "two: first token only", "two: second token only", "two: both tokens"]


def test_the_table_and_its_csv(table4: Study) -> None:
    rows = with_teachers(table4.store, groups(read_plan(table4.store, "study")))
    table = disagreement_table(predictions(table4.store, rows))
    text = to_markdown(table)
    assert "# Disagreement: share of 4 test images that are classified differently" in text
    assert "| 2 teacher                   | 0.000 | 0.000 | 0.375 | 0.250 | 0.250 | 0.125 |" in text
    assert "on the diagonal over pairs of different seeds" in text
    assert "moving average (EMA): average" in text
    lines = list(csv.reader(io.StringIO(to_csv(table))))
    assert lines[0][:3] == ["classifier", TRUTH, "teacher"]
    assert lines[3][:4] == ["none", "0.375", "0.375", "0.25"]


# -- the same data -------------------------------------------------------------------------------------------------


def two_of(study: Callable[..., Study], targets: list[int], data: str) -> tuple[Study, list[RunGroup]]:
    made = study({"a": {0: 50.0}})
    other = made.run({"data": {"id": data}, "seed": 0}, {}, 50.0)
    record(made, made.runs["a", 0], **arrays_of(targets=TRUE, **{"class": TRUE}))
    record(made, other, **arrays_of(targets=targets, **{"class": targets}))
    return made, [RunGroup("a", (made.runs["a", 0],)), RunGroup("other", (other,))]


def test_other_data_are_refused(study: Callable[..., Study]) -> None:
    made, rows = two_of(study, TRUE, "flowers")
    with pytest.raises(InputError, match="other was tested on the data flowers, a on study"):
        predictions(made.store, rows)
    made.store.pin_data("study", {"fingerprint": "f00"})
    made.store.pin_data("flowers", {"fingerprint": "ba7"})
    with pytest.raises(InputError, match="expected runs on the same data"):
        predictions(made.store, rows)


def test_the_same_data_under_another_id_are_the_same(study: Callable[..., Study]) -> None:
    made, rows = two_of(study, TRUE, "copy")
    for name in ("study", "copy"):
        made.store.pin_data(name, {"fingerprint": "f00"})
    assert list(predictions(made.store, rows).classifiers) == [TRUTH, "a", "other"]


@pytest.mark.parametrize("targets", [[0, 1, 2], [0, 1, 2, 2]])
def test_other_test_images_are_refused(study: Callable[..., Study], targets: list[int]) -> None:
    made, rows = two_of(study, targets, "study")
    with pytest.raises(InputError, match="their true classes differ"):
        predictions(made.store, rows)


def test_a_run_without_predictions_is_refused(study: Callable[..., Study]) -> None:
    made = study({"a": {0: {"status": "diverged", "reason": "non-finite loss"}}})
    record(made, made.runs["a", 0])
    with pytest.raises(InputError, match="no predictions on record"):
        predictions(made.store, [RunGroup("a:0", (made.runs["a", 0],))])


# -- the command ---------------------------------------------------------------------------------------------------


def test_the_command_prints_and_writes(table4: Study, command: Any, tmp_path: Path) -> None:
    done = command("disagree", "study")
    assert "| 2 teacher " in done.stdout
    assert (table4.root / "study" / "disagreement.csv").read_text().startswith(f"classifier,{TRUTH},teacher,none,")
    command("disagree", "study:none", "study:token:1", table4.teacher[:10], "--head", "class", "--out", "there")
    header = (tmp_path / "there" / "disagreement.csv").read_text().splitlines()[0]
    assert header == f"classifier,{TRUTH},study:none,study:token:1: class only,{table4.teacher}"
    assert "there is no head" in command("disagree", "study", "--head", "both", code=2).stderr


def test_what_training_records_adds_up_to_its_accuracy(
    launch: Callable[..., Any], sweep: Callable[..., Path], store: Store
) -> None:
    path = sweep("seeds: 2\nvariants: {two: {distill.type: two-class-tokens}, one: {}}\n")
    assert not launch(path).failed()
    rows = groups(read_plan(store, "tiny"))
    rows = [
        RunGroup(run, (run,)) for row in rows for run in row.runs
    ]  # one by one: so short a training may end at chance
    found = predictions(store, rows)
    assert found.images == 599
    wrong = disagreement(found.classifiers)[TRUTH]
    for row in rows:
        top1 = (store.outcome(row.name) or {})["metrics"]["test"]["top1"]
        name = row.name if row.name in wrong else f"{row.name}: both tokens"
        assert 100 * (1 - wrong[name]) == pytest.approx(top1)
