"""Augmentations of many pictures at once: timm's distributions, and its bytes for the same draws."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from timm.data.auto_augment import LEVEL_TO_ARG, auto_augment_transform, rand_augment_transform
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from tiny import tiny
from torchvision import transforms

from deit_ablate.train import batched
from deit_ablate.train.augment import AUGMENTATIONS, Augmenter, Normalise, policy, to_pictures, to_pixels
from deit_ablate.train.data.images import ArrayImages
from deit_ablate.train.data.sets import Dataset, load_data
from deit_ablate.train.streams import Draws, seed_generators

MANY = 20_000
SIDE = 16
BLURS = {"GaussianBlur", "GaussianBlurRand"}
"""Timm's operations that are done one by one."""


def draws(count: int, purpose: str = "test") -> Draws:
    return Draws(0, purpose, torch.arange(count)[:, None])


def noise(count: int, channels: int = 1, side: int = SIDE) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(0).randint(0, 256, (count, channels, side, side), dtype=np.uint8))


def dataset(channels: int) -> Dataset:
    images = ArrayImages(np.zeros((1, SIDE, SIDE), np.uint8), np.zeros(1, dtype=np.int64))
    return Dataset("none", ("a",), channels, (0.4,) * channels, (0.2,) * channels, images, images, "")


def timms(text: str, channels: int) -> Any:
    return policy(text, tiny(data={"resolution": SIDE}), dataset(channels))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", sorted(LEVEL_TO_ARG.keys() - BLURS))
def test_every_operation_of_timm_at_any_magnitude_and_sign(name: str, channels: int) -> None:
    images, op = noise(6, channels), timms("rand-m9-inc1", channels).ops[0]
    operation = type(op)(name, prob=1.0, hparams={**op.hparams, "interpolation": op.kwargs["resample"]})
    if "Posterize" in name:
        operation.aug_fn = timms("rand-m9-inc1", channels).ops[4].aug_fn
    for magnitude in (0, 0.7, 3.3, 5, 8.9, 10):
        for seed in (0, 1):  # of Python's generator: the first number is above a half, and below
            operation.magnitude = magnitude
            theirs = []
            for picture in to_pictures(images):
                random.seed(seed)
                theirs.append(np.asarray(operation(picture)))
            drawn = torch.full((6, 4), random.Random(seed).random(), dtype=torch.float64)
            ours = batched._Layer([operation], batched._kinds(op, SIDE))(images, torch.zeros(6), drawn)
            assert torch.equal(ours, to_pixels(theirs)), (magnitude, seed)
    assert random.Random(0).random() > 0.5 > random.Random(1).random()


def changed(images: torch.Tensor, before: torch.Tensor) -> float:
    return float((images != before).flatten(1).any(1).double().mean())


@pytest.mark.parametrize(
    "text", ["rand-m9-mstd0.5-inc1", "rand-m3-n1-mstd0.5-inc1", "rand-m6-mstd101-p0.3", "rand-m5-n3"]
)
def test_randaugment_chooses_applies_and_scales_as_often_as_timms(text: str) -> None:
    """The mean grey level and the share of pictures that are changed at all, over many views."""
    found = rand_augment_transform(text, {"img_mean": 90, "interpolation": 3, "translate_const": 7})
    together = batched.policy(found, SIDE)
    assert together is not None
    images = noise(1).expand(MANY, -1, -1, -1)
    ours = together(images, draws(MANY))
    seed_generators(5)
    picture = to_pictures(images[:1])[0]
    theirs = to_pixels([np.asarray(found(picture)) for _ in range(4000)])
    assert changed(ours, images) == pytest.approx(changed(theirs, images[:4000]), abs=0.025)
    for statistic in (lambda each: each.double().mean((1, 2, 3)), lambda each: each.double().std((1, 2, 3))):
        assert stats.ks_2samp(statistic(ours).numpy(), statistic(theirs).numpy()).pvalue > 0.001


@pytest.mark.parametrize("text", ["v0", "v0r-mstd0.5", "original", "originalr-mstd0.5"])
def test_autoaugment_chooses_pairs_as_often_as_timms(text: str) -> None:
    found = auto_augment_transform(text, {"img_mean": 90, "interpolation": 3, "translate_const": 7})
    for operation in (each for pair in found.policy for each in pair):
        if "Posterize" in operation.name:
            operation.aug_fn = timms("original", 1).policy[0][0].aug_fn
    together = batched.policy(found, SIDE)
    assert together is not None
    images = noise(1).expand(MANY, -1, -1, -1)
    ours = together(images, draws(MANY))
    seed_generators(5)
    picture = to_pictures(images[:1])[0]
    theirs = to_pixels([np.asarray(found(picture)) for _ in range(4000)])
    for statistic in (lambda each: each.double().mean((1, 2, 3)), lambda each: each.double().std((1, 2, 3))):
        assert stats.ks_2samp(statistic(ours).numpy(), statistic(theirs).numpy()).pvalue > 0.001


def test_a_policy_with_blurs_is_done_one_by_one() -> None:
    assert AUGMENTATIONS["policy"].together("3a", tiny(), dataset(1)) is None


def test_with_an_operation_that_has_no_batched_form_pictures_in_memory_stay_on_the_cpu() -> None:
    data = load_data(tiny(), None)
    for text, together in (("3a", False), ("rand-m9-mstd0.5-inc1", True)):
        augment = Augmenter(tiny(augment={"auto_augment": text}), data.dataset)
        assert augment.all_together(in_memory=True) == together


def test_a_policy_of_no_operations_does_nothing() -> None:
    recipe = tiny(augment={"auto_augment": "rand-m9-n0", "crop": "none", "hflip": 0.0})
    augment = Augmenter(recipe, load_data(recipe, None).dataset)
    pixels = torch.randint(0, 256, (3, 1, 16, 16), dtype=torch.uint8)
    assert torch.equal(augment.pixels(pixels, torch.zeros(3, 3, dtype=torch.long)), pixels)


def test_boxes_of_the_inception_crop_are_distributed_as_timms() -> None:
    scale, ratio, size = (0.08, 1.0), (0.75, 4 / 3), (16, 24)
    boxes, found = batched.drawn_boxes(draws(MANY), size, scale, ratio)
    seed_generators(3)
    picture = to_pictures(torch.zeros(1, 1, *size, dtype=torch.uint8))[0]
    theirs = np.array([RandomResizedCropAndInterpolation.get_params(picture, scale, ratio) for _ in range(MANY)])
    assert float(found.double().mean()) > 0.99
    ours = boxes[found].numpy()
    for one, two in zip(ours.T, theirs.T, strict=True):
        assert stats.ks_2samp(one, two).pvalue > 0.001
    assert stats.ks_2samp(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]).pvalue > 0.001


def test_a_crop_that_never_fits_is_central() -> None:
    crop = batched.crop_resized(8, (1.0, 1.0), (3.0, 4.0))
    made = crop(noise(3), draws(3))
    picture = to_pictures(noise(3))[0]
    top, left, height, width = RandomResizedCropAndInterpolation.get_params(picture, (1.0, 1.0), (3.0, 4.0))
    expected = picture.crop((left, top, left + width, top + height)).resize((8, 8), 3)
    assert np.array_equal(made[0, 0].numpy(), np.asarray(expected))


def test_the_padded_crop_has_every_place_equally_often() -> None:
    marked = torch.zeros(MANY, 1, SIDE, SIDE, dtype=torch.uint8)
    marked[:, :, 8, 8] = 255
    at = batched.crop_padded(SIDE, 2)(marked, draws(MANY)).flatten(1).int().argmax(1)
    counted = np.bincount((at // SIDE - 6).numpy() * 5 + (at % SIDE - 6).numpy(), minlength=25)
    assert stats.chisquare(counted).pvalue > 0.001
    assert counted.sum() == MANY


def test_the_simple_random_crop_is_torchvisions_at_each_place() -> None:
    pictures, places = noise(1, 3).expand(81, -1, -1, -1), {}
    padded = transforms.functional.pad(pictures[0], 4, padding_mode="reflect")
    for top in range(9):
        for left in range(9):
            places[padded[:, top : top + SIDE, left : left + SIDE].numpy().tobytes()] = (top, left)
    made = batched.crop_padded(SIDE, 4, reflected=True)(noise(1, 3).expand(2000, -1, -1, -1), draws(2000))
    assert {places[each.numpy().tobytes()] for each in made} == set(places.values())


def test_a_flip_comes_as_often_as_it_should() -> None:
    flipped = batched.flip(0.3)(noise(1).expand(MANY, -1, -1, -1), draws(MANY))
    assert changed(flipped, noise(1)) == pytest.approx(0.3, abs=0.012)
    assert torch.equal(batched.flip(1.0)(noise(2, 3), draws(2)), noise(2, 3).flip(3))


def test_jitter_is_distributed_as_torchvisions() -> None:
    images = noise(1, 3).expand(4000, -1, -1, -1)
    ours = batched.jitter(0.4)(images, draws(4000)).double()
    seed_generators(1)
    theirs_of, picture = transforms.ColorJitter(0.4, 0.4, 0.4), to_pictures(images[:1])[0]
    theirs = to_pixels([np.asarray(theirs_of(picture)) for _ in range(4000)]).double()
    for statistic in (
        lambda each: each.mean((1, 2, 3)),
        lambda each: each.std((1, 2, 3)),
        lambda each: (each[:, 0] - each[:, 1]).abs().mean((1, 2)),
    ):
        assert stats.ks_2samp(statistic(ours).numpy(), statistic(theirs).numpy()).pvalue > 0.001


def test_erasing_is_distributed_as_timms() -> None:
    blank = torch.full((MANY, 1, SIDE, SIDE), 100.0)
    ours = batched.erase(0.6)(blank.clone(), draws(MANY))
    seed_generators(2)
    theirs = RandomErasing(0.6, mode="pixel", max_count=1, device="cpu")(blank.clone())
    inside = ours != 100, theirs != 100
    sizes, timms_sizes = (each.flatten(1).sum(1).numpy() for each in inside)
    assert (sizes > 0).mean() == pytest.approx((timms_sizes > 0).mean(), abs=0.015)
    assert stats.ks_2samp(sizes, timms_sizes).pvalue > 0.001
    for axis in (2, 3):
        assert stats.ks_2samp(*(each.any(axis).flatten(1).sum(1).numpy() for each in inside)).pvalue > 0.001
        assert stats.ks_2samp(*(each.any(axis).flatten(1).int().argmax(1).numpy() for each in inside)).pvalue > 0.001
    assert stats.kstest(ours[inside[0]][:50_000].numpy(), "norm").pvalue > 0.001


def test_pixels_are_normalised_alike_whatever_they_came_from() -> None:
    data = dataset(3)
    images = noise(4, 3)
    assert torch.equal(Normalise(data)(images), Normalise(data)(to_pixels(map(np.asarray, to_pictures(images)))))
