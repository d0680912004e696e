"""Whole runs, as a launcher has them trained: forked from a warm process, by the worker's own ``main``.

    python benchmarks/speed/runs.py RESULTS SWEEP.yaml SEEDS [VARIANT ...]    trains, and prints a line of JSON a run

It works with the package that ``PYTHONPATH`` gives, so that another version can be measured by the same program.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from deit_ablate.recipe import Data
from deit_ablate.store import Store
from deit_ablate.sweep.load import load_sweep
from deit_ablate.sweep.plan import make_plan
from deit_ablate.train import loop, provenance  # noqa: F401  (a warm process has imported them)
from deit_ablate.train.data import sets
from deit_ablate.worker import journal
from deit_ablate.worker.__main__ import main


@dataclass(frozen=True)
class Spent:
    """CPU seconds of one run's process, from its fork to its end, and of which parts; its test top-1 in percent."""

    name: str
    total: float
    load: float
    steps: float
    validation: float
    checkpoints: float
    end: float
    top1: float

    @property
    def share(self) -> float:
        """Of the run, what is not its steps."""
        return 1 - self.steps / self.total

    @property
    def fixed(self) -> float:
        """What a run takes however short it is."""
        return self.load + self.end


class Timed(journal.FileJournal):
    """The worker's journal, which also says what each part of the run takes."""

    parts: dict[str, float]
    clock = 0.0

    def _took(self, part: str) -> None:
        self.parts[part] += (now := time.process_time()) - Timed.clock
        Timed.clock = now

    def data(self, facts: dict[str, Any]) -> None:
        super().data(facts)
        self._took("load")

    def progress(self, epoch: int, step: int, steps: int, loss: float) -> None:
        super().progress(epoch, step, steps, loss)
        self._took("steps")

    def epoch(self, line: dict[str, Any]) -> None:
        super().epoch(line)
        self._took("validation")

    def checkpoint(self, state: dict[str, Any]) -> None:
        super().checkpoint(state)
        self._took("checkpoints")


def child(argv: list[str], file: Path) -> int:
    """The worker's exit code, after a run whose parts are written to ``file``."""
    Timed.clock = time.process_time()
    Timed.parts = dict.fromkeys(("load", "steps", "validation", "checkpoints", "end"), 0.0)
    journal.FileJournal = Timed  # type: ignore[misc]
    code = main(argv)
    Timed.parts["end"] += time.process_time() - Timed.clock
    file.write_text(json.dumps(Timed.parts))
    return code


def train_all(results: Path, sweep: Path, variants: Sequence[str] = (), seeds: int | None = None) -> Iterator[Spent]:
    """The sweep's missing runs (of these variants, with their parents), one after the other, each in a process."""
    store, plan = Store(results), make_plan(load_sweep(sweep, seeds=seeds))
    named = {
        cell.run: f"{cell.variant}:{cell.seed}:{cell.stage}"
        for cell in plan.cells
        if (cell.variant in variants or not variants) and (seeds is None or cell.seed < seeds)
    }
    wanted = set(named)
    for run in reversed(plan.runs.values()):
        wanted |= {parent["run"] for parent in run.parents.values()} if run.id in wanted else set()
    for run in plan.runs.values():
        if run.id in wanted and not (store.run(run.id) / "outcome.json").exists():
            yield _trained(store, run, named.get(run.id, "parent"))


def _trained(store: Store, run: Any, name: str) -> Spent:
    store.register(run.id, run.recipe, run.parents, run.sources)
    if hasattr(sets, "hold"):
        sets.hold(Data.model_validate_json(json.dumps(run.recipe["data"])), None)
    file = store.root / "spent.json"
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(child(["run", str(store.root), run.id], file))
        finally:
            os._exit(1)
    _, status, used = os.wait4(pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{run.id} failed: see {store.root}")
    outcome = json.loads((store.run(run.id) / "outcome.json").read_text())
    parts = json.loads(file.read_text())
    return Spent(name, used.ru_utime + used.ru_stime, top1=outcome["metrics"]["test"]["top1"], **parts)


if __name__ == "__main__":
    torch.set_num_threads(1)
    provenance.provenance()
    for spent in train_all(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[4:], int(sys.argv[3])):
        print(json.dumps(asdict(spent)), flush=True)
