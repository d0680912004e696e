"""Stores with finished, diverged, failed and missing runs, as fixtures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from studies import Fate, Shipped, Study

from deit_ablate.sweep.plan import Cell


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Study]:
    def make(rows: Mapping[str, Mapping[int, Fate]], **more: Any) -> Study:
        return Study(tmp_path / "results", rows, **more)

    return make


@pytest.fixture
def shipped_sweep(tmp_path: Path) -> Callable[..., Shipped]:
    def make(sweep: str, fate: Callable[[Cell], Fate], **more: Any) -> Shipped:
        return Shipped(tmp_path / "results", sweep, fate, **more)

    return make


@pytest.fixture
def optimizers(study: Callable[..., Study]) -> Study:
    """The example of this folder's tests: AdamW 97, 98, 99; SGD one lower and one diverged; LAMB failed once."""
    return study(
        {
            "adamw": {0: 97.0, 1: 98.0, 2: 99.0},
            "sgd": {0: 95.0, 1: 97.0, 2: {"status": "diverged", "reason": "non-finite loss", "epochs": 2}},
            "lamb": {0: 98.0, 1: 99.5, 2: {"status": "failed", "reason": "crash"}},
        },
        name="optimizers",
        title="Optimizer ablation",
        baseline="adamw",
        differs={
            "sgd": {
                "optimizer.name": ["adamw", "sgd"],
                "optimizer.base_lr": [0.03, 0.8],
                "optimizer.options.momentum": [None, 0.9],
            },
            "lamb": {"optimizer.name": ["adamw", "lamb"], "optimizer.base_lr": [0.03, 0.32]},
        },
    )
