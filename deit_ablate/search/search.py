"""A search: which trials there are, which run next, which go no further, and which of them are confirmed.

A trial is a run like any other: the row's recipe with the trial's parameters over it, at the search's seed, its test
split left alone. ``results/<sweep>/trials/<n>.json`` says what was asked for; all else is read from the runs' records,
so that a launcher killed at any moment is followed by one that goes on as if it had not been.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deit_ablate import files
from deit_ablate.errors import InputError
from deit_ablate.launch import status
from deit_ablate.search.candidates import Configurations, cells_of, final_runs
from deit_ablate.search.sampler import Studies, grid_size
from deit_ablate.search.trials import Trial, best, mean_value, read_trial
from deit_ablate.store import State, Store
from deit_ablate.sweep.fields import OBJECTIVES
from deit_ablate.sweep.load import Sweep, Variant
from deit_ablate.sweep.plan import Plan, Run

LOOK_SECONDS = 1.0
MOST_UNSOUND = 200
"""Configurations of a row that make no sound recipe, until the search asks for no more."""
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
        self,
        sweep: Sweep,
        store: Store,
        save: Callable[[Plan], None],
        *,
        confirm: bool = False,
        trials: int | None = None,
        only: Sequence[str] = (),
    ) -> None:
        """``save`` is given the plan whenever there are more runs; ``trials``: of each row, instead of what the file
        says; ``only``: the rows that are searched.

        Raises InputError for a space that holds unsound recipes, or options that Optuna does not take.
        """
        assert sweep.search is not None
        self.sweep, self.store, self.save, self.search = sweep, store, save, sweep.search
        self.settings = sweep.search.settings
        before = (store.sweeps.plan(sweep.name) or {}).get("search") or {}
        self.confirm = confirm or bool(before.get("confirm"))
        known = {asked["number"]: asked["row"] for asked in before.get("asked", ())}
        confirmed = {known.get(number) for number in (before.get("winners") or {}).values()}
        self.max_parallel = self.settings.parallel
        self.rows = [variant for variant in sweep.variants if not only or variant.name in only]
        self.shown = [variant for variant in sweep.variants if variant in self.rows or variant.name in confirmed]
        """The rows that are confirmed: those that are searched now, and those that were confirmed before."""
        self._make = Configurations(sweep)
        self._untuned = self._make.untuned
        self._untuned.only(only)  # refuses rows that there are not
        self._make.check(self.rows)
        self._examples = {row.name: self._make.example(row) for row in self.rows}
        self.budget = {row.name: self._budget(row.name, trials) for row in self.rows}
        self.asked: dict[int, Asked] = {}
        self.unsound: dict[int, Mapping[str, Any]] = {}
        """By number: what was asked for and makes no sound recipe, though each value by itself does."""
        self.aside = 0
        """Trials of which the sweep file, as it is now, would make another run: they do not count."""
        self.trials: dict[int, Trial] = {}
        self.runs: dict[str, Run] = {}
        self.labels: dict[str, str] = {}
        self._last = 0
        self._studies: Studies | None = None
        self._again: dict[int, Plan] = {}
        self._final: tuple[list[int], Plan] | None = None
        self._begun: float | None = None
        self._looked = 0.0
        self._read_asks()
        parents = {run: own.above for asked in self.asked.values() for run, own in asked.plan.runs.items()}
        self._look(status.states(store, parents, sweep.name))
        self._note()

    # -- what there is ---------------------------------------------------------------------------------------

    def _budget(self, row: str, trials: int | None) -> int:
        wanted = trials or self.settings.trials
        if self.settings.sampler != "grid":
            return wanted
        try:
            return min(wanted, grid_size(self.search.spaces[row]))
        except ValueError as error:
            raise InputError(str(error), where=self.search.where, key="search.sampler") from None

    def _read_asks(self) -> None:
        """Take up what has been asked for since the last look, here or by another launcher."""
        for content in self.store.sweeps.trial_requests(self.sweep.name, after=self._last):
            self._last = content["number"]
            row = self._row_of(content)
            own = self._as_planned(row, content) if row is not None and content["run"] else None
            if row is not None and not content["run"]:
                self.unsound.setdefault(self._last, content)
                if self._studies is not None:
                    self._studies.add(row.name, self._last, content["params"], content["optuna"], None)
            elif own is None:
                self.aside += 1
            elif own.number not in self.asked:
                self.asked[own.number] = own
                if self._studies is not None:
                    self._studies.add(own.row, own.number, own.params, own.kept, own.run)

    def _row_of(self, content: Mapping[str, Any]) -> Variant | None:
        """The row of what was asked for, where its space holds the values still."""
        row = next((row for row in self.sweep.variants if row.name == content["row"]), None)
        space = self.search.spaces[row.name] if row is not None else {}
        same = set(space) == set(content["params"])
        return row if same and all(space[key].holds(value) for key, value in content["params"].items()) else None

    def _as_planned(self, row: Variant, content: Mapping[str, Any]) -> Asked | None:
        """The trial, where the sweep file still makes the same run of it."""
        try:
            plan = self._make.trial(row, content["params"])
        except InputError:
            return None
        own = Asked(content["number"], row.name, content["params"], plan, content.get("optuna") or {})
        return own if own.run == content["run"] else None

    def of_row(self, row: str) -> list[Asked]:
        return [own for own in self.asked.values() if own.row == row]

    # -- what is to be done ------------------------------------------------------------------------------------

    def _left(self, row: str) -> int:
        """Trials of a row that are still to be asked for."""
        unsound = sum(content["row"] == row for content in self.unsound.values())
        points = unsound if self.settings.sampler == "grid" else 0  # of a grid each is one of its points
        return 0 if unsound >= MOST_UNSOUND else max(0, self.budget.get(row, 0) - points - len(self.of_row(row)))

    @property
    def late(self) -> bool:
        """Whether this launch has had its time, so that it asks for nothing more."""
        limit = self.settings.timeout
        return limit is not None and self._begun is not None and time.monotonic() - self._begun > 60 * limit

    @property
    def to_ask(self) -> int:
        return sum(self._left(row.name) for row in self.rows)

    @property
    def _searched(self) -> bool:
        """Whether all trials of the rows that are to be confirmed have ended."""
        names = {row.name for row in self.shown}
        ended = all(
            n in self.trials and self.trials[n].outcome != "open" for n, own in self.asked.items() if own.row in names
        )
        return ended and (self.late or not self.to_ask)

    @property
    def over(self) -> bool:
        """Whether nothing will be asked for any more."""
        return not self.to_ask and (not self.confirm or self._final is not None)

    def examples(self) -> list[Run]:
        """Runs like those that are still to be asked for, as many: what they cost, and what they need."""
        return [self._examples[row] for row in self._examples for _ in range(self._left(row))]

    def begin(self) -> None:
        """Make Optuna's studies, from the trials so far. Raises InputError for options that it does not take."""
        spaces = {row.name: self.search.spaces[row.name] for row in self.sweep.variants}
        try:
            self._studies = Studies(self.sweep.name, self.settings, spaces)
            Studies.try_out(self.settings, spaces)
        except Exception as error:  # whatever Optuna makes of options that it does not take
            raise InputError(
                f"Optuna refuses it: {error}",
                where=self.search.where,
                key="search",
                expected="other sampler_options or pruner_options",
            ) from None
        for number in sorted([*self.asked, *self.unsound]):
            if number in self.unsound:
                content = self.unsound[number]
                self._studies.add(content["row"], number, content["params"], content["optuna"], None)
            else:
                own = self.asked[number]
                self._studies.add(own.row, number, own.params, own.kept, own.run)
                self._studies.tell(self.trials[number])

    def show(self) -> None:
        """Write the studies, and how they go on, to a file that optuna-dashboard opens."""
        assert self._studies is not None
        self._studies.show(files.make_folder(self.store.sweeps.folder(self.sweep.name)) / "optuna.log")

    def __call__(self, states: Mapping[str, State], free: int) -> list[Run]:
        """Runs to go on with, given how those so far stand and how many more there is room for."""
        if not free and time.monotonic() - self._looked < LOOK_SECONDS:
            return []
        self._looked = time.monotonic()
        self._begun = self._begun or self._looked
        known, asked = set(self.runs), set(self.asked)
        self._read_asks()
        self._look(states)
        while free and (own := self._ask()) is not None:
            if own.run in self.runs:  # a configuration that there was already: nothing to be trained
                self._look(states)
            else:
                free -= 1
                self.runs.update(own.plan.runs)
        # Also of another launcher's trials, read in _ask, where it was first with a number: they are waited for too.
        new = bool(self.asked.keys() - asked)
        if new or self._searched:
            plan = self._note()
            if new or self.runs.keys() - known:
                self.save(plan)
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
        open_ = sum(n not in self.trials or self.trials[n].outcome == "open" for n in self.asked)
        if self.late or self.store.sweeps.held(self.sweep.name) or open_ >= (self.settings.parallel or open_ + 1):
            return None
        while rows := [row for row in self.rows if self._left(row.name)]:
            row = min(rows, key=lambda row: len(self.of_row(row.name)))
            number = self._last + 1
            params, kept = self._studies.ask(row.name, number)
            try:
                own = Asked(number, row.name, params, self._make.trial(row, params), kept)
            except InputError:  # each value is sound by itself, but not together
                own = None
            if self.settings.sampler == "grid" and own and any(own.run == other.run for other in self.of_row(row.name)):
                self._studies.drop(number)  # a point that an earlier version of the file had, too
                continue
            content = {"row": row.name, "params": params, "run": own and own.run, "optuna": kept, "time": time.time()}
            if not self.store.sweeps.request_trial(self.sweep.name, number, content):
                self._studies.drop(number)  # another launcher has taken the number
                self._read_asks()
            elif own is None:
                self._studies.drop(number)
                self.unsound[number], self._last = content, number
            else:
                self._studies.name(number, own.run)
                self.asked[number], self._last = own, number
                return own
        return None

    # -- confirmation ------------------------------------------------------------------------------------------

    def _candidates(self, row: str) -> list[Asked]:
        """The row's best trials, best first."""
        trials = [self.trials[own.number] for own in self.of_row(row) if own.number in self.trials]
        return [self.asked[t.number] for t in best(trials, self.settings.objective, self.settings.candidates)]

    def _fresh(self, own: Asked) -> Plan:
        """A candidate on the fresh seeds."""
        if own.number not in self._again:
            row = next(row for row in self.sweep.variants if row.name == own.row)
            self._again[own.number] = self._make.candidate(row, own.params)
        return self._again[own.number]

    def _confirmation(self) -> tuple[dict[int, Plan], Plan | None]:
        """By trial, the candidates on fresh seeds; and, once these have ended, the winners on seeds of their own."""
        if not self.confirm or not self._searched:
            return {}, None
        fresh = {}
        if len(self.settings.objective) == 1:
            fresh = {own.number: self._fresh(own) for row in self.shown for own in self._candidates(row.name)}
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
        found = {own.number: mean_value(self.store, final_runs(self._fresh(own)), objectives[0]) for own in candidates}
        sign = 1 if OBJECTIVES[objectives[0]] == "maximize" else -1
        means = {number: sign * mean for number, mean in found.items() if mean is not None}
        return [self.asked[max(means, key=lambda number: means[number])]] if means else []

    def _winners_plan(self) -> Plan | None:
        """The winners on the sweep's own seeds; None where there are none."""
        chosen = [(row, own) for row in self.shown for own in self._winners(row.name)]
        numbers = [own.number for _, own in chosen]
        if self._final is None or self._final[0] != numbers:
            if not chosen:
                return None
            named = len(self.settings.objective) > 1  # of a front a row has several winners
            plan = self._make.winners(
                [(f"{row.name} {own.number}" if named else row.name, row, own.params) for row, own in chosen]
            )
            self._final = numbers, plan
        return self._final[1]

    # -- the plan ----------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """All runs so far: trials, candidates, and (as the table's rows) the winners."""
        fresh, final = self._confirmation()
        cells = [cell for own in self.asked.values() for cell in cells_of(own.plan, TRIAL, own.number)]
        for number, plan in fresh.items():
            cells += cells_of(plan, f"{CANDIDATE}{number}")
        every = [*(own.plan for own in self.asked.values()), *fresh.values(), *([final] if final else [])]
        runs = {run: own for plan in every for run, own in plan.runs.items()}
        written = {run: node for plan in every for run, node in plan.written.items()}
        facts = {
            "objectives": list(self.settings.objective),
            "sampler": self.settings.sampler,
            "pruner": self.settings.pruner,
            "budget": {row.name: len(self.of_row(row.name)) + self._left(row.name) for row in self.sweep.variants},
            "unsound": dict(Counter(content["row"] for content in self.unsound.values())),
            "confirm": self.confirm,
            "seed": self.settings.seed,
            "candidate_seeds": list(self.search.candidate_seeds),
            "aside": self.aside,
            "spaces": {row: {key: p.facts() for key, p in space.items()} for row, space in self.search.spaces.items()},
            "asked": [own.facts() for own in self.asked.values()],
            "candidates": {str(number): final_runs(plan) for number, plan in fresh.items()},
            "winners": dict(zip([row.name for row in final.rows], self._final[0], strict=True))
            if final and self._final
            else {},
        }
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

    def _note(self) -> Plan:
        plan = self.plan()
        self.runs.update(plan.runs)
        self.labels.update(plan.labels())
        return plan
