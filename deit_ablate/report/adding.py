"""Seeds that are added by themselves: a sweep's looks, taken as its runs end, until its rows are decided.

What has been looked at, and so which runs come next, is read from the records by the very function that writes the
table: a launcher may be killed at any moment, or two work at once, and nothing but runs is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from deit_ablate.execution import Execution
from deit_ablate.launch.cost import Costs, duration
from deit_ablate.launch.policy import must_be_there
from deit_ablate.report.stats.sequential import Sequential
from deit_ablate.report.summary import summarize
from deit_ablate.store import State, Store
from deit_ablate.sweep.enumeration import with_parents
from deit_ablate.sweep.plan import Plan, Run

UNDER_WAY = ("running", "submitted")


class AddedSeeds:
    """One launcher's part in a sweep that is run until its rows are decided. Called, it returns the runs to train next.

    Without a budget these are all that the next look of each undecided row needs. With one (seconds of machine time: of
    one slot, added up over slots) whole looks of rows are begun as long as they fit into it, by the probability of a
    decision for a second; it is what this launcher may start, whatever was spent before.
    """

    max_parallel = 1000
    """As many as a scheduler takes: all that a look needs may run at once."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        save: Callable[[Plan], None],
        *,
        only: Sequence[str] = (),
        budget: float | None = None,
    ) -> None:
        """``plan``: with the seeds of all looks; ``save`` is given the part of it that was asked for, whenever there
        is more; ``only``: the rows that go on. Raises InputError for rows that there are not."""
        plan.only(only)
        self.full, self.store, self.save, self.only, self.budget = plan, store, save, only, budget
        self.name, self.baseline = plan.sweep.name, str(plan.sweep.baseline)
        self.labels = plan.labels()
        self.runs: dict[str, Run] = {}
        """Those that were asked for, or have begun."""
        self._document = plan.document("")
        final = plan.sweep.final.name
        self._final = {(cell.variant, cell.seed): cell.run for cell in plan.cells if cell.stage == final}
        self._costs = Costs(store, plan.runs)
        self._charged: dict[str, float] = {}
        """Run that this launcher has asked for -> what it costs, by estimate until it has ended."""
        self._chosen: list[str] = []
        """Runs of looks that are begun, and that there is no room for yet."""
        self._ended: set[str] = set()
        self.look()
        begun = [run for run in self._wanted() if self.states[run] not in ("missing", "waiting", "held")]
        self._take(self._with_parents(begun))

    # -- where it stands -----------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Judge the rows by the runs that have ended."""
        read = summarize(self.store, self.name, plan=self._document)
        assert read.looks is not None
        self.standing: Sequential = read.looks
        self.states: dict[str, str] = read.states
        for run in self._charged.keys() - self._ended:
            if self.states[run] in ("done", "diverged"):
                self._costs.learn(run)
                cost = (self.store.outcome(run) or {}).get("cost", {})
                self._charged[run] = cost.get("wall_seconds") or self._charged[run]
        self._ended = {run for run, state in self.states.items() if state in ("done", "diverged")}

    @property
    def undecided(self) -> list[str]:
        """The rows that go on to a look."""
        return [row for row in self.standing.going_on if not self.only or row in self.only]

    def _with_parents(self, wanted: Iterable[str]) -> list[str]:
        """These runs and those that they depend on, parents first."""
        every = with_parents(self.full.runs, wanted)
        return [run for run in self.full.runs if run in every]

    def _of_look(self, row: str, look: int) -> list[str]:
        """The runs that a row needs for its look (from 0), parents first: its own, and the baseline's."""
        sweep = self.full.sweep
        assert sweep.looks is not None
        of_baseline = self.full.comparison.seeds(sweep.looks[look])
        seeds = [(self.baseline, seed) for seed in range(of_baseline)]
        seeds += [(row, seed) for seed in range(sweep.looks[look])]
        return self._with_parents(self._final[place] for place in seeds if place in self._final)

    def _next(self, row: str) -> list[str]:
        """The runs that a row's next look needs, and that were not asked for."""
        return [run for run in self._of_look(row, self.standing.taken[row]) if run not in self.runs]

    def _wanted(self) -> list[str]:
        """All runs of the looks that were taken, and of the next ones."""
        looks = {row: taken - (row not in self.undecided) for row, taken in self.standing.taken.items()}
        return self._with_parents(run for row, look in looks.items() if look >= 0 for run in self._of_look(row, look))

    @property
    def over(self) -> bool:
        """Whether nothing is asked for any more, given the runs that have ended so far."""
        return not any(map(self._next, self.undecided))

    def examples(self) -> list[Run]:
        """The runs that the next looks need, and that were not asked for yet."""
        return [self.full.runs[run] for run in self._wanted() if run not in self.runs]

    # -- one turn ------------------------------------------------------------------------------------------------------

    def __call__(self, states: Mapping[str, State], free: int) -> list[Run]:
        """Runs to go on with, given the states of those so far and how many more there is room for."""
        if {run for run, state in states.items() if state.finished} - self._ended:
            self.look()
        known = set(self.runs)
        if self.budget is None:
            self._take(run for row in self.undecided for run in self._next(row))
        else:
            while free > 0:
                self._choose()
                if not self._chosen or not self._fits(self._chosen[:1]):
                    break
                run = self._chosen.pop(0)
                self._take([run])
                free -= self.states[run] not in ("done", "diverged", *UNDER_WAY)
        new = [run for name, run in self.runs.items() if name not in known]
        if new:
            must_be_there(self.store, self.name)
            self.save(self.plan())
        return new

    def _take(self, runs: Iterable[str]) -> None:
        chosen = {run: self.full.runs[run] for run in runs if run not in self.runs}
        for run in chosen:
            if self.budget is not None and self.states[run] not in ("done", "diverged", *UNDER_WAY):
                self._charged[run] = self._costs.seconds(self.full.runs[run].recipe) or 0.0
        self.runs |= chosen

    # -- the budget ----------------------------------------------------------------------------------------------------

    def measure(self, executions: Mapping[str, Execution]) -> Iterator[str]:
        """Where nothing like a row's runs has finished, time their first steps here; lines that say what was found."""
        return self._costs.measure(self.full.runs, executions)

    @property
    def spent(self) -> float:
        """Seconds of machine time of the runs that this launcher has asked for: what they took, or will by estimate."""
        return sum(self._charged.values())

    def _seconds(self, runs: Sequence[str]) -> float | None:
        """What is left to be done of some runs; None where that is unknown."""
        each = [self._costs.seconds(self.full.runs[run].recipe) for run in runs if run not in self._ended]
        known = [seconds for seconds in each if seconds is not None]
        return sum(known) if len(known) == len(each) else None

    def _fits(self, runs: Sequence[str]) -> bool:
        """Whether they fit into what is left; one run of unknown cost does as long as another one's is not awaited."""
        seconds, left = self._seconds(runs), (self.budget or 0.0) - self.spent
        if seconds is None:
            return left > 0 and len(runs) == 1 and 0.0 not in self._charged.values()
        return seconds <= left

    def _choose(self) -> None:
        """Begin the look of the row where a second is most likely to decide one: of looks that fit as a whole, or of
        any where none does, for what is trained now need not be then."""
        if self._chosen:
            return
        unknown = [run for row in self.undecided for run in self._next(row) if self._seconds([run]) is None]
        if unknown:  # the first one to end says what the others cost
            best = unknown[:1]
        else:
            looks = [(row, runs) for row in self.undecided if (runs := self._next(row))]
            looks = [look for look in looks if self._fits(look[1])] or looks
            worth = [self.standing.chances[row] / max(self._seconds(runs) or 0.0, 1e-9) for row, runs in looks]
            best = looks[worth.index(max(worth))][1] if looks else []
        self._chosen = [run for run in self._with_parents(best) if run not in self.runs]

    # -- what is said --------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """The part of the plan that was asked for: what the table shows."""
        cells = tuple(cell for cell in self.full.cells if cell.run in self.runs)
        return replace(
            self.full, runs={run: own for run, own in self.full.runs.items() if run in self.runs}, cells=cells
        )

    def words(self, failed: int = 0) -> str:
        """How it ended, in one line: what is undecided, what that would cost, and that ``failed`` runs come first."""
        self.look()
        names, looks = self.undecided, self.standing.looks
        spent = f"; this command used {duration(self.spent)} of {duration(self.budget)}"
        used = "" if self.budget is None else spent
        if not names:
            which = f"of {', '.join(self.only)} each" if self.only else "every row"
            return f"{which} is decided, or has had its last look{used}"
        following = {run for row in names for run in self._of_look(row, self.standing.taken[row])} - self._ended
        every = {run for row in names for run in self._of_look(row, len(looks) - 1)} - self._ended
        costs = [duration(self._seconds(sorted(runs))) for runs in (following, every)]
        again = f"{failed} runs are not done: `deit-ablate retry` first" if failed else "the same command goes on"
        return (
            f"undecided: {', '.join(names)}{used}; their next look needs {len(following)} runs, machine time "
            f"{costs[0]}, all looks up to {len(every)} runs, {costs[1]}; {again}"
        )
