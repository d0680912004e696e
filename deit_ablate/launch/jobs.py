"""What launchers, executors and those who watch them hand to one another: plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from deit_ablate.execution import Execution
from deit_ablate.recipe import flatten
from deit_ablate.store import State, Store
from deit_ablate.sweep.confounds import value_words
from deit_ablate.sweep.effects import Pair
from deit_ablate.sweep.plan import Run
from deit_ablate.sweep.yaml import Node

RETRYABLE = frozenset({"failed", "cancelled", "blocked", "held"})
"""States in which a run starts only where it is retried."""
NOT_DONE = RETRYABLE | {"damaged"}
"""States of which a launch is told at its end. What is damaged starts only once it is forgotten."""


def is_due(state: State, after: int) -> bool:
    """Whether a scheduler's job starts a run of this state that was submitted after its attempt number ``after``: not
    one that is finished or rests until a user acts, except to try again what had failed by then."""
    over = state.at_rest or state.name in RETRYABLE
    return not over or (state.name == "failed" and state.attempt <= after)


@dataclass(frozen=True)
class Job:
    """One run to be executed: plain values only, so that any scheduler can take it."""

    results: str
    run: str
    execution: Execution = field(hash=False)
    retry: bool = False
    """Start the budgets of its failures anew."""
    sweep: str | None = None
    """The sweep that is held where its first runs all fail alike."""
    command: str = ""
    """The command line that asked for it, as records keep it."""

    def arguments(self) -> list[str]:
        """The arguments of the worker's command."""
        arguments = ["run", self.results, self.run, "--execution", self.execution.to_json()]
        arguments += ["--sweep", self.sweep] if self.sweep else []
        arguments += ["--command", self.command] if self.command else []
        return [*arguments, *(["--retry"] if self.retry else [])]


@dataclass(frozen=True)
class Ended:
    """A job that is over."""

    job: Job
    code: int
    """Its exit code, or minus the signal that killed it."""
    output: str = ""
    """What it printed before its log began."""


class RunSource(Protocol):
    """What adds runs while others go on: a search."""

    @property
    def max_parallel(self) -> int | None:
        """Runs of it at once; None where the executor decides."""

    @property
    def over(self) -> bool:
        """Whether it will add nothing more."""

    def __call__(self, states: Mapping[str, State], free: int) -> Sequence[Run]:
        """Runs to go on with, parents first, given the states of those so far and how many more could run at once."""

    def examples(self) -> Sequence[Run]:
        """Runs like those that are still to come."""


@dataclass(frozen=True)
class Work:
    """The runs that a command wants done, and how."""

    store: Store
    sweep: str | None
    """None for runs that belong to none."""
    runs: Mapping[str, Run]
    """By id, parents before children. A search adds to them, and to ``labels``."""
    labels: Mapping[str, str]
    states: Mapping[str, State]
    """As they are before anything is started."""
    execution: Execution
    command: str = ""
    """The command line that asks for it, as records keep it."""
    retry: frozenset[str] = frozenset()
    """Runs that are started although they have failed or were cancelled."""
    written: Mapping[str, Node] = field(default_factory=dict)
    """By run: where its recipe's values are written."""
    source: RunSource | None = None
    pairs: Sequence[Pair] = ()
    """Rows that are refused where they are the same training as another."""
    own: Mapping[str, Execution] = field(default_factory=dict)
    """By run: how it is executed, where that is not ``execution``. A search adds to them."""

    def unfinished(self) -> list[Run]:
        return [run for run in self.runs.values() if not self.states[run.id].at_rest]

    def to_come(self) -> list[Run]:
        """What is left to be done; for trials that a search has yet to request, runs like them."""
        return [*self.unfinished(), *self.examples()]

    def examples(self) -> Sequence[Run]:
        """Runs like those that a search has yet to request."""
        return self.source.examples() if self.source is not None else ()

    def job(self, run: str, *, retry: bool) -> Job:
        return Job(str(self.store.root), run, self.execution_of(run), retry, self.sweep, self.command)

    def execution_of(self, run: str) -> Execution:
        return self.own.get(run, self.execution)

    def kinds(self) -> list[tuple[Execution, list[Run]]]:
        """What is left to be done, those runs together that are executed alike."""
        runs = self.to_come()
        return by_execution(runs, {run.id: self.execution_of(run.id) for run in runs})


def by_execution(runs: Iterable[Run], executions: Mapping[str, Execution]) -> list[tuple[Execution, list[Run]]]:
    """Runs that are executed alike together, in the order of the first of each."""
    found: dict[str, tuple[Execution, list[Run]]] = {}
    texts: dict[int, str] = {}
    for run in runs:
        execution = executions[run.id]
        if id(execution) not in texts:
            texts[id(execution)] = execution.model_dump_json()
        found.setdefault(texts[id(execution)], (execution, []))[1].append(run)
    return list(found.values())


def needs_words(executions: Sequence[Execution]) -> list[str]:
    """Of each what it has otherwise than some of the others, as ``ranks 2, slurm.gpus 4``. How the metrics of a program
    are read is no need."""
    each = [dict(flatten(execution.model_dump(exclude={"program"}))) for execution in executions]
    keys = dict.fromkeys(key for values in each for key in values)
    differ = [key for key in keys if any(values.get(key) != each[0].get(key) for values in each)]
    return [", ".join(f"{key} {value_words(values.get(key))}" for key in differ) for values in each]


@dataclass
class Progress:
    """What a watcher is shown, anew at every look."""

    total: int
    states: Mapping[str, State]
    here: Sequence[str]
    """Runs that this launcher has started and that run."""
    elsewhere: Sequence[str] = ()
    """Runs that another launcher has started."""
    started: Sequence[str] = ()
    """Runs that this launcher has started since the last call, in order; some may have ended already."""
    ended: Sequence[str] = ()
    """Runs that ended since the last call, in order."""
    seconds_left: float | None = None
    stopping: bool = False

    @property
    def running(self) -> list[str]:
        return [*self.here, *self.elsewhere]

    def count(self, *names: str) -> int:
        return sum(state.name in names for state in self.states.values())


class Watcher(Protocol):
    def __call__(self, progress: Progress) -> None: ...
    def say(self, line: str) -> None: ...


@dataclass
class Report:
    """How a launch ended."""

    states: dict[str, State] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    """Runs that this launch has started or submitted, in order; one that was started again stands there again."""
    problems: dict[str, str] = field(default_factory=dict)
    """Run -> a failure that no file tells: it could not be written, or came before a log began."""
    interrupted: bool = False

    def failed(self) -> dict[str, State]:
        return {run: state for run, state in self.states.items() if state.name in NOT_DONE or run in self.problems}
