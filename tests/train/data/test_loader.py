"""The order of training: repeats, truncation, seeds, and loaders that change nothing."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import STEPS, tiny

from deit_ablate.train.augment import Augmenter
from deit_ablate.train.data.loader import (
    TrainingImages,
    epoch_order,
    epoch_views,
    loaders_of,
    steps_per_epoch,
    training_batches,
)
from deit_ablate.train.data.sets import load_data


@dataclass
class Listed:
    """Pictures that don't lie in memory as arrays."""

    pictures: list[Image.Image]
    targets: Any

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Image.Image:
        return self.pictures[index]


INDICES = np.arange(100, 120)


def test_without_repeats_an_epoch_is_a_permutation() -> None:
    images, repeats = epoch_order(INDICES, seed=0, epoch=0)
    assert sorted(images) == list(INDICES)
    assert set(repeats) == {0}


def test_repeats_stand_together_and_the_epoch_stays_as_long() -> None:
    images, repeats = epoch_order(INDICES, seed=0, epoch=0, repeats=3)
    assert len(images) == 20
    assert repeats.tolist() == [0, 1, 2] * 6 + [0, 1]
    assert all(len(set(images[start : start + 3])) == 1 for start in range(0, 18, 3))
    assert len(set(images)) == 7
    plain, _ = epoch_order(INDICES, seed=0, epoch=0)
    assert images[::3].tolist() == plain[:7].tolist()


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [tuple(epoch_order(INDICES, seed, epoch)[0]) for seed in range(3) for epoch in range(3)]
    assert len(set(orders)) == 9
    assert orders[4] == tuple(epoch_order(INDICES, 1, 1)[0])


def test_the_last_partial_batch_is_dropped() -> None:
    batches = list(epoch_views(INDICES, seed=0, epoch=2, repeats=1, batch_size=8))
    assert [len(batch) for batch in batches] == [8, 8]
    assert {int(view[0]) for batch in batches for view in batch} == {2}


@pytest.mark.parametrize("loaders", [0, 2])
def test_batches_begin_at_any_step_and_loaders_change_nothing(loaders: int) -> None:
    recipe = tiny()
    data = load_data(recipe, None)
    assert steps_per_epoch(recipe, data) == STEPS
    whole = list(training_batches(recipe, data, 0, loaders=0))
    assert len(whole) == 2 * STEPS
    for start in (0, 1, STEPS, STEPS + 3):
        part = list(itertools.islice(training_batches(recipe, data, start, loaders), 3))
        for (images, targets), (expected, labels) in zip(part, whole[start:], strict=False):
            assert torch.equal(images, expected)
            assert torch.equal(targets, labels)
    assert not torch.equal(whole[0][0], whole[STEPS][0])


@pytest.mark.parametrize("name", ["digits", "files"])
def test_images_are_the_same_whether_they_are_finished_by_a_loader_or_on_the_device(name: str) -> None:
    """As a GPU gets them: pixels, and what is left to be done with them."""
    recipe, images = tiny(augment={"erasing": 0.9, "auto_augment": "rand-m9-mstd0.5-inc1"}), None
    data = load_data(recipe, None)
    if name == "files":
        pictures = [data.dataset.train[index] for index in range(8)]
        images = cast("Any", Listed(pictures, data.dataset.train.targets[:8]))
    views = [(0, index, repeat) for index in range(8) for repeat in range(2)]
    made = {}
    for device in ("cpu", "cuda"):
        source = TrainingImages(images or data.dataset.train, Augmenter(recipe, data.dataset), None, device)
        given, positions, targets = source.__getitems__(views)
        made[device] = source.finished(given, positions, targets)
        assert given.dtype == (torch.float32 if device == "cpu" else torch.uint8)
    for one, other in zip(*made.values(), strict=True):
        assert torch.equal(one, other)


def test_what_only_a_cpu_can_do_is_done_before_a_gpu_gets_it() -> None:
    recipe = tiny(augment={"custom": ["tiny:noise"]})
    data = load_data(recipe, None)
    source = TrainingImages(data.dataset.train, Augmenter(recipe, data.dataset), None, "cuda")
    images, positions, _ = source.__getitems__([(0, 1, 0)])
    assert (images.dtype, source.finished(images, positions, torch.zeros(1))[0] is images) == (torch.float32, True)


def test_loaders_by_default_follow_the_device_the_data_and_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, gpu, cpu = tiny(), torch.device("cuda:0"), torch.device("cpu")
    data = load_data(recipe, None)
    files = replace(data, dataset=replace(data.dataset, train=cast("Any", Listed([], data.dataset.train.targets))))
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "12")
    assert [loaders_of(wanted, recipe, files, gpu) for wanted in (0, 40, None)] == [0, 40, 11]
    assert loaders_of(None, recipe, files, cpu) == 0
    assert loaders_of(None, recipe, data, gpu) == 0, "finished on the GPU"
    assert loaders_of(None, tiny(augment={"custom": ["tiny:noise"]}), data, gpu) == 11, "which this is not"
    for cores, expected in (("1", 1), ("5", 4), ("64", 16)):
        monkeypatch.setenv("DEIT_ABLATE_CORES", cores)
        assert loaders_of(None, recipe, files, gpu) == expected, "what the launcher has to give"
