"""Half precision, layout and determinism: asked for, honoured, and resumed to the bit."""

from __future__ import annotations

import copy
import shutil
from typing import Any

import pytest
import torch
from tiny import STEPS, Stopping, tiny

from deit_ablate.recipe import Recipe
from deit_ablate.train import loop
from deit_ablate.train.loop import Journal, train
from deit_ablate.train.precision import begin_pass, compiled, keeps_gradients


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_computes_in_it_and_resumes_to_the_bit(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []
    build = loop.build_loss

    def spying(recipe: Recipe) -> Any:
        loss_of = build(recipe)

        def loss(outputs: Any, *rest: Any) -> Any:
            seen.append(outputs[0].dtype)
            return loss_of(outputs, *rest)

        return loss

    monkeypatch.setattr(loop, "build_loss", spying)
    whole = train(tiny(precision=precision))
    assert set(seen) == {{"bf16": torch.bfloat16, "fp16": torch.float16}[precision]}
    assert whole.weights_sha256 != train(tiny()).weights_sha256
    first = Stopping(STEPS + 2)
    train(tiny(precision=precision), journal=first)
    assert first.state is not None
    assert bool(first.state["scaler"]) == (precision == "fp16")
    journal = Journal()
    journal.state = first.state
    assert train(tiny(precision=precision), journal=journal).weights_sha256 == whole.weights_sha256


def test_losses_are_computed_in_full_precision() -> None:
    losses = loop.build_loss(tiny())
    halves = (torch.randn(4, 10).bfloat16(), None)
    parts = losses(halves, torch.full((4, 10), 0.1), None)
    assert parts["total"].dtype == torch.float32


def test_determinism_and_layout_are_honoured() -> None:
    plain = train(tiny())
    assert train(tiny(), deterministic=True).weights_sha256 == plain.weights_sha256, "a CPU is deterministic anyway"
    assert torch.are_deterministic_algorithms_enabled()
    train(tiny(schedule={"epochs": 1, "batch_size": 16, "warmup_epochs": 0.5}))
    assert not torch.are_deterministic_algorithms_enabled()
    convnet: dict[str, Any] = {"model": {"name": "small_convnet", "options": {"width": 8}}}
    whole = train(tiny(**convnet), channels_last=True)
    assert whole.metrics["test"]["top1"] == pytest.approx(train(tiny(**convnet)).metrics["test"]["top1"], abs=3)


def test_accumulation_resumes_to_the_bit() -> None:
    whole = train(tiny(), accumulation=2)
    first = Stopping(STEPS + 1)
    train(tiny(), journal=first, accumulation=2)
    journal = Journal()
    journal.state = first.state
    assert train(tiny(), journal=journal, accumulation=2).weights_sha256 == whole.weights_sha256


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="torch.compile needs a C++ compiler")
def test_a_mode_of_compilation_computes_the_same_and_adds_up_gradients() -> None:
    plain = torch.nn.Linear(4, 3)
    model, gradients = copy.deepcopy(plain), []
    assert not keeps_gradients(model, True, accumulation=2)
    assert not keeps_gradients(model, "reduce-overhead", accumulation=1)
    assert model.weight.grad is None
    assert keeps_gradients(model, "reduce-overhead", accumulation=2)
    kept = model.weight.grad
    for module, run in ((plain, plain), (model, compiled(model, "reduce-overhead"))):
        for part in torch.linspace(-1, 1, 16).view(2, 2, 4):
            begin_pass("reduce-overhead")
            run(part).square().sum().backward()
        gradients.append(module.weight.grad)
    torch.testing.assert_close(*gradients)
    assert model.weight.grad is kept
    assert compiled(plain, False) is plain
