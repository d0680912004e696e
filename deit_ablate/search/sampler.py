"""Optuna's part of a search: which configuration is tried next, and which trial is pruned.

The study lives in this process and is made anew from records at its start; as it grows it is also written to a journal
file that ``optuna-dashboard`` opens. deit-ablate never reads that file: the records alone count.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import TrialState

from deit_ablate import files
from deit_ablate.identity import canonical_json
from deit_ablate.search.trials import Trial, read_trials
from deit_ablate.store import State, Store
from deit_ablate.sweep.fields import OBJECTIVES, PRUNERS, SAMPLERS
from deit_ablate.sweep.space import Parameter

MOST_POINTS = 10_000
"""Points that a grid may have: Optuna lists them all."""
STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


class StudyJournal(BaseJournalBackend):
    """Optuna's journal in memory, and a copy of it in a file once one is named."""

    def __init__(self) -> None:
        self._lines: list[dict[str, Any]] = []
        self._file: IO[bytes] | None = None

    def show(self, path: Path) -> None:
        """Write the journal, and what is added to it from now on, to ``path``, in place of an earlier launcher's.

        A launcher that is still alive goes on writing to its own file, which has no name any more.
        """
        # Not being able to write is no reason to end a search: a full disk makes its runs fail, which is reported.
        with contextlib.suppress(OSError), files.temporary_beside(path) as temporary:
            self._file = open(temporary, "ab", buffering=0)  # noqa: SIM115 (it lives as long as the study)
            self._write(self._lines)
            os.replace(temporary, path)

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        return self._lines[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._lines += [json.loads(json.dumps(line)) for line in logs]
        with contextlib.suppress(OSError):
            self._write(logs)

    def _write(self, lines: Iterable[dict[str, Any]]) -> None:
        if self._file is not None:
            self._file.write("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode())


class Studies:
    """The studies of a search, one for each row."""

    def __init__(self, sweep: str, settings: Any, spaces: Mapping[str, Mapping[str, Parameter]]):
        """Raises TypeError, ValueError or ImportError for options that Optuna's sampler or pruner does not take."""
        _hush()
        self.settings, self.spaces = settings, spaces
        self.distributions = {row: {key: distribution(p) for key, p in space.items()} for row, space in spaces.items()}
        for row in spaces:
            self._sampler(row, 0)
        pruner = getattr(optuna.pruners, PRUNERS[settings.pruner])(**settings.pruner_options)
        self._journal = StudyJournal()
        self._storage = JournalStorage(self._journal)
        self._studies = {
            row: _new_study(f"{sweep}:{row}", settings.objective, storage=self._storage, pruner=pruner)
            for row in spaces
        }
        self._ids = {
            row: self._storage.get_study_id_from_name(study.study_name) for row, study in self._studies.items()
        }
        self._trials: dict[int, tuple[int, optuna.trial.Trial]] = {}
        """By our number: Optuna's id of a trial that is open, and the trial."""
        self._reported: dict[int, int] = {}

    def _sampler(self, row: str, trials: int) -> optuna.samplers.BaseSampler:
        """A sampler whose draws are a function of the search's seed, the row, and how many trials it has had.

        Samplers that go through a sequence read their place in it from the study, and so keep one seed.
        """
        name, options = self.settings.sampler, dict(self.settings.sampler_options)
        given = options.pop("seed", None)
        if name in ("qmc", "grid"):
            options["seed"] = _seed(self.settings.seed, row) if given is None else given
        else:
            options["seed"] = _seed(self.settings.seed if given is None else given, row, trials)
        if name == "qmc":  # what draws until the first trial has ended
            random = optuna.samplers.RandomSampler(_seed(self.settings.seed, given, row, trials))
            options.setdefault("independent_sampler", random)
        if name == "tpe":
            options.setdefault("constant_liar", True)
            # Optuna draws 10 at random before it learns, which may be all that there are.
            options.setdefault("n_startup_trials", min(10, max(4, self.settings.trials // 4)))
        if name == "grid":
            options["search_space"] = {key: grid_values(p) for key, p in self.spaces[row].items()}
        return getattr(optuna.samplers, SAMPLERS[name])(**options)

    @classmethod
    def try_out(cls, settings: Any, spaces: Mapping[str, Mapping[str, Parameter]]) -> None:
        """Draw and prune without training where options are given, for Optuna checks some of them no earlier.

        Raises whatever Optuna raises.
        """
        if not (settings.sampler_options or settings.pruner_options):
            return
        startup = settings.sampler_options.get("n_startup_trials", 10)
        row = next(iter(spaces))
        made = cls("options", settings, {row: spaces[row]})
        for number in range(1, min(startup, 50) + 3):
            params, _ = made.ask(row, number)
            curve = tuple(50.0 + number % 7 + epoch for epoch in range(3))
            made.tell(Trial(number, row, params, "", State("running"), None, curve))
            made.tell(Trial(number, row, params, "", State("done"), curve[: len(settings.objective)], curve))

    def show(self, path: Path) -> None:
        """Write the studies, and how they go on, to a file that optuna-dashboard opens."""
        self._journal.show(path)

    def ask(self, row: str, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """(params, what the sampler remembers) of the next trial of a row, which is called ``number`` from now on."""
        study = self._studies[row]
        study.sampler = self._sampler(row, len(study.get_trials(deepcopy=False)))
        trial = study.ask(self.distributions[row])
        trial.set_user_attr("trial", number)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._ids[row], trial.number)
        self._trials[number] = trial_id, trial
        memory = {
            "trial": self._storage.get_trial_system_attrs(trial_id),
            "study": self._storage.get_study_system_attrs(self._ids[row]),
        }
        return {key: from_optuna(self.spaces[row][key], value) for key, value in trial.params.items()}, memory

    def drop(self, number: int) -> None:
        """A trial is not run: it makes no valid recipe, or another launcher has taken its number."""
        self._storage.set_trial_state_values(self._trials.pop(number)[0], TrialState.FAIL)

    def add(self, row: str, number: int, params: Mapping[str, Any], memory: Mapping[str, Any], run: str | None) -> None:
        """A trial that an earlier launcher (or another one) has asked for, with what its sampler remembers."""
        study, distributions = self._studies[row], self.distributions[row]
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params={key: to_optuna(params[key]) for key in distributions},
            distributions=distributions,
            user_attrs={"trial": number},
            system_attrs=dict(memory.get("trial") or {}),
        )
        trial_id = self._storage.create_new_trial(self._ids[row], template)
        self._trials[number] = trial_id, optuna.trial.Trial(study, trial_id)
        before = self._storage.get_study_system_attrs(self._ids[row])
        for key, value in (memory.get("study") or {}).items():
            if before.get(key) != value:
                self._storage.set_study_system_attr(self._ids[row], key, value)
        if run is None:
            self.drop(number)
        else:
            self.set_run(number, run)

    def set_run(self, number: int, run: str) -> None:
        self._trials[number][1].set_user_attr("run", run)

    def tell(self, trial: Trial) -> bool:
        """Report what is new of a trial, and how it ended if it has; True where it is to be pruned."""
        if trial.number not in self._trials:
            return False
        trial_id, reported = self._trials[trial.number]
        prune = False
        for epoch in range(self._reported.get(trial.number, 0), len(trial.reports)):
            value = trial.reports[epoch]
            if value is not None and len(self.settings.objective) == 1:
                reported.report(value, epoch + 1)
                prune = reported.should_prune() or prune
        self._reported[trial.number] = len(trial.reports)
        if trial.outcome == "open":
            return prune
        state = STATES[trial.outcome]
        if state is TrialState.PRUNED and len(self.settings.objective) > 1:
            state = TrialState.FAIL  # Optuna's samplers of several objectives know no pruned trials
        self._storage.set_trial_state_values(trial_id, state, trial.values)
        del self._trials[trial.number]
        return False


def _hush() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def _new_study(name: str, objectives: list[str], **options: Any) -> optuna.Study:
    directions: list[Any] = [OBJECTIVES[objective] for objective in objectives]
    study = optuna.create_study(study_name=name, directions=directions, **options)
    study.set_metric_names(objectives)
    return study


def recorded_studies(store: Store, plan: Mapping[str, Any]) -> dict[str, optuna.Study]:
    """Optuna's study of each row of a plan.json, in memory, with the trials that have ended, in their order."""
    _hush()
    search, trials, studies = plan["search"], read_trials(store, plan), {}
    for row, facts in search["spaces"].items():
        studies[row] = study = _new_study(f"{plan['sweep']}:{row}", search["objectives"])
        space = {key: Parameter.of_facts(key, fact) for key, fact in facts.items()}
        for trial in trials:
            if trial.row == row and trial.outcome != "open":
                study.add_trial(
                    optuna.trial.create_trial(
                        state=STATES[trial.outcome],
                        values=trial.values,
                        params={key: to_optuna(value) for key, value in trial.params.items()},
                        distributions={key: distribution(parameter) for key, parameter in space.items()},
                        intermediate_values={e: value for e, value in enumerate(trial.reports, 1) if value is not None},
                        user_attrs={"trial": trial.number, "run": trial.run},
                    )
                )
    return studies


def _seed(*identity: Any) -> int:
    return int.from_bytes(hashlib.sha256(repr(identity).encode()).digest()[:4], "big")


def distribution(parameter: Parameter) -> BaseDistribution:
    within = parameter.range
    if within is None:
        return CategoricalDistribution([to_optuna(choice) for choice in parameter.choices])
    if within.type == "int":
        return IntDistribution(int(within.low), int(within.high), log=within.log, step=within.spacing)
    return FloatDistribution(within.low, within.high, log=within.log, step=within.step)


def to_optuna(value: Any) -> Any:
    """Optuna's choices are plain scalars: a list or a mapping goes by its text."""
    return canonical_json(value) if isinstance(value, (list, dict)) else value


def from_optuna(parameter: Parameter, value: Any) -> Any:
    return next((choice for choice in parameter.choices if to_optuna(choice) == value), value)


def grid_values(parameter: Parameter) -> list[Any]:
    """The points of a grid: choices, whole numbers, or the steps of a range. Raises ValueError for a range without."""
    count, within = _points(parameter), parameter.range
    if within is None:
        return [to_optuna(choice) for choice in parameter.choices]
    values = [within.low + place * within.spacing for place in range(count)]
    return values if within.type == "int" else [min(within.high, round(value, 12)) for value in values]


def grid_size(space: Mapping[str, Parameter]) -> int:
    """Points of a grid over a space. Raises ValueError where it has none, or too many to go through."""
    size = math.prod(map(_points, space.values()))
    if size > MOST_POINTS:
        raise ValueError(f"a grid of {size} points, which is more than {MOST_POINTS}")
    return size


def _points(parameter: Parameter) -> int:
    if (count := parameter.points()) is None:
        raise ValueError(f"a grid over {parameter.key} needs a list of values, or a step")
    return count
