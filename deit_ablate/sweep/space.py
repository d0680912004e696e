"""What a search varies: recipe keys, each with a range or a list of choices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from pydantic import model_validator

from deit_ablate.errors import InputError, Position
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


class Range(Part):
    """A range of numbers: ``{low: 1e-3, high: 0.1, log: true}``, ``{type: int, low: 1, high: 4}``."""

    type: Literal["float", "int"] = "float"
    low: int | float
    high: int | float
    log: bool = False
    """Draw on a logarithmic scale."""
    step: int | float | None = None
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
    node = expand_dotted(node)
    for path, child, place in _leaves(node, ()):
        key = dotted(path)
        refused = partial(node.error, path, under=f"{prefix}.")
        choices = child.plain() if isinstance(child.value, list) else []
        inner = [f"{key}.{leaf}" for choice in choices if isinstance(choice, dict) for leaf, _ in flatten(choice)]
        if any(name in FIXED for name in (key, *inner)):
            raise refused("a search cannot vary this", "a key other than " + ", ".join(FIXED), at_key=True)
        if isinstance(child.value, list):
            try:
                different = {canonical_json(normal(choice)) for choice in choices}
            except ValueError:
                raise refused("a choice is not finite", "finite numbers") from None
            if len(different) < max(len(choices), 2):
                raise refused("there is nothing to choose from", "two or more different values")
            found[key] = Parameter(key, place, choices=tuple(choices))
        elif not trainer.numeric(key):
            raise refused("a range for a key that takes no numbers", "a list of values", at_key=True)
        else:
            found[key] = Parameter(key, place, validate(Range, child, f"{prefix}.{key}."))
        for value in found[key].values():
            trainer.check(found[key].override(value), prefix=f"{prefix}.")
    return found


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
    node: Node,
    over: Node | None,
    rows: Sequence[str],
    seeds: Sequence[int],
    trainer: Trainer,
    left_out: Set[str] = frozenset(),
) -> SearchSettings | None:
    """The search of a sweep file with these rows and final seeds, ``over`` it what the profile changes about it, and
    ``left_out`` the rows that it leaves out.

    None where the file has no search. Raises InputError.
    """
    given = node.get("search")
    if given is None:
        return None
    if given.value is None:
        raise node.error("search", "an empty search", "a mapping with `space:`", at_key=True)
    block = _nested_keys(given)
    if over is not None:
        block = merge(block, _nested_keys(over))
    by_row = block.part("spaces")
    for name in (name for name, _ in by_row.items() if name not in (*rows, *left_out)):
        raise by_row.unknown(name, "no row", name, rows, under="search.spaces.")
    shared = read_space(block.part("space"), "search.space", trainer)
    spaces = {name: shared | read_space(by_row.part(name), f"search.spaces.{name}", trainer) for name in rows}
    for name in (name for name, space in spaces.items() if not space):
        expected = "`space:`, with recipe keys and their ranges or choices"
        raise node.error("search", f"nothing is varied in {name!r}", expected, at_key=True)
    search = SearchSettings(validate(SearchFile, block, "search."), spaces, node.keys["search"])
    selecting = (search.file.seed, *search.candidate_seeds)
    if used := set(seeds) & set(selecting):
        problem = f"the search selects by seed {min(used)}, which is one of `seeds:`"
        expected = f"none of {selecting[0]} to {selecting[-1]} in `seeds:`, or another first seed here"
        raise block.error("seed", problem, expected, under="search.")
    return search


def _nested_keys(block: Node) -> Node:
    """A search's block with the dotted keys of its spaces nested, so that two of them can be merged."""
    parts = dict(block.items())
    if "space" in parts:
        parts["space"] = expand_dotted(parts["space"])
    if isinstance((spaces := block.part("spaces")).value, dict) and "spaces" in parts:
        nested_rows = {row: expand_dotted(child) for row, child in spaces.items()}
        parts["spaces"] = Node(nested_rows, spaces.where, spaces.keys)
    return Node(parts, block.where, block.keys)
