"""Trees of picture files: what is listed, how any mode becomes RGB, and what happens at files that are no pictures."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from tiny import tiny
from torch._utils import ExceptionWrapper
from torchvision.datasets import ImageFolder

from deit_ablate.errors import DataError, TrainError
from deit_ablate.recipe import Recipe
from deit_ablate.train.augment import Augmenter
from deit_ablate.train.data import images as files
from deit_ablate.train.data.images import FileImages, Undecodable, decode, list_tree, shown
from deit_ablate.train.data.loader import TrainingImages, _Evaluation, evaluation_batches, training_batches
from deit_ablate.train.data.sets import Dataset, Splits, load_data

SIDE = 16


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def pixel(content: bytes) -> list[int]:
    image = decode(content)
    assert image.mode == "RGB"
    return np.asarray(image)[0, 0].tolist()  # type: ignore[no-any-return]


def tree(folder: Path, *paths: str) -> None:
    """Pictures at these paths, each of a colour of its own; all are in train/ and val/."""
    for part in ("train", "val"):
        for number, path in enumerate(paths):
            (folder / part / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 24), (10 * number, 0, 0)).save(folder / part / path)


def load(folder: Path, **data: Any) -> Splits:
    """The data, whose files are not checked unless asked for."""
    return load_data(recipe(**{"corrupt": "skip", **data}), folder)


def recipe(**data: Any) -> Recipe:
    return tiny(
        data={"name": "imagefolder", "id": "mine", "train_images": None, "validation": 0, "resolution": SIDE, **data},
        schedule={"batch_size": 2},
    )


# -- decoding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("1", (4, 4), 1), [255, 255, 255]),
        (Image.new("L", (4, 4), 77), [77, 77, 77]),
        (Image.new("LA", (4, 4), (77, 0)), [77, 77, 77]),
        (Image.new("RGB", (4, 4), (1, 2, 3)), [1, 2, 3]),
        (Image.new("RGBA", (4, 4), (1, 2, 3, 0)), [1, 2, 3]),
        (Image.new("RGB", (4, 4), (200, 100, 50)).quantize(4), [200, 100, 50]),
    ],
)
def test_any_mode_becomes_rgb_and_transparency_is_dropped(image: Image.Image, expected: list[int]) -> None:
    assert pixel(encoded(image)) == expected


def test_a_palette_with_transparency_is_read_without_a_warning() -> None:
    palette = Image.new("RGB", (4, 4), (200, 100, 50)).quantize(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for transparency in (0, bytes([0, 128, 255])):
            assert pixel(encoded(palette, transparency=transparency)) == [200, 100, 50]


def test_cmyk_is_turned_into_colours() -> None:
    content = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    red, green, blue = pixel(content)
    assert red > 240
    assert max(green, blue) < 15


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.array([[0, 128, 129, 257 * 100, 40_000, 65_535]], np.uint16)
    expected = [0, 0, 1, 100, 156, 255]  # rounded value / 257
    for format in ("PNG", "TIFF"):
        image = decode(encoded(Image.fromarray(values), format))
        assert np.asarray(image)[0, :, 0].tolist() == expected
    header = b"P5 6 1 65535\n"
    assert np.asarray(decode(header + values.astype(">u2").tobytes()))[0, :, 1].tolist() == expected
    for mode in ("I", "F"):
        with pytest.raises(ValueError, match="32-bit numbers of unknown range"):
            decode(encoded(Image.new(mode, (2, 2), 70_000), "TIFF"))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_pictures_are_turned_upright_as_pillow_does(format: str) -> None:
    picture = Image.fromarray(
        np.random.RandomState(0).randint(0, 256, (3, 5, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    )
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = encoded(picture, format, exif=exif)
        theirs = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
        ours = decode(content)
        assert ours.size == ((24, 40) if 5 <= orientation <= 8 else (40, 24))
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_a_damaged_exif_block_costs_nothing() -> None:
    picture = Image.new("RGB", (8, 8), (9, 9, 9))
    for exif in (b"Exif\0\0nonsense", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of it, as it should
            assert pixel(encoded(picture, "JPEG", exif=exif)) == [9, 9, 9]


def png_of_size(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_what_is_no_picture_is_named_whatever_the_decoder_raised(tmp_path: Path) -> None:
    noise = Image.effect_noise((64, 64), 90).convert("RGB")
    whole = encoded(noise, "JPEG")
    wrong = {
        "empty.png": (b"", "it is empty"),
        "text.png": (b"not a picture", "it is damaged, or none of JPEG, PNG"),
        "half.jpg": (whole[: len(whole) // 2], "truncated"),
        "bomb.png": (png_of_size(60_000, 60_000), "decompression bomb"),
        "script.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) print\n", "or none of JPEG"),
        "float.tif": (encoded(Image.new("F", (4, 4)), "TIFF"), "32-bit"),
        "short.bmp": (encoded(Image.new("RGB", (9, 9)), "BMP")[:60], "truncated"),
        "half.png": (encoded(noise)[:1000], "truncated"),
    }
    for name, (content, _) in wrong.items():
        (tmp_path / name).write_bytes(content)
    images = FileImages.of(tmp_path, [os.fsencode(name) for name in wrong], np.zeros(len(wrong)))
    for index, (name, (_, why)) in enumerate(wrong.items()):
        with pytest.raises(Undecodable, match=f"{name} cannot be read as a picture: .*{why}"):
            images[index]
    assert issubclass(Undecodable, TrainError)


def test_random_damage_is_the_files_fault_and_never_the_storages(tmp_path: Path) -> None:
    noise = Image.effect_noise((24, 24), 90).convert("RGB")
    draw = np.random.RandomState(0)
    (tmp_path / "x").touch()
    images = FileImages.of(tmp_path, [b"x"], np.zeros(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for format in ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM"):
            whole = bytearray(encoded(noise, format))
            for _ in range(60):
                content = bytearray(whole)
                for place in draw.randint(0, min(len(whole), 400), 4):
                    content[place] = draw.randint(256)
                (tmp_path / "x").write_bytes(content)
                with contextlib.suppress(Undecodable):
                    assert images[0].mode == "RGB"


def test_the_storages_errors_are_its_own(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileImages.of(tmp_path, [b"gone.png"], np.zeros(1))[0]


# -- listing --------------------------------------------------------------------------------------------------------


def test_a_tree_has_the_images_of_torchvision_in_its_order_and_the_old_fingerprint(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "a/1.png",
        "a/10.PNG",
        "a/2.Jpeg",
        "a/sub/0.png",
        "a/sub-x/0.png",
        "a/sub.x/0.png",
        "a/sub/deep/0.bmp",
        "a-b/0.png",
        "a b/0.png",
        "B/\u00e9.png",
        "B/z.png",
        "\u00e4/1.webp",
    )
    (tmp_path / "train" / "a" / "notes.txt").write_text("no picture")
    (tmp_path / "train" / "link").symlink_to("a/sub")
    (tmp_path / "val" / "link").symlink_to("a/sub")
    (tmp_path / "train" / "a" / "3.png").symlink_to("1.png")
    dataset = load(tmp_path).dataset
    every = []
    for part, ours in (("train", dataset.train), ("val", dataset.test)):
        theirs = ImageFolder(str(tmp_path / part))
        assert isinstance(ours, FileImages)
        assert list(dataset.classes) == theirs.classes
        assert [str(tmp_path / os.fsdecode(ours.name(index))) for index in range(len(ours))] == [
            p for p, _ in theirs.samples
        ]
        assert ours.targets.tolist() == theirs.targets
        every += [path for path, _ in theirs.samples]
    assert len(every) == 13 + 12 + 4
    entries = sorted((Path(path).relative_to(tmp_path).as_posix(), Path(path).stat().st_size) for path in every)
    lines = "".join(f"{name}\0{size}\n" for name, size in entries)
    assert dataset.listing == hashlib.sha256(f"{len(entries)}\n{lines}".encode()).hexdigest()


def test_hidden_entries_are_no_part_of_the_data_and_counted(tmp_path: Path) -> None:
    tree(tmp_path, "cat/0.png", "dog/0.png")
    plain = load(tmp_path).dataset
    tree(tmp_path, ".ipynb_checkpoints/0.png", "cat/.ipynb_checkpoints/0.png", "cat/._0.png", "dog/Thumbs.db.png")
    for part in ("train", "val"):
        (tmp_path / part / ".DS_Store").write_bytes(b"")
        (tmp_path / part / "cat" / "Thumbs.db").write_bytes(b"")
        (tmp_path / part / "dog" / "notes.TXT").write_text("no picture")
        (tmp_path / part / "dog" / "Thumbs.db.png").unlink()
        (tmp_path / part / "labels.csv").write_text("neither")
    found = load(tmp_path)
    assert found.dataset.classes == ("cat", "dog")
    assert len(found.dataset.train) == len(found.dataset.test) == 2
    assert (found.dataset.fingerprint, found.dataset.listing) == (plain.fingerprint, plain.listing)
    facts = found.facts()
    assert (facts["ignored_hidden"], facts["ignored_other"]) == (10, 4)


def test_one_class_is_refused(tmp_path: Path) -> None:
    tree(tmp_path, "cat/0.png", ".ipynb_checkpoints/0.png")
    with pytest.raises(DataError, match="holds one class only \\(cat\\): expected two or more"):
        load(tmp_path)


def test_files_are_two_objects_however_many_they_are() -> None:
    names = [b"train/n%08d/%d.JPEG" % (number % 1000, number) for number in range(5000)]
    images = FileImages.of("/data", names, np.arange(5000))
    assert [images.name(index) for index in range(5000)] == names
    assert images.name(-1) == names[-1]
    with pytest.raises(IndexError):
        images.name(5000)
    assert len(pickle.dumps(images)) < sum(map(len, names)) + 5000 * 16 + 1000
    assert len(FileImages.of("/data", [], np.zeros(0))) == 0


def test_a_name_that_is_not_utf_8_is_read_and_shown(tmp_path: Path) -> None:
    tree(tmp_path, "a/0.png", "b/0.png")
    odd = os.path.join(os.fsencode(tmp_path), b"train/a/\xff\x1b.png")
    os.rename(tmp_path / "train" / "a" / "0.png", odd)
    assert load(tmp_path).dataset.train[0].size == (20, 24)
    Path(os.fsdecode(odd)).write_bytes(b"")
    with pytest.raises(Undecodable, match=r"train/a/\\xff\\x1b\.png cannot be read"):
        load(tmp_path).dataset.train[0]
    os.rename(tmp_path / "train" / "b", os.path.join(os.fsencode(tmp_path), b"train/\xff"))
    with pytest.raises(TrainError, match=r"train/\\xff: the name of this class is not UTF-8"):
        load(tmp_path)
    assert shown("a\u00e9\n".encode()) == "a\u00e9\\n"


def test_image_folders_say_what_is_wrong(tmp_path: Path) -> None:
    def said(pattern: str, folder: Path | None = tmp_path) -> None:
        with pytest.raises(TrainError, match=pattern):
            load_data(recipe(), folder)

    said("needs a data folder", None)
    said("does not exist", tmp_path / "nowhere")
    said("no folder train/")
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    said("train has no folders: expected one a class")
    tree(tmp_path, "cat/0.png", "dog/0.png")
    assert load(tmp_path).dataset.classes == ("cat", "dog")
    (tmp_path / "val" / "dog").rename(tmp_path / "val" / "dogs")
    said(r"different classes \(only in train/: dog; only in val/: dogs\)")
    (tmp_path / "val" / "dogs").rename(tmp_path / "val" / "dog")
    for number in range(7):
        (tmp_path / "train" / f"x{number}").mkdir()
    said(r"only in train/: x0, x1, x2, x3, x4 and 2 more\)")
    for number in range(7):
        (tmp_path / "train" / f"x{number}").rmdir()
    (tmp_path / "val" / "dog" / "0.png").rename(tmp_path / "val" / "dog" / "0.heic")
    said(r"val/dog holds no pictures \(\.jpg, .*\): fill the folder or remove it")
    (tmp_path / "val" / "dog" / "0.heic").rename(tmp_path / "val" / "dog" / "0.png")
    with pytest.raises(TrainError, match="not the whole ImageNet-1k"):
        load_data(tiny(data={"name": "imagenet", "train_images": None}), tmp_path)


def test_links_that_lead_nowhere_or_round_and_what_is_no_file_are_named(tmp_path: Path) -> None:
    tree(tmp_path, "cat/0.png", "dog/0.png")
    cat = tmp_path / "train" / "cat"

    def said(pattern: str) -> None:
        with pytest.raises(TrainError, match=pattern):
            load(tmp_path)

    (cat / "1.png").symlink_to("gone.png")
    said(r"cat/1\.png is a link to nothing")
    (cat / "1.png").unlink()
    (cat / "1.png").symlink_to("1.png")
    said(r"cat/1\.png is a link to itself")
    (cat / "1.png").unlink()
    os.mkfifo(cat / "1.png")
    said(r"cat/1\.png is not a regular file")
    (cat / "1.png").unlink()
    (cat / "round").symlink_to("../dog")
    (tmp_path / "train" / "dog" / "round").symlink_to("../cat")
    said(r"round/round is a link to a folder that holds it")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_named(tmp_path: Path) -> None:
    tree(tmp_path, "cat/sub/0.png", "dog/0.png")
    for place, mode in (("train/cat/sub", 0), ("train/cat", 0), ("train/dog", 0o400), ("val", 0), (".", 0)):
        before = (tmp_path / place).stat().st_mode
        (tmp_path / place).chmod(mode)
        try:
            with pytest.raises(
                TrainError, match=f"{place}.* may not be read by this user" if place != "." else "no folder"
            ):
                load(tmp_path)
        finally:
            (tmp_path / place).chmod(before)


def test_the_storages_errors_in_listing_are_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(path: Any) -> Any:
        raise OSError(5, "Input/output error", path)

    monkeypatch.setattr(files.os, "scandir", scandir)
    with pytest.raises(OSError, match="Input/output error"):
        list_tree(os.fsencode(tmp_path))


# -- files that are no pictures, in a training ----------------------------------------------------------------------


@pytest.fixture
def spoilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """cat: 0 1 2 3, dog: 0 1 2 3; cat/2, cat/3, dog/0 and dog/3 are no pictures, in train/ as in val/."""
    monkeypatch.setattr(files, "_told", set())
    tree(tmp_path, *(f"{label}/{number}.png" for label in ("cat", "dog") for number in range(4)))
    for part in ("train", "val"):
        for name in ("cat/2", "cat/3", "dog/0", "dog/3"):
            (tmp_path / part / f"{name}.png").write_bytes(b"not a picture")
    return tmp_path


PLAIN = {"crop": "none", "hflip": 0.0, "auto_augment": None, "color_jitter": 0.0, "erasing": 0.0}


def training(data: Splits, order: Any = None) -> TrainingImages:
    plain = tiny(data={"name": "imagefolder", "id": "mine", "resolution": SIDE}, augment=PLAIN)
    return TrainingImages(data.dataset.train, Augmenter(plain, data.dataset), order)


def redness(batch: torch.Tensor, dataset: Dataset) -> list[int]:
    return [round(value) for value in ((batch[:, 0].mean((1, 2)) * dataset.std[0] + dataset.mean[0]) * 255).tolist()]


def test_a_file_that_is_no_picture_ends_a_training_by_its_name(spoilt: Path) -> None:
    data = load(spoilt)
    with pytest.raises(TrainError, match=rf"^{spoilt}/train/cat/2\.png cannot be read as a picture: [^\n]*$"):
        training(data).__getitems__([(0, 1, 0), (0, 2, 0)])
    with pytest.raises(TrainError, match=r"^[^\n]*val/cat/2\.png cannot be read as a picture"):
        list(evaluation_batches(recipe(), data.dataset, data.dataset.test))


def test_what_a_loader_raises_arrives_as_one_sentence(spoilt: Path) -> None:
    try:
        load(spoilt).dataset.train[2]
    except TrainError:
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(TrainError, match=rf"^{spoilt}/train/cat/2\.png cannot be read as a picture: [^\n]*$"):
        wrapped.reraise()


def test_its_place_is_taken_by_the_next_of_the_split_with_its_class(spoilt: Path, capfd: Any) -> None:
    data = load(spoilt)
    order = np.array([0, 2, 3, 4, 6, 7])  # 1 and 5, which are pictures, are of the validation part
    views = [(0, index, repeat) for index in order.tolist() for repeat in (0, 1)]
    batch, _, targets = training(data, order).__getitems__(views)
    assert redness(batch, data.dataset) == [each for each in (0, 60, 60, 60, 60, 0) for _ in (0, 1)]
    assert targets.tolist() == [each for each in (0, 1, 1, 1, 1, 0) for _ in (0, 1)]
    printed = capfd.readouterr().out.splitlines()
    assert len(printed) == 4, "each once"
    assert printed[0].startswith(f"passed over: {spoilt}/train/cat/2.png cannot be read as a picture")
    alone, *_ = training(data, order).__getitems__([(0, 3, 1)])
    assert torch.equal(alone[0], batch[5]), "whatever was asked for before"
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("loaders", [0, 1])
def test_a_training_skips_where_its_recipe_says_so(spoilt: Path, loaders: int) -> None:
    skipping = recipe(corrupt="skip")
    data = load_data(skipping, spoilt)
    assert len(data.train) == 8, "what a file holds is not known before it is read"
    batches = list(training_batches(skipping, data, 0, loaders))
    expected = list(training_batches(skipping, data, 0, 0))
    assert len(batches) == 2 * 4
    assert all(
        torch.equal(ours, theirs)
        for pair in zip(batches, expected, strict=True)
        for ours, theirs in zip(*pair, strict=True)
    )
    with pytest.raises(TrainError, match="cannot be read as a picture"):
        list(training_batches(recipe(), data, 0, loaders=0))


def test_where_nothing_can_be_decoded_the_search_ends(spoilt: Path) -> None:
    source = training(load(spoilt), np.array([2, 3, 4]))
    for _ in range(2):
        with pytest.raises(TrainError, match="^none of the 3 training images can be decoded$"):
            source.__getitems__([(0, 3, 0)])


@pytest.mark.parametrize("loaders", [0, 1])
def test_in_evaluation_it_is_left_out(spoilt: Path, loaders: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deit_ablate.train.data.loader.EVALUATION_BATCH", 3)
    data = load(spoilt, eval_crop=1.0)
    batches = list(
        evaluation_batches(recipe(corrupt="skip", eval_crop=1.0), data.dataset, data.dataset.test, loaders=loaders)
    )
    assert [len(images) for images, _ in batches] == [2, 1, 1]
    assert [targets.tolist() for _, targets in batches] == [[0, 0], [1], [1]]
    assert [redness(images, data.dataset) for images, _ in batches] == [[0, 10], [50], [60]]
    images, targets = _Evaluation(data.dataset.test, recipe(corrupt="skip"), data.dataset).__getitems__([2, 3])
    assert images.dtype == torch.uint8
    assert (images.shape, targets.shape) == ((0, 3, SIDE, SIDE), (0,))
    assert targets.dtype == torch.int64


def test_the_repeats_of_an_image_are_decoded_once(tmp_path: Path) -> None:
    tree(tmp_path, "cat/0.png", "dog/0.png")
    data, asked = load(tmp_path), []

    class Counting:
        targets = data.dataset.train.targets

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Image.Image:
            asked.append(index)
            return data.dataset.train[index]

    strong = tiny(
        data={"name": "imagefolder", "id": "mine", "resolution": SIDE}, augment={"auto_augment": "rand-m9-n4-inc1"}
    )
    views = [(0, 1, 0), (0, 1, 1), (0, 0, 0), (0, 1, 2)]
    together, _, targets = TrainingImages(Counting(), Augmenter(strong, data.dataset)).__getitems__(views)
    assert asked == [1, 0]
    assert targets.tolist() == [1, 1, 0, 1]
    for place, view in enumerate(views):
        alone, *_ = TrainingImages(data.dataset.train, Augmenter(strong, data.dataset)).__getitems__([view])
        assert torch.equal(together[place], alone[0])


def test_listing_needs_no_torch() -> None:
    code = "import sys, deit_ablate.train.data.images, deit_ablate.train.data.staging; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
