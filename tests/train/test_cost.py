"""What is measured at the end of a training: the forward pass's speed, without changing anything."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
import torch
from tiny import STEPS, Stopping, tiny
from torch import Tensor, nn

from deit_ablate.train import cost
from deit_ablate.train.cost import CPU_SECONDS, INFERENCE_RUNS, inference, weights_sha256
from deit_ablate.train.loop import train
from deit_ablate.train.model import Shape, build_model


class Told(nn.Module):
    """A classifier that notes each pass (batch size, training or not) and takes a while over it."""

    def __init__(self, seconds: float = 0.0, fits: int = 10**9):
        super().__init__()
        self.seconds, self.fits = seconds, fits
        self.norm, self.head = nn.BatchNorm2d(1), nn.Linear(16, 3)
        self.passes: list[tuple[int, bool]] = []

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.fits:
            raise torch.OutOfMemoryError("it does not fit")
        self.passes.append((len(images), self.training))
        time.sleep(self.seconds)
        logits: Tensor = self.head(self.norm(images).flatten(1))
        return logits


def test_thirty_passes_after_a_warm_up_in_evaluation_mode() -> None:
    model = Told().train()
    rate, batch = inference(model, channels=1, resolution=4)
    assert model.passes == [(64, False)] * (1 + INFERENCE_RUNS)
    assert rate is not None
    assert rate > 0
    assert batch == 64
    assert model.training
    assert model.norm.training


def test_the_rate_is_images_over_the_time_of_a_pass() -> None:
    rate, _ = inference(Told(seconds=0.02), channels=1, resolution=4)
    assert rate is not None
    assert 64 / 0.4 < rate < 64 / 0.02, "a pass takes its sleep, and not much more"


def test_on_a_cpu_it_ends_soon_but_for_one_pass() -> None:
    several = Told(seconds=CPU_SECONDS / 4)
    inference(several, channels=1, resolution=4)
    assert 2 <= len(several.passes) <= 5
    slow = Told(seconds=1.2 * CPU_SECONDS)
    assert inference(slow, channels=1, resolution=4)[0] is not None
    assert len(slow.passes) == 2


def test_a_batch_that_does_not_fit_is_halved() -> None:
    assert inference(Told(fits=20), channels=1, resolution=4)[1] == 16
    nothing = Told(fits=0).train()
    assert inference(nothing, channels=1, resolution=4) == (None, None)
    assert nothing.training


def test_it_changes_no_weight_and_draws_nothing() -> None:
    model = Told().train()
    before = weights_sha256(model), torch.get_rng_state(), random.getstate(), np.random.get_state()[1]
    inference(model, channels=1, resolution=4)
    after = weights_sha256(model), torch.get_rng_state(), random.getstate(), np.random.get_state()[1]
    assert before[0] == after[0]
    assert torch.equal(before[1], after[1])
    assert before[2] == after[2]
    assert (before[3] == after[3]).all()


def test_a_finished_training_records_it_and_is_otherwise_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = train(tiny())
    assert outcome.status in ("done", "diverged")
    assert outcome.cost["inference_images_per_second"] > outcome.cost["images_per_second"]
    assert outcome.cost["inference_batch"] == 64
    monkeypatch.setattr(cost, "inference", lambda *_: (None, None))
    without = train(tiny())
    assert without.weights_sha256 == outcome.weights_sha256
    assert without.metrics["test"] == outcome.metrics["test"]


def test_a_training_that_did_not_finish_has_none() -> None:
    stopped = train(tiny(), journal=Stopping(after=2 * STEPS))  # the last step: its epoch is not closed
    assert stopped.status == "stopped"
    diverged = train(tiny(optimizer={"base_lr": 1e30, "clip_grad": None}))
    assert diverged.reason is not None
    assert diverged.reason.startswith("non-finite")
    for outcome in (stopped, diverged):
        assert outcome.cost["inference_images_per_second"] is None
        assert outcome.cost["inference_batch"] is None
        assert outcome.cost["flops"] > 0


SMALL = {"patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2}


SHAPE = Shape(resolution=16, channels=1, classes=10, heads=1, drop_path=0.0, dropout=0.0)


def test_flops_by_hand() -> None:
    model = build_model("deit", {**SMALL, "depth": 1}, SHAPE)
    tokens, width = 17, 16
    embed, block = 2 * 16 * 16 * width, 2 * tokens * 12 * width**2 + 2 * 2 * tokens**2 * width
    assert cost.forward_flops(model, 1, 16) == embed + block + 2 * width * 10
    assert model.training
