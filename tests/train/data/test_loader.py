"""The order of training: repeats, truncation, seeds, and loaders that change nothing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from tiny import STEPS, tiny

from deit_ablate.train.data.loader import epoch_order, epoch_views, steps_per_epoch, training_batches
from deit_ablate.train.data.sets import load_data

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
    assert {view[0] for batch in batches for view in batch} == {2}


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
