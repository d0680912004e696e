"""Executing one run: claim it, train it, record it; of several ranks the first does so, the others compute."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deit_ablate import __version__, files
from deit_ablate.errors import Damaged, DataError, TrainError
from deit_ablate.execution import FIXED, SAVED, Execution
from deit_ablate.identity import recipe_of_record, run_id
from deit_ablate.program import is_program, must_be_planned
from deit_ablate.store import Attempt, Overtaken, Refused, Store
from deit_ablate.store.checkout import checkout, checkout_of
from deit_ablate.store.datafacts import small
from deit_ablate.worker import program
from deit_ablate.worker.forkserver import HELD
from deit_ablate.worker.log import log_to

if TYPE_CHECKING:
    from deit_ablate.train.distributed import Group
    from deit_ablate.train.loop import Outcome

    AnyOutcome = Outcome | program.Outcome


@dataclass
class Task:
    """One run, as this process (one rank of it) is to execute it."""

    store: Store
    run: str
    execution: Execution
    retry: bool = False
    sweep: str | None = None
    command: str = ""
    foreground: bool = False
    group: Group | None = None
    """The ranks that train it together; None where there is only this process."""
    stop: threading.Event = field(default_factory=threading.Event)
    progress: dict[str, Any] = field(default_factory=dict)
    """Epoch and step."""
    begun: float = field(default_factory=time.monotonic)
    """By the monotonic clock, for durations; time stamps are by the other."""

    @property
    def first(self) -> bool:
        return self.group is None or self.group.first

    @property
    def reached(self) -> dict[str, Any]:
        """How far this process has come, and in how many seconds: what a beat and an exit hold."""
        return {**self.progress, "seconds": round(time.monotonic() - self.begun, 3)}


def execute(task: Task) -> int:
    """Claim, train and record one run; returns the exit code. Of several ranks only the first claims and records."""
    try:
        task.group = _join(task.execution)
    except Exception as error:
        print(f"crash: {task.run}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    for number in HELD:
        signal.signal(number, (lambda *_: task.stop.set()) if task.first else signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
    try:
        return _execute(task)
    finally:  # Python ends with handlers of its own removed: a signal would hide how the run ended
        for number in HELD:
            signal.signal(number, signal.SIG_IGN)


def _execute(task: Task) -> int:
    claimed = _claim(task) if task.first else None
    attempt = _agree(task, claimed)
    if attempt is None:
        return claimed if isinstance(claimed, int) else 0
    log_to(attempt.log, and_here=task.foreground and task.first)
    try:
        outcome, data = _train(task, attempt)
        return _conclude(task, attempt, outcome, data) if task.first else 0
    except Overtaken as overtaken:
        message = "another finished it, it was cancelled, or a later attempt took over"
        attempt.close(str(overtaken), message, **task.reached)
        print(f"left: {overtaken}", flush=True)
        return 0
    except Exception as error:
        code = _fail(task, attempt, error)
        if task.sweep and task.store.sweeps.hold_if_hopeless(task.sweep):
            print(f"{task.sweep} is held: its first runs have all ended like this one", flush=True)
        return code


def _conclude(task: Task, attempt: Attempt, outcome: AnyOutcome, data: dict[str, Any]) -> int:
    if outcome.status != "stopped":
        _record(task, attempt, outcome, data)
        return 0
    how = task.store.overtaken(task.run, attempt) or _why_stopped()
    why = outcome.reason or "" if isinstance(outcome, program.Outcome) else "saved on a signal"
    attempt.close(how, why, **task.reached)
    print(f"saved and stopped ({how})", flush=True)
    return 0 if how in ("cancelled", "paused") else SAVED


def _why_stopped() -> str:
    """Under a scheduler a signal means that the job's time is up, or that another job needs its place. The deadline is
    by this machine's monotonic clock."""
    if "SLURM_JOB_ID" not in os.environ:
        return "interrupted"
    return "time-limit" if time.monotonic() > float(os.environ.get("DEIT_ABLATE_DEADLINE", "inf")) else "preempted"


def _join(execution: Execution) -> Group | None:
    """The ranks that train this run together; None, without importing torch, where there is only this process. Each has
    chosen its GPU before they meet: the meeting, and all that names no device, is on that one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    from deit_ablate.train.distributed import join
    from deit_ablate.train.precision import choose

    choose(device_of(execution.device))
    return join()


# -- claiming ----------------------------------------------------------------------------------------------------------


def _claim(task: Task) -> Attempt | int:
    """Become the run's owner, or the exit code with which to leave."""
    store, run = task.store, task.run
    try:
        stored = store.recipe(run)
        if stored is None:
            print(f"{run} has no recipe in {store.root}", file=sys.stderr)
            return 2
        if store.sweeps.held(task.sweep):
            raise Refused(f"the sweep {task.sweep} is held")
        if any(store.weights(parent["run"]) is None for parent in stored["parents"].values()):
            print(f"{run} waits for its parents", file=sys.stderr)
            return 0
        return store.claim(run, retry=task.retry, execution={**_execution(task).record(), "version": __version__})
    except Damaged as damage:  # of the run, or of one that it depends on
        print(f"{run}: {damage}", file=sys.stderr)
        return 2
    except Refused as refusal:
        print(f"{run}: {refusal}", file=sys.stderr)
        return 0
    except (OSError, Unshareable) as error:
        how = _class_of_os_error(error) if isinstance(error, OSError) else "bad-recipe"
        print(f"{how}: {run} could not be claimed: {error}", file=sys.stderr)
        return 1


class Unshareable(Exception):
    """The chunks into which a run's batches are cut cannot be shared out among this many ranks."""


def _execution(task: Task) -> Execution:
    """How this attempt is executed. What changes bits is as it was in the first attempt; so is the number of chunks of
    a batch, whatever the number of ranks that compute them. Raises Unshareable where it cannot be."""
    ranks = task.group.ranks if task.group else 1
    attempts = task.store.attempts(task.run)
    before = attempts[0].owner.get("execution", {}) if attempts else {}
    values: dict[str, Any] = {name: before[name] for name in FIXED if name in before}
    if "ranks" in before:
        chunks = before["ranks"] * before["accumulation"]
        if chunks % ranks:
            raise Unshareable(f"its batches are cut into {chunks} chunks, which {ranks} ranks cannot share")
        values["accumulation"] = chunks // ranks
    return task.execution.model_copy(update={**values, "ranks": ranks})


def _agree(task: Task, claimed: Attempt | int | None) -> Attempt | None:
    """The attempt that all ranks work at, and its execution, as the first rank has claimed it."""
    number = claimed.number if isinstance(claimed, Attempt) else None
    if task.group is not None:
        number = task.group.from_first(number)
    if number is None:
        return None
    attempt = task.store.attempt(task.run, number)
    recorded = {key: value for key, value in attempt.owner["execution"].items() if key in Execution.model_fields}
    task.execution = task.execution.model_copy(update=recorded)
    return attempt


# -- failing -----------------------------------------------------------------------------------------------------------


def _class_of_os_error(error: OSError) -> str:
    return "storage-full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "crash"


def _class_of(error: Exception) -> str:
    if isinstance(error, program.ProgramFailed):
        return error.how
    if isinstance(error, OSError):
        return _class_of_os_error(error)
    for kind, how in ((DataError, "bad-data"), (TrainError, "bad-recipe"), (Damaged, "damaged")):
        if isinstance(error, kind):
            return how
    if "torch" in sys.modules:  # else there is no rank to lose
        from deit_ablate.train.distributed import lost_a_rank

        if lost_a_rank(error):
            return "killed"
    exhausted = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return "out-of-memory" if exhausted or isinstance(error, MemoryError) else "crash"


def _hint(how: str, runs: int) -> str:
    if how != "out-of-memory" or runs == 1:
        return ""
    return f" (runs_per_gpu: {runs} leaves a run 1/{runs} of a GPU's memory: take fewer, or more accumulation)"


def _fail(task: Task, attempt: Attempt, error: Exception) -> int:
    how = _class_of(error)
    said = isinstance(error, program.ProgramFailed) or how == "bad-data"  # its message says it all
    if not said and (how != "bad-recipe" or error.__cause__ is not None):
        traceback.print_exc()
    message = f"{type(error).__name__}: {error}" if how in ("crash", "killed") and not said else str(error) or how
    message = message[:1800] + _hint(how, 1 if task.execution.device == "cpu" else task.execution.runs_per_gpu)
    print(f"failed ({how}): {message}", flush=True)
    if how == "killed" and not task.first:
        return 1  # it is the first rank that has gone, or that says so
    try:
        attempt.close(how, ("lost a rank: " if how == "killed" and not said else "") + message, **task.reached)
    except OSError as unwritten:
        # Nothing can be written: the launcher, which sees the exit code, records it for us.
        print(f"and could not write so: {unwritten}", file=sys.stderr, flush=True)
    return 1


# -- training ----------------------------------------------------------------------------------------------------------


def _train(task: Task, attempt: Attempt) -> tuple[AnyOutcome, dict[str, Any]]:
    """The outcome, and the facts of the data that it is of."""
    stored = task.store.recipe(task.run)
    assert stored is not None
    if run_id(stored["recipe"], stored["parents"], stored["sources"]) != task.run:
        raise TrainError(
            "the stored recipe does not give this run's id: the version that wrote it means another training by it"
        )
    if is_program(stored["recipe"]):
        return program.train(task, attempt, stored), {}
    return _train_ours(task, attempt, stored)


TOLD = {"loaders", "accumulation", "compile", "channels_last", "deterministic"}
"""Options of the execution that ``loop.train`` takes by the same names."""


def _train_ours(task: Task, attempt: Attempt, stored: Mapping[str, Any]) -> tuple[Outcome, dict[str, Any]]:
    import torch

    from deit_ablate.train import loop, teachers
    from deit_ablate.train.distributed import Group, leave
    from deit_ablate.train.precision import share_gpu
    from deit_ablate.worker.journal import FileJournal

    store, execution, group = task.store, task.execution, task.group or Group()
    must_be_planned(stored["sources"])
    find = store.teacher_weights.find
    values = teachers.with_start(stored["recipe"], store.teacher_weights) if group.first else None
    recipe = recipe_of_record(group.from_first(values), find)
    torch.set_num_threads(execution.threads)
    device, data_dir = device_of(execution.device), _data_dir(execution)
    share_gpu(device, execution.runs_per_gpu)
    parents = {}
    for role, parent in stored["parents"].items():
        weights, above = store.weights(parent["run"]), store.recipe(parent["run"])
        if weights is None or above is None:
            raise TrainError(
                f"the weights of {parent['run']} are gone; `deit-ablate forget {parent['run']}` trains it again"
            )
        parents[role] = loop.Parent(recipe_of_record(above["recipe"], find), weights, parent["weights"])
    teacher = group.from_first(teachers.teacher_file(recipe, store.teacher_weights) if group.first else None)
    journal = FileJournal(task, recipe, attempt)
    with journal.beating() if group.first else contextlib.nullcontext():
        outcome = loop.train(
            recipe,
            journal=journal,
            data_dir=data_dir,
            device=device,
            parents=parents,
            teacher_weights=teacher,
            group=group,
            evaluate_every=execution.evaluate_every,
            cache=store.root / "cache",
            **execution.model_dump(include=TOLD),
        )
    leave()
    if group.first and outcome.status != "stopped":
        journal.finished()
    if outcome.status == "done" and journal.resumed_from and not attempt.checkpoint.exists():
        # The attempt before was killed between its last checkpoint and its outcome: its weights are ours.
        os.link(journal.resumed_from, attempt.checkpoint)
    return outcome, journal.facts


def _data_dir(execution: Execution) -> Path | None:
    """The data set's folder; a copy of it on the local disk where one is asked for."""
    if not execution.data_dir:
        return None
    local = execution.stage_data or os.environ.get("SLURM_TMPDIR")
    if not local:
        return Path(execution.data_dir)
    from deit_ablate.train.data.staging import stage

    return stage(Path(execution.data_dir), Path(local))


def measured(request: Mapping[str, Any]) -> dict[str, Any]:
    """What one training takes: {"run", "seconds", "steps", "step_seconds", "device"}, or {"run", "error"}.

    ``request``: {"run", "recipe" (canonical, with paths), "parents" (role -> {"recipe", "path" or None, "weights"}),
    "teacher" (the path of its weights file, or None), "execution" (its JSON)}.
    """
    import torch

    from deit_ablate.train import probe

    execution = Execution.from_json(request["execution"])

    def find(sha256: str) -> None:  # its paths stand in it already
        return None

    torch.set_num_threads(execution.threads)
    try:
        with tempfile.TemporaryDirectory() as folder:
            parents, data_dir = {}, _data_dir(execution)
            for role, parent in request["parents"].items():
                recipe = recipe_of_record(parent["recipe"], find)
                parents[role] = (
                    probe.Parent(recipe, Path(parent["path"]), parent["weights"])
                    if parent["path"]
                    else probe.untrained(recipe, data_dir, Path(folder), parent)
                )
            found = probe.measure(
                recipe_of_record(request["recipe"], find),
                device=device_of(execution.device),
                ranks=execution.ranks,
                data_dir=data_dir,
                parents=parents,
                teacher_weights=Path(request["teacher"]) if request["teacher"] else None,
                **execution.model_dump(include=TOLD),
            )
    except (TrainError, OSError) as error:
        return {"run": request["run"], "error": str(error)}
    except Exception as error:  # out of memory, a user's own code, ...
        return {"run": request["run"], "error": f"{type(error).__name__}: {error}"}
    return {"run": request["run"], **vars(found)}


def device_of(wanted: str) -> str:
    """The torch device that `device:` means here, a GPU with its number: the one of this rank among those of its node,
    or the only one that it sees. Raises TrainError where there is none."""
    import torch

    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise TrainError("no CUDA device can be used here; --device cpu trains without")
    if wanted == "mps":
        raise TrainError("Apple's MPS is not supported by this version; --device cpu trains without")
    if wanted == "cpu":
        return wanted
    seen, rank = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", "0"))
    if rank >= seen > 1:
        raise TrainError(f"rank {rank} of this node has no GPU of its own: {seen} are seen here")
    return f"cuda:{rank if seen > 1 else 0}"


def _made_with(task: Task, outcome: AnyOutcome) -> dict[str, Any]:
    """Versions, hardware, and the state of the code: of a program that of its own."""
    if isinstance(outcome, program.Outcome):
        told = task.execution.program
        git = checkout_of(Path(told.folder)) if told else None
        return {**program.made_with(outcome.packages), "git": git}
    from deit_ablate.train.provenance import hardware, provenance

    return {**provenance(), "hardware": hardware(outcome.cost.get("device", "cpu")), "git": checkout()}


def _record(task: Task, attempt: Attempt, outcome: AnyOutcome, data: dict[str, Any]) -> None:
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **outcome.arrays)
    files.replace(attempt.arrays, buffer.getvalue())
    if reason := task.store.overtaken(task.run, attempt):
        raise Overtaken(reason)
    seconds = time.monotonic() - task.begun
    earlier = sum(before.seconds for before in task.store.attempts(task.run)[:-1])
    made_with = _made_with(task, outcome)
    task.store.finish(
        task.run,
        attempt,
        {
            "status": outcome.status,
            "reason": outcome.reason,
            "metrics": outcome.metrics,
            "data": small(data) or None,
            "weights_sha256": outcome.weights_sha256,
            "arrays_sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
            "cost": {**outcome.cost, "wall_seconds": seconds, "wall_seconds_all_attempts": seconds + earlier},
            "execution": {**attempt.owner["execution"], "loaders": outcome.cost["loaders"]},
            "provenance": {**made_with, "command": task.command or None},
            "time": time.time(),
        },
    )
    attempt.close("done", **task.reached)
    if isinstance(outcome, program.Outcome):
        print(f"{outcome.status}: {outcome.reason or outcome.metrics['program']}", flush=True)
        return
    split = "test" if outcome.metrics.get("test") else "validation"
    top1 = (outcome.metrics.get(split) or {}).get("top1", float("nan"))
    print(f"{outcome.status}: {split} top-1 {top1:.2f}", flush=True)
