"""Interruption changes nothing: to the bit, anywhere, in another process, with loaders and without."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from resuming import ema_sha256, essence
from tiny import STEPS, TINY, Recording, Stopping, tiny

from deit_ablate.errors import TrainError
from deit_ablate.train import checkpoint
from deit_ablate.train.loop import Journal, train

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    journal = Journal()
    outcome = train(tiny(), journal=journal)
    assert journal.state is not None
    result = essence(outcome, journal.state["history"])
    result["weights"]["ema"] = ema_sha256(journal.state)
    return result


def stopped_at(step: int, loaders: int = 0, **blocks: Any) -> dict[str, Any]:
    journal = Stopping(step)
    outcome = train(tiny(**blocks), journal=journal, loaders=loaders)
    assert outcome.status == "stopped"
    assert journal.state is not None
    assert journal.state["step"] == step
    return journal.state


def test_a_new_process_ends_with_the_same_bits(
    tmp_path: Path, undisturbed: dict[str, Any], warm_python: list[str]
) -> None:
    arguments = []
    for step, before, after in ((2, 0, 2), (STEPS + 3, 2, 0), (2 * STEPS, 0, 0)):
        path = tmp_path / f"{step}.pt"
        checkpoint.save(path, stopped_at(step, before))
        arguments.append(f"{path}:{after}")
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    child = subprocess.run(
        [*warm_python, "resuming", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    expected = json.loads(json.dumps(undisturbed))
    for argument, result in zip(arguments, json.loads(child.stdout), strict=True):
        assert result == expected, argument


@pytest.mark.parametrize("step", [1, STEPS - 1, STEPS, STEPS + 1, 2 * STEPS - 1])
def test_stopped_after_any_step_it_ends_the_same(step: int, undisturbed: dict[str, Any]) -> None:
    journal = Journal()
    journal.state = stopped_at(step)
    outcome = train(tiny(), journal=journal)
    result = essence(outcome, journal.state["history"])
    result["weights"]["ema"] = ema_sha256(journal.state)
    assert result == undisturbed


def test_loaders_change_nothing(undisturbed: dict[str, Any]) -> None:
    journal = Journal()
    result = essence(train(tiny(), journal=journal, loaders=2), journal.state["history"] if journal.state else [])
    assert result["weights"]["last"] == undisturbed["weights"]["last"]
    assert result["history"] == undisturbed["history"]
    assert result["arrays"] == undisturbed["arrays"]


@pytest.mark.parametrize(("name", "lr"), [("sgd", 0.5), ("lamb", 0.3), ("muon", 0.1)])
def test_other_optimizers_resume_to_the_bit_and_by_epoch_too(name: str, lr: float) -> None:
    blocks: dict[str, Any] = {"optimizer": {"name": name, "base_lr": lr}, "schedule": {"stepping": "epoch"}}
    whole = train(tiny(**blocks))
    journal = Journal()
    journal.state = stopped_at(STEPS + 2, **blocks)
    assert train(tiny(**blocks), journal=journal).weights_sha256 == whole.weights_sha256


@pytest.mark.parametrize("optimizer", ["adamw", "lamb"])
def test_what_deit_iii_has_resumes_to_the_bit(optimizer: str) -> None:
    blocks: dict[str, Any] = {
        "model": {"options": {**TINY["model"]["options"], "init_values": 1e-4}, "train_only": ["head", "attn", "ls1"]},
        "augment": {"crop": "simple-random", "auto_augment": "3a", "color_jitter": 0.3},
        "regularize": {"loss": "bce", "target_threshold": 0.2},
        "optimizer": {"name": optimizer, "layer_decay": 0.7},
        "schedule": {"name": "wsd", "options": {"decay_t": 1}},
    }
    whole = train(tiny(**blocks))
    journal = Journal()
    journal.state = stopped_at(STEPS + 2, **blocks)
    assert train(tiny(**blocks), journal=journal).weights_sha256 == whole.weights_sha256


def test_a_convnet_with_batch_norm_resumes_to_the_bit() -> None:
    blocks: dict[str, Any] = {"model": {"name": "small_convnet", "options": {"width": 8}}}
    whole = train(tiny(**blocks))
    journal = Journal()
    journal.state = stopped_at(STEPS - 1, **blocks)
    resumed = train(tiny(**blocks), journal=journal)
    assert (resumed.weights_sha256, resumed.metrics) == (whole.weights_sha256, whole.metrics)


class Restless(Recording):
    """Saves after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.saved: list[int] = []

    def checkpoint_due(self) -> bool:
        return True

    def checkpoint(self, state: dict[str, Any]) -> None:
        self.saved.append(state["step"])
        super().checkpoint(state)


def test_custom_augmentations_resume_to_the_bit_with_loaders_and_without() -> None:
    augment = {"custom": [{"name": "tiny:noise", "options": {"sigma": 20}}, "tiny:shift", "tiny:library"]}
    journal, resumed = Journal(), Journal()
    whole = train(tiny(augment=augment), journal=journal)
    assert whole.weights_sha256 != train(tiny()).weights_sha256
    resumed.state = stopped_at(STEPS + 2, loaders=1, augment=augment)
    again = train(tiny(augment=augment), journal=resumed, loaders=2)
    assert journal.state is not None
    assert resumed.state is not None
    assert essence(again, resumed.state["history"]) == essence(whole, journal.state["history"])


def test_checkpoints_when_due_and_at_each_epoch_disturb_nothing(undisturbed: dict[str, Any]) -> None:
    journal = Restless()
    outcome = train(tiny(), journal=journal)
    assert journal.saved == [1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10, 11, 12, 12]
    assert outcome.weights_sha256 == undisturbed["weights"]["last"]
    assert journal.state is not None
    assert journal.state["history"] == journal.lines
    assert journal.state["train_seconds"] == pytest.approx(sum(line["seconds"] for line in journal.lines))


def test_time_is_summed_over_attempts_and_a_stop_reports_it() -> None:
    journal = Journal()
    journal.state = stopped_at(4)
    before = journal.state["train_seconds"]
    assert before > 0
    journal.state["seconds"] += 1000
    outcome = train(tiny(), journal=journal)
    assert outcome.cost["train_seconds"] > before + 1000


def test_a_checkpoint_of_other_data_or_of_another_model_is_refused() -> None:
    state = stopped_at(2)
    journal = Journal()
    journal.state = {**state, "data": "0" * 64}
    with pytest.raises(TrainError, match="fingerprints differ"):
        train(tiny(), journal=journal)
    journal.state = state
    with pytest.raises(TrainError, match="does not fit this recipe"):
        train(tiny(model={"options": {"embed_dim": 8, "depth": 2, "num_heads": 2, "patch_size": 8}}), journal=journal)
