"""Runs of a program, executed by a worker as a launcher starts it: what tests of the worker share."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deit_ablate.execution import Execution, MetricsFile, ProgramExecution
from deit_ablate.identity import canonical, run_id
from deit_ablate.program import Program, ProgramRecipe, source_files
from deit_ablate.store import Store


@dataclass
class Lab:
    """A store with one run of a script, and how the worker is told to execute it."""

    folder: Path
    command: list[str] = field(default_factory=lambda: [sys.executable, "train.py", "{run}", "{seed}"])
    metrics: dict[str, Any] = field(default_factory=lambda: {"file": "{run}/m.jsonl", "primary": "top1"})
    grace: int = 5
    shared: Path | None = None
    """The folder of the data."""

    @property
    def store(self) -> Store:
        return Store(self.folder / "results")

    def register(self, script: str) -> str:
        (self.folder / "train.py").write_text(script)
        recipe = canonical(ProgramRecipe(program=Program(command=self.command), seed=1))
        sources = source_files(["train.py"], self.folder)
        run = run_id(recipe, {}, sources)
        self.store.register(run, recipe, {}, sources)
        return run

    def start(self, run: str) -> subprocess.Popen[str]:
        told = ProgramExecution(
            folder=str(self.folder),
            metrics=MetricsFile(**self.metrics),
            grace=self.grace,
        )
        data_dir = str(self.shared) if self.shared else None
        execution = Execution().model_copy(update={"program": told, "data_dir": data_dir}).to_json()
        command = [sys.executable, "-m", "deit_ablate.worker", "run", str(self.store.root), run]
        return subprocess.Popen(
            [*command, "--execution", execution],
            env={**os.environ, "PYTHONPATH": str(self.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, script: str, code: int = 0) -> str:
        run = self.register(script)
        worker = self.start(run)
        printed, _ = worker.communicate(timeout=120)
        assert worker.returncode == code, printed
        return run

    def ended(self, run: str) -> tuple[str, str]:
        """How the last attempt ended: class and message."""
        told = self.store.attempts(run)[-1].exit or {}
        return told["class"], told["message"]


def until(holds: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            if holds():
                return
        except (OSError, IndexError):
            pass
        assert time.monotonic() < end, "not within a minute"
        time.sleep(0.02)
