"""Checkpoints: how far a training has come, in files written whole and verified when read, one good at any instant."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from deit_ablate.errors import DataError, TrainError
from deit_ablate.files import sync_folder, temporary_beside
from deit_ablate.train.data.sets import Splits
from deit_ablate.train.optim import Ema


@dataclass
class Position:
    """The part of a checkpoint that is neither weights nor optimizer. The learning rate and all random draws follow
    from the step, so there is no scheduler's and no generator's state in it."""

    step: int = 0
    """Steps done since the beginning."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """The finished epochs' lines; their number is the current epoch."""
    sums: dict[str, float] = field(default_factory=dict)
    """The current epoch's losses, summed over its steps."""
    seconds: float = 0.0
    """Spent in the current epoch's steps, in this and earlier attempts."""

    @property
    def train_seconds(self) -> float:
        """Spent in steps since the beginning, over all attempts."""
        return float(sum(line["seconds"] for line in self.history)) + self.seconds


@dataclass(frozen=True)
class Training:
    """What a checkpoint is of, beside the position, and of which data."""

    data: Splits
    model: nn.Module
    ema: Ema | None
    optimizer: Optimizer
    scaler: GradScaler

    def state(self, at: Position) -> dict[str, Any]:
        """A checkpoint's content: plain values and (live) tensors, so that it loads with ``weights_only``."""
        return {
            **vars(at),
            "train_seconds": at.train_seconds,
            "data": self.data.dataset.fingerprint,
            "model": self.model.state_dict(),
            "ema": self.ema.model.state_dict() if self.ema else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> Position:
        """Put a checkpoint's content back. Raises TrainError where it is of other data or of another model."""
        if not self.data.dataset.has(state["data"]):
            raise DataError(
                "the data are not those that the checkpoint was trained on (their fingerprints differ): restore them, "
                "or start anew with `deit-ablate retry`"
            )
        try:
            self.model.load_state_dict(state["model"])
            if self.ema:
                self.ema.model.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
            if state.get("scaler"):
                self.scaler.load_state_dict(state["scaler"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise TrainError(f"the checkpoint does not fit this recipe: {error}") from error
        return Position(state["step"], list(state["history"]), dict(state["sums"]), state["seconds"])


# -- files ----------------------------------------------------------------------------------------------------------


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
    best = Newest(None, None, [])
    for path in filter(Path.exists, paths):
        try:
            state = load(path)
        except CheckpointError as error:
            best.skipped.append(str(error))
            continue
        if best.state is None or state["step"] > best.state["step"]:
            best = Newest(state, path, best.skipped)
    return best
