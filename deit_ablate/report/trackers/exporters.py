"""Experiment trackers: this registry is the one place where they are named.

To add one: a file here with a class that has ``Exporter``'s methods and imports its library when it is made, an
entry in ``EXPORTERS``, and an extra of the same name in pyproject.toml.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from deit_ablate import files
from deit_ablate.errors import InputError, Position, unknown_name
from deit_ablate.execution import hosts_only
from deit_ablate.report.trackers.runs import Point, TrackedRun
from deit_ablate.store import State


class Entry(NamedTuple):
    library: str
    """The module to be imported."""
    exporter: str
    """The class in the file of the tracker's name."""


EXPORTERS = {
    "tensorboard": Entry("tensorboard", "TensorBoard"),
    "wandb": Entry("wandb", "Wandb"),
    "mlflow": Entry("mlflow", "Mlflow"),
    "trackio": Entry("trackio", "Trackio"),
}


@dataclass(frozen=True)
class Destination:
    """Where a sweep's runs go. What is None is what the library's environment variables say, else a folder of the
    sweep."""

    sweep: str
    default: Path
    """results/<sweep>/<tracker>."""
    folder: Path | None = None
    uri: str | None = None
    project: str | None = None
    offline: bool = False

    def make(self, variable: str = "") -> Path:
        """The folder to write to; ``variable`` of the environment may name it. Raises OSError where nobody may."""
        named = os.environ.get(variable) if variable else None
        folder = files.make_folder(self.folder or Path(named or self.default))
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return folder


class Exporter(Protocol):
    """A tracker. Errors of its library may leave it as they are (``Sending`` turns them into one message)."""

    options: frozenset[str]
    """Which of folder, uri, project and offline it takes."""

    def __init__(self, to: Destination) -> None: ...

    def begin(self, run: TrackedRun) -> int:
        """Open a run, anew or where it was left; returns the last step that is there already, -1 for none."""

    def log(self, run: TrackedRun, points: Sequence[Point]) -> None:
        """Send epochs, all of them after what is there."""

    def end(self, run: TrackedRun, state: State, scores: Point) -> None:
        """Say how a run stands, or has ended; no more is sent of it until it is opened again."""

    def close(self) -> str:
        """Send what is not yet sent; returns where it all is, in words."""


def must_be_known(tracker: str, where: Position | None = None, key: str = "") -> Entry:
    """The tracker's entry. Raises InputError, at ``where``, for one that there is not."""
    if tracker not in EXPORTERS:
        raise unknown_name("no tracker", tracker, list(EXPORTERS), where=where, key=key)
    return EXPORTERS[tracker]


def must_be_installed(tracker: str, key: str = "") -> None:
    """Raises InputError where the tracker's library is not installed, naming the extra."""
    library = must_be_known(tracker, key=key).library
    if importlib.util.find_spec(library) is None:
        problem = f"{tracker} needs the package {library}, which is not installed"
        raise InputError(problem, key=key, expected=f"`pip install 'deit-ablate[{tracker}]'`")


def exporter_class(tracker: str) -> type[Exporter]:
    """The tracker's class, which imports its library. Raises InputError where that is not installed."""
    must_be_installed(tracker)
    found: type[Exporter] = getattr(importlib.import_module(f"{__package__}.{tracker}"), EXPORTERS[tracker].exporter)
    return found


class Sending:
    """Runs on their way to one tracker: each is opened once, and each of its epochs is sent once."""

    def __init__(self, tracker: str, to: Destination) -> None:
        """Raises InputError or OSError, as all methods do: the tracker is not installed, or does not answer."""
        self.tracker, made = tracker, exporter_class(tracker)
        with self._one_message():
            self.exporter = made(to)
        self.last: dict[str, int] = {}
        """The last step that was sent, of runs that are open."""

    def send(self, run: TrackedRun, points: Sequence[Point]) -> None:
        with self._one_message():
            if run.id not in self.last:
                self.last[run.id] = self.exporter.begin(run)
            if new := [point for point in points if point.step > self.last[run.id]]:
                self.exporter.log(run, new)
                self.last[run.id] = new[-1].step

    def end(self, run: TrackedRun, state: State, scores: Point) -> None:
        with self._one_message():
            self.exporter.end(run, state, scores)
            del self.last[run.id]

    def close(self) -> str:
        with self._one_message():
            return self.exporter.close()

    @contextlib.contextmanager
    def _one_message(self) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # whatever the library raises
            if isinstance(error, OSError) and error.filename:
                raise
            first = next(iter(str(error).strip().splitlines()), "")
            raise InputError(f"{self.tracker} fails, {type(error).__name__}: {hosts_only(first)[:300]}") from error
