"""A model's transform: pictures as others have them become what the test split was."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from tiny import tiny, write_fashion

from deit_ablate.train.augment import to_pixels
from deit_ablate.train.classifier import Transform, config, untrained
from deit_ablate.train.data.images import ArrayImages, decode
from deit_ablate.train.data.loader import evaluation_batches
from deit_ablate.train.data.sets import Dataset, load_data


@pytest.mark.parametrize("eval_crop", [1.0, 0.875])
def test_a_grey_picture_as_it_comes_becomes_that_of_the_test_split(tmp_path: Path, eval_crop: float) -> None:
    write_fashion(tmp_path)
    recipe = tiny(data={"name": "fashion-mnist", "resolution": 32, "train_images": 16, "eval_crop": eval_crop})
    dataset = load_data(recipe, tmp_path).dataset
    draw = np.random.RandomState(0)
    draw.randint(0, 256, (60, 28, 28))  # of write_fashion, as they are in the files
    originals = draw.randint(0, 256, (20, 28, 28)).astype(np.uint8)
    transform = Transform(recipe, dataset)
    seen = torch.cat([images for images, _ in evaluation_batches(recipe, dataset, dataset.test)])
    assert torch.equal(torch.stack([transform(Image.fromarray(each)) for each in originals]), seen)
    assert torch.equal(torch.stack([transform(dataset.test[place]) for place in range(20)]), seen), "resized already"
    written = config(recipe, untrained(recipe, dataset, "fused"))
    assert written["pretrained_cfg"]["interpolation"] == "bilinear"


def test_a_file_is_seen_as_training_decodes_it() -> None:
    recipe = tiny()
    pictures = ArrayImages(np.zeros((40, 16, 16, 3), np.uint8), np.arange(40) % 10)
    dataset = Dataset("mine", tuple("0123456789"), 3, (0.5,) * 3, (0.2,) * 3, pictures, pictures, "f")
    transform = Transform(recipe, dataset)
    photo = Image.fromarray(np.random.RandomState(0).randint(0, 256, (24, 16, 3)).astype(np.uint8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    deep = Image.fromarray(np.linspace(0, 65535, 24 * 24).reshape(24, 24).astype(np.uint16))
    cases: list[tuple[Image.Image, dict[str, Any]]] = [(photo, {"exif": exif}), (photo, {}), (deep, {})]
    for picture, how in cases:
        file = io.BytesIO()
        picture.save(file, "PNG", **how)
        decoded = decode(file.getvalue())
        expected = transform.normalise(to_pixels([np.asarray(transform.resize(decoded))]))[0]
        assert torch.equal(transform(Image.open(file)), expected)
        assert torch.equal(transform(decoded), expected), "not turned twice"
    assert config(recipe, untrained(recipe, dataset, "fused"))["pretrained_cfg"]["interpolation"] == "bicubic"
