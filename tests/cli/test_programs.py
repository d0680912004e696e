"""Sweeps over a command: what a user is told who runs them, and where they are not ours to answer."""

from __future__ import annotations

import os
import re
import shlex
import subprocess

import pytest
from support import Command

from deit_ablate.store import Store

TRAIN = """\
import json, sys
run, seed, gain = sys.argv[1:4]
if gain == "none":
    sys.exit("no gain")
print(json.dumps({"epoch": 0, "top1": 90 + int(seed) * float(gain)}), file=open(run + "/m.jsonl", "w"))
"""
SWEEP = """\
command: [python, train.py, "{run}", "{seed}", "{gain}", "two words"]
parameters: {gain: %s}
metrics: {file: "{run}/m.jsonl", primary: top1, better: higher, unit: "%%"}
seeds: 2
variants: {a: {}}
"""


@pytest.fixture
def lab(command: Command) -> Command:
    """A folder that is a repository, with a program and a sweep over it."""
    (command.folder / "train.py").write_text(TRAIN)
    (command.folder / "p.yaml").write_text(SWEEP % 0.5)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "train.py"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], cwd=command.folder, check=True)
    return command


def test_a_run_is_shown_with_its_command_and_the_commit_of_its_code(lab: Command) -> None:
    assert "a:1: done, top1 90.50% in " in lab("run", "p.yaml").stdout
    assert re.search(r"^a:1 .* done +top1 90.50%$", lab("status", "p").stdout, re.MULTILINE)
    store = Store(lab.folder / "results")
    shown = lab("show", "p:a:1").stdout
    assert "program.command: python train.py {run} {seed} {gain} 'two words'\n" in shown
    output = store.attempt(store.sweeps.sound_plan("p")["cells"][1][3], 1).output  # type: ignore[index]
    assert f"$ python train.py {output.absolute()} 1 0.5 'two words'\n" in lab("logs", "p:a:1").stdout
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=lab.folder, capture_output=True, text=True, check=True)
    assert f"git.commit: {commit.stdout.strip()}" in shown
    assert "profile" not in lab("plan", "p.yaml").stdout
    (lab.folder / "train.py").write_text(TRAIN + "print(1)\n")
    why = [line for line in lab("plan", "p.yaml").stdout.splitlines() if line.startswith("missing since")]
    assert why == ["missing since the source of ./train.py changed: a:0, a:1"]
    (lab.folder / "train.py").write_text(TRAIN)
    (lab.folder / "p.yaml").write_text(SWEEP % 0.25)
    why = [line for line in lab("plan", "p.yaml").stdout.splitlines() if line.startswith("missing since")]
    assert why == ["missing since the recipe changed (parameters.gain 0.5 → 0.25): a:0, a:1"]
    (lab.folder / "p.yaml").write_text(SWEEP % 0.5)
    (lab.folder / "train.py").write_text(TRAIN + "print(1)\n")
    assert "a program" in lab("verify", "p:a:0", code=2).stderr


def test_a_sweep_of_which_no_run_reports_anything_has_a_table_and_goes_on_after_a_retry(lab: Command) -> None:
    (lab.folder / "p.yaml").write_text(SWEEP % "none")
    done = lab("run", "p.yaml", code=1).stdout
    assert "2 of 2 runs are not done" in done
    assert "no gain" in done
    run = next(iter(Store(lab.folder / "results").runs()))
    assert "no gain" in lab("retry", run, code=1).stdout
    alone = re.search(r"alone, here: (deit-ablate .+)", done)
    assert alone
    assert "exit code 1: no gain" in lab(*shlex.split(alone[1])[1:], code=1).stdout
    assert lab("report", "p").stdout
    (lab.folder / "train.py").write_text(TRAIN.replace('"none"', '"nothing"').replace("float(gain)", "1"))
    assert "top1" in lab("run", "p.yaml").stdout


GOES_ON = """\
import json, os, sys
state = os.environ["DEIT_ABLATE_CHECKPOINT_DIR"] + "/epoch"
epoch = int(open(state).read()) + 1 if os.path.exists(state) else 0
print(json.dumps({"epoch": epoch, "top1": 90}), file=open(sys.argv[1] + "/m.jsonl", "w"))
open(state, "w").write(str(epoch))
sys.exit(75 if epoch < 1 else 0)
"""


def test_the_time_of_a_run_that_was_gone_on_with_is_that_of_all_its_attempts(lab: Command) -> None:
    (lab.folder / "train.py").write_text(GOES_ON)
    lab("run", "p.yaml", "--seeds", "1")
    store = Store(lab.folder / "results")
    run = next(iter(store.runs()))
    assert [line["epoch"] for line in store.history(run)] == [0, 1]
    cost = (store.outcome(run) or {})["cost"]
    assert store.attempt(run, 1).seconds < cost["train_seconds"] <= cost["wall_seconds_all_attempts"]


def test_runs_of_earlier_code_are_used_where_a_user_accepts_its_change(lab: Command) -> None:
    command = '[python, train.py, "{run}", "{seed}", "{gain}", "{parent}"]'
    stages = f"stages: {{first: {{}}, last: {{from: first, command: {command}}}}}\n"
    (lab.folder / "p.yaml").write_text(SWEEP % 0.5 + stages)
    lab("run", "p.yaml")
    store = Store(lab.folder / "results")
    before, records = lab("plan", "p.yaml").stdout, {p: p.read_bytes() for p in store.root.glob("runs/*/*.json")}
    (lab.folder / "train.py").write_text(TRAIN + "print(1)\n")
    asked = lab("accept", "p", code=1).stdout
    assert "4 finished runs of p: a:0:first, a:1:first, a:0:last, a:1:last\n" in asked
    assert "2 missing, 2 waiting" in lab("plan", "p").stdout
    lab("accept", "p", "--yes")
    assert lab("plan", "p").stdout == before
    assert "nothing to train" in lab("run", "p.yaml").stdout
    assert "Of earlier code, with the change of ./train.py declared cosmetic on " in lab("table", "p").stdout
    assert re.search(
        r"accepted in p by \S+, 20\d\d-.+: cosmetic change of ./train.py \w{12} -> \w{12}\n",
        lab("show", "p:a:1").stdout,
    )
    assert {p: p.read_bytes() for p in store.root.glob("runs/*/*.json")} == records
    lab("keep", "p", "--to", "kept")
    assert '"user"' not in (lab.folder / "kept" / "accepted" / "1.json").read_text()
    lab("import", "kept", "--results", "brought")
    assert lab("plan", "p.yaml", "--results", "brought").stdout == before
    assert "accepted in p, 20" in lab("show", "p:a:1", "--results", "brought").stdout
    (lab.folder / "p.yaml").write_text(SWEEP % 0.7 + stages)
    refused = lab("accept", "p", "--yes", code=2).stderr
    assert "no finished run of it differs in its code alone" in refused
    assert "not in parameters.gain" in refused


def test_a_plan_says_that_what_failed_before_has_other_code_now(lab: Command) -> None:
    (lab.folder / "p.yaml").write_text(SWEEP % "none")
    lab("run", "p.yaml", code=1)
    (lab.folder / "train.py").write_text(TRAIN.replace('"none"', '"nothing"'))
    why = "missing since the source of ./train.py changed (before: failed (crash)): a:0, a:1\n"
    assert why in lab("plan", "p.yaml").stdout


def test_a_table_says_that_its_file_has_another_margin_by_now(lab: Command) -> None:
    text = SWEEP % 0.5 + "baseline: a\nmargin: 0.5\n"
    (lab.folder / "p.yaml").write_text(text)
    lab("run", "p.yaml")
    assert "note:" not in lab("table", "p").stderr
    (lab.folder / "p.yaml").write_text(text.replace("margin: 0.5", "margin: 0.2") + "# said better\n")
    note = "note: p.yaml has changed (margin: 0.2 there, 0.5 here); `deit-ablate run p` takes that over\n"
    assert note in lab("table", "p").stderr
    assert note in lab("report", "p").stderr
    lab("run", "p")
    assert "note:" not in lab("table", "p").stderr


def test_a_shared_results_folder_is_for_others_as_the_umask_says(lab: Command) -> None:
    os.umask(before := os.umask(0))
    lab("run", "p.yaml", "--shared")
    lab("table", "p")
    made = list((lab.folder / "results").rglob("*"))
    wrong = {path: oct(mode) for path in made if (mode := path.stat().st_mode) & 0o066 != 0o066 & ~before}
    assert wrong == {}


@pytest.mark.parametrize("how", ["retry p", "accept", "run p --only b"])
def test_what_takes_over_an_edited_file_declares_it(lab: Command, how: str) -> None:
    (lab.folder / "train.py").write_text("import os\n" + TRAIN.replace('gain == "none"', 'os.path.exists("broken")'))
    (lab.folder / "broken").touch()
    text = SWEEP % 0.5 + "baseline: a\nmargin: 0.5\n"
    both = text.replace("a: {}", "a: {}, b: {gain: 0.7}")
    (lab.folder / "p.yaml").write_text(both)
    lab("run", "p.yaml", "--only", "b", code=1)
    (lab.folder / "broken").unlink()
    lab("run", "p.yaml", "--only", "a")
    plan = lab.folder / "results" / "p" / "plan.json"
    before = plan.read_bytes()
    (lab.folder / "p.yaml").write_text(text.replace("margin: 0.5", "margin: 0.2"))
    assert "are no longer in p.yaml" in lab("retry", "p:b:0", code=2).stderr
    assert plan.read_bytes() == before, "what is refused changes nothing"
    (lab.folder / "p.yaml").write_text(both.replace("margin: 0.5", "margin: 0.2"))
    if how == "accept":
        (lab.folder / "train.py").write_text((lab.folder / "train.py").read_text() + "print(1)\n")
        lab("accept", "p", "--yes")
    else:
        lab(*how.split(), code=1 if "only" in how else 0)
    assert "Changed with results at hand: margin" in lab("table", "p").stdout
    assert Store(lab.folder / "results").sweeps.declared("p")[-1]["finished_runs_then"] == 2


def test_what_failed_before_a_retry_holds_no_sweep_again(lab: Command) -> None:
    broken = 'os.path.exists("broken") or float(gain) == 1'
    (lab.folder / "train.py").write_text("import os\n" + TRAIN.replace('gain == "none"', broken))
    (lab.folder / "broken").touch()
    text = SWEEP.replace("seeds: 2", "seeds: 1") % 0.5
    (lab.folder / "p.yaml").write_text(text.replace("{a: {}}", "{bad: {gain: 1.0}, b: {}, c: {gain: 2}, d: {gain: 3}}"))
    assert "held" in lab("run", "p.yaml", "--parallel", "1", code=1).stdout
    (lab.folder / "broken").unlink()
    assert "3 done, 1 failed" in lab("retry", "p", "--parallel", "1", code=1).stdout + lab("status", "p").stdout


def test_a_relative_data_folder_is_where_the_user_was(lab: Command) -> None:
    (lab.folder / "data").mkdir()
    (lab.folder / "data" / "seen").touch()
    (lab.folder / "sweeps").mkdir()
    check = "import os\nassert os.path.exists(os.environ['DEIT_ABLATE_DATA'] + '/seen')\n"
    (lab.folder / "sweeps" / "train.py").write_text(check + TRAIN)
    (lab.folder / "sweeps" / "p.yaml").write_text(SWEEP % 0.5)
    lab("run", "sweeps/p.yaml", "--data-dir", "data")


def test_a_run_that_never_started_is_retried_by_its_id(lab: Command) -> None:
    (lab.folder / "p.yaml").write_text(SWEEP % 0.5)
    lab("run", "p.yaml", "--seeds", "1")
    lab("cancel", "p:a:1")
    run = Store(lab.folder / "results").sweeps.sound_plan("p")["cells"][1][3]  # type: ignore[index]
    said = lab("train", run, code=1).stderr
    assert f"`deit-ablate retry {run}` lifts that" in said
    assert ": done in " in lab("retry", run).stdout
    assert "nothing to train" in lab("run", "p.yaml").stdout
