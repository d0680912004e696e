"""What a training tells the world, on disk: one attempt's metrics, checkpoints and heartbeat.

It imports torch (through ``train``): ``run`` imports it after its claim.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deit_ablate import files
from deit_ablate.errors import DataError
from deit_ablate.recipe import Recipe
from deit_ablate.store import Attempt, Overtaken, pins
from deit_ablate.store.datafacts import data_lines
from deit_ablate.train import checkpoint as checkpoints
from deit_ablate.train.loop import Journal
from deit_ablate.worker.heartbeat import beating

if TYPE_CHECKING:
    from deit_ablate.worker.run import Task

CHECKPOINT_SECONDS = 600.0
"""Between checkpoints in mid-epoch: what a kill may cost of a long epoch."""
EPOCH_CHECKPOINT_SECONDS = 3.0
"""Between those at the ends of epochs, of which a small run has several a second: they took 3% of a digits run.
DEIT_ABLATE_CHECKPOINT_SECONDS changes it."""


class FileJournal(Journal):
    """The journal that writes one attempt's files."""

    def __init__(self, task: Task, recipe: Recipe, attempt: Attempt) -> None:
        self._task, self._store, self._run, self._attempt = task, task.store, task.run, attempt
        self._data_id = recipe.data.id or recipe.data.name
        self._epochs = recipe.schedule.epochs
        self._saved = time.monotonic()
        self._between = float(os.environ.get("DEIT_ABLATE_CHECKPOINT_SECONDS", EPOCH_CHECKPOINT_SECONDS))
        self._overtaken: str | None = None
        self.resumed_from: Path | None = None
        self.facts: dict[str, Any] = {}
        """Of the data set: its fingerprint, counts and the like."""
        self._fingerprints: tuple[str | None, ...] = ()
        """Those that a checkpoint of these data may have."""

    def data(self, facts: dict[str, Any]) -> None:
        for line in data_lines(facts):
            print(f"data: {line}", flush=True)
        self._fingerprints = (facts["fingerprint"], facts.get("listing"))
        self.facts = facts
        self._check_pin()

    def _check_pin(self) -> None:
        """Raises DataError where other data are pinned, which a finished run has used."""
        try:
            pinned = pins.find(self._store, self._data_id, self.facts)
        except pins.OtherData as other:
            raise DataError(
                f"{other}: give other data another data.id, restore the files, or `deit-ablate forget` those runs, to "
                "train them on these"
            ) from None
        if pinned and pinned["fingerprint"] == self.facts.get("listing"):
            # An earlier version's: all runs of this store keep to that kind.
            self.facts = {**self.facts, "fingerprint": pinned["fingerprint"], "fingerprint_of": "listing"}

    def finished(self) -> None:
        """Pin the data, of which there is a result now. Raises DataError where another run has pinned others."""
        self._check_pin()
        pins.pin(self._store, self._data_id, self.facts)

    def resume(self) -> dict[str, Any] | None:
        found = checkpoints.newest(self._store.checkpoints(self._run))
        for damaged in found.skipped:
            print(f"passed over: {damaged}", flush=True)
        state, self.resumed_from = found.state, found.path
        if state and state["data"] not in self._fingerprints and self._attempt.owner.get("retry"):
            print("passed over: the checkpoint is of other data than these", flush=True)
            state = self.resumed_from = None
        history = state["history"] if state else []
        print(f"goes on after step {state['step']}" if state else "starts", flush=True)
        files.replace(self._attempt.metrics, b"".join(json.dumps(line).encode() + b"\n" for line in history))
        return state

    def checkpoint(self, state: dict[str, Any]) -> None:
        self._leave_if_overtaken()
        checkpoints.save(self._attempt.checkpoint, state)
        self._saved = time.monotonic()

    def checkpoint_due(self) -> bool:
        return time.monotonic() - self._saved > CHECKPOINT_SECONDS

    def epoch_checkpoint_due(self, last: bool) -> bool:
        return last or time.monotonic() - self._saved > self._between

    def epoch(self, line: dict[str, Any]) -> None:
        files.append_line(self._attempt.metrics, json.dumps(line))
        validation = (line["validation"] or {}).get("top1")
        shown = "" if validation is None else f", validation {validation:.2f}%"
        number, loss, seconds = line["epoch"] + 1, line["train_loss"], line["seconds"]
        print(f"epoch {number}/{self._epochs}: loss {loss:.4f}{shown}, {seconds:.1f} s", flush=True)

    def progress(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self._task.progress |= {"epoch": epoch, "step": step}

    def stop(self) -> bool:
        if self._overtaken:
            self._leave_if_overtaken()
        return self._task.stop.is_set()

    def _leave_if_overtaken(self) -> None:
        reason = self._store.overtaken(self._run, self._attempt)
        if reason in ("cancelled", "paused"):
            self._task.stop.set()  # such a run keeps what it has: it saves, then stops
        elif reason:
            raise Overtaken(reason)

    def beating(self) -> contextlib.AbstractContextManager[None]:
        """A heartbeat while the training goes on; each also looks whether the attempt is overtaken."""
        return beating(self._beat)

    def _beat(self) -> None:
        self._attempt.beat(**self._task.reached)
        self._overtaken = self._store.overtaken(self._run, self._attempt)
