"""Sweep -> Plan: the runs that it needs, as a DAG: variants x seeds x stages.

A run that two rows (or two sweeps) share has one id and is trained once. Names that names.json does not hold are looked
up by the worker command, in one call, before anything is written.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deit_ablate.errors import InputError, Problems, unknown_name
from deit_ablate.execution import Execution, Needs, layered
from deit_ablate.identity import canonical, run_id
from deit_ablate.names import fact
from deit_ablate.recipe import Recipe, flatten
from deit_ablate.sweep.comparisons import Comparison
from deit_ablate.sweep.confounds import (
    Undeclared,
    executed_undeclared,
    planned_undeclared,
    refuse_idle_sets,
    without_effect,
)
from deit_ablate.sweep.enumeration import Cell as Cell
from deit_ablate.sweep.enumeration import Enumeration, cell_name, with_parents
from deit_ablate.sweep.enumeration import Run as Run
from deit_ablate.sweep.fields import ProfileFile
from deit_ablate.sweep.metrics import TOP1, TWO_HEADS
from deit_ablate.sweep.names import Answers, check_names
from deit_ablate.sweep.overrides import check_layer, layer, to_recipe, validate
from deit_ablate.sweep.profiles import load_profile
from deit_ablate.sweep.resources import Executions, needs_of
from deit_ablate.sweep.stages import Stage
from deit_ablate.sweep.sweep import Sweep, Variant, no_store
from deit_ablate.sweep.trainers import AnyRecipe
from deit_ablate.sweep.yaml import Node, assignments, expand_dotted, load, placed

SCHEMA = 1


@dataclass(frozen=True)
class Row:
    """A variant as the table shows it: its final recipe, and how that differs from the baseline's."""

    name: str
    recipe: AnyRecipe
    shows: str | None
    differs: dict[str, tuple[Any, Any]]
    declares: tuple[str, ...]
    """The recipe's keys that the row sets itself."""
    undeclared: list[Undeclared]


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
    """The state of a search, as plan.json holds it."""
    comparison: Comparison = field(default_factory=Comparison)
    needs: Mapping[str, Needs] = field(default_factory=dict)
    """By run, of those that ``resources`` say something of."""
    outside: Mapping[str, str] = field(default_factory=dict)
    """Runs that are no row's, from which ``model.init`` starts -> what to call them."""

    def executions(self, base: Execution, given: Execution | None = None) -> Mapping[str, Execution]:
        """How each run is executed: ``base``, over it what the run's stage and row need, and over that what the
        command line has ``given``."""
        return Executions(self.runs, self.needs, base, given)

    def executed(self, executions: Mapping[str, Execution]) -> Plan:
        """The plan in whose rows it counts as undeclared, too, how they are executed otherwise than the baseline."""
        runs: dict[str, list[Execution]] = {}
        for cell in self.cells if self.needs and self.sweep.baseline else ():
            if cell.stage == self.sweep.final.name:
                runs.setdefault(cell.variant, []).append(executions[cell.run])
        baseline = runs.get(self.sweep.baseline or "", [])
        found = {name: executed_undeclared(name, own, baseline) for name, own in runs.items()}
        rows = (replace(row, undeclared=[*row.undeclared, *found.get(row.name, ())]) for row in self.rows)
        return replace(self, rows=tuple(rows))

    @property
    def parents(self) -> dict[str, list[str]]:
        return {run.id: run.above for run in self.runs.values()}

    def labels(self) -> dict[str, str]:
        """A name of every run: variant:seed[:stage] by its first row, ``*`` for the variant where all rows share it."""
        first: dict[str, Cell] = {}
        at_place: dict[tuple[int, str], set[str]] = {}
        rows: dict[str, set[str]] = {}
        for cell in self.cells:
            first.setdefault(cell.run, cell)
            at_place.setdefault((cell.seed, cell.stage), set()).add(cell.run)
            rows.setdefault(cell.run, set()).add(cell.variant)
        result = dict(self.outside)
        for run, cell in first.items():
            shared = len(rows[run]) > 1 and len(at_place[cell.seed, cell.stage]) == 1
            result[run] = cell_name("*" if shared else cell.variant, cell.seed, cell.stage)
        return result

    def declared(self) -> dict[str, Any]:
        """What is to be declared before the first run: seeds by stage, looks, metric (None: top-1), margin, baseline,
        its seeds, rows, and whether rows are judged for new images (true, or null as in stores of earlier versions)."""
        sweep = self.sweep
        return {
            "seeds": {stage.name: list(stage.seeds) for stage in sweep.stages},
            "looks": list(sweep.looks) if sweep.looks else None,
            "metric": None if sweep.metric.name == TOP1.name else sweep.metric.declared(),
            "margin": sweep.margin,
            "population": sweep.population or None,
            "baseline": sweep.baseline,
            "baseline_seeds": self.comparison.seeds(len(sweep.final.seeds)) if sweep.baseline else None,
            "rows": [row.name for row in self.rows],
        }

    def only(self, variants: Sequence[str], seeds: int | None = None) -> dict[str, Run]:
        """The runs of some rows (all where none is named) and of the first ``seeds`` seeds (of the baseline as many as
        go with them), with their parents.

        Raises InputError for a row that does not exist.
        """
        known = [row.name for row in self.rows]
        for name in variants:
            if name not in known:
                raise unknown_name("no row", name, known, where=("--only", 0, 0))
        most = {} if seeds is None else dict.fromkeys(self.comparison.with_baseline, self.comparison.seeds(seeds))
        final: dict[str, list[str]] = {}
        for cell in sorted(self.cells, key=lambda cell: cell.seed):
            if cell.stage == self.sweep.final.name and (cell.variant in variants or not variants):
                final.setdefault(cell.variant, []).append(cell.run)
        wanted = with_parents(self.runs, (run for row, runs in final.items() for run in runs[: most.get(row, seeds)]))
        return {id_: run for id_, run in self.runs.items() if id_ in wanted}

    def refuse_undeclared(self) -> None:
        """Raises InputError at the first row that differs from the baseline in more than it declares."""
        for row, variant in zip(self.rows, self.sweep.variants, strict=True):
            if row.undeclared:
                problem = f"the row {row.name!r} has undeclared changes: {'; '.join(map(str, row.undeclared))}"
                expected = "rows that hold all else fixed (or no --strict)"
                raise InputError(problem, where=variant.where, key=self.sweep.kind, expected=expected)

    def document(self, source: str) -> dict[str, Any]:
        """What ``plan.json`` holds: enough for tables, figures and names; rebuildable from the sweep file."""
        sweep, accepted = self.sweep, [run.accepted for run in self.runs.values() if run.accepted]
        of_some = {
            "program": sweep.program and sweep.program.document(),
            "metric": None if sweep.metric.name == TOP1.name else sweep.metric.document(),
            "metrics": [metric.document() for metric in sweep.metrics],
            "until_decided": sweep.until_decided,
            "accepted": [{key: each[key] for key in ("run", "sources", "time")} for each in accepted],
            "search": self.search and dict(self.search),
            "design": sweep.design and sweep.design.document(),
            "labels": dict(sweep.labels),
            "groups": [{"heading": name, "rows": list(rows)} for name, rows in sweep.groups.items()],
            "axes": [{"key": key, "values": list(values)} for key, values in sweep.axes],
        }
        return {
            "schema": SCHEMA,
            "sweep": sweep.name,
            "title": sweep.title,
            "profile": sweep.profile,
            "source": source,
            "kind": sweep.kind,
            "margin": sweep.margin,
            "population": sweep.population,
            "looks": list(sweep.looks) if sweep.looks else None,
            "baseline_looks": [self.comparison.seeds(look) for look in sweep.looks] if sweep.looks else None,
            "baseline": sweep.baseline,
            "stages": [{"name": stage.name, "seeds": list(stage.seeds)} for stage in sweep.stages],
            "variants": [
                {
                    "name": row.name,
                    "shows": row.shows,
                    "differs": row.differs,
                    "declares": list(row.declares),
                    "leaks": [[change.what, change.before, change.after] for change in row.undeclared],
                }
                for row in self.rows
            ],
            "parents": {run.id: run.above for run in self.runs.values() if run.above},
            "cells": [[cell.variant, cell.seed, cell.stage, cell.run] for cell in self.cells],
            **{key: value for key, value in of_some.items() if value},
        }


def make_plan(sweep: Sweep, answers: Answers | None = None) -> Plan:
    """Enumerate a sweep's runs. Raises InputError at the line of whatever makes no valid recipe.

    ``answers``: what the worker has answered about names; plans that share it ask each question once.
    """
    shared: dict[str, Node] = {}  # stages that no variant changes have one node
    nodes = {variant.name: _of_variant(sweep, variant, shared) for variant in sweep.variants}
    recipes = _recipes(sweep, nodes)
    refuse_idle_sets(sweep, recipes, nodes)
    sources: dict[str, dict[str, str]] = {}
    if not sweep.program:
        ours = {place: recipe for place, recipe in recipes.items() if isinstance(recipe, Recipe)}
        sources = check_names(ours, nodes, {} if answers is None else answers)
        _check_figures(sweep, ours)
    made = Enumeration(sweep, recipes, nodes, sources)
    for variant in sweep.variants:
        made.add(variant, sweep.stages)
    comparison = made.compare()
    cells = made.cells()
    wanted = with_parents(made.runs, [cell.run for cell in cells])
    rows = tuple(_rows(sweep, recipes))
    runs = {id_: run for id_, run in made.runs.items() if id_ in wanted}
    needs = needs_of(sweep, cells)
    outside = {run: name for run, name in made.outside.items() if run in wanted}
    plan = Plan(sweep, runs, tuple(cells), rows, made.written, comparison=comparison, needs=needs, outside=outside)
    if sweep.search is None:  # rows may differ in what is searched, and searches may find the same
        _check_effects(plan, recipes, nodes)
    return plan


def _of_variant(sweep: Sweep, variant: Variant, shared: dict[str, Node]) -> dict[str, Node]:
    """By stage: the layers of its recipe, merged."""
    lineage, layer = sweep.lineage(), sweep.trainer.layer
    result: dict[str, Node] = {}
    varied = {*lineage, *variant.by_stage}
    for stage in sweep.stages:
        if stage.start in varied:  # what a stage continues from is what its recipe lies over
            varied.add(stage.name)
        if stage.name not in varied and stage.name in shared:
            result[stage.name] = shared[stage.name]
            continue
        node = result[stage.start] if stage.start else sweep.base
        if stage.name not in lineage and not stage.teacher and sweep.program is None:
            # A stage that has no teacher does not distill, whatever the rows do.
            node = layer(node, placed({"distill": {"type": "none"}}, stage.overrides.where))
        node = layer(layer(node, stage.overrides), stage.by_profile)
        if stage.name == lineage[0]:
            node = layer(layer(node, variant.overrides), variant.by_profile)
        result[stage.name] = layer(node, variant.by_stage.get(stage.name))
        if stage.name not in varied:
            shared[stage.name] = result[stage.name]
    return result


def _recipes(sweep: Sweep, nodes: Mapping[str, Mapping[str, Node]]) -> dict[tuple[str, str], AnyRecipe]:
    """By (variant, stage); a node that several share is validated once."""
    validated: dict[tuple[int, str], AnyRecipe] = {}
    result, problems = {}, Problems()
    for variant, stage in itertools.product(sweep.variants, sweep.stages):
        node = nodes[variant.name][stage.name]
        # Of a program each stage may have a command of its own.
        known = (id(node), stage.name if sweep.program else "")
        with problems.at():
            if known not in validated:
                made = sweep.trainer.recipe(node, stage.name)
                if isinstance(made, Recipe):
                    _check_teacher(made, node, stage)
                validated[known] = made
            result[variant.name, stage.name] = validated[known]
    problems.refuse()
    return result


def _check_teacher(recipe: Recipe, node: Node, stage: Stage) -> None:
    """Raises InputError for two teachers, and for none where one is needed."""
    distill = recipe.distill
    if distill.teacher and stage.teacher:
        expected = "a teacher by name or a stage that teaches, not both"
        raise node.error(("distill", "teacher"), f"the stage {stage.teacher!r} teaches already", expected)
    if recipe.needs_teacher and not (stage.teacher or distill.teacher):
        expected = "distill.teacher, or a stage that teaches: `stages: {teacher: ..., student: {teacher: teacher}}`"
        raise node.error(("distill", "type"), f"{distill.type!r} needs a teacher", expected)


def _rows(sweep: Sweep, recipes: Mapping[tuple[str, str], AnyRecipe]) -> Iterator[Row]:
    final = sweep.final.name
    for variant in sweep.variants:
        declares = tuple(dict.fromkeys(key for keys in _sets(sweep, variant).values() for key in keys))
        differs: dict[str, tuple[Any, Any]] = {}
        undeclared: list[Undeclared] = []
        # The final stage first; of an earlier one what it does not say already, under the stage's name.
        for stage in reversed(sweep.stages) if sweep.baseline else ():
            recipe, base = recipes[variant.name, stage.name], recipes[sweep.baseline or "", stage.name]
            changed = sweep.trainer.differs(recipe, base) if recipe is not base else {}
            follows = sweep.trainer.follows(recipe, base) if changed else {}
            prefix = "" if stage.name == final else f"{stage.name}."
            differs |= {f"{prefix}{key}": pair for key, pair in changed.items() if differs.get(key) != pair}
            found = planned_undeclared(variant.name, declares, changed, follows)
            undeclared += [change for change in found if change not in undeclared]
        yield Row(variant.name, recipes[variant.name, final], variant.shows, differs, declares, undeclared)


def _check_figures(sweep: Sweep, recipes: Mapping[tuple[str, str], Recipe]) -> None:
    """Refuse a row that shows, and a stage that starts from, what its runs will not have."""
    metric = sweep.metric.name
    for variant in sweep.variants:
        recipe = recipes[variant.name, sweep.final.name]
        heads = fact("distillations", recipe.distill.type, "heads", 2)
        where, key, row = variant.where, f"{variant.name}.shows", "the row"
        if not variant.shows:
            where, key, row = (str(sweep.file), *sweep.metric.place), "metric", f"the row {variant.name!r}"
        problem = expected = ""
        if (variant.shows or metric) == "ema" and recipe.regularize.ema_decay is None:
            problem, expected = "a moving average that its recipe has off", "regularize.ema_decay"
        # The class head is all of a model that has one; that one row shows it by itself is a mistake.
        elif heads == 1 and (variant.shows in ("class", "distillation") or metric in TWO_HEADS):
            which = "both heads" if metric.startswith("fused") else f"the {variant.shows or metric} head"
            problem = f"{which} of a model that has one head"
            expected = f"a distillation type with a token, or {'no `shows`' if variant.shows else 'another metric'}"
        if problem:
            raise InputError(f"{row} shows {problem}", where=where, key=key, expected=expected)
        for stage in sweep.stages:
            for parent in stage.parents:
                if stage.weights == "ema" and recipes[variant.name, parent].regularize.ema_decay is None:
                    problem = f"the stage takes the moving average of {parent!r}, which has it off"
                    key, expected = f"stages.{stage.name}.weights", "regularize.ema_decay in that stage"
                    raise InputError(problem, where=variant.where, key=key, expected=expected)


def _check_effects(
    plan: Plan, recipes: Mapping[tuple[str, str], AnyRecipe], nodes: Mapping[str, Mapping[str, Node]]
) -> None:
    """Refuse a row that is the training of an earlier one, and one that sets nothing that is read."""
    sweep = plan.sweep
    final, seed = sweep.final.name, sweep.final.seeds[0]
    first = {cell.variant: cell.run for cell in plan.cells if cell.stage == final and cell.seed == seed}
    seen: dict[tuple[str, str | None], Variant] = {}
    for variant in sweep.variants:
        before = seen.setdefault((first[variant.name], variant.shows), variant)
        problem = "" if before is variant else f"the row {variant.name!r} is the same training as {before.name!r}"
        unread: dict[str, str] = {}
        nothing = not problem and variant.shows is None
        for row in (variant, before) if problem else (variant,):
            for stage, keys in _sets(sweep, row).items():
                found = without_effect(recipes[row.name, stage], nodes[row.name][stage], keys)
                unread |= found
                nothing = nothing and len(found) == len(keys)
        if problem or (nothing and unread):
            expected = "rows that differ (two figures of one run: `shows`)" if problem else "a key that is read"
            problem = "; ".join([problem or f"the row {variant.name!r} changes nothing", *unread.values()])
            raise InputError(problem, where=variant.where, key=sweep.kind, expected=expected)


def _sets(sweep: Sweep, variant: Variant) -> dict[str, list[str]]:
    """Stage -> the recipe's keys that a row sets in it."""
    over = {stage: [variant.overrides, variant.by_profile] for stage in sweep.lineage()}
    for stage, node in variant.by_stage.items():
        over.setdefault(stage, []).append(node)
    return {
        stage: list(dict.fromkeys(key for node in nodes if node is not None for key, _ in flatten(node.plain())))
        for stage, nodes in over.items()
    }


def single_run(
    path: Path, sets: Sequence[str], find_run: Callable[[str], Mapping[str, Run]] = no_store
) -> tuple[Run, Execution]:
    """One run from a recipe file, and how it is executed: recipe blocks over an optional ``profile:``, a profile, or a
    run's stored recipe.json.

    ``find_run``: as a ``Sweep`` has it."""
    node = load(path)
    recipe, run = node.get("recipe"), node.get("run")
    empty = Node({}, node.where)
    if recipe is not None and run is not None and not sets:
        parents, sources = (node.part(key).plain() for key in ("parents", "sources"))
        resolved = canonical(to_recipe(recipe))
        return Run(run_id(resolved, parents, sources), resolved, parents, sources), Execution()
    base, execution, profile = empty, Execution(), node.get("profile")
    blocks = node.without("profile")
    if profile is not None and profile.value is not None:
        base, execution = load_profile(str(profile.plain()), path.parent, profile.where)
    if recipe is not None and run is None:  # a profile, such as `search export` writes
        execution = layered(execution, validate(ProfileFile, blocks).execution)
        blocks = blocks.part("recipe")
    for upper in (expand_dotted(blocks), assignments(sets)):
        check_layer(upper, extra=("seed",))
        base = layer(base, upper)
    seeds = (to_recipe(base).seed,)
    stages, rows = (Stage("", empty, seeds=seeds),), (Variant("", node.where, empty),)
    plan = make_plan(Sweep("", path, base, stages, rows, find_run=find_run))
    return plan.runs[plan.cells[0].run], execution
