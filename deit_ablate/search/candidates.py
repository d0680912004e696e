"""From a search's configurations to plans: each is its row's recipe with the values that were drawn over it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from deit_ablate.errors import InputError
from deit_ablate.execution import Needs
from deit_ablate.recipe import Recipe
from deit_ablate.sweep.names import Answers
from deit_ablate.sweep.overrides import layer
from deit_ablate.sweep.plan import Cell, Plan, Run, make_plan
from deit_ablate.sweep.space import Parameter
from deit_ablate.sweep.sweep import Sweep, Variant
from deit_ablate.sweep.yaml import Node, merge, placed


class Configurations:
    """The plans of one sweep's search. All methods raise InputError for an invalid recipe."""

    def __init__(self, sweep: Sweep) -> None:
        assert sweep.search is not None
        self.sweep, self.search = sweep, sweep.search
        self._answers: Answers = {}
        self._rows = {row.name: self._with_rate(row) for row in sweep.variants}
        self.untuned = self._plan(replace(sweep, variants=tuple(self._rows.values())))
        """The rows as the file has them, which nothing trains."""

    def _with_rate(self, row: Variant) -> Variant:
        """The row as the file has it; with a rate of the space where its optimizer has none yet."""
        parameter = self.search.spaces[row.name].get("optimizer.base_lr")
        if parameter is None:
            return row
        try:
            self._plan(replace(self.sweep, variants=(row,), baseline=None))
        except InputError:  # another mistake than this shows again in the rows' plan
            over = parameter.override(parameter.values()[0])
            return replace(row, by_profile=layer(row.by_profile or Node({}, over.where), over))
        return row

    def _plan(self, sweep: Sweep) -> Plan:
        return make_plan(sweep, self._answers)

    def trial(self, row: Variant, params: Mapping[str, Any], seeds: tuple[int, ...] = ()) -> Plan:
        """One configuration of a row alone, without its test split: at the search's seed, or at these."""
        varied, seeds = self.sweep.lineage(), seeds or (self.search.file.seed,)
        stages = tuple(replace(stage, seeds=seeds) if stage.name in varied else stage for stage in self.sweep.stages)
        variants = (self._with(row, params, test=False),)
        return self._plan(replace(self.sweep, variants=variants, stages=stages, baseline=None, search=None, sets=()))

    def winners(self, chosen: Sequence[tuple[str, Variant, Mapping[str, Any]]]) -> Plan:
        """Configurations by the names of their rows, on the sweep's own seeds and with their test split."""
        variants = tuple(replace(self._with(row, params, test=True), name=name) for name, row, params in chosen)
        resources = dict(self.sweep.resources)
        resources |= {name: resources[row.name] for name, row, _ in chosen if row.name in resources}
        baseline = next((variant.name for variant in variants if variant.name == self.sweep.baseline), None)
        return self._plan(replace(self.sweep, variants=variants, baseline=baseline, sets=(), resources=resources))

    def check(self, rows: Sequence[Variant]) -> None:
        """Raises InputError for a space that holds invalid recipes, or that varies what makes no difference."""
        if any(isinstance(row.recipe, Recipe) and not row.recipe.data.validation for row in self.untuned.rows):
            problem, where = "a search chooses by the validation part, and this recipe has none", self.search.where
            raise InputError(problem, where=where, key="data.validation", expected="a share above 0, such as 0.1")
        for row in rows:
            for key, parameter in self.search.spaces[row.name].items():
                beside = {k: p.values()[0] for k, p in self._beside(row, key).items()} if key.endswith(".name") else {}
                for value in parameter.values():
                    self.trial(row, {**beside, key: value})
                if not self._matters(row, parameter):
                    problem = "varying it changes nothing: the row, or a stage, sets it itself"
                    expected = "a key that the trials' recipes take from the search"
                    raise InputError(problem, where=parameter.where, key=f"search.space.{key}", expected=expected)

    def _beside(self, row: Variant, key: str) -> dict[str, Parameter]:
        """The other parameters of the same block."""
        space = self.search.spaces[row.name]
        return {k: p for k, p in space.items() if k != key and k.partition(".")[0] == key.partition(".")[0]}

    def _matters(self, row: Variant, parameter: Parameter) -> bool:
        """Whether two values make two runs, at least beside some value of another parameter of its block."""
        others = [{key: value} for key, p in self._beside(row, parameter.key).items() for value in p.values()]
        for context in ({}, *others):
            with contextlib.suppress(InputError):
                first, second = (
                    self.trial(row, {**context, parameter.key: value}).cells[-1].run for value in parameter.values()[:2]
                )
                if first != second:
                    return True
        return False

    def _with(self, row: Variant, params: Mapping[str, Any], *, test: bool) -> Variant:
        row, where = self._rows[row.name], self.search.where
        # A program tests as it does: what it reports of the test data is not what the search is told.
        over = placed({} if test or self.sweep.program else {"data": {"test": False}}, where)
        for key, value in params.items():  # one layer: a name must not reset the rate that was drawn with it
            over = merge(over, self.search.spaces[row.name][key].override(value))
        return replace(row, by_profile=self.sweep.trainer.layer(row.by_profile or Node({}, where), over))


def final_runs(plan: Plan) -> list[str]:
    """The runs of a plan's last stage."""
    return [cell.run for cell in plan.cells if cell.stage == plan.sweep.final.name]


def cells_of(plan: Plan, stage: str, number: int | None = None) -> list[Cell]:
    """A plan's cells under a search's stages; those of a trial by its number, for all have one seed.

    A stage whose one run all share (a teacher) keeps its name.
    """
    varied = plan.sweep.lineage()
    return [
        replace(
            cell,
            seed=cell.seed if number is None else number,
            stage=f"{stage}-{cell.stage}" if cell.stage else stage,
        )
        if cell.stage in varied
        else cell
        for cell in plan.cells
    ]


def joined(base: Plan, plans: Iterable[Plan], cells: Sequence[Cell], facts: Mapping[str, Any]) -> Plan:
    """The runs of several plans as one, with ``base``'s rows, these cells, and what plan.json says of the search."""
    runs: dict[str, Run] = {}
    written: dict[str, Node] = {}
    needs: dict[str, Needs] = {}
    for plan in plans:
        runs |= plan.runs
        written |= plan.written
        needs |= plan.needs
    return replace(base, runs=runs, cells=tuple(cells), written=written, search=facts, needs=needs)
