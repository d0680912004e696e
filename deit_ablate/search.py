"""A search: which trials there are, which run next, which go no further, and which of them are confirmed.

A trial is a run like any other: the row's recipe with the trial's parameters over it, at the search's seed, its test
split left alone. ``results/<sweep>/trials/<n>.json`` says what was asked for; all else is read from the runs' records,
so that a launcher killed at any moment is followed by one that goes on as if it had not been.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deit_ablate import files, status
from deit_ablate.naming import Answers
from deit_ablate.plan import Cell, Plan, Run, make_plan
from deit_ablate.resolve import layer
from deit_ablate.sampling import Studies, grid_size
from deit_ablate.spec import Sweep, Variant
from deit_ablate.store import State, Store
from deit_ablate.sweepfile import OBJECTIVES
from deit_ablate.trials import Trial, best, mean_value, read_trial
from deit_ablate.yamlfile import InputError, Node

LOOK_SECONDS = 1.0
MOST_UNSOUND = 100
"""Configurations in a row that make no sound recipe, until the search gives up."""
ENDED = ("failed", "cancelled", "blocked", "paused")
"""States, beside those of finished runs, in which a confirmation waits for a run no longer."""
TRIAL, CANDIDATE = "trial", "candidate"
"""How the stages of trials and candidates begin in plan.json, before the stage's own name."""


@dataclass(frozen=True)
class Asked:
    """A trial that was asked for, and the runs that it takes."""

    number: int
    row: str
    params: dict[str, Any]
    plan: Plan
    kept: Mapping[str, Any]

    @property
    def run(self) -> str:
        return self.plan.cells[-1].run

    def facts(self) -> dict[str, Any]:
        return {"number": self.number, "row": self.row, "params": self.params, "run": self.run}


class Search:
    """One launcher's hold on a sweep's search. Called, it says what is to be trained next."""

    def __init__(
        self, sweep: Sweep, store: Store, save: Callable[[Plan], None], *, confirm: bool = False,
        trials: int | None = None, only: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """``save`` is given the plan whenever there are more runs; ``trials``: of each row, instead of what the file
        says; ``only``: the rows that are searched.

        Raises InputError for a space that holds unsound recipes, or options that Optuna does not take.
        """
        assert sweep.search is not None
        self.sweep, self.store, self.save, self.search = sweep, store, save, sweep.search
        self.settings = sweep.search.settings
        before = (store.plan(sweep.name) or {}).get("search") or {}
        self.confirm = confirm or bool(before.get("confirm"))
        self.rows = [variant for variant in sweep.variants if not only or variant.name in only]
        self._answers: Answers = {}
        self._untuned = self._plan(sweep)
        self._untuned.only(only)  # refuses rows that there are not
        self._check_space()
        self._examples = {row.name: self._example(row) for row in self.rows}
        self.budget = {row.name: self._budget(row.name, trials) for row in self.rows}
        self.asked: dict[int, Asked] = {}
        self.aside = 0
        """Trials of which the sweep file, as it is now, would make another run: they do not count."""
        self.trials: dict[int, Trial] = {}
        self.runs: dict[str, Run] = {}
        self.labels: dict[str, str] = {}
        self._last = 0
        self._studies: Studies | None = None
        self._again: dict[int, Plan] = {}
        self._final: tuple[list[int], Plan] | None = None
        self._begun, self._looked = time.monotonic(), 0.0
        self._read_asks()
        parents = {run: own.above for asked in self.asked.values() for run, own in asked.plan.runs.items()}
        self._look(status.states(store, parents, sweep.name))
        self._note()

    def _plan(self, sweep: Sweep) -> Plan:
        return make_plan(sweep, self._answers)

    # -- what there is ---------------------------------------------------------------------------------------

    def _budget(self, row: str, trials: int | None) -> int:
        wanted = trials or self.settings.trials
        if self.settings.sampler != "grid":
            return wanted
        try:
            return min(wanted, grid_size(self.search.spaces[row]))
        except ValueError as error:
            raise InputError(str(error), where=self.search.where, key="search.sampler") from None

    def _check_space(self) -> None:
        if any(not row.recipe.data.validation for row in self._untuned.rows):
            raise InputError(
                "a search chooses by the validation part, and this recipe has none", where=self.search.where,
                key="data.validation", expected="a share above 0, such as 0.1",
            )  # fmt: skip
        for row in self.rows:
            for key, parameter in self.search.spaces[row.name].items():
                for value in parameter.values():
                    self._plan(self._sweep_of(row, {key: value}, (self.settings.seed,)))

    def _sweep_of(self, row: Variant, params: Mapping[str, Any], seeds: tuple[int, ...]) -> Sweep:
        """The sweep of one configuration of a row alone, at other seeds than the sweep's own."""
        varied = self.sweep.lineage()
        stages = tuple(replace(stage, seeds=seeds) if stage.name in varied else stage for stage in self.sweep.stages)
        return replace(self._with(row, params, test=False), stages=stages, baseline=None)

    def _with(self, row: Variant, params: Mapping[str, Any], *, test: bool) -> Sweep:
        where = self.search.where
        over = Node({}, where) if test else Node({"data": Node({"test": Node(False, where)}, where)}, where)
        for key, value in params.items():
            over = layer(over, self.search.spaces[row.name][key].override(value))
        own = layer(self.sweep.by_profile.get(row.name, Node({}, where)), over)
        return replace(self.sweep, variants=(row,), by_profile={**self.sweep.by_profile, row.name: own}, search=None)

    def _read_asks(self) -> list[Asked]:
        """Take up what has been asked for since the last look, here or by another launcher; returns that."""
        new = []
        for content in self.store.asks(self.sweep.name, after=self._last):
            self._last = content["number"]
            own = self._as_planned(content)
            if own is None:
                self.aside += 1
            elif own.number not in self.asked:
                self.asked[own.number] = own
                new.append(own)
                if self._studies is not None:
                    self._studies.add(own.row, own.number, own.params, own.kept, own.run)
        return new

    def _as_planned(self, content: Mapping[str, Any]) -> Asked | None:
        """The trial, where the sweep file still makes the same run of it."""
        row = next((row for row in self.sweep.variants if row.name == content["row"]), None)
        if row is None or set(self.search.spaces[row.name]) != set(content["params"]):
            return None
        try:
            plan = self._plan(self._sweep_of(row, content["params"], (self.settings.seed,)))
        except InputError:
            return None
        own = Asked(content["number"], row.name, content["params"], plan, content.get("optuna") or {})
        return own if own.run == content["run"] else None

    def of_row(self, row: str) -> list[Asked]:
        return [own for own in self.asked.values() if own.row == row]

    # -- what is to be done ------------------------------------------------------------------------------------

    @property
    def _all_asked(self) -> bool:
        return all(len(self.of_row(row)) >= budget for row, budget in self.budget.items())

    @property
    def _searched(self) -> bool:
        return self._all_asked and all(n in self.trials and self.trials[n].outcome != "open" for n in self.asked)

    @property
    def over(self) -> bool:
        """Whether nothing will be asked for any more."""
        return self._all_asked and (not self.confirm or self._final is not None)

    def examples(self) -> list[Run]:
        """Runs like those that are still to be asked for, as many: what they cost, and what they need."""
        return [
            self._examples[row]
            for row, budget in self.budget.items()
            for _ in range(max(0, budget - len(self.of_row(row))))
        ]

    def _example(self, row: Variant) -> Run:
        plan = self._plan(self._sweep_of(row, {}, (self.settings.seed,)))
        return plan.runs[plan.cells[-1].run]

    def begin(self) -> None:
        """Make Optuna's studies, from the trials so far. Raises InputError for options that it does not take."""
        spaces = {row.name: self.search.spaces[row.name] for row in self.sweep.variants}
        try:
            self._studies = Studies(self.sweep.name, self.settings, spaces)
        except (TypeError, ValueError, ImportError) as error:
            raise InputError(str(error), where=self.search.where, key="search") from None
        for own in self.asked.values():
            self._studies.add(own.row, own.number, own.params, own.kept, own.run)
            self._studies.tell(self.trials[own.number])

    def show(self) -> None:
        """Write the studies, and how they go on, to a file that optuna-dashboard opens."""
        assert self._studies is not None
        self._studies.show(files.make_folder(self.store.sweep(self.sweep.name)) / "optuna.log")

    def __call__(self, states: Mapping[str, State], free: int) -> list[Run]:
        """Runs to go on with, given how those so far stand and how many more there is room for."""
        if not free and time.monotonic() - self._looked < LOOK_SECONDS:
            return []
        self._looked = time.monotonic()
        known = set(self.runs)
        new = self._read_asks()
        self._look(states)
        while free and (own := self._ask()) is not None:
            new.append(own)
            if own.run in self.runs:  # a configuration that there was already: nothing to be trained
                self._look(states)
            else:
                free -= 1
                self.runs.update(own.plan.runs)
        if new or self._searched:
            self._note()
        if new or self.runs.keys() - known:
            self.save(self.plan())
        return [run for name, run in self.runs.items() if name not in known]

    def _look(self, states: Mapping[str, State]) -> None:
        """How trials fare; one that is not worth going on with is asked to save and end."""
        for own in self.asked.values():
            known = self.trials.get(own.number)
            if known is not None and known.outcome != "open":
                continue
            state = states.get(own.run, State("missing"))
            trial = self.trials[own.number] = read_trial(self.store, own.facts(), state, self.settings.objective)
            if self._studies is not None and self._studies.tell(trial):
                last = self.store.attempts(own.run)[-1]
                if last.exit is None:
                    self.store.pause(own.run, last.number)

    def _ask(self) -> Asked | None:
        """One more trial, of the row that has had the fewest; None where all have had theirs, or enough are open."""
        assert self._studies is not None
        late = self.settings.timeout is not None and time.monotonic() - self._begun > 60 * self.settings.timeout
        open_ = sum(n not in self.trials or self.trials[n].outcome == "open" for n in self.asked)
        rows = [row for row in self.rows if len(self.of_row(row.name)) < self.budget[row.name]]
        if late or not rows or self.store.held(self.sweep.name) or open_ >= (self.settings.parallel or open_ + 1):
            return None
        row = min(rows, key=lambda row: len(self.of_row(row.name)))
        for tries in itertools.count(1):
            number = self._last + 1
            params, kept = self._studies.ask(row.name, number)
            try:
                plan = self._plan(self._sweep_of(row, params, (self.settings.seed,)))
            except InputError:  # each value is sound by itself, but not together
                self._studies.lost(number)
                if tries == MOST_UNSOUND:
                    raise
                continue
            own = Asked(number, row.name, params, plan, kept)
            content = {"row": row.name, "params": params, "run": own.run, "optuna": kept, "time": time.time()}
            if self.store.ask(self.sweep.name, number, content):
                break
            self._studies.lost(number)  # another launcher has taken the number
            self._read_asks()
        self._studies.name(number, own.run)
        self.asked[number], self._last = own, number
        return own

    # -- confirmation ------------------------------------------------------------------------------------------

    def _candidates(self, row: str) -> list[Asked]:
        """The row's best trials, best first."""
        trials = [self.trials[own.number] for own in self.of_row(row) if own.number in self.trials]
        return [self.asked[t.number] for t in best(trials, self.settings.objective, self.settings.candidates)]

    def _fresh(self, own: Asked) -> Plan:
        """A candidate on the fresh seeds."""
        if own.number not in self._again:
            row = next(row for row in self.sweep.variants if row.name == own.row)
            self._again[own.number] = self._plan(self._sweep_of(row, own.params, self.search.candidate_seeds))
        return self._again[own.number]

    def _confirmation(self) -> tuple[dict[int, Plan], Plan | None]:
        """By trial, the candidates on fresh seeds; and, once these have ended, the winners on seeds of their own."""
        if not self.confirm or not self._searched:
            return {}, None
        fresh = {}
        if len(self.settings.objective) == 1:
            fresh = {own.number: self._fresh(own) for row in self.rows for own in self._candidates(row.name)}
            parents = {run: own.above for plan in fresh.values() for run, own in plan.runs.items()}
            states = status.states(self.store, parents, self.sweep.name)
            if not all(state.finished or state.name in ENDED for state in states.values()):
                return fresh, None
        return fresh, self._winners_plan()

    def _winners(self, row: str) -> list[Asked]:
        """Of one objective the candidate with the best mean over the fresh seeds; of two the front, as it is."""
        candidates, objectives = self._candidates(row), self.settings.objective
        if len(objectives) > 1:
            return candidates
        found = {own.number: mean_value(self.store, _final(self._fresh(own)), objectives[0]) for own in candidates}
        sign = 1 if OBJECTIVES[objectives[0]] == "maximize" else -1
        means = {number: sign * mean for number, mean in found.items() if mean is not None}
        return [self.asked[max(means, key=lambda number: means[number])]] if means else []

    def _winners_plan(self) -> Plan | None:
        """The winners on the sweep's own seeds; None where there are none."""
        chosen = [(row, own) for row in self.rows for own in self._winners(row.name)]
        numbers = [own.number for _, own in chosen]
        if self._final is None or self._final[0] != numbers:
            if not chosen:
                return None
            variants, by_profile = [], dict(self.sweep.by_profile)
            for row, own in chosen:
                name = row.name if len(self.settings.objective) == 1 else f"{row.name} {own.number}"
                by_profile[name] = self._with(row, own.params, test=True).by_profile[row.name]
                variants.append(replace(row, name=name))
            known = any(variant.name == self.sweep.baseline for variant in variants)
            plan = self._plan(replace(
                self.sweep, variants=tuple(variants), by_profile=by_profile,
                baseline=self.sweep.baseline if known else None,
            ))  # fmt: skip
            self._final = numbers, plan
        return self._final[1]

    # -- the plan ----------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """All runs so far: trials, candidates, and (as the table's rows) the winners."""
        fresh, final = self._confirmation()
        cells = [cell for own in self.asked.values() for cell in _cells(own.plan, TRIAL, own.number)]
        for number, plan in fresh.items():
            cells += _cells(plan, f"{CANDIDATE}{number}")
        every = [*(own.plan for own in self.asked.values()), *fresh.values(), *([final] if final else [])]
        runs = {run: own for plan in every for run, own in plan.runs.items()}
        written = {run: node for plan in every for run, node in plan.written.items()}
        facts = {
            "objectives": list(self.settings.objective), "sampler": self.settings.sampler, "pruner": self.settings.pruner,
            "budget": self.budget, "confirm": self.confirm, "seed": self.settings.seed,
            "candidate_seeds": list(self.search.candidate_seeds),
            "spaces": {row: {key: p.facts() for key, p in space.items()} for row, space in self.search.spaces.items()},
            "asked": [own.facts() for own in self.asked.values()],
            "candidates": {str(number): _final(plan) for number, plan in fresh.items()},
            "winners": dict(zip([row.name for row in final.rows], self._final[0], strict=True)) if final and self._final else {},
        }  # fmt: skip
        if final is None:
            return Plan(self.sweep, runs, tuple(cells), self._untuned.rows, written, facts)
        return replace(
            final,
            sweep=replace(final.sweep, search=self.search),
            runs=runs,
            cells=(*cells, *final.cells),
            written=written,
            search=facts,
        )

    def _note(self) -> None:
        plan = self.plan()
        self.runs.update(plan.runs)
        self.labels.update(plan.labels())


def _final(plan: Plan) -> list[str]:
    """The runs of a plan's last stage."""
    return [cell.run for cell in plan.cells if cell.stage == plan.sweep.stages[-1].name]


def _cells(plan: Plan, stage: str, number: int | None = None) -> list[Cell]:
    """A plan's cells under a search's stages; those of a trial by its number, for all have one seed.

    A stage whose one run all share (a teacher) keeps its name.
    """
    shared = {own.name for own in plan.sweep.stages[:-1] if own.name not in plan.sweep.lineage()}
    return [
        cell
        if cell.stage in shared
        else replace(
            cell, seed=cell.seed if number is None else number, stage="-".join(filter(None, (stage, cell.stage)))
        )
        for cell in plan.cells
    ]
