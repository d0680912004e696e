"""What a recipe amounts to: its canonical form, the id of its run, and what follows from it without being written."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from deit_ablate.names import fact, names
from deit_ablate.recipe import BLOCKS, Block, Data, Distill, Recipe, Regularize, flatten, known_train_images

SEMANTICS = 2
"""Raised by hand when the same recipe comes to mean another training: it is part of every id."""

ADDED_LATER: dict[str, Any] = {"data.test": True, "augment.custom": []}
"""Fields added after the first release, with the value that changes nothing: at it they are not hashed."""

_canonical: dict[int, tuple[Block, dict[str, Any]]] = {}
_json: dict[int, str] = {}


def canonical(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as plain values: what is hashed, stored and shown."""
    return {
        **{block: canonical_block(getattr(recipe, block)) for block in BLOCKS},
        "precision": recipe.precision,
        "seed": recipe.seed,
    }


def canonical_block(block: Block) -> dict[str, Any]:
    """One block of the canonical recipe. Remembered by object: the thousands of rows of a grid share their blocks."""
    known = _canonical.get(id(block))
    if known is None:
        known = _canonical[id(block)] = (block, _resolved(block))
        name = next(name for name in BLOCKS if type(block) is type(Recipe.model_fields[name].default))
        _json[id(known[1])] = canonical_json(without_later({name: known[1]})[name])
    return known[1]


def _resolved(block: Block) -> dict[str, Any]:
    values = block.model_dump()
    if isinstance(block, Distill):
        _resolve_distill(values)
    if isinstance(block, Regularize) and not values["label_smoothing"]:
        values["smoothing_over"] = Regularize.model_fields["smoothing_over"].default
    if isinstance(block, Data) and values["id"] is None:
        values["id"] = values["name"]
    return normal(values)


def _resolve_distill(values: dict[str, Any]) -> None:
    """Fill in the type's own alpha; what a type does not read is set to one value, so that it splits no ids."""
    known = names()["distillations"].get(values["type"])
    if known is None:
        return
    if values["alpha"] is None or not known["teacher"]:
        values["alpha"] = known["alpha"]
    read = ["tau", "normalisation"] if known["tau"] else []
    read += ["teacher", "teacher_weights", "teacher_resolution"] if known["teacher"] else []
    for name in ("tau", "normalisation", "teacher", "teacher_weights", "teacher_resolution"):
        if name not in read:
            values[name] = Distill.model_fields[name].default


def normal(value: Any) -> Any:
    """One spelling a number: 1.0 is 1, -0.0 is 0."""
    if isinstance(value, dict):
        return {str(key): normal(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [normal(child) for child in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def canonical_json(value: Any) -> str:
    """Sorted, compact JSON of values that are canonical already."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def without_later(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The canonical recipe less the fields of ADDED_LATER that hold the value they were introduced with."""
    result = {key: dict(value) if isinstance(value, dict) else value for key, value in recipe.items()}
    for path, introduced in ADDED_LATER.items():
        block, _, name = path.partition(".")
        holder, last = (result.get(block, {}), name) if name else (result, block)
        if holder.get(last) == normal(introduced):
            holder.pop(last, None)
    return result


def run_id(
    recipe: Mapping[str, Any],
    parents: Mapping[str, Any],
    sources: Mapping[str, str] | None = None,
    semantics: int = SEMANTICS,
) -> str:
    """The id of a run: 16 hex digits of a SHA-256 over all that decides its outcome.

    ``recipe`` is canonical; ``parents`` maps a role (teacher, from) to {"run": id, "weights": "last" | "ema"};
    ``sources`` maps each custom ``module:function`` to the hash of its source.
    """
    blocks = (
        f'"{key}":{_json.get(id(recipe[key])) or canonical_json(without_later({key: recipe[key]})[key])}'
        for key in sorted(recipe)
    )
    identity = (
        f'{{"parents":{canonical_json(parents)},"recipe":{{{",".join(blocks)}}},'
        f'"semantics":{semantics},"sources":{canonical_json(sources or {})}}}'
    )
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


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
    """Dotted key -> (value in the baseline, value here), where two canonical recipes or derived values differ."""
    added = {key: normal(value) for key, value in ADDED_LATER.items()}  # which a record of an earlier version has not
    here, there = ({**added, **dict(flatten(each))} for each in (recipe, baseline))
    keys = dict.fromkeys([*there, *here])
    changed = {key: (there.get(key), here.get(key)) for key in keys if there.get(key) != here.get(key)}
    # An empty mapping that has got keys, or lost them, shows in those keys.
    return {key: pair for key, pair in changed.items() if not ({} in pair and None in pair)}


def derived(recipe: Recipe, train_images: int | None = None) -> dict[str, Any]:
    """What follows from a recipe without being written in it: what changes along with it undeclared.

    ``train_images`` is the size of the training part, for data sets whose size names.json does not know.
    Steps and samples are None where the size is not known. Shares are of batches.
    """
    mix, cut = recipe.augment.mixup > 0, recipe.augment.cutmix > 0
    cut_share = recipe.augment.mix_prob * (recipe.augment.mix_switch if mix and cut else float(cut))
    mix_share = recipe.augment.mix_prob * float(mix or cut) - cut_share
    batch = recipe.schedule.batch_size
    images = train_images if train_images is not None else known_train_images(recipe.data)
    steps = images // batch if images else None
    return {
        "effective_lr": recipe.optimizer.base_lr * batch / 512,
        "steps_per_epoch": steps,
        "total_steps": steps * recipe.schedule.epochs if steps else None,
        "warmup_steps": round(recipe.schedule.warmup_epochs * steps) if steps else None,
        "samples_seen": steps * batch * recipe.schedule.epochs if steps else None,
        "distinct_images_per_epoch": math.ceil(steps * batch / recipe.augment.repeats) if steps else None,
        "color_jitter": recipe.augment.color_jitter if recipe.augment.auto_augment is None else 0.0,
        "mixup_share": round(mix_share, 6),
        "cutmix_share": round(cut_share, 6),
        "loss": loss_name(recipe),
        "heads": fact("distillations", recipe.distill.type, "heads", 1),
    }


def loss_name(recipe: Recipe) -> str:
    if recipe.mixes:
        return "soft-target cross-entropy"
    return "label-smoothing cross-entropy" if recipe.regularize.label_smoothing else "cross-entropy"
