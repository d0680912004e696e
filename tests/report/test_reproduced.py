"""Where one more seed of a row is expected."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from studies import Study, record

from deit_ablate.report.reproduced import compare, prediction_interval
from deit_ablate.store import Store


@pytest.mark.parametrize(
    ("values", "resolution", "expected"),
    [
        ([1.0, 2.0, 3.0], 0.0, (2 - 4.96828, 2 + 4.96828)),  # t(2) 4.302653 x sd 1 x sqrt(4/3)
        ([5.0, 5.0], 1.0, (5 - 4.49235, 5 + 4.49235)),  # t(1) 12.706205 x sqrt(1/12) x sqrt(3/2)
        ([5.0, 5.0], 0.0, (5.0, 5.0)),
    ],
)
def test_an_interval_worked_by_hand(values: list[float], resolution: float, expected: tuple[float, float]) -> None:
    assert prediction_interval(values, resolution) == pytest.approx(expected, abs=1e-4)


def test_one_value_gives_none() -> None:
    assert all(map(math.isnan, prediction_interval([5.0])))
    assert all(map(math.isnan, prediction_interval([])))


@pytest.mark.parametrize("seeds", [2, 5])
def test_one_more_draw_is_inside_in_95_percent(seeds: int) -> None:
    draws = np.random.default_rng(0).normal(90, 0.4, (4000, seeds + 1))
    intervals = [prediction_interval(draw[:-1]) for draw in draws]
    inside = np.mean([low <= draw[-1] <= high for draw, (low, high) in zip(draws, intervals, strict=True)])
    assert inside == pytest.approx(0.95, abs=0.012)


def test_other_bits_of_a_row_with_one_seed_prove_nothing(study: Callable[..., Study]) -> None:
    first = study({"a": {0: 90.0}})
    other = Study(first.root.parent / "anew", {"a": {0: {"top1": 90.0, "cost": {"wall_seconds": 1.0}}}})
    for each in (first, other):
        record(each, each.runs["a", 0], test_targets=[0, 1], test_pred_class=[0, 1])
    run = first.runs["a", 0]
    same = compare(first.store, other.store, "study", run)
    assert same.words() == "reproduced: same bits (weights, metrics, predictions)", "cost is no part of it"
    record(other, run, test_targets=[0, 1], test_pred_class=[0, 0])
    answer = compare(first.store, other.store, "study", run)
    assert not answer.reproduced
    assert "1 seed of the row 'a' on record gives no interval" in answer.reason


def test_a_run_that_diverges_is_not_reproduced(study: Callable[..., Study]) -> None:
    first = study({"a": {0: 90.0, 1: 91.0}})
    gone = {"status": "diverged", "reason": "non-finite loss at step 1"}
    other = Study(first.root.parent / "anew", {"a": {0: gone}})
    answer = compare(first.store, Store(other.root), "study", first.runs["a", 0])
    assert answer.words() == "not reproduced: it diverged, non-finite loss at step 1"
