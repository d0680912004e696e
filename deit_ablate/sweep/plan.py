"""Sweep -> Plan: the runs that it needs, as a DAG: variants x seeds x stages.

A run that two rows (or two sweeps) share has one id and stands once. Names that names.json does not hold
are asked of the worker command, in one call, before anything is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deit_ablate.errors import InputError, did_you_mean
from deit_ablate.identity import canonical, derived, difference, run_id
from deit_ablate.names import fact
from deit_ablate.recipe import Recipe, flatten
from deit_ablate.sweep.confounds import Leak, planned_leaks
from deit_ablate.sweep.load import Stage, Sweep, Variant, load_profile
from deit_ablate.sweep.names import Answers, check_names, modules
from deit_ablate.sweep.overrides import check_keys, layer, to_recipe, weights_file
from deit_ablate.sweep.yaml import Node, assignment, expand_dotted, load

SCHEMA = 1


@dataclass(frozen=True)
class Run:
    """One training: canonical recipe, parents by role ({"run": id, "weights": "last" | "ema"}), sources of one's own."""

    id: str
    recipe: dict[str, Any]
    parents: dict[str, dict[str, str]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    weights: dict[str, Path] = field(default_factory=dict, compare=False)
    """Where the files lie that the recipe names by their content, as far as their paths were given."""

    @property
    def above(self) -> list[str]:
        return [parent["run"] for parent in self.parents.values()]


@dataclass(frozen=True)
class Cell:
    """Where a run stands in its sweep."""

    variant: str
    seed: int
    stage: str
    run: str


@dataclass(frozen=True)
class Row:
    """A variant as the table shows it: its final recipe, and how that differs from the baseline's."""

    name: str
    recipe: Recipe
    shows: str | None
    differs: dict[str, tuple[Any, Any]]
    declares: tuple[str, ...]
    """The recipe's keys that the row sets itself."""
    leaks: list[Leak]


@dataclass(frozen=True)
class Plan:
    sweep: Sweep
    runs: dict[str, Run]
    """By id, parents before children."""
    cells: tuple[Cell, ...]
    rows: tuple[Row, ...]
    written: Mapping[str, Node] = field(default_factory=dict, compare=False, repr=False)
    """By run: where its recipe's values are written."""
    search: Mapping[str, Any] | None = None
    """What a search has asked for so far, as plan.json holds it."""

    @property
    def parents(self) -> dict[str, list[str]]:
        return {run.id: run.above for run in self.runs.values()}

    @property
    def weights(self) -> dict[str, Path]:
        """Of all runs: the content ("sha256:<hex>") of each weights file that was given by its path -> that path."""
        return {sha256: path for run in self.runs.values() for sha256, path in run.weights.items()}

    def labels(self) -> dict[str, str]:
        """A name for every run: variant:seed[:stage] by its first row, ``*`` for the variant where all rows share it."""
        first: dict[str, Cell] = {}
        at_place: dict[tuple[int, str], set[str]] = {}
        rows: dict[str, set[str]] = {}
        for cell in self.cells:
            first.setdefault(cell.run, cell)
            at_place.setdefault((cell.seed, cell.stage), set()).add(cell.run)
            rows.setdefault(cell.run, set()).add(cell.variant)
        result = {}
        for run, cell in first.items():
            shared = len(rows[run]) > 1 and len(at_place[cell.seed, cell.stage]) == 1
            result[run] = ":".join(
                ["*" if shared else cell.variant, str(cell.seed), *([cell.stage] if cell.stage else [])]
            )
        return result

    def seeds(self) -> dict[str, list[int]]:
        return {stage.name: list(stage.seeds) for stage in self.sweep.stages}

    def only(self, variants: Sequence[str], seeds: int | None = None) -> dict[str, Run]:
        """The runs of some rows and of the first ``seeds`` seeds, with all that they stand on.

        Raises InputError for a row that there is not.
        """
        known = [row.name for row in self.rows]
        for name in variants:
            if name not in known:
                raise InputError(
                    f"no row {name!r}{did_you_mean(name, known)}",
                    where=("--only", 0, 0),
                    expected="one of " + ", ".join(known[:20]),
                )
        last = self.sweep.stages[-1].name
        final = [
            cell.run
            for cell in self.cells
            if cell.stage == last
            and (cell.variant in variants or not variants)
            and (seeds is None or cell.seed < seeds)
        ]
        wanted = _needed(self.runs, final)
        return {run: self.runs[run] for run in self.runs if run in wanted}

    def document(self, source: str) -> dict[str, Any]:
        """What ``plan.json`` holds: enough for tables, figures and names; rebuildable from the sweep file."""
        return {
            "schema": SCHEMA,
            "sweep": self.sweep.name,
            "title": self.sweep.title,
            "profile": self.sweep.profile,
            "source": source,
            "kind": self.sweep.kind,
            "margin": self.sweep.margin,
            "looks": list(self.sweep.looks) if self.sweep.looks else None,
            "baseline": self.sweep.baseline,
            "stages": [{"name": stage.name, "seeds": list(stage.seeds)} for stage in self.sweep.stages],
            "variants": [
                {
                    "name": row.name,
                    "shows": row.shows,
                    "differs": row.differs,
                    "declares": list(row.declares),
                    "leaks": [[leak.what, leak.before, leak.after] for leak in row.leaks],
                }
                for row in self.rows
            ],
            "parents": {run.id: run.above for run in self.runs.values() if run.above},
            "cells": [[cell.variant, cell.seed, cell.stage, cell.run] for cell in self.cells],
            **({"search": dict(self.search)} if self.search is not None else {}),
        }


def make_plan(sweep: Sweep, answers: Answers | None = None) -> Plan:
    """Enumerate a sweep's runs. Raises InputError at the line of whatever makes no sound recipe.

    ``answers`` holds, and is given, what the worker has said: plans that share it ask each question once.
    """
    shared: dict[str, Node] = {}
    nodes = {variant.name: _stage_nodes(sweep, variant, shared) for variant in sweep.variants}
    validated: dict[int, Recipe] = {}
    recipes: dict[tuple[str, str], Recipe] = {}
    for variant in sweep.variants:
        for stage in sweep.stages:
            node = nodes[variant.name][stage.name]
            if id(node) not in validated:
                validated[id(node)] = _recipe(node, stage)
            recipes[variant.name, stage.name] = validated[id(node)]
    sources = check_names(recipes, nodes, {} if answers is None else answers)
    _check_figures(sweep, recipes)
    runs: dict[str, Run] = {}
    written: dict[str, Node] = {}
    cells: list[Cell] = []
    for variant in sweep.variants:
        made: dict[tuple[str, int], str] = {}
        for stage in sweep.stages:
            recipe = recipes[variant.name, stage.name]
            resolved = canonical(recipe)
            own = {module: sources[module] for module in modules(recipe) if module in sources}
            for seed in stage.seeds:
                parents = dict(_parents(sweep, stage, recipe, seed, made))
                seeded = {**resolved, "seed": seed}
                run = Run(run_id(seeded, parents, own), seeded, parents, own, _weights(resolved))
                runs.setdefault(run.id, run)
                written.setdefault(run.id, nodes[variant.name][stage.name])
                made[stage.name, seed] = run.id
        needed = _needed(runs, [made[sweep.stages[-1].name, seed] for seed in sweep.stages[-1].seeds])
        cells += [Cell(variant.name, seed, stage, run) for (stage, seed), run in made.items() if run in needed]
    wanted = {cell.run for cell in cells}
    rows = tuple(_rows(sweep, recipes))
    plan = Plan(sweep, {run: runs[run] for run in runs if run in wanted}, tuple(cells), rows, written)
    _check_duplicates(sweep, plan)
    return plan


def _needed(runs: Mapping[str, Run], final: Sequence[str]) -> set[str]:
    needed: set[str] = set()
    waiting = list(final)
    while waiting:
        run = waiting.pop()
        if run not in needed:
            needed.add(run)
            waiting += runs[run].above
    return needed


def _stage_nodes(sweep: Sweep, variant: Variant, shared: dict[str, Node]) -> dict[str, Node]:
    """The merged layers of each stage for one variant; ``shared`` keeps those of stages that variants don't touch."""
    lineage = sweep.lineage()
    result: dict[str, Node] = {}
    for stage in sweep.stages:
        if stage.name in lineage[1:]:
            node = result[stage.start or ""]
        elif stage.name in lineage or stage.teacher:
            node = sweep.base
        else:
            # A stage that has no teacher does not distill, whatever the rows do.
            off = Node({"type": Node("none", stage.overrides.where)}, stage.overrides.where)
            node = layer(sweep.base, Node({"distill": off}, stage.overrides.where))
        if stage.name not in lineage and stage.name not in variant.by_stage:
            if stage.name not in shared:
                shared[stage.name] = layer(layer(node, stage.overrides), sweep.by_profile.get(stage.name))
            result[stage.name] = shared[stage.name]
            continue
        node = layer(layer(node, stage.overrides), sweep.by_profile.get(stage.name))
        if stage.name == lineage[0]:
            node = layer(layer(node, variant.overrides), sweep.by_profile.get(variant.name))
        result[stage.name] = layer(node, variant.by_stage.get(stage.name))
    return result


def _recipe(node: Node, stage: Stage) -> Recipe:
    recipe = to_recipe(node)
    if recipe.distill.teacher and stage.teacher:
        raise InputError(
            f"the stage {stage.teacher!r} teaches already",
            where=node.locate(("distill", "teacher")),
            key="distill.teacher",
            expected="a teacher by name, or a stage that teaches, not both",
        )
    if recipe.needs_teacher and not (stage.teacher or recipe.distill.teacher):
        raise InputError(
            f"{recipe.distill.type!r} needs a teacher",
            where=node.locate(("distill", "type")),
            key="distill.type",
            expected="a stage that teaches: `stages: {teacher: ..., student: {teacher: teacher}}`, or distill.teacher",
        )
    return recipe


def _weights(canonical: Mapping[str, Any]) -> dict[str, Path]:
    wanted = canonical["distill"]["teacher_weights"]
    path = weights_file(wanted) if wanted else None
    return {wanted: path} if path else {}


def _parents(
    sweep: Sweep, stage: Stage, recipe: Recipe, seed: int, made: Mapping[tuple[str, int], str]
) -> Iterator[tuple[str, dict[str, str]]]:
    seeds = {other.name: other.seeds for other in sweep.stages}
    for role, parent in (("teacher", stage.teacher if recipe.needs_teacher else None), ("from", stage.start)):
        if parent is not None:
            own = seed if seed in seeds[parent] else seeds[parent][0]
            yield role, {"run": made[parent, own], "weights": stage.weights}


def _rows(sweep: Sweep, recipes: Mapping[tuple[str, str], Recipe]) -> Iterator[Row]:
    final = sweep.stages[-1].name
    for variant in sweep.variants:
        declares = tuple(dict.fromkeys(_declares(sweep, variant)))
        differs: dict[str, tuple[Any, Any]] = {}
        leaks: list[Leak] = []
        # The final stage first; of an earlier one what it does not say already, under the stage's name.
        for stage in reversed(sweep.stages) if sweep.baseline else ():
            recipe, base = recipes[variant.name, stage.name], recipes[sweep.baseline or "", stage.name]
            own = difference(canonical(recipe), canonical(base)) if recipe is not base else {}
            follows = difference(derived(recipe), derived(base)) if own else {}
            prefix = "" if stage.name == final else f"{stage.name}."
            differs |= {f"{prefix}{key}": pair for key, pair in own.items() if differs.get(key) != pair}
            leaks += [leak for leak in planned_leaks(variant.name, declares, own, follows) if leak not in leaks]
        yield Row(variant.name, recipes[variant.name, final], variant.shows, differs, declares, leaks)


def _declares(sweep: Sweep, variant: Variant) -> Iterator[str]:
    for node in (variant.overrides, sweep.by_profile.get(variant.name), *variant.by_stage.values()):
        if node is not None:
            yield from (key for key, _ in flatten(node.plain()))


def _check_figures(sweep: Sweep, recipes: Mapping[tuple[str, str], Recipe]) -> None:
    """Refuse a row that shows, and a stage that goes on from, what its runs will not have."""
    for variant in sweep.variants:
        recipe = recipes[variant.name, sweep.stages[-1].name]
        heads = fact("distillations", recipe.distill.type, "heads", 2)
        if variant.shows == "ema" and recipe.regularize.ema_decay is None:
            raise InputError(
                "the row shows a moving average that its recipe has off",
                where=variant.where,
                key=f"{variant.name}.shows",
                expected="regularize.ema_decay",
            )
        if variant.shows in ("class", "distillation") and heads == 1:
            raise InputError(
                f"the row shows the {variant.shows} head of a model that has one head",
                where=variant.where,
                key=f"{variant.name}.shows",
                expected="a distillation type with a token, or no `shows`",
            )
        for stage in sweep.stages:
            for parent in (stage.start, stage.teacher):
                if stage.weights == "ema" and parent and recipes[variant.name, parent].regularize.ema_decay is None:
                    raise InputError(
                        f"the stage takes the moving average of {parent!r}, which has it off",
                        where=variant.where,
                        key=f"stages.{stage.name}.weights",
                        expected="regularize.ema_decay in that stage",
                    )


def _check_duplicates(sweep: Sweep, plan: Plan) -> None:
    if sweep.search is not None:
        return  # rows may differ in what is searched, and searches may find the same
    final, seed = sweep.stages[-1].name, sweep.stages[-1].seeds[0]
    first = {cell.variant: cell.run for cell in plan.cells if cell.stage == final and cell.seed == seed}
    seen: dict[tuple[str, str | None], str] = {}
    for variant in sweep.variants:
        key = (first[variant.name], variant.shows)
        if key in seen:
            raise InputError(
                f"the row {variant.name!r} is the same training as {seen[key]!r}",
                where=variant.where,
                key=sweep.kind,
                expected="rows that differ (two figures of one run: `shows`)",
            )
        seen[key] = variant.name


def single_run(path: Path, sets: Sequence[str]) -> Run:
    """One run from a recipe file: recipe blocks over an optional ``profile:``, or a run's stored recipe.json."""
    node = load(path)
    stored = node.get("recipe")
    if stored is not None and node.get("run") is None:  # a profile, such as `search export` writes
        node = stored
    if node.get("run") is not None and stored is not None and not sets:
        parents = (node.get("parents") or Node({}, node.where)).plain()
        sources = (node.get("sources") or Node({}, node.where)).plain()
        resolved = canonical(to_recipe(stored))
        return Run(run_id(resolved, parents, sources), resolved, parents, sources)
    base = Node({}, node.where)
    profile = node.get("profile")
    if profile is not None:
        base, _ = load_profile(str(profile.value), path.parent, profile.where)
    own = expand_dotted(Node({key: child for key, child in node.items() if key != "profile"}, node.where, node.keys))
    check_keys(own, extra=("seed",))
    merged = layer(base, own)
    for text in sets:
        given = assignment(text)
        check_keys(given, extra=("seed",))
        merged = layer(merged, given)
    recipe = to_recipe(merged)
    if recipe.needs_teacher and not recipe.distill.teacher:
        raise InputError(
            f"{recipe.distill.type!r} needs a teacher",
            where=merged.locate(("distill", "type")),
            key="distill.type",
            expected="distill.teacher, or a sweep with a stage that teaches",
        )
    sources = check_names({("", ""): recipe}, {"": {"": merged}}, {})
    resolved = canonical(recipe)
    own_sources = {module: sources[module] for module in modules(recipe) if module in sources}
    return Run(run_id(resolved, {}, own_sources), resolved, {}, own_sources, _weights(resolved))
