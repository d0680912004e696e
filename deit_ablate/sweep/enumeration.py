"""The runs that the rows of a sweep need, at all seeds and stages. A run that two rows share has one id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deit_ablate.errors import InputError
from deit_ablate.identity import RUN_NAME, canonical, run_id
from deit_ablate.recipe import Recipe
from deit_ablate.sweep.comparisons import Comparison, Lineages
from deit_ablate.sweep.names import modules
from deit_ablate.sweep.overrides import files_named
from deit_ablate.sweep.stages import Stage
from deit_ablate.sweep.sweep import Sweep, Variant
from deit_ablate.sweep.trainers import AnyRecipe
from deit_ablate.sweep.yaml import Node


@dataclass(frozen=True)
class Run:
    """One training: canonical recipe, parents by role ({"run": id, "weights": "last" | "ema"}), custom sources."""

    id: str
    recipe: dict[str, Any]
    parents: dict[str, dict[str, str]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    """Module of the user's own code -> hash of its normalised code."""
    weights: dict[str, Path] = field(default_factory=dict, compare=False)
    """Files that the recipe names by their content, where their paths were given: content -> path."""

    accepted: Mapping[str, Any] | None = field(default=None, compare=False)
    """Of a run of earlier code, which a user has accepted: from which, when and by whom (``Sweeps.accepted``)."""

    @property
    def above(self) -> list[str]:
        return [parent["run"] for parent in self.parents.values()]


@dataclass(frozen=True)
class Cell:
    """The place of a run in its sweep."""

    variant: str
    seed: int
    stage: str
    run: str


def cell_name(variant: str, seed: int, stage: str) -> str:
    """``variant:seed[:stage]``"""
    return f"{variant}:{seed}" + (f":{stage}" if stage else "")


class Enumeration:
    """The runs of a sweep's rows."""

    def __init__(
        self,
        sweep: Sweep,
        recipes: Mapping[tuple[str, str], AnyRecipe],
        nodes: Mapping[str, Mapping[str, Node]],
        sources: Mapping[str, Mapping[str, str]],
    ) -> None:
        self.runs: dict[str, Run] = {}
        self.written: dict[str, Node] = {}
        self.outside: dict[str, str] = {}
        """Runs that are no row's: those that ``model.init`` names, and all that they stand on -> what to call it."""
        self._sweep, self._recipes, self._nodes, self._sources = sweep, recipes, nodes, sources
        self._made: dict[str, dict[str, dict[int, Run]]] = {}

    def add(self, variant: Variant, stages: Sequence[Stage]) -> None:
        """A row's runs of all stages, at their seeds; once more, with other seeds, in place of the first."""
        made: dict[str, dict[int, Run]] = {}
        for stage in stages:
            recipe, node = self._recipes[variant.name, stage.name], self._nodes[variant.name][stage.name]
            runs = self._runs_of_stage(stage, recipe, node, made)
            made[stage.name] = {seed: self._used(run) for seed, run in runs.items()}
            for run in made[stage.name].values():
                self.runs.setdefault(run.id, run)
                self.written.setdefault(run.id, node)
        self._made[variant.name] = made

    def _runs_of_stage(
        self, stage: Stage, recipe: AnyRecipe, node: Node, made: Mapping[str, Mapping[int, Run]]
    ) -> dict[int, Run]:
        """One run a seed; ``made``: the runs of the stages before, by stage and seed."""
        resolved, custom, start = canonical(recipe), self._custom(recipe), self._start(stage, recipe, node)
        if start is not None:  # a run of the store from which all begin is a parent, as a stage's is
            resolved = {**resolved, "model": {**resolved["model"], "init": None}}
        weights = files_named(node) if isinstance(recipe, Recipe) else {}
        taught = recipe.needs_teacher if isinstance(recipe, Recipe) else True
        roles = {"teacher": stage.teacher if taught else None, "from": stage.start}
        runs = {}
        for seed in stage.seeds:
            parents = {} if start is None else {"from": {"run": start, "weights": "last"}}
            for role, parent in roles.items():
                if parent is not None:
                    shared = made[parent].get(seed) or next(iter(made[parent].values()))
                    parents[role] = {"run": shared.id, "weights": stage.weights}
            seeded = {**resolved, "seed": seed}
            runs[seed] = Run(run_id(seeded, parents, custom), seeded, parents, custom, weights)
        return runs

    def _used(self, run: Run) -> Run:
        """A planned run, or the accepted one of earlier code in its place."""
        if (accepted := self._sweep.accepted.get(run.id)) is None:
            return run
        before = {name: pair[0] for name, pair in accepted["sources"].items()}
        sources = {name: sha256 for name, sha256 in {**run.sources, **before}.items() if sha256 is not None}
        return replace(run, id=accepted["run"], sources=sources, accepted=accepted)

    def _start(self, stage: Stage, recipe: AnyRecipe, node: Node) -> str | None:
        """The run of the store that ``model.init`` names. Raises InputError where there is none, and beside a stage's
        parent."""
        name = recipe.model.init if isinstance(recipe, Recipe) else None
        if name is None or not RUN_NAME.match(name):
            return None
        try:
            if stage.start:
                problem = f"the stage starts from the stage {stage.start!r} already"
                raise InputError(problem, expected="model.init or `from`, not both")
            found = self._sweep.find_run(name)
        except InputError as error:
            raise node.error(("model", "init"), error.problem, error.expected) from None
        *above, run = found
        self.runs = {**found, **self.runs}
        self.outside |= {each: f"{name} (above)" for each in above if each not in self.outside} | {run: name}
        return run

    def _custom(self, recipe: AnyRecipe) -> dict[str, str]:
        """The code of one's own that is part of a run's id: name -> hash."""
        if self._sweep.program:
            return dict(self._sweep.program.sources)
        assert isinstance(recipe, Recipe)
        return {module: sha256 for name in modules(recipe) for module, sha256 in self._sources.get(name, {}).items()}

    def compare(self) -> Comparison:
        """How rows are compared with the baseline, which gets the seeds that this takes."""
        sweep, baseline = self._sweep, self._sweep.baseline
        if not baseline or sweep.search is not None:
            return Comparison()
        stage = sweep.final.name
        cells = [(name, seed, stage, run.id) for name, made in self._made.items() for seed, run in made[stage].items()]
        lineages = Lineages(cells, {run.id: run.above for run in self.runs.values()}, stage)
        others = [variant.name for variant in sweep.variants if variant.name != baseline]
        paired = tuple(name for name in others if lineages.paired(name, baseline))
        same = (baseline, *(name for name in paired if lineages.same(name, baseline)))
        comparison = Comparison(paired, same, len(others) - len(paired), sweep.baseline_seeds)
        final = sweep.final.seeds
        last, more = max(final), comparison.seeds(len(final)) - len(final)
        added = tuple(range(last + 1, last + 1 + more))
        for variant in sweep.variants if added else ():
            if variant.name in same:
                self.add(variant, tuple(self._with_seeds(stage, added) for stage in sweep.stages))
        return comparison

    def _with_seeds(self, stage: Stage, added: tuple[int, ...]) -> Stage:
        """A stage with the baseline's further seeds, but for one whose one run all seeds share."""
        final = self._sweep.final
        each = stage is final or len(stage.seeds) > 1 or (stage.seeds == final.seeds and not stage.own_seeds)
        return replace(stage, seeds=tuple(dict.fromkeys(stage.seeds + added))) if each else stage

    def cells(self) -> list[Cell]:
        """The places of all runs that a row's last stage needs, row by row."""
        cells = []
        for variant, made in self._made.items():
            needed = with_parents(self.runs, (run.id for run in made[self._sweep.final.name].values()))
            cells += [
                Cell(variant, seed, stage, run.id)
                for stage, by_seed in made.items()
                for seed, run in by_seed.items()
                if run.id in needed
            ]
        return cells


def with_parents(runs: Mapping[str, Run], final: Iterable[str]) -> set[str]:
    found, waiting = set(), [*final]
    while waiting:
        if (run := waiting.pop()) not in found:
            found.add(run)
            waiting += runs[run].above
    return found
