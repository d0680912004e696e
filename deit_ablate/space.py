"""What a search varies: recipe keys, each with a range or a list of choices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from deit_ablate.execution import Part
from deit_ablate.kinds import nested
from deit_ablate.recipe import canonical_json
from deit_ablate.resolve import check_keys, dotted, validate
from deit_ablate.sweepfile import SearchFile
from deit_ablate.yamlfile import InputError, Node, Position, expand_dotted, suggest

FIXED = ("seed", "data.name", "data.id", "data.validation", "data.train_images", "data.test")
"""What a search may not vary: its trials would be scored on different images."""


class Range(Part):
    """A range of numbers: ``{low: 1e-3, high: 0.1, log: true}``, ``{type: int, low: 1, high: 4}``."""

    type: Literal["float", "int"] = "float"
    low: int | float
    high: int | float
    log: bool = False
    """Draw on a logarithmic scale."""
    step: Annotated[int | float, Field(gt=0)] | None = None
    """Only low, low + step, low + 2 step and so on."""

    @model_validator(mode="after")
    def _sound(self) -> Range:
        if self.low >= self.high:
            raise ValueError("low below high")
        if self.log and self.low <= 0:
            raise ValueError("low above 0 where log is true")
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
        """What plan.json says of it."""
        return self.range.model_dump() if self.range else {"type": "categorical", "choices": list(self.choices)}

    @classmethod
    def of_facts(cls, key: str, facts: Mapping[str, Any]) -> Parameter:
        """The parameter that plan.json tells of."""
        if facts["type"] == "categorical":
            return cls(key, ("", 0, 0), choices=tuple(facts["choices"]))
        return cls(key, ("", 0, 0), Range.model_validate(facts))

    def words(self) -> str:
        if self.range is None:
            return "one of " + ", ".join(map(canonical_json, self.choices))
        scale = " (log)" if self.range.log else f" in steps of {self.range.step:g}" if self.range.step else ""
        return f"{self.range.low:g} to {self.range.high:g}{scale}{' (whole)' if self.range.type == 'int' else ''}"

    def values(self) -> list[Any]:
        """What must make sound recipes before anything is trained: every choice, or the ends of the range and, of one
        that is not of whole numbers, a value between."""
        if self.range is None:
            return list(self.choices)
        low, high = self.range.low, self.range.high
        if self.range.type == "int":
            return [low, high]
        between = low + self.range.step if self.range.step else low + (high - low) / 2**1.5
        return [float(low), float(high), float(between)]

    def override(self, value: Any) -> Node:
        return nested(self.key, _node(value, self.where), self.where)


def _node(value: Any, where: Position) -> Node:
    if isinstance(value, dict):
        return Node({key: _node(child, where) for key, child in value.items()}, where, dict.fromkeys(value, where))
    return Node([_node(child, where) for child in value] if isinstance(value, list) else value, where)


def read_space(node: Node, prefix: str) -> dict[str, Parameter]:
    """The parameters below a mapping of recipe keys, dotted or nested. Raises InputError."""
    found: dict[str, Parameter] = {}
    for path, child, place in _leaves(expand_dotted(node), ()):
        key = dotted(path)
        whole = f"{prefix}.{key}"
        if key in FIXED:
            raise InputError("a search cannot vary this", where=place, key=whole, expected="another key")
        if isinstance(child.value, list):
            choices = child.plain()
            if len({canonical_json(choice) for choice in choices}) < max(len(choices), 2):
                raise InputError("no choice", where=child.where, key=whole, expected="two or more different values")
            found[key] = Parameter(key, place, choices=tuple(choices))
        else:
            found[key] = Parameter(key, place, validate(Range, child, tuple(whole.split("."))))
        check_keys(found[key].override(found[key].values()[0]), prefix=f"{prefix}.")
    return found


def _leaves(node: Node, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Node, Position]]:
    for key, child in node.items():
        path, place = (*above, key), node.keys.get(key, child.where)
        if isinstance(child.value, list) or (isinstance(child.value, dict) and {"low", "high"} & set(child.value)):
            yield path, child, place
        elif isinstance(child.value, dict) and child.value:
            yield from _leaves(child, path)
        else:
            raise InputError(
                "neither a range nor choices", where=place, key=dotted(path),
                expected="{low: ..., high: ...} or a list of values",
            )  # fmt: skip


@dataclass(frozen=True)
class Search:
    """What a sweep searches for; the settings are those of its file."""

    settings: SearchFile
    spaces: dict[str, dict[str, Parameter]]
    """By row: what is varied in it."""
    where: Position

    @property
    def candidate_seeds(self) -> tuple[int, ...]:
        return tuple(self.settings.seed + 1 + place for place in range(self.settings.candidate_seeds))


def read_search(node: Node, settings: SearchFile | None, rows: Sequence[str], seeds: Sequence[int]) -> Search | None:
    """The search of a sweep file with these rows and final seeds; None where it has none. Raises InputError."""
    if settings is None:
        return None
    own = node.value["search"]
    by_row = own.get("spaces") or Node({}, own.where)
    for name, child in by_row.items():
        if name not in rows:
            raise InputError(
                f"no row {name!r}{suggest(name, rows)}", where=by_row.keys.get(name, child.where), key="search.spaces",
                expected="one of " + ", ".join(rows[:20]),
            )  # fmt: skip
    shared = read_space(own.get("space") or Node({}, own.where), "search.space")
    spaces = {}
    for name in rows:
        child = by_row.get(name)
        spaces[name] = {**shared, **(read_space(child, f"search.spaces.{name}") if child else {})}
        if not spaces[name]:
            raise InputError(
                f"nothing is varied in {name!r}", where=node.keys["search"], key="search",
                expected="`space:`, with recipe keys and their ranges or choices",
            )  # fmt: skip
    search = Search(settings, spaces, node.keys["search"])
    if used := set(seeds) & {settings.seed, *search.candidate_seeds}:
        raise InputError(
            f"seed {min(used)} is one that the search chooses by", where=own.locate(("seed",)), key="search.seed",
            expected=f"seeds {settings.seed} to {settings.seed + settings.candidate_seeds} to be none of `seeds:`",
        )  # fmt: skip
    return search
