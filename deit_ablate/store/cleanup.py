"""What may be removed: forgotten runs, the trash, checkpoints that nothing needs; and what a run takes on disk."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from deit_ablate import files
from deit_ablate.errors import Damaged
from deit_ablate.store import owner
from deit_ablate.store.attempt import Attempt, Refused
from deit_ablate.store.store import Store

ABANDONED_SECONDS = 24 * 3600.0
"""Age from which what an import has left is taken for cut off: one that is under way adds runs to its folder."""


def proven_over(store: Store, run: str) -> bool:
    """Whether every attempt at a run is certain to have ended.

    A release is what a user says, and proves nothing; it counts only where the owner's file cannot be read.
    """
    outcome = store.result(run)
    return all((outcome and outcome["attempt"] == attempt.number) or _over(attempt) for attempt in store.attempts(run))


def _over(attempt: Attempt) -> bool:
    try:
        how = (attempt.exit or {}).get("class")
    except Damaged:
        how = None
    try:
        return how not in (None, "released") or owner.provably_gone(attempt.owner)
    except Damaged:
        return how is not None


def must_be_over(store: Store, run: str) -> None:
    """Raises Refused while an attempt at a run may be alive."""
    if not proven_over(store, run):
        raise Refused("an attempt at it may still be alive")


def forget(store: Store, run: str) -> None:
    """Move a run to the trash. Raises Refused as ``must_be_over`` does."""
    must_be_over(store, run)
    os.rename(store.run(run), store.trash() / f"{run}-{secrets.token_hex(4)}")


def size(store: Store, run: str) -> tuple[int, int]:
    """(bytes, files) under a run's folder."""
    total = count = 0
    for path in files.below(store.run(run)):
        with contextlib.suppress(OSError):
            total, count = total + path.lstat().st_size, count + 1
    return total, count


def disposable(store: Store, run: str, keep: str) -> Iterator[Path]:
    """Files of a finished run that ``gc`` may remove: by ``keep`` final (its last weights stay), none or all. Of a
    program's, what it has kept for a next attempt, and the output of attempts that did not finish."""
    outcome = store.result(run)
    if not outcome or keep == "all" or not proven_over(store, run):
        return
    final = store.weights(run) if keep == "final" else None
    checkpoints = {path for path in store.checkpoints(run) if path != final}
    for attempt in store.attempts(run):
        checkpoints |= {*files.below(attempt.kept)}
        if attempt.number != outcome["attempt"]:
            checkpoints |= {*files.below(attempt.output)}
    # No link is followed: what it leads to is not the store's.
    for path in files.below(store.run(run)):
        if path in checkpoints or path.name.startswith(files.TEMPORARY):
            yield path


def trash(store: Store) -> list[Path]:
    """The files of forgotten runs, and of imports that were cut off."""
    return [path for folder in (store.root / "trash", *_cut_off(store)) for path in files.below(folder)]


def _cut_off(store: Store) -> Iterator[Path]:
    """Folders in which imports made runs, and to which none has been added for a day."""
    for path in (store.root / "runs").glob(f"{files.TEMPORARY}*"):
        with contextlib.suppress(FileNotFoundError):  # an import has ended
            if time.time() - path.lstat().st_mtime > ABANDONED_SECONDS:
                yield path


def cache(store: Store) -> list[Path]:
    """Files that are made anew when they are needed: a teacher's answers. What else lies there (results of a sweep that
    an earlier version let have this name) is none of them."""
    return [path for path in files.below(store.root / "cache") if path.name.startswith("answers-")]


def empty_trash(store: Store) -> None:
    """Raises Damaged where the trash is a link."""
    for path in (*store.trash().iterdir(), *_cut_off(store)):
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=True)
