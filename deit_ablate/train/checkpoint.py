"""Checkpoint files: written whole, verified when read, one good file at any instant."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import torch

from deit_ablate.errors import TrainError
from deit_ablate.files import sync_folder, temporary_beside


class CheckpointError(TrainError):
    """The file is not a whole checkpoint."""


class Newest(NamedTuple):
    """The state with the highest step among those that verify, its file, and why the others were skipped."""

    state: dict[str, Any] | None
    path: Path | None
    skipped: list[str]


class _Writer:
    """A file for torch.save, which reports a full disk as RuntimeError: this one remembers the OSError."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def save(path: Path, state: dict[str, Any]) -> None:
    """Replace ``path`` by this state; the state before stays beside it as ``<stem>.prev``.

    A temporary file in the same folder, synced, then renamed, so that a reader (or the next attempt) finds a whole
    file whenever this process or machine dies. Raises OSError (a full disk, say) with the old files untouched.
    """
    with temporary_beside(path) as temporary:
        with open(temporary, "wb") as file:
            writer = _Writer(file)
            try:
                torch.save(state, cast(IO[bytes], writer))
            except RuntimeError as error:
                raise writer.error or error from None
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            _keep(path)
        os.replace(temporary, path)
    sync_folder(path.parent)


def _keep(path: Path) -> None:
    """Give the file a second name, ``.prev``, without a moment in which neither name exists."""
    with temporary_beside(path) as link:
        os.link(path, link)
        os.replace(link, path.with_suffix(".prev"))


def load(path: Path) -> dict[str, Any]:
    """The state in a checkpoint, on the CPU. Runs no code from the file (``weights_only``).

    Raises CheckpointError where the file is cut short or damaged (every member's checksum is compared).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(f"{path} is damaged (in {damaged})")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (CheckpointError, OSError, MemoryError):
        raise
    except Exception as error:  # BadZipFile, RuntimeError, UnpicklingError (code was asked for), ...
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} is not a whole checkpoint: {reason}") from error
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise CheckpointError(f"{path} is not a checkpoint of this trainer")
    return state


def newest(paths: Iterable[Path]) -> Newest:
    """The furthest of these checkpoints; files that do not exist are passed over, damaged ones are named."""
    best: dict[str, Any] | None = None
    best_path: Path | None = None
    skipped: list[str] = []
    for path in paths:
        if not path.exists():
            continue
        try:
            state = load(path)
        except CheckpointError as error:
            skipped.append(str(error))
            continue
        if best is None or state["step"] > best["step"]:
            best, best_path = state, path
    return Newest(best, best_path, skipped)
