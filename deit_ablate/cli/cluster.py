"""Runs on a cluster, as the command line shows them: submit, wait, cancel."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deit_ablate.cli import console
from deit_ablate.errors import InputError
from deit_ablate.execution import Execution
from deit_ablate.launch import slurm_commands
from deit_ablate.launch.cost import Costs
from deit_ablate.launch.local import Progress, Report
from deit_ablate.launch.slurm import Submitter
from deit_ablate.launch.status import Known
from deit_ablate.store import Store
from deit_ablate.store.submissions import Submissions
from deit_ablate.sweep.plan import Run

if TYPE_CHECKING:
    from deit_ablate.search.search import Search

TRIALS_AT_ONCE = 8
"""Of a search, where its sweep does not say."""
LOOK_SECONDS = float(os.environ.get("DEIT_ABLATE_LOOK_SECONDS", "10"))


def cost(store: Store, runs: Sequence[Run], how: Execution) -> str:
    """What is about to be submitted will cost."""
    estimate = Costs(store, {run.id: run for run in runs}).estimate(runs)
    gpus = how.slurm.gpus if how.slurm.gpus is not None else (0 if how.device == "cpu" else how.ranks)
    unit, each = ("GPU", gpus) if gpus else ("CPU", how.ranks * (how.slurm.cpus or how.threads + how.loaders))
    hours = (
        f"{estimate.seconds * each / 3600:.1f} {unit}-hours"
        if estimate.seconds is not None
        else f"{unit}-hours unknown"
    )
    return f"{len(runs)} runs: {hours}, disk {console.size(estimate.bytes)}, files {estimate.files or 'unknown'}"


def submit(
    submitter: Submitter, labels: Mapping[str, str], *, wait: bool, out: Any, more: Search | None = None
) -> Report:
    """Submit what is missing, and what ``more`` asks for; with ``wait``, stay until nothing is left to do, and submit
    again what ended early."""
    watch = console.Watch(submitter.store, labels, submitter.runs, stream=out) if wait else None
    submitter.say = watch.say if watch else (lambda text: print(console.plain(text), file=out))
    report = Report({}, 0)
    before: set[str] = set()
    jobs: dict[str, str] = {}
    try:
        while True:
            try:
                done = submitter.once()
            except slurm_commands.SchedulerError as error:
                if watch is None or not isinstance(error, slurm_commands.Unreachable):
                    raise InputError(
                        f"the scheduler does not answer: {error}", expected="to run it again later"
                    ) from None
                watch.say(f"the scheduler does not answer ({error}); looking again")
                time.sleep(LOOK_SECONDS)
                continue
            report.states, report.started = done.states, report.started + len(done.jobs)
            report.tried |= set(done.jobs)
            report.unsaid = {run: f"not submitted: {why}" for run, why in done.put_off.items()}
            limited = submitter.full
            over = {
                run
                for run, state in done.states.items()
                if state.finished or state.name in ("failed", "blocked", "cancelled", "held")
            }
            going = [run for run, state in done.states.items() if state.name in ("running", "submitted")]
            jobs |= done.jobs
            if more is not None:
                room = (more.settings.parallel or TRIALS_AT_ONCE) - len(going)
                if submitter.add(more(done.states, max(0, room))):
                    continue
            if watch is None:
                _say_submitted(jobs, labels, out)
                return report
            running = [run for run in going if done.states[run].name == "running"]
            watch(Progress(len(labels), done.states, running, [], [], sorted(over - before), None))
            before = over
            if not going and not limited:
                return report
            time.sleep(LOOK_SECONDS * (6 if limited else 1))
    except KeyboardInterrupt:
        report.interrupted = True
        return report
    finally:
        if watch is not None:
            watch.close()


def _say_submitted(jobs: Mapping[str, str], labels: Mapping[str, str], out: Any) -> None:
    arrays: dict[str, list[str]] = {}
    for run, element in jobs.items():
        arrays.setdefault(element.partition("_")[0], []).append(labels.get(run, run))
    for job, names in arrays.items():
        shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        print(console.plain(f"submitted job {job}: {len(names)} runs ({shown})"), file=out)


def held(store: Store, sweep: str | None) -> list[str]:
    """Why a sweep is held, for people."""
    why = store.held(sweep)
    if why is None:
        return []
    if why["class"] == "cancelled":
        return [f"{sweep} was cancelled: it asks for no more trials until `deit-ablate retry {sweep}`"]
    return [
        f"{sweep} is held: its first {len(why['runs'])} runs all ended as {why['class']}: {why['message']}",
        f"nothing of it starts until `deit-ablate retry {sweep}`",
    ]


def cancel(store: Store, runs: Sequence[str]) -> None:
    """Take the jobs of cancelled runs out of the queue, and ask those that run to save and stop."""
    known = Known(store, dict.fromkeys(runs, ()))
    tickets = [
        ticket for given in known.submissions for ticket in given.tickets() if ticket.run in runs and ticket.element
    ]
    attempts = [attempt.element for attempt in known.last.values()]
    if not tickets and not any(attempts):
        return
    with contextlib.suppress(slurm_commands.SchedulerError):
        answer = slurm_commands.ask()
        # By name as well as by number: a controller may have begun its numbers anew.
        ours = {str(ticket.element) for ticket in tickets if answer.names.get(str(ticket.element)) == ticket.name}
        jobs = sorted(ours | {element for element in attempts if element and element in ours})
        slurm_commands.cancel([job for job in jobs if answer.waits(job)], save=False)
        slurm_commands.cancel([job for job in jobs if answer.runs(job)], save=True)


def release(store: Store, run: str) -> bool:
    """Say that nothing will come of what was submitted for a run; True where there was something.

    Raises InputError where the scheduler says that its job is alive.
    """
    known = Known(store, {run: ()})
    if known.ticket(run, {}, None) is None:
        return False
    with contextlib.suppress(slurm_commands.SchedulerError):
        answer = slurm_commands.ask()
        ticket = known.ticket(run, {}, answer)
        if ticket is not None and ticket.element and answer.alive(ticket.element):
            raise InputError(
                f"job {ticket.element} is in the queue ({answer.states[ticket.element]})",
                where=(run, 0, 0),
                expected="`deit-ablate cancel`",
            )
    for ticket in known.tickets[run]:
        Submissions(store).close(ticket.submission, "a user said that nothing will come of it", ticket.index)
    return True


def waits(store: Store, run: str) -> bool:
    """Whether a run is in the scheduler's queue, as far as files say."""
    return Known(store, {run: ()}).ticket(run, {}, None) is not None


def printed(store: Store, run: str) -> str:
    """What the job of a submitted run has printed that is in no attempt's log."""
    tickets = Known(store, {run: ()}).tickets.get(run, [])
    paths = [Submissions(store).output(ticket) for ticket in tickets if ticket.element]
    return "".join(path.read_text(errors="replace") for path in paths[-1:] if path.exists())
