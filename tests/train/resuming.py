"""A process of its own that goes on from checkpoint files: ``python resuming.py FILE:LOADERS ...`` prints JSON."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from tiny import tiny

from deit_ablate.train import checkpoint
from deit_ablate.train.loop import Journal, Outcome, train


class FromFile(Journal):
    """Goes on from a checkpoint file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def resume(self) -> dict[str, Any] | None:
        return checkpoint.load(self.path)


def timeless(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in line.items() if key not in ("seconds", "images_per_second")} for line in lines
    ]


def essence(outcome: Outcome, history: list[dict[str, Any]]) -> dict[str, Any]:
    """All of an outcome that is not a time, as plain values."""
    arrays = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in outcome.arrays.items()}
    weights = {"last": outcome.weights_sha256}
    return {
        "status": outcome.status,
        "metrics": outcome.metrics,
        "arrays": arrays,
        "weights": weights,
        "history": timeless(history),
    }


def ema_sha256(state: dict[str, Any]) -> str:
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for _, tensor in sorted(state["ema"].items()))).hexdigest()


def main() -> None:
    torch.set_num_threads(1)
    results = []
    for argument in sys.argv[1:]:
        name, _, loaders = argument.rpartition(":")
        journal = FromFile(Path(name))
        outcome = train(tiny(), journal=journal, loaders=int(loaders))
        assert journal.state is not None
        result = essence(outcome, journal.state["history"])
        result["weights"]["ema"] = ema_sha256(journal.state)
        results.append(result)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
