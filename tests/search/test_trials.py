"""Which trials are best, and what a record says of one."""

from __future__ import annotations

import pytest

from deit_ablate.search.trials import Trial, best, measured
from deit_ablate.store import State

POINTS = [(80.0, 100.0), (90.0, 50.0), (70.0, 90.0), (90.0, 40.0), (60.0, 200.0)]


def trials(*values: tuple[float, ...] | None) -> list[Trial]:
    return [Trial(n, "row", {}, f"run{n}", State("done"), found, ()) for n, found in enumerate(values, 1)]


def test_the_best_of_one_objective() -> None:
    single = trials(*(point[:1] for point in POINTS), None)
    assert [trial.number for trial in best(single, ["top1"], 2)] == [2, 4]
    assert [trial.number for trial in best(single, ["loss"], 1)] == [5], "of a loss the smallest"
    assert best(trials(None), ["top1"], 3) == []


def test_the_front_of_two_objectives() -> None:
    both = ["top1", "throughput"]
    assert [trial.number for trial in best(trials(*POINTS), both, 5)] == [2, 1, 5]
    assert [trial.number for trial in best(trials(*POINTS), both, 2)] == [2, 5], "the ends of the front"
    same = trials((80.0, 1.0), (80.0, 1.0))
    assert [trial.number for trial in best(same, both, 5)] == [1, 2], "equal trials are no better than one another"


@pytest.mark.parametrize(
    ("state", "values", "outcome"),
    [
        ("done", (1.0,), "complete"),
        ("done", None, "failed"),
        ("paused", None, "pruned"),
        ("diverged", None, "pruned"),
        ("cancelled", None, "failed"),
        ("running", None, "open"),
        ("held", None, "open"),
    ],
)
def test_the_outcome_of_a_trial(state: str, values: tuple[float, ...] | None, outcome: str) -> None:
    assert Trial(1, "row", {}, "run", State(state), values, ()).outcome == outcome


def test_an_objective_is_of_the_validation_part() -> None:
    record = {
        "metrics": {"validation": {"top1": 90, "loss": 0.5}, "test": {"top1": 10, "loss": 9.0}},
        "cost": {"inference_images_per_second": 1000.0, "parameters": 7},
    }
    found = [measured(record, name) for name in ("top1", "loss", "throughput", "parameters", "flops")]
    assert found == [90.0, 0.5, 1000.0, 7.0, None]
    assert measured({"metrics": {"test": {"top1": 10}}}, "top1") is None
