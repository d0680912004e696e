"""What users do about runs that exist: cancel them, declare an attempt over, forget them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence

from deit_ablate.errors import Damaged, InputError
from deit_ablate.launch.slurm import cancel_jobs, release_submissions
from deit_ablate.store import Attempt, Refused, Store, cleanup, owner
from deit_ablate.store.submissions import Submissions


def cancel(store: Store, runs: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Cancel what is not finished: (run, whether it was cancelled). What runs saves and stops, here or on a cluster."""
    for run in runs:
        finished = store.result(run) is not None
        if not finished:
            store.cancel(run)
            last = next(reversed(store.attempts(run)), None)
            with contextlib.suppress(ProcessLookupError, PermissionError, Damaged):
                if last is not None and _alive_here(last):
                    os.kill(last.owner["pid"], signal.SIGTERM)
        yield run, not finished
    cancel_jobs(store, [run for run in runs if not store.result(run)])


def open_attempt(store: Store, run: str) -> Attempt | None:
    """The attempt that `release` would close; None where only submissions wait. Raises InputError where it is alive."""
    last = next(reversed(store.attempts(run)), None)
    try:
        if last is None or last.exit is not None or store.result(run) is not None:
            return None
        alive = _alive_here(last)
    except Damaged:  # nobody can tell: the user's word is all that there is
        return last
    if alive:
        problem = f"process {last.owner['pid']} is alive on this machine"
        raise InputError(problem, where=run, expected="`deit-ablate cancel`, or to end it first")
    return last


def release(store: Store, run: str) -> str | None:
    """Close the last attempt at a run, and whatever was submitted for it, on a user's word: "attempt" or "submission",
    None where neither is open. Raises InputError where one is known to be alive."""
    attempt = open_attempt(store, run)
    if attempt is not None:
        attempt.release()
    submitted = release_submissions(store, run)
    return "attempt" if attempt is not None else "submission" if submitted else None


def forget(store: Store, runs: Sequence[str]) -> None:
    """Move runs to the trash: all of them, or none where an attempt at one may still be alive (InputError)."""
    for step in (cleanup.must_be_over, cleanup.forget):
        for run in runs:
            try:
                step(store, run)
            except Refused as refusal:
                expected = "`deit-ablate cancel` first, or to wait"
                if store.damage(run) is not None:
                    expected = f"`deit-ablate release {run}` first, once you know that no process works at it"
                raise InputError(f"{run}: {refusal}", expected=expected) from None
    # Attempts are numbered from 1 again: what was submitted before would count as jobs that never began one.
    Submissions(store).close_runs(runs, "the run was forgotten")


def _alive_here(attempt: Attempt) -> bool:
    here = attempt.exit is None and owner.same_place(attempt.owner)
    return here and not owner.provably_gone(attempt.owner)
