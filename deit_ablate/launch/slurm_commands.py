"""SLURM's commands, and what their answers mean. Everything that comes from outside passes through here."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

WAITING = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
)
"""No process of the job runs, and one may yet."""
RUNNING = frozenset({"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"})
"""A process of the job may be alive."""
OVER: Mapping[str, str] = {
    "COMPLETED": "killed",
    "FAILED": "killed",
    "CANCELLED": "interrupted",
    "TIMEOUT": "time-limit",
    "DEADLINE": "time-limit",
    "NODE_FAIL": "node",
    "BOOT_FAIL": "node",
    "LAUNCH_FAILED": "node",
    "PREEMPTED": "preempted",
    "OUT_OF_MEMORY": "out-of-memory",
    "REVOKED": "interrupted",
}
"""The job is over -> how an attempt ended that was open then."""

TRANSIENT = re.compile(
    r"socket timed out|unable to contact slurm controller|connection refused|connection timed out|temporarily unable|"
    r"slurm backup controller|zero bytes were transmitted|resource temporarily unavailable",
    re.IGNORECASE,
)
LIMIT = re.compile(
    r"QOSMaxSubmit|QOSMaxJobs|AssocMaxSubmit|AssocMaxJobs|AssocGrp|QOSGrp|MaxSubmit|job submit limit|too many|"
    r"job count|maximum number of jobs",
    re.IGNORECASE,
)
TIMEOUT = float(os.environ.get("DEIT_ABLATE_SLURM_TIMEOUT", "60"))


class SchedulerError(Exception):
    """A command of the scheduler gave no answer that can be used."""


class Unreachable(SchedulerError):
    """The scheduler did not answer: nothing is known, and nothing changes."""


class Limited(SchedulerError):
    """The scheduler takes no more jobs for now."""


class Rejected(SchedulerError):
    """The scheduler refuses this job, and would again."""


@dataclass(frozen=True)
class Answer:
    """One complete listing of a user's jobs. ``states``: element ("123_4", or "123") -> SLURM's state."""

    user: str
    cluster: str
    states: Mapping[str, str]
    reasons: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    """Element -> the job's name."""

    def job_called(self, name: str) -> str | None:
        """The (array's) job id of the job of that name."""
        return next((element.partition("_")[0] for element, own in self.names.items() if own == name), None)

    def waits(self, element: str) -> bool:
        return self.states.get(element) in WAITING

    def runs(self, element: str) -> bool:
        state = self.states.get(element)
        # A state that this version does not know may be one of a living job.
        return state is not None and state not in WAITING and state not in OVER

    def alive(self, element: str) -> bool:
        return self.waits(element) or self.runs(element)

    def ended(self, element: str) -> str | None:
        """How an attempt of this job ended, where the listing says so."""
        return OVER.get(self.states.get(element, ""))


def command(*arguments: str, timeout: float = TIMEOUT, given: str | None = None) -> str:
    """Standard output of one of SLURM's commands. Raises Unreachable, Limited or Rejected."""
    try:
        done = subprocess.run(
            arguments,
            input=given,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise Rejected(f"there is no command {arguments[0]} here: this machine has no SLURM client") from None
    except subprocess.TimeoutExpired:
        raise Unreachable(f"{arguments[0]} did not answer within {timeout:g} s") from None
    if done.returncode:
        message = " ".join(done.stderr.split()) or f"{arguments[0]} ended with code {done.returncode}"
        kind = Unreachable if TRANSIENT.search(message) else Limited if LIMIT.search(message) else Rejected
        raise kind(message)
    return done.stdout


def settings() -> dict[str, str]:
    """``scontrol show config`` as a mapping."""
    pairs = (line.partition("=") for line in command("scontrol", "show", "config").splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def ask(cluster: str | None = None) -> Answer:
    """All jobs of this user, finished ones as long as the controller remembers them: one call, however many.

    The listing names its cluster, unless it is empty and ``cluster`` not given: then that takes a second call.
    """
    user = getpass.getuser()
    fields = ",".join(f"{field}:|" for field in ("JobArrayID", "State", "Reason", "Cluster", "Name"))
    listing = command(
        "squeue", "--array", "--local", "--noheader", "--states=all", f"--user={user}", f"--Format={fields}"
    )
    states, reasons, names = {}, {}, {}
    for line in listing.splitlines():
        # The name comes last: it may hold the mark itself.
        element, *rest = line.removesuffix("|").split("|", 4)
        if len(rest) != 4:
            raise SchedulerError(f"squeue's answer cannot be read: {line[:80]!r}")
        states[element], reasons[element], there, names[element] = rest
        cluster = cluster or there
    return Answer(user, cluster or settings()["ClusterName"], states, reasons, names)


def accounted(elements: Iterable[str]) -> dict[str, str]:
    """What accounting says of jobs that squeue has forgotten; nothing where it does not work."""
    states: dict[str, str] = {}
    wanted = sorted(elements)
    for start in range(0, len(wanted), 500):
        chosen = ",".join(wanted[start : start + 500])
        try:
            listing = command("sacct", "-n", "-P", "-X", "-j", chosen, "--format=JobID,State", timeout=20)
        except SchedulerError:
            return states
        pairs = (line.split("|", 1) for line in listing.splitlines() if "|" in line)
        states |= {element: state.split()[0] for element, state in pairs if state.strip()}
    return states


def find(name: str) -> str | None:
    """The id of the job of this name, if the scheduler has one. Raises Unreachable."""
    listing = command("squeue", "--noheader", "--states=all", f"--name={name}", "--format=%F")
    return next(iter(listing.split()), None)


def submit(script: str, name: str, *, tries: int = 6) -> str:
    """sbatch a script; returns the job's id. After a time-out the name is looked up before it is tried again, so
    that a submission which went through unseen is found. Raises Limited, Rejected, or Unreachable at last."""
    wait = 2.0
    for attempt in range(tries):
        try:
            return command("sbatch", "--parsable", script).strip().split(";")[0]
        except Unreachable:
            if attempt + 1 == tries:
                raise
            time.sleep(wait)
            wait = min(30.0, 2 * wait)
            with contextlib.suppress(Unreachable):
                if found := find(name):
                    return found
    raise AssertionError("not reached")


def cancel(elements: Iterable[str], *, save: bool) -> None:
    """Take waiting jobs out of the queue; or (``save``) ask running ones to save and stop."""
    chosen = list(elements)
    for start in range(0, len(chosen), 500):
        arguments = ["--signal=TERM"] if save else []
        command("scancel", *arguments, *chosen[start : start + 500])
