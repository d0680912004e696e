"""Carrying one run: claim it, train it, record it; of several ranks the first does so, the others compute."""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import io
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deit_ablate import __version__, files
from deit_ablate.execution import SAVED
from deit_ablate.identity import run_id
from deit_ablate.recipe import Recipe
from deit_ablate.store import Attempt, Refused, Store
from deit_ablate.store.checkout import checkout
from deit_ablate.worker.forkserver import HELD
from deit_ablate.worker.journal import Overtaken, make_journal
from deit_ablate.worker.log import log_to

if TYPE_CHECKING:
    from deit_ablate.train.distributed import Group
    from deit_ablate.train.loop import Outcome


def carry(options: argparse.Namespace) -> int:
    """Claim, train and record one run; returns the exit code. Of several ranks the first does so, the others compute."""
    started = time.time()
    stop = threading.Event()
    group = _join()
    first = group is None or group.first
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, (lambda *_: stop.set()) if first else signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
    store = Store(options.results)
    claimed = _claim(store, options, group) if first else None
    attempt = _agree(store, options, claimed, group)
    if attempt is None:
        return claimed if isinstance(claimed, int) else 0
    log_to(attempt.log, and_here=options.foreground and first)
    progress: dict[str, Any] = {}
    try:
        return _carry(store, options, attempt, group, stop, progress, started)
    except Overtaken as overtaken:
        attempt.close(str(overtaken), "another finished it, it was cancelled, or a later attempt took over", **progress)
        print(f"left: {overtaken}", flush=True)
        return 0
    except Exception as error:
        code = _fail(attempt, group, error, progress)
        if options.sweep and store.hold_if_hopeless(options.sweep):
            print(f"{options.sweep} is held: its first runs have all ended like this one", flush=True)
        return code


def _carry(
    store: Store,
    options: argparse.Namespace,
    attempt: Attempt,
    group: Group | None,
    stop: threading.Event,
    progress: dict[str, Any],
    started: float,
) -> int:
    outcome, data = _train(store, options, attempt, group, stop, progress)
    if group is not None and not group.first:
        return 0
    if outcome.status == "stopped":
        how = store.overtaken(options.run, attempt) or _why_stopped()
        attempt.close(how, "saved on a signal", **progress)
        print(f"saved and stopped ({how})", flush=True)
        return 0 if how in ("cancelled", "paused") else SAVED
    _record(store, options, attempt, outcome, data, started)
    return 0


def _why_stopped() -> str:
    """Under a scheduler a signal means that the job's time is up, or that another job needs its place."""
    if "SLURM_JOB_ID" not in os.environ:
        return "interrupted"
    return "time-limit" if time.time() > float(os.environ.get("DEIT_ABLATE_DEADLINE", "inf")) else "preempted"


def _join() -> Group | None:
    """The ranks that train this run together; None, without importing torch, where there is only this process."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    from deit_ablate.train.distributed import join

    return join()


def _claim(store: Store, options: argparse.Namespace, group: Group | None) -> Attempt | int:
    """Become the run's owner, or the exit code with which to leave."""
    stored = store.recipe(options.run)
    if stored is None:
        print(f"{options.run} has no recipe in {options.results}", file=sys.stderr)
        return 2
    if store.held(options.sweep):
        print(f"{options.run}: the sweep {options.sweep} is held", file=sys.stderr)
        return 0
    if not _parents_ready(store, stored):
        print(f"{options.run} waits for its parents", file=sys.stderr)
        return 0
    try:
        return store.claim(
            options.run, retry=options.retry, execution=_execution(store, options, group.ranks if group else 1)
        )
    except Refused as refusal:
        print(f"{options.run}: {refusal}", file=sys.stderr)
        return 0
    except (OSError, Unshareable) as error:
        how = _how(error) if isinstance(error, OSError) else "bad-recipe"
        print(f"{how}: {options.run} could not be claimed: {error}", file=sys.stderr)
        return 1


class Unshareable(Exception):
    """The chunks into which a run's batches are cut cannot be shared out among this many ranks."""


KEPT = ("threads", "compile", "channels_last", "deterministic")
"""Parts of the execution that change bits: a run's first attempt decides them for its life."""


def _execution(store: Store, options: argparse.Namespace, ranks: int) -> dict[str, Any]:
    """How this attempt is carried out. What changes bits is as it was in the first attempt; so is the number of chunks
    that a batch is cut into, whatever the number of ranks that compute them. Raises Unshareable where it cannot be."""
    execution: dict[str, Any] = {name: getattr(options, name) for name in ("device", "loaders", "accumulation", *KEPT)}
    attempts = store.attempts(options.run)
    before = attempts[0].owner.get("execution", {}) if attempts else {}
    execution |= {name: before[name] for name in KEPT if name in before}
    if "ranks" in before:
        chunks = before["ranks"] * before["accumulation"]
        if chunks % ranks:
            raise Unshareable(f"its batches are cut into {chunks} chunks, which {ranks} ranks cannot share")
        execution["accumulation"] = chunks // ranks
    return {**execution, "ranks": ranks, "version": __version__}


def _agree(
    store: Store, options: argparse.Namespace, claimed: Attempt | int | None, group: Group | None
) -> Attempt | None:
    """The attempt that all ranks work at, and its execution, as the first rank has claimed it."""
    number = claimed.number if isinstance(claimed, Attempt) else None
    if group is not None:
        number = group.from_first(number)
    if number is None:
        return None
    attempt = store.attempt(options.run, number)
    for name, value in attempt.owner["execution"].items():
        setattr(options, name, value)
    return attempt


def _how(error: OSError) -> str:
    return "storage-full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "crash"


def _class_of(error: Exception) -> str:
    from deit_ablate.errors import TrainError
    from deit_ablate.train.distributed import lost_a_rank

    if isinstance(error, TrainError):
        return "bad-recipe"
    if isinstance(error, OSError):
        return _how(error)
    if lost_a_rank(error):
        return "killed"
    exhausted = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return "out-of-memory" if exhausted or isinstance(error, MemoryError) else "crash"


def _fail(attempt: Attempt, group: Group | None, error: Exception, progress: dict[str, Any]) -> int:
    how = _class_of(error)
    if how != "bad-recipe" or error.__cause__ is not None:  # else the message says it all
        traceback.print_exc()
    message = f"{type(error).__name__}: {error}" if how in ("crash", "killed") else str(error) or how
    print(f"failed ({how}): {message}", flush=True)
    if how == "killed" and group is not None and not group.first:
        return 1  # it is the first rank that has gone, or that says so
    try:
        attempt.close(how, ("lost a rank: " if how == "killed" else "") + message[:2000], **progress)
    except OSError as unsaid:
        # Nothing can be written: the launcher, which sees the exit code, says it for us.
        print(f"and could not write so: {unsaid}", file=sys.stderr, flush=True)
    return 1


def _parents_ready(store: Store, stored: dict[str, Any]) -> bool:
    return all(store.weights(parent["run"]) is not None for parent in stored["parents"].values())


def _train(
    store: Store,
    options: argparse.Namespace,
    attempt: Attempt,
    group: Group | None,
    stop: threading.Event,
    progress: dict[str, Any],
) -> tuple[Outcome, dict[str, Any]]:
    """The outcome, and the facts of the data that it is of."""
    import torch

    from deit_ablate.errors import TrainError
    from deit_ablate.train import loop, teachers
    from deit_ablate.train.distributed import Group, leave
    from deit_ablate.train.registry import source_sha256

    group = group or Group()
    stored = store.recipe(options.run)
    assert stored is not None
    if run_id(stored["recipe"], stored["parents"], stored["sources"]) != options.run:
        raise TrainError(
            "the stored recipe does not give this run's id: it was written by a version that means another training by it"
        )
    for name, sha256 in stored["sources"].items():
        if source_sha256(name) != sha256:
            raise TrainError(f"the source of {name} has changed since this run was planned: it is another run now")
    recipe = _recipe(stored)
    torch.set_num_threads(options.threads)
    device = device_of(options.device)
    data_dir = _data_dir(options)
    parents = {}
    for role, parent in stored["parents"].items():
        weights, above = store.weights(parent["run"]), store.recipe(parent["run"])
        if weights is None or above is None:
            raise TrainError(
                f"the weights of {parent['run']} are gone; `deit-ablate forget {parent['run']}` trains it again"
            )
        parents[role] = loop.Parent(_recipe(above), weights, parent["weights"])
    teacher = group.from_first(teachers.teacher_file(recipe, store) if group.first else None)
    journal = make_journal(store, options.run, recipe, attempt, stop, progress)
    with journal.beating() if group.first else contextlib.nullcontext():
        outcome = loop.train(
            recipe,
            journal=journal,
            data_dir=data_dir,
            device=device,
            loaders=options.loaders,
            parents=parents,
            teacher_weights=teacher,
            group=group,
            accumulation=options.accumulation,
            compile=options.compile,
            channels_last=options.channels_last,
            deterministic=options.deterministic,
        )
    leave()
    trained = outcome.status != "stopped" and "non-finite" not in (outcome.reason or "")
    if trained and journal.resumed_from and not attempt.checkpoint.exists():
        # The attempt before was killed between its last checkpoint and its outcome: its weights are ours.
        os.link(journal.resumed_from, attempt.checkpoint)
    return outcome, journal.facts


def _data_dir(options: argparse.Namespace) -> Path | None:
    """The data set's folder; a copy of it on the local disk where one is asked for."""
    if not options.data_dir:
        return None
    local = options.stage_data or os.environ.get("SLURM_TMPDIR")
    if not local:
        return Path(options.data_dir)
    from deit_ablate.train.data.staging import stage

    return stage(Path(options.data_dir), Path(local))


def _recipe(stored: dict[str, Any]) -> Recipe:
    return Recipe.model_validate_json(json.dumps(stored["recipe"]))


def device_of(wanted: str) -> str:
    import torch

    from deit_ablate.errors import TrainError

    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise TrainError("no CUDA device can be used here; --device cpu trains without")
    if wanted == "mps":
        raise TrainError("Apple's MPS is not supported by this version; --device cpu trains without")
    if wanted == "cuda" and torch.cuda.device_count() > 1:
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"  # the ranks of a node see all its GPUs
    return wanted


def _record(
    store: Store, options: argparse.Namespace, attempt: Attempt, outcome: Outcome, data: dict[str, Any], started: float
) -> None:
    import numpy as np

    from deit_ablate.train.provenance import hardware, provenance

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **outcome.arrays)  # type: ignore[arg-type]
    files.replace(attempt.arrays, buffer.getvalue())
    if reason := store.overtaken(options.run, attempt):
        raise Overtaken(reason)
    earlier = sum(
        max(0.0, (a.exit or {}).get("time", 0) - a.owner.get("time", 0)) for a in store.attempts(options.run)[:-1]
    )
    store.finish(
        options.run,
        attempt,
        {
            "status": outcome.status,
            "reason": outcome.reason,
            "metrics": outcome.metrics,
            "data": {key: value for key, value in data.items() if key != "classes"},
            "weights_sha256": outcome.weights_sha256,
            "arrays_sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
            "cost": {
                **outcome.cost,
                "wall_seconds": time.time() - started,
                "wall_seconds_all_attempts": time.time() - started + earlier,
            },
            "execution": attempt.owner["execution"],
            "provenance": {
                **provenance(),
                "git": checkout(),
                "command": options.command or None,
                "hardware": hardware(outcome.cost.get("device", "cpu")),
            },
            "time": time.time(),
        },
    )
    attempt.close("done", "")
    split = "test" if outcome.metrics.get("test") else "validation"
    print(
        f"{outcome.status}: {split} top-1 {(outcome.metrics.get(split) or {}).get('top1', float('nan')):.2f}",
        flush=True,
    )
