"""What a training tells the world, on disk: one attempt's metrics, checkpoints and heartbeat."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from pathlib import Path
from typing import Any

from deit_ablate import files
from deit_ablate.recipe import Recipe
from deit_ablate.store import Attempt, Store

BEAT_SECONDS = 30.0
CHECKPOINT_SECONDS = 600.0


class Overtaken(BaseException):
    """This attempt should end itself: the run is finished, cancelled or in a later attempt's hands."""


def _pin_data(store: Store, recipe: Recipe, facts: dict[str, Any]) -> None:
    from deit_ablate.errors import TrainError

    data_id = recipe.data.id or recipe.data.name
    pinned = store.pin_data(data_id, facts)
    if pinned["fingerprint"] != facts["fingerprint"]:
        raise TrainError(
            f"the data called {data_id!r} is not what earlier runs in this store used; give other data another data.id"
        )


def make_journal(
    store: Store, run: str, recipe: Recipe, attempt: Attempt, stop: threading.Event, progress: dict[str, Any]
) -> Any:
    """The journal that writes one attempt's files (a function, so that torch is imported only where it is needed)."""
    from deit_ablate.train import checkpoint as checkpoints
    from deit_ablate.train.loop import Journal

    class FileJournal(Journal):
        def __init__(self) -> None:
            self.saved = time.monotonic()
            self.over: str | None = None
            self.resumed_from: Path | None = None
            self.facts: dict[str, Any] = {}

        def data(self, facts: dict[str, Any]) -> None:
            _pin_data(store, recipe, facts)
            self.facts = facts

        def resume(self) -> dict[str, Any] | None:
            found = checkpoints.newest(store.checkpoints(run))
            for damaged in found.skipped:
                print(f"passed over: {damaged}", flush=True)
            state, self.resumed_from = found.state, found.path
            history = state["history"] if state else []
            print(f"goes on after step {state['step']}" if state else "starts", flush=True)
            files.replace(attempt.metrics, b"".join(json.dumps(line).encode() + b"\n" for line in history))
            return state

        def checkpoint(self, state: dict[str, Any]) -> None:
            self.leave_if_overtaken()
            checkpoints.save(attempt.checkpoint, state)
            self.saved = time.monotonic()

        def checkpoint_due(self) -> bool:
            return time.monotonic() - self.saved > CHECKPOINT_SECONDS

        def epoch(self, line: dict[str, Any]) -> None:
            files.append_line(attempt.metrics, json.dumps(line))

        def progress(self, epoch: int, step: int, steps: int, loss: float) -> None:
            progress["epoch"], progress["step"] = epoch, step

        def stop(self) -> bool:
            if self.over:
                self.leave_if_overtaken()
            return stop.is_set()

        def leave_if_overtaken(self) -> None:
            reason = store.overtaken(run, attempt)
            if reason in ("cancelled", "paused"):
                stop.set()  # such a run keeps what it has: it saves, then stops
            elif reason:
                raise Overtaken(reason)

        @contextlib.contextmanager
        def beating(self) -> Any:
            ended = threading.Event()

            def beat() -> None:
                while True:
                    with contextlib.suppress(OSError):  # a full disk is the trainer's to report
                        attempt.beat(**progress)
                        self.over = store.overtaken(run, attempt)
                    if ended.wait(BEAT_SECONDS):
                        return

            thread = threading.Thread(target=beat, daemon=True)
            thread.start()
            try:
                yield
            finally:
                ended.set()
                thread.join()

    return FileJournal()
