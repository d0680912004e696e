"""One training by a program: its command is executed (or its function called), and what it reports is recorded.

It imports no torch: a command has its own interpreter.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.metadata
import io
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deit_ablate import __version__, files
from deit_ablate.errors import Damaged, TrainError
from deit_ablate.execution import SAVED, ProgramExecution
from deit_ablate.program import ProgramRecipe, arguments, source_sha256
from deit_ablate.recipe import flatten
from deit_ablate.store import Attempt, Overtaken, schema
from deit_ablate.worker.reported import BadMetrics, Line, Reported

if TYPE_CHECKING:
    import numpy as np

    from deit_ablate.worker.run import Task

LOOK_SECONDS = 0.2
"""Between two looks at what a command has reported."""
BEAT_SECONDS = 30.0


class ProgramFailed(Exception):
    """A program ended badly: the class of failure, and why in words."""

    def __init__(self, how: str, message: str) -> None:
        self.how = how
        super().__init__(message)


@dataclass(frozen=True)
class Outcome:
    """How a training by a program ended (the same as ``train.outcome.Outcome`` of ours, as far as it is known)."""

    status: Literal["done", "diverged", "stopped"]
    reason: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str | None = None


class Training:
    """One attempt at a run of a program."""

    def __init__(self, task: Task, attempt: Attempt, stored: Mapping[str, Any]) -> None:
        if task.execution.program is None:
            raise TrainError("nobody has said where this program runs: run its sweep, or `deit-ablate train` its name")
        self.task, self.attempt, self.told = task, attempt, task.execution.program
        self.recipe = ProgramRecipe.of_record(stored["recipe"])
        self.parents = {role: task.store.weights(parent["run"]) for role, parent in stored["parents"].items()}
        self.reported = Reported(self.told.metrics, attempt.output.absolute(), attempt.log)
        self.begun = time.time()
        self.overtaken: str | None = None
        self._stopping = False
        self._before = self._history_before()
        for name, sha256 in stored["sources"].items():
            if source_sha256(name, Path(self.told.folder)) != sha256:
                raise TrainError(f"the source of {name} has changed since this run was planned: it is another run now")
        self._make_folders()

    def _make_folders(self) -> None:
        """The attempt's own folder for output, and what the attempt before has kept: it moves, so that one attempt
        alone has it, whatever is left of the other's process."""
        files.make_folder(self.attempt.output)
        for before in reversed(self.task.store.attempts(self.task.run)[:-1]):
            if before.kept.is_dir() and not self.attempt.kept.exists():
                os.rename(before.kept, self.attempt.kept)
        files.make_folder(self.attempt.kept)

    def _history_before(self) -> list[dict[str, Any]]:
        """What the attempt before has reported, as far as it can be read."""
        attempts = self.task.store.attempts(self.task.run)[:-1]
        try:
            return schema.read_lines(attempts[-1].metrics, schema.Epoch) if attempts else []
        except Damaged:
            return []

    # -- its life ------------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        program = self.recipe.program
        with self._beating():
            if program.function is not None:
                over = self._call(program.function)
            else:
                over = self._execute(program.command or [])
        self.note_kept()
        if not over:
            return Outcome("stopped", "asked to stop")
        return self._outcome()

    def stop(self) -> bool:
        """Whether it is to save and stop: a signal has come, or the run was cancelled or paused. Raises Overtaken where
        it is another attempt's by now."""
        if self.overtaken in ("cancelled", "paused"):
            self._stopping = True
        elif self.overtaken:
            raise Overtaken(self.overtaken)
        return self._stopping or self.task.stop.is_set()

    @contextlib.contextmanager
    def _beating(self) -> Iterator[None]:
        ended = threading.Event()

        def beat() -> None:
            while True:
                with contextlib.suppress(OSError):
                    self.attempt.beat(**self.task.reached)
                    self.overtaken = self.task.store.overtaken(self.task.run, self.attempt)
                    self.note_kept()
                if ended.wait(BEAT_SECONDS):
                    return

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def note_kept(self) -> None:
        """Remember that this attempt has kept something, which is progress though it be interrupted."""
        if not self.attempt.saved.exists():
            kept = (path.lstat().st_mtime for path in files.below(self.attempt.kept))
            if any(modified >= self.begun - 1 for modified in kept):
                files.replace(self.attempt.saved, b"")

    def note(self, lines: Sequence[Line]) -> None:
        """Add what was reported to the run's history. Where the program goes on at a later epoch, by its own count, its
        history begins with the epochs before that one, as the attempt before has them."""
        made: list[str] = []
        if lines and self._before:
            own = lines[0].get("epoch")
            kept = [line for line in self._before if own is not None and line["epoch"] < own]
            made += map(json.dumps, kept)
            for line in reversed(kept):
                self.reported.final = {**(line.get("metrics") or {}), **self.reported.final}
            self._before = []
        first = self.reported.lines - len(lines)
        for number, line in enumerate(lines, start=first):
            own = line.get("epoch")
            epoch = int(own) if own is not None and own >= 0 and float(own).is_integer() else number
            validation = self.told.metrics.validation
            scored = {"validation": {"metric": line[validation]}} if validation in line else {}
            made.append(json.dumps({"epoch": epoch, **scored, "metrics": line}))
            self.task.progress |= {"epoch": epoch}
        if made:
            files.append_line(self.attempt.metrics, "\n".join(made))

    # -- a command -----------------------------------------------------------------------------------------------------

    def _execute(self, command: list[str]) -> bool:
        """Execute a command until it ends; False where it saved and has more to do. Raises ProgramFailed."""
        given = arguments(command, self._values())
        print(f"$ {' '.join(given)}", flush=True)
        try:
            process = subprocess.Popen(
                given,
                cwd=self.told.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        except OSError as error:
            raise ProgramFailed("bad-recipe", f"{given[0]!r} cannot be started: {error.strerror}") from None
        told: float | None = None
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK_SECONDS if self.reported.lines or time.time() - self.begun > 5 else 0.05)
                self.note(self.reported.new())
                if told is None and self.stop():
                    told = time.monotonic()
                    _signal(process, signal.SIGTERM)
                elif told is not None and time.monotonic() - told > self.told.grace:
                    _signal(process, signal.SIGKILL)
        finally:
            _signal(process, signal.SIGKILL)  # what it has left running, too
            process.wait()
        return self._ended(process.returncode, told is not None)

    def _ended(self, code: int, told: bool) -> bool:
        if code == 0:
            return True
        if code == SAVED or told:
            return False
        if code < 0:
            raise ProgramFailed("killed", f"the command was killed by signal {-code} ({signal.Signals(-code).name})")
        raise ProgramFailed("crash", f"the command ended with exit code {code}{_last_line(self.attempt.log)}")

    def _values(self) -> dict[str, Any]:
        """What placeholders stand for."""
        places: dict[str, Any] = {
            "data": self.task.execution.data_dir,
            "seed": self.recipe.seed,
            "run": str(self.attempt.output.absolute()),
            "checkpoint": str(self.attempt.kept.absolute()),
            "parent": self._parent("from"),
            "teacher": self._parent("teacher"),
        }
        return {**dict(flatten(self.recipe.parameters)), **places}

    def _parent(self, role: str) -> str | None:
        path = self.parents.get(role)
        return str(path.absolute()) if path else None

    def environment(self) -> dict[str, str]:
        """What a program is told beside its arguments."""
        values = {
            "RUN_DIR": str(self.attempt.output.absolute()),
            "CHECKPOINT_DIR": str(self.attempt.kept.absolute()),
            "SEED": str(self.recipe.seed),
            "ATTEMPT": str(self.attempt.number),
            "DATA": self.task.execution.data_dir,
            "PARENT": self._parent("from"),
            "TEACHER": self._parent("teacher"),
        }
        told = {f"DEIT_ABLATE_{name}": value for name, value in values.items() if value is not None}
        threads = str(self.task.execution.threads)
        return {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": threads, **told}

    # -- a function ----------------------------------------------------------------------------------------------------

    def _call(self, name: str) -> bool:
        """Call a function until it returns; False where it was asked to stop and has."""
        from deit_ablate.worker.trainer import ProgramRun

        module, _, attribute = name.partition(":")
        function: Callable[[dict[str, Any], ProgramRun], Any] = getattr(importlib.import_module(module), attribute)
        os.environ.update(self.environment())
        run = ProgramRun(
            seed=self.recipe.seed,
            folder=self.attempt.output.absolute(),
            checkpoint=self.attempt.kept.absolute(),
            data=Path(data) if (data := self.task.execution.data_dir) else None,
            parent=self.parents.get("from"),
            teacher=self.parents.get("teacher"),
            wanted_device=self.task.execution.device,
            note=lambda values: self.note([self.reported.add(values)]),
            stop=self.stop,
        )
        function(dict(self.recipe.parameters), run)
        return not run.told_to_stop

    # -- its end -------------------------------------------------------------------------------------------------------

    def _outcome(self) -> Outcome:
        try:
            self.note(self.reported.end())
            primary = self.reported.primary() if self.told.required else 0.0
            arrays = _predictions(self.told, self.attempt.output)
        except BadMetrics as error:
            raise ProgramFailed("bad-metrics", str(error)) from None
        seconds = time.monotonic() - self.task.begun
        metrics = {"test": None, "validation": None, "train_loss": None, "program": self.reported.final}
        validation = self.told.metrics.validation
        if validation is not None and self.reported.final.get(validation) is not None:
            metrics["validation"] = {"metric": self.reported.final[validation]}
        cost = {"train_seconds": seconds, "device": _device(self.task.execution.device), "loaders": None}
        if primary is None:
            return Outcome("diverged", f"{self.told.metrics.primary} is not finite at the end", metrics, {}, cost)
        return Outcome("done", None, metrics, arrays, cost)


def train(task: Task, attempt: Attempt, stored: Mapping[str, Any]) -> Outcome:
    """Train a run of a program. Raises TrainError, ProgramFailed, and whatever a function raises."""
    if task.execution.ranks > 1:
        raise TrainError(
            "ranks: a program starts its own (as `torchrun --nproc-per-node 2 train.py`); leave ranks at 1"
        )
    files.replace(attempt.metrics, b"")
    return Training(task, attempt, stored).run()


def provenance() -> dict[str, Any]:
    """The versions with which the worker runs; those of a command's interpreter are its own."""
    return {
        "version": __version__,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in ("numpy",)},
    }


def hardware() -> dict[str, Any]:
    return {"host": platform.node(), "cpu": platform.processor() or None, "cores": os.cpu_count(), "gpu": None}


def _device(wanted: str) -> str:
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return "cuda" if wanted != "cpu" and seen not in ("", "-1") else "cpu"


def _predictions(told: ProgramExecution, output: Path) -> dict[str, Any]:
    """Classes by test image, where the program keeps them. Raises BadMetrics where they are not as they should be."""
    if told.metrics.predictions is None:
        return {}
    import numpy as np

    path = Path(told.metrics.predictions.replace("{run}", str(output)))
    try:
        with np.load(path, allow_pickle=False) as content:
            found = {name: content[name] for name in ("targets", "predictions", "confidence") if name in content}
    except (OSError, ValueError, io.UnsupportedOperation) as error:
        raise BadMetrics(f"{told.metrics.predictions} cannot be read: {error}") from None
    missing = {"targets", "predictions"} - found.keys()
    if missing:
        raise BadMetrics(f"{told.metrics.predictions} has no {' and no '.join(sorted(missing))}")
    sizes = {array.shape for array in found.values()}
    whole = all(found[name].dtype.kind in "iu" for name in ("targets", "predictions"))
    if len(sizes) > 1 or found["targets"].ndim != 1 or not whole:
        raise BadMetrics(f"{told.metrics.predictions}: targets and predictions are not classes (N,) of the same images")
    kept = {"test_targets": found["targets"], "test_pred_class": found["predictions"]}
    if "confidence" in found:
        kept["test_confidence_class"] = found["confidence"].astype(np.float16)
    return kept


def _last_line(log: Path) -> str:
    try:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    return f": {lines[-1].strip()[:500]}" if lines else ""


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """To the command and all that it has started (its session)."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """A worker that is killed must not leave its command running beside the next attempt's: Linux ends it too."""
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
