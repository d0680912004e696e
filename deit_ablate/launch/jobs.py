"""What an executor is given, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from deit_ablate.execution import Execution


@dataclass(frozen=True)
class Job:
    """What an executor is given: plain values only, so that any scheduler can carry it."""

    results: str
    run: str
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    ranks: int = 1
    """Processes that train the run together."""

    def argv(self) -> list[str]:
        return ["run", self.results, self.run, *self.arguments]


@dataclass(frozen=True)
class Ended:
    """A job that is over: exit code, or minus the signal that killed it, and what it printed before its log began."""

    job: Job
    code: int
    said: str = ""


class Executor(Protocol):
    slots: int

    def ask(self, *argv: str) -> int: ...
    def submit(self, job: Job) -> None: ...
    def poll(self, timeout: float) -> list[Ended]: ...
    def cancel(self, run: str) -> None: ...
    def abandon(self) -> None: ...
    def close(self) -> None: ...


def worker_arguments(execution: Execution, retry: bool) -> tuple[str, ...]:
    """The execution of a job as the worker command's arguments."""
    arguments: list[Any] = []
    for name in ("device", "loaders", "threads", "accumulation", "data_dir", "stage_data"):
        value = getattr(execution, name)
        arguments += [f"--{name.replace('_', '-')}", value] if value is not None else []
    flags = [name for name in ("compile", "channels_last", "deterministic") if getattr(execution, name)]
    arguments += [f"--{name.replace('_', '-')}" for name in flags]
    return tuple(map(str, [*arguments, *(["--retry"] if retry else [])]))
