"""One process or many: the ranks that train one run together, and how they share out its batches.

Rank 0 alone talks to the world: it claims, writes, evaluates and takes signals; the others compute.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from deit_ablate.errors import TrainError

Item = TypeVar("Item")
PATIENCE = datetime.timedelta(hours=2)
"""How long ranks wait for each other: rank 0 evaluates alone. A rank that dies is seen at once."""


@dataclass(frozen=True)
class Group:
    """The ranks of one run, seen from one of them; by itself, a run of one process."""

    rank: int = 0
    ranks: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def from_first(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self.ranks == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the ranks, as a tensor on the CPU."""
        values = values.cpu()
        if self.ranks > 1:
            dist.all_reduce(values)
            values /= self.ranks
        return values

    def wrap(self, module: nn.Module, device: torch.device) -> nn.Module:
        """The module, its gradients averaged over the ranks in the backward pass."""
        if self.ranks == 1:
            return module
        return DistributedDataParallel(module, device_ids=[device.index or 0] if device.type == "cuda" else None)

    def accumulating(self, module: nn.Module, more: bool) -> contextlib.AbstractContextManager[Any]:
        """Around a backward pass after which ``more`` follow in the same step: ranks need not meet yet."""
        return module.no_sync() if more and isinstance(module, DistributedDataParallel) else contextlib.nullcontext()


def join() -> Group:
    """Meet the other ranks, as RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say (torch's names)."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    return Group(dist.get_rank(), dist.get_world_size())


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def lost_a_rank(error: BaseException) -> bool:
    """Whether this error says that another rank has gone (gloo has no type of its own for it)."""
    return dist.is_initialized() and (
        isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())
    )


@dataclass(frozen=True)
class Share:
    """A batch is cut into ``ranks x parts`` chunks of equal size; a rank computes ``parts`` of them in turn.

    Where mixup or CutMix is on, a chunk is a slice of the batch's first half together with the images that timm
    pairs it with (the i-th with the i-th from the end), so that each image is mixed with the same one, and by the
    same draw, however many chunks there are. The number of chunks is fixed for a run's life, not how many ranks
    compute them.
    """

    group: Group = Group()
    parts: int = 1

    @property
    def chunks(self) -> int:
        return self.group.ranks * self.parts

    def check(self, batch_size: int, paired: bool) -> None:
        """Raises TrainError where a batch cannot be cut into equal chunks."""
        if batch_size % (self.chunks * (2 if paired and self.chunks > 1 else 1)):
            unit = f"{self.chunks} chunks of whole pairs" if paired else f"{self.chunks} equal chunks"
            raise TrainError(
                f"a batch of {batch_size} cannot be cut into {unit} ({self.group.ranks} ranks x {self.parts} parts): "
                "choose other numbers of execution.ranks and accumulation"
            )

    def of(self, batch: Sequence[Item]) -> list[Item]:
        """This rank's items of a batch: its chunks, one after the other."""
        if self.chunks == 1:
            return list(batch)
        half = len(batch) // (2 * self.chunks)
        if len(batch) % (2 * self.chunks):
            size = len(batch) // self.chunks
            return [item for chunk in self._mine() for item in batch[chunk * size : (chunk + 1) * size]]
        places = []
        for chunk in self._mine():
            front = range(chunk * half, (chunk + 1) * half)
            places += [*front, *(len(batch) - 1 - place for place in reversed(front))]
        return [batch[place] for place in places]

    def _mine(self) -> range:
        return range(self.group.rank * self.parts, (self.group.rank + 1) * self.parts)

    def position(self, step: int, part: int) -> tuple[int, ...]:
        """Where the model draws at random: by step, and by chunk where there are several."""
        return (step,) if self.chunks == 1 else (step, self.group.rank * self.parts + part)
