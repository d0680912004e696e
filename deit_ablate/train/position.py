"""Where a training stands, as a checkpoint and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from deit_ablate.errors import TrainError
from deit_ablate.train.data.sets import Splits
from deit_ablate.train.ema import Ema


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


def to_state(
    at: Position, data: Splits, model: nn.Module, ema: Ema | None, optimizer: Optimizer, scaler: GradScaler
) -> dict[str, Any]:
    """A checkpoint's content: plain values and (live) tensors, so that it loads with ``weights_only``."""
    return {
        "step": at.step,
        "history": at.history,
        "sums": at.sums,
        "seconds": at.seconds,
        "train_seconds": at.train_seconds,
        "data": data.dataset.fingerprint,
        "model": model.state_dict(),
        "ema": ema.model.state_dict() if ema else None,
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
    }


def restore(
    state: dict[str, Any], data: Splits, model: nn.Module, ema: Ema | None, optimizer: Optimizer, scaler: GradScaler
) -> Position:
    """Put a checkpoint's content back. Raises TrainError where it is of other data or of another model."""
    if state["data"] != data.dataset.fingerprint:
        raise TrainError("the data are not those that the checkpoint was trained on (their fingerprints differ)")
    try:
        model.load_state_dict(state["model"])
        if ema:
            ema.model.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        if state.get("scaler"):
            scaler.load_state_dict(state["scaler"])
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise TrainError(f"the checkpoint does not fit this recipe: {error}") from error
    return Position(state["step"], list(state["history"]), dict(state["sums"]), state["seconds"])
