"""A search: which trials there are, which run next, which are pruned, and which are confirmed.

A trial is a run like any other: the row's recipe with the trial's parameters over it, at the search's seed, without its
test split. ``results/<sweep>/trials/<n>.json`` holds what was asked for; all else is read from the runs' records, so
that a launcher may be killed at any moment, and the next one goes on.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deit_ablate import files
from deit_ablate.errors import InputError
from deit_ablate.execution import Execution, Needs
from deit_ablate.launch import status
from deit_ablate.search.candidates import Configurations, cells_of, final_runs, joined
from deit_ablate.search.sampler import Studies, grid_size
from deit_ablate.search.trials import CANDIDATE, TRIAL, Trial, best, mean_value, read_trial
from deit_ablate.store import State, Store
from deit_ablate.sweep.fields import OBJECTIVES
from deit_ablate.sweep.plan import Plan, Run
from deit_ablate.sweep.resources import Executions
from deit_ablate.sweep.sweep import Sweep, Variant

LOOK_SECONDS = 1.0
MOST_INVALID = 200
"""Configurations of a row that make no valid recipe, until the search asks for no more."""
ENDED = ("failed", "cancelled", "blocked", "paused", "damaged")
"""States, beside those of finished runs, in which a confirmation waits for a run no longer."""


@dataclass(frozen=True)
class Request:
    """A trial that was asked for, and the runs that it takes."""

    number: int
    row: str
    params: dict[str, Any]
    plan: Plan
    sampler: Mapping[str, Any]
    """What Optuna's sampler remembers of it."""

    @property
    def run(self) -> str:
        return self.plan.cells[-1].run

    def facts(self) -> dict[str, Any]:
        return {"number": self.number, "row": self.row, "params": self.params, "run": self.run}


class Search:
    """One launcher's part in a sweep's search. Called, it returns the runs to train next."""

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
        """``save`` is given the plan whenever there are more runs; ``trials``: of each row, instead of the file's
        number; ``only``: the rows that are searched.

        Raises InputError for a space that holds invalid recipes, or options that Optuna does not take.
        """
        assert sweep.search is not None
        self.sweep, self.store, self.save = sweep, store, save
        self.settings, self.spaces = sweep.search.file, sweep.search.spaces
        self.candidate_seeds = sweep.search.candidate_seeds
        before = (store.sweeps.sound_plan(sweep.name) or {}).get("search") or {}
        self.confirm = confirm or bool(before.get("confirm"))
        known = {request["number"]: request["row"] for request in before.get("asked", ())}
        confirmed = {known.get(number) for number in (before.get("winners") or {}).values()}
        self.max_parallel = self.settings.parallel
        self.rows = [variant for variant in sweep.variants if not only or variant.name in only]
        self.confirmed_rows = [row for row in sweep.variants if row in self.rows or row.name in confirmed]
        """Those that are searched now, and those that were confirmed before."""
        self._configurations = Configurations(sweep)
        self._configurations.untuned.only(only)  # refuses rows that do not exist
        self._configurations.check(self.rows)
        self._examples = {row.name: self._configurations.trial(row, {}) for row in self.rows}
        """A plan like those of a row's trials: what they need, and what they cost."""
        self.budget = {row.name: self._budget(row.name, trials) for row in self.rows}
        self.requests: dict[int, Request] = {}
        self.invalid: dict[int, Mapping[str, Any]] = {}
        """By number: requests whose values make no valid recipe together, though each by itself does."""
        self.ignored = 0
        """Trials of which the sweep file, as it is now, would make another run: they do not count."""
        self.trials: dict[int, Trial] = {}
        self.runs: dict[str, Run] = {}
        self.labels: dict[str, str] = {}
        self.needs: dict[str, Needs] = {run: own for plan in self._examples.values() for run, own in plan.needs.items()}
        """What ``resources`` say of runs, examples among them."""
        self._last = 0
        self._studies: Studies | None = None
        self._candidate_plans: dict[int, Plan] = {}
        self._final: tuple[list[int], Plan] | None = None
        self._begun: float | None = None
        self._looked = 0.0
        self._read_requests()
        parents = {run.id: run.above for request in self.requests.values() for run in request.plan.runs.values()}
        self._look(status.states(store, parents, sweep.name))
        self._note()

    # -- requests ----------------------------------------------------------------------------------------------

    def _budget(self, row: str, trials: int | None) -> int:
        wanted = trials or self.settings.trials
        if self.settings.sampler != "grid":
            return wanted
        try:
            return min(wanted, grid_size(self.spaces[row]))
        except ValueError as error:
            raise self._refusal(str(error), "sampler") from None

    def _refusal(self, problem: str, key: str = "", expected: str = "") -> InputError:
        assert self.sweep.search is not None
        where = self.sweep.search.where
        return InputError(problem, where=where, key=f"search.{key}" if key else "search", expected=expected)

    def _read_requests(self) -> None:
        """Take in what has been asked for since the last look, here or by another launcher."""
        for content in self.store.sweeps.trial_requests(self.sweep.name, after=self._last):
            self._last = number = content["number"]
            row = self._row_of(content)
            if row is not None and not content["run"]:
                self.invalid[number] = content
            elif row is None or (request := self._as_planned(row, content)) is None:
                self.ignored += 1
                continue
            else:
                self.requests[number] = request
            self._add_to_study(number)

    def _row_of(self, content: Mapping[str, Any]) -> Variant | None:
        """The row of a request, where its space still holds the values."""
        row = next((row for row in self.sweep.variants if row.name == content["row"]), None)
        space = self.spaces[row.name] if row is not None else {}
        same = set(space) == set(content["params"])
        return row if same and all(space[key].holds(value) for key, value in content["params"].items()) else None

    def _as_planned(self, row: Variant, content: Mapping[str, Any]) -> Request | None:
        """The request, where the sweep file still makes the same run of it."""
        try:
            plan = self._configurations.trial(row, content["params"])
        except InputError:
            return None
        request = Request(content["number"], row.name, content["params"], plan, content.get("optuna") or {})
        return request if request.run == content["run"] else None

    def _add_to_study(self, number: int) -> None:
        if self._studies is None:
            return
        if (request := self.requests.get(number)) is not None:
            self._studies.add(request.row, number, request.params, request.sampler, request.run)
        else:
            content = self.invalid[number]
            self._studies.add(content["row"], number, content["params"], content["optuna"], None)

    def of_row(self, row: str) -> list[Request]:
        return [request for request in self.requests.values() if request.row == row]

    def _asked(self, row: str, *, sound: bool) -> list[Mapping[str, Any]]:
        """The points that a row has had: by their values, for two of them may be one training."""
        if sound:
            return [request.params for request in self.of_row(row)]
        return [content["params"] for content in self.invalid.values() if content["row"] == row]

    def _left(self, row: str) -> int:
        """Trials of a row that are still to be asked for."""
        invalid = sum(content["row"] == row for content in self.invalid.values())
        points = invalid if self.settings.sampler == "grid" else 0  # of a grid each is one of its points
        return 0 if invalid >= MOST_INVALID else max(0, self.budget.get(row, 0) - points - len(self.of_row(row)))

    def _open(self, number: int) -> bool:
        return number not in self.trials or self.trials[number].outcome == "open"

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
        names = {row.name for row in self.confirmed_rows}
        ended = not any(self._open(number) for number, request in self.requests.items() if request.row in names)
        return ended and (self.late or not self.to_ask)

    @property
    def over(self) -> bool:
        """Whether nothing will be asked for any more."""
        return not self.to_ask and (not self.confirm or self._final is not None)

    def examples(self) -> list[Run]:
        """Runs like those that are still to be asked for, as many: what they cost, and what they need."""
        runs = {row: plan.runs[plan.cells[-1].run] for row, plan in self._examples.items()}
        return [run for row, run in runs.items() for _ in range(self._left(row))]

    # -- one turn ----------------------------------------------------------------------------------------------

    def execution(self, given: Execution) -> Execution:
        """How trials are executed: a pruner needs each epoch's score."""
        pruned = self.settings.pruner != "none" and len(self.settings.objective) == 1
        return given.model_copy(update={"evaluate_every": given.evaluate_every or 1}) if pruned else given

    def executions(self, base: Execution, given: Execution | None = None) -> Mapping[str, Execution]:
        """How each run is executed, those that are requested later among them (``Plan.executions``)."""
        return Executions(self.runs, self.needs, base, given)

    def begin(self) -> None:
        """Make Optuna's studies, from the trials so far. Raises InputError for options that it does not take."""
        spaces = {row.name: self.spaces[row.name] for row in self.sweep.variants}
        try:
            self._studies = Studies(self.sweep.name, self.settings, spaces)
            Studies.try_out(self.settings, spaces)
        except Exception as error:  # of whatever class, by the option
            expected = "other sampler_options or pruner_options"
            raise self._refusal(f"Optuna refuses it: {error}", expected=expected) from None
        for number in sorted([*self.requests, *self.invalid]):
            self._add_to_study(number)
            if number in self.requests:
                self._studies.tell(self.trials[number])

    def show(self) -> None:
        """Write the studies, and how they go on, to a file that optuna-dashboard opens."""
        assert self._studies is not None
        self._studies.show(files.make_folder(self.store.sweeps.folder(self.sweep.name)) / "optuna.log")

    def __call__(self, states: Mapping[str, State], free: int) -> list[Run]:
        """Runs to go on with, given the states of those so far and how many more there is room for."""
        if not free and time.monotonic() - self._looked < LOOK_SECONDS:
            return []
        self._looked = time.monotonic()
        self._begun = self._begun or self._looked
        known, requested = set(self.runs), set(self.requests)
        self._read_requests()
        self._look(states)
        while free and (request := self._ask()) is not None:
            if request.run in self.runs:  # a configuration that there was already: nothing to be trained
                self._look(states)
            else:
                free -= 1
                self.runs.update(request.plan.runs)
        # Also of another launcher's trials, read in _ask, where it was first with a number: they are waited for too.
        new = bool(self.requests.keys() - requested)
        if new or self._searched:
            plan = self._note()
            if new or self.runs.keys() - known:
                self.save(plan)
        return [run for name, run in self.runs.items() if name not in known]

    def _look(self, states: Mapping[str, State]) -> None:
        """Read the open trials; one that is to be pruned is asked to save and end."""
        for request in self.requests.values():
            if not self._open(request.number):
                continue
            state = states.get(request.run, State("missing"))
            trial = read_trial(self.store, request.facts(), state, self.settings.objective)
            self.trials[request.number] = trial
            if self._studies is not None and self._studies.tell(trial):
                last = self.store.attempts(request.run)[-1]
                if last.exit is None:
                    self.store.pause(request.run, last.number)

    def _ask(self) -> Request | None:
        """One more trial, of the row that has had the fewest; None where all have had theirs, or enough are open."""
        assert self._studies is not None
        open_ = sum(map(self._open, self.requests))
        if self.late or self.store.sweeps.held(self.sweep.name) or open_ >= (self.settings.parallel or open_ + 1):
            return None
        while rows := [row for row in self.rows if self._left(row.name)]:
            row = min(rows, key=lambda row: len(self.of_row(row.name)))
            number = self._last + 1
            params, sampler = self._studies.ask(row.name, number)
            try:
                request = Request(number, row.name, params, self._configurations.trial(row, params), sampler)
            except InputError:  # each value is valid by itself, but not together
                request = None
            if self.settings.sampler == "grid" and params in self._asked(row.name, sound=request is not None):
                self._studies.drop(number)  # a point that an earlier version of the file had, too
                continue
            run = request and request.run
            content = {"row": row.name, "params": params, "run": run, "optuna": sampler, "time": time.time()}
            if not self.store.sweeps.request_trial(self.sweep.name, number, content):
                self._studies.drop(number)  # another launcher has taken the number
                self._read_requests()
            elif request is None:
                self._studies.drop(number)
                self.invalid[number], self._last = content, number
            else:
                self._studies.set_run(number, request.run)
                self.requests[number], self._last = request, number
                return request
        return None

    # -- confirmation ------------------------------------------------------------------------------------------

    def _candidates(self, row: str) -> list[Request]:
        """The row's best trials, best first."""
        trials = [self.trials[request.number] for request in self.of_row(row) if request.number in self.trials]
        return [self.requests[t.number] for t in best(trials, self.settings.objective, self.settings.candidates)]

    def _candidate_plan(self, request: Request) -> Plan:
        """A candidate on the fresh seeds."""
        if request.number not in self._candidate_plans:
            row = next(row for row in self.sweep.variants if row.name == request.row)
            plan = self._configurations.trial(row, request.params, self.candidate_seeds)
            self._candidate_plans[request.number] = plan
        return self._candidate_plans[request.number]

    def _confirmation(self) -> tuple[dict[int, Plan], Plan | None]:
        """By trial, the candidates on fresh seeds; and, once these have ended, the winners on the sweep's seeds."""
        if not self.confirm or not self._searched:
            return {}, None
        fresh: dict[int, Plan] = {}
        if len(self.settings.objective) == 1:
            candidates = [request for row in self.confirmed_rows for request in self._candidates(row.name)]
            fresh = {request.number: self._candidate_plan(request) for request in candidates}
            parents = {run.id: run.above for plan in fresh.values() for run in plan.runs.values()}
            states = status.states(self.store, parents, self.sweep.name)
            if not all(state.finished or state.name in ENDED for state in states.values()):
                return fresh, None
        return fresh, self._winners_plan()

    def _winners(self, row: str) -> list[Request]:
        """Of one objective the candidate with the best mean over the fresh seeds; of two the whole front."""
        candidates, objectives = self._candidates(row), self.settings.objective
        if len(objectives) > 1:
            return candidates
        sign = 1 if OBJECTIVES[objectives[0]] == "maximize" else -1
        means = {
            request.number: sign * mean
            for request in candidates
            if (mean := mean_value(self.store, final_runs(self._candidate_plan(request)), objectives[0])) is not None
        }
        return [self.requests[max(means, key=lambda number: means[number])]] if means else []

    def _winners_plan(self) -> Plan | None:
        """The winners on the sweep's seeds; None where there are none."""
        chosen = [(row, request) for row in self.confirmed_rows for request in self._winners(row.name)]
        numbers = [request.number for _, request in chosen]
        if self._final is None or self._final[0] != numbers:
            if not chosen:
                return None
            front = len(self.settings.objective) > 1  # of which a row has several winners
            named = [
                (f"{row.name} {request.number}" if front else row.name, row, request.params) for row, request in chosen
            ]
            self._final = numbers, self._configurations.winners(named)
        return self._final[1]

    # -- the plan ----------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """All runs so far: trials, candidates, and (as the table's rows) the winners."""
        fresh, final = self._confirmation()
        cells = [c for request in self.requests.values() for c in cells_of(request.plan, TRIAL, request.number)]
        for number, plan in fresh.items():
            cells += cells_of(plan, f"{CANDIDATE}{number}")
        plans = [*(request.plan for request in self.requests.values()), *fresh.values()]
        facts = self._facts(fresh, final)
        if final is None:
            return joined(self._configurations.untuned, plans, cells, facts)
        return joined(final, [*plans, final], [*cells, *final.cells], facts)

    def _facts(self, fresh: Mapping[int, Plan], final: Plan | None) -> dict[str, Any]:
        """What plan.json says of the search."""
        numbers = self._final[0] if final and self._final else []
        return {
            "objectives": list(self.settings.objective),
            "sampler": self.settings.sampler,
            "pruner": self.settings.pruner,
            "budget": {row.name: len(self.of_row(row.name)) + self._left(row.name) for row in self.sweep.variants},
            "unsound": dict(Counter(content["row"] for content in self.invalid.values())),
            "confirm": self.confirm,
            "seed": self.settings.seed,
            "candidate_seeds": list(self.candidate_seeds),
            "aside": self.ignored,
            "spaces": {row: {key: p.facts() for key, p in space.items()} for row, space in self.spaces.items()},
            "asked": [request.facts() for request in self.requests.values()],
            "candidates": {str(number): final_runs(plan) for number, plan in fresh.items()},
            "winners": dict(zip([row.name for row in final.rows], numbers, strict=True)) if final else {},
        }

    def _note(self) -> Plan:
        plan = self.plan()
        self.runs.update(plan.runs)
        self.labels.update(plan.labels())
        self.needs.update(plan.needs)
        return plan
