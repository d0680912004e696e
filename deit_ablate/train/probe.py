"""What a training will take, measured on its first steps. Nothing is kept of them."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deit_ablate.recipe import Recipe
from deit_ablate.train.data.sets import load_data
from deit_ablate.train.loop import Parent, Quiet, initial_model, train
from deit_ablate.train.outcome import FORWARD_SHARE, epochs_between, models_scored

STEPS = 20
"""Steps that are timed, after a first one."""
SECONDS = 60.0
"""No further step is timed after this long."""


@dataclass(frozen=True)
class Measured:
    """Of one training: seconds of all of it, the steps that were timed, seconds of one, and the device."""

    seconds: float
    steps: int
    step_seconds: float
    device: str


class Timed(Quiet):
    """Stops once enough steps are timed."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.begun = device, time.perf_counter()
        self.facts: dict[str, Any] = {}
        self.steps = 0
        self.times: list[tuple[int, float]] = []
        """Epoch and time of each step's end."""

    def data(self, facts: dict[str, Any]) -> None:
        self.facts = facts

    def progress(self, epoch: int, step: int, steps: int, loss: float) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        self.steps = steps
        self.times.append((epoch, time.perf_counter()))

    def stop(self) -> bool:
        return len(self.times) > STEPS or (len(self.times) > 1 and self.times[-1][1] - self.begun > SECONDS)

    def step_seconds(self) -> tuple[float, int]:
        """Mean seconds of a step, and of how many; those that an evaluation came before are left out."""
        pairs = itertools.pairwise(self.times)
        between = [end - start for (before, start), (epoch, end) in pairs if epoch == before]
        between = between or [self.times[-1][1] - self.begun]  # an epoch of one step
        return sum(between) / len(between), len(between)


def measure(recipe: Recipe, *, device: str, ranks: int = 1, accumulation: int = 1, **how: Any) -> Measured:
    """Time the first steps of a training, all of whose ranks' work is done by this process, one part after the other.

    ``how``: as ``train`` takes it. Setting up, the steps, and a third of a step an image evaluated are counted, not
    what an evaluation adds beside. Raises TrainError as ``train`` does.
    """
    journal = Timed(device)
    train(recipe, journal=journal, device=device, accumulation=accumulation * ranks, **how)
    seconds, steps = journal.step_seconds()
    epochs, batch = recipe.schedule.epochs, recipe.schedule.batch_size
    facts, models = journal.facts, models_scored(recipe)
    scores = math.ceil(epochs / epochs_between(facts["train"], facts["validation"], models))
    evaluated = models * (facts["validation"] * scores + (facts["test"] if recipe.data.test else 0))
    worked = seconds * (journal.steps * epochs + FORWARD_SHARE * evaluated / batch) / ranks
    return Measured(journal.times[0][1] - journal.begun + worked, steps, seconds / ranks, device)


def untrained(recipe: Recipe, data_dir: Path | None, folder: Path, which: Mapping[str, str]) -> Parent:
    """A run that has yet to be trained, as a parent: its initial weights, in a file in ``folder``."""
    model = initial_model(recipe, load_data(recipe, data_dir), None)
    path = folder / f"{len(list(folder.iterdir()))}.pt"
    torch.save({"step": 0, "model": model.state_dict(), "ema": model.state_dict()}, path)
    return Parent(recipe, path, "ema" if which["weights"] == "ema" else "last")
