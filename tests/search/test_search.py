"""Searches: asked of Optuna, trained like any run, pruned by pausing, confirmed on fresh seeds."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from searches import SHORT
from support import Command, wait_for

from deit_ablate.search import search as searches
from deit_ablate.search.trials import read_trials
from deit_ablate.store import Store


def asks(store: Store, sweep: str = "tiny") -> list[dict[str, Any]]:
    return store.sweeps.trial_requests(sweep)


def attempts(store: Store) -> dict[str, int]:
    return {run: len(store.attempts(run)) for run in store.runs()}


# -- from asking to confirming -----------------------------------------------------------------------------------------


def test_from_asking_to_confirming_and_on(sweep: Callable[..., Path], store: Store, run_search: Any) -> None:
    path = sweep(SHORT + "baseline: a\nvariants: {a: {}, b: {augment.repeats: 1}}\n")
    run_search(path)
    first = asks(store)
    assert [ask["row"] for ask in first] == ["a", "b", "a", "b", "a", "b", "a", "b"], "equal budgets, taken in turns"
    for ask in first:
        outcome = store.outcome(ask["run"])
        assert outcome
        assert outcome["metrics"]["test"] is None, "a trial leaves the test split alone"
        assert outcome["metrics"]["validation"]["top1"] > 0
        recipe = (store.recipe(ask["run"]) or {})["recipe"]
        assert recipe["optimizer"]["base_lr"] == ask["params"]["optimizer.base_lr"]
        assert recipe["seed"] == 1000
    assert not [cell for cell in (store.sweeps.plan("tiny") or {})["cells"] if not cell[2]], "no row has been confirmed"

    once = attempts(store)
    run_search(path)
    assert attempts(store) == once, "the same command again trains nothing"

    run_search(path, confirm=True)
    plan = store.sweeps.plan("tiny") or {}
    final = [cell for cell in plan["cells"] if cell[2] == ""]
    assert [(row, seed) for row, seed, *_ in final] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    trials = {trial.number: trial for trial in read_trials(store, plan)}
    for row in ("a", "b"):
        own = sorted(
            (t for t in trials.values() if t.row == row and t.values),
            key=lambda t: (t.values[0], -t.number),
            reverse=True,
        )
        candidates = [t.number for t in own[:2]]
        assert set(candidates) <= {int(number) for number in plan["search"]["candidates"]}
        fresh = {
            number: sum(
                store.outcome(run)["metrics"]["validation"]["top1"] for run in plan["search"]["candidates"][str(number)]
            )  # type: ignore[index]
            for number in candidates
        }
        assert fresh[plan["search"]["winners"][row]] == max(fresh.values()), (
            "the best by fresh seeds, not by the search"
        )
    for _, seed, _, run in final:
        outcome, recipe = store.outcome(run), (store.recipe(run) or {})["recipe"]
        assert outcome
        assert outcome["metrics"]["test"]["images"] == 599
        assert recipe["seed"] == seed
        assert recipe["data"]["test"] is True

    once = attempts(store)
    run_search(path)
    assert attempts(store) == once
    assert [cell for cell in (store.sweeps.plan("tiny") or {})["cells"] if cell[2] == ""] == final, "still confirmed"

    run_search(path, trials=5)
    assert len(asks(store)) == 10
    assert asks(store)[:8] == first


def test_stages_keep_their_teacher_and_train_with_each_trial(
    sweep: Callable[..., Path], store: Store, run_search: Any
) -> None:
    path = sweep(
        "  distill: {type: soft}\n"
        "stages: {teacher: {recipe: {model: {name: small_convnet, options: {width: 8}}}, seeds: [0]}, "
        "student: {teacher: teacher}}\n"
        "seeds: 1\n"
        "search: {trials: 2, pruner: none, candidates: 1, candidate_seeds: 1, space: {distill.tau: [1, 3, 10]}}\n"
    )
    run_search(path, confirm=True)
    cells = (store.sweeps.plan("tiny") or {})["cells"]
    assert len({run for *_, stage, run in cells if stage == "teacher"}) == 1, "one teacher, also of the winner"
    assert {stage for *_, stage, _ in cells} >= {"teacher", "trial-student", "student"}
    teacher = next(run for *_, stage, run in cells if stage == "teacher")
    assert (store.outcome(teacher) or {})["metrics"]["test"], "the teacher is the run that other sweeps share"
    student = next(run for *_, stage, run in cells if stage == "trial-student")
    assert (store.recipe(student) or {})["parents"]["teacher"]["run"] == teacher


def test_two_objectives_make_a_front_and_all_of_it_is_confirmed(
    sweep: Callable[..., Path], store: Store, run_search: Any
) -> None:
    path = sweep(
        "seeds: 1\nsearch: {trials: 3, sampler: grid, pruner: none, objective: [top1, parameters], "
        "space: {model.options.embed_dim: [8, 16, 24]}}\n"
    )
    run_search(path, confirm=True)
    plan = store.sweeps.plan("tiny") or {}
    trials = read_trials(store, plan)
    assert sorted(trial.params["model.options.embed_dim"] for trial in trials) == [8, 16, 24]
    front = set(plan["search"]["winners"].values())
    for trial in trials:
        assert trial.values
        beaten = any(
            o.values[0] >= trial.values[0] and o.values[1] <= trial.values[1] and o.values != trial.values
            for o in trials
            if o.values
        )
        assert (trial.number in front) == (not beaten)
    assert plan["search"]["candidates"] == {}, "nothing is chosen, so nothing is screened"


# -- pruning -----------------------------------------------------------------------------------------------------------


def test_a_pruned_trial_is_paused_keeps_its_weights_and_can_go_on(
    sweep: Callable[..., Path], store: Store, run_search: Any, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searches, "LOOK_SECONDS", 0.05)
    path = sweep(
        "search: {trials: 5, sampler: grid, sampler_options: {seed: 12}, "
        "pruner_options: {n_startup_trials: 2, n_warmup_steps: 2}, "
        "space: {optimizer.base_lr: [0.1, 0.05, 1.0e-6, 2.0e-6, 3.0e-6]}}\n"
    )
    path.write_text(path.read_text().replace("epochs: 3,", "epochs: 60,"))
    search, report = run_search(path, slots=1)
    states = {ask["number"]: report.states[ask["run"]].name for ask in asks(store)}
    assert "paused" in states.values()
    assert not report.failed()
    pruned = next(ask for ask in asks(store) if states[ask["number"]] == "paused")
    assert pruned["params"]["optimizer.base_lr"] < 1e-5
    assert search.trials[pruned["number"]].outcome == "pruned"
    epochs = len(store.history(pruned["run"]))
    assert 2 < epochs < 60
    assert store.attempts(pruned["run"])[-1].checkpoint.exists()
    once = attempts(store)
    run_search(path, slots=1)
    assert attempts(store) == once, "what is paused stays so unless it is asked for"
    assert f"{pruned['run']}  paused" in command("status", "tiny").stdout
    command("train", pruned["run"])
    outcome = store.outcome(pruned["run"])
    assert outcome
    assert outcome["attempt"] == 2
    assert len(store.history(pruned["run"])) == 60, "it went on where it was"


def test_the_same_configuration_costs_nothing_twice(sweep: Callable[..., Path], store: Store, run_search: Any) -> None:
    path = sweep("search: {trials: 6, sampler: random, pruner: none, space: {augment.repeats: [1, 2]}}\n")
    _, report = run_search(path)
    assert len(asks(store)) == 6
    assert len({ask["run"] for ask in asks(store)}) == 2
    assert len(report.started) == 2


# -- launchers that die ------------------------------------------------------------------------------------------------


def test_one_at_a_time_a_search_is_a_function_of_its_records(
    sweep: Callable[..., Path], store: Store, run_search: Any, tmp_path: Path
) -> None:
    path = sweep(SHORT.replace("trials: 4", "trials: 6, sampler_options: {n_startup_trials: 2}"))
    for _ in range(20):  # a launcher that is stopped again and again, some epochs further each time

        def epochs() -> int:
            return sum(len(store.history(run)) for run in store.runs())

        enough = epochs() + 4 if store.root.exists() else 4
        run_search(path, slots=1, stop=lambda enough=enough: store.root.exists() and epochs() >= enough)
        if len(asks(store)) == 6 and all(store.outcome(ask["run"]) for ask in asks(store)):
            break
    interrupted = [ask["params"] for ask in asks(store)]
    os.rename(store.root, tmp_path / "before")
    run_search(path, slots=1)
    assert [ask["params"] for ask in asks(store)] == interrupted


@pytest.mark.parametrize("instants", [2, pytest.param(10, marks=pytest.mark.storm)])
def test_a_search_killed_at_random_instants_loses_and_doubles_nothing(
    sweep: Callable[..., Path], command: Command, store: Store, instants: int
) -> None:
    trials = 6 + 4 * instants
    sweep("  precision: fp32\n" + SHORT.replace("trials: 4", f"trials: {trials}").replace("pruner: none, ", ""))
    draw, killed = random.Random(instants), 0
    while killed < instants:
        count = len(store.runs()) if store.root.exists() else 0
        launcher = command.start("run", "tiny.yaml", "--parallel", "2", "--confirm")
        wait_for(lambda count=count, launcher=launcher: len(store.runs()) > count or launcher.poll() is not None)
        if launcher.poll() is not None:
            break
        try:
            launcher.wait(draw.uniform(0, 0.7))
        except Exception:
            launcher.send_signal(signal.SIGKILL)
            launcher.wait()
            killed += 1
    assert killed == instants, "it was over before it could be killed"
    command("run", "tiny.yaml", "--parallel", "2", "--confirm")
    asked = asks(store)
    assert [ask["number"] for ask in asked] == list(range(1, trials + 1))
    plan = store.sweeps.plan("tiny") or {}
    trials = read_trials(store, plan)
    assert [trial.number for trial in trials] == [ask["number"] for ask in asked]
    assert all(trial.outcome in ("complete", "pruned") for trial in trials)
    for run in store.runs():
        epochs = [line["epoch"] for line in store.history(run)]
        assert epochs == list(range(len(epochs))), "each epoch once"
    study = load_study(store, "tiny:tuned")
    ended = {
        trial.user_attrs["trial"]: trial
        for trial in study.trials
        if trial.state.is_finished() and "run" in trial.user_attrs
    }
    assert {n: trial.value for n, trial in ended.items() if trial.state.name == "COMPLETE"} == {
        trial.number: trial.values[0] for trial in trials if trial.values
    }
    assert "nothing to train" in command("run", "tiny.yaml").stdout


def load_study(store: Store, name: str) -> optuna.Study:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = store.sweeps.folder(name.partition(":")[0]) / "optuna.log"
    return optuna.load_study(study_name=name, storage=JournalStorage(JournalFileBackend(str(path))))


def test_a_search_whose_trials_are_all_done_already_asks_for_every_one_of_them(
    sweep: Callable[..., Path], store: Store, run_search: Any
) -> None:
    space = "space: {optimizer.base_lr: [0.01, 0.1], augment.mixup: [0, 0.1]}"
    search = (
        f"seeds: 1\nsearch: {{trials: 10, sampler: grid, pruner: none, candidates: 1, candidate_seeds: 1, {space}}}\n"
    )
    path = sweep(search)
    run_search(path)
    other = path.with_name("other.yaml")
    other.write_text(path.read_text())
    _, report = run_search(other, slots=1)
    assert len(report.started) == 0, "the same runs, trained by another sweep"
    assert len(asks(store, "other")) == 4, "and one launch has asked for the whole grid"


def test_a_grid_with_two_points_that_are_one_training_comes_to_its_end(
    sweep: Callable[..., Path], store: Store, run_search: Any
) -> None:
    space = "space: {regularize.label_smoothing: [0, 0.1], regularize.smoothing_over: [all, others]}"
    path = sweep(f"search: {{trials: 20, sampler: grid, pruner: none, {space}}}\n")
    search, report = run_search(path)
    assert not search.to_ask
    assert (len(asks(store)), len(report.started)) == (4, 3), "without smoothing it is over nothing"


def test_two_launchers_share_one_search(sweep: Callable[..., Path], command: Command, store: Store) -> None:
    sweep("  precision: fp32\n" + SHORT.replace("trials: 4", "trials: 8"))
    launchers = [command.start("run", "tiny.yaml", "--parallel", "1", to_kill=False) for _ in range(2)]
    for launcher in launchers:
        out, _ = launcher.communicate(timeout=120)
        assert launcher.returncode == 0, out
    assert [ask["number"] for ask in asks(store)] == list(range(1, 9))
    assert all(len(store.attempts(ask["run"])) == 1 for ask in asks(store)), "each trial was trained once"


# -- the file -------------------------------------------------------------------------------------------------------


def test_a_changed_file_ignores_what_is_another_trial_now(
    sweep: Callable[..., Path], store: Store, run_search: Any
) -> None:
    path = sweep(SHORT)
    run_search(path)
    path.write_text(path.read_text() + "variants: {tuned: {}, other: {augment.repeats: 1}}\n")
    search, report = run_search(path)
    assert search.ignored == 0
    assert [ask["row"] for ask in asks(store)] == ["tuned"] * 4 + ["other"] * 4, "a row more: only its own trials"
    path.write_text(path.read_text().replace("embed_dim: 16", "embed_dim: 8"))
    search, report = run_search(path)
    assert search.ignored == 8
    assert len(asks(store)) == 16
    assert len(report.started) == 8


def test_the_command_refuses_what_belongs_to_searches(sweep: Callable[..., Path], command: Command) -> None:
    sweep("variants: {a: {}}\n")
    assert "no search" in command("run", "tiny.yaml", "--confirm", code=2).stderr
    assert "no search" in command("run", "tiny.yaml", "--trials", "3", code=2).stderr
    assert not (command.folder / "results").exists()


def test_json_and_interruption_know_searches(sweep: Callable[..., Path], command: Command, store: Store) -> None:
    sweep(SHORT)
    said = json.loads(command("run", "tiny.yaml", "--json", "--parallel", "2").stdout)
    assert set(said["states"].values()) == {"done"}
    assert said["started"] == 4


def test_a_cancelled_search_asks_for_nothing_until_it_is_lifted(
    sweep: Callable[..., Path], store: Store, run_search: Any, command: Command
) -> None:
    path = sweep(SHORT)
    polls = iter(range(100))
    run_search(path, slots=1, stop=lambda: next(polls) >= 3)
    asked = len(asks(store))
    assert 0 < asked < 4
    command("cancel", "tiny")
    assert "asks for no more trials" in command("run", "tiny.yaml", code=None).stdout
    assert len(asks(store)) == asked
    command("retry", "tiny")
    run_search(path)
    assert len(asks(store)) == 4
    assert all(store.outcome(ask["run"]) for ask in asks(store))


def test_rows_may_differ_in_their_spaces_alone(sweep: Callable[..., Path], store: Store, run_search: Any) -> None:
    path = sweep(
        "seeds: 1\nsearch: {trials: 1, pruner: none, candidate_seeds: 1, spaces: {"
        "narrow: {augment.repeats: [1, 2]}, wide: {augment.repeats: [1, 2]}}}\nvariants: {narrow: {}, wide: {}}\n"
    )
    run_search(path, confirm=True)
    assert len(asks(store)) == 2
    assert set((store.sweeps.plan("tiny") or {})["search"]["winners"]) == {"narrow", "wide"}


def test_a_kept_search_comes_back_whole_and_goes_on(
    sweep: Callable[..., Path], store: Store, run_search: Any, tmp_path: Path
) -> None:
    from deit_ablate.store.archive import import_records, keep

    path = sweep(SHORT)
    run_search(path)
    paused = asks(store)[0]["run"]
    (store.run(paused) / "outcome.json").unlink()
    last = store.attempts(paused)[-1]
    (last.path / "exit.json").write_text(json.dumps({"class": "paused"}))
    assert keep(store, "tiny", tmp_path / "kept") == 4
    other = Store(tmp_path / "other")
    assert import_records(tmp_path / "kept", other) == (4, 0, 0)
    for each in (store, other):
        trials = read_trials(each, each.sweeps.plan("tiny") or {})
        assert [trial.outcome for trial in trials] == ["pruned", "complete", "complete", "complete"]
    assert other.sweeps.trial_requests("tiny") == asks(store)
    copied = Store(tmp_path / "copied")
    assert import_records(store.root, copied) == (4, 0, 0)
    assert copied.attempts(paused)[-1].checkpoint.exists()


def test_a_name_and_its_rate_are_drawn_together(sweep: Callable[..., Path], store: Store, run_search: Any) -> None:
    path = sweep(
        "  optimizer: {name: sgd, base_lr: 1.6, options: {momentum: 0.9}}\nsearch: {trials: 5, sampler: random, "
        "pruner: none, space: {optimizer.base_lr: {low: 0.01, high: 0.3}, optimizer.name: [sgd, adamw, lamb]}}\n"
    )
    run_search(path)
    assert len({ask["params"]["optimizer.name"] for ask in asks(store)}) > 1
    for ask in asks(store):
        optimizer = (store.recipe(ask["run"]) or {})["recipe"]["optimizer"]
        assert optimizer["name"] == ask["params"]["optimizer.name"]
        assert optimizer["base_lr"] == ask["params"]["optimizer.base_lr"]


def test_a_narrower_space_ignores_what_lies_outside(sweep: Callable[..., Path], store: Store, run_search: Any) -> None:
    text = "search: {trials: 3, sampler: grid, pruner: none, space: {augment.repeats: CHOICES}}\n"
    run_search(sweep(text.replace("CHOICES", "[1, 2, 3]")))
    search, report = run_search(sweep(text.replace("CHOICES", "[2, 3, 4]")))
    assert search.ignored == 1
    assert len(report.started) == 1, "two of the three had been trained"


def test_values_that_do_not_go_together_are_skipped_and_remembered(
    sweep: Callable[..., Path], store: Store, run_search: Any, tmp_path: Path
) -> None:
    space = "space: {schedule.epochs: [2, 4], schedule.warmup_epochs: [0.5, 2.9]}}\n"
    path = sweep(
        "search: {trials: 9, sampler: grid, pruner: none, candidates: 1, candidate_seeds: 1, " + space + "seeds: 1\n"
    )
    search, _ = run_search(path, confirm=True)
    assert len(search.requests) == 3
    assert len(search.invalid) == 1
    assert (store.sweeps.plan("tiny") or {})["search"]["winners"], "the grid has come to its end"

    path.write_text(path.read_text().replace("[2, 4]", "[2, 4, 6]"))
    search, _ = run_search(path, confirm=True)
    assert (len(search.requests), len(search.invalid)) == (5, 1), "a point that is invalid still counts once"

    other = "search: {trials: 5, sampler: random, pruner: none, " + space
    os.rename(store.root, tmp_path / "grid")
    for trials in range(1, 6):
        run_search(sweep(other), slots=1, trials=trials)
    by_turns = [(ask["params"], ask["run"]) for ask in asks(store)]
    os.rename(store.root, tmp_path / "turns")
    run_search(sweep(other), slots=1)
    assert [(ask["params"], ask["run"]) for ask in asks(store)] == by_turns


def test_only_restricts_what_is_asked_for_and_keeps_what_there_is(
    sweep: Callable[..., Path], store: Store, run_search: Any
) -> None:
    path = sweep(SHORT + "baseline: a\nvariants: {a: {}, b: {augment.repeats: 1}}\n")
    run_search(path, confirm=True, trials=2)
    winners = (store.sweeps.plan("tiny") or {})["search"]["winners"]
    assert set(winners) == {"a", "b"}
    search, _ = run_search(path, only=["b"], trials=3)
    assert [len(search.of_row(row)) for row in ("a", "b")] == [2, 3]
    after = (store.sweeps.plan("tiny") or {})["search"]
    assert after["winners"]["a"] == winners["a"]
    assert after["budget"] == {"a": 2, "b": 3}


def test_out_of_time_it_confirms_what_there_is(
    sweep: Callable[..., Path], store: Store, run_search: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sweep(SHORT.replace("trials: 4", "trials: 50, timeout: 0.03"))
    search, _ = run_search(path, confirm=True)
    assert search.late
    assert 0 < len(asks(store)) < 50
    assert search.to_ask == 50 - len(asks(store))
    assert (store.sweeps.plan("tiny") or {})["search"]["winners"]


def test_a_row_without_a_winner_is_named(
    sweep: Callable[..., Path], store: Store, run_search: Any, command: Command
) -> None:
    from deit_ablate.report.summary import summarize
    from deit_ablate.report.tables.search import search_table
    from deit_ablate.report.tables.table import sweep_table

    path = sweep(
        "search: {trials: 2, pruner: none, candidates: 1, candidate_seeds: 1, "
        "space: {regularize.drop_path: [0, 0.1]}}\n"
        "seeds: 1\nvariants: {a: {}, b: {optimizer.base_lr: 1.0e+25}}\n"
    )
    run_search(path, confirm=True)
    assert set((store.sweeps.plan("tiny") or {})["search"]["winners"]) == {"a"}
    lost = "Without a row here, for their searches found no winner: b."
    assert lost in sweep_table(summarize(store, "tiny")).footnotes
    notes = search_table(summarize(store, "tiny")).footnotes
    assert any(note.startswith("b: no winner, for no trial has a value (2 diverged)") for note in notes)
    assert any("fresh seeds by which it was chosen" in note for note in notes if note.startswith("a, trial"))
    assert any("on the validation part (120 images)" in note for note in notes)
    assert "has no winner" in command("explain", "tiny:b", code=2).stderr
    assert "no trial of 'b' has a value" in command("search", "export", "tiny:b", code=2).stderr

    path.write_text(path.read_text().replace("[0, 0.1]", "[0.2, 0.3]"))
    search, _ = run_search(path)
    assert search.ignored == 4
    assert any(note.startswith("Not counted: 4 trials") for note in search_table(summarize(store, "tiny")).footnotes)


def test_a_grid_with_steps_stays_within_its_range(sweep: Callable[..., Path], store: Store, run_search: Any) -> None:
    path = sweep(
        "search: {trials: 9, sampler: grid, pruner: none, "
        "space: {regularize.drop_path: {low: 0.1, high: 0.3, step: 0.1}}}\n"
    )
    search, _ = run_search(path)
    assert sorted(ask["params"]["regularize.drop_path"] for ask in asks(store)) == [0.1, 0.2, 0.3]
    assert search.plan().search
