"""Finished runs evaluated anew: what agrees with its record, and what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import change

from deit_ablate.store import Store
from deit_ablate.sweep.plan import Plan


def verified(store: Store, run: str) -> dict[str, Any]:
    from deit_ablate.train.verify import verify

    return verify(store, run, None, "cpu")


def test_records_agree_with_their_checkpoints_to_the_last_prediction(finished: tuple[Path, Plan]) -> None:
    folder, made = finished
    for run in made.runs:
        found = verified(Store(folder / "results"), run)
        assert found["agrees"], found["problems"]
        assert found["exact"]
        assert found["weights"]
        assert found["metrics"] == {}
        assert found["images"] == 599
        assert found["predictions"].keys() >= {"class"}
        assert set(found["predictions"].values()) == {0}
    assert found["predictions"].keys() == {"class", "distillation", "fused_logits", "fused_softmax"}


def test_other_weights_are_found(copied: tuple[Store, str]) -> None:
    from deit_ablate.train import checkpoint

    store, run = copied
    path = store.weights(run)
    assert path is not None
    state = checkpoint.load(path)
    state["model"]["head.bias"][3] += 10
    checkpoint.save(path, state)
    found = verified(store, run)
    assert not found["agrees"]
    assert not found["weights"]
    assert "the weights are not those that were recorded" in found["problems"]
    assert found["predictions"]["class"] > 300
    assert found["predictions"]["distillation"] == 0
    assert any(problem.startswith("top1 is ") for problem in found["problems"])


def test_other_figures_and_predictions_are_found(copied: tuple[Store, str]) -> None:
    store, run = copied
    recorded = verified(store, run)["top1"][0]
    change(store, run, metrics__test__top1=recorded + 0.05)
    found = verified(store, run)
    assert found["problems"] == [f"top1 is {recorded:.10g}, and was recorded as {recorded + 0.05:.10g}"]
    change(store, run, arrays_sha256="0")
    assert "its recorded predictions are gone or damaged" in verified(store, run)["problems"]


def test_other_versions_may_differ_by_a_tenth_of_a_point(copied: tuple[Store, str]) -> None:
    store, run = copied
    top1 = verified(store, run)["top1"][0]
    change(store, run, provenance__packages__torch="1.0", metrics__test__top1=top1 + 0.09, metrics__test__loss=0.5)
    found = verified(store, run)
    assert found["agrees"]
    assert not found["exact"]
    assert found["metrics"].keys() == {"top1", "loss"}
    change(store, run, metrics__test__top1=top1 + 0.11)
    assert not verified(store, run)["agrees"]


def test_what_cannot_be_verified_is_said(copied: tuple[Store, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from deit_ablate.errors import TrainError
    from deit_ablate.train.verify import verify_all

    store, run = copied
    with pytest.raises(TrainError, match="has not finished"):
        verified(store, "0" * 16)
    change(store, run, metrics__test=None, reason="non-finite loss at step 3")
    with pytest.raises(TrainError, match="ended before its test .non-finite loss at step 3"):
        verified(store, run)
    assert next(verify_all(store, [run], None, "cpu"))["error"].startswith(run)
