"""Launchers on this machine: who waits for whom, who is blocked, and who is killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from studies import end
from support import DISTILL, INTERRUPTED, Command, planned, result, wait_for, worker_pid

from deit_ablate.cli.targets import states_of
from deit_ablate.launch import pool as pool_module
from deit_ablate.launch.jobs import Report
from deit_ablate.launch.policy import refuse_lost_weights
from deit_ablate.store import Store


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


def test_the_longest_run_starts_first(launch: Callable[..., Report], store: Store, sweep: Callable[..., Path]) -> None:
    """By what runs like them took; equal ones in the order of the file."""
    rows = "variants: {short: {schedule.epochs: 1}, long: {schedule.epochs: 4}, middle: {}}\n"
    earlier = planned(sweep(f"seeds: 1\n{rows}"))
    seconds = {"short:0": 10.0, "long:0": 100.0, "middle:0": 50.0}
    for run, name in earlier.labels().items():
        took = {"top1": 50.0, "cost": {"wall_seconds": seconds[name]}}
        end(store, run, earlier.runs[run].recipe, {}, took)
    path = sweep(f"seeds: 3\n{rows}")
    names = planned(path).labels()
    started = [names[run] for run in launch(path).started]
    assert started == ["long:1", "long:2", "middle:1", "middle:2", "short:1", "short:2"]


def test_a_run_that_needs_the_whole_machine_has_its_turn_and_runs_alone(
    launch: Callable[..., Report], store: Store, sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of what they cost: the second one waits for both cores, and those behind it wait with it."""
    monkeypatch.setattr(pool_module, "usable_cores", lambda: 2)
    rows = "variants: {first: {schedule.epochs: 4}, big: {schedule.epochs: 3}, small: {}, last: {augment.mixup: 0}}\n"
    earlier = planned(sweep(f"seeds: 1\n{rows}"))
    seconds = {"first:0": 100.0, "big:0": 50.0, "small:0": 10.0, "last:0": 10.0}
    for run, name in earlier.labels().items():
        end(store, run, earlier.runs[run].recipe, {}, {"top1": 50.0, "cost": {"wall_seconds": seconds[name]}})
    path = sweep(f"seeds: [1]\nresources: {{big: {{threads: 2}}}}\n{rows}")
    names = planned(path).labels()
    report = launch(path)
    assert [names[run] for run in report.started] == ["first:1", "big:1", "small:1", "last:1"]
    times = {names[run]: store.attempts(run)[0] for run in report.started}
    assert {name: attempt.owner["execution"]["threads"] for name, attempt in times.items()} == {
        "first:1": 1,
        "big:1": 2,
        "small:1": 1,
        "last:1": 1,
    }
    big = times.pop("big:1")
    assert (times.pop("first:1").exit or {})["time"] <= big.owner["time"]
    assert all((big.exit or {})["time"] <= attempt.owner["time"] for attempt in times.values())


def test_a_failed_teacher_blocks_its_students_until_it_is_retried(
    launch: Callable[..., Report], store: Store, sweep: Callable[..., Path], tmp_path: Path
) -> None:
    path = sweep(DISTILL % ("'mylab:broken_until'", f"{{file: '{tmp_path / 'ready'}'}}"))
    plan = planned(path)
    teacher = next(cell.run for cell in plan.cells if cell.stage == "teacher")
    report = launch(path)
    assert {run: state.name for run, state in states_of(store, "tiny").items()} == {
        run: state.name for run, state in report.states.items()
    }, "status says the same"
    names = {(cell.variant, cell.stage): report.states[cell.run] for cell in plan.cells}
    assert names["none", "student"].finished
    assert str(names["soft", "teacher"]).startswith("failed (")
    assert names["soft", "student"].name == names["token", "student"].name == "blocked"
    assert names["soft", "student"].detail == teacher
    (tmp_path / "ready").mkdir()  # (a file that options name would be part of the id)
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


@pytest.mark.parametrize("victims", ["the launcher", "the launcher and all its processes"])
def test_launchers_killed_at_random_instants(
    command: Command, sweep: Callable[..., Path], undisturbed: dict[str, object], victims: str
) -> None:
    sweep(INTERRUPTED)
    store, run = Store(command.folder / "results"), str(undisturbed["run"])
    draw = random.Random(victims)
    for _ in range(3):
        launcher = command.start("run", "tiny.yaml")
        wait_for(lambda launcher=launcher: worker_pid(store, run) or launcher.poll() is not None)
        time.sleep(draw.uniform(0, 0.7) * float(str(undisturbed["seconds"])))
        family = [launcher.pid]
        if victims != "the launcher":
            family += [pid for pid in descendants(launcher.pid) if pid != launcher.pid] + [
                pid for pid in [worker_pid(store, run)] if pid
            ]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        launcher.communicate()
    command("run", "tiny.yaml", code=None)
    if store.outcome(run) is None:
        command("retry", "tiny")
    assert result(store, run) == undisturbed["result"]


def descendants(pid: int) -> list[int]:
    listing = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(line.split()[0]): int(line.split()[1]) for line in listing.splitlines()}
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        found.append(current)
        waiting += [child for child, parent in parents.items() if parent == current]
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_next_run_goes_on(
    command: Command, sweep: Callable[..., Path], undisturbed: dict[str, object], number: int
) -> None:
    sweep(INTERRUPTED)
    store, run = Store(command.folder / "results"), str(undisturbed["run"])
    launcher = command.start("run", "tiny.yaml")
    wait_for(lambda: store.history(run))
    launcher.send_signal(number)
    out, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 130, out
    assert "goes on from what the runs have saved" in out
    if store.outcome(run) is None:
        last = store.attempts(run)[-1]
        assert last.exit is not None
        assert last.exit["class"] == "interrupted"
        assert last.checkpoint.exists()
    command("run", "tiny.yaml")
    assert result(store, run) == undisturbed["result"]
    lines = [line["epoch"] for line in store.history(run)]
    assert lines == list(range(6)), "one file is one whole history"


def test_two_launchers_at_the_same_moment_train_every_run_once(command: Command, sweep: Callable[..., Path]) -> None:
    sweep("seeds: 3\nvariants:\n  a: {schedule.epochs: 4}\n  b: {augment.mixup: 0}\n")
    both = [command.start("run", "tiny.yaml", to_kill=False) for _ in range(2)]
    outs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    store = Store(command.folder / "results")
    assert len(store.runs()) == 6
    for run in store.runs():
        trained = [a for a in store.attempts(run) if (a.exit or {}).get("class") == "done"]
        assert len(trained) == 1
        assert len([a for a in store.attempts(run) if (a.exit or {}).get("class") not in ("done", "superseded")]) == 0
    tables = [out[out.index("# tiny") :].strip() for out in outs]
    assert tables[0] == tables[1]


def test_a_stopped_worker_is_not_taken_over(command: Command, sweep: Callable[..., Path]) -> None:
    path = sweep("seeds: 1\nvariants: {long: {schedule.epochs: 40}}\n")
    run = next(iter(planned(path).runs))
    store = Store(command.folder / "results")
    first = command.start("run", "tiny.yaml")
    pid = wait_for(lambda: worker_pid(store, run))
    os.kill(pid, signal.SIGSTOP)
    second = command.start("run", "tiny.yaml")
    time.sleep(3)
    assert len(store.attempts(run)) == 1
    assert second.poll() is None, "it waits for the first one's run"
    os.kill(pid, signal.SIGCONT)
    outs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outs
    assert len(store.attempts(run)) == 1
