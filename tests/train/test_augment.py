"""Augmentation per image: shapes, repeatability, and what each recipe field does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from timm.data.auto_augment import _RAND_INCREASING_TRANSFORMS, _RAND_TRANSFORMS
from tiny import tiny

from deit_ablate.errors import TrainError
from deit_ablate.recipe import Recipe
from deit_ablate.train import augment
from deit_ablate.train.augment import AUGMENTATIONS, TENSOR_AUGMENTATIONS, Augmenter, evaluation, to_pixels
from deit_ablate.train.data.images import ArrayImages
from deit_ablate.train.data.sets import Dataset
from deit_ablate.train.streams import seed_generators

WAY = {"together": False}


@pytest.fixture(params=[False, True], ids=["one by one", "together"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures as they come of files, or from memory."""
    monkeypatch.setitem(WAY, "together", request.param)


VIEWS = [(0, index, 0) for index in range(8)]
ON: dict[str, dict[str, Any]] = {
    "crop": {"crop": "random-resized"},
    "flip": {"hflip": 0.5},
    "policy": {"auto_augment": "rand-m9-mstd0.5-inc1"},
    "jitter": {"auto_augment": None, "color_jitter": 0.4},
    "erasing": {"erasing": 0.9},
}
ON_VALUES = {"Probability": 0.9, "Rate": 0.9, "NonNegative": 1.0, "Whole": 1, "Positive": 2, "bool": True}
"""For the fields that come with an entry, by their type."""
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
    pictures = [data.train[index] for _, index, _ in views]
    given = to_pixels(map(np.asarray, pictures)) if WAY["together"] else pictures
    return Augmenter(recipe, data)(given, torch.tensor(views))


ENTRIES = {**AUGMENTATIONS, **TENSOR_AUGMENTATIONS}
ON |= {name: {name: ON_VALUES[entry.field.type]} for name, entry in ENTRIES.items() if not isinstance(entry.field, str)}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", list(ENTRIES))
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


def test_three_augment_is_one_of_three_as_in_deit_iii() -> None:
    """Grey, solarised from 128 or blurred, each for a third of the pictures."""
    data, views = dataset(3), [(0, 0, repeat) for repeat in range(600)]
    images = augmented(tiny(augment={**OFF, "auto_augment": "3a"}), data, views)
    picture, found = data.train[0], []
    for choice in (picture.convert("L").convert("RGB"), ImageOps.solarize(picture, 128)):
        expected = Augmenter(tiny(augment=OFF), data)([choice], torch.tensor(views[:1]))[0]
        found.append(sum(torch.equal(image, expected) for image in images))
    softer = (
        images.diff(dim=3).abs().mean((1, 2, 3))
        < augmented(tiny(augment=OFF), data, views[:1]).diff(dim=3).abs().mean()
    )
    found.append(600 - sum(found))
    assert all(150 < count < 250 for count in found)
    assert int(softer.sum()) > found[2] * 0.9


def test_three_augment_goes_with_jitter_and_leaves_the_draws_of_others_alone() -> None:
    data = dataset(3)
    three, plain = ({**OFF, "crop": "simple-random", "auto_augment": policy} for policy in ("3a", None))
    assert not torch.equal(
        augmented(tiny(augment=three), data), augmented(tiny(augment={**three, "color_jitter": 0.3}), data)
    )
    erased, as_before = (augmented(tiny(augment={**each, "erasing": 1.0}), data) for each in (three, plain))
    boxes = as_before != augmented(tiny(augment=plain), data)
    assert boxes.any()
    assert torch.equal(erased[boxes], as_before[boxes])  # the same noise at the same places


def test_the_simple_random_crop_keeps_the_ratio_and_reflects() -> None:
    """A picture of columns, twice as wide as high, keeps their width, and no place is black."""
    wide = np.tile(np.repeat(np.arange(50, 242, 6, dtype=np.uint8), 1), (8, 16, 1))
    images = ArrayImages(wide, np.zeros(8, dtype=np.int64))
    data = Dataset("wide", ("a",), 1, (0.0,), (1 / 255,), images, images, "")
    made = augmented(tiny(augment={**OFF, "crop": "simple-random"}), data)
    assert made.shape == (8, 1, 16, 16)
    assert made.min() >= 50
    assert set(made.diff(dim=3).abs().flatten().tolist()) <= {0.0, 6.0}
    assert len({image.numpy().tobytes() for image in made}) > 4


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


# -- custom augmentations -------------------------------------------------------------------------------------------


NOISE, SCRIBBLE, SHIFT = "tiny:noise", "tiny:scribble", "tiny:shift"


def with_custom(*custom: Any, **changes: Any) -> Recipe:
    return tiny(augment={**OFF, **changes, "custom": list(custom)})


def test_a_custom_augmentation_comes_after_the_others_and_repeats_itself() -> None:
    data = dataset(1)
    black = {"name": SCRIBBLE, "options": {"level": 0}}
    images = augmented(with_custom(black, crop="pad"), data)
    assert torch.allclose(images[:, :, 0], torch.tensor(-0.4 / 0.2)), "the row that it blackens, after the crop"
    assert torch.equal(images[:, :, 1:], augmented(with_custom(crop="pad"), data)[:, :, 1:])
    noisy = augmented(with_custom(NOISE), data)
    seed_generators(12345)
    assert torch.equal(noisy, augmented(with_custom(NOISE), data))
    assert not torch.equal(noisy, augmented(with_custom({"name": NOISE, "options": {"sigma": 30}}), data))
    assert noisy.shape == (8, 1, 16, 16)
    assert augmented(with_custom(NOISE, SHIFT), dataset(3)).shape == (8, 3, 16, 16)


def test_the_random_numbers_of_each_are_its_own() -> None:
    """A shift of the tensor by a random number: what two do is the sum of what each does alone."""
    data = dataset(1)
    plain, shifted = augmented(with_custom(), data), augmented(with_custom(SHIFT), data)
    shift = (shifted - plain)[:, 0, 0, 0]
    assert len(set(shift.tolist())) == 8, "another one for each view"
    for others in ({"name": SCRIBBLE, "options": {"level": 7}}, "tiny:nothing"):
        for custom in ([others, SHIFT], [SHIFT, others]):
            together = augmented(with_custom(*custom), data)
            assert torch.allclose((together - augmented(with_custom(others), data))[:, 0, 5, 5], shift, atol=1e-5)
    twice = (augmented(with_custom(SHIFT, SHIFT), data) - plain)[:, 0, 0, 0]
    assert not torch.allclose(twice, 2 * shift), "listed twice it draws twice"
    by_library = augmented(with_custom("tiny:library"), data)
    seed_generators(1)
    assert torch.equal(by_library, augmented(with_custom("tiny:library"), data)), "global generators are seeded too"


def test_one_that_draws_on_its_picture_leaves_the_repeats_alone() -> None:
    data = dataset(1)
    picture = data.train[0]
    before = np.asarray(picture).copy()
    images = Augmenter(with_custom(SCRIBBLE), data)([picture, picture], torch.tensor([(0, 0, 0), (0, 0, 1)]))
    assert np.array_equal(np.asarray(picture), before)
    assert not torch.equal(images, augmented(with_custom(), data, [(0, 0, 0), (0, 0, 1)]))


@pytest.mark.parametrize("function", ["returns_nothing", "crops", "flattens"])
def test_what_it_returns_must_be_like_what_it_was_given(function: str) -> None:
    with pytest.raises(TrainError, match=f"the augmentation tiny:{function} returned no (image|tensor) like the one"):
        augmented(with_custom(f"tiny:{function}"), dataset(1))
