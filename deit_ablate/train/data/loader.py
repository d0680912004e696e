"""Which image comes when, and the loaders that fetch them: training order and evaluation batches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from deit_ablate.recipe import Recipe
from deit_ablate.train.augment import Augmenter, Normalise, evaluation, to_pixels
from deit_ablate.train.data.images import Array, ArrayImages, Encoded, Images, Undecodable, tell_skipped
from deit_ablate.train.data.read import Read, check_decoder, mean_sizes
from deit_ablate.train.data.sets import Dataset, Splits
from deit_ablate.train.distributed import ALONE, Group, Share
from deit_ablate.train.pixels import sent
from deit_ablate.train.precision import memory_of_gpu
from deit_ablate.train.streams import generator, stream

Views = npt.NDArray[np.int64]
"""(B, 3), each (epoch, index of the image, repeat): what a training image is a function of, beside the seed."""
Batch = tuple[Tensor, Tensor]
"""Images (B, C, H, W) float32 and classes (B,) int64."""
CPU = torch.device("cpu")
EVALUATION_BATCH = 128
"""Fixed, because the size of a batch can change the last bit of a logit."""
BLOCK_PIXELS = 2**19
"""Pictures in memory are augmented by blocks of batches with about so many pixels: an operation on a few pictures takes
hardly less time than on many, while these still fit a processor's cache."""
BLOCK_OF_GPU, BYTES_OF_PIXEL = 16, 128
"""On a GPU, where a block is hundreds of launches whatever its size, it may take this part of the memory; so much of it
is taken for each pixel."""
BLOCK_BYTES = 2**26
"""Of files in a block: loaders hold dozens of them in shared memory."""
PART_OF_GPU = 8
"""Pictures in memory that take at most this part of a GPU's lie there from the start, instead of being sent."""
MOST_LOADERS = 16


def epoch_order(indices: Array, seed: int, epoch: int, repeats: int = 1) -> tuple[Array, Array]:
    """(image, repeat) for each of an epoch's N samples: a permutation of the N images, each ``repeats`` times in a
    row, cut off after N (repeated augmentation; Hoffer et al., 2020). One process does what 'consecutive ranks
    get the repeats of one image' does in the reference code: the repeats of an image are in one global batch (or,
    where its border cuts them apart, in two neighbouring ones)."""
    drawn = generator(stream(seed, "order", epoch)).permutation(indices)
    count = len(indices)
    return np.repeat(drawn, repeats)[:count], np.tile(np.arange(repeats), count)[:count]


def epoch_views(indices: Array, seed: int, epoch: int, repeats: int, batch_size: int) -> list[Views]:
    """An epoch's batches, whole ones only."""
    images, numbers = epoch_order(indices, seed, epoch, repeats)
    views = np.stack([np.full(len(images), epoch), images, numbers], axis=1)
    return [views[start : start + batch_size] for start in range(0, len(images) - batch_size + 1, batch_size)]


def training_batches(
    recipe: Recipe,
    data: Splits,
    start: int,
    loaders: int,
    device: torch.device = CPU,
    share: Share | None = None,
    fused: bool = False,
) -> Iterator[Batch]:
    """The batches of steps ``start``, start + 1, ... to the end of the training, whatever fetches them, on ``device``;
    of each, the chunks that are this rank's, one after the other.

    ``loaders`` processes work ahead, also across epochs; with 0 the caller's own does. To a GPU pixels are sent, a
    quarter of the bytes of images, or files, and what can be done there is done there, a block ahead of the training,
    ``fused`` where that is wanted.
    """
    steps, share, images = steps_per_epoch(recipe, data), share or Share(), data.dataset.train
    mine = share.of(range(recipe.schedule.batch_size))
    may_stand_in = data.train if recipe.data.corrupt == "skip" else None
    source = TrainingImages(images, Augmenter(recipe, data.dataset, fused), may_stand_in, device.type)
    if source.augment.decodes:
        check_decoder(device)
    together = max(1, views_of_block(recipe, source, device) // len(mine))

    def blocks() -> Iterator[Views]:
        for epoch in range(start // steps, recipe.schedule.epochs):
            views = epoch_views(data.train, recipe.seed, epoch, recipe.augment.repeats, recipe.schedule.batch_size)
            for first in range(max(0, start - epoch * steps), len(views), together):
                yield np.concatenate([batch[mine] for batch in views[first : first + together]])

    def fetched() -> Iterator[Batch]:
        if isinstance(images, ArrayImages) and source.may_lie_on(device):
            given = _lying_on(device, images, blocks())
        else:
            given = _loader(source, blocks(), loaders, pin=device.type == "cuda")
        for pixels, views, targets in given:
            yield source.finished(pixels, views, targets, device)

    for block in ahead(fetched(), device):
        yield from zip(*(part.split(len(mine)) for part in block), strict=True)


def views_of_block(recipe: Recipe, source: TrainingImages, device: torch.device) -> int:
    """Views that are augmented together; 0 where each batch is by itself."""
    gpu, images, pixels = device.type == "cuda", source.images, recipe.data.resolution**2
    most = memory_of_gpu(device) // BLOCK_OF_GPU // BYTES_OF_PIXEL if gpu else BLOCK_PIXELS
    if isinstance(images, ArrayImages):
        return most // max(pixels, int(np.prod(images.pixels.shape[1:3])))
    if not (source.augment.decodes and isinstance(images, Encoded)):
        return 0
    each, size = (mean / recipe.augment.repeats for mean in mean_sizes(images))
    pixels += int(6 * each) // BYTES_OF_PIXEL  # all are there twice for a moment, in 3 bytes a pixel
    return min(most // pixels, int(BLOCK_BYTES / max(size, 1)))


def ahead(blocks: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The blocks, of which a GPU makes the next one in a stream of its own while this one is used."""
    if device.type != "cuda":
        yield from blocks
        return
    beside, done = torch.cuda.Stream(device, priority=-1), object()  # first, where both wait: a step waits for it

    def made() -> tuple[Any, Any]:
        with torch.cuda.stream(beside):
            return next(blocks, done), beside.record_event()

    current = made()
    while current[0] is not done:
        following, (block, ready) = made(), current
        torch.cuda.current_stream(device).wait_event(ready)
        for part in block:
            part.record_stream(torch.cuda.current_stream(device))
        yield block
        current = following


def loaders_of(wanted: int | None, recipe: Recipe, data: Splits, device: torch.device) -> int:
    """Processes that prepare batches: as many as are wanted; where nobody says, none on a CPU, where a run has a core,
    and where the GPU does all that is to be done, else one for each of this rank's cores (the launcher's or SLURM's
    number, or all that this process may use) less its own, at least 1 and at most MOST_LOADERS."""
    if wanted is not None:
        return wanted
    in_memory = isinstance(data.dataset.train, ArrayImages)
    if device.type == "cpu" or (in_memory and Augmenter(recipe, data.dataset).all_together(in_memory)):
        return 0
    said = os.environ.get("DEIT_ABLATE_CORES") or os.environ.get("SLURM_CPUS_PER_TASK")
    cores = int(said) if said else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(MOST_LOADERS, (cores or 1) - 1))


def steps_per_epoch(recipe: Recipe, data: Splits) -> int:
    """Whole batches in an epoch; repeated augmentation does not make it longer."""
    return len(data.train) // recipe.schedule.batch_size


def evaluation_batches(
    recipe: Recipe,
    dataset: Dataset,
    images: Images,
    indices: Array | None = None,
    loaders: int = 0,
    device: torch.device = CPU,
    group: Group = ALONE,
) -> Iterator[Batch]:
    """The images (of these indices) once, in order, without augmentation, on ``device``; of several ranks each has
    whole batches, the same as one process has, dealt out in turn."""
    chosen = np.arange(len(images)) if indices is None else indices
    parts = [chosen[start : start + EVALUATION_BATCH].tolist() for start in range(0, len(chosen), EVALUATION_BATCH)]
    source, normalise = _Evaluation(images, recipe, dataset), Normalise(dataset)
    loaders = 0 if _ready_made(images, recipe) else loaders
    for pixels, targets in _loader(source, group.dealt(parts), loaders, pin=device.type == "cuda"):
        yield normalise(sent(pixels, device)), sent(targets, device)


def _ready_made(images: Images, recipe: Recipe) -> bool:
    """Whether pictures lie in memory at the recipe's size, so that fetching them is no work for other processes."""
    side = recipe.data.resolution
    return isinstance(images, ArrayImages) and images.pixels.shape[1:3] == (side, side)


def _loader(source: Any, batches: Any, loaders: int, pin: bool) -> Iterator[Any]:
    loader: Any = DataLoader(
        source,
        batch_sampler=batches,
        num_workers=loaders,
        collate_fn=_as_is,
        pin_memory=pin,
        worker_init_fn=_ignore_signals,
    )
    iterator: Any = iter(loader)
    try:
        yield from iterator
    finally:
        # What a loader raises holds the iterator in a cycle; loaders alive at exit are sent SIGTERM, which they
        # ignore, and waited for: the process would never end.
        if loaders:
            iterator._shutdown_workers()


def _lying_on(device: torch.device, images: ArrayImages, blocks: Iterator[Views]) -> Iterator[tuple[Tensor, ...]]:
    """What a loader fetches of these pictures, of which the device has a copy."""
    # Contiguous ones: a data set of one's own may be a view that torch has no word for.
    pixels = to_pixels(np.ascontiguousarray(images.pixels)).contiguous().to(device)
    targets = torch.from_numpy(np.ascontiguousarray(images.targets)).to(device)
    for views in blocks:
        at = sent(torch.from_numpy(views[:, 1]), device)
        yield pixels[at], torch.from_numpy(views), targets[at]


@dataclass(frozen=True)
class TrainingImages:
    """What a loader fetches: training images of these views."""

    images: Images
    augment: Augmenter
    order: Array | None = None
    """Indices, ascending, of the images that may stand in for one that cannot be decoded; None: it ends the run."""
    device: str = "cpu"
    """Where images are finished: on a GPU, unless an operation is for one picture alone, which a CPU has."""
    undecodable: set[int] = field(default_factory=set)

    def finished(self, given: Tensor | Read, views: Tensor, targets: Tensor, device: torch.device = CPU) -> Batch:
        """The batch on the device, of what ``__getitems__`` returned."""
        if isinstance(given, Read):
            pictures, indices = given.decoded(device, self._found)
            return self.augment(pictures, views), sent(torch.from_numpy(self.images.targets[indices]), device)
        images, targets = sent(given, device), sent(targets, device)
        if self._here:
            return images, targets
        finish = self.augment if isinstance(self.images, ArrayImages) else self.augment.finish
        return finish(images, views), targets

    @property
    def _here(self) -> bool:
        """Whether ``__getitems__`` does all."""
        in_memory = isinstance(self.images, ArrayImages)
        return not self.augment.decodes and (self.device == "cpu" or not self.augment.all_together(in_memory))

    def may_lie_on(self, device: torch.device) -> bool:
        """Whether all pictures can lie on a GPU from the start: they are finished there, and it has room for them."""
        if self._here or not isinstance(self.images, ArrayImages) or device.type != "cuda":
            return False
        return self.images.pixels.nbytes <= memory_of_gpu(device) // PART_OF_GPU

    def __getitems__(self, views: Views | Sequence[tuple[int, int, int]]) -> tuple[Tensor | Read, Tensor, Tensor]:
        """Images, or pixels or files that are still to be finished, with their views (B, 3) and their classes."""
        views = np.asarray(views)
        positions = torch.from_numpy(views)
        if isinstance(self.images, ArrayImages):
            pixels, targets = self.images.pixels[views[:, 1]], self.images.targets[views[:, 1]]
            made = to_pixels(pixels)
            return self.augment(made, positions) if self._here else made, positions, torch.from_numpy(targets)
        # The repeats of an image are in one batch: decoded once. No operation changes its picture in place.
        chosen = views[:, 1].tolist()
        if self.augment.decodes and isinstance(self.images, Encoded):
            return Read.of_views(self.images, chosen, self._found), positions, torch.empty(0)
        found = {index: self._found(index) for index in dict.fromkeys(chosen)}
        pictures = [found[index][0] for index in chosen]
        targets = self.images.targets[[found[index][1] for index in chosen]]
        make = self.augment if self._here else self.augment.pixels
        return make(pictures, positions), positions, torch.from_numpy(targets)

    def _found(self, index: int) -> tuple[Image.Image, int]:
        """The picture in an image's place and which image that is: itself, or the next of ``order`` (a ring) that can
        be decoded, a function of the files alone. Raises Undecodable where none can."""
        if self.order is None:
            return self.images[index], index
        start = int(np.searchsorted(self.order, index))
        for place in range(start, start + len(self.order)):
            candidate = int(self.order[place % len(self.order)])
            if candidate in self.undecodable:
                continue
            try:
                return self.images[candidate], candidate
            except Undecodable as error:
                self.undecodable.add(candidate)
                tell_skipped(error)
        raise Undecodable(f"none of the {len(self.order)} training images can be decoded")


class _Evaluation:
    def __init__(self, images: Images, recipe: Recipe, dataset: Dataset) -> None:
        side = recipe.data.resolution
        self.images, self.skip = images, recipe.data.corrupt == "skip"
        self.transform = None if _ready_made(images, recipe) and recipe.data.eval_crop == 1 else evaluation(recipe)
        self.empty = torch.empty(0, dataset.channels, side, side, dtype=torch.uint8)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Pixels of the images of these indices, less those that cannot be decoded where the recipe skips them (maybe
        all), and their classes."""
        if self.transform is None and isinstance(self.images, ArrayImages):
            return to_pixels(self.images.pixels[indices]), torch.from_numpy(self.images.targets[indices])
        kept, arrays = [], []
        for index in indices:
            try:
                picture = self.images[index]
            except Undecodable as error:
                if not self.skip:
                    raise
                tell_skipped(error)
                continue
            kept.append(index)
            arrays.append(np.asarray(self.transform(picture) if self.transform else picture))
        return to_pixels(arrays) if kept else self.empty, torch.from_numpy(self.images.targets[kept])


def _as_is(batch: Any) -> Any:
    return batch


def _ignore_signals(worker: int) -> None:
    """A loader leaves signals to the process that trains: a scheduler sends them to all, and that one must still
    finish its step and save."""
    import signal

    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGCONT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
