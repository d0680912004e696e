"""How a training is said to have ended."""

from __future__ import annotations

from typing import Any

from tiny import Recording, tiny

from deit_ablate.train.loop import train
from deit_ablate.train.outcome import epochs_between

ONE: dict[str, Any] = {"schedule": {"epochs": 1, "warmup_epochs": 0.5, "batch_size": 16}}


def test_a_run_that_ends_at_chance_is_done_and_its_value_is_kept() -> None:
    outcome = train(tiny(**ONE, optimizer={"base_lr": 1e-12}))
    assert (outcome.status, outcome.reason) == ("done", None)
    assert outcome.metrics["test"]["top1"] < 14.5
    assert outcome.metrics["test"]["classes"] == 10
    assert len(outcome.arrays["test_pred_class"]) == 599


def test_the_validation_part_is_scored_as_often_as_costs_three_percent() -> None:
    assert epochs_between(training=300, validation=9, models=1) == 1, "a forward pass of 9 of 300 images: 1%"
    assert epochs_between(training=300, validation=27, models=1) == 1
    assert epochs_between(training=300, validation=54, models=2) == 4
    assert epochs_between(training=1000, validation=0, models=2) == 1


def test_however_rarely_it_is_scored_the_last_epoch_is() -> None:
    seen: dict[int | None, list[bool]] = {}
    for every in (None, 1, 2, 9):
        journal = Recording()
        train(tiny(schedule={"epochs": 3, "warmup_epochs": 0}), journal=journal, evaluate_every=every)
        seen[every] = [line["validation"] is not None for line in journal.lines]
    assert seen == {None: [False, False, True], 1: [True] * 3, 2: [False, True, True], 9: [False, False, True]}
