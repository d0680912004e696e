"""Runs by a program, as tests of the worker make them: scripts in a folder, a store with their recipes, the worker."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deit_ablate.execution import Execution, MetricsFile, ProgramExecution
from deit_ablate.identity import canonical, run_id
from deit_ablate.program import ProgramRecipe, source_sha256
from deit_ablate.store import Attempt, Store
from deit_ablate.sweep.fork_server import ForkServer

EPOCHS = '''
"""Ten epochs of nothing, which go on where the last attempt saved: one line of metrics an epoch."""
import json, os, signal, sys, time

kept = os.path.join(os.environ["DEIT_ABLATE_CHECKPOINT_DIR"], "state.json")
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
state = json.load(open(kept)) if os.path.exists(kept) else {"epoch": 0, "total": 0.0}
with open(os.path.join(os.environ["DEIT_ABLATE_RUN_DIR"], "log.jsonl"), "a") as log:
    while state["epoch"] < 10:
        time.sleep(float(sys.argv[1]))
        epoch = state["epoch"]
        state = {"epoch": epoch + 1, "total": state["total"] + (epoch + int(sys.argv[2])) ** 0.5}
        log.write(json.dumps({"epoch": epoch, "total": state["total"]}) + "\\n")
        log.flush()
        json.dump(state, open(kept + "~", "w"))
        os.replace(kept + "~", kept)
        if asked:
            sys.exit(75)
'''
"""As a user writes one: arguments are the seconds of an epoch and the seed."""


class Workers:
    """Workers, as the pool of a launcher forks them."""

    def __init__(self, *, commands: bool = True) -> None:
        self._server, self._numbers = ForkServer(1, commands=commands), itertools.count()
        self.pids: dict[int, int] = {}
        self.codes: dict[int, int] = {}

    def start(self, arguments: Sequence[str]) -> Worker:
        number = next(self._numbers)
        told = {"token": [number, 0], "argv": [*arguments], "environment": environment()}
        self._server.send(told)
        while number not in self.pids:
            self.listen()
        return Worker(self, number)

    def listen(self) -> None:
        for message in self._server.messages(0.05):
            known: dict[int, int] = self.pids if "pid" in message else self.codes
            known[message["token"][0]] = message.get("pid", message.get("code"))

    def close(self) -> None:
        self._server.close()


@dataclass(frozen=True)
class Worker:
    """One that was started."""

    workers: Workers
    number: int

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.workers.pids[self.number], number)

    def poll(self) -> int | None:
        self.workers.listen()
        return self.workers.codes.get(self.number)

    def wait(self, seconds: float = 60) -> int:
        """Its exit code, or minus the signal that has killed it. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > end:
                raise TimeoutError
        return self.workers.codes[self.number]


@dataclass(frozen=True)
class Programs:
    """A folder with scripts, and a store of runs by them."""

    folder: Path
    store: Store
    workers: Workers

    def script(self, content: str, name: str = "train.py") -> None:
        (self.folder / name).write_text(content)

    def registered(
        self,
        command: Sequence[str] | None = None,
        *,
        function: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        parents: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> str:
        """The run of a command (by default that of this Python's ``train.py``), or of a function, in the store."""
        program = {"function": function} if function else {"command": list(command or ("python", "train.py"))}
        values = {"program": program, "parameters": dict(parameters or {}), "data": dict(data or {}), "seed": seed}
        recipe = canonical(ProgramRecipe.of_record(values))
        names = [function.partition(":")[0]] if function else [f"./{path.name}" for path in self.folder.glob("*.py")]
        sources = {name: source_sha256(name, self.folder) for name in names}
        run = run_id(recipe, dict(parents or {}), sources)
        self.store.register(run, recipe, dict(parents or {}), sources)
        return run

    def command(self, run: str, *more: str, **told: Any) -> list[str]:
        """The worker's, for a run. ``told``: of ProgramExecution, of MetricsFile, or of Execution."""
        of_program = {key: told.pop(key) for key in ("required", "grace") if key in told}
        of_metrics = {key: told.pop(key) for key in MetricsFile.model_fields if key in told}
        metrics = MetricsFile(**{"file": "{run}/log.jsonl", "primary": "total", **of_metrics})
        program = ProgramExecution(folder=str(self.folder), metrics=metrics, **of_program)
        execution = Execution.model_validate_json(
            Execution(**told).model_copy(update={"program": program}).model_dump_json()
        )
        worker = [sys.executable, "-m", "deit_ablate.worker", "run", str(self.store.root), run]
        return [*worker, "--execution", execution.to_json(), *more]

    def start(self, run: str, *more: str, **told: Any) -> Worker:
        return self.workers.start(self.command(run, *more, **told)[3:])

    def train(self, run: str, *more: str, **told: Any) -> int:
        """Execute the run once; the worker's exit code."""
        return self.start(run, *more, **told).wait()

    def last(self, run: str) -> Attempt:
        return self.store.attempts(run)[-1]

    def ended(self, run: str) -> tuple[str, str]:
        """How the last attempt ended: its class and its message."""
        end = self.last(run).exit
        assert end is not None, self.last(run).log.read_text()
        return end["class"], end["message"]

    def outcome(self, run: str) -> dict[str, Any]:
        found = self.store.outcome(run)
        assert found is not None, self.ended(run)
        return found


def environment() -> dict[str, str]:
    """With this Python as ``python``, whatever the machine calls by that name."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path}
