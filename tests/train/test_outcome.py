"""How a training is said to have ended."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import tiny

from deit_ablate.train.loop import train
from deit_ablate.train.outcome import chance_threshold

ONE: dict[str, Any] = {"schedule": {"epochs": 1, "warmup_epochs": 0.5, "batch_size": 16}}


def test_chance_at_the_end_is_divergence_with_all_its_numbers() -> None:
    outcome = train(tiny(**ONE, optimizer={"base_lr": 1e-12}))
    assert outcome.status == "diverged"
    assert outcome.reason is not None
    assert "at chance (under 14.50%)" in outcome.reason
    assert outcome.metrics["test"]["top1"] < 14.5
    assert len(outcome.arrays["test_pred_class"]) == 599


def test_the_threshold_of_chance() -> None:
    assert chance_threshold(10) == pytest.approx(14.5)
    assert chance_threshold(1000) == pytest.approx(5.095)
