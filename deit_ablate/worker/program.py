"""One training by a program: its command is executed (or its function called), and what it reports is recorded.

It imports no torch: a command has its own interpreter.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deit_ablate import __version__, files
from deit_ablate.errors import Damaged, TrainError
from deit_ablate.execution import SAVED
from deit_ablate.program import ProgramRecipe, arguments, must_be_planned
from deit_ablate.recipe import flatten
from deit_ablate.store import Attempt, Overtaken, owner, schema
from deit_ablate.worker.heartbeat import beating
from deit_ablate.worker.process import CommandProcess
from deit_ablate.worker.reported import (
    COMMAND_SHOWN,
    BadMetrics,
    Line,
    NoFile,
    Reported,
    before_epoch,
    first_epoch,
    own_epoch,
    predictions,
)

if TYPE_CHECKING:
    import numpy as np

    from deit_ablate.worker.run import Task

LOOK_SECONDS = 0.2
"""Between two looks at what a command has reported."""
SIGNAL_SECONDS = 1.0
"""Between the signal that ends a command and our own, where both are told to stop."""
MOST_HISTORY = 1 << 25
"""Bytes of an attempt's history; what is reported beyond them counts for the last values alone."""
PACKAGES = ("torch", "torchvision", "timm", "numpy")


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
    packages: dict[str, str] = field(default_factory=dict)
    """Of a function those that it may have used; of a command none, for its interpreter is its own."""
    weights_sha256: str | None = None


class Training:
    """One attempt at a run of a program."""

    def __init__(self, task: Task, attempt: Attempt, stored: Mapping[str, Any]) -> None:
        if task.execution.program is None:
            problem = (
                "nobody has said where this program is: run its sweep, or what `plan SWEEP --commands shell` prints"
            )
            raise TrainError(problem)
        self.task, self.attempt, self.told = task, attempt, task.execution.program
        self.recipe = ProgramRecipe.of_record(stored["recipe"])
        self.parents = {role: task.store.weights(parent["run"]) for role, parent in stored["parents"].items()}
        self.reported = Reported(self.told.metrics, attempt.output.absolute(), attempt.log)
        self.overtaken: str | None = None
        self._stopping, self._device = False, _device(task.execution.device)
        self._end_earlier()
        self._seconds_before = 0.0
        """Of attempts whose training this one goes on with."""
        self._before = self._history_before()
        self._looked, self._kept_due = 0.0, 0.0
        self._begin_history()
        must_be_planned(stored["sources"], Path(self.told.folder))
        self._make_folders()

    def _end_earlier(self) -> None:
        """Kill what earlier attempts have left running, in whatever session. Raises ProgramFailed."""
        for before in self.task.store.attempts(self.task.run)[:-1]:
            if not owner.end_processes(before.owner):
                raise ProgramFailed("crash", f"processes of attempt {before.number} are left, and cannot be killed")

    def _make_folders(self) -> None:
        """The attempt's own folder for output, and what the attempt before has kept: it moves, so that one attempt
        alone has it, whatever is left of the other's process."""
        files.make_folder(self.attempt.output)
        for before in reversed(self.task.store.attempts(self.task.run)[:-1]):
            if before.kept.is_dir() and not self.attempt.kept.exists():
                os.rename(before.kept, self.attempt.kept)
        files.make_folder(self.attempt.kept)
        self._kept_before = self._kept()

    def _kept(self) -> dict[Path, tuple[int, int, int]]:
        found = {}
        for path in files.below(self.attempt.kept):
            with contextlib.suppress(FileNotFoundError):
                facts = path.lstat()
                found[path] = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
        return found

    def _history_before(self) -> list[dict[str, Any]]:
        """What the attempts before have reported, as far as it can be read: as a command has written it, for its worker
        may have been killed before it had read all; else as the worker noted it."""
        history: list[dict[str, Any]] = []
        for attempt in self.task.store.attempts(self.task.run)[:-1]:
            if written := Reported(self.told.metrics, attempt.output.absolute(), attempt.log).new():
                if self._says_where(written, history):
                    kept = before_epoch(history, first_epoch(written))
                    history = kept + [self._history_line(*each, kept) for each in enumerate(written)]
                continue
            with contextlib.suppress(Damaged):
                history = schema.read_lines(attempt.metrics, schema.Epoch) or history
        return history

    def _says_where(self, lines: Sequence[Line], history: Sequence[Mapping[str, Any]]) -> bool:
        """Whether these lines tell at which epoch a history is gone on with. A program that has said epochs before, and
        says none yet (in a header), is about to."""
        return first_epoch(lines) is not None or first_epoch(line.get("metrics") or {} for line in history) is None

    def _history_line(self, number: int, line: Line, kept: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A line as the history has it, after what is ``kept``: at the epoch that is going on, or at its number."""
        own, validation = own_epoch(line), self.told.metrics.validation
        scored = {"validation": {"metric": line[validation]}} if validation in line else {}
        epoch = max([number, *(before["epoch"] for before in kept[-1:])]) if own is None else ceil(own)
        return {"epoch": epoch, **scored, "metrics": line}

    # -- its life ------------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        program = self.recipe.program
        with beating(self._beat):
            if program.function is not None:
                over = self._call(program.function)
            else:
                try:
                    over = self._execute(program.command or [])
                finally:
                    owner.end_processes(self.attempt.owner)  # daemons, too
        self.note_kept()
        if not over:
            return Outcome("stopped", "asked to stop, or with more to do")
        return self._outcome()

    def stop(self) -> bool:
        """Whether it is to save and stop: a signal has come, or the run was cancelled or paused. Raises Overtaken where
        it is another attempt's by now."""
        if self.overtaken in ("cancelled", "paused"):
            self._stopping = True
        elif self.overtaken:
            raise Overtaken(self.overtaken)
        return self._stopping or self.task.stop.is_set()

    def _beat(self) -> None:
        self.attempt.beat(**self.task.reached)
        self.overtaken = self.task.store.overtaken(self.task.run, self.attempt)
        self.note_kept()

    def note_kept(self) -> None:
        """Remember that this attempt has kept something, which is progress though it be interrupted."""
        if not self.attempt.saved.exists() and self._kept().items() - self._kept_before.items():
            files.replace(self.attempt.saved, b"")

    def _begin_history(self) -> None:
        self._kept_history: list[dict[str, Any]] | None = None
        """What was reported before and still holds; None until this attempt says at which epoch it goes on."""
        self._waiting: list[tuple[int, Line]] = []
        self._history_bytes = 0

    def note(self, lines: Sequence[Line]) -> None:
        """Add what was reported to the run's history. Where the program goes on at a later epoch, by its own count, its
        history begins with the epochs before that one, as an attempt before has them; until it says which one, it is
        not known what its lines follow, and they wait."""
        made: list[str] = []
        anew, self.reported.anew = self.reported.anew, False
        if anew:
            self._begin_history()
        self._waiting += enumerate(lines, start=self.reported.lines - len(lines))
        if lines and self._kept_history is None and self._says_where(lines, self._before):
            made += self._join(before_epoch(self._before, first_epoch(lines)))
        if self._kept_history is not None:
            made += self._waited(self._kept_history)
        made = [line for line in made if self._has_room(line)]
        if anew:
            files.replace(self.attempt.metrics, "".join(f"{line}\n" for line in made).encode())
        elif made:
            files.append_line(self.attempt.metrics, "\n".join(made))

    def _join(self, kept: list[dict[str, Any]]) -> list[str]:
        """Take over what holds of the earlier history; returns its lines."""
        for line in kept:
            self.reported.before |= line.get("metrics") or {}
        if kept:
            self._count_earlier()
        self._kept_history = kept
        return [json.dumps(line) for line in kept]

    def _waited(self, kept: Sequence[Mapping[str, Any]]) -> list[str]:
        """The lines that waited, for what is ``kept`` before them."""
        lines, self._waiting = [self._history_line(*each, kept) for each in self._waiting], []
        for line in lines[-1:]:
            self.task.progress |= {"epoch": line["epoch"]}
        return [json.dumps(line) for line in lines]

    def _count_earlier(self) -> None:
        self._seconds_before = sum(before.seconds for before in self.task.store.attempts(self.task.run)[:-1])

    def _has_room(self, line: str) -> bool:
        full = self._history_bytes > MOST_HISTORY
        self._history_bytes += len(line) + 1
        if not full and self._history_bytes > MOST_HISTORY:
            print("it has reported very much: from here on its last values count alone, not its history", flush=True)
        return self._history_bytes <= MOST_HISTORY

    # -- a command -----------------------------------------------------------------------------------------------------

    def _execute(self, command: list[str]) -> bool:
        """Execute a command until it ends; False where it saved and has more to do. Raises ProgramFailed."""
        given = arguments(command, {**dict(flatten(self.recipe.parameters)), **self._places()})
        print(f"{COMMAND_SHOWN}{shlex.join(given)}", flush=True)
        if not Path(self.told.folder).is_dir():
            raise ProgramFailed("bad-recipe", f"its folder {self.told.folder} is not there")
        try:
            process = CommandProcess(given, self.told.folder, self.environment())
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise ProgramFailed("bad-recipe", f"{given[0]!r} cannot be started: {why}") from None
        begun = time.monotonic()
        try:
            # Often at first: a command that is over at once is not waited for.
            while not process.over(0.05 if time.monotonic() - begun < 5 else LOOK_SECONDS, self.told.grace):
                if time.monotonic() - self._looked > LOOK_SECONDS:
                    self._looked = time.monotonic()
                    self.note(self.reported.new())
                if time.monotonic() > self._kept_due:
                    walk = time.monotonic()
                    self.note_kept()
                    self._kept_due = time.monotonic() + max(LOOK_SECONDS, 20 * (time.monotonic() - walk))
                if self.stop():
                    process.ask_to_stop()
        finally:
            code = process.close()
        if code in (-signal.SIGTERM, 128 + signal.SIGTERM):
            # A scheduler signals all processes of a job at once: the command may have ended before we know of ours.
            self.task.stop.wait(SIGNAL_SECONDS)
        return self._ended(code, process.told or self.task.stop.is_set())

    def _ended(self, code: int, told: bool) -> bool:
        """Whether all is done. One that was asked to stop is gone on with, whatever it ends with: many a script saves
        and ends with 0 then, far from its end."""
        ended = f"the command has ended with exit code {code}"
        print(ended, flush=True)
        said = _last_line(self.attempt.log, ended)
        self.note(self.reported.new())
        if told or code == SAVED:
            return False
        if code == 0:
            return True
        if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
            raise ProgramFailed("killed", "the command was killed (SIGKILL), as where memory is exhausted")
        if code == 128 + signal.SIGTERM:  # as a shell says it of what it has started
            code = -signal.SIGTERM
        if code < 0:
            raise ProgramFailed("killed", f"the command was killed by signal {-code} ({signal.Signals(-code).name})")
        exhausted = "OutOfMemoryError" in said or "CUDA out of memory" in said
        raise ProgramFailed("out-of-memory" if exhausted else "crash", f"{ended}{said}")

    def _places(self) -> dict[str, Any]:
        """What placeholders stand for beside the parameters."""
        data = self.task.execution.data_dir
        roles = {"parent": self.parents.get("from"), "teacher": self.parents.get("teacher")}
        return {
            "data": data and str(Path(data).absolute()),  # a command runs in its sweep's folder
            "seed": self.recipe.seed,
            "run": str(self.attempt.output.absolute()),
            "checkpoint": str(self.attempt.kept.absolute()),
            **{role: str(path.absolute()) if path else None for role, path in roles.items()},
        }

    def environment(self) -> dict[str, str]:
        """What a program is told beside its arguments."""
        named = {"run": "RUN_DIR", "checkpoint": "CHECKPOINT_DIR"}
        values = {named.get(place, place.upper()): value for place, value in self._places().items()}
        values |= {"ATTEMPT": self.attempt.number, "OWNER": self.attempt.owner.get("nonce")}
        told = {f"DEIT_ABLATE_{name}": str(value) for name, value in values.items() if value is not None}
        threads = str(self.task.execution.threads)
        return {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": threads, **told}

    # -- a function ----------------------------------------------------------------------------------------------------

    def _call(self, name: str) -> bool:
        """Call a function until it returns; False where it was asked to stop and has."""
        from deit_ablate.worker.trainer import ProgramRun

        module, _, attribute = name.partition(":")
        function: Callable[[dict[str, Any], ProgramRun], Any] = getattr(importlib.import_module(module), attribute)
        os.environ.update(self.environment())
        if "torch" in sys.modules:  # by the fork server, before it could know how many threads this run has
            sys.modules["torch"].set_num_threads(self.task.execution.threads)
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
            kept=self.note_kept,
        )
        try:
            function(dict(self.recipe.parameters), run)
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
            if code not in (0, SAVED):
                raise ProgramFailed("crash", f"the function has called sys.exit({leaving.code!r})") from None
            return code == 0 and not run.told_to_stop
        self._device = run.used_device or self._device
        return not run.told_to_stop

    # -- its end -------------------------------------------------------------------------------------------------------

    def _outcome(self) -> Outcome:
        told, arrays = self.told.metrics, {}
        try:
            self._note_end()
            primary = self.reported.primary()
            arrays = predictions(told, self.attempt.output.absolute())
        except BadMetrics as error:
            if self.told.required:
                raise ProgramFailed("bad-metrics", str(error)) from None
            primary = self.reported.last.get(told.primary, 0.0)
        last = self.reported.last
        metrics: dict[str, Any] = {"test": None, "validation": None, "train_loss": None, "program": last}
        if told.validation is not None and last.get(told.validation) is not None:
            metrics["validation"] = {"metric": last[told.validation]}
        seconds = self._seconds_before + time.monotonic() - self.task.begun
        cost = {"train_seconds": seconds, "device": self._device, "loaders": None}
        packages = _packages() if self.recipe.program.function is not None else {}
        if primary is None:
            return Outcome("diverged", f"{told.primary} is not finite at the end", metrics, {}, cost, packages)
        return Outcome("done", None, metrics, arrays, cost, packages)

    def _note_end(self) -> None:
        """The last lines. An attempt that has ended well without reporting anything has found all done: what was
        reported before is the run's, and what was written."""
        with contextlib.suppress(NoFile):
            self.note(self.reported.end())
        if self._kept_history is not None:
            return
        if self._before or self.told.required:  # a stage that need not report anything may have begun anew
            self._take_output()
        if self._before:
            before = [*self._join(self._before), *self._waited(self._before)]
            files.append_line(self.attempt.metrics, "\n".join(before))
        else:  # a file that is read at the end alone may have been taken
            self.note(self.reported.end())

    def _take_output(self) -> None:
        """Move here what the attempts before have written, the newest of each, for theirs was the training: a later
        stage is given this attempt's folder alone, and `gc` removes theirs."""
        for before in reversed(self.task.store.attempts(self.task.run)[:-1]):
            for path in [*files.below(before.output)]:
                target = self.attempt.output / path.relative_to(before.output)
                if not os.path.lexists(target):
                    files.make_folder(target.parent)
                    os.rename(path, target)
        self._count_earlier()


def train(task: Task, attempt: Attempt, stored: Mapping[str, Any]) -> Outcome:
    """Train a run of a program. Raises TrainError, ProgramFailed, and whatever a function raises."""
    if task.execution.ranks > 1:
        raise TrainError(
            "ranks: a program starts its own (as `torchrun --nproc-per-node 2 train.py`); leave ranks at 1"
        )
    files.replace(attempt.metrics, b"")
    return Training(task, attempt, stored).run()


def made_with(packages: Mapping[str, str]) -> dict[str, Any]:
    """Versions and hardware, as far as they are known without torch."""
    machine = {"host": platform.node(), "cpu": platform.processor() or None, "cores": os.cpu_count(), "gpu": None}
    python = platform.python_version()
    return {"version": __version__, "python": python, "packages": dict(packages), "hardware": machine}


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _device(wanted: str) -> str:
    """What a program that is asked to use ``wanted`` finds here."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = seen not in ("", "-1") if seen is not None else Path("/proc/driver/nvidia/gpus").is_dir()
    return "cuda" if wanted != "cpu" and there else "cpu"


def _last_line(log: Path, ended: str) -> str:
    """The last line of what a command has printed, before what we have printed since. It is another process that writes
    a log in the foreground, so it may be a moment until all of it is there."""
    for _ in range(200):
        try:
            before, found, _after = files.read_tail(log, 1 << 16)[0].decode(errors="replace").rpartition(ended)
        except (OSError, Damaged):
            return ""
        if found:
            lines = [line.rpartition("\r")[2].strip() for line in before.replace("\r\n", "\n").splitlines()]
            lines = [line for line in lines if re.search(r"\w", line) and not line.startswith(COMMAND_SHOWN)]
            return f": {lines[-1][:500]}" if lines else ""
        time.sleep(0.05)
    return ""
