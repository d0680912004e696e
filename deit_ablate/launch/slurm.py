"""A SLURM cluster: announce, submit, record, wait; and adopt what earlier launchers have left.

Nothing is kept but files: a launcher killed at any moment leaves an announcement that the next one completes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deit_ablate import files
from deit_ablate.errors import InputError, few
from deit_ablate.execution import Execution
from deit_ablate.launch import slurm_commands, slurm_script
from deit_ablate.launch.cost import Costs, size
from deit_ablate.launch.jobs import RETRYABLE, Progress, Report, Watcher, Work, by_execution, is_due, needs_words
from deit_ablate.launch.policy import FRUITLESS_STARTS, Launch
from deit_ablate.launch.pool import Pool
from deit_ablate.launch.preflight import preflight, worth_a_preflight
from deit_ablate.launch.slurm_commands import Answer, Limited, Rejected, SchedulerError, Unreachable
from deit_ablate.launch.status import Known
from deit_ablate.store import State, Store, owner
from deit_ablate.store.checkout import checkout
from deit_ablate.store.submissions import Submission, Submissions
from deit_ablate.sweep.plan import Run

NODE_FAILURES = 2
"""Jobs that a node has lost until later submissions leave it out."""
TRIALS_AT_ONCE = 8
"""Of a search, where its sweep does not say."""
LOOK_SECONDS = float(os.environ.get("DEIT_ABLATE_LOOK_SECONDS", "10"))


class SlurmExecutor:
    """As jobs of a SLURM cluster, which takes a plan at once."""

    interrupted = "left; what was submitted goes on, and the same command looks at it again"

    def __init__(self, work: Work) -> None:
        """Raises InputError where no cluster answers, or the work cannot be given to it."""
        for execution, _ in work.kinds():
            slurm_script.must_be_possible(execution)
        self.work, self.submitting = work, SlurmLaunch(work)

    def preflight(self) -> None:
        self.submitting.must_be_acceptable()
        # Data and devices are the compute nodes'; what cannot be seen from here is left to them, and a sweep whose
        # first runs all die of one cause is held.
        if worth_a_preflight(self.work):
            preflight(self.work, Pool().ask)

    def launch(self, watch: Watcher, *, wait: bool = False) -> Report:
        for line in costs(self.work, self.submitting.costs):
            watch.say(line)
        return self.submitting.run(watch, wait=wait)


def costs(work: Work, known: Costs) -> list[str]:
    """What is about to be submitted will cost: a line, and where runs need different things one for each of these."""
    kinds = work.kinds()
    lines, total = [], dict[str, float | None]()
    for (execution, runs), words in zip(kinds, needs_words([execution for execution, _ in kinds]), strict=True):
        gpus, seconds = slurm_script.gpus(execution) / execution.runs_per_gpu, known.estimate(runs).seconds
        unit, each = ("GPU", gpus) if gpus else ("CPU", execution.ranks * slurm_script.cpus(execution))
        hours = None if seconds is None else seconds * each / 3600
        before = total.setdefault(unit, 0.0)
        total[unit] = None if hours is None or before is None else before + hours
        lines.append(f"  {len(runs)} with {words}: {_hours(hours, unit)}")
    estimate = known.estimate(work.to_come())
    of_all = ", ".join(_hours(hours, unit) for unit, hours in total.items())
    whole = f"{estimate.runs} runs: {of_all}, disk {size(estimate.bytes)}, files {estimate.files or 'unknown'}"
    return [whole, *(lines if len(kinds) > 1 else [])]


def _hours(hours: float | None, unit: str) -> str:
    return f"{unit}-hours unknown" if hours is None else f"{hours:.1f} {unit}-hours"


@dataclass
class Submitted:
    """What one turn has done."""

    jobs: dict[str, str] = field(default_factory=dict)
    """Run -> the array element that executes it, for the runs submitted now."""
    put_off: dict[str, str] = field(default_factory=dict)
    """Run -> why it was not submitted."""


class SlurmLaunch(Launch):
    """A launch that submits all that may start, in arrays."""

    def __init__(self, work: Work) -> None:
        """Raises InputError where no SLURM cluster answers."""
        super().__init__(work)
        self.submissions = Submissions(self.store)
        self.full = False
        try:
            config = slurm_commands.settings()
        except SchedulerError as error:
            raise InputError(f"no SLURM cluster answers: {error}", expected="a login node of the cluster") from None
        self.cluster = config["ClusterName"]
        root = self.store.root
        if odd := set('%"\\\n') & set(str(root.resolve())):
            raise InputError(
                f"a results folder with {odd.pop()!r} in its path cannot be given to SLURM",
                where=str(root),
                expected="another folder",
            )
        self.largest = max(1, int(config.get("MaxArraySize", "1001")) - 1)
        self.say: Callable[[str], None] = lambda _: None

    # -- the loop ------------------------------------------------------------------------------------------------------

    def run(self, watch: Watcher, *, wait: bool) -> Report:
        """Submit what is missing, and what the search asks for; with ``wait``, stay until nothing is left to do, and
        submit again what ended early. Raises InputError for a job that the cluster refuses."""
        self.say = watch.say
        ended: set[str] = set()
        jobs: dict[str, str] = {}
        try:
            while True:
                try:
                    turn = self.once()
                except SchedulerError as error:
                    if not wait or not isinstance(error, Unreachable):
                        raise InputError(
                            f"the scheduler does not answer: {error}", expected="to run it again later"
                        ) from None
                    watch.say(f"the scheduler does not answer ({error}); looking again")
                    time.sleep(LOOK_SECONDS)
                    continue
                self.report.states = self.states
                self.report.started += turn.jobs
                self.report.problems = {run: f"not submitted: {why}" for run, why in turn.put_off.items()}
                jobs |= turn.jobs
                going = [run for run, state in self.states.items() if state.name in ("running", "submitted")]
                limit = (self.work.source and self.work.source.max_parallel) or TRIALS_AT_ONCE
                if self.take_more(limit - len(going)):
                    continue
                if not wait:
                    self._say_submitted(jobs)
                    return self.report
                running = [run for run in going if self.states[run].name == "running"]
                over = {run for run, state in self.states.items() if state.at_rest or state.name in RETRYABLE}
                watch(Progress(len(self.runs), self.states, running, ended=sorted(over - ended)))
                ended = over
                if not going and not self.full:
                    return self.report
                time.sleep(LOOK_SECONDS * (6 if self.full else 1))
        except KeyboardInterrupt:
            self.report.interrupted = True
            return self.report

    def _say_submitted(self, jobs: Mapping[str, str]) -> None:
        arrays: dict[str, list[str]] = {}
        for run, element in jobs.items():
            arrays.setdefault(element.partition("_")[0], []).append(self.work.labels.get(run, run))
        for job, names in arrays.items():
            self.say(f"submitted job {job}: {len(names)} runs ({few(names, 6)})")

    def once(self) -> Submitted:
        """Submit what is missing and not in the scheduler's hands. Raises InputError for a job that it refuses."""
        while True:
            known = Known(self.store, self.parents, self.sweep)
            for damage in known.damaged:
                raise damage  # what it submitted is not known: to submit more could submit it twice
            answer = slurm_commands.ask(self.cluster)
            if self._update_files(known, answer):
                continue  # files have changed: look anew
            self.states = known.states(answer)
            self.retry = {run for run in self.retry if self.states[run].name in RETRYABLE}
            turn, self.full = Submitted(), False
            number = max((submission.number for submission in known.submissions), default=0)
            for group in self._groups(known, answer, turn):
                if self.full:
                    turn.put_off |= dict.fromkeys(group, "the scheduler takes no more jobs for now")
                    continue
                number += 1
                if not self._submit(number, group, known, answer, turn):
                    break  # another launcher has taken the number: read what it submits, then plan again
            else:
                return turn

    # -- what other launchers have left --------------------------------------------------------------------------------

    def _update_files(self, known: Known, answer: Answer) -> bool:
        """Record jobs whose launcher did not, and close attempts that ended silently; True where files changed."""
        changed = False
        for submission in known.submissions:
            if submission.job is None and not submission.over:
                changed |= self._adopt(submission, answer)
        over = {run: attempt for run, attempt in known.last.items() if known.over(attempt, answer)}
        elements = [attempt.element for attempt in over.values()]
        accounted = slurm_commands.accounted(
            element for element in elements if element and element not in answer.states
        )
        for attempt in over.values():
            element = attempt.element or ""
            if answer.waits(element):
                continue  # its job has been requeued, and closes it when it starts
            how = answer.ended(element) or slurm_commands.OVER.get(accounted.get(element, ""), "interrupted")
            changed |= attempt.close(
                how, f"its job {element} is over: {answer.states.get(element) or accounted.get(element) or 'unknown'}"
            )
        return changed

    def _adopt(self, submission: Submission, answer: Answer) -> bool:
        if job := answer.job_called(submission.name):
            self.submissions.note(submission.number, job)
            self.say(f"submission {submission.number} is job {job}: its launcher ended before it could record that")
            return True
        if owner.provably_gone(submission.content["launcher"]) and submission.content["cluster"] == answer.cluster:
            self.submissions.close(submission.number, "its launcher is gone, and the scheduler has no job of that name")
            return True
        return False

    # -- what is to be submitted -------------------------------------------------------------------------------

    def _groups(self, known: Known, answer: Answer, turn: Submitted) -> Iterator[list[str]]:
        """Runs that depend on the same parents and need the same, parents first, in arrays that the cluster takes; in
        each the longest first, which start in the order of the array."""
        chosen: dict[tuple[str, ...], list[Run]] = {}
        going = set()
        states = self.states
        for run in self.runs:
            state = states[run]
            # Or a living job executes it. (Children of a run of another launcher would leave at once.)
            if state.name == "submitted" or answer.runs(self._open_element(run, known) or ""):
                going.add(run)
            ready = all(states[parent].finished or parent in going for parent in self.parents[run])
            if not self.may_start(run) or not ready:
                continue
            if lost := [parent for parent in self.parents[run] if states[parent].without_weights]:
                turn.put_off[run] = (
                    f"{lost[0]}, on which it depends, diverged: that is a result, which is not tried"
                    " again, and there are no weights to go on from"
                )
                continue
            if run not in self.retry and (why := self._never_begins(run, known)):
                turn.put_off[run] = why
                continue
            going.add(run)
            open_parents = tuple(sorted(parent for parent in self.parents[run] if not states[parent].finished))
            chosen.setdefault(open_parents, []).append(self.runs[run])
        executions = {run.id: self.work.execution_of(run.id) for runs in chosen.values() for run in runs}
        for of_parents in chosen.values():
            for _, runs in by_execution(of_parents, executions):
                ordered = [run.id for run in sorted(runs, key=lambda run: -(self.costs.seconds(run.recipe) or 0.0))]
                most = self.largest * self.work.execution_of(ordered[0]).runs_per_gpu
                for start in range(0, len(ordered), most):
                    yield ordered[start : start + most]

    def _open_element(self, run: str, known: Known) -> str | None:
        """The job of the attempt at a run that is open."""
        last = known.last.get(run)
        return last.element if last is not None and last.exit is None else None

    def _never_begins(self, run: str, known: Known) -> str | None:
        """Why a run is not submitted once more: its jobs have ended again and again before an attempt began."""
        number = known.number(run)
        earlier = [ticket for ticket in known.tickets.get(run, ()) if ticket.job and ticket.after == number]
        if len(earlier) < FRUITLESS_STARTS:
            return None
        return (
            f"its job ended {len(earlier)} times before an attempt began ({self.submissions.last_words(earlier[-1])});"
            " `deit-ablate retry` tries it again"
        )

    def _submit(self, number: int, group: Sequence[str], known: Known, answer: Answer, turn: Submitted) -> bool:
        """Announce, sbatch, record. False where the number was taken. The runs of a group are executed alike."""
        execution = self.work.execution_of(group[0])
        together = execution.runs_per_gpu
        folder = self.submissions.folder(number).resolve()
        code, path = self._snapshot
        name = f"deit-ablate-{number}-{owner.identify()['nonce']}"
        after = self._jobs_of({parent for run in group for parent in self.parents[run]}, known, answer, turn)
        text = slurm_script.script(
            folder,
            name=name,
            execution=execution,
            count=len(group),
            code=path.resolve(),
            after=after,
            exclude=self._bad_nodes(),
        )
        script = folder / f"{name}.sh"
        files.replace(script, text.encode())
        files.replace(folder / slurm_script.PICKLE, slurm_script.pickled(self.store.root.resolve(), number, execution))
        entries = [{"run": run, "after": known.number(run), "retry": self.prepare(run)} for run in group]
        arguments = self.work.job(group[0], retry=False).arguments()[3:]  # the job itself fills in the run
        content = {
            "name": name,
            "launcher": owner.identify(),
            "cluster": self.cluster,
            "sweep": self.sweep,
            "runs": entries,
            "runs_per_element": together,
            "arguments": arguments,
            "code": code,
            "script": script.name,
            "after": list(after),
        }
        if not self.submissions.announce(number, content):
            return False
        try:
            job = slurm_commands.submit(str(script), name)
        except Limited as error:
            self.submissions.close(number, str(error))
            if len(group) > together:
                self.largest = -(-len(group) // together) // 2
                return False  # plan again, in smaller arrays
            self.full = True
            turn.put_off |= dict.fromkeys(group, str(error))
            return True
        except Unreachable as error:
            # It may have gone through: the announcement stands, and whoever looks next finds the job by its name.
            turn.put_off |= dict.fromkeys(group, f"{error}; it is looked up by the next `run`")
            self.full = True
            return True
        except Rejected as error:
            self.submissions.close(number, str(error))
            raise _refusal(error) from None
        self.submissions.note(number, job)
        self.retry -= set(group)
        for index, run in enumerate(group):
            turn.jobs[run] = f"{job}_{index // together}"
            self.states[run] = State("submitted", "PENDING", known.number(run))
        return True

    def must_be_acceptable(self) -> None:
        """Ask sbatch, before anything is written, whether it would take such jobs. Raises InputError."""
        kinds = self.work.kinds()
        for execution, runs in kinds:
            self._must_be_acceptable(execution, self.work.labels.get(runs[0].id, "") if len(kinds) > 1 else "")

    def _must_be_acceptable(self, execution: Execution, like: str) -> None:
        folder = self.store.root.resolve()
        text = slurm_script.script(folder, name="deit-ablate-test", execution=execution, count=1, code=folder)
        try:
            slurm_commands.command("sbatch", "--test-only", given=text)
        except Rejected as error:
            if "node configuration is not available" in str(error):
                return  # said of what no node can give, and also while nodes are down
            raise _refusal(error, f"job of {like}" if like else "job") from None
        except (Limited, Unreachable):
            pass

    def _jobs_of(self, parents: set[str], known: Known, answer: Answer, turn: Submitted) -> list[str]:
        """The jobs after which children may start: those of parents that are not finished."""
        found = []
        for parent in sorted(parents):
            ticket = known.ticket(parent, {}, answer)
            element = turn.jobs.get(parent) or self._open_element(parent, known) or (ticket.element if ticket else None)
            if element and (element in turn.jobs.values() or answer.alive(element)):
                found.append(element)
        return found

    def _bad_nodes(self) -> list[str]:
        """Nodes that have lost jobs again and again."""
        lost: dict[str, set[tuple[str, int]]] = {}
        for run in self.runs:
            attempts = self.store.attempts(run) if self.states[run].name != "damaged" else []
            for attempt in attempts:
                if (attempt.exit or {}).get("class") == "node":
                    host = str(attempt.owner.get("host", "")).partition(".")[0]
                    lost.setdefault(host, set()).add((attempt.job.get("id", ""), attempt.job.get("restarts", 0)))
        return sorted(host for host, jobs in lost.items() if host and len(jobs) >= NODE_FAILURES)

    @functools.cached_property
    def costs(self) -> Costs:
        """What runs like these took, as far as it was known when this launch began."""
        return Costs(self.store, self.runs)

    @functools.cached_property
    def _snapshot(self) -> tuple[str, Path]:
        return self.submissions.snapshot(Path(__file__).parent.parent, checkout() or {})


def _refusal(error: Rejected, job: str = "job") -> InputError:
    return InputError(f"sbatch refuses the {job}: {error}", expected="other values under `execution: {slurm: ...}`")


# -- what users do about jobs ------------------------------------------------------------------------------------------


def cancel_jobs(store: Store, runs: Sequence[str]) -> None:
    """Take the jobs of cancelled runs out of the queue, and ask those that run to save and stop. A job that other runs
    share goes on with them: a worker sees by itself that its run was cancelled."""
    known, wanted = Known(store, dict.fromkeys(runs, ())), set(runs)
    every = [ticket for given in known.submissions for ticket in given.tickets() if ticket.element]
    tickets = [ticket for ticket in every if ticket.run in wanted]
    attempts = [attempt.element for attempt in known.last.values()]
    if not tickets and not any(attempts):
        return
    jobs = {ticket.element for ticket in tickets}
    others = [ticket for ticket in every if ticket.element in jobs and ticket.run not in wanted]
    shared = {str(ticket.element) for ticket in others if is_due(store.state(ticket.run, {}), ticket.after)}
    with contextlib.suppress(SchedulerError):
        answer = slurm_commands.ask()
        # By name as well as by number: a controller may have begun its numbers anew.
        ours = {str(ticket.element) for ticket in tickets if answer.names.get(str(ticket.element)) == ticket.name}
        alone = sorted(ours - shared)
        slurm_commands.cancel([job for job in alone if answer.waits(job)], save=False)
        slurm_commands.cancel([job for job in alone if answer.runs(job)], save=True)


def release_submissions(store: Store, run: str) -> bool:
    """Close what was submitted for a run, on a user's word; True where there was something.

    Raises InputError where the scheduler says that its job is alive.
    """
    known = Known(store, {run: ()})
    if known.ticket(run, {}, None) is None:
        return False
    with contextlib.suppress(SchedulerError):
        answer = slurm_commands.ask()
        ticket = known.ticket(run, {}, answer)
        if ticket is not None and ticket.element and answer.alive(ticket.element):
            raise InputError(
                f"job {ticket.element} is in the queue ({answer.states[ticket.element]})",
                where=run,
                expected="`deit-ablate cancel`",
            )
    Submissions(store).close_runs([run], "released by a user")
    return True


def waits(store: Store, run: str) -> bool:
    """Whether a run is in the scheduler's queue, as far as files say."""
    return Known(store, {run: ()}).ticket(run, {}, None) is not None


def job_output(store: Store, run: str) -> str:
    """What the job of a submitted run has printed that is in no attempt's log."""
    tickets = Known(store, {run: ()}).tickets.get(run, [])
    paths = [Submissions(store).output(ticket) for ticket in tickets if ticket.element]
    return "".join(path.read_text(errors="replace") for path in paths[-1:] if path.exists())
