"""Every sampler and pruner that a search may name: asked, told, and made anew from what was kept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from deit_ablate.search.sampler import Studies, from_optuna, to_optuna
from deit_ablate.search.trials import Trial
from deit_ablate.store import State
from deit_ablate.sweep.fields import PRUNERS, SAMPLERS, SearchFile
from deit_ablate.sweep.space import Parameter, Range

WHERE = ("x.yaml", 1, 1)
SPACE = {
    "lr": Parameter("lr", WHERE, Range(low=1e-4, high=1.0, log=True)),
    "drop": Parameter("drop", WHERE, Range(low=0.0, high=0.4, step=0.1)),
    "depth": Parameter("depth", WHERE, Range(type="int", low=1, high=4)),
    "policy": Parameter("policy", WHERE, choices=("none", None, [1, 2])),
}
GRID = {name: SPACE[name] for name in ("drop", "depth", "policy")}


def studies(sampler: str, **settings: Any) -> Studies:
    return Studies("s", SearchFile(sampler=sampler, **settings), {"row": GRID if sampler == "grid" else SPACE})


def value(params: dict[str, Any]) -> float:
    """Best at a rate of 0.01 and a depth of 3."""
    return 90 - abs(math.log10(params.get("lr", 0.01)) + 2) * 10 - abs(params["depth"] - 3)


def trial(
    number: int, params: dict[str, Any], values: tuple[float, ...] | None, *, state: str = "done", reports: Any = ()
) -> Trial:
    return Trial(number, "row", params, f"run{number}", State(state), values, tuple(reports))


def told(made: Studies, count: int, first: int = 1) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    asked = []
    for number in range(first, first + count):
        params, kept = made.ask("row", number)
        made.set_run(number, f"run{number}")
        made.tell(trial(number, params, (value(params),)))
        asked.append((params, kept))
    return asked


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.filterwarnings("ignore")
def test_every_sampler_asks_within_the_space_and_goes_on_where_it_was(sampler: str) -> None:
    options = {"n_startup_trials": 4} if sampler in ("tpe", "gp", "cmaes") else {}
    asked = told(studies(sampler, sampler_options=options), 9)
    for params, _ in asked:
        assert set(params) == set(GRID if sampler == "grid" else SPACE)
        assert 1e-4 <= params.get("lr", 0.1) <= 1
        assert params["depth"] in (1, 2, 3, 4)
        assert params["policy"] in ("none", None, [1, 2])
        assert round(params["drop"] * 10) in range(5)
    assert len({str(params) for params, _ in asked}) == 9, "no configuration twice"
    for died_after in (1, 5, 8):
        again = studies(sampler, sampler_options=options)
        for number, (params, kept) in enumerate(asked[:died_after], 1):
            again.add("row", number, params, kept, f"run{number}")
            again.tell(trial(number, params, (value(params),)))
        assert again.ask("row", died_after + 1)[0] == asked[died_after][0], "a launcher killed changes nothing"


def test_tpe_learns_and_random_does_not() -> None:
    late = {
        sampler: [value(params) for params, _ in told(studies(sampler, sampler_options=options), 40)[-10:]]
        for sampler, options in (("tpe", {"n_startup_trials": 10}), ("random", {}))
    }
    assert sum(late["tpe"]) / 10 > sum(late["random"]) / 10 + 3


def test_rows_draw_apart_and_seeds_too() -> None:
    both = Studies("s", SearchFile(sampler="random"), {"a": SPACE, "b": SPACE})
    assert both.ask("a", 1)[0] != both.ask("b", 2)[0]
    assert studies("random", seed=1).ask("row", 1)[0] != studies("random", seed=2).ask("row", 1)[0]
    assert studies("random", seed=1).ask("row", 1)[0] == studies("random", seed=1).ask("row", 1)[0]


@pytest.mark.parametrize("pruner", [name for name in PRUNERS if name != "none"])
def test_every_pruner_ends_the_hopeless_and_leaves_the_best(pruner: str) -> None:
    options = {
        "median": {"n_startup_trials": 2},
        "successive-halving": {"min_resource": 2, "reduction_factor": 2},
        "hyperband": {"min_resource": 2, "max_resource": 16, "reduction_factor": 2},
    }[pruner]

    def curve(top: float) -> list[float]:
        return [top * (1 - math.exp(-epoch / 4)) for epoch in range(1, 17)]

    def pruned(made: Studies, number: int, top: float) -> int | None:
        """The epoch at which a trial is given up, or None."""
        params, _ = made.ask("row", number)
        for epoch in range(1, 17):
            if made.tell(trial(number, params, None, state="running", reports=curve(top)[:epoch])):
                made.tell(trial(number, params, None, state="paused", reports=curve(top)[:epoch]))
                return epoch
        made.tell(trial(number, params, (curve(top)[-1],), reports=curve(top)))
        return None

    made = studies("random", pruner=pruner, pruner_options=options)
    good = [pruned(made, number, 80 + number / 10) for number in range(1, 9)]
    assert good[-1] is None or pruner != "median", "the best so far goes on"
    bad = [pruned(made, number, 10) for number in range(9, 15)]
    assert sum(epoch is not None for epoch in bad) >= 4
    never = studies("random", pruner="none")
    assert [pruned(never, number, top) for number, top in enumerate([80, 80, 10, 1], 1)] == [None] * 4


def test_what_was_reported_before_a_launcher_died_still_prunes() -> None:
    """Optuna's successive halving keeps its rungs beside a trial: they are made anew from the epochs."""
    options: dict[str, Any] = {"min_resource": 1, "reduction_factor": 2}
    made = studies("random", pruner="successive-halving", pruner_options=options)
    asked = [made.ask("row", number) for number in range(1, 6)]
    again = studies("random", pruner="successive-halving", pruner_options=options)
    for number, (params, kept) in enumerate(asked[:4], 1):
        again.add("row", number, params, kept, f"run{number}")
        again.tell(trial(number, params, (80.0,), reports=[60.0, 70.0, 75.0, 80.0]))
    again.add("row", 5, asked[4][0], asked[4][1], "run5")
    assert again.tell(trial(5, asked[4][0], None, state="running", reports=[10.0]))


def test_the_journal_is_one_that_optuna_opens(tmp_path: Path) -> None:
    made = studies("tpe")
    told(made, 3)
    made.show(tmp_path / "optuna.log")
    params, _ = made.ask("row", 4)
    made.tell(trial(4, params, None, state="paused", reports=[50.0, 51.0]))
    made.ask("row", 5)
    study = optuna.load_study(
        study_name="s:row", storage=JournalStorage(JournalFileBackend(str(tmp_path / "optuna.log")))
    )
    assert [each.state.name for each in study.trials] == ["COMPLETE"] * 3 + ["PRUNED", "RUNNING"]
    assert study.trials[3].intermediate_values == {1: 50.0, 2: 51.0}
    assert study.trials[0].user_attrs == {"trial": 1, "run": "run1"}
    assert study.metric_names == ["top1"]
    later = studies("tpe")
    later.show(tmp_path / "optuna.log")
    made.ask("row", 6)  # the earlier launcher still lives: it disturbs nobody
    assert (
        len(
            optuna.load_study(
                study_name="s:row", storage=JournalStorage(JournalFileBackend(str(tmp_path / "optuna.log")))
            ).trials
        )
        == 0
    )


def test_two_objectives() -> None:
    made = studies("tpe", objective=["top1", "throughput"], pruner="median")
    points = [(80.0, 100.0), (90.0, 50.0), (70.0, 90.0), (90.0, 40.0), (60.0, 200.0)]
    for number, values in enumerate(points, 1):
        params, _ = made.ask("row", number)
        assert not made.tell(trial(number, params, None, state="running", reports=[10.0])), "nothing is pruned"
        assert not made.tell(trial(number, params, values))


def test_choices_that_are_no_scalars_come_back_as_they_are() -> None:
    parameter = SPACE["policy"]
    for choice in parameter.choices:
        assert from_optuna(parameter, to_optuna(choice)) == choice
