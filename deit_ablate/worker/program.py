"""One training by a program: its command is executed (or its function called), and what it reports is recorded.

It imports no torch: a command has its own interpreter.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import importlib.metadata
import json
import os
import platform
import shlex
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
from deit_ablate.execution import SAVED
from deit_ablate.program import ProgramRecipe, arguments, source_sha256
from deit_ablate.recipe import flatten
from deit_ablate.store import Attempt, Overtaken, owner, schema
from deit_ablate.worker.reported import BadMetrics, Line, Reported, predictions

if TYPE_CHECKING:
    import numpy as np

    from deit_ablate.worker.run import Task

LOOK_SECONDS = 0.2
"""Between two looks at what a command has reported."""
BEAT_SECONDS = 30.0
LOG_SECONDS, _ENDED = 10.0, "the command has ended"


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
        self._nonce: str = attempt.owner["nonce"]
        self.overtaken: str | None = None
        self._stopping = False
        self._epoch, self._noted = -1, 0
        """Of the history so far: the last epoch, and the number of this attempt's lines."""
        for name, sha256 in stored["sources"].items():
            if source_sha256(name, Path(self.told.folder)) != sha256:
                raise TrainError(f"the source of {name} has changed since this run was planned: it is another run now")
        self._end_earlier()
        self._before = self._history_before()
        self._make_folders()

    def _end_earlier(self) -> None:
        """Kill what earlier attempts have left running: it would write beside this one. Raises ProgramFailed."""
        for before in self.task.store.attempts(self.task.run)[:-1]:
            if not owner.end_processes(before.owner):
                left = ", ".join(map(str, owner.processes(before.owner["nonce"])))
                raise ProgramFailed("crash", f"processes of attempt {before.number} cannot be killed: {left}")

    def _make_folders(self) -> None:
        """The attempt's own folder for output, and what the attempt before has kept: it moves, so that one attempt
        alone has it, whatever is left of the other's process."""
        files.make_folder(self.attempt.output)
        for before in reversed(self.task.store.attempts(self.task.run)[:-1]):
            if before.kept.is_dir() and not self.attempt.kept.exists():
                os.rename(before.kept, self.attempt.kept)
        files.make_folder(self.attempt.kept)

    def _history_before(self) -> list[dict[str, Any]]:
        """What earlier attempts have reported: of a killed worker's, what stands in its program's file beyond that."""
        history: list[dict[str, Any]] = []
        for before in self.task.store.attempts(self.task.run)[:-1]:
            read = Reported(self.told.metrics, before.output.absolute(), before.log)
            lines = read.whole()
            if lines:
                history = self._goes_on(history, lines)
            else:  # a function's are nowhere else
                with contextlib.suppress(Damaged):
                    history = schema.read_lines(before.metrics, schema.Epoch) or history
        return history

    def _goes_on(self, history: Sequence[dict[str, Any]], lines: Sequence[Line]) -> list[dict[str, Any]]:
        """A history with the lines of the next attempt: where these begin at a later epoch, by the program's own count,
        with the epochs before that one. Epochs never go back."""
        own = _own_epoch(lines[0])
        made = [line for line in history if own is not None and line["epoch"] < own]
        epoch = made[-1]["epoch"] if made else -1
        for number, line in enumerate(lines):
            made.append(self._noted_line(epoch, number, line))
            epoch = made[-1]["epoch"]
        return made

    def _noted_line(self, last: int, number: int, line: Line) -> dict[str, Any]:
        """A line of the history, after one of the epoch ``last``; ``number``: of this attempt's lines, from 0."""
        own, validation = _own_epoch(line), self.told.metrics.validation
        scored = {"validation": {"metric": line[validation]}} if validation in line else {}
        return {"epoch": max(last, number if own is None else own), **scored, "metrics": line}

    # -- its life ------------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        program = self.recipe.program
        with self._beating():
            try:
                if program.function is not None:
                    over = self._call(program.function)
                else:
                    over = self._execute(program.command or [])
            finally:
                owner.end_processes(self.attempt.owner)  # what it has left running
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

    def note(self, lines: Sequence[Line], *, anew: bool = False) -> None:
        """Add what was reported to the run's history, which begins with that of the attempts before where the program
        goes on. ``anew``: the lines begin again, in place of all that was noted of this attempt."""
        if anew:
            files.replace(self.attempt.metrics, b"")
            self._epoch, self._noted = -1, 0
        if not lines:
            return
        if self._noted == 0:
            made = self._goes_on(self._before, lines)
            self._take_values(made[: -len(lines)])
        else:
            made = []
            for number, line in enumerate(lines, start=self._noted):
                made.append(self._noted_line(made[-1]["epoch"] if made else self._epoch, number, line))
        self._epoch, self._noted = made[-1]["epoch"], self._noted + len(lines)
        self.task.progress |= {"epoch": self._epoch}
        files.append_line(self.attempt.metrics, "\n".join(map(json.dumps, made)))

    def _take_values(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Values of an earlier attempt, where this one has none of that name."""
        for line in reversed(history):
            self.reported.final = {**(line.get("metrics") or {}), **self.reported.final}

    def _note_new(self) -> None:
        lines = self.reported.new()
        if lines or self.reported.anew:
            self.note(lines, anew=self.reported.anew)

    def _had_ended(self) -> bool:
        """Take over what the attempt before has reported; False where there is nothing.

        One that is killed between what it last keeps and its end has reported all: the next one goes on from there,
        has nothing left to do, and reports nothing.
        """
        if self.reported.lines or not self._before or not any(files.below(self.attempt.kept)):
            return False
        self._take_values(self._before)
        files.replace(self.attempt.metrics, b"".join(json.dumps(line).encode() + b"\n" for line in self._before))
        return self.told.metrics.primary in self.reported.final

    # -- a command -----------------------------------------------------------------------------------------------------

    def _execute(self, command: list[str]) -> bool:
        """Execute a command until it ends; False where it saved and has more to do. Raises ProgramFailed."""
        given = arguments(command, self._values())
        print(f"$ {shlex.join(given)}", flush=True)
        try:
            process = subprocess.Popen(
                given,
                cwd=self.told.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=functools.partial(_die_with_parent, os.getpid()),
            )
        except OSError as error:
            raise ProgramFailed("bad-recipe", f"{given[0]!r} cannot be started: {error.strerror}") from None
        told: float | None = None
        try:
            # Told to stop, it is over when all of its session is: a shell ends before the training in it.
            while process.poll() is None or (told is not None and self._session_goes_on(process.pid)):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK_SECONDS if self.reported.lines or time.time() - self.begun > 5 else 0.05)
                if process.returncode is not None:
                    time.sleep(0.05)
                self._note_new()
                if told is None and self.stop():
                    told = time.monotonic()
                    _signal(process, signal.SIGTERM)
                elif told is not None and time.monotonic() - told > self.told.grace:
                    break
        finally:
            _signal(process, signal.SIGKILL)  # what it has left running, too
            process.wait()
        if self.task.foreground:
            self._await_log()
        return self._ended(process.returncode, told is not None)

    def _await_log(self) -> None:
        """In the foreground another process writes the log: until it has all that the command has printed."""
        print(_ENDED, flush=True)
        end = time.monotonic() + LOG_SECONDS
        while time.monotonic() < end and _ENDED.encode() not in files.read_tail(self.attempt.log, 200)[0]:
            time.sleep(0.01)

    def _session_goes_on(self, session: int) -> bool:
        for pid in owner.processes(self._nonce):
            with contextlib.suppress(OSError):
                if os.getsid(pid) == session:
                    return True
        return False

    def _ended(self, code: int, told: bool) -> bool:
        """Whether it is done. One that was told to stop is not, though it ends with 0: it may have stopped half way."""
        if code == SAVED or told:
            return False
        if code == 0:
            return True
        number = -code if code < 0 else code - 128  # as a shell says it of what it has started
        if code < 0 or number in (signal.SIGKILL, signal.SIGTERM):
            raise ProgramFailed("killed", f"the command was killed by signal {number} ({_signal_name(number)})")
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
            "OWNER": self._nonce,
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
            self._end_of_metrics()
            primary = self.reported.primary() if self.told.required else 0.0
            arrays = predictions(self.told.metrics, self.attempt.output)
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

    def _end_of_metrics(self) -> None:
        """Note the last lines. Raises BadMetrics."""
        try:
            lines = self.reported.end()
        except BadMetrics:
            if not self._had_ended():
                raise
            return
        self.note(lines, anew=self.reported.anew)
        self._had_ended()


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


def _own_epoch(line: Line) -> int | None:
    """The epoch of a line by the program's own count."""
    own = line.get("epoch")
    return int(own) if own is not None and 0 <= own < 2**53 and float(own).is_integer() else None


def _last_line(log: Path) -> str:
    try:
        end = files.read_tail(log, 4000)[0].decode(errors="replace")
        lines = [line for line in end.splitlines() if line.strip() and line != _ENDED]
    except (OSError, Damaged):
        lines = []
    return f": {lines[-1].strip()[:500]}" if lines else ""


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """To the command and all that it has started (its session)."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent(parent: int) -> None:
    """A worker that is killed must not leave its command running beside the next attempt's: Linux ends it too."""
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it was killed before
            os._exit(1)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "a real-time signal"
