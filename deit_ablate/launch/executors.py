"""Executors: what makes the runs of a plan happen. This registry is the one place where they are named.

To add one here: a class and an entry in ``EXECUTORS``. From a package of your own: an entry point of the group
``deit_ablate.executors``. An executor that takes one job at a time is a ``local.JobExecutor`` with a pool of its own
(``pool.Pool``: submit, poll, cancel); one that takes a whole plan, as a scheduler does, has ``Executor``'s methods.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from typing import Protocol

from deit_ablate.errors import InputError, Position, unknown_name
from deit_ablate.launch.jobs import Report, Watcher, Work

EXECUTORS = {
    "local": "deit_ablate.launch.local:LocalExecutor",
    "slurm": "deit_ablate.launch.slurm:SlurmExecutor",
}
"""Name -> module:class, imported when it is used."""
ENTRY_POINTS = "deit_ablate.executors"


class Executor(Protocol):
    interrupted: str
    """What a user is told who interrupts it."""

    def preflight(self) -> None:
        """Raises InputError, before anything is written, for work that would fail for a reason known already."""

    def launch(self, watch: Watcher, *, wait: bool = False) -> Report:
        """Make the runs happen. ``wait``: stay until nothing is left to do, where the executor would return before."""


def known_executors() -> dict[str, str]:
    """Every executor by name: ours, and those that installed packages register."""
    installed = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return {**{entry.name: entry.value for entry in installed}, **EXECUTORS}


def find_executor(name: str, where: Position | None = None) -> str:
    """The module:class of an executor. Raises InputError, at ``where``, for one that there is not."""
    if name in EXECUTORS:  # without a look through all installed packages, which takes a moment at every start
        return EXECUTORS[name]
    known = known_executors()
    if name not in known:
        raise unknown_name("no executor", name, list(known), where=where, key="execution.executor")
    return known[name]


def executor_for(work: Work) -> Executor | None:
    """The executor of the work; None where nothing is left to be done. Raises InputError where it is unknown, cannot be
    imported, or refuses the work (no cluster answers)."""
    if not work.unfinished() and (work.source is None or work.source.over):
        return None
    name = work.execution.executor
    module, _, attribute = find_executor(name).partition(":")
    try:
        factory: Callable[[Work], Executor] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"the executor {name!r} cannot be imported: {error}", key="execution.executor") from None
    return factory(work)
