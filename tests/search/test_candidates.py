"""From configurations to plans: what makes no valid recipe, or no difference, is refused before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from searches import SHORT

from deit_ablate.cli.targets import study
from deit_ablate.errors import InputError
from deit_ablate.search.candidates import Configurations, cells_of
from deit_ablate.store import Store
from deit_ablate.sweep.load import load_sweep


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("search: {trials: 2, space: {augment.repeats: {low: 1, high: 3}}}", 8, "augment.repeats"),
        ("search:\n  trials: 2\n  space:\n    schedule.warmup_epochs: [0, 9]", 11, "warmup_epochs"),
        ("search: {trials: 2, space: {optimizer.name: [adamw, adamwx]}}", 8, "adamwx"),
        ("search: {trials: 2, space: {distill.type: [none, hard]}}", 8, "needs a teacher"),
        (
            "search: {trials: 2, sampler: grid, space: {schedule.epochs: {type: int, low: 5, high: 2000000000}}}",
            8,
            "a grid of",
        ),
        (
            "search: {trials: 2, sampler_options: {n_startup_trials: 1, gamma: 3}, space: {augment.repeats: [1, 2]}}",
            8,
            "Optuna refuses",
        ),
        (
            "search: {trials: 2, sampler_options: {n_startup_trials: abc}, space: {augment.repeats: [1, 2]}}",
            8,
            "Optuna refuses",
        ),
        (
            "search: {trials: 2, space: {optimizer.base_lr: [0.1, 0.2]}}\n"
            "stages: {pre: {}, fin: {from: pre, recipe: {optimizer: {base_lr: 0.01}}}}\n"
            "variants: {a: {pre: {optimizer: {base_lr: 0.05}}}}",
            8,
            "changes nothing",
        ),
        ("search: {trials: 2, sampler_options: {gama: 1}, space: {augment.repeats: [1, 2]}}", 8, "gama"),
        ("search: {trials: 2, pruner_options: {x: 1}, space: {augment.repeats: [1, 2]}}", 8, "x"),
        ("search: {trials: 2, sampler: grid, space: {optimizer.base_lr: {low: 0.1, high: 1}}}", 8, "needs a list"),
        ("  data.validation: 0\nsearch: {trials: 2, space: {augment.repeats: [1, 2]}}", 9, "has none"),
    ],
)
def test_bad_searches_are_refused_at_their_line(
    sweep: Callable[..., Path], tmp_path: Path, text: str, line: int, problem: str
) -> None:
    store = Store(tmp_path / "results")
    path = sweep(text + "\n")
    with pytest.raises(InputError) as refusal:
        found = study(str(path), store)
        search = found.search(found.sweep(store), store)
        assert search
        search.begin()
    assert f"tiny.yaml:{line}:" in str(refusal.value)
    assert problem in str(refusal.value)
    assert not store.root.exists(), "nothing was written"


def test_a_row_may_leave_its_optimizers_rate_to_the_search(sweep: Callable[..., Path]) -> None:
    space = "search: {trials: 2, space: {optimizer.base_lr: {low: 0.01, high: 0.1}, augment.mixup: [0, 1]}}\n"
    made = Configurations(load_sweep(sweep(space + "variants: {adamw: {}, lamb: {optimizer.name: lamb}}\n")))
    adamw, lamb = made.sweep.variants
    made.check([adamw, lamb])
    assert [row.recipe.optimizer.base_lr for row in made.untuned.rows] == [0.032, 0.01]
    (trial,) = made.trial(lamb, {"optimizer.base_lr": 0.05, "augment.mixup": 1}).runs.values()
    assert (trial.recipe["optimizer"]["name"], trial.recipe["optimizer"]["base_lr"]) == ("lamb", 0.05)
    with pytest.raises(InputError, match="'sgd' has no default learning rate"):
        wrong = "search: {trials: 2, space: {augment.mixup: [0, 1]}}\nvariants: {sgd: {optimizer.name: sgd}}\n"
        Configurations(load_sweep(sweep(wrong)))


def test_trials_candidates_and_winners_differ_in_seeds_and_the_test_split(sweep: Callable[..., Path]) -> None:
    made = Configurations(load_sweep(sweep(SHORT)))
    row, params = made.sweep.variants[0], {"optimizer.base_lr": 0.02, "regularize.drop_path": 0.1}
    trial, candidate = made.trial(row, params), made.trial(row, params, made.search.candidate_seeds)
    winner = made.winners([("best", row, params)])
    recipes = {name: list(plan.runs.values()) for name, plan in (("t", trial), ("c", candidate), ("w", winner))}
    assert {name: [run.recipe["seed"] for run in runs] for name, runs in recipes.items()} == {
        "t": [1000],
        "c": [1001, 1002],
        "w": [0, 1],
    }
    for name, runs in recipes.items():
        for run in runs:
            assert run.recipe["data"]["test"] is (name == "w")
            assert (run.recipe["optimizer"]["base_lr"], run.recipe["regularize"]["drop_path"]) == (0.02, 0.1)
    assert [row.name for row in winner.rows] == ["best"]
    assert [(cell.seed, cell.stage) for cell in cells_of(trial, "trial", 7)] == [(7, "trial")]
