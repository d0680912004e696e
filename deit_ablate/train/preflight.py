"""What a training needs, tried without training: data, options, the cut of a batch, a named teacher.

What is refused here would end the run as soon as it began; found before anything is written or queued, it is one
clear error instead of a failed run a seed.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from deit_ablate.errors import TrainError
from deit_ablate.identity import HUB
from deit_ablate.recipe import Recipe
from deit_ablate.train.augment import AUGMENTATIONS, Augmenter, custom_operations, operations
from deit_ablate.train.data.loader import steps_per_epoch
from deit_ablate.train.data.sets import Splits
from deit_ablate.train.distill import base_loss, build_loss, distillation_of
from deit_ablate.train.distributed import Group, Share
from deit_ablate.train.loop import initial_model
from deit_ablate.train.mixing import build_mixing
from deit_ablate.train.optim import build_optimizer, build_schedule
from deit_ablate.train.teachers import WeightsStore, build_teacher, teacher_file, with_start

Step = tuple[tuple[str, ...], Callable[[], object]]
"""A key of the recipe (or of the execution), others that an error may name, and what may raise for their sake."""
MODEL = (
    "model.name",
    "model.options",
    "model.init",
    "model.train_only",
    "distill.type",
    "data.resolution",
    "regularize.drop_path",
    "regularize.dropout",
)


def preflight(
    request: Mapping[str, Any], store: WeightsStore, splits_of: Callable[[Recipe], Splits]
) -> dict[str, Any] | None:
    """The first refusal, {"run", "keys", "error"}, or None.

    ``splits_of`` loads the data of a recipe. ``request``: {"runs": [{"run", "recipe" (canonical), "ranks",
    "accumulation", "teacher" (the path of its weights file, or None), "begun" (whether its batches are cut already)}]}.
    """
    runs = [(Recipe.model_validate_json(json.dumps(run["recipe"])), run) for run in _distinct(request["runs"])]
    # What timm's hub has last: it is fetched, which nothing should wait for that is refused anyway.
    for recipe, run in runs:
        if refusal := _first_refusal(run, _without_teacher(recipe, run, splits_of)):
            return refusal
    for recipe, run in runs:
        if refusal := _first_refusal(run, _from_hub(recipe, run, splits_of, store)):
            return refusal
    return None


def _first_refusal(run: Mapping[str, Any], steps: Iterable[Step]) -> dict[str, Any] | None:
    for keys, attempt in steps:
        try:
            attempt()
        except (TrainError, OSError) as error:
            named = [key for key in keys[1:] if key in str(error)]
            return {"run": run["run"], "keys": [keys[0], *named], "error": str(error)}
        except Exception:
            return None  # custom code, which may need what is not on this machine: its run will tell
    return None


def _distinct(runs: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One run of those that differ only in numbers which any training takes."""
    seen = set()
    for run in runs:
        recipe = {**run["recipe"], "seed": 0}
        recipe["optimizer"] = {**recipe["optimizer"], "base_lr": 0, "weight_decay": 0}
        key = json.dumps([recipe, run["begun"], run["ranks"], run["accumulation"]], sort_keys=True)
        if key not in seen:
            seen.add(key)
            yield run


def _without_teacher(recipe: Recipe, run: Mapping[str, Any], splits_of: Callable[[Recipe], Splits]) -> Iterator[Step]:
    def cut() -> None:
        if not run["begun"]:
            Share(Group(0, run["ranks"]), run["accumulation"]).check(recipe.schedule.batch_size, recipe.mixes)

    @functools.cache  # its weights may be a file that takes long to read
    def model() -> nn.Module:
        with torch.device("meta"):
            return initial_model(fresh if by_name else recipe, splits_of(recipe), None)

    by_name = (recipe.model.init or "").startswith(HUB)
    fresh = recipe.model_copy(update={"model": recipe.model.model_copy(update={"init": None})})
    yield ("data.name",), lambda: splits_of(recipe)
    yield ("execution.ranks",), cut

    augmenter = functools.cache(lambda: Augmenter(recipe, splits_of(recipe).dataset))

    def augmented() -> None:
        dataset, side, augment = splits_of(recipe).dataset, recipe.data.resolution, augmenter()
        if augment.custom or augment.custom_on_tensors:
            augment(
                [Image.new("L" if dataset.channels == 1 else "RGB", (side, side))], torch.zeros(1, 3, dtype=torch.int64)
            )

    yield ("augment.custom",), lambda: custom_operations(recipe)
    yield ("augment.auto_augment",), lambda: operations(AUGMENTATIONS, recipe, splits_of(recipe).dataset)
    yield ("data.decoder",), augmenter
    yield ("augment.custom",), augmented
    yield (
        ("augment.mixup", "regularize.label_smoothing"),
        lambda: build_mixing(recipe, len(splits_of(recipe).dataset.classes)),
    )
    yield ("distill.type",), lambda: build_loss(recipe)

    def on_labels() -> None:
        shares = torch.zeros(2, len(splits_of(recipe).dataset.classes))
        base_loss(recipe.regularize, recipe.mixes)(shares, shares if recipe.mixes else shares[:, 0].long())

    yield ("regularize.loss", "regularize.target_threshold", "regularize.label_smoothing"), on_labels
    yield MODEL, model
    optimizer = functools.cache(lambda: build_optimizer(recipe, model()))
    yield ("optimizer.options", "optimizer.name", "optimizer.layer_decay"), optimizer
    yield (
        ("schedule.options", "schedule.name"),
        lambda: build_schedule(recipe, optimizer(), steps_per_epoch(recipe, splits_of(recipe))),
    )


def _from_hub(
    recipe: Recipe, run: Mapping[str, Any], splits_of: Callable[[Recipe], Splits], store: WeightsStore
) -> Iterator[Step]:
    def start() -> None:
        at_hand = Recipe.model_validate_json(json.dumps(with_start(run["recipe"], store)))
        with torch.device("meta"):
            initial_model(at_hand, splits_of(recipe), None)

    wanted = recipe.distill
    if (recipe.model.init or "").startswith(HUB):
        yield MODEL[2:3] + MODEL[:2] + MODEL[3:], start
    if wanted.teacher is None or not distillation_of(wanted.type).teacher:
        return

    def teacher() -> None:
        given = Path(run["teacher"]) if run["teacher"] else teacher_file(recipe, store)
        build_teacher(recipe, splits_of(recipe), None, given, torch.device("cpu"))

    yield ("distill.teacher_weights" if wanted.teacher_weights else "distill.teacher",), teacher
