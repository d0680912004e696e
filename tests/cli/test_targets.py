"""A sweep is named, or given by its file: every command takes both."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support import DISTILL, TINY, Command

from deit_ablate import files
from deit_ablate.cli import targets
from deit_ablate.store import State, Store
from deit_ablate.store.named import runs_of

NAMED = [
    ["status", "{}"],
    ["show", "{}:soft:0"],
    ["logs", "{}:soft:0"],
    ["diff", "{}:soft:0", "{}:none:0"],
    ["table", "{}"],
    ["figure", "{}"],
    ["report", "{}"],
    ["export", "{}"],
    ["explain", "{}:soft"],
    ["disagree", "{}"],
    ["tokens", "{}:token"],
    ["keep", "{}"],
    ["verify", "{}:soft:0"],
    ["retry", "{}"],
    ["cancel", "{}"],
    ["train", "{}:soft:0:student"],
    ["forget", "{}:soft:0", "--yes"],
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, warm_python: list[str]) -> Command:
    made = Command(tmp_path_factory.mktemp("trained"), warm_python)
    (made.folder / "sweeps").mkdir()
    (made.folder / "sweeps" / "tiny.yaml").write_text(TINY + DISTILL % ("small_convnet", "{}"))
    made("run", "sweeps/tiny.yaml")
    return made


@pytest.mark.parametrize("arguments", NAMED, ids=lambda arguments: arguments[0])
def test_a_command_takes_the_file_of_a_sweep_as_it_takes_its_name(trained: Command, arguments: list[str]) -> None:
    by_name = trained(*(argument.format("tiny") for argument in arguments), code=None)
    by_file = trained(*(argument.format("sweeps/tiny.yaml") for argument in arguments), code=None)
    assert "no sweep" not in by_name.stderr
    assert "no run" not in by_name.stderr
    if arguments[0] == "forget":  # again, before it has been trained again
        assert "has not started yet" in by_file.stderr
    else:
        found = (by_file.returncode, by_file.stderr, by_file.stdout)
        assert found == (by_name.returncode, by_name.stderr, by_name.stdout)


def test_of_several_studies_of_a_file_the_one_of_its_name_is_meant(
    command: Command, sweep: Callable[..., Path], store: Store
) -> None:
    path = sweep("seeds: 1\nvariants: {a: {}}\n")
    command("run", "tiny.yaml", "--set", "augment.mixup=0")
    (changed,) = store.sweeps.names()
    assert command("table", "tiny.yaml").stdout == command("table", changed).stdout
    command("run", "tiny.yaml", "--name", "other")
    said = command("table", "tiny.yaml", code=2).stderr
    assert f"tiny.yaml: 2 studies of it were run; expected other or {changed}" in said
    command("run", "tiny.yaml")
    assert "# tiny," in command("table", "tiny.yaml").stdout
    (command.folder / "elsewhere").mkdir()
    other = command.folder / "elsewhere" / "tiny.yaml"
    other.write_text(path.read_text())
    assert json.loads(command("status", str(other), "--json").stdout), "a copy is known by its content"
    other.write_text(path.read_text() + "margin: 1\n")
    assert "elsewhere/tiny.yaml: no sweep of this file in results" in command("status", str(other), code=2).stderr
    other.write_text(path.read_text())
    path.unlink()
    assert json.loads(command("status", str(other), "--json").stdout), "a file that moved is no other file"


def test_a_planned_id_can_be_trained_and_a_moved_file_is_known_by_its_content(
    command: Command, sweep: Callable[..., Path], store: Store
) -> None:
    path = sweep("seeds: 1\nvariants: {a: {}, b: {augment.erasing: 0}}\n")
    command("run", "tiny.yaml", "--only", "a")
    planned = next(line.split()[0] for line in command("plan", "tiny.yaml").stdout.splitlines() if " b:0 " in line)
    assert "state: missing" in command("show", planned[:8]).stdout
    command("train", planned[:8])
    assert store.outcome(planned)
    path.rename(path.with_name("renamed.yaml"))
    assert "2 done" in command("status", "renamed.yaml").stdout
    path.with_name("renamed.yaml").write_text(path.with_name("renamed.yaml").read_text() + "margin: 1\n")
    assert "no sweep of this file" in command("status", "renamed.yaml", code=2).stderr


def test_ids_that_a_plan_prints_are_known_before_anything_is_run(command: Command, tmp_path: Path) -> None:
    command.environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    (command.folder / "train.py").write_text(
        "import json, sys\nopen(sys.argv[1] + '/m.jsonl', 'w').write(json.dumps({'epoch': 0, 'top1': 1.5}))\n"
    )
    (command.folder / "p.yaml").write_text(
        'command: [python, train.py, "{run}", "{seed}", "{lr}"]\nparameters: {lr: 0.5}\n'
        'metrics: {file: "{run}/m.jsonl", primary: top1, better: higher}\nvariants: {a: {}}\n'
    )
    shown = command("plan", "p.yaml", "--set", "lr=0.25", "--seeds", "1").stdout
    (run,) = re.findall(r"^([0-9a-f]{16})  a:0", shown, re.MULTILINE)
    assert not (command.folder / "results").exists()
    told = command("show", run[:8]).stdout
    assert "state: missing" in told
    assert "parameters.lr: 0.25" in told
    assert "no run or sweep" in command("show", "0123456789abcdef", code=2).stderr
    assert '"top1": 1.5' in command("train", run).stdout
    assert "state: done" in command("show", run).stdout


def another_profile(command: Command) -> None:
    folder = command.folder / "profiles"
    folder.mkdir()
    shutil.copy(files.shipped("sweeps") / "profiles" / "digits.yaml", folder / "other.yaml")


def test_a_sweep_whose_file_is_gone_says_how_to_go_on(
    command: Command, sweep: Callable[..., Path], store: Store
) -> None:
    path = sweep("seeds: 1\nvariants: {a: {}}\n")
    command("plan", path, "--commands", "json")
    moved = path.rename(path.with_name("renamed.yaml"))
    name = path.stem
    refused = command("run", name, code=2).stderr
    assert f"`deit-ablate run PATH --name {name}`" in refused
    assert f"{name}: " in command("plan", moved, "--name", name).stdout
    assert f"`deit-ablate run {path}`" not in command("retry", path, code=2).stderr
    another_profile(command)
    command("plan", moved, "--profile", "other", "--set", "augment={mixup: 0}", "--seeds", "2", "--commands", "json")
    (name,) = {*store.sweeps.names()} - {name}
    moved = moved.rename(moved.with_name("again.yaml"))
    (said,) = re.findall(r"`deit-ablate run (.+)`", command("plan", name, code=2).stderr)
    assert said == f"PATH --profile other --set 'augment={{mixup: 0}}' --seeds 2 --name {name}"
    before = store.sweeps.plan(name)
    command("plan", moved, *shlex.split(said)[1:], "--commands", "json")
    after = store.sweeps.plan(name)
    assert before is not None
    assert after is not None
    assert (after["cells"], after["source"]) == (before["cells"], "../again.yaml")


def test_another_set_of_a_study_takes_no_other_studys_folder(
    command: Command, sweep: Callable[..., Path], store: Store
) -> None:
    sweep("seeds: 1\nvariants: {a: {}}\n")
    another_profile(command)
    command("plan", "tiny.yaml", "--name", "mine", "--commands", "json")
    before = store.sweeps.plan("mine")
    for given in (["mine"], ["tiny.yaml", "--name", "mine"]):
        for option in (("--set", "augment.mixup=0"), ("--profile", "other")):
            refused = command("plan", *given, *option, "--commands", "json", code=2).stderr
            assert refused.startswith(f"error: {option[0]}: mine was made with ")
            assert "and another study would take its folder; expected --name and another name" in refused
    command("plan", "tiny.yaml", "--name", "mine", "--profile", "digits", "--seeds", "2", "--commands", "json")
    command("plan", "tiny.yaml", "--name", "mine", "--commands", "json")
    assert store.sweeps.plan("mine") == before
    assert "yours: " in command("plan", "mine", "--set", "augment.mixup=0", "--name", "yours").stdout
    command("plan", "tiny.yaml", "--set", "augment.mixup=0", "--commands", "json")
    (changed,) = {*store.sweeps.names()} - {"mine"}
    refused = command("plan", changed, "--set", "augment.cutmix=0", code=2).stderr
    assert f"{changed} was made with --set augment.mixup=0, which this would replace" in refused
    assert f"{changed}: " in command("plan", changed, "--set", "augment.mixup=0").stdout


def test_a_run_of_another_sweep_is_the_start_of_a_row(
    command: Command, sweep: Callable[..., Path], store: Store
) -> None:
    text = 'seeds: 1\nbaseline: a\nvariants: {a: {}, b: {model: {init: "%s"}, data: {resolution: 24}}}\n'
    sweep(text % "before:c:0")
    assert "tiny.yaml:11:37: model.init: no run or sweep 'before:c:0'" in command("plan", "tiny.yaml", code=2).stderr
    sweep("seeds: 1\nvariants: {c: {augment.erasing: 0}}\n", name="before")
    command("plan", "before.yaml", "--commands", "shell")  # planned, and yet to be trained
    planned = command("plan", "tiny.yaml").stdout
    parent = next(line.split()[0] for line in planned.splitlines() if " before:c:0 " in line)
    assert f"waiting ({parent})" in planned
    assert "before:c:0: done" in command("run", "tiny.yaml").stdout
    shown = command("show", "tiny:b:0").stdout
    assert f"parent (from): {parent}, last weights" in shown
    assert "before:c:0" not in shown.partition("parent")[0], "its id, and not its name, is part of the run's id"
    assert "all 3 runs are done" in command("run", "tiny.yaml").stdout
    shutil.rmtree(store.run(runs_of("tiny:b:0", store)[0]))
    sweep(text % "tiny:b:0")
    assert "model.init: tiny:b:0 starts from itself" in command("plan", "tiny.yaml", code=2).stderr


def test_a_link_to_a_sweep_file_stays_itself(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "common.yaml").write_text(
        'command: [python, train.py, "{seed}"]\nseeds: 1\nvariants: {a: {}}\n'
        'metrics: {file: "{run}/m.json", primary: top1, better: higher}\n'
    )
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "train.py").touch()
    (tmp_path / "studies" / "mine.yaml").symlink_to("../common.yaml")
    given = targets.study("studies/mine.yaml", store)
    first = given.plan(store)
    targets.refuse_other_study(store, first, given)
    given.take_over(first, store, {run: State("missing") for run in first.runs})
    again = targets.study("mine", store).plan(store)
    assert again.sweep.name == "mine"
    assert again.runs.keys() == first.runs.keys()
    assert again.sweep.execution.program == first.sweep.execution.program
    assert targets.known_sweep(store, "studies/mine.yaml") == "mine"
    targets.remember(given, Store("another"), first.runs)
    assert targets.known_runs(min(first.runs), Store("another")).keys() == {min(first.runs)}
