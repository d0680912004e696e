"""How a command's runs are carried out: here, or on a cluster. To add a way, a class and a line in ``LAUNCHERS``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from deit_ablate.cli import cluster, console
from deit_ablate.cli.options import folder_of, must_have
from deit_ablate.errors import InputError
from deit_ablate.execution import Execution, worker_command
from deit_ablate.launch.executors import EXECUTORS
from deit_ablate.launch.jobs import worker_arguments
from deit_ablate.launch.local import Launch, Report
from deit_ablate.launch.slurm import Submitter
from deit_ablate.store import State, Store
from deit_ablate.sweep.plan import Run
from deit_ablate.sweep.yaml import Node

if TYPE_CHECKING:
    from deit_ablate.search.search import Search


@dataclass(frozen=True)
class Work:
    """What a command wants done."""

    store: Store
    sweep: str | None
    """None for runs that belong to none."""
    runs: Mapping[str, Run]
    labels: Mapping[str, str]
    states: Mapping[str, State]
    """As they are before anything is started."""
    how: Execution
    command: str
    retry: frozenset[str] = frozenset()
    written: Mapping[str, Node] = field(default_factory=dict)
    """By run: where its recipe's values are written."""
    search: Search | None = None
    """What asks for further runs, and adds them to ``runs`` and ``labels``."""

    def unfinished(self) -> list[Run]:
        return [run for run in self.runs.values() if not self.states[run.id].at_rest]

    def to_come(self) -> list[Run]:
        """What is left to be done; for trials that a search has yet to ask for, runs like them."""
        return [*self.unfinished(), *(self.search.examples() if self.search else [])]


class Launcher(Protocol):
    left: str
    """What is said to a user who interrupts it."""

    def must_accept(self) -> None:
        """Raises InputError, before anything is written, for work that would fail for a reason known already."""

    def launch(self, *, wait: bool, out: Any) -> Report: ...


class Local:
    """On this machine, by an executor that starts one job at a time."""

    left = "interrupted; what ran was saved, and the same command goes on from there"

    def __init__(self, work: Work):
        self.work, how = work, work.how
        self.executor = EXECUTORS["local"](
            parallel=how.parallel, threads=how.threads, device=how.device, ranks=how.ranks
        )

    def must_accept(self) -> None:
        must_have(self.work.how, self.work.to_come())
        try:
            rehearse(self.work, self.executor.ask)
        except BaseException:
            self.executor.close()
            raise

    def launch(self, *, wait: bool, out: Any) -> Report:
        work = self.work
        asked_to_stop: list[int] = []

        def on_signal(number: int, _frame: Any) -> None:
            if asked_to_stop:  # the second time: leave at once; the runs are saving by themselves
                self.executor.abandon()
                os._exit(130)
            asked_to_stop.append(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, on_signal)
        watch = console.Watch(work.store, work.labels, work.runs, stream=out)

        def arguments(retrying: bool) -> tuple[str, ...]:
            named = ("--sweep", work.sweep) if work.sweep else ()
            return (*worker_arguments(work.how, retrying), *named, "--command", work.command)

        try:
            launch = Launch(
                work.runs,
                work.store,
                self.executor,
                arguments=arguments,
                retry=work.retry,
                ranks=work.how.ranks,
                sweep=work.sweep,
                more=work.search,
            )
            return launch.run(watch, lambda: bool(asked_to_stop))
        finally:
            watch.close()
            self.executor.close()


class Slurm:
    """As jobs of a SLURM cluster, which takes a plan at once."""

    left = "left; what was submitted goes on, and the same command looks at it again"

    def __init__(self, work: Work):
        self.work = work
        self.submitter = Submitter(work.runs, work.store, work.sweep, work.how, command=work.command, retry=work.retry)

    def must_accept(self) -> None:
        self.submitter.must_be_acceptable()
        # Data and devices are the compute nodes'; what cannot be seen from here is left to them, and a sweep whose
        # first runs all die of one cause is held.
        if _seen_from_here(self.work):
            rehearse(self.work, _worker)

    def launch(self, *, wait: bool, out: Any) -> Report:
        print(cluster.cost(self.work.store, self.work.to_come(), self.work.how), file=out)
        return cluster.submit(self.submitter, self.work.labels, wait=wait, out=out, more=self.work.search)


LAUNCHERS: dict[str, Callable[[Work], Launcher]] = {"local": Local, "slurm": Slurm}


def launcher_for(work: Work) -> Launcher | None:
    """None where nothing is left to be done. Raises InputError where no cluster answers."""
    left = work.unfinished() or (work.search is not None and not work.search.over)
    return LAUNCHERS[work.how.executor](work) if left else None


def rehearse(work: Work, ask: Callable[..., int]) -> None:
    """Let a worker try out what the runs need (their data, options, teachers) without training.

    ``ask`` carries out a worker command. Raises InputError, at the line of the recipe, for what would fail.
    """
    runs = list({run.id: run for run in work.to_come()}.values())
    sources = {sha256: path for run in runs for sha256, path in run.weights.items()}
    question = {
        "results": str(work.store.root.resolve()),
        "data_dir": work.how.data_dir,
        "ranks": work.how.ranks,
        "accumulation": work.how.accumulation,
        "runs": [
            {
                "run": run.id,
                "recipe": run.recipe,
                "begun": run.id in work.states and work.states[run.id].attempt > 0,
                "teacher": _path(run.recipe["distill"]["teacher_weights"], sources, work.store),
            }
            for run in runs
        ],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "question.json"
        path.write_text(json.dumps(question))
        ask("rehearse", str(path))
        answer = path.with_suffix(".answer")
        refusal = json.loads(answer.read_text()) if answer.exists() else None
    if refusal is not None:
        written = work.written.get(refusal["run"])
        of_recipe = not refusal["key"].startswith("execution.")
        where = written.locate(refusal["key"].split(".")) if written is not None and of_recipe else None
        name = work.labels.get(refusal["run"], refusal["run"])
        raise InputError(f"{refusal['error']} ({name})", where=where, key=refusal["key"])


def _path(sha256: str | None, sources: Mapping[str, Path], store: Store) -> str | None:
    path = (sources.get(sha256) or store.kept_weights(sha256)) if sha256 else None
    return str(path) if path else None


def _worker(*argv: str) -> int:
    return subprocess.run(worker_command(*argv), stdout=sys.stderr).returncode


def _seen_from_here(work: Work) -> bool:
    """Whether a login node can tell more than that a shipped data set is there, which is not worth its time."""
    runs = work.to_come()
    folders = [folder_of(run.recipe["data"]["name"], work.how) for run in runs]
    named = any(run.recipe["distill"]["teacher"] for run in runs)
    there = all(folder is None or folder.is_dir() for folder in folders)
    return there and (named or any(folder is not None for folder in folders))
