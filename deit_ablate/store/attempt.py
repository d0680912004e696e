"""One try at a run, how it ended, and what a run's attempts add up to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deit_ablate import files
from deit_ablate.errors import Damaged
from deit_ablate.store import schema
from deit_ablate.store.schema import SCHEMA

ATTEMPTS_WITHOUT_PROGRESS = 3
KILLS = 2
"""Times that a worker may be seen to die without a new checkpoint."""

BUDGETS = {"out-of-memory": 1, "storage-full": 1}
"""Failures that may pass by themselves, with how often a run is tried again by itself."""
AT_CHANCE = "is at chance"
"""In the reason of runs that earlier versions called diverged because they ended there: they have weights."""
HOLD_AFTER = 4
"""Runs that die of one error, before any has finished, until the sweep is held."""

RESUMABLE = frozenset(
    {"interrupted", "preempted", "time-limit", "node", "paused", "superseded", "killed", "released", "cancelled"}
)
"""How an attempt may end so that the next one simply goes on. All else is a failure of that class."""


@dataclass(frozen=True)
class State:
    """Where a run stands. ``detail`` is a failure's class, the parent that it waits for, or the damaged file."""

    name: str
    detail: str = ""
    attempt: int = 0

    @property
    def finished(self) -> bool:
        return self.name in ("done", "diverged")

    @property
    def at_rest(self) -> bool:
        """Finished, or in a state that only a user changes."""
        return self.finished or self.name in ("paused", "damaged")

    @property
    def without_weights(self) -> bool:
        """Finished, but without weights on which another run could stand."""
        return self.name == "diverged" and AT_CHANCE not in self.detail

    @property
    def stops_children(self) -> bool:
        """Whether runs that depend on it cannot start until a user acts."""
        return self.name in ("failed", "cancelled", "blocked", "damaged") or self.without_weights

    def __str__(self) -> str:
        return f"{self.name} ({self.detail})" if self.detail else self.name


@dataclass(frozen=True)
class Attempt:
    """One try at a run. Its number is the fencing token: a higher one ends all lower ones."""

    number: int
    path: Path

    @property
    def owner(self) -> dict[str, Any]:
        """Who executes it. Raises Damaged, as ``exit`` does."""
        return schema.read(self.path / "owner.json", schema.Owner) or {}

    @property
    def job(self) -> dict[str, Any]:
        """The scheduler's job that executes it; empty where none does."""
        return self.owner.get("job") or {}

    @property
    def element(self) -> str | None:
        """That job as the scheduler lists it."""
        return self.job.get("element")

    @property
    def exit(self) -> dict[str, Any] | None:
        """How it ended; None for one that has not."""
        return schema.read(self.path / "exit.json", schema.Exit)

    def check(self) -> None:
        """Raises Damaged where its owner or its exit is."""
        self.owner, self.exit  # noqa: B018

    @property
    def seconds(self) -> float:
        """How long a process has worked at it, by its own clock; as of its last beat where it could not say so."""
        try:
            return float((self.exit or {}).get("seconds") or (self.read_beat() or {}).get("seconds") or 0.0)
        except Damaged:
            return 0.0

    @property
    def checkpoint(self) -> Path:
        return self.path / "ckpt.pt"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def arrays(self) -> Path:
        return self.path / "arrays.npz"

    @property
    def output(self) -> Path:
        """The folder that a program is given for what it writes."""
        return self.path / "output"

    @property
    def kept(self) -> Path:
        """The folder in which a program keeps what its next attempt goes on from; it moves along to that attempt."""
        return self.path / "checkpoint"

    @property
    def saved(self) -> Path:
        """An empty file: a program has written to ``kept`` in this attempt."""
        return self.path / "saved"

    @property
    def progressed(self) -> bool:
        return any(path.exists() for path in (self.checkpoint, self.path / "ckpt.prev", self.saved))

    def beat(self, **what: Any) -> None:
        files.replace(self.path / "beat", files.to_json({**what, "time": time.time()}))

    def read_beat(self) -> dict[str, Any] | None:
        """What the worker last said of itself. Raises Damaged."""
        return schema.read(self.path / "beat", schema.Beat)

    def close(self, how: str, message: str = "", **more: Any) -> bool:
        """Say how the attempt ended; the first word stands."""
        content = {"schema": SCHEMA, "class": how, "message": message, "time": time.time(), **more}
        return files.publish(self.path / "exit.json", files.to_json(content))

    def release(self) -> None:
        """Close it on a user's word, in place of an exit that cannot be read."""
        try:
            closed = self.exit is not None
        except Damaged:
            (self.path / "exit.json").rename(self.path / "exit.damaged")
            closed = False
        if not closed:
            self.close("released", "released by a user")


class Refused(Exception):
    """A claim that was not granted; the text says why."""


class Overtaken(BaseException):
    """An attempt should end itself: its run is finished, cancelled or in a later attempt's hands. Not an Exception, so
    that nothing in a training mistakes it for a failure."""


def failure(attempts: Sequence[Attempt]) -> str | None:
    """The class of failure that a run's closed attempts add up to, or None where it may simply go on."""
    start = max((i for i, attempt in enumerate(attempts) if attempt.owner.get("retry")), default=0)
    exits = [(attempt, attempt.exit or {"class": "interrupted"}) for attempt in attempts[start:]]
    exits = [(attempt, end) for attempt, end in exits if end.get("class") != "superseded"]
    if not exits:
        return None
    last = exits[-1][1].get("class", "")
    if last not in RESUMABLE:
        tries = sum(end.get("class") == last for _, end in exits)
        return None if tries <= BUDGETS.get(last, 0) else last or "crash"
    kills = 0
    for attempt, end in exits:
        kills = 0 if attempt.progressed else kills + (end.get("class") == "killed")
    if last == "killed" and kills >= KILLS:
        return "killed"
    recent = exits[-ATTEMPTS_WITHOUT_PROGRESS:]
    if len(recent) == ATTEMPTS_WITHOUT_PROGRESS and not any(attempt.progressed for attempt, _ in recent):
        return "no-progress"
    return None
