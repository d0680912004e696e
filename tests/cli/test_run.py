"""run, retry and train: what they start, refuse and say."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support import DISTILL, TINY, Command, planned, state, wait_for

from deit_ablate.store import Store


def test_a_run_in_other_hands_is_not_trained_in_the_foreground(command: Command, alone: tuple[Store, str]) -> None:
    store, run = alone
    store.claim(run)
    assert "has not ended" in command("train", run, code=75).stderr
    assert len(store.attempts(run)) == 1


def test_a_cancelled_run_and_one_whose_parent_is_to_come_say_so(command: Command, sweep: Callable[..., Path]) -> None:
    path, store = sweep(DISTILL % ("small_convnet", "{}")), Store(command.folder / "results")
    assert "7 recipes" in command("plan", path, "--commands", "json").stderr
    student = next(cell.run for cell in planned(path).cells if cell.stage == "student" and cell.variant == "soft")
    (teacher,) = planned(path).runs[student].above
    assert f"its parent {teacher} has not finished" in command("train", student, code=75).stderr
    store.cancel(teacher)
    assert f"its parent {teacher} is cancelled" in command("train", student, code=1).stderr
    assert f"`deit-ablate retry {teacher}` lifts that" in command("train", teacher, code=1).stderr
    assert not any(store.attempts(run) for run in store.runs())


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_command_alone_saves_the_run(
    command: Command, sweep: Callable[..., Path], store: Store, how: signal.Signals
) -> None:
    path = sweep("seeds: 1\nvariants: {a: {schedule.epochs: 3000}}\n")
    (run,) = planned(path).runs
    command("plan", path, "--commands", "shell")
    process = command.start("train", run)
    wait_for(lambda: store.history(run))
    process.send_signal(how)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 75, out
    assert "saved and stopped (interrupted)" in out
    assert state(store, run).name == "resumable"


def test_a_large_plan_asks_first(command: Command, sweep: Callable[..., Path]) -> None:
    rates = ", ".join(str(i / 1000) for i in range(1, 52))
    sweep(f"seeds: 2\ngrid: {{optimizer.base_lr: [{rates}]}}\n")
    done = command("run", "tiny.yaml", code=2)
    assert "102 runs of unknown cost" in done.stderr
    assert "--yes" in done.stderr
    assert not (command.folder / "results").exists()


def test_seeds_and_looks_are_kept_as_they_were_planned(
    command: Command, sweep: Callable[..., Path], store: Store
) -> None:
    rows = "seeds: 1\nbaseline: a\nvariants: {a: {}, b: {augment: {erasing: 0}}}\n"
    late = "Seeds were added after looking; 5% no longer holds."
    sweep(rows)
    assert late not in command("run", "tiny.yaml").stdout
    sweep("looks: [3, 6, 9, 12]\n" + rows, name="looked")
    assert "look 0 of 4 (0 of 12 seeds)" in command("run", "looked.yaml").stdout, "its runs are those of the other one"
    assert [plan["looks"] for plan in store.sweeps.declared("looked")] == [[3, 6, 9, 12]]
    assert late in command("run", "tiny.yaml", "--seeds", "2").stdout
    assert [plan["seeds"] for plan in store.sweeps.declared("tiny")] == [{"": [0]}, {"": [0, 1]}]
    assert late not in command("run", "looked.yaml", "--seeds", "2").stdout, "the looks had announced them"


def test_one_failing_run_leaves_the_others_going(command: Command, sweep: Callable[..., Path]) -> None:
    sweep('seeds: 2\nvariants:\n  good: {}\n  bad: {model: {name: "mylab:broken_until", options: {file: nowhere}}}\n')
    (command.folder / "empty").mkdir()
    done = command("run", "tiny.yaml", "--data-dir", "empty", code=1)
    assert "good:0: d" in done.stdout
    assert "good:1: d" in done.stdout
    assert "2 of 4 runs are not done" in done.stdout
    assert re.search(r"bad:0 \([0-9a-f]{16}\): failed \(bad-recipe\)", done.stdout)
    assert "boom: not yet" in done.stdout, "the last lines of its log say what is wrong"
    assert "`deit-ablate retry`" in done.stdout
    alone = re.search(r"alone, here: (deit-ablate .+)", done.stdout)
    assert alone
    assert "--data-dir empty" in alone[1], "the same execution"
    assert "boom: not yet" in command(*alone[1].split()[1:], code=1).stdout

    assert command("status", "tiny").stdout.count("failed (bad-recipe)") == 2
    again = command("run", "tiny.yaml", "--data-dir", "empty", code=1)
    assert again.stdout.count("started") == 0, "what failed is not tried again unasked"
    assert command("retry", "tiny:bad:1", "--data-dir", "empty", code=1).stdout.count("started") == 1


def test_a_sweep_of_diverged_runs_ends_well(command: Command, sweep: Callable[..., Path]) -> None:
    sweep("seeds: 1\nvariants: {nan: {model: {name: 'mylab:exploding'}}}\n")
    done = command("run", "tiny.yaml")
    assert "diverged (a result, not a failure): nan:0" in done.stdout
    record = Store(command.folder / "results").outcome(next(iter(Store(command.folder / "results").runs())))
    assert record
    assert record["reason"] == "non-finite loss at step 1"
    assert record["metrics"]["test"] is None


def test_lost_weights_are_refused_before_anything_starts(command: Command, sweep: Callable[..., Path]) -> None:
    path = sweep(DISTILL % ("small_convnet", "{}"))
    command("run", "tiny.yaml", "--only", "soft")
    teacher = next(cell.run for cell in planned(path).cells if cell.stage == "teacher")
    assert "freed" in command("gc", "--keep", "none").stdout
    refused = command("run", "tiny.yaml", code=2)
    assert f"`deit-ablate forget {teacher}` first" in refused.stderr
    named = command("forget", teacher, "--yes").stdout
    assert "2 runs depend on it" in named
    assert "tiny:soft:0:student" in named
    again = command("run", "tiny.yaml").stdout
    assert "*:0:teacher: started" in again
    assert "soft:0:student: started" not in again


def test_json_for_programs(command: Command, sweep: Callable[..., Path]) -> None:
    sweep("seeds: 1\nvariants: {a: {}}\n")
    done = command("run", "tiny.yaml", "--json")
    report = json.loads(done.stdout)
    assert report["started"] == 1
    assert set(report["states"].values()) <= {"done", "diverged"}
    assert "a:0: started" in done.stderr
    plan = json.loads(command("plan", "tiny.yaml", "--json").stdout)
    assert plan["cells"] == [["a", 0, "", next(iter(report["states"]))]]


def test_the_same_stem_from_another_file_is_refused(command: Command, sweep: Callable[..., Path]) -> None:
    path = sweep("seeds: 1\nvariants: {a: {}}\n")
    command("run", "tiny.yaml")
    elsewhere = command.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "tiny.yaml").write_text(path.read_text().replace("a: {}", "b: {augment.mixup: 0}"))
    assert "--name" in command("run", "elsewhere/tiny.yaml", code=2).stderr
    assert "b:0" in command("run", "elsewhere/tiny.yaml", "--name", "second").stdout
    path.unlink()
    assert command("run", "elsewhere/tiny.yaml").returncode == 0, "a file that moved is no other file"


def test_a_row_that_does_nothing_is_refused_unless_it_is_allowed(
    command: Command, sweep: Callable[..., Path], store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sweep("seeds: 1\nbaseline: a\nvariants:\n  a: {}\n  b: {regularize.drop_path: 0.4}\n")  # of a model of one block
    for _ in ("told by a worker", "told before"):
        assert command("run", "tiny.yaml", code=2).stderr == (
            "error: tiny.yaml:13:29: regularize.drop_path: the row 'b' changes nothing: with regularize.drop_path "
            "0.1 → 0.4 it is the training of 'a', bit for bit; expected a value that acts, or --allow-no-effect\n"
        )
        assert not store.root.exists()
    command("run", "tiny.yaml", "--only", "a")
    assert "changes nothing" in command("run", "tiny.yaml", code=2).stderr
    assert "changed nothing" in command("run", "tiny.yaml", "--allow-no-effect", "--seeds", "3").stdout
    assert "nothing to train" in command("run", "tiny.yaml", "--seeds", "3").stdout


def test_a_recipe_in_the_foreground(command: Command, store: Store) -> None:
    (command.folder / "recipe.yaml").write_text(f"{TINY}\nexecution: {{threads: 2}}\n")
    done = command("train", "recipe.yaml", "--set", "seed=3")
    report = json.loads(done.stdout[done.stdout.index("{") :])
    assert report["test"]["images"] == 599
    assert store.outcome(report["run"])["execution"]["threads"] == 2  # type: ignore[index]
    again = command("train", "recipe.yaml", "--set", "seed=3")
    assert "already" in again.stdout
    assert command("logs", report["run"][:8]).stdout in done.stdout


def test_what_a_held_sweep_never_started_is_held_and_not_failed(command: Command, sweep: Callable[..., Path]) -> None:
    sweep('seeds: 6\nvariants: {bad: {model: {name: "mylab:broken_until", options: {file: nowhere}}}}\n')
    done = command("run", "tiny.yaml", "--parallel", "1", code=1)
    assert len(re.findall(r"^bad:\d \([0-9a-f]{16}\): failed \(bad-recipe\)$", done.stdout, re.MULTILINE)) == 4
    assert len(re.findall(r"^bad:\d \([0-9a-f]{16}\): held$", done.stdout, re.MULTILINE)) == 2
    assert "tiny is held: its first 4 runs all ended as bad-recipe" in done.stdout


@pytest.mark.parametrize("how", ["renamed", "removed"])
def test_results_that_are_gone_are_one_line(
    command: Command, sweep: Callable[..., Path], store: Store, how: str
) -> None:
    path = sweep("seeds: 3\nvariants: {a: {schedule.epochs: 3000}}\n")
    runs = list(planned(path).runs)
    launcher = command.start("run", "tiny.yaml", "--parallel", "1")
    wait_for(lambda: any(map(store.history, runs)))
    store.root.rename(command.folder / "gone")
    if how == "removed":
        shutil.rmtree(command.folder / "gone")
    out, _ = launcher.communicate(timeout=120)
    assert launcher.returncode == 1, out
    assert "results/tiny/plan.json is gone: the results folder was removed or renamed while its runs were" in out
    assert "Traceback" not in out
    assert not store.root.exists(), "nothing begins anew in its place"
