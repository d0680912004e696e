"""Whether a row differs from the baseline in what it declares, and in nothing else.

A change may bring others along: without RandAugment the reference code switches colour jitter on, without mixup
CutMix gets every batch. Such a row compares two changes with none, so tables say so, and ``--strict`` refuses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    "loss": (("regularize.label_smoothing", "distill.type"), "loss"),
    "heads": (("distill.type",), "heads"),
}
"""What follows from a recipe (``recipe.derived``) -> the keys that mean just that, and how people call it."""

RECORDED: dict[str, tuple[tuple[str, ...], str]] = {
    "parameters": (("model", "distill.type", "data.resolution", "data.name", "data.id"), "parameters"),
    "flops": (("model", "distill.type", "data.resolution", "data.name", "data.id"), "operations of a forward pass"),
    "data_fingerprint": (("data.name", "data.id"), "data"),
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


PART_OF = {"distill.alpha": "distill.type", "distill.tau": "distill.type", "distill.normalisation": "distill.type"}
"""Keys whose values belong to what another key names: a distillation type comes with its own weight of the teacher.
So do the options of a model or an optimizer."""


@dataclass(frozen=True)
class Leak:
    """Something in which a row differs from the baseline beside what it declares."""

    row: str
    what: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.what} {said(self.before)} → {said(self.after)}"


def planned_leaks(
    row: str, declares: Sequence[str], differs: Mapping[str, Any], follows: Mapping[str, Any]
) -> list[Leak]:
    """What a plan knows of: recipe keys that differ without being declared (an optimizer's own rate comes along with
    its name), and what follows from the recipe (``differs`` and ``follows``: key -> (baseline's, own))."""
    keys = [Leak(row, key, *pair) for key, pair in differs.items() if not _declared(key, declares)]
    derived = [
        Leak(row, FOLLOWS[key][1], *pair)
        for key, pair in follows.items()
        if key in FOLLOWS and not any(_declared(own, declares) for own in FOLLOWS[key][0])
    ]
    return keys + derived


def recorded_leaks(
    row: str, declares: Sequence[str], own: Mapping[str, Iterable[Any]], baseline: Mapping[str, Iterable[Any]]
) -> list[Leak]:
    """What only records know of. ``own`` and ``baseline``: a key of RECORDED -> the values of the row's runs."""
    leaks = []
    for key, (explained, words) in RECORDED.items():
        here, there = _distinct(own.get(key, ())), _distinct(baseline.get(key, ()))
        if key == "commit":
            here, there = (sorted({value[:10] + value[40:] for value in values}) for values in (here, there))
        if here and there and here != there and not any(_declared(known, declares) for known in explained):
            leaks.append(Leak(row, words, ", ".join(there), ", ".join(here)))
    return leaks


def _declared(key: str, declares: Sequence[str]) -> bool:
    if PART_OF.get(key) in declares or (".options." in key and f"{key.partition('.')[0]}.name" in declares):
        return True
    return any(key == own or key.startswith(f"{own}.") or own.startswith(f"{key}.") for own in declares)


def _distinct(values: Iterable[Any]) -> list[str]:
    """What is known of them: an empty text is nothing known."""
    return sorted({said(value) for value in values if value is not None and value == value and value != ""})


def said(value: Any) -> str:
    """A value for people."""
    if value is None or value == {}:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return "[" + ", ".join(map(said, value)) + "]"
    text = str(value)
    # A file's hash says which file it is by its first digits.
    return f"{text[:14]}…" if text.startswith("sha256:") else text
