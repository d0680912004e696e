"""Commands that take a run or a study of a program: by its name or id, in other hands, and elsewhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from support import Command

from deit_ablate.store import Store

TRAIN = """\
import json, os, sys
if os.path.exists("broken"):
    sys.exit(3)
with open(os.environ["DEIT_ABLATE_RUN_DIR"] + "/m.jsonl", "w") as file:
    for part in ("train", "eval"):
        print(json.dumps({"epoch": 0, part: 1, "top1": 50 + float(sys.argv[1]) + int(sys.argv[2])}), file=file)
os.mkdir(os.environ["DEIT_ABLATE_RUN_DIR"] + "/weights")
os.symlink("w.bin", os.environ["DEIT_ABLATE_RUN_DIR"] + "/weights/link")
open(os.environ["DEIT_ABLATE_RUN_DIR"] + "/weights/w.bin", "w").write("weights")
"""
SWEEP = f"""
title: A command
command: {sys.executable} train.py {{lr}} {{seed}}
parameters: {{lr: 0.0}}
metrics: {{file: "{{run}}/m.jsonl", primary: top1, better: higher}}
seeds: 2
baseline: a
variants: {{a: {{}}, b: {{lr: 1.0}}}}
"""


@pytest.fixture
def study(command: Command) -> Command:
    """A study of a command that nobody has run yet."""
    (command.folder / "train.py").write_text(TRAIN)
    (command.folder / "s.yaml").write_text(SWEEP)
    return command


def test_another_queue_trains_what_plan_has_written(study: Command) -> None:
    script = study("plan", "s.yaml", "--only", "b", "--commands", "json").stdout
    for each in json.loads(script):
        done = study(*each["command"][1:]).stdout
        assert '"top1": 5' in done
    assert "2 done" in study("status", "s").stdout


def test_what_a_command_prints_is_read_in_the_foreground_too(study: Command) -> None:
    text = SWEEP.replace("{run}/m.jsonl", "{log}").replace("primary", "pattern: 'top1=(?P<top1>.*)', primary")
    (study.folder / "s.yaml").write_text(text)
    (study.folder / "train.py").write_text("print('x' * 1_000_000); print('top1=51')\n")
    study("plan", "s.yaml", "--only", "a", "--commands", "json")
    assert '"top1": 51' in study("train", "s:a:0").stdout


def test_a_run_is_tried_again_by_its_id(study: Command) -> None:
    (study.folder / "broken").touch()
    study("run", "s.yaml", "--only", "a", code=1)
    (study.folder / "broken").unlink()
    store = Store(study.folder / "results")
    first, second = sorted(store.runs())
    study("retry", first)
    study("train", second)
    assert all(store.outcome(run) for run in (first, second))


def test_a_run_whose_sweep_is_gone_is_one_error(study: Command) -> None:
    study("plan", "s.yaml", "--commands", "json")
    (study.folder / "s.yaml").unlink()
    run = next(iter(Store(study.folder / "results").runs()))
    assert f"nothing says where the program of {run} is" in study("train", run, code=2).stderr
    assert not list((study.folder / "results" / "runs" / run).glob("a*"))


def test_a_study_is_bundled_trained_anew_kept_and_brought(study: Command, tmp_path: Path) -> None:
    study("run", "s.yaml")
    store = Store(study.folder / "results")
    refused = study("verify", "s", code=2).stderr
    assert "a program trained it" in refused
    assert refused.count("\n") == 1

    assert "4 runs" in study("bundle", "s", "--output", tmp_path / "b.zip").stdout
    anew = study("reproduce", tmp_path / "b.zip", "--run", "b:1", "--results", tmp_path / "anew").stdout
    assert "reproduced: same bits" in anew

    study("import", "results", "--results", tmp_path / "other")
    other = Store(tmp_path / "other")
    assert other.runs() == store.runs()
    for run in other.runs():
        weights = other.attempt(run, 1).output / "weights"
        assert {path.name: path.read_text() for path in weights.iterdir()} == {"w.bin": "weights", "link": "weights"}
        assert not (weights / "link").is_symlink()
    study("keep", "s")
    study("import", "results/reference/s", "--results", tmp_path / "kept")
    assert study("report", "s", "--results", tmp_path / "kept")
    assert [line["epoch"] for line in Store(tmp_path / "kept").history(run)] == [0, 0]

    (study.folder / "train.py").write_text(TRAIN + "print(1)\n")
    assert "it has changed since the runs were trained" in study("bundle", "s", code=2).stderr


def test_a_command_without_code_beside_its_sweep_is_trained_anew(study: Command, tmp_path: Path) -> None:
    text = SWEEP.replace(f"{sys.executable} train.py {{lr}} {{seed}}", '[sh, -c, "echo top1=$0", "{lr}", "{seed}"]')
    text = text.replace("{run}/m.jsonl", "{log}").replace("primary", "pattern: 'top1=(?P<top1>.*)', primary")
    (study.folder / "s.yaml").write_text(text)
    study("run", "s.yaml")
    study("bundle", "s", "--output", tmp_path / "b")
    anew = study("reproduce", tmp_path / "b", "--run", "b:1", "--results", tmp_path / "anew").stdout
    assert "reproduced: same bits" in anew


def test_what_a_bundle_says_of_its_program_is_checked(study: Command, tmp_path: Path) -> None:
    study("run", "s.yaml", "--only", "a")
    study("bundle", "s", "--output", tmp_path / "b")
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    manifest["program"]["metrics"] = {"file": 7}
    (tmp_path / "b" / "manifest.json").write_text(json.dumps(manifest))
    said = study("reproduce", tmp_path / "b", "--results", tmp_path / "anew", code=2).stderr
    assert "manifest.json" in said
    assert "damaged: program:" in said
