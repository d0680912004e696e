"""What a training takes, measured on its first steps."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import STEPS, tiny

from deit_ablate.train.loop import train
from deit_ablate.train.probe import Timed, measure, untrained


def test_it_times_twenty_steps_of_the_recipe_and_no_more() -> None:
    found = measure(tiny(schedule={"epochs": 50}), device="cpu")
    assert 15 <= found.steps <= 20, "those after an evaluation are left out"
    assert found.seconds > found.step_seconds * STEPS * 50
    assert found.device == "cpu"


def test_two_ranks_share_the_work() -> None:
    assert measure(tiny(), device="cpu", ranks=2).seconds > 0


def test_a_training_of_fewer_steps_is_timed_as_it_is() -> None:
    assert measure(tiny(schedule={"epochs": 1, "warmup_epochs": 0}), device="cpu").steps == STEPS - 1
    one = measure(tiny(data={"train_images": 16}, schedule={"epochs": 1, "warmup_epochs": 0}), device="cpu")
    assert one.steps == 1


def test_nothing_is_kept() -> None:
    journal = Timed("cpu")
    train(tiny(), journal=journal)
    assert journal.state is None


@pytest.mark.parametrize("weights", ["last", "ema"])
def test_a_parent_that_is_not_trained_yet(tmp_path: Path, weights: str) -> None:
    parents = {role: untrained(tiny(), None, tmp_path, {"weights": weights}) for role in ("teacher", "from")}
    found = measure(tiny(distill={"type": "hard"}), device="cpu", parents=parents)
    assert found.seconds > 0
