"""Turning a field of the recipe changes what it should, and nothing else.

Each row turns one field and names the parts of a training that must then differ; all other parts must stay the same
to the bit. A field of the recipe without a row fails the test.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import Stopping, tiny, write_tree
from torch import Tensor, nn

from deit_ablate.errors import TrainError
from deit_ablate.identity import canonical, canonical_json, run_id
from deit_ablate.recipe import BLOCKS, Data, Recipe, fields_of
from deit_ablate.train.augment import Augmenter
from deit_ablate.train.data.images import ArrayImages
from deit_ablate.train.data.loader import epoch_views, evaluation_batches, steps_per_epoch, training_batches
from deit_ablate.train.data.sets import Dataset, Splits, digits, load_data
from deit_ablate.train.distill import build_loss, distillation_of
from deit_ablate.train.loop import initial_model, train
from deit_ablate.train.mixing import build_mixing
from deit_ablate.train.model import heads
from deit_ablate.train.optim import Ema, build_optimizer, build_schedule, effective_lr
from deit_ablate.train.precision import autocast, build_scaler
from deit_ablate.train.streams import seed_generators, stream
from deit_ablate.train.teachers import build_teacher

CPU = torch.device("cpu")


# -- the parts of a training ----------------------------------------------------------------------------------------


def splits(recipe: Recipe, data: Splits) -> Any:
    return [data.train, data.validation]


def order(recipe: Recipe, data: Splits) -> Any:
    return [
        list(epoch_views(data.train, recipe.seed, epoch, recipe.augment.repeats, recipe.schedule.batch_size))
        for epoch in range(2)
    ]


def images(recipe: Recipe, data: Splits) -> Any:
    views = [(0, index, repeat) for index in range(12) for repeat in range(2)]
    pictures = [data.dataset.train[index] for _, index, _ in views]
    return Augmenter(recipe, data.dataset)(pictures, torch.tensor(views))


def scored(recipe: Recipe, data: Splits) -> Any:
    return next(evaluation_batches(recipe, data.dataset, data.dataset.test, np.arange(8)))


def mixed(recipe: Recipe, data: Splits) -> Any:
    mix, found = build_mixing(recipe, 10), []
    for step in range(8):
        found.append(mix(torch.arange(4.0).view(4, 1, 1, 1).repeat(1, 1, 8, 8), torch.arange(4), step))
    return found


def model(recipe: Recipe, data: Splits) -> Any:
    return initial_model(recipe, data, None).state_dict()


def forward(recipe: Recipe, data: Splits) -> Any:
    built, side = initial_model(recipe, data, None), recipe.data.resolution
    pixels = torch.rand(4, data.dataset.channels, side, side, generator=torch.Generator().manual_seed(0))
    seed_generators(stream(recipe.seed, "model", 0))
    with autocast(recipe, CPU)():
        return heads(built.train(), pixels)


def loss(recipe: Recipe, data: Splits) -> Any:
    generator = torch.Generator().manual_seed(0)
    first, second, teacher = (torch.randn(4, 10, generator=generator) for _ in range(3))
    targets = torch.rand(4, 10, generator=generator).softmax(1) if recipe.mixes else torch.arange(4)
    two = distillation_of(recipe.distill.type).heads == 2
    return build_loss(recipe)((first, second if two else None), targets, teacher)


class Layers(nn.Sequential):
    """Two layers, which timm can tell apart."""

    def group_matcher(self, coarse: bool) -> dict[str, str]:
        return {"stem": "^0", "blocks": "^1"}


def groups(recipe: Recipe, data: Splits) -> Any:
    optimizer = build_optimizer(recipe, Layers(nn.Linear(3, 2), nn.Linear(2, 2)))
    held = [{**group, "params": [tuple(each.shape) for each in group["params"]]} for group in optimizer.param_groups]
    return [type(optimizer).__name__, held]


def rates(recipe: Recipe, data: Splits) -> Any:
    steps = steps_per_epoch(recipe, data)
    set_lr = build_schedule(recipe, torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=effective_lr(recipe)), steps)
    return [set_lr(step) for step in range(steps * recipe.schedule.epochs)]


def average(recipe: Recipe, data: Splits) -> Any:
    if recipe.regularize.ema_decay is None:
        return None
    weights = nn.Linear(1, 1)
    nn.init.constant_(weights.weight, 0.0)
    nn.init.constant_(weights.bias, 0.0)
    ema = Ema(weights, recipe.regularize.ema_decay)
    nn.init.constant_(weights.weight, 1.0)
    ema.update()
    return ema.model.state_dict()


def scaler(recipe: Recipe, data: Splits) -> Any:
    return build_scaler(recipe, CPU).is_enabled()


def weights(recipe: Recipe, data: Splits) -> Any:
    """After two steps of the loop: what is decided there alone."""
    return train(recipe, journal=Stopping(2)).weights_sha256


PARTS: dict[str, Callable[[Recipe, Splits], Any]] = {
    part.__name__: part
    for part in (
        splits,
        order,
        images,
        scored,
        mixed,
        model,
        forward,
        loss,
        groups,
        rates,
        average,
        scaler,
    )
}


def digest(value: Any) -> str:
    def plain(each: Any) -> Any:
        if isinstance(each, Tensor):
            each = each.detach().float().numpy() if each.is_floating_point() else each.numpy()
        if isinstance(each, np.ndarray):
            return [each.shape, str(each.dtype), hashlib.sha256(np.ascontiguousarray(each).tobytes()).hexdigest()]
        if isinstance(each, dict):
            return {str(key): plain(child) for key, child in each.items()}
        return [plain(child) for child in each] if isinstance(each, (list, tuple)) else repr(each)

    return json.dumps(plain(value), sort_keys=True)


@functools.cache
def loaded(data: str) -> Splits:
    recipe = tiny(data=json.loads(data), schedule={"batch_size": 8})
    return load_data(recipe, None)


@functools.cache
def part_of(name: str, recipe: str) -> str:
    data = loaded(json.dumps(json.loads(recipe)["data"]))
    function = PARTS.get(name, weights)
    return digest(function(Recipe.model_validate_json(recipe), data))


# -- the rows -------------------------------------------------------------------------------------------------------


def other_digits(data: Data, folder: Path | None) -> Dataset:
    """A custom data set: the digits from the other end."""
    found = digits(data, folder)
    train_, test = (ArrayImages(part.pixels[::-1], part.targets[::-1]) for part in (found.train, found.test))  # type: ignore[attr-defined]
    return dataclasses.replace(found, name="other", train=train_, test=test)


def brighter(image: Image.Image, rng: np.random.RandomState, *, by: float = 1.5) -> Image.Image:
    """A custom augmentation."""
    return image.point(lambda level: level * by * rng.uniform(0.9, 1.1))


Blocks = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """``field`` is set to ``value`` on top of TINY with ``before``; ``changes`` names what must differ then."""

    field: str
    value: Any
    changes: str
    before: Blocks = dataclasses.field(default_factory=dict)


UNMIXED: Blocks = {"augment": {"mixup": 0.0, "cutmix": 0.0}}
INCEPTION: Blocks = {"augment": {"crop": "random-resized"}}
THREE: Blocks = {"augment": {"auto_augment": "3a"}}
BCE: Blocks = {"regularize": {"loss": "bce"}}
STEPS_DOWN: Blocks = {"schedule": {"name": "step", "options": {"decay_t": 1}}}
NO_POLICY: Blocks = {"augment": {"auto_augment": None}}
SOFT: Blocks = {"distill": {"type": "soft"}}
OTHER = "test_every_field:other_digits"
BRIGHTER: Blocks = {"augment": {"custom": ["test_every_field:brighter"]}}
CONVNET: Blocks = {"model": {"name": "small_convnet", "options": {}}}

ROWS = [
    Row("data.name", OTHER, "splits order images scored"),
    Row("data.id", "another", ""),  # a name under which the fingerprint is kept: it splits ids alone
    Row("data.test", False, ""),  # the training is the same; that it is not tested, test_loop sees
    Row("data.resolution", 24, "images scored model forward"),
    Row("data.eval_crop", 0.5, "scored"),
    Row("data.validation", 0.2, "splits order"),
    Row("data.train_images", 112, "splits order rates"),
    Row("data.train_images", 5000, "", {"data": {"train_images": None}}),
    Row("model.name", "small_convnet", "model forward", {"model": {"options": {}}}),
    Row("model.options", {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}, "model forward"),
    Row("model.options", {"width": 8}, "model forward", CONVNET),
    Row("model.train_only", ["head"], "weights"),
    Row("augment.crop", "none", "images"),
    Row("augment.crop", "simple-random", "images"),
    Row("augment.crop", "random-resized", "images"),
    Row("augment.crop_scale", (0.5, 1.0), "images", INCEPTION),
    Row("augment.crop_scale", (0.5, 1.0), ""),  # of the Inception crop alone
    Row("augment.crop_ratio", (1.0, 1.0), "images", INCEPTION),
    Row("augment.crop_ratio", (1.0, 1.0), ""),
    Row("augment.hflip", 0.0, "images"),
    Row("augment.auto_augment", None, "images"),
    Row("augment.auto_augment", "rand-m9-mstd0.5-inc1", "images"),
    Row("augment.color_jitter", 0.1, "images", NO_POLICY),
    Row("augment.color_jitter", 0.1, "images", THREE),
    Row("augment.color_jitter", 0.1, ""),  # as in the reference code, it waits until no policy is set
    Row("augment.erasing", 0.0, "images"),
    Row("augment.mixup", 0.0, "mixed"),
    Row("augment.mixup", 0.0, "mixed loss", {"augment": {"cutmix": 0.0}}),  # the last one off changes the loss too
    Row("augment.cutmix", 0.0, "mixed"),
    Row("augment.mix_prob", 0.5, "mixed"),
    Row("augment.mix_prob", 0.0, "mixed loss"),
    Row("augment.mix_switch", 0.9, "mixed"),
    Row("augment.mix_switch", 0.9, "", {"augment": {"cutmix": 0.0}}),
    Row("augment.repeats", 1, "order"),
    Row("augment.custom", ["test_every_field:brighter"], "images"),
    Row("augment.custom", [{"name": "test_every_field:brighter", "options": {"by": 2}}], "images", BRIGHTER),
    Row("regularize.loss", "bce", "loss"),
    Row("regularize.target_threshold", 0.1, "loss", BCE),
    Row("regularize.target_threshold", 0.1, ""),
    Row("regularize.label_smoothing", 0.2, "mixed"),
    Row("regularize.label_smoothing", 0.2, "loss", UNMIXED),
    Row("regularize.smoothing_over", "others", "mixed"),
    Row("regularize.smoothing_over", "others", "loss", UNMIXED),
    Row("regularize.drop_path", 0.0, "forward"),
    Row("regularize.dropout", 0.0, "forward"),
    Row("regularize.ema_decay", 0.5, "average"),
    Row("regularize.ema_decay", None, "average"),
    Row("optimizer.name", "lion", "groups"),
    Row("optimizer.base_lr", 0.02, "groups rates"),
    Row("optimizer.weight_decay", 0.5, "groups"),
    Row("optimizer.clip_grad", None, "weights"),
    Row("optimizer.layer_decay", 0.5, "groups"),
    Row("optimizer.options", {"betas": [0.8, 0.9]}, "groups"),
    Row("schedule.name", "poly", "rates"),
    Row("schedule.options", {"k_decay": 2.0}, "rates"),
    Row("schedule.options", {"decay_t": 2}, "rates", STEPS_DOWN),
    Row("schedule.min_lr", 1e-4, "", STEPS_DOWN),
    Row("schedule.epochs", 3, "rates"),
    Row("schedule.batch_size", 8, "order groups rates"),
    Row("schedule.warmup_epochs", 0.0, "rates"),
    Row("schedule.warmup_lr", 1e-4, "rates"),
    Row("schedule.min_lr", 1e-4, "rates"),
    Row("schedule.stepping", "epoch", "rates"),
    Row("distill.type", "hard", "loss"),
    Row("distill.type", "hard-token", "loss model forward"),
    Row("distill.type", "two-class-tokens", "loss model forward"),
    Row("distill.type", "soft-token", "loss", {"distill": {"type": "hard-token"}}),
    Row("distill.alpha", 0.4, "loss", SOFT),
    Row("distill.tau", 1.0, "loss", SOFT),
    Row("distill.tau", 1.0, "", {"distill": {"type": "hard"}}),
    Row("distill.normalisation", "element", "loss", SOFT),
    Row("distill.normalisation", "element", "", {"distill": {"type": "hard"}}),
    Row("precision", "bf16", "forward"),
    Row("precision", "fp16", "forward scaler"),
    Row("seed", 1, "order images mixed model forward"),
]
ELSEWHERE = {
    "data.corrupt": "test_a_file_that_is_no_picture",
    "data.decoder": "test_what_decodes_files_also_augments_them",
    "data.file": "test_a_table_of_pictures_and_the_share_that_is_for_testing",
    "data.options": "test_a_table_of_pictures_and_the_share_that_is_for_testing",
    "model.init": "test_a_training_starts_from_a_file",
    "distill.teacher": "test_a_teacher_by_name_with_weights_from_a_file",
    "distill.teacher_weights": "test_a_teacher_by_name_with_weights_from_a_file",
    "distill.teacher_resolution": "test_a_teacher_by_name_with_weights_from_a_file",
}
"""Fields that need files to show what they do, with the test below that does so."""


def fields() -> list[str]:
    scalars = [name for name in Recipe.model_fields if name not in BLOCKS]
    return [f"{block}.{name}" for block in BLOCKS for name in fields_of(block)] + scalars


def test_every_field_has_a_row() -> None:
    assert {row.field for row in ROWS} | set(ELSEWHERE) == set(fields())
    assert not {row.field for row in ROWS} & set(ELSEWHERE)
    assert all(callable(globals().get(name)) for name in ELSEWHERE.values())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.field}={row.value}".replace(" ", ""))
def test_a_field_changes_what_it_should_and_nothing_else(row: Row) -> None:
    def recipe(changes: Blocks) -> Recipe:
        block, _, leaf = row.field.partition(".")
        blocks = {name: dict(values) for name, values in row.before.items()}
        if leaf:
            blocks[block] = {**blocks.get(block, {}), **changes}
        return tiny(**blocks) if leaf else tiny(**blocks, **changes)

    before, after = recipe({}), recipe({row.field.partition(".")[2] or row.field: row.value})
    expected = set(row.changes.split())
    texts = [canonical_json(each.model_dump()) for each in (before, after)]
    differing = {name for name in {*PARTS, *expected} if part_of(name, texts[0]) != part_of(name, texts[1])}
    assert differing == expected


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.field}={row.value}".replace(" ", ""))
def test_what_changes_something_and_nothing_else_changes_the_run_s_id(row: Row) -> None:
    block, _, leaf = row.field.partition(".")
    blocks = {name: dict(values) for name, values in row.before.items()}
    before = tiny(**blocks)
    changed = {**blocks.get(block, {}), leaf: row.value} if leaf else row.value
    after = tiny(**{**blocks, block: changed})
    same = run_id(canonical(before), {}) == run_id(canonical(after), {})
    assert same == (not row.changes and row.field not in ("data.id", "data.test"))


DOCUMENT = Path(__file__).parents[2] / "docs" / "fidelity.md"


def test_every_field_that_the_comparison_with_the_paper_names_exists() -> None:
    known, text = {field for field in fields() if "." in field}, DOCUMENT.read_text()
    blocks = {field.split(".")[0] for field in known}
    named = {found for found in re.findall(r"`([a-z]+\.[a-z_]+)\b", text) if found.split(".")[0] in blocks}
    assert len(named) > 25
    assert named <= known


# -- fields that need files -----------------------------------------------------------------------------------------


def test_a_file_that_is_no_picture(tmp_path: Path) -> None:
    write_tree(tmp_path, {"cat": 8, "dog": 8})
    broken = sorted((tmp_path / "train" / "cat").iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:60])
    data = {"name": "imagefolder", "id": "pets", "train_images": None, "validation": 0.0, "eval_crop": 0.875}

    def batches(corrupt: str) -> list[Any]:
        recipe = tiny(
            data={**data, "corrupt": corrupt}, augment={"repeats": 1}, schedule={"batch_size": 8, "epochs": 1}
        )
        return list(training_batches(recipe, load_data(recipe, tmp_path), 0, loaders=0))

    with pytest.raises(TrainError, match=broken.name):
        batches("fail")
    assert [len(targets) for _, targets in batches("skip")] == [8, 8]


def test_what_decodes_files_also_augments_them(tmp_path: Path) -> None:
    """By draws of its own, in the same order."""
    write_tree(tmp_path, {"cat": 8, "dog": 8})
    data = {"name": "imagefolder", "id": "pets", "train_images": None, "validation": 0.0}
    batches = {}
    for decoder in ("pillow", "device"):
        recipe = tiny(data={**data, "decoder": decoder}, schedule={"batch_size": 8, "epochs": 1})
        batches[decoder] = list(training_batches(recipe, load_data(recipe, tmp_path), 0, loaders=0))
    for (images, targets), (others, labels) in zip(*batches.values(), strict=True):
        assert torch.equal(targets, labels)
        assert not torch.equal(images, others)


def test_a_table_of_pictures_and_the_share_that_is_for_testing(tmp_path: Path) -> None:
    write_tree(tmp_path, {"cat": 8, "dog": 8})
    (tmp_path / "few.csv").write_text("path,label\n" + "".join(f"train/cat/{n}.png,{n % 2}\n" for n in range(8)))
    (tmp_path / "all.csv").write_text(
        "path,label\n" + "".join(f"train/{c}/{n}.png,{c}\n" for c in ("cat", "dog") for n in range(8))
    )

    def tested(file: str, **options: float) -> tuple[int, int, str]:
        data = {"name": "csv", "file": str(tmp_path / file), "options": options, "train_images": None, "validation": 0}
        recipe = tiny(data=data, schedule={"batch_size": 4})
        found = load_data(recipe, tmp_path).dataset
        return len(found.train), len(found.test), found.classes[0]

    assert tested("few.csv") == (6, 2, "0")
    assert tested("all.csv") == (13, 3, "cat")
    assert tested("all.csv", test_share=0.5) == (8, 8, "cat")


def test_a_teacher_by_name_with_weights_from_a_file(tmp_path: Path) -> None:
    import timm

    path = tmp_path / "teacher.pth"
    seed_generators(0)
    torch.save(timm.create_model("test_resnet", num_classes=10, in_chans=1).state_dict(), path)
    content = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    pixels = torch.randn(2, 1, 16, 16)

    def answers(file: Path | None = path, **distill: Any) -> Tensor:
        recipe = tiny(distill={"type": "hard", **distill})
        teacher = build_teacher(recipe, load_data(recipe, None), None, file, CPU)
        assert teacher is not None
        return teacher(pixels)

    with pytest.raises(TrainError, match="needs a teacher"):
        answers(None)
    small = answers(teacher="test_resnet", teacher_weights=content, teacher_resolution=16)
    assert small.shape == (2, 10)
    large = answers(teacher="test_resnet", teacher_weights=content, teacher_resolution=32)
    assert not torch.allclose(small, large)
    with pytest.raises(TrainError):
        answers(teacher="test_resnet", teacher_weights="sha256:" + "0" * 64)
    with pytest.raises(TrainError):
        answers(teacher="no_such_model", teacher_weights=content)


def test_a_training_starts_from_a_file(tmp_path: Path) -> None:
    """A training of a step of no size ends at the weights of the file."""
    first = train(tiny(seed=1, schedule={"epochs": 1}))
    assert first.model is not None
    torch.save(first.model.model.state_dict(), tmp_path / "w.pth")
    still = tiny(model={"init": str(tmp_path / "w.pth")}, optimizer={"base_lr": 1e-30}, schedule={"epochs": 1})
    second = train(still)
    assert second.model is not None
    there, here = (outcome.model.model.state_dict() for outcome in (first, second) if outcome.model)
    assert all(torch.allclose(there[name], here[name], atol=1e-5) for name in there)
