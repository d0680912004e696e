"""The kinds of sweep: each turns its part of the file into rows (name, overrides, place).

To add one: a generator of rows and an entry in ``KINDS``. The key of sweep files, its schema and its checks follow.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from deit_ablate.errors import InputError, Position, did_you_mean
from deit_ablate.recipe import Recipe, flatten, switches
from deit_ablate.sweep.overrides import dotted
from deit_ablate.sweep.yaml import Node, expand_dotted, merge

Row = tuple[str, Node, Position]


def _named(node: Node) -> Iterator[Row]:
    for name, child in node.items():
        yield name, Node({}, child.where) if child.value is None else child, node.keys[name]


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


def axis_values(node: Node) -> Iterator[Node]:
    """Every value of a grid's axes by itself, as an override."""
    return (nested(path, value, place) for path, values, place in _axes(node) for value in values)


def short_keys(keys: Sequence[str]) -> list[str]:
    """Each key's last part; the whole key where another one ends so too."""
    short = [key.rpartition(".")[2] for key in keys]
    return [key if short.count(last) > 1 else last for key, last in zip(keys, short, strict=True)]


def _axis_rows(
    axes: list[tuple[str, list[Node], Position]], combinations: Iterable[tuple[Node, ...]], names: Iterable[str]
) -> Iterator[Row]:
    for values, name in zip(combinations, names, strict=True):
        overrides = Node({}, axes[0][2])
        for (path, _, place), value in zip(axes, values, strict=True):
            overrides = merge(overrides, nested(path, value, place))
        yield name, overrides, values[0].where


def _label(value: Any, whole: bool = False) -> str:
    """A value in a row's name; of a mapping its ``name`` and then its other leaves. ``whole``: with all digits of a
    number, all characters of a text and the signs in a list."""
    if isinstance(value, dict):
        others = [f"{path.rsplit('.', 1)[-1]}={_label(leaf, whole)}" for path, leaf in flatten(value) if path != "name"]
        return " ".join([*([_label(value["name"], whole)] if "name" in value else []), *others]) or "-"
    if whole and isinstance(value, list):
        return " ".join(_label(each, whole) for each in value) or "-"
    short = isinstance(value, float) and not whole
    text = f"{value:g}" if short else "off" if value is None else str(value)
    if isinstance(value, (int, float)):  # whose sign is no hyphen
        return text
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-")[: None if whole else 40] or "-"


def _told_apart(values: Sequence[Any], label: Callable[[Any, bool], str]) -> list[str]:
    """The short label of each value, and the whole one where different values have one short label. Equal values stay
    called the same, which is refused."""
    short = [label(value, False) for value in values]
    alike: dict[str, list[Any]] = {}
    for text, value in zip(short, values, strict=True):
        alike.setdefault(text, []).append(value)
    return [
        label(value, True) if any(other != value for other in alike[text]) else text
        for text, value in zip(short, values, strict=True)
    ]


def grid_axes(node: Node) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """A grid's axes, the first one varying slowest: dotted key, and the values as names of rows have them."""
    plain = ((path, [value.plain() for value in values]) for path, values, _ in _axes(node))
    return tuple((path, tuple(_told_apart(values, _label))) for path, values in plain)


def _name(keys: Sequence[str], labels: Iterable[str]) -> str:
    return ",".join(f"{key}={label}" for key, label in zip(keys, labels, strict=True))


def _grid(node: Node) -> Iterator[Row]:
    axes = _axes(node)
    keys = short_keys([path for path, _, _ in axes])
    names = (_name(keys, labels) for labels in itertools.product(*(labels for _, labels in grid_axes(node))))
    return _axis_rows(axes, itertools.product(*(values for _, values, _ in axes)), names)


def _zip(node: Node) -> Iterator[Row]:
    axes = _axes(node)
    for path, values, place in axes:
        if len(values) != len(axes[0][1]):
            problem = f"{len(values)} values, and {axes[0][0]} has {len(axes[0][1])}"
            raise InputError(problem, where=place, key=path, expected="lists of equal length")
    keys = short_keys([path for path, _, _ in axes])
    combinations = list(zip(*(values for _, values, _ in axes), strict=True))
    plain = [[value.plain() for value in values] for values in combinations]
    names = _told_apart(plain, lambda values, whole: _name(keys, (_label(value, whole) for value in values)))
    return _axis_rows(axes, combinations, names)


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
    off_values = switches()

    def off(key: str, where: Position) -> Any:
        if key not in off_values:
            expected = "one of " + ", ".join(off_values) + "; or `name: {overrides}`"
            raise InputError(f"{key!r} has no off value{did_you_mean(key, off_values)}", where=where, expected=expected)
        return off_values[key]

    return _switches(node, off, "no ")


def _add_one(node: Node) -> Iterator[Row]:
    off_values, table9 = switches(), dict(flatten(Recipe().model_dump()))

    def on(key: str, where: Position) -> Any:
        if key not in off_values or table9.get(key, off_values[key]) == off_values[key]:
            hint = "" if key in off_values else did_you_mean(key, off_values)
            problem = f"{key!r} is no switch that Table 9 has on{hint}"
            raise InputError(problem, where=where, expected="`name: {overrides}`")
        return table9[key]

    return _switches(node, on, "+")


def _factorial(node: Node) -> Iterator[Row]:
    """Each factor by its own change; ``load`` combines them."""
    for name, overrides, place in _leave_one_out(node):
        yield name.removeprefix("no ") if name.startswith("no +") else name, overrides, place


def _cumulative(node: Node) -> Iterator[Row]:
    """Each row by its own change; ``load`` puts it on top of those before, with what a profile makes of them."""
    yield "baseline", Node({}, node.where), node.where
    for name, overrides, place in _named(node):
        yield "+" + name, overrides, place


@dataclass(frozen=True)
class Kind:
    """A kind of sweep. ``rows`` makes rows out of its part of the file; it raises InputError at what is none."""

    rows: Callable[[Node], Iterator[Row]]
    doc: str
    """What editors show."""
    shape: Literal["rows", "rows or keys", "axes"] = "rows"
    """What the part looks like: names with overrides (or a list of keys), or keys with lists of values."""
    from_baseline: bool = False
    """Whether its first row is the baseline."""
    combines: Literal["fraction", "orders"] | None = None
    """Whether these are changes that rows have several of (``designs``): the key of sweep files that says how."""


KINDS: dict[str, Kind] = {
    "variants": Kind(_named, "Rows by name, each with the overrides that make it differ."),
    "grid": Kind(_grid, "Axes by key, each a list of values; one row for every combination.", "axes"),
    "zip": Kind(_zip, "Axes by key, each a list of values of equal length; one row for each position.", "axes"),
    "leave_one_out": Kind(
        _leave_one_out,
        "From the baseline, one switch off at a time: names with overrides, or keys that have an off value.",
        "rows or keys",
        from_baseline=True,
    ),
    "add_one": Kind(
        _add_one,
        "From the baseline, one switch on at a time: names with overrides, or keys, set to Table 9's value.",
        "rows or keys",
        from_baseline=True,
    ),
    "cumulative": Kind(
        _cumulative,
        "From the baseline, one change after the other, each on top of those before: names with overrides.",
        from_baseline=True,
        combines="orders",
    ),
    "factorial": Kind(
        _factorial,
        "All combinations of factors, or a `fraction` of them, each factor as it is in the baseline or changed: names "
        "with overrides, or keys that have an off value. A name says what the change takes out, after + what it adds.",
        "rows or keys",
        from_baseline=True,
        combines="fraction",
    ),
}
