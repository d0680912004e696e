"""What a search varies: recipe keys, each with a range or a list of choices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, WithJsonSchema, model_validator

from deit_ablate.errors import InputError, Position, unknown_name
from deit_ablate.execution import Part
from deit_ablate.identity import canonical_json, normal
from deit_ablate.recipe import flatten
from deit_ablate.sweep.fields import SearchFile
from deit_ablate.sweep.overrides import validate
from deit_ablate.sweep.rows import nested
from deit_ablate.sweep.trainers import Trainer
from deit_ablate.sweep.yaml import Node, dotted, expand_dotted, merge, placed

FIXED = ("seed", "data.name", "data.id", "data.validation", "data.train_images", "data.test")
"""What a search may not vary: its trials would be scored on different images."""


def _finite(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError("a finite number")
    return value


Number = Annotated[Any, AfterValidator(_finite), WithJsonSchema({"type": "number"})]


class Range(Part):
    """A range of numbers: ``{low: 1e-3, high: 0.1, log: true}``, ``{type: int, low: 1, high: 4}``."""

    type: Literal["float", "int"] = "float"
    low: Number
    high: Number
    log: bool = False
    """Draw on a logarithmic scale."""
    step: Number | None = None
    """Only low, low + step, low + 2 step and so on."""

    @property
    def spacing(self) -> Any:
        """Between neighbouring values; None where there is a value between any two."""
        return self.step or (1 if self.type == "int" else None)

    @model_validator(mode="after")
    def _sound(self) -> Range:
        if self.low >= self.high:
            raise ValueError("low below high")
        if self.log and self.low <= 0:
            raise ValueError("low above 0 where log is true")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError("a step above 0, and no larger than the range")
        if self.log and self.step is not None:
            raise ValueError("log or step, not both")
        if self.type == "int" and not all(type(part) is int for part in (self.low, self.high, self.step or 1)):
            raise ValueError("whole numbers where type is int")
        return self


@dataclass(frozen=True)
class Parameter:
    """One dimension of a search's space. Of ``range`` and ``choices`` one is given."""

    key: str
    where: Position
    range: Range | None = None
    choices: tuple[Any, ...] = ()

    def facts(self) -> dict[str, Any]:
        """The parameter as plan.json holds it."""
        return self.range.model_dump() if self.range else {"type": "categorical", "choices": list(self.choices)}

    @classmethod
    def of_facts(cls, key: str, facts: Mapping[str, Any]) -> Parameter:
        """The parameter that plan.json holds."""
        if facts["type"] == "categorical":
            return cls(key, ("", 0, 0), choices=tuple(facts["choices"]))
        return cls(key, ("", 0, 0), Range.model_validate(facts))

    def holds(self, value: Any) -> bool:
        """Whether a trial may have this value."""
        if self.range is None:
            return canonical_json(normal(value)) in {canonical_json(normal(choice)) for choice in self.choices}
        low, high, spacing = self.range.low, self.range.high, self.range.spacing
        steps = (value - low) / spacing if spacing else 0
        return bool(low <= value <= high and abs(steps - round(steps)) < 1e-8)

    def points(self) -> int | None:
        """How many values there are; None where they cannot be counted."""
        if self.range is None:
            return len(self.choices)
        low, high, spacing = self.range.low, self.range.high, self.range.spacing
        return None if spacing is None or self.range.log else int((high - low) / spacing + 1e-9) + 1

    def words(self) -> str:
        if self.range is None:
            return "one of " + ", ".join(map(canonical_json, self.choices))
        scale = " (log)" if self.range.log else f" in steps of {self.range.step:g}" if self.range.step else ""
        return f"{self.range.low:g} to {self.range.high:g}{scale}{' (whole)' if self.range.type == 'int' else ''}"

    def values(self) -> list[Any]:
        """What must make valid recipes before anything is trained: every choice, or the ends of the range and, of one
        that is not of whole numbers, a value between."""
        if self.range is None:
            return list(self.choices)
        low, high = self.range.low, self.range.high
        if self.range.type == "int":
            return [low, high]
        between = low + self.range.step if self.range.step else low + (high - low) / 2**1.5
        return [float(low), float(high), float(between)]

    def override(self, value: Any) -> Node:
        return nested(self.key, placed(value, self.where), self.where)


def read_space(node: Node, prefix: str, trainer: Trainer) -> dict[str, Parameter]:
    """The parameters below a mapping of recipe keys, dotted or nested. Raises InputError."""
    found: dict[str, Parameter] = {}
    for path, child, place in _leaves(expand_dotted(node), ()):
        key = dotted(path)
        whole = f"{prefix}.{key}"
        choices = child.plain() if isinstance(child.value, list) else []
        inner = [f"{key}.{leaf}" for choice in choices if isinstance(choice, dict) for leaf, _ in flatten(choice)]
        if any(name in FIXED for name in (key, *inner)):
            raise InputError(
                "a search cannot vary this", where=place, key=whole, expected="a key other than " + ", ".join(FIXED)
            )
        if isinstance(child.value, list):
            if len({_spelling(choice, child, whole) for choice in choices}) < max(len(choices), 2):
                problem = "there is nothing to choose from"
                raise InputError(problem, where=child.where, key=whole, expected="two or more different values")
            found[key] = Parameter(key, place, choices=tuple(choices))
        elif not trainer.numeric(key):
            problem = "a range for a key that takes no numbers"
            raise InputError(problem, where=place, key=whole, expected="a list of values")
        else:
            found[key] = Parameter(key, place, validate(Range, child, f"{whole}."))
        trainer.check(found[key].override(found[key].values()[0]), prefix=f"{prefix}.")
    return found


def _spelling(choice: Any, node: Node, key: str) -> str:
    """One text for equal values. Raises InputError for numbers that are not finite."""
    try:
        return canonical_json(normal(choice))
    except ValueError:
        raise InputError("a choice is not finite", where=node.where, key=key, expected="finite numbers") from None


def _leaves(node: Node, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Node, Position]]:
    for key, child in node.items():
        path, place = (*above, key), node.keys.get(key, child.where)
        if isinstance(child.value, list) or (isinstance(child.value, dict) and {"low", "high"} & set(child.value)):
            yield path, child, place
        elif isinstance(child.value, dict) and child.value:
            yield from _leaves(child, path)
        else:
            expected = "{low: ..., high: ...} or a list of values"
            raise InputError("neither a range nor choices", where=place, key=dotted(path), expected=expected)


@dataclass(frozen=True)
class SearchSettings:
    """What a sweep file says of its search."""

    file: SearchFile
    """The ``search:`` block, with what the profile changes about it."""
    spaces: dict[str, dict[str, Parameter]]
    """By row: what is varied in it."""
    where: Position

    @property
    def candidate_seeds(self) -> tuple[int, ...]:
        """The seeds on which candidates are trained again, after the trials' own."""
        return tuple(self.file.seed + 1 + place for place in range(self.file.candidate_seeds))


def read_search(
    node: Node, over: Node | None, rows: Sequence[str], seeds: Sequence[int], trainer: Trainer
) -> SearchSettings | None:
    """The search of a sweep file with these rows and final seeds, ``over`` it what the profile changes about it.

    None where the file has no search. Raises InputError.
    """
    block = node.get("search")
    if block is None:
        return None
    where = node.keys["search"]
    if block.value is None:
        raise InputError("an empty search", where=where, key="search", expected="a mapping with `space:`")
    block = _nested_keys(block)
    if over is not None:
        block = merge(block, _nested_keys(over))
    empty = Node({}, block.where)
    by_row = block.get("spaces") or empty
    for name, child in by_row.items():
        if name not in rows:
            place = by_row.keys.get(name, child.where)
            raise unknown_name("no row", name, rows, where=place, key="search.spaces")
    shared = read_space(block.get("space") or empty, "search.space", trainer)
    spaces = {name: shared | read_space(by_row.get(name) or empty, f"search.spaces.{name}", trainer) for name in rows}
    for name, space in spaces.items():
        if not space:
            expected = "`space:`, with recipe keys and their ranges or choices"
            raise InputError(f"nothing is varied in {name!r}", where=where, key="search", expected=expected)
    search = SearchSettings(validate(SearchFile, block, "search."), spaces, where)
    selecting = (search.file.seed, *search.candidate_seeds)
    if used := set(seeds) & set(selecting):
        problem = f"the search selects by seed {min(used)}, which is one of `seeds:`"
        expected = f"none of {selecting[0]} to {selecting[-1]} in `seeds:`, or another first seed here"
        raise InputError(problem, where=block.locate(("seed",)), key="search.seed", expected=expected)
    return search


def _nested_keys(block: Node) -> Node:
    """A search's block with the dotted keys of its spaces nested, so that two of them can be merged."""
    parts = dict(block.items())
    if (space := block.get("space")) is not None:
        parts["space"] = expand_dotted(space)
    if (spaces := block.get("spaces")) is not None and isinstance(spaces.value, dict):
        rows = {row: expand_dotted(child) for row, child in spaces.items()}
        parts["spaces"] = Node(rows, spaces.where, spaces.keys)
    return Node(parts, block.where, block.keys)
