"""Weights files that a sweep names by path: into the store, where a worker on any machine finds them."""

from __future__ import annotations

from collections.abc import Iterable

from deit_ablate.errors import InputError
from deit_ablate.store import Store
from deit_ablate.sweep.plan import Run


def keep_weights(runs: Iterable[Run], store: Store) -> dict[str, str]:
    """Put the weights files that these runs name into the store: {content ("sha256:<hex>"): where it lies}.

    Raises InputError, before anything is written, for one that is neither in the store nor given by its path; and
    where a file has changed since the plan was made.
    """
    runs = list(runs)
    wanted = {run.recipe["distill"]["teacher_weights"]: run for run in runs}
    wanted.pop(None, None)
    found = {sha256: path for run in runs for sha256, path in run.weights.items()}
    for sha256 in wanted:
        if sha256 not in found and store.kept_weights(sha256) is None:
            raise InputError(
                f"no file with the content {sha256} is in {store.root}",
                key="distill.teacher_weights",
                expected="the path of the file",
            )
    kept = {}
    for sha256 in wanted:
        try:
            kept[sha256] = str(
                store.keep_weights(sha256, found[sha256]) if sha256 in found else store.kept_weights(sha256)
            )
        except ValueError as error:
            raise InputError(str(error), key="distill.teacher_weights", expected="a file that stays as it is") from None
    return kept
