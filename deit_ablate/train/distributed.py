"""One process or many: the ranks that train one run together, and how they share out its batches.

Rank 0 alone talks to the world: it claims, writes and takes signals; all of them train and evaluate.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from deit_ablate import files
from deit_ablate.errors import TrainError

Item = TypeVar("Item")
PATIENCE = datetime.timedelta(hours=2)
"""How long ranks wait for each other: one may still copy the data to its node. A rank that dies is seen at once."""
MEETING = datetime.timedelta(minutes=10)
"""How long ranks wait for all of them to begin: on a cluster, imports over a network take minutes."""


class NotMet(Exception):
    """The ranks of a run have not found one another."""


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

    def once(self, function: Callable[[], Item]) -> Item:
        """What ``function`` returns to rank 0, which alone calls it, on all ranks; what it raises, all raise."""
        if self.ranks == 1:
            return function()
        found: Any = None
        if self.first:
            try:
                found = (True, function())
            except Exception as error:
                found = (False, error)
        good, value = self.from_first(found)
        if not good:
            raise value
        return value

    def dealt(self, items: Sequence[Item]) -> Sequence[Item]:
        """This rank's items, dealt out in turn: maybe one less than another's, maybe none."""
        return items[self.rank :: self.ranks]

    def gathered(self, mine: list[Item]) -> list[Item]:
        """What the ranks have made of the items that were ``dealt`` to them, one of each, in the items' order, on
        every rank."""
        if self.ranks == 1:
            return mine
        found: list[list[Item]] = [[]] * self.ranks
        dist.all_gather_object(found, mine)
        return [found[place % self.ranks][place // self.ranks] for place in range(sum(map(len, found)))]

    def share_buffers(self, *modules: nn.Module) -> None:
        """Give every rank rank 0's buffers: batch norm's statistics are of the images that a rank has seen itself."""
        if self.ranks == 1:
            return
        buffers = [buffer for module in modules for buffer in module.buffers()]
        for mine, theirs in zip(buffers, self.from_first([buffer.cpu() for buffer in buffers]), strict=True):
            mine.copy_(theirs)

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
        return DistributedDataParallel(
            module, device_ids=[device.index or 0] if device.type == "cuda" else None, gradient_as_bucket_view=True
        )

    def accumulating(self, module: nn.Module, more: bool) -> contextlib.AbstractContextManager[Any]:
        """Around a backward pass after which ``more`` follow in the same step: ranks need not meet yet."""
        return module.no_sync() if more and isinstance(module, DistributedDataParallel) else contextlib.nullcontext()


ALONE = Group()


def join() -> Group:
    """Meet the other ranks, as RANK, WORLD_SIZE and MASTER_ADDR say (torch's names). Raises NotMet.

    Rank 0 listens on a port that the system chooses, which nobody else can have, and publishes it in the file that
    DEIT_ABLATE_MEETING names: one that only these ranks know, on a file system that all of them see.
    """
    rank, ranks, file = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), Path(os.environ["DEIT_ABLATE_MEETING"])
    address, first = os.environ["MASTER_ADDR"], rank == 0
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        port = 0 if first else _published(file)
        store = dist.TCPStore(address, port, None, first, MEETING, wait_for_workers=False)
        if first:
            files.replace(file, str(store.port).encode())
        store.set(f"here/{rank}", "")
        store.wait([f"here/{other}" for other in range(ranks)], MEETING)
        dist.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=PATIENCE)
    except dist.DistError as error:
        what = str(error).partition("\n")[0]
        raise NotMet(f"rank {rank} has not met all {ranks} ranks at {address} in {MEETING}: {what}") from error
    finally:
        if first:
            file.unlink(missing_ok=True)
    return Group(rank, ranks)


def _published(file: Path) -> int:
    """The port that rank 0 has written there, once it has."""
    end = time.monotonic() + MEETING.total_seconds()
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError):
            return int(file.read_text())
        time.sleep(0.05)
    raise NotMet(f"rank 0 has not begun in {MEETING}: {file} has not appeared")


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

    group: Group = ALONE
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
