"""Augmentation per batch: mixup and CutMix, and the targets that go with them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from tiny import tiny

from deit_ablate.train.mixing import MIXINGS, build_mixing

OFF = {"mixup": 0.0, "cutmix": 0.0}
ON: dict[str, dict[str, Any]] = {"mixup-cutmix": {"mixup": 0.8, "cutmix": 1.0}}
ON |= {name: {name: 1} for name, entry in MIXINGS.items() if entry.field is not None}


def mixed(step: int = 0, **changes: Any) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 8, 8).clone()
    recipe = tiny(augment={**OFF, **changes}, regularize={"label_smoothing": 0.0})
    return build_mixing(recipe, 4)(images, torch.arange(4), step)


@pytest.mark.parametrize("name", list(MIXINGS))
def test_every_mixing_keeps_shapes_and_mass_and_repeats_itself(name: str) -> None:
    for step in range(6):
        images, targets = mixed(step, **ON[name])
        assert images.shape == (4, 1, 8, 8)
        assert targets.sum(dim=1).tolist() == pytest.approx([1] * 4)
        again = mixed(step, **ON[name])
        assert torch.equal(images, again[0])
        assert torch.equal(targets, again[1])


def test_mixup_blends_and_cutmix_pastes_and_targets_follow() -> None:
    images, targets = mixed(mixup=1.0)
    share = targets[0, 0].item()
    assert 0 < share < 1
    assert images[0].unique().tolist() == pytest.approx([3 * (1 - share)])  # pairs are (0, 3) and (1, 2)
    images, targets = mixed(cutmix=1.0)
    pasted = (images[0] == 3).float().mean().item()
    assert set(images[0].unique().tolist()) <= {0.0, 3.0}
    assert targets[0, 3].item() == pytest.approx(pasted)


def test_off_leaves_images_and_labels_alone() -> None:
    images, targets = mixed()
    assert images[2].unique().tolist() == [2.0]
    assert targets.tolist() == [0, 1, 2, 3]


def test_mix_prob_and_switch() -> None:
    def kinds(**changes: Any) -> list[str]:
        return [kind(mixed(step, mixup=0.8, cutmix=1.0, **changes)[0]) for step in range(40)]

    assert set(kinds(mix_switch=0.0)) == {"mixup"}
    assert set(kinds(mix_switch=1.0)) <= {"cutmix", "none"}  # a box can be empty
    assert 5 < kinds(mix_prob=0.5).count("none") < 35


SWITCHES: dict[str, dict[str, Any]] = {
    "mixup": {"mixup": 0.0},
    "cutmix": {"cutmix": 0.0},
    "switch to CutMix": {"mix_switch": 1.0},
    "switch to mixup": {"mix_switch": 0.0},
    "a batch may stay as it is": {"mix_prob": 1.0},
    "another strength of mixup": {"mixup": 0.3},
}


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(SWITCHES, 2)))
def test_what_is_switched_changes_no_other_decision(first: str, second: str) -> None:
    """With two of the switches thrown too, a batch that is mixed by the same method is mixed to the same bits."""
    everything = {"mixup": 0.8, "cutmix": 1.0, "mix_prob": 0.7}
    kept = dict.fromkeys(("none", "mixup", "cutmix"), 0)
    for changes in (SWITCHES[first], {**SWITCHES[first], **SWITCHES[second]}):
        if changes.get("mixup") == changes.get("cutmix") == 0.0:
            continue
        for step in range(24):
            before, after = mixed(step, **everything), mixed(step, **{**everything, **changes})
            if (kind(before[0]) == kind(after[0])) and not (kind(after[0]) == "mixup" and changes.get("mixup") == 0.3):
                assert torch.equal(before[0], after[0])
                assert torch.equal(before[1], after[1])
                kept[kind(after[0])] += 1
            elif kind(before[0]) == "none":
                assert changes.get("mix_prob") == 1.0, "the batches that stay as they are stay so"
    assert sum(kept.values()) > 6, kept


def kind(images: torch.Tensor) -> str:
    found = images[0].unique()
    return "none" if found.tolist() == [0.0] else "cutmix" if set(found.tolist()) <= {0.0, 3.0} else "mixup"
