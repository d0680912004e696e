"""Files that are decoded by the batch: the same pictures, crops, stand-ins and errors as by Pillow, one by one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import encoded, picture, tiny, turned, write_pictures
from torch import Tensor

from deit_ablate.errors import TrainError
from deit_ablate.recipe import Recipe
from deit_ablate.train import pixels
from deit_ablate.train.augment import Augmenter, to_pixels
from deit_ablate.train.data import read
from deit_ablate.train.data.images import Undecodable, decode
from deit_ablate.train.data.loader import TrainingImages, training_batches, views_of_block
from deit_ablate.train.data.read import Read, decodes_alike, mean_sizes
from deit_ablate.train.data.sets import load_data

CPU = torch.device("cpu")


PLAIN, GREY = encoded(picture(0)), encoded(picture(1, "L"))


@pytest.mark.parametrize(
    ("content", "alike"),
    [
        pytest.param(PLAIN, True, id="in colour"),
        pytest.param(GREY, True, id="in grey"),
        pytest.param(encoded(picture(0), progressive=True), True, id="progressive"),
        pytest.param(encoded(picture(0, "CMYK")), False, id="inks"),
        pytest.param(encoded(picture(0), keep_rgb=True), False, id="RGB itself"),
        pytest.param(turned(), False, id="turned"),
        pytest.param(encoded(picture(0), "PNG"), False, id="PNG"),
        pytest.param(PLAIN[:-20], False, id="cut off"),
        pytest.param(PLAIN + b"appended", False, id="with something behind it"),
        pytest.param(b"\xff\xd8 and no more \xff\xd9", False, id="no picture"),
        pytest.param(b"", False, id="empty"),
    ],
)
def test_only_what_comes_out_as_pillow_has_it_is_left_to_the_device(content: bytes, alike: bool) -> None:
    assert decodes_alike(content) == alike


def by_batch(**changes: Any) -> Recipe:
    data = {"name": "imagefolder", "id": "pets", "train_images": None, "validation": 0.0, "decoder": "device"}
    augment = {"crop": "random-resized", "auto_augment": "rand-m9-mstd0.5-inc1", **changes.pop("augment", {})}
    data |= changes.pop("data", {})
    return tiny(data=data, augment=augment, schedule={"batch_size": 8, "epochs": 2, "warmup_epochs": 0}, **changes)


def test_files_come_out_as_pillow_has_them(tmp_path: Path) -> None:
    contents = write_pictures(tmp_path)
    data = load_data(by_batch(), tmp_path)
    images: Any = data.dataset.train
    order = [5, 3, 3, 7, 0, 12, 5]
    given = Read.of_views(images, order, lambda index: (images[index], index))
    assert len(given.shapes) == 5, "each is read once"
    pictures, indices = given.decoded(CPU, lambda index: pytest.fail("decoded again"))
    assert indices == order
    for view, index in enumerate(order):
        expected = to_pixels([np.asarray(decode(contents[index]))])[0]
        assert torch.equal(pictures.pictures[int(pictures.of[view])], expected)


def test_crops_of_pictures_of_many_sizes_are_pillows(tmp_path: Path) -> None:
    made = [picture(number) for number in range(50)]
    tensors = [to_pixels([np.asarray(each)])[0] for each in made]
    of, random = torch.arange(70) % 50, np.random.RandomState(0)
    boxes, expected = [], []
    for index in of.tolist():
        width, height = made[index].size
        down, across = random.randint(3, height + 1), random.randint(3, width + 1)
        top, left = random.randint(0, height - down + 1), random.randint(0, width - across + 1)
        boxes.append((top, left, down, across))
        crop = made[index].crop((left, top, left + across, top + down))
        expected.append(np.asarray(crop.resize((17, 17), Image.Resampling.BICUBIC)))
    ours = pixels.resampled(pixels.Pictures(tensors, of), torch.tensor(boxes), 17)
    assert torch.equal(ours, to_pixels(expected))


def test_boxes_that_are_resampled_together_are_bounded_in_number_and_in_pixels() -> None:
    random = np.random.RandomState(0)
    sizes = torch.from_numpy(random.randint(1, 3000, (300, 2)))
    sizes[:200] = torch.from_numpy(random.randint(1, 60, (200, 2)))
    sizes[7] = torch.tensor([9000, 9000])
    groups = list(pixels._alike(sizes))
    assert sorted(torch.cat(groups).tolist()) == list(range(300))
    assert max(map(len, groups)) == pixels.ALIKE
    assert all(len(some) == 1 or len(some) * sizes[some].amax(0).prod() <= pixels.TOGETHER for some in groups)


def test_large_pictures_make_small_blocks(tmp_path: Path) -> None:
    contents = write_pictures(tmp_path)
    images: Any = load_data(by_batch(), tmp_path).dataset.train
    sizes = [np.prod(image.size) for image in images]
    sent = [len(content) if decodes_alike(content) else 3 * size for content, size in zip(contents, sizes, strict=True)]
    assert mean_sizes(images, count=1000) == (np.mean(sizes), np.mean(sent))
    augment = Augmenter(by_batch(), load_data(by_batch(), tmp_path).dataset)
    (tmp_path / "train" / "cat" / "00.png").write_bytes(b"")
    assert min(mean_sizes(images)) > 0
    source = TrainingImages(images, augment)
    small = views_of_block(by_batch(), source, CPU)
    for number in range(24):
        picture(number).resize((2000, 1500)).save(tmp_path / "train" / "dog" / f"{number:02}.jpeg")
    assert 0 < views_of_block(by_batch(), source, CPU) < small / 5


def test_what_a_device_refuses_is_decoded_by_pillow_and_nothing_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another decoder gives other pixels: those of a picture may not depend on which others are in its block."""
    contents = write_pictures(tmp_path)
    images: Any = load_data(by_batch(), tmp_path).dataset.train
    given = read._decode_jpeg
    refused = len(contents[2])

    def other(files: list[Tensor], device: torch.device) -> list[Tensor]:
        if any(len(file) == refused for file in files):
            raise RuntimeError("unsupported")
        return [255 - each for each in given(files, device)]

    monkeypatch.setattr(read, "_decode_jpeg", other)
    made, _ = Read.of_views(images, [1, 2, 3], lambda index: (images[index], index)).decoded(
        CPU, lambda index: (images[index], index)
    )
    for index, ours in zip((1, 2, 3), made.pictures, strict=True):
        theirs = to_pixels([np.asarray(decode(contents[index]))])[0]
        assert torch.equal(ours, theirs if index == 2 else 255 - theirs)


@pytest.mark.parametrize(("said", "raised"), [("not compiled with nvJPEG", TrainError), ("CUDA out of memory", None)])
def test_a_device_that_cannot_decode_is_told_from_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, raised: Any
) -> None:
    write_pictures(tmp_path)

    def refuses(files: list[Tensor], device: torch.device) -> list[Tensor]:
        if raised or len(files) > 1:
            raise RuntimeError(said)
        return []

    monkeypatch.setattr(read, "_decode_jpeg", refuses)
    with pytest.raises(raised or torch.OutOfMemoryError, match=said):
        batches(by_batch(), tmp_path)


def batches(recipe: Recipe, folder: Path, start: int = 0, loaders: int = 0) -> list[tuple[Tensor, Tensor]]:
    return list(training_batches(recipe, load_data(recipe, folder), start, loaders))


@pytest.mark.parametrize("crop", ["random-resized", "pad", "none"])
def test_batches_begin_at_any_step_and_loaders_change_nothing(tmp_path: Path, crop: str) -> None:
    write_pictures(tmp_path)
    recipe = by_batch(augment={"crop": crop})
    whole = batches(recipe, tmp_path)
    assert len(whole) == 12
    for start, loaders in ((0, 2), (7, 0), (5, 2)):
        part = batches(recipe, tmp_path, start, loaders)
        for (images, targets), (expected, labels) in zip(part, whole[start:], strict=True):
            assert torch.equal(images, expected)
            assert torch.equal(targets, labels)


def test_without_augmentation_images_are_those_that_pillow_decodes(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    plain = {"crop": "none", "auto_augment": None, "hflip": 0.0, "erasing": 0.0, "color_jitter": 0.0}
    decoders = (by_batch(augment=plain, data={"decoder": decoder}) for decoder in ("device", "pillow"))
    ours, theirs = (batches(recipe, tmp_path) for recipe in decoders)
    for (images, targets), (expected, labels) in zip(ours, theirs, strict=True):
        assert torch.equal(images, expected)
        assert torch.equal(targets, labels)


@pytest.mark.parametrize("loaders", [0, 2])
def test_a_file_that_is_damaged_inside_stops_the_run_or_is_replaced(tmp_path: Path, loaders: int) -> None:
    write_pictures(tmp_path)
    broken = tmp_path / "train" / "cat" / "23.jpeg"  # the next one is a dog
    content = broken.read_bytes()
    table = content.index(b"\xff\xc4") + 4
    broken.write_bytes(content[:table] + b"\xff" * 16 + content[table + 16 :])  # its header is whole
    assert decodes_alike(broken.read_bytes())
    recipe = by_batch(data={"corrupt": "skip"}, augment={"repeats": 1})
    targets = torch.cat([labels for _, labels in batches(recipe, tmp_path, 0, loaders)])
    assert targets.sum() == 2 * 25, "in two epochs a second dog stands in for the cat"
    data = load_data(recipe, tmp_path)
    failing = by_batch(augment={"repeats": 1})
    with pytest.raises(Undecodable, match=broken.name):
        list(training_batches(failing, data, 0, loaders))


def test_pictures_that_a_data_set_makes_itself_are_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    data = load_data(by_batch(), tmp_path).dataset
    made: Any = [(Image.new("RGB", (20, 20)), 0)] * 8
    with pytest.raises(TrainError, match="the decoder device reads files, and imagefolder gives pictures"):
        Augmenter(by_batch(), dataclasses.replace(data, train=made))


@pytest.mark.parametrize(
    ("augment", "named"),
    [
        ({"crop": "simple-random"}, "augment.crop"),
        ({"auto_augment": "3a"}, "augment.auto_augment"),
        ({"custom": ["tiny:noise"]}, "augment.custom"),
    ],
)
def test_what_is_done_to_one_picture_alone_is_refused(tmp_path: Path, augment: dict[str, Any], named: str) -> None:
    write_pictures(tmp_path)
    recipe = by_batch(augment=augment)
    with pytest.raises(TrainError, match=f"the decoder device .* {named} cannot"):
        Augmenter(recipe, load_data(recipe, tmp_path).dataset)
