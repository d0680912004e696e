"""Runs as commands for somebody else's queue: what `plan --commands` writes, executed as that queue would."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import DISTILL, Command, planned

from deit_ablate.execution import Execution
from deit_ablate.launch.commands import FORMS, commands, train_command
from deit_ablate.launch.jobs import Work
from deit_ablate.store import State, Store

ODD = "a 'b' $HOME `c` #d"
"""A folder's name that every shell, and make, would like to read."""


def environment(command: Command) -> dict[str, str]:
    return {**command.environment, "DEIT_ABLATE": shlex.join([*command.python_m, "deit_ablate"])}


def test_the_script_run_twice_at_once_trains_each_run_once(
    command: Command, sweep: Callable[..., Path], store: Store
) -> None:
    path = sweep(DISTILL % ("small_convnet", "{width: 8}"))
    script = command("plan", path, "--commands", "shell", "--device", "cpu").stdout
    (command.folder / "runs.sh").write_text(script)
    both = [
        subprocess.Popen(["sh", "runs.sh"], cwd=command.folder, env=environment(command), stdout=subprocess.DEVNULL)
        for _ in range(2)
    ]
    codes = [process.wait(timeout=120) for process in both]
    assert set(codes) <= {0, 75}, "what the other one was training is in other hands"
    runs = planned(path).runs
    subprocess.run(["sh", "runs.sh"], cwd=command.folder, env=environment(command), check=True, capture_output=True)
    attempts = {run: [(attempt.exit or {}).get("class") for attempt in store.attempts(run)] for run in runs}
    assert attempts == {run: ["done"] for run in runs}, "one attempt each"
    assert "7 done" in command("status", "tiny").stdout
    assert json.loads(command("plan", path, "--commands", "json").stdout) == []


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_starts_children_after_their_parents(command: Command, sweep: Callable[..., Path], store: Store) -> None:
    path = sweep(DISTILL % ("small_convnet", "{width: 8}"))
    (command.folder / "Makefile").write_text(command("plan", path, "--commands", "make", "--seeds", "1").stdout)
    make = ["make", "-j4"]
    subprocess.run(make, cwd=command.folder, env=environment(command), check=True, capture_output=True)
    plan = planned(path)
    trained = {run for run in plan.runs if store.outcome(run)}
    assert trained == set(plan.only([], 1))


def test_a_run_that_fails_leaves_the_others_going(command: Command, sweep: Callable[..., Path], store: Store) -> None:
    path = sweep(
        'seeds: 1\nvariants:\n  bad: {model: {name: "mylab:broken_until", options: {file: nowhere}}}\n  good: {}\n'
    )
    (command.folder / "runs.sh").write_text(command("plan", path, "--commands", "shell").stdout)
    done = subprocess.run(["sh", "runs.sh"], cwd=command.folder, env=environment(command), capture_output=True)
    assert done.returncode == 1
    states = store.states(planned(path).parents)
    assert sorted(state.name for state in states.values()) == ["done", "failed"]
    again = command("plan", path, "--commands", "json")
    assert json.loads(again.stdout) == []
    assert "left out, as `deit-ablate retry` has to lift that first: tiny:bad:0" in again.stderr


def test_the_list_says_what_each_run_needs_and_under_which_execution(
    command: Command, sweep: Callable[..., Path], store: Store
) -> None:
    path = sweep(
        "execution: {threads: 2, ranks: 2, loaders: 3, device: cpu, compile: true}\n" + DISTILL % ("tiny", "{}")
    )
    path.write_text(path.read_text().replace("name: tiny", "name: small_convnet"))
    found = json.loads(command("plan", path, "--commands", "json", "--data-dir", ODD, "-x", "parallel=3").stdout)
    runs = planned(path).runs
    assert [each["id"] for each in found] == list(runs)
    assert {each["id"]: each["parents"] for each in found} == {run.id: run.above for run in runs.values()}
    assert found[0]["needs"] == {"ranks": 2, "threads": 2, "cpus": 5, "gpus": 0}
    words = found[0]["command"]
    assert words[:4] == ["deit-ablate", "train", "--results", "results"]
    assert words[words.index("--data-dir") + 1] == ODD
    assert {words[at + 1] for at, word in enumerate(words) if word == "-x"} == {"threads=2", "ranks=2", "compile=true"}
    assert words[-1] == found[0]["id"]
    for run in runs.values():
        assert store.recipe(run.id), "what the commands will find"


@pytest.mark.parametrize("form", ["shell", "make"])
def test_no_path_reaches_a_shell_unquoted(form: str, tmp_path: Path, sweep: Callable[..., Path]) -> None:
    plan = planned(sweep("seeds: 1\nvariants: {a: {}}\n"))
    (run,) = plan.runs
    execution = Execution(data_dir=ODD, stage_data="/x\t$y\\")
    work = Work(Store(tmp_path / ODD), "t", plan.runs, {run: "t:a\nrm:0"}, {run: State("missing")}, execution)
    (tmp_path / "text").write_text(FORMS[form](commands(work), "t\nu"))
    (tmp_path / "program").write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "$word"; done\n')
    (tmp_path / "program").chmod(0o700)
    tool = ["sh", "text"] if form == "shell" else ["make", "--silent", "-f", "text"]
    own = {**os.environ, "DEIT_ABLATE": str(tmp_path / "program")}
    done = subprocess.run(tool, cwd=tmp_path, env=own, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [*train_command(work.store.root, execution)[1:], run]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tiny.yaml", "--commands", "ray"], "--commands: 'ray' is not one of 'shell', 'make', 'json'"),
        (["tiny.yaml", "--commands", "json", "--json"], "--commands: it is an output of its own"),
        (["nowhere", "--commands", "json"], "no sweep 'nowhere'"),
        (["searched.yaml", "--commands", "json"], "--commands: a search has no list of runs"),
    ],
)
def test_what_is_no_list_of_runs_is_one_error(
    command: Command, sweep: Callable[..., Path], store: Store, arguments: list[str], said: str
) -> None:
    sweep("seeds: 1\nvariants: {a: {}}\n")
    sweep("search: {trials: 2, space: {optimizer.base_lr: {low: 0.001, high: 0.1}}}\n", name="searched")
    refused = command("plan", *arguments, code=2)
    assert said in refused.stderr
    assert refused.stdout == ""
    assert not store.root.exists()
