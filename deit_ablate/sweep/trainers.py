"""What trains the runs of a sweep, our trainer or a program: which keys rows may set, and what recipe they make.

To vary a program is to vary its parameters: a row's keys are theirs, without a block before them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deit_ablate.errors import Problems
from deit_ablate.identity import canonical, derived, difference
from deit_ablate.program import Program, ProgramData, ProgramRecipe, misplaced, placeholders
from deit_ablate.recipe import BLOCKS, Recipe, fields_of, flatten, not_finite
from deit_ablate.sweep import overrides
from deit_ablate.sweep.yaml import Node, merge

AnyRecipe = Recipe | ProgramRecipe


class Trainer:
    """Ours: recipes of blocks."""

    of_stage = "recipe"
    """The key of a stage under which its overrides stand."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """The first parts of a program's parameters, which rows set without a block before them."""
        return ()

    def check(self, layer: Node, prefix: str = "") -> None:
        """Refuse keys that there are not, and values that they cannot have, in one layer by itself (InputError)."""
        overrides.check_layer(layer, prefix=prefix)

    def layer(self, lower: Node, upper: Node | None, base: Node | None = None) -> Node:
        """One layer of overrides over another; ``base``: what both lie over, where they are no whole recipe."""
        return overrides.layer(lower, upper, base)

    def recipe(self, node: Node, stage: str) -> AnyRecipe:
        """Merged layers as the recipe of a stage. Raises InputError."""
        return overrides.to_recipe(node)

    def numeric(self, key: str) -> bool:
        """Whether a key may take numbers."""
        block, _, name = key.partition(".")
        if block not in BLOCKS or "." in name:  # options of a model or an optimizer may
            return True
        found = fields_of(block).get(name)
        return found is None or any(kind in str(found.annotation) for kind in ("float", "int"))

    def differs(self, recipe: AnyRecipe, base: AnyRecipe) -> dict[str, tuple[Any, Any]]:
        """Dotted key, as a row would set it -> (value in the baseline, value here), where two recipes differ."""
        return difference(canonical(recipe), canonical(base))

    def follows(self, recipe: AnyRecipe, base: AnyRecipe) -> dict[str, tuple[Any, Any]]:
        """The same of what follows from a recipe without being written in it, as far as it is known before a run."""
        assert isinstance(recipe, Recipe)
        assert isinstance(base, Recipe)
        return difference(derived(recipe), derived(base))


@dataclass(frozen=True)
class OfProgram(Trainer):
    """A command or a function, with the parameters that it has."""

    programs: Mapping[str, Program]
    """By stage."""
    defaults: Node
    """The parameters, at their values in the baseline."""
    data: ProgramData = field(default_factory=ProgramData)
    sources: Mapping[str, str] = field(default_factory=dict)
    """Name -> hash of the code that is part of each run's id."""
    facts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What the program reports as following from its parameters -> those that declare a change of it."""
    validation: str | None = None
    """The metric by which a search chooses."""
    of_stage = "parameters"

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(self.defaults.value)

    def check(self, layer: Node, prefix: str = "") -> None:
        known, problems = dict(flatten(self.defaults.plain())), Problems()
        if not isinstance(layer.value, dict):
            raise layer.error((), f"got {layer.plain()!r}", "a mapping with some of " + ", ".join(known), under=prefix)
        for key, given in flatten(layer.plain()):
            path, (problem, expected) = key.split("."), no_parameter(given)
            if key not in known:
                problems.add(layer.unknown(path, "unknown parameter", key, list(known), under=prefix))
                continue
            if not problem and not _fits(given, default := known[key]):
                problem, expected = (
                    f"got {given!r}",
                    f"{_KINDS.get(type(default), 'a value')}, as its default {default!r} is",
                )
            if problem:
                problems.add(layer.error(path, problem, expected, under=prefix))
        problems.refuse()

    def layer(self, lower: Node, upper: Node | None, base: Node | None = None) -> Node:
        return lower if upper is None or not upper.value else merge(lower, upper)

    def recipe(self, node: Node, stage: str) -> ProgramRecipe:
        program = self.programs[stage]
        values = node.plain()
        if program.command is not None:
            # A stage whose command does not name a parameter is the same training whatever its value.
            named = {name for _, name in placeholders(program.command)}
            values = _only(values, named)
            if wrong := misplaced(program.command, dict(flatten(values))):
                key, problem, expected = wrong
                raise node.error(key.split("."), problem, expected)
        return ProgramRecipe(program=program, parameters=values, data=self.data)

    def numeric(self, key: str) -> bool:
        default = dict(flatten(self.defaults.plain())).get(key, 0)
        return default is None or (isinstance(default, (int, float)) and not isinstance(default, bool))

    def differs(self, recipe: AnyRecipe, base: AnyRecipe) -> dict[str, tuple[Any, Any]]:
        here, there = (dict(flatten(canonical(each)["parameters"])) for each in (recipe, base))
        return {key: (there.get(key), here.get(key)) for key in {**there, **here} if there.get(key) != here.get(key)}

    def follows(self, recipe: AnyRecipe, base: AnyRecipe) -> dict[str, tuple[Any, Any]]:
        return {}  # what it reports is known once it has run

    def document(self) -> dict[str, Any]:
        """What plan.json holds of it."""
        kind = "command" if any(program.command for program in self.programs.values()) else "function"
        facts = {fact: list(keys) for fact, keys in self.facts.items()}
        numbers = [key for key, default in flatten(self.defaults.plain()) if isinstance(default, float)]
        return {"kind": kind, "data": self.data.id, "validation": self.validation, "facts": facts, "numbers": numbers}


OURS = Trainer()
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list"}


def no_parameter(value: Any) -> tuple[str, str]:
    """Why no parameter of a program can have this value, and what was expected; two empty texts of one that may."""
    if isinstance(value, list) and any(isinstance(each, (dict, list)) for each in value):
        return "a list of lists or mappings", "a list of plain values, each an argument"
    return (f"got {value!r}", "a finite number") if any(not_finite(value)) else ("", "")


def _fits(value: Any, default: Any) -> bool:
    """Whether a value is of a parameter's kind: that of its default. Null is a value of each, and takes any kind: an
    argument that is left out."""
    if value is None or default is None:
        return not isinstance(value, dict)
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, (int, float))
    return isinstance(value, type(default))


def _only(values: Mapping[str, Any], named: Iterable[str]) -> dict[str, Any]:
    """The (nested) values of these dotted names."""
    named, found = set(named), dict[str, Any]()
    for key, value in flatten(values):
        if key in named:
            *above, last = key.split(".")
            functools.reduce(lambda at, step: at.setdefault(step, {}), above, found)[last] = value
    return found
