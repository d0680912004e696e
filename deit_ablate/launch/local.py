"""Runs on this machine, and the launch that all executors share which take one job at a time."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any

from deit_ablate.execution import SAVED, Execution, WorkerFailed
from deit_ablate.launch import status
from deit_ablate.launch.cost import Costs
from deit_ablate.launch.jobs import Ended, Progress, Report, Watcher, Work
from deit_ablate.launch.policy import FRUITLESS_STARTS, STARTABLE, Launch
from deit_ablate.launch.pool import Pool, ProcessPool
from deit_ablate.launch.preflight import must_have, preflight
from deit_ablate.store import State
from deit_ablate.sweep.plan import Run

POLL_SECONDS = 0.2
ELSEWHERE_SECONDS = 1.0


class JobExecutor:
    """Base of executors that take one job at a time: a subclass says by which pool (``make_pool``)."""

    interrupted = "interrupted; the same command goes on from what the runs have saved"
    """What a user is told who interrupts it."""

    def __init__(self, work: Work) -> None:
        self.work, self.pool = work, self.make_pool(work)

    def make_pool(self, work: Work) -> Pool:
        raise NotImplementedError

    def preflight(self) -> None:
        """Raises InputError, before anything is written, for work that would fail for a reason known already."""
        try:
            preflight(self.work, self.pool.ask)
        except BaseException:
            self.pool.close()
            raise

    def launch(self, watch: Watcher, *, wait: bool = False) -> Report:
        """Start what is missing and stay until nothing is left to do, or a signal says to save and stop."""
        signals: list[int] = []

        def on_signal(number: int, _frame: Any) -> None:
            if signals:  # the second time: leave at once; the runs are saving by themselves
                self.pool.abandon()
                os._exit(130)
            signals.append(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, on_signal)
        try:
            return JobLaunch(self.work, self.pool).run(watch, lambda: bool(signals))
        finally:
            self.pool.close()


class LocalExecutor(JobExecutor):
    """On this machine: each run a process of its own (or one a rank)."""

    def make_pool(self, work: Work) -> Pool:
        return ProcessPool(work.execution)

    def preflight(self) -> None:
        for execution, runs in self.work.kinds():
            must_have(execution, runs)
        super().preflight()


class JobLaunch(Launch):
    """A launch that starts one job at a time and polls for those that have ended."""

    def __init__(self, work: Work, pool: Pool) -> None:
        super().__init__(work)
        self.pool = pool
        self.states = status.states(self.store, self.parents, self.sweep)
        self.here: dict[str, float] = {}
        """Runs that this launcher has started, with the time of it."""
        self.elsewhere: dict[str, bool] = {}
        """Runs that other launchers have started, and whether they take a slot of this machine."""
        self.attempt_before: dict[str, int] = {}
        self.fruitless: dict[str, int] = {}
        self.costs = Costs(self.store, self.runs)
        self.expected: dict[str, float | None] = {}
        self._kinds: dict[int, Execution] = {}
        """The different executions of all runs so far, by their ids."""
        self.queue: list[str] = []
        self._enqueue(self.runs)
        self._newly_started: list[str] = []
        self._looked = 0.0

    def _enqueue(self, runs: Iterable[str]) -> None:
        added = [run for run in runs if self._wanted(run)]
        self.queue += added
        executions = map(self.work.execution_of, added)
        self._kinds |= {id(execution): execution for execution in executions}

    def _wanted(self, run: str) -> bool:
        return self.may_start(run) or self.states[run].name in ("running", "blocked")

    # -- the loop ------------------------------------------------------------------------------------------------------

    def run(self, watch: Callable[[Progress], None], stop: Callable[[], bool]) -> Report:
        """Until nothing is left to start and nothing runs, or ``stop`` says so and running runs have saved."""
        self._look_elsewhere()
        while True:
            stopping = stop()
            if stopping:
                for run in self.here:
                    self.pool.cancel(run)
            else:
                self._take_more()
                self._start_ready()
            if not (self.here if stopping else self._anything_left()):
                # What was requested, or is looked at only now, may be done already (here by another launcher, or by an
                # earlier sweep): the end is when nothing more is requested, given how everything stands now.
                if stopping or not self._take_more():
                    break
                continue
            ended = [*self._poll(), *self._look_elsewhere()]
            started, self._newly_started = self._newly_started, []
            watch(
                Progress(
                    len(self.runs) + len(self.work.examples()),
                    self.states,
                    list(self.here),
                    list(self.elsewhere),
                    started,
                    ended,
                    self._seconds_left(),
                    stopping,
                )
            )
        self.report.states = status.states(self.store, self.parents, self.sweep)
        self.report.interrupted = stop()
        watch(Progress(len(self.runs), self.report.states, [], stopping=self.report.interrupted))
        return self.report

    def _take_more(self) -> bool:
        """Take on the runs that the search requests; True where there were some, to be trained or not."""
        new = self.take_more(self.pool.slots - len(self.queue))
        for run in new:
            self._look(run)
        self._enqueue(new)
        return bool(new)

    def _look(self, run: str) -> State:
        """The state of a run anew, from its files."""
        above = {parent: self.states[parent] for parent in self.parents[run]}
        held = self.store.sweeps.held(self.sweep) is not None
        self.states[run] = status.corrected(self.store, run, self.store.state(run, above, held=held))
        return self.states[run]

    # -- starting ------------------------------------------------------------------------------------------------------

    def _start_ready(self) -> None:
        """Start what is ready, the longest first: a long run that starts last keeps one slot busy and the rest idle.
        Runs of unknown or equal cost keep their order. One that is ready and needs more than is free is not overtaken:
        else a large one would wait until no small one is left."""
        if self._full():
            return
        for run in sorted(self.queue, key=lambda run: -(self._expected(self.runs[run]) or 0.0)):
            if self._full():
                return
            if run in self.here or run in self.elsewhere:
                continue
            ready = all(self.states[parent].finished for parent in self.parents[run])
            if ready and not self.pool.fits(self.work.execution_of(run), self._taken()):
                return
            state = self._look(run)
            if state.name == "running":
                self._found_elsewhere(run)
            elif not ready:
                if state.name == "blocked" and run not in self.retry and not self._pending(self.parents[run]):
                    self.queue.remove(run)
            elif state.name != "blocked" and self.may_start(run):
                self._start(run)
            else:
                self.queue.remove(run)

    def _taken(self) -> list[Execution]:
        """How the runs are executed that take slots of this machine, other launchers' among them."""
        here = [*self.here, *(run for run, counts in self.elsewhere.items() if counts)]
        return [self.work.execution_of(run) for run in here]

    def _full(self) -> bool:
        """Whether there is no room for a run of any kind."""
        taken = self._taken()
        return not any(self.pool.fits(kind, taken) for kind in self._kinds.values())

    def _pending(self, runs: Iterable[str]) -> bool:
        """Whether one of them, or a run that it depends on, is still to end."""
        return any(run in self.queue or self._pending(self.parents[run]) for run in runs)

    def _anything_left(self) -> bool:
        """Whether something runs, or may still start: else what is left depends on a parent that will not finish."""
        if self.here or self.elsewhere:
            return True
        for run in list(self.queue):
            ready = all(self.states[parent].finished for parent in self.parents[run])
            if not ready and not self._pending(self.parents[run]):
                self.queue.remove(run)
        return bool(self.queue)

    def _start(self, run: str) -> None:
        status.close_if_gone(self.store, run)
        try:
            self.pool.submit(self.work.job(run, retry=self.prepare(run)))
        except (OSError, RuntimeError, WorkerFailed) as error:
            self.report.problems[run] = str(error)
            self.queue.remove(run)
            return
        self.retry.discard(run)
        self.here[run] = time.monotonic()
        self.attempt_before[run] = self.states[run].attempt
        self._newly_started.append(run)
        self.report.started.append(run)

    # -- ending --------------------------------------------------------------------------------------------------------

    def _poll(self) -> list[str]:
        """The runs whose jobs have ended since the last call."""
        ended = self.pool.poll(POLL_SECONDS)
        if not ended and not self.here:
            time.sleep(POLL_SECONDS)
        for end in ended:
            self._close(end)
        return [end.job.run for end in ended]

    def _close(self, end: Ended) -> None:
        """A job is over: record for the worker what it could not record itself, and put back what may go on."""
        run = end.job.run
        self.here.pop(run, None)
        try:
            status.close_ended(self.store, run, end.code)
        except OSError as error:
            self.report.problems[run] = f"ended with code {end.code}, and that could not be written ({error})"
        state = self._look(run)
        if state.finished:
            self._drop(run)
            with contextlib.suppress(OSError, KeyError):
                self.costs.learn(run)
                self.expected.clear()
            return
        if state.attempt == self.attempt_before.get(run, 0) and state.name in STARTABLE:
            self.fruitless[run] = self.fruitless.get(run, 0) + 1
            if self.fruitless[run] >= FRUITLESS_STARTS or end.code not in (0, SAVED):
                last = end.output.splitlines()[-1:] or [f"ended with exit code {end.code} before it began"]
                self.report.problems[run] = last[0]
        if state.name == "running":
            self._found_elsewhere(run)
        if run in self.report.problems or state.name not in (*STARTABLE, "running"):
            self._drop(run)

    def _drop(self, run: str) -> None:
        self.queue = [other for other in self.queue if other != run]
        self.elsewhere.pop(run, None)

    def _found_elsewhere(self, run: str) -> None:
        self.elsewhere[run] = status.runs_here(self.store, run)

    def _look_elsewhere(self) -> list[str]:
        """The runs of other launchers that have ended since the last look; one without a process is queued again."""
        if time.monotonic() - self._looked < ELSEWHERE_SECONDS:
            return []
        self._looked = time.monotonic()
        ended = []
        for run in list(self.queue):
            if run in self.here or not (run in self.elsewhere or self.states[run].name == "running"):
                continue
            state = self._look(run)
            if state.name == "running":
                self._found_elsewhere(run)
                continue
            self.elsewhere.pop(run, None)
            if state.name == "resumable":
                status.close_if_gone(self.store, run)
            elif not self.may_start(run):
                self._drop(run)
                ended.append(run)
        return ended

    # -- what is left --------------------------------------------------------------------------------------------------

    def _expected(self, run: Run) -> float | None:
        """The seconds that a run is expected to take; None until one like it has finished."""
        if run.id not in self.expected:
            self.expected[run.id] = self.costs.seconds(run.recipe)
        return self.expected[run.id]

    def _seconds_left(self) -> float | None:
        """Machine time that is left, over the slots that work on it; None until a run like them has finished."""
        now, left = time.monotonic(), 0.0
        runs = [*(self.runs[run] for run in self.queue), *self.work.examples()]
        for run in runs:
            whole = self._expected(run)
            if whole is None and run.id in self.runs:
                return None
            at_once = min(self.pool.at_once(self.work.execution_of(run.id)), len(runs))
            left += max(0.0, (whole or 0.0) - (now - self.here.get(run.id, now))) / at_once
        return left
