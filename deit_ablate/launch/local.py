"""Make a plan's missing runs happen: start what is missing, close what died, wait for what others carry.

The launcher keeps nothing that the files don't say: killed at any moment, the next one goes on.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from deit_ablate.errors import InputError
from deit_ablate.launch import status
from deit_ablate.launch.cost import Costs
from deit_ablate.launch.jobs import Ended, Executor, Job
from deit_ablate.store import State, Store
from deit_ablate.sweep.plan import Run

POLL_SECONDS = 0.2
ELSEWHERE_SECONDS = 1.0
STARTS_WITHOUT_A_CLAIM = 3

STARTABLE = frozenset({"missing", "resumable", "waiting"})
RETRYABLE = frozenset({"failed", "cancelled", "blocked", "held"})


class More(Protocol):
    """What adds runs while others go on: a search."""

    def __call__(self, states: Mapping[str, State], free: int) -> Sequence[Run]:
        """Runs to go on with, parents first, given how those so far stand and how many more could run at once."""

    def examples(self) -> Sequence[Run]:
        """Runs like those that are still to come."""


@dataclass
class Progress:
    """What a watcher is shown, anew at every poll."""

    total: int
    states: Mapping[str, State]
    mine: list[str]
    """Runs that this launcher carries."""
    elsewhere: list[str]
    """Runs that are in another launcher's hands."""
    started: list[str]
    """Runs that this launcher has started since the last call, in order; some may have ended already."""
    ended: list[str]
    """Runs that ended since the last call, in order."""
    seconds_left: float | None
    stopping: bool = False

    @property
    def running(self) -> list[str]:
        return [*self.mine, *self.elsewhere]

    def count(self, *names: str) -> int:
        return sum(state.name in names for state in self.states.values())


@dataclass
class Report:
    """How a launch ended."""

    states: dict[str, State]
    started: int
    unsaid: dict[str, str] = field(default_factory=dict)
    """Failures that could not be written to disk, or happened before a log began: run -> what is known."""
    interrupted: bool = False
    tried: set[str] = field(default_factory=set)
    """Runs that this launch has started."""

    def failed(self) -> dict[str, State]:
        return {run: state for run, state in self.states.items() if state.name in RETRYABLE or run in self.unsaid}


def refuse_lost_weights(
    runs: Mapping[str, Run],
    labels: Mapping[str, str],
    states: Mapping[str, State],
    store: Store,
    retry: frozenset[str] = frozenset(),
) -> None:
    """Raise InputError where a run that is to start (or to be tried again) stands on weights that are gone."""
    for run in runs.values():
        state = states[run.id].name
        if state not in STARTABLE and not (run.id in retry and state != "blocked"):
            continue
        for role, parent in run.parents.items():
            above = parent["run"]
            if states[above].finished and store.weights(above) is None:
                raise InputError(
                    f"the weights of {labels.get(above, above)} ({above}), {role} of {labels.get(run.id, run.id)}, are gone",
                    where=(str(store.root), 0, 0),
                    expected=f"`deit-ablate forget {above}` first, which trains it again with the sweep",
                )


class Launch:
    """One launcher at work on some runs, parents first."""

    def __init__(
        self,
        runs: Mapping[str, Run],
        store: Store,
        executor: Executor,
        *,
        arguments: Callable[[bool], tuple[str, ...]],
        retry: frozenset[str] = frozenset(),
        environment: Mapping[str, str] | None = None,
        ranks: int = 1,
        sweep: str | None = None,
        more: More | None = None,
    ):
        """``more`` is asked again and again for further runs, until it has none and nothing is left to be done."""
        self.runs, self.store, self.executor = dict(runs), store, executor
        self.arguments, self.retry, self.ranks, self.sweep = arguments, set(retry), ranks, sweep
        self.environment, self.more = dict(environment or {}), more
        self.parents = {run.id: run.above for run in self.runs.values()}
        self.states = status.states(store, self.parents, sweep)
        self.mine: dict[str, float] = {}
        self.elsewhere: dict[str, bool] = {}
        self.before: dict[str, int] = {}
        self.unclaimed: dict[str, int] = {}
        self.report = Report({}, 0)
        self.costs = Costs(store, self.runs)
        self.expected: dict[str, float | None] = {}
        self.queue = [run for run in self.runs if self._wanted(run)]
        self._newly_started: list[str] = []
        self._looked = 0.0

    def _wanted(self, run: str) -> bool:
        state = self.states[run]
        return state.name in STARTABLE or run in self.retry or state.name in ("running", "blocked")

    # -- the loop -------------------------------------------------------------------------------------------

    def run(self, watch: Callable[[Progress], None], stop: Callable[[], bool]) -> Report:
        """Until nothing is left to start and nothing runs, or ``stop`` says so and running runs have saved."""
        self._look_elsewhere()
        while True:
            stopping = stop()
            if stopping:
                self._ask_to_stop()
            else:
                self._take_more()
                self._start_ready()
            if not (self.mine if stopping else self._anything_left()):
                # What was asked for, or is looked at only now, may be done already (here by another launcher, or by an
                # earlier sweep): the end is when there is no more to ask for, given how everything stands now.
                if stopping or not self._take_more():
                    break
                continue
            ended = [end.job.run for end in self._poll()]
            ended += self._look_elsewhere()
            started, self._newly_started = self._newly_started, []
            mine, elsewhere = list(self.mine), list(self.elsewhere)
            watch(
                Progress(
                    len(self.runs) + len(self._to_come()),
                    self.states,
                    mine,
                    elsewhere,
                    started,
                    ended,
                    self._seconds_left(),
                    stopping,
                )
            )
        self.report.states = status.states(self.store, self.parents, self.sweep)
        self.report.interrupted = stop()
        watch(Progress(len(self.runs), self.report.states, [], [], [], [], None, self.report.interrupted))
        return self.report

    def _take_more(self) -> bool:
        """Take on the runs that are asked for now; True where there were some, whether or not they are to be trained."""
        if self.more is None:
            return False
        asked = self.more(self.states, max(0, self.executor.slots - len(self.queue)))
        new = [run for run in asked if run.id not in self.runs]
        for run in new:
            self.runs[run.id], self.parents[run.id] = run, run.above
            self._look(run.id)
            if self._wanted(run.id):
                self.queue.append(run.id)
        return bool(new)

    def _to_come(self) -> Sequence[Run]:
        return self.more.examples() if self.more is not None else ()

    def _poll(self) -> list[Ended]:
        ended = self.executor.poll(POLL_SECONDS)
        if not ended and not self.mine:
            time.sleep(POLL_SECONDS)
        for end in ended:
            self._close(end)
        return ended

    def _look(self, run: str) -> State:
        """The state of a run anew, from its files."""
        above = {parent: self.states[parent] for parent in self.parents[run]}
        self.states[run] = status.corrected(
            self.store, run, self.store.state(run, above, held=self.store.held(self.sweep) is not None)
        )
        return self.states[run]

    def _start_ready(self) -> None:
        for run in list(self.queue):
            if self._busy_slots() >= self.executor.slots:
                return
            if run in self.mine or run in self.elsewhere:
                continue
            if not all(self.states[parent].finished for parent in self.parents[run]):
                if self._look(run).name == "blocked" and run not in self.retry and not self._pending(self.parents[run]):
                    self.queue.remove(run)
                continue
            state = self._look(run)
            if state.name == "running":
                self.elsewhere[run] = status.runs_here(self.store, run)
            elif state.name != "blocked" and (state.name in STARTABLE or run in self.retry):
                self._start(run)
            else:
                self.queue.remove(run)

    def _pending(self, runs: Iterable[str]) -> bool:
        return any(run in self.queue or self._pending(self.parents[run]) for run in runs)

    def _anything_left(self) -> bool:
        """Whether something runs, or may still be started: what is left otherwise depends on a parent that will not finish."""
        if self.mine or self.elsewhere:
            return True
        for run in list(self.queue):
            if not self._pending(self.parents[run]) and not all(self.states[p].finished for p in self.parents[run]):
                self.queue.remove(run)
        return bool(self.queue)

    def _start(self, run: str) -> None:
        status.close_if_gone(self.store, run)
        own = self.runs[run]
        retry = run in self.retry
        try:
            self.store.register(run, own.recipe, own.parents, own.sources)
            if retry:
                self.store.uncancel(run)
            self.executor.submit(Job(str(self.store.root), run, self.arguments(retry), self.environment, self.ranks))
        except (OSError, RuntimeError) as error:
            self.report.unsaid[run] = str(error)
            self.queue.remove(run)
            return
        self.retry.discard(run)
        self.mine[run] = time.monotonic()
        self.before[run] = self.states[run].attempt
        self._newly_started.append(run)
        self.report.started += 1
        self.report.tried.add(run)

    def _busy_slots(self) -> int:
        return len(self.mine) + sum(self.elsewhere.values())

    def _close(self, end: Ended) -> None:
        """A job is over: say for the worker what it could not say itself, and put back what may go on."""
        run = end.job.run
        self.mine.pop(run, None)
        before = self.store.attempts(run)
        try:
            if (
                before
                and before[-1].exit is None
                and not self.store.outcome(run)
                and status.owner.provably_gone(before[-1].owner)
            ):
                if end.code < 0:
                    before[-1].close("killed", f"killed by signal {-end.code}")
                else:
                    before[-1].close("crash", f"ended with exit code {end.code} without a word")
        except OSError as error:
            self.report.unsaid[run] = f"ended with code {end.code}, and that could not be written ({error})"
        state = self._look(run)
        if state.finished:
            self.queue = [other for other in self.queue if other != run]
            with contextlib.suppress(OSError, KeyError):
                self.costs.learn(run)
                self.expected.clear()
            return
        if state.attempt == self.before.get(run, 0) and state.name in STARTABLE:
            self.unclaimed[run] = self.unclaimed.get(run, 0) + 1
            if self.unclaimed[run] >= STARTS_WITHOUT_A_CLAIM or end.code not in (0, 75):
                self.report.unsaid[run] = (
                    end.said.splitlines()[-1] if end.said else f"ended with exit code {end.code} before it began"
                )
        if state.name == "running":
            self.elsewhere[run] = status.runs_here(self.store, run)
        if run in self.report.unsaid or state.name not in (*STARTABLE, "running"):
            self.queue = [other for other in self.queue if other != run]

    def _look_elsewhere(self) -> list[str]:
        """See how runs in other hands fare, and which have ended; one whose process is gone goes back into the queue."""
        if time.monotonic() - self._looked < ELSEWHERE_SECONDS:
            return []
        ended = []
        self._looked = time.monotonic()
        for run in [
            run
            for run in self.queue
            if run not in self.mine and (run in self.elsewhere or self.states[run].name == "running")
        ]:
            state = self._look(run)
            if state.name == "running":
                self.elsewhere[run] = status.runs_here(self.store, run)
                continue
            self.elsewhere.pop(run, None)
            if state.name == "resumable":
                status.close_if_gone(self.store, run)
            elif state.name not in STARTABLE and run not in self.retry:
                self.queue.remove(run)
                ended.append(run)
        return ended

    def _ask_to_stop(self) -> None:
        for run in self.mine:
            self.executor.cancel(run)

    def _seconds_left(self) -> float | None:
        """Machine time that is left, over the slots that work on it; None until a run like them has finished."""
        left = 0.0
        now = time.monotonic()
        for run in self.queue:
            if run not in self.expected:
                self.expected[run] = self.costs.seconds(self.runs[run].recipe)
            whole = self.expected[run]
            if whole is None:
                return None
            left += max(0.0, whole - (now - self.mine[run])) if run in self.mine else whole
        for own in (to_come := self._to_come()):
            if own.id not in self.expected:
                self.expected[own.id] = self.costs.seconds(own.recipe)
            left += self.expected[own.id] or 0.0
        slots = max(1, min(self.executor.slots, len(self.queue) + len(to_come)))
        return left / slots
