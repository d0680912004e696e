"""The losses of the current epoch, summed; read only now and then where reading would make a GPU wait."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from deit_ablate.train.distributed import Group

READ_EVERY = 16
"""Steps between two readings on a GPU; on a CPU each step is read."""
EXPLODED = 1e6
"""A loss from which on a training is given up, as if it were no number: no recipe that learns comes near it."""


class Losses:
    """Adds up each step's parts, averaged over the chunks of its batch and over the ranks."""

    def __init__(self, device: torch.device, group: Group) -> None:
        self.group, self.every = group, 1 if device.type == "cpu" else READ_EVERY
        self.waiting: list[tuple[int, Tensor]] = []
        self.names: tuple[str, ...] = ()
        self.last = math.nan
        """The total of the last step that was read."""

    def add(self, step: int, chunks: Sequence[Mapping[str, Tensor]]) -> None:
        """One step's losses: a mapping of name to scalar for each chunk."""
        self.names = tuple(chunks[0])
        table = [torch.stack([parts[name].detach() for name in self.names]).double() for parts in chunks]
        self.waiting.append((step, table[0] if len(table) == 1 else torch.stack(table).mean(0)))

    def due(self, last: bool) -> bool:
        """Whether to read now; ``last``: this was the epoch's last step."""
        return last or len(self.waiting) >= self.every

    def read(self, sums: dict[str, float]) -> tuple[dict[str, float], str]:
        """The epoch's sums with the steps that waited; and how the training diverged in one of them, or ""."""
        if not self.waiting:
            return sums, ""
        rows = self.group.mean(torch.stack([losses for _, losses in self.waiting])).tolist()
        steps, self.waiting = [step for step, _ in self.waiting], []
        for step, row in zip(steps, rows, strict=True):
            named = dict(zip(self.names, row, strict=True))
            if not abs(named["total"]) < EXPLODED:
                exploding = math.isfinite(named["total"])
                return sums, f"{'exploding' if exploding else 'non-finite'} loss at step {step + 1}"
            sums = {name: sums.get(name, 0.0) + value for name, value in named.items()}
            self.last = named["total"]
        return sums, ""
