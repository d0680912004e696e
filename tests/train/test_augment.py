"""Augmentation per image and per batch: shapes, repeatability, and what each recipe field does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import _RAND_INCREASING_TRANSFORMS, _RAND_TRANSFORMS
from tiny import tiny

from deit_ablate.errors import TrainError
from deit_ablate.recipe import Recipe
from deit_ablate.train import augment
from deit_ablate.train.augment import AUGMENTATIONS, TENSOR_AUGMENTATIONS, Augmenter, evaluation
from deit_ablate.train.data.sets import ArrayImages, Dataset
from deit_ablate.train.mixing import MIXINGS, build_mixing
from deit_ablate.train.streams import seed_generators, stream

VIEWS = [(0, index, 0) for index in range(8)]
ON: dict[str, dict[str, Any]] = {
    "crop": {"crop": "random-resized"},
    "flip": {"hflip": 0.5},
    "policy": {"auto_augment": "rand-m9-mstd0.5-inc1"},
    "jitter": {"auto_augment": None, "color_jitter": 0.4},
    "erasing": {"erasing": 0.9},
    "mixup-cutmix": {"mixup": 0.8, "cutmix": 1.0},
}
OFF = {
    "crop": "none",
    "hflip": 0.0,
    "auto_augment": None,
    "color_jitter": 0.0,
    "erasing": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
}


def dataset(channels: int, side: int = 16) -> Dataset:
    shape = (8, side, side) if channels == 1 else (8, side, side, channels)
    pixels = np.random.RandomState(0).randint(0, 256, shape, dtype=np.uint8)
    images = ArrayImages(pixels, np.arange(8) % 3)
    return Dataset("noise", ("a", "b", "c"), channels, (0.4,) * channels, (0.2,) * channels, images, images, "")


def augmented(recipe: Recipe, data: Dataset, views: list[tuple[int, int, int]] = VIEWS) -> torch.Tensor:
    return Augmenter(recipe, data)([data.train[index] for _, index, _ in views], views)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", [*AUGMENTATIONS, *TENSOR_AUGMENTATIONS])
def test_every_augmentation_has_the_shape_and_repeats_itself(name: str, channels: int) -> None:
    data, recipe = dataset(channels), tiny(augment={**OFF, **ON[name]})
    images = augmented(recipe, data)
    assert images.shape == (8, channels, 16, 16)
    assert images.dtype == torch.float32
    assert not torch.equal(images, augmented(tiny(augment=OFF), data))
    seed_generators(12345)  # history plays no part
    assert torch.equal(images, augmented(recipe, data))
    assert not torch.equal(images, augmented(tiny(augment={**OFF, **ON[name]}, seed=1), data))


def test_a_view_is_a_function_of_epoch_index_and_repeat() -> None:
    data, recipe = dataset(1), tiny()
    alone = augmented(recipe, data, [(3, 5, 1)])
    among = augmented(recipe, data, [(0, 1, 0), (3, 5, 1), (3, 5, 0)])
    assert torch.equal(alone[0], among[1])
    assert not torch.equal(among[1], among[2])
    assert not torch.equal(alone, augmented(recipe, data, [(4, 5, 1)]))


def test_switching_one_off_leaves_the_draws_of_the_others_alone() -> None:
    data = dataset(1)
    with_crop = augmented(tiny(augment={**OFF, "crop": "pad", "erasing": 1.0}), data)
    without = augmented(tiny(augment={**OFF, "erasing": 1.0}), data)
    plain_crop = augmented(tiny(augment={**OFF, "crop": "pad"}), data)
    plain = augmented(tiny(augment=OFF), data)
    erased = with_crop != plain_crop
    assert torch.equal(erased, without != plain)
    assert torch.equal(with_crop[erased], without[erased])


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "name", sorted({*_RAND_TRANSFORMS, *_RAND_INCREASING_TRANSFORMS, "GaussianBlur", "Desaturate"})
)
def test_every_operation_of_timm_takes_gray_and_colour_at_any_magnitude(name: str, mode: str) -> None:
    data = dataset(1 if mode == "L" else 3)
    policy = augment.policy("rand-m9-mstd0.5-inc1", tiny(), data)
    operation = next((each for each in policy.ops if each.name == name), None)
    if operation is None:
        operation = type(policy.ops[0])(name, prob=1.0, hparams=policy.ops[0].hparams)
    operation.prob = 1.0
    for magnitude in (0, 5, 10):
        operation.magnitude = magnitude
        result = operation(data.train[0])
        assert (result.mode, result.size) == (mode, (16, 16))


def test_posterize_to_no_bits_is_black() -> None:
    for image in (Image.new("L", (4, 4), 200), Image.new("RGB", (4, 4), (200, 100, 50))):
        assert not np.asarray(augment._posterize(image, 0)).any()
        assert augment._posterize(image, 8) is image
    policy = augment.policy("original-mstd0.5", tiny(), dataset(1))
    assert all(op.aug_fn is augment._posterize for pair in policy.policy for op in pair if "Posterize" in op.name)


@pytest.mark.parametrize("text", ["v0", "original-mstd0.5", "3a", "rand-m3-n1-p0.3"])
def test_autoaugment_and_its_relatives_work_by_name(text: str) -> None:
    assert augmented(tiny(augment={"auto_augment": text}), dataset(1)).shape == (8, 1, 16, 16)


def test_a_notation_that_timm_does_not_know_is_an_error() -> None:
    with pytest.raises(TrainError, match="rand-foo3"):
        Augmenter(tiny(augment={"auto_augment": "rand-foo3"}), dataset(1))


def test_jitter_acts_only_without_a_policy() -> None:
    data = dataset(3)
    strong, none = ({**OFF, "auto_augment": "rand-m5", "color_jitter": value} for value in (0.9, 0.0))
    assert torch.equal(augmented(tiny(augment=strong), data), augmented(tiny(augment=none), data))


def test_padding_is_an_eighth_of_the_side() -> None:
    white = ArrayImages(np.full((64, 16, 16), 255, np.uint8), np.zeros(64, dtype=np.int64))
    data = Dataset("white", ("a",), 1, (0.0,), (1.0,), white, white, "")
    images = augmented(tiny(augment={**OFF, "crop": "pad"}), data, [(0, index, 0) for index in range(64)])
    black_rows = (images.sum(dim=(1, 3)) == 0).sum(dim=1)
    assert black_rows.max() == 2


def test_pixels_are_normalised_by_the_data_sets_mean_and_deviation() -> None:
    data = dataset(3)
    expected = (data.train.pixels[1, 2, 3] / 255 - 0.4) / 0.2  # type: ignore[attr-defined]
    assert augmented(tiny(augment=OFF), data)[1, :, 2, 3].numpy() == pytest.approx(expected, abs=1e-5)


def test_evaluation_keeps_the_centre() -> None:
    picture = Image.fromarray(np.random.RandomState(1).randint(0, 256, (64, 48), dtype=np.uint8))
    seen = evaluation(tiny(data={"resolution": 32, "eval_crop": 0.5}))(picture)
    resized = picture.resize((64, 85), Image.Resampling.BICUBIC)
    assert seen.size == (32, 32)
    assert np.array_equal(np.asarray(seen), np.asarray(resized)[26:58, 16:48])
    same = Image.new("L", (16, 16), 7)
    assert np.asarray(evaluation(tiny())(same)).tolist() == np.asarray(same).tolist()


# -- mixing ---------------------------------------------------------------------------------------------------------


def mixed(step: int = 0, **changes: Any) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 8, 8).clone()
    recipe = tiny(augment={**OFF, **changes}, regularize={"label_smoothing": 0.0})
    seed_generators(stream(0, "mix", step))
    return build_mixing(recipe, 4)(images, torch.arange(4))


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
    def kind(images: torch.Tensor) -> str:
        found = images[0].unique()
        return "none" if found.tolist() == [0.0] else "cutmix" if set(found.tolist()) <= {0.0, 3.0} else "mixup"

    def kinds(**changes: Any) -> list[str]:
        return [kind(mixed(step, mixup=0.8, cutmix=1.0, **changes)[0]) for step in range(40)]

    assert set(kinds(mix_switch=0.0)) == {"mixup"}
    assert set(kinds(mix_switch=1.0)) <= {"cutmix", "none"}  # a box can be empty
    assert 5 < kinds(mix_prob=0.5).count("none") < 35
