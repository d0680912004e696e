"""What a budget buys, before anything is run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Command, planned

from deit_ablate.launch.cost import Costs
from deit_ablate.launch.jobs import Report
from deit_ablate.report.proposals import leave_out, propose, scatter
from deit_ablate.store import Store

ROWS = """
seeds: 2
baseline: a
variants: {a: {}, b: {augment.erasing: 0}, c: {schedule.epochs: 4}, d: {augment.mixup: 0}}
"""


def test_seeds_and_rows_by_what_runs_take(
    launch: Callable[..., Report], sweep: Callable[..., Path], store: Store
) -> None:
    path = sweep(ROWS)
    launch(path)
    for run in store.runs():  # 100 seconds, and 200 for twice the epochs
        file = store.run(run) / "outcome.json"
        outcome, recipe = json.loads(file.read_text()), store.recipe(run)
        assert recipe
        outcome["cost"]["wall_seconds_all_attempts"] = 50.0 * recipe["recipe"]["schedule"]["epochs"]
        file.write_text(json.dumps(outcome))
    plan = planned(path, seeds=20)
    costs = Costs(store, plan.runs)
    three = propose(plan, costs, {}, 3)
    assert (three.rows, three.seeds, three.baseline, three.runs) == (3, 3, 6, 15)
    assert three.seconds == pytest.approx(6 * 100 + 2 * 3 * 100 + 3 * 200)
    assert three.finds == pytest.approx(3.0, abs=0.3)
    assert three.fits(1800)
    assert not three.fits(1799)
    assert propose(plan, costs, {}, 20).finds < 1

    dropped, left = leave_out(plan, costs, {}, 1200)
    assert dropped == ["c"], "the costliest row"
    assert (left.rows, left.baseline, left.seconds) == (2, 5, pytest.approx(1100))
    dropped, left = leave_out(plan, costs, {}, 700)
    assert (dropped, left.rows, left.seconds) == (["c", "d"], 1, pytest.approx(600))
    assert leave_out(plan, costs, {}, 500)[0] == ["c", "d", "b"]
    assert scatter(plan, store) == pytest.approx(scatter(planned(path), store))
    by_loss = planned(sweep("metric: loss\n" + ROWS, name="by_loss"))
    assert scatter(by_loss, store) not in (None, pytest.approx(scatter(plan, store)))


def test_a_plan_with_a_budget(command: Command, sweep: Callable[..., Path]) -> None:
    sweep(ROWS)
    text = command("plan", "tiny.yaml", "--budget", "200h").stdout
    assert "measured: " in text
    assert "within the budget: 50 seeds or more, 87 of the baseline: `--seeds 50`" in text
    assert "sd: of one row from seed to seed" in text
    assert "too much" not in text
    none = command("plan", "tiny.yaml", "--budget", "0.001s").stdout
    assert "not even one row fits" in none
    assert not (command.folder / "results").exists(), "a plan writes nothing"
    assert "--budget: got '200'" in command("plan", "tiny.yaml", "--budget", "200", code=2).stderr
    sweep("variants: {a: {}}\n", name="alone")
    assert "no row is compared" in command("plan", "alone.yaml", "--budget", "1h", code=2).stderr


def test_a_factorial_has_equal_seeds(command: Command, sweep: Callable[..., Path]) -> None:
    sweep("factorial: {no erasing: {augment.erasing: 0}, no mixup: {augment.mixup: 0}}", name="both")
    for arguments in (["run", "both.yaml", "--until-decided"], ["run", "both.yaml", "--budget", "1h"]):
        assert "looks at a factorial" in command(*arguments, code=2).stderr
    assert "a budget buys seeds of single rows" in command("plan", "both.yaml", "--budget", "1h", code=2).stderr
    assert not (command.folder / "results").exists()


def test_a_study_is_told_of_the_way_that_it_has_declared(command: Command, sweep: Callable[..., Path]) -> None:
    sweep("looks: [3, 6]\n" + ROWS.replace("seeds: 2", "seeds: 6"))
    assert "`--seeds" not in command("plan", "tiny.yaml", "--budget", "200h").stdout, "looks say how many there are"
    sweep("seeds: 2\nbaseline: a\nvariants: {a: {}, b: {augment.erasing: 0}}", name="fixed")
    assert "`--until-decided`" in command("plan", "fixed.yaml", "--budget", "200h").stdout
    command("run", "fixed.yaml")
    after = command("plan", "fixed.yaml", "--budget", "200h").stdout
    assert "`--seeds 50`" in after
    assert "`--until-decided`" not in after, "looks may not be added after looking"
