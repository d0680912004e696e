"""A sweep's whole life, as its user sees it: by the real command, in real processes, on real files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support import TINY, Command, planned, wait_for

from deit_ablate.cli.inspect import _states
from deit_ablate.execution import Execution
from deit_ablate.launch.jobs import Report
from deit_ablate.launch.policy import refuse_lost_weights
from deit_ablate.launch.pool import ProcessPool
from deit_ablate.store import Store


def test_from_plan_to_table_and_on(command: Command, sweep: Callable[..., Path]) -> None:
    path = sweep(
        "title: Two optimizers\nseeds: 2\nbaseline: adamw\nvariants:\n  adamw: {}\n  lamb: {optimizer: {name: lamb, base_lr: 0.3}}\n"
    )
    store = Store(command.folder / "results")

    shown = command("plan", "tiny.yaml").stdout
    assert "lamb: optimizer.name adamw -> lamb; optimizer.base_lr" in shown
    assert "4 runs: 4 missing" in shown
    assert "machine time unknown" in shown
    assert not store.root.exists(), "planning writes nothing"

    first = command("run", "tiny.yaml").stdout
    assert first.count(": started") == 4
    folder = store.sweeps.folder("tiny")
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == {
        "plan.json",
        "seeds/1.json",
        "table.md",
        "table.csv",
        "table.tex",
        "table.html",
        "figures/effects.png",
        "figures/top1.png",
        "figures/curves.png",
    }
    assert (folder / "table.md").read_text() in first
    assert re.search(r"\| adamw.*\| +\d|\| adamw.*did not train", first)

    again = command("run", "tiny.yaml").stdout
    assert "all 4 runs are done" in again
    assert "started" not in again
    assert (folder / "table.md").read_text() in again

    path.write_text(path.read_text().replace("seeds: 2", "seeds: 3") + "  no mixup: {augment.mixup: 0}\n")
    estimate = command("plan", "tiny.yaml").stdout
    assert "to do: 5 runs" in estimate
    assert "machine time unknown" not in estimate, "runs like them have finished"
    more = command("run", "tiny.yaml").stdout
    assert sorted(re.findall(r"^(.+): started", more, re.M)) == [
        "adamw:2",
        "lamb:2",
        "no mixup:0",
        "no mixup:1",
        "no mixup:2",
    ]
    assert [plan["seeds"] for plan in store.sweeps.planned_seeds("tiny")] == [{"": [0, 1]}, {"": [0, 1, 2]}]

    table = (folder / "table.md").read_text()
    fewer = command("run", "tiny.yaml", "--seeds", "1", "--only", "adamw").stdout
    assert "started" not in fewer
    assert table in fewer, "fewer seeds are trained, none is hidden"

    sweep("seeds: 2\nvariants: {shared: {optimizer: {base_lr: 0.3, name: lamb}}}\n", name="other")
    assert "all 2 runs are done" in command("run", "other.yaml").stdout, "a row that another sweep trained"

    forgotten = command("forget", "tiny:adamw:1", "--yes").stdout
    assert "forgotten" in forgotten
    assert "adamw:1" in command("run", "tiny").stdout, "a sweep may be named as its folder is"

    assert "9 done" in command("status").stdout or "diverged" in command("status").stdout
    assert "tiny:lamb:0" in command("show", "tiny:lamb:0").stdout
    assert "optimizer.name" in command("diff", "tiny:lamb:0", "tiny:adamw:0").stdout
    assert "test top-1" in command("logs", "tiny:lamb:0").stdout
    assert command("table", "tiny", "--format", "csv").stdout == (folder / "table.csv").read_text()
    assert command("figure", "tiny").stdout.count(".png") == 3


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


DISTILL = """
seeds: 2
stages:
  teacher: {recipe: {model: {name: %s, options: %s}}, seeds: [0]}
  student: {teacher: teacher}
variants:
  none: {}
  soft: {distill.type: soft}
  token: {distill.type: hard-token}
"""


def test_students_wait_for_one_teacher(launch: Callable[..., Report], store: Store, sweep: Callable[..., Path]) -> None:
    path = sweep(DISTILL % ("small_convnet", "{}"))
    report = launch(path)
    assert len(report.started) == 1 + 3 * 2
    plan = planned(path)
    teacher = next(cell.run for cell in plan.cells if cell.stage == "teacher")
    ended = store.outcome(teacher)
    assert ended
    for cell in plan.cells:
        outcome = store.outcome(cell.run)
        assert outcome, cell
        if cell.stage == "student" and cell.variant != "none":
            assert store.attempts(cell.run)[0].owner["time"] >= ended["time"]
        heads = {"top1_distillation", "top1_fused_softmax"} & set(outcome["metrics"]["test"])
        assert bool(heads) == (cell.variant == "token" and cell.stage == "student")


def test_a_failed_teacher_blocks_its_students_until_it_is_retried(
    launch: Callable[..., Report], store: Store, sweep: Callable[..., Path], tmp_path: Path
) -> None:
    path = sweep(DISTILL % ("'mylab:broken_until'", f"{{file: '{tmp_path / 'ready'}'}}"))
    plan = planned(path)
    teacher = next(cell.run for cell in plan.cells if cell.stage == "teacher")
    report = launch(path)
    assert {run: state.name for run, state in _states(store, "tiny").items()} == {
        run: state.name for run, state in report.states.items()
    }, "status says the same"
    names = {(cell.variant, cell.stage): report.states[cell.run] for cell in plan.cells}
    assert names["none", "student"].finished
    assert str(names["soft", "teacher"]).startswith("failed (")
    assert names["soft", "student"].name == names["token", "student"].name == "blocked"
    assert names["soft", "student"].detail == teacher
    (tmp_path / "ready").touch()
    report = launch(path, retry=frozenset({teacher}))
    assert all(state.finished for state in report.states.values())
    assert len(report.started) == 1 + 4


def test_a_teacher_without_finite_weights_blocks_and_is_no_lost_file(
    launch: Callable[..., Report], store: Store, sweep: Callable[..., Path]
) -> None:
    path = sweep(DISTILL % ("'mylab:exploding'", "{}"))
    report = launch(path)
    states = {(cell.variant, cell.stage): report.states[cell.run] for cell in planned(path).cells}
    assert states["soft", "teacher"].name == "diverged"
    assert states["soft", "student"].name == "blocked"
    again = launch(path, retry=frozenset(run for run, state in report.states.items() if state.name == "blocked"))
    assert not again.started
    assert not again.problems
    refuse_lost_weights(planned(path).runs, {}, again.states, store)


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


def test_cancel_retry_and_a_removed_row(command: Command, sweep: Callable[..., Path]) -> None:
    path = sweep("seeds: 1\nvariants:\n  quick: {}\n  slow: {schedule.epochs: 5000}\n")
    store = Store(command.folder / "results")
    running = command.start("run", "tiny.yaml")
    slow = next(cell.run for cell in planned(path).cells if cell.variant == "slow")
    wait_for(lambda: store.history(slow))
    assert "cancelled" in command("cancel", "tiny:slow").stdout
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 1, out
    assert store.attempts(slow)[-1].exit["class"] == "cancelled"  # type: ignore[index]
    assert "cancelled" in command("status", "tiny").stdout
    assert command("run", "tiny.yaml", code=1).stdout.count("started") == 0
    path.write_text(path.read_text().replace("  slow:", "  other: {augment.mixup: 0}\n  # slow:"))
    assert "all 2 runs" not in command("run", "tiny.yaml").stdout
    assert (store.run(slow) / "recipe.json").exists(), "a removed row's run stays"
    assert command("status", "tiny").stdout.count("slow") == 0


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


def test_a_recipe_in_the_foreground(command: Command) -> None:
    (command.folder / "recipe.yaml").write_text(TINY.replace("\nrecipe:", "").replace("\n  ", "\n"))
    done = command("train", "recipe.yaml", "--set", "seed=3")
    report = json.loads(done.stdout[done.stdout.index("{") :])
    assert report["test"]["images"] == 599
    again = command("train", "recipe.yaml", "--set", "seed=3")
    assert "already" in again.stdout
    assert command("logs", report["run"][:8]).stdout in done.stdout


def test_slots_are_one_a_gpu_or_one_for_each_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    assert ProcessPool(Execution()).slots == 3
    assert ProcessPool(Execution(parallel=1)).slots == 1
    assert ProcessPool(Execution(device="cpu")).slots == len(os.sched_getaffinity(0))
    assert ProcessPool(Execution(device="cpu", threads=1000)).slots == 1
