"""Undeclared changes: what differs between a row and the baseline beside what the row says (confounds).

One change may cause another: without RandAugment the reference code switches colour jitter on, without mixup CutMix
gets every batch. What such a row shows is the effect of both, so tables say so and ``--strict`` refuses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deit_ablate.errors import InputError
from deit_ablate.execution import Execution
from deit_ablate.identity import UNREAD, unread
from deit_ablate.program import ProgramRecipe
from deit_ablate.recipe import Recipe, flatten
from deit_ablate.sweep.sweep import Sweep
from deit_ablate.sweep.yaml import Node

FOLLOWS: dict[str, tuple[tuple[str, ...], str]] = {
    "effective_lr": (("optimizer.name", "optimizer.base_lr"), "effective learning rate"),
    "steps_per_epoch": (("schedule.batch_size", "data"), "steps an epoch"),
    "total_steps": (("schedule.batch_size", "schedule.epochs", "data"), "steps in all"),
    "warmup_steps": (("schedule.warmup_epochs",), "warm-up steps"),
    "samples_seen": (("schedule.epochs", "data", "schedule.batch_size"), "samples seen"),
    "distinct_images_per_epoch": (("augment.repeats", "data", "schedule.batch_size"), "distinct images an epoch"),
    "color_jitter": (("augment.color_jitter",), "colour jitter"),
    "mixup_share": (("augment.mixup", "augment.mix_prob", "augment.mix_switch"), "share of batches with mixup"),
    "cutmix_share": (("augment.cutmix", "augment.mix_prob", "augment.mix_switch"), "share of batches with CutMix"),
    "loss": (("regularize.loss", "regularize.label_smoothing", "distill.type"), "loss"),
    "heads": (("distill.type",), "heads"),
}
"""What follows from a recipe (``identity.derived``) -> the keys that declare it, and its name in messages."""

_DATA = ("data.name", "data.id", "data.file", "data.options")
"""What says which data these are."""

RECORDED: dict[str, tuple[tuple[str, ...], str]] = {
    "parameters": (("model", "distill.type", "data.resolution", *_DATA), "parameters"),
    "flops": (("model", "distill.type", "data.resolution", *_DATA), "operations of a forward pass"),
    "data_fingerprint": (_DATA, "data"),
    "version": ((), "version of deit-ablate"),
    "commit": ((), "git commit"),
    "packages": ((), "package versions"),
    "device": ((), "device"),
    "gpu": ((), "GPU"),
    "cpu": ((), "CPU"),
    "threads": ((), "threads"),
    "chunks": ((), "chunks of a batch (ranks x accumulation)"),
    "compile": ((), "torch.compile"),
    "channels_last": ((), "channels-last layout"),
    "deterministic": ((), "deterministic algorithms"),
}
"""The same of what runs record."""

PART_OF: dict[str, set[str]] = {"data.id": {"data.name", "data.file"}, "data.file": {"data.name"}}
"""Key -> keys that declare it too: those from which it follows where it is not written (data without an id are called
by their name and file), and those that may switch it off or on (each distillation type has its own weight of the
teacher). So do the names of a model and an optimizer for their options."""
for _rule in UNREAD:
    PART_OF.setdefault(_rule.key, set()).update(f"{_rule.block}.{name}" for name in _rule.by)


@dataclass(frozen=True)
class Undeclared:
    """An undeclared change: something in which a row differs from the baseline beside what it declares."""

    row: str
    what: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.what} {value_words(self.before)} → {value_words(self.after)}"


def planned_undeclared(
    row: str, declares: Sequence[str], differs: Mapping[str, Any], follows: Mapping[str, Any]
) -> list[Undeclared]:
    """What a plan shows: recipe keys that differ without being declared (such as an optimizer's default rate, where
    only its name is), and what follows from the recipe (``differs`` and ``follows``: key -> (baseline's, row's))."""
    keys = [
        Undeclared(row, key, *pair)
        for key, pair in differs.items()
        if not _declared(key, declares) and PART_OF.get(key, set()).isdisjoint(declares)
    ]
    derived = [
        Undeclared(row, FOLLOWS[key][1], *pair)
        for key, pair in follows.items()
        if key in FOLLOWS and not any(_declared(meant, declares) for meant in FOLLOWS[key][0])
    ]
    return keys + derived


def recorded_undeclared(
    row: str,
    declares: Sequence[str],
    values: Mapping[str, Iterable[Any]],
    baseline: Mapping[str, Iterable[Any]],
    known: Mapping[str, tuple[tuple[str, ...], str]] = RECORDED,
) -> list[Undeclared]:
    """What only records show. ``values`` and ``baseline``: a key of those ``known`` -> the values of the row's runs."""
    found = []
    for key, (meant, name) in known.items():
        here, there = _distinct(values.get(key, ())), _distinct(baseline.get(key, ()))
        if key == "commit":
            here, there = (sorted({value[:10] + value[40:] for value in texts}) for texts in (here, there))
        if here and there and here != there and not any(_declared(other, declares) for other in meant):
            found.append(Undeclared(row, name, ", ".join(there), ", ".join(here)))
    return found


def executed_undeclared(row: str, own: Sequence[Execution], baseline: Sequence[Execution]) -> list[Undeclared]:
    """What records will show of rows whose runs are executed otherwise than the baseline's."""
    values, of_baseline = (
        {
            **{key: [getattr(each, key) for each in executions] for key in RECORDED.keys() & Execution.model_fields},
            "chunks": [each.ranks * each.accumulation for each in executions],
        }
        for executions in (own, baseline)
    )
    return recorded_undeclared(row, (), values, of_baseline)


def without_effect(recipe: Recipe | ProgramRecipe, node: Node, keys: Iterable[str]) -> dict[str, str]:
    """Which of these keys the trainer does not read in this recipe -> in words, with what switches them off and where
    that is written (in ``node``)."""
    found: dict[str, str] = {}
    if isinstance(recipe, ProgramRecipe):
        return found  # only the program knows
    wanted = set(keys)
    for rule in unread(recipe):
        if rule.key in wanted:
            reasons = []
            for name in rule.by:
                file, line, _ = node.locate((rule.block, name))
                place = f" ({file}:{line})" if line and node.has((rule.block, name)) else ""
                value = value_words(getattr(getattr(recipe, rule.block), name))
                reasons.append(f"{rule.block}.{name} is {value}{place}")
            found.setdefault(rule.key, f"{rule.key} has no effect where {' and '.join(reasons)}")
    return found


def refuse_idle_sets(
    sweep: Sweep, recipes: Mapping[tuple[str, str], Recipe | ProgramRecipe], nodes: Mapping[str, Mapping[str, Node]]
) -> None:
    """Raises InputError for a ``--set`` that changes nothing: each row has its own value, or does not read the key.

    It would be another study of the same runs.
    """
    stages = [stage.name for stage in sweep.stages]

    def reasons(key: str, value: Any) -> Iterator[str]:
        if value == {}:  # layers are merged, so that it leaves what there is
            yield "an empty mapping changes nothing"
            return
        stage, _, inner = key.partition(".")
        for row in (variant.name for variant in sweep.variants):
            for name, path in [(stage, inner)] if stage in stages else [(name, key) for name in stages]:
                searched = sweep.search is not None and path in sweep.search.spaces[row]
                yield "the search varies it" if searched else _idle(recipes[row, name], nodes[row][name], path, row)

    for given in sweep.sets:
        leaves = list(flatten(given.plain()))
        found = list(dict.fromkeys(reason for leaf in leaves for reason in reasons(*leaf)))
        if "" not in found:
            shown = "; ".join(found[:3]) + "; ..." * (len(found) > 3)
            expected = "a key that some row takes from here"
            raise InputError(f"without effect: {shown}", where=given.where, key=leaves[0][0], expected=expected)


def _idle(recipe: Recipe | ProgramRecipe, node: Node, key: str, row: str) -> str:
    """Why ``--set`` of this key does not reach a recipe; an empty text where it does."""
    file, line, _ = node.locate(key.split("."))
    if line or not file.startswith("--set"):
        return f"the row {row!r} has its own ({file}:{line})"
    return without_effect(recipe, node, [key]).get(key, "")


def _declared(key: str, declares: Sequence[str]) -> bool:
    if ".options." in key and f"{key.partition('.')[0]}.name" in declares:
        return True
    return any(key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.") for other in declares)


def _distinct(values: Iterable[Any]) -> list[str]:
    """The different known values in words; None, NaN and an empty text are unknown."""
    return sorted({value_words(value) for value in values if value is not None and value == value and value != ""})


def value_words(value: Any) -> str:
    """A recipe's or a record's value as messages and tables show it."""
    if value is None or value == {}:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return "[" + ", ".join(map(value_words, value)) + "]"
    if isinstance(value, dict) and "name" in value:  # a custom augmentation
        options = ", ".join(f"{key} {value_words(each)}" for key, each in value.get("options", {}).items())
        return f"{value['name']} ({options})" if options else str(value["name"])
    text = str(value) or '""'
    return f"{text[:14]}…" if text.startswith("sha256:") else text  # its first digits tell which file it is
