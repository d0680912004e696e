"""The kinds of sweep: each turns its part of the file into rows (name, overrides, place).

To add one: a generator of rows, a line in ``KINDS``, and a field of the same name in ``sweepfile.SweepFile``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

from deit_ablate.errors import InputError, Position, did_you_mean
from deit_ablate.recipe import Recipe, flatten
from deit_ablate.sweep.overrides import dotted
from deit_ablate.sweep.yaml import Node, expand_dotted, merge

OFF: dict[str, Any] = {
    "augment.auto_augment": None,
    "augment.color_jitter": 0,
    "augment.hflip": 0,
    "augment.erasing": 0,
    "augment.mixup": 0,
    "augment.cutmix": 0,
    "augment.repeats": 1,
    "regularize.label_smoothing": 0,
    "regularize.drop_path": 0,
    "regularize.dropout": 0,
    "regularize.ema_decay": None,
    "optimizer.weight_decay": 0,
    "optimizer.clip_grad": None,
    "schedule.warmup_epochs": 0,
}
"""The value at which a switch is off, for ``leave_one_out`` given as a list of keys."""

Row = tuple[str, Node, Position]


def _named(node: Node) -> Iterator[Row]:
    for name, child in node.items():
        if child.value is None:
            child = Node({}, child.where)
        yield name, child, node.keys[name]


def nested(path: str, value: Node, place: Position) -> Node:
    """One value at its dotted key, as an override."""
    for part in reversed(path.split(".")):
        value = Node({part: value}, value.where, {part: place})
    return value


def _axes(node: Node) -> list[tuple[str, list[Node], Position]]:
    """Axes of a grid or zip: every list below the mapping, by its dotted key."""
    axes: list[tuple[str, list[Node], Position]] = []

    def walk(at: Node, path: tuple[str, ...]) -> None:
        for key, child in at.items():
            place = at.keys.get(key, child.where)
            here = (*path, key)
            if isinstance(child.value, dict) and child.value:
                walk(child, here)
            elif isinstance(child.value, list) and child.value:
                axes.append((dotted(here), child.value, place))
            else:
                raise InputError("an axis without values", where=place, key=dotted(here), expected="a list of values")

    walk(expand_dotted(node), ())
    if not axes:
        raise InputError("no axes", where=node.where, expected="keys with lists of values")
    return axes


def _axis_rows(axes: list[tuple[str, list[Node], Position]], combinations: Iterator[tuple[Node, ...]]) -> Iterator[Row]:
    short = [path.rsplit(".", 1)[-1] for path, _, _ in axes]
    labels = [path if short.count(last) > 1 else last for (path, _, _), last in zip(axes, short, strict=True)]
    for values in combinations:
        overrides = Node({}, axes[0][2])
        for (path, _, place), value in zip(axes, values, strict=True):
            overrides = merge(overrides, nested(path, value, place))
        yield (
            ",".join(f"{label}={_label(value.plain())}" for label, value in zip(labels, values, strict=True)),
            overrides,
            values[0].where,
        )


def _label(value: Any) -> str:
    """A value in a row's name; of a mapping its ``name`` and then its other leaves."""
    if isinstance(value, dict):
        others = [f"{path.rsplit('.', 1)[-1]}={_label(leaf)}" for path, leaf in flatten(value) if path != "name"]
        return " ".join([*([_label(value["name"])] if "name" in value else []), *others]) or "-"
    text = f"{value:g}" if isinstance(value, float) else "off" if value is None else str(value)
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-")[:40] or "-"


def _grid(node: Node) -> Iterator[Row]:
    axes = _axes(node)
    return _axis_rows(axes, itertools.product(*(values for _, values, _ in axes)))


def _zip(node: Node) -> Iterator[Row]:
    axes = _axes(node)
    for path, values, place in axes:
        if len(values) != len(axes[0][1]):
            raise InputError(
                f"{len(values)} values, and {axes[0][0]} has {len(axes[0][1])}",
                where=place,
                key=path,
                expected="lists of equal length",
            )
    return _axis_rows(axes, zip(*(values for _, values, _ in axes), strict=True))


def _switches(node: Node, values: Callable[[str, Position], Any], prefix: str) -> Iterator[Row]:
    yield "baseline", Node({}, node.where), node.where
    if isinstance(node.value, list):
        for child in node.value:
            key = str(child.value)
            given = nested(key, Node(values(key, child.where), child.where), child.where)
            yield prefix + key.rsplit(".", 1)[-1], given, child.where
    else:
        for name, overrides, place in _named(node):
            yield prefix + name, overrides, place


def _leave_one_out(node: Node) -> Iterator[Row]:
    def off(key: str, where: Position) -> Any:
        if key not in OFF:
            raise InputError(
                f"{key!r} has no off value{did_you_mean(key, OFF)}",
                where=where,
                expected="one of " + ", ".join(OFF) + "; or `name: {overrides}`",
            )
        return OFF[key]

    return _switches(node, off, "no ")


def _add_one(node: Node) -> Iterator[Row]:
    table9 = Recipe().model_dump()

    def on(key: str, where: Position) -> Any:
        block, _, name = key.partition(".")
        if key not in OFF or table9[block][name] == OFF[key]:
            raise InputError(
                f"{key!r} is no switch that Table 9 has on{did_you_mean(key, OFF)}",
                where=where,
                expected="`name: {overrides}`",
            )
        return table9[block][name]

    return _switches(node, on, "+")


def _cumulative(node: Node) -> Iterator[Row]:
    """Each row by its own change; ``spec`` puts it on top of those before, with what a profile makes of them."""
    yield "baseline", Node({}, node.where), node.where
    for name, overrides, place in _named(node):
        yield "+" + name, overrides, place


KINDS: dict[str, Callable[[Node], Iterator[Row]]] = {
    "variants": _named,
    "grid": _grid,
    "zip": _zip,
    "leave_one_out": _leave_one_out,
    "add_one": _add_one,
    "cumulative": _cumulative,
}
FROM_BASELINE = frozenset({"leave_one_out", "add_one", "cumulative"})
"""Kinds whose first row is the baseline."""
