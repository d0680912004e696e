"""How a training is said to have ended."""

from __future__ import annotations

from typing import Any

from tiny import tiny

from deit_ablate.train.loop import train

ONE: dict[str, Any] = {"schedule": {"epochs": 1, "warmup_epochs": 0.5, "batch_size": 16}}


def test_a_run_that_ends_at_chance_is_done_and_its_value_is_kept() -> None:
    outcome = train(tiny(**ONE, optimizer={"base_lr": 1e-12}))
    assert (outcome.status, outcome.reason) == ("done", None)
    assert outcome.metrics["test"]["top1"] < 14.5
    assert outcome.metrics["test"]["classes"] == 10
    assert len(outcome.arrays["test_pred_class"]) == 599
