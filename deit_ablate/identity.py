"""What a recipe amounts to: its canonical form, the id of its run, and what follows from it without being written."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deit_ablate.errors import TrainError
from deit_ablate.names import fact
from deit_ablate.program import ProgramRecipe, is_program
from deit_ablate.recipe import BLOCKS, Block, Data, Distill, Recipe, flatten, known_train_images

SEMANTICS = 4
"""Raised by hand when the same recipe comes to mean another training: it is part of every id."""
PROGRAM_SEMANTICS = 1
"""The same of recipes of programs, which a change of our trainer is none of."""

ADDED_LATER: dict[str, Any] = {
    "data.test": True,
    "data.file": None,
    "data.options": {},
    "data.decoder": "pillow",
    "augment.custom": [],
    "model.init": None,
    "model.train_only": [],
    "regularize.loss": "cross-entropy",
    "regularize.target_threshold": None,
    "optimizer.layer_decay": None,
    "schedule.name": "cosine",
    "schedule.options": {},
}
"""Fields added after the first release, with the value that changes nothing: at it they are not hashed."""


@dataclass(frozen=True)
class Unread:
    """A key that the trainer does not read ``when`` other keys of its block, ``by``, have switched it off. In the
    canonical recipe it then holds ``value`` (``...``: the field's default), so that it splits no ids."""

    key: str
    by: tuple[str, ...]
    when: Callable[[Mapping[str, Any]], bool]
    """Of the block's values."""
    value: Any = ...

    @property
    def block(self) -> str:
        return self.key.partition(".")[0]

    @property
    def name(self) -> str:
        return self.key.partition(".")[2]

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether the key is not read beside these values of its block. An augmentation that a registry entry adds is
        given the whole block, so where one is on, all of it counts as read."""
        return values.keys() <= _FIELDS[self.block].keys() and self.when(values)


_FIELDS = {block: type(Recipe.model_fields[block].default).model_fields for block in BLOCKS}

UNREAD = (
    Unread("data.corrupt", ("name",), lambda data: not fact("datasets", data["name"], "files", True)),
    Unread("data.decoder", ("name",), lambda data: not fact("datasets", data["name"], "files", True)),
    Unread("data.train_images", ("name", "validation"), lambda data: _takes_all_images(data)),
    Unread("augment.crop_scale", ("crop",), lambda augment: augment["crop"] != "random-resized"),
    Unread("augment.crop_ratio", ("crop",), lambda augment: augment["crop"] != "random-resized"),
    Unread("augment.color_jitter", ("auto_augment",), lambda augment: in_place_of_jitter(augment["auto_augment"]), 0),
    # No mixing has one spelling, whether by its probability or by both strengths.
    Unread("augment.mixup", ("mix_prob",), lambda augment: augment["mixup"] and not augment["mix_prob"], 0),
    Unread("augment.cutmix", ("mix_prob",), lambda augment: augment["cutmix"] and not augment["mix_prob"], 0),
    Unread("augment.mix_prob", ("mixup", "cutmix"), lambda augment: not augment["mixup"] and not augment["cutmix"]),
    Unread("augment.mix_switch", ("mix_prob",), lambda augment: not augment["mix_prob"]),
    Unread("augment.mix_switch", ("mixup",), lambda augment: not augment["mixup"]),
    Unread("augment.mix_switch", ("cutmix",), lambda augment: not augment["cutmix"]),
    # A strength of 0 is read whatever the switch: the other one then gets every batch.
    Unread("augment.mixup", ("mix_switch",), lambda augment: _both(augment) and augment["mix_switch"] == 1),
    Unread("augment.cutmix", ("mix_switch",), lambda augment: _both(augment) and augment["mix_switch"] == 0),
    Unread("regularize.smoothing_over", ("label_smoothing",), lambda regularize: not regularize["label_smoothing"]),
    Unread(
        "regularize.target_threshold", ("loss",), lambda block: not fact("losses", block["loss"], "threshold", True)
    ),
    Unread("schedule.min_lr", ("name",), lambda schedule: not fact("schedules", schedule["name"], "min_lr", True)),
    Unread("schedule.warmup_lr", ("warmup_epochs",), lambda schedule: not schedule["warmup_epochs"]),
    *(
        Unread(f"distill.{name}", ("type",), lambda distill: _lacks(distill, "tau"))
        for name in ("tau", "normalisation")
    ),
    *(
        Unread(f"distill.{name}", ("type",), lambda distill: _lacks(distill, "teacher"))
        for name in ("alpha", "teacher", "teacher_weights", "teacher_resolution")
    ),
)
"""In this order: a key that is not read any more may switch off a later one."""


def in_place_of_jitter(policy: str | None) -> bool:
    """Whether colour jitter is off beside this policy, as in the reference codes: 3-Augment goes with it."""
    return policy is not None and not policy.startswith("3a")


def _takes_all_images(data: Mapping[str, Any]) -> bool:
    """Whether ``train_images`` is as many as there are, in a data set that no folder of the user's can make larger."""
    all_images = known_train_images(Data.model_construct(**{**data, "train_images": None}))
    fixed = not fact("datasets", data["name"], "files", True)
    return bool(fixed and all_images and (data["train_images"] or 0) >= all_images)


def _lacks(distill: Mapping[str, Any], what: str) -> bool:
    return not fact("distillations", distill["type"], what, True)


def _both(augment: Mapping[str, Any]) -> bool:
    return bool(augment["mixup"] and augment["cutmix"])


def unread(recipe: Recipe | Mapping[str, Any]) -> Iterator[Unread]:
    """Which keys of a recipe, or of a canonical one, are not read, and what switches each of them off."""
    for name in _RULED:
        block = recipe.get(name) if isinstance(recipe, Mapping) else getattr(recipe, name)
        if isinstance(block, Block):
            if id(block) not in _unread:
                _unread[id(block)] = (block, _unread_of(name, block.model_dump()))
            yield from _unread[id(block)][1]
        elif isinstance(block, Mapping) and not (isinstance(recipe, Mapping) and is_program(recipe)):
            later = {
                path.partition(".")[2]: value for path, value in ADDED_LATER.items() if path.startswith(f"{name}.")
            }
            yield from _unread_of(name, {**later, **block})  # a record of an earlier version has none of them


def _unread_of(name: str, values: Mapping[str, Any]) -> list[Unread]:
    return [rule for rule in UNREAD if rule.block == name and rule.holds(values)]


_RULED = tuple(dict.fromkeys(rule.block for rule in UNREAD))
# Remembered by object, which is held: the thousands of rows of a grid share their blocks.
_unread: dict[int, tuple[Block, list[Unread]]] = {}
_canonical: dict[int, tuple[Block, dict[str, Any]]] = {}
_json: dict[int, str] = {}


def canonical(recipe: Recipe | ProgramRecipe) -> dict[str, Any]:
    """The resolved recipe as plain values: what is hashed, stored and shown."""
    if isinstance(recipe, ProgramRecipe):
        whole = recipe.model_dump()
        given = {key: {k: v for k, v in whole[key].items() if v is not None} for key in ("program", "data")}
        return normal({**whole, **given})
    return {
        **{block: canonical_block(getattr(recipe, block)) for block in BLOCKS},
        "precision": recipe.precision,
        "seed": recipe.seed,
    }


def canonical_block(block: Block) -> dict[str, Any]:
    """One block of the canonical recipe."""
    known = _canonical.get(id(block))
    if known is None:
        known = _canonical[id(block)] = (block, _resolved(block))
        name = next(name for name in BLOCKS if type(block) is type(Recipe.model_fields[name].default))
        _json[id(known[1])] = canonical_json(without_later({name: known[1]})[name])
    return known[1]


def _resolved(block: Block) -> dict[str, Any]:
    values = block.model_dump()
    for rule in UNREAD:
        if isinstance(block, type(Recipe.model_fields[rule.block].default)) and rule.holds(values):
            values[rule.name] = _FIELDS[rule.block][rule.name].default if rule.value is ... else rule.value
    if isinstance(block, Distill) and values["alpha"] is None:
        values["alpha"] = fact("distillations", values["type"], "alpha")
    if isinstance(block, Data) and values["id"] is None:
        values["id"] = values["name"]
        if values["file"] and CONTENT.match(values["file"]):
            values["id"] += "-" + values["file"].removeprefix("sha256:")[:12]
    return normal(values)


def normal(value: Any) -> Any:
    """One spelling a number: 1.0 is 1, -0.0 is 0."""
    if isinstance(value, dict):
        return {str(key): normal(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [normal(child) for child in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


_encoder = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def canonical_json(value: Any) -> str:
    """Sorted, compact JSON of values that are canonical already."""
    return _encoder.encode(value)


def without_later(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The canonical recipe less the fields of ADDED_LATER that hold the value they were introduced with."""
    result = dict(recipe)
    for path, introduced in ADDED_LATER.items():
        block, _, name = path.partition(".")
        held = result.get(block, {})
        if name in held and held[name] == normal(introduced):
            result[block] = {key: value for key, value in held.items() if key != name}
    return result


def run_id(
    recipe: Mapping[str, Any],
    parents: Mapping[str, Any],
    sources: Mapping[str, str] | None = None,
    semantics: int | None = None,
) -> str:
    """The id of a run: 16 hex digits of a SHA-256 over all that decides its outcome.

    ``recipe`` is canonical; ``parents`` maps a role (teacher, from) to {"run": id, "weights": "last" | "ema"};
    ``sources`` maps each module of the user's own code to the hash of its normalised code (``code_of``), and each file
    that a program names to that of its own (``source_files``).
    """
    semantics = semantics_here(recipe) if semantics is None else semantics
    # Of a canonical recipe the JSON of its blocks is remembered, for thousands of rows share them.
    blocks = (
        f'"{key}":{_json.get(id(block)) or canonical_json(without_later({key: block})[key])}'
        for key, block in sorted(recipe.items())
    )
    identity = (
        f'{{"parents":{canonical_json(parents)},"recipe":{{{",".join(blocks)}}},'
        f'"semantics":{canonical_json(semantics)},"sources":{canonical_json(sources or {})}}}'
    )
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def semantics_here(recipe: Mapping[str, Any]) -> int:
    """What this version means by such a recipe: part of its run's id."""
    return PROGRAM_SEMANTICS if is_program(recipe) else SEMANTICS


def semantics_of(run: str, stored: Mapping[str, Any]) -> int | None:
    """The SEMANTICS under which the content of a recipe.json gives this id; None where it belongs to another run.

    A recipe.json of an earlier version does not say it: one of the values until now must give the id.
    """
    written = stored.get("semantics")
    for semantics in range(SEMANTICS, 0, -1) if written is None else (written,):
        try:
            if run_id(stored["recipe"], stored["parents"], stored["sources"], semantics) == run:
                return int(semantics)
        except (AttributeError, KeyError, TypeError, ValueError):
            return None  # not the content of a recipe.json at all
    return None


def belongs(run: str, stored: Mapping[str, Any]) -> bool:
    """Whether the content of a recipe.json is that of the run with this id, under whatever SEMANTICS wrote it."""
    return semantics_of(run, stored) is not None


def difference(recipe: Mapping[str, Any], baseline: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (value in the baseline, value here), where two canonical recipes or derived values differ.

    A key that is not read here is no difference.
    """
    same = {key for key, value in recipe.items() if value is baseline.get(key)}  # rows of a sweep share most blocks
    recipe, baseline = ({key: each[key] for key in each if key not in same} for each in (recipe, baseline))
    added = {key: normal(value) for key, value in ADDED_LATER.items()}  # which a record of an earlier version has not
    here, there = ({**added, **dict(flatten(each))} for each in (recipe, baseline))
    keys = dict.fromkeys([*there, *here])
    off = {rule.key for rule in unread(recipe)}
    changed = {
        key: (there.get(key), here.get(key)) for key in keys if there.get(key) != here.get(key) and key not in off
    }
    # An empty mapping that has got keys, or lost them, shows in those keys.
    return {key: pair for key, pair in changed.items() if not ({} in pair and None in pair)}


def derived(recipe: Recipe) -> dict[str, Any]:
    """What follows from a recipe without being written in it: what changes along with it undeclared.

    Steps and samples are None of data sets whose size names.json does not know. Shares are of batches.
    """
    mix, cut = recipe.augment.mixup > 0, recipe.augment.cutmix > 0
    cut_share = recipe.augment.mix_prob * (recipe.augment.mix_switch if mix and cut else float(cut))
    mix_share = recipe.augment.mix_prob * float(mix or cut) - cut_share
    batch = recipe.schedule.batch_size
    images = known_train_images(recipe.data)
    steps = images // batch if images else None
    return {
        "effective_lr": recipe.optimizer.base_lr * batch / 512,
        "steps_per_epoch": steps,
        "total_steps": steps * recipe.schedule.epochs if steps else None,
        "warmup_steps": round(recipe.schedule.warmup_epochs * steps) if steps else None,
        "samples_seen": steps * batch * recipe.schedule.epochs if steps else None,
        "distinct_images_per_epoch": math.ceil(steps * batch / recipe.augment.repeats) if steps else None,
        "color_jitter": 0.0 if in_place_of_jitter(recipe.augment.auto_augment) else recipe.augment.color_jitter,
        "mixup_share": round(mix_share, 6),
        "cutmix_share": round(cut_share, 6),
        "loss": loss_name(recipe),
        "heads": fact("distillations", recipe.distill.type, "heads", 1),
    }


def loss_name(recipe: Recipe) -> str:
    if recipe.regularize.loss != "cross-entropy":
        return recipe.regularize.loss
    if recipe.mixes:
        return "soft-target cross-entropy"
    return "label-smoothing cross-entropy" if recipe.regularize.label_smoothing else "cross-entropy"


# -- what a recipe names from elsewhere -----------------------------------------------------------------------------

CONTENT = re.compile(r"^sha256:[0-9a-f]{64}$")
"""A file in a recipe: named by its content, wherever it lies."""
HUB = "timm:"
"""Before the name of one of timm's pretrained models, in ``model.init``."""
RUN_NAME = re.compile(r"^[^/:]+:[^/:]+:\d+(?::[a-z][a-z0-9_-]*)?$")
"""A run of the store, in ``model.init`` of a sweep file: SWEEP:ROW:SEED[:STAGE]. A plan makes it the run's parent."""


def with_files(values: Any, find: Callable[[str], Path | None], inside: bool = False) -> Any:
    """Plain values of a recipe with the paths of the files that options, ``data.file`` and ``model.init`` name by their
    content; ``inside`` of these.

    Raises TrainError where ``find`` gives None for a content ("sha256:<hex>").
    """
    if isinstance(values, dict):
        return {
            key: with_files(value, find, inside or key in ("options", "file", "init")) for key, value in values.items()
        }
    if isinstance(values, (list, tuple)):
        return [with_files(value, find, inside) for value in values]
    if not (inside and isinstance(values, str) and CONTENT.match(values)):
        return values
    if (path := find(values)) is None:
        raise TrainError(f"the file with the content {values} is not in the store: plan its sweep again, with its path")
    return str(path.resolve())


def contents(recipe: Mapping[str, Any]) -> set[str]:
    """The contents ("sha256:<hex>") of all files that a canonical recipe names."""
    found = [recipe["distill"]["teacher_weights"]] if recipe["distill"]["teacher_weights"] else []

    def note(content: str) -> Path:
        found.append(content)
        return Path(content)

    with_files(recipe, note)
    return set(found)


def hub_names(recipe: Mapping[str, Any]) -> set[str]:
    """The models whose weights a canonical recipe takes from timm's hub: a teacher without a file, and a start."""
    distill, init = recipe["distill"], recipe["model"].get("init") or ""
    teacher = {distill["teacher"]} if distill["teacher"] and not distill["teacher_weights"] else set()
    return teacher | ({init.removeprefix(HUB)} if init.startswith(HUB) else set())


def recipe_of_record(values: Mapping[str, Any], find: Callable[[str], Path | None]) -> Recipe:
    """A recipe as it was stored, with the files that it names by content at the paths that ``find`` gives.

    Raises TrainError where it gives none.
    """
    return Recipe.model_validate_json(json.dumps(with_files(values, find)))
