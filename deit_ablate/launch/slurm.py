"""Give a plan's missing runs to a scheduler: announce, submit, note; and take up what earlier launchers left.

Nothing is kept but files: a launcher killed at any moment leaves an announcement that the next one completes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deit_ablate import files
from deit_ablate.errors import InputError
from deit_ablate.execution import Execution
from deit_ablate.launch import slurm_commands, slurm_script
from deit_ablate.launch.jobs import worker_arguments
from deit_ablate.launch.local import RETRYABLE, STARTABLE
from deit_ablate.launch.slurm_commands import Answer, Limited, Rejected, SchedulerError, Unreachable
from deit_ablate.launch.status import Known
from deit_ablate.store import State, Store, owner
from deit_ablate.store.checkout import checkout
from deit_ablate.store.submissions import Submission, Submissions
from deit_ablate.sweep.plan import Run

NODE_FAILURES = 2
"""Attempts that a node has lost until later submissions leave it out."""
SUBMISSIONS_WITHOUT_AN_ATTEMPT = 3


@dataclass
class Submitted:
    """What a launcher has done."""

    states: dict[str, State]
    jobs: dict[str, str] = field(default_factory=dict)
    """Run -> the array element that carries it, for the runs submitted now."""
    put_off: dict[str, str] = field(default_factory=dict)
    """Run -> why it was not submitted."""


class Submitter:
    """One launcher at work on some runs of a sweep."""

    def __init__(
        self,
        runs: Mapping[str, Run],
        store: Store,
        sweep: str | None,
        execution: Execution,
        *,
        command: str,
        retry: frozenset[str] = frozenset(),
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Raises InputError where no SLURM cluster answers."""
        self.runs, self.store, self.sweep, self.execution = dict(runs), store, sweep, execution
        self.command, self.retry, self.say = command, set(retry), say
        self.parents = {run.id: run.above for run in self.runs.values()}
        self.submissions = Submissions(store)
        self.full = False
        self._snapshot: tuple[str, Path] | None = None
        try:
            config = slurm_commands.settings()
        except SchedulerError as error:
            raise InputError(f"no SLURM cluster answers: {error}", expected="a login node of the cluster") from None
        self.cluster = config["ClusterName"]
        if odd := set('%"\\\n') & set(str(store.root.resolve())):
            raise InputError(
                f"a results folder with {odd.pop()!r} in its path cannot be given to SLURM",
                where=(str(store.root), 0, 0),
                expected="another folder",
            )
        if execution.ranks % execution.slurm.nodes:
            raise InputError(
                f"{execution.ranks} ranks cannot be spread evenly over {execution.slurm.nodes} nodes",
                key="execution.ranks",
                expected="a multiple of slurm.nodes",
            )
        self.largest = max(1, int(config.get("MaxArraySize", "1001")) - 1)

    def add(self, runs: Sequence[Run]) -> bool:
        """Take on more runs, parents first; True where some were not known."""
        new = [run for run in runs if run.id not in self.runs]
        self.runs |= {run.id: run for run in new}
        self.parents |= {run.id: run.above for run in new}
        return bool(new)

    def once(self) -> Submitted:
        """Submit what is missing and not in the scheduler's hands. Raises InputError for a job that it refuses."""
        while True:
            known = Known(self.store, self.parents, self.sweep)
            answer = slurm_commands.ask(self.cluster)
            if self._take_up(known, answer):
                continue  # files have changed: look anew
            states = known.states(answer)
            self.retry = {run for run in self.retry if states[run].name in RETRYABLE}
            done, self.full = Submitted(states), False
            number = max((submission.number for submission in known.submissions), default=0)
            for group in self._groups(states, known, answer, done):
                if self.full:
                    done.put_off |= dict.fromkeys(group, "the scheduler takes no more jobs for now")
                    continue
                number += 1
                if not self._submit(number, group, known, answer, done):
                    break  # another launcher has taken the number: read what it submits, then plan again
            else:
                return done

    # -- what others left --------------------------------------------------------------------------------------

    def _take_up(self, known: Known, answer: Answer) -> bool:
        """Note jobs whose launcher did not, and close attempts that ended without a word; True where files changed."""
        changed = False
        for submission in known.submissions:
            if submission.job is None and not submission.over:
                changed |= self._adopt(submission, answer)
        over = {run: attempt for run, attempt in known.last.items() if known.over(attempt, answer)}
        elements = [attempt.element for attempt in over.values()]
        told = slurm_commands.accounted(element for element in elements if element and element not in answer.states)
        for attempt in over.values():
            element = attempt.element or ""
            if answer.waits(element):
                continue  # its job has been requeued, and closes it when it starts
            how = answer.ended(element) or slurm_commands.OVER.get(told.get(element, ""), "interrupted")
            changed |= attempt.close(
                how, f"its job {element} is over: {answer.states.get(element) or told.get(element) or 'unknown'}"
            )
        return changed

    def _adopt(self, submission: Submission, answer: Answer) -> bool:
        if job := answer.job_called(submission.name):
            self.submissions.note(submission.number, job)
            self.say(f"submission {submission.number} is job {job}: its launcher did not live to note it")
            return True
        if owner.provably_gone(submission.content["launcher"]) and submission.content["cluster"] == answer.cluster:
            self.submissions.close(submission.number, "its launcher is gone, and the scheduler has no job of that name")
            return True
        return False

    # -- what is to be submitted -------------------------------------------------------------------------------

    def _groups(
        self, states: Mapping[str, State], known: Known, answer: Answer, done: Submitted
    ) -> Iterator[list[str]]:
        """Runs that stand on the same parents, parents first, in arrays that the cluster takes."""
        chosen: dict[tuple[str, ...], list[str]] = {}
        going = set()
        for run in self.runs:
            state = states[run]
            if state.name == "submitted" or self._job_runs(run, known, answer):
                going.add(run)
            startable = state.name in STARTABLE or run in self.retry
            ready = all(states[parent].finished or parent in going for parent in self.parents[run])
            if not startable or not ready:
                continue
            if barren := [parent for parent in self.parents[run] if states[parent].barren]:
                done.put_off[run] = (
                    f"{barren[0]}, on which it stands, ended by a non-finite loss: that is a result, which is not tried"
                    " again, and there are no weights to go on from"
                )
                continue
            if run not in self.retry and (why := self._in_vain(run, known)):
                done.put_off[run] = why
                continue
            going.add(run)
            chosen.setdefault(tuple(sorted(p for p in self.parents[run] if not states[p].finished)), []).append(run)
        for runs in chosen.values():
            for start in range(0, len(runs), self.largest):
                yield runs[start : start + self.largest]

    def _job_runs(self, run: str, known: Known, answer: Answer) -> bool:
        """Whether a living job carries the run (children of a run in other hands would leave at once)."""
        element = self._open_element(run, known)
        return element is not None and answer.runs(element)

    def _open_element(self, run: str, known: Known) -> str | None:
        """The job of the attempt at a run that is open."""
        last = known.last.get(run)
        return last.element if last is not None and last.exit is None else None

    def _in_vain(self, run: str, known: Known) -> str | None:
        """Why a run is not submitted once more: its jobs have ended again and again before an attempt began."""
        number = known.number(run)
        earlier = [ticket for ticket in known.tickets.get(run, ()) if ticket.job and ticket.after == number]
        if len(earlier) < SUBMISSIONS_WITHOUT_AN_ATTEMPT:
            return None
        output = self.submissions.output(earlier[-1])
        said = output.read_text(errors="replace").strip().splitlines()[-1:] if output.exists() else []
        return f"its job ended {len(earlier)} times before an attempt began ({said[0] if said else output}); `deit-ablate retry` tries it again"

    def _submit(self, number: int, group: Sequence[str], known: Known, answer: Answer, done: Submitted) -> bool:
        """Announce, sbatch, note. False where the number was taken."""
        folder = self.submissions.folder(number).resolve()
        code, path = self._code()
        name = f"deit-ablate-{number}-{owner.identify()['nonce']}"
        after = self._jobs_of({parent for run in group for parent in self.parents[run]}, known, answer, done)
        text = slurm_script.script(
            folder,
            name=name,
            execution=self.execution,
            count=len(group),
            code=path.resolve(),
            after=after,
            exclude=self._bad_nodes(),
        )
        script = folder / f"{name}.sh"
        files.replace(script, text.encode())
        files.replace(
            folder / slurm_script.PICKLE, slurm_script.pickled(self.store.root.resolve(), number, self.execution)
        )
        for run in group:
            own = self.runs[run]
            self.store.register(run, own.recipe, own.parents, own.sources)
            if run in self.retry:
                self.store.uncancel(run)
        entries = [{"run": run, "after": known.number(run), "retry": run in self.retry} for run in group]
        arguments = [
            *worker_arguments(self.execution, False),
            *(["--sweep", self.sweep] if self.sweep else []),
            "--command",
            self.command,
        ]
        content = {
            "name": name,
            "launcher": owner.identify(),
            "cluster": self.cluster,
            "sweep": self.sweep,
            "runs": entries,
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
            if len(group) > 1:
                self.largest = len(group) // 2
                return False  # plan again, in smaller arrays
            self.full = True
            done.put_off |= dict.fromkeys(group, str(error))
            return True
        except Unreachable as error:
            # It may have gone through: the announcement stands, and whoever looks next finds the job by its name.
            done.put_off |= dict.fromkeys(group, f"{error}; it is looked up by the next `run`")
            self.full = True
            return True
        except Rejected as error:
            self.submissions.close(number, str(error))
            raise _refusal(error) from None
        self.submissions.note(number, job)
        self.retry -= set(group)
        for index, run in enumerate(group):
            done.jobs[run] = f"{job}_{index}"
            done.states[run] = State("submitted", "PENDING", known.number(run))
        return True

    def must_be_acceptable(self) -> None:
        """Ask sbatch, before anything is written, whether it would take such a job. Raises InputError."""
        folder = self.store.root.resolve()
        text = slurm_script.script(folder, name="deit-ablate-test", execution=self.execution, count=1, code=folder)
        try:
            slurm_commands.command("sbatch", "--test-only", given=text)
        except Rejected as error:
            if "node configuration is not available" in str(error):
                return  # said of what no node can give, and also while nodes are down
            raise _refusal(error) from None
        except (Limited, Unreachable):
            pass

    def _jobs_of(self, parents: set[str], known: Known, answer: Answer, done: Submitted) -> list[str]:
        """The jobs after which children may start: those of parents that are not finished."""
        found = []
        for parent in sorted(parents):
            ticket = known.ticket(parent, {}, answer)
            element = done.jobs.get(parent) or self._open_element(parent, known) or (ticket.element if ticket else None)
            if element and (element in done.jobs.values() or answer.alive(element)):
                found.append(element)
        return found

    def _bad_nodes(self) -> list[str]:
        """Nodes that have lost attempts again and again."""
        lost: dict[str, int] = {}
        for run in self.runs:
            for attempt in self.store.attempts(run):
                if (attempt.exit or {}).get("class") == "node":
                    host = str(attempt.owner.get("host", "")).partition(".")[0]
                    lost[host] = lost.get(host, 0) + 1
        return sorted(host for host, times in lost.items() if host and times >= NODE_FAILURES)

    def _code(self) -> tuple[str, Path]:
        if self._snapshot is None:
            self._snapshot = self.submissions.snapshot(Path(__file__).parent.parent, checkout() or {})
        return self._snapshot


def _refusal(error: Rejected) -> InputError:
    return InputError(f"sbatch refuses the job: {error}", expected="other values under `execution: {slurm: ...}`")
