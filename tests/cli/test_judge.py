"""The command for scripts and agents: one object, exit code 0 whatever the verdict, and one error for bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from studies import Study
from support import Ask, Command

SIDES = ["candidate", "baseline", "target", "metric", "better", "unit", "margin", "runs", "baseline_runs", "paired"]
FIGURES = ["mean", "baseline_mean", "difference", "half_width", "p", "p_equivalent"]
SEEDS = ["seeds_to_decide", "seeds_for_equivalence"]
KEYS = ["verdict", "words", *SIDES, *FIGURES, *SEEDS, "assumed", "notes", "campaign"]
OF_CAMPAIGN = ["name", "try", "candidate", "look", "p", "level", "spent", "keep", "kept", "candidates", "repeated"]


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A study of two rows and one of another metric, files of numbers, and a damaged campaign."""
    rows = {"a": {0: 97.0, 1: 98.0, 2: 99.0}, "b:c": {0: 94.0, 1: 94.5, 2: 95.0, 3: 94.2}}
    Study(tmp_path / "results", rows, baseline="a", margin=0.5)
    Study(tmp_path / "results", {"a": {0: 90.0, 1: 91.0}}, name="other", metric={"name": "loss", "place": [0, 0]})
    (tmp_path / "base.txt").write_text("3.31\n3.30\n3.305\n3.30\n3.29\n")
    (tmp_path / "new.csv").write_text("seed,loss\n0,3.271\n1,3.27\n2,3.275\n3,3.269\n")
    (tmp_path / "one.txt").write_text("3.3\n")
    (tmp_path / "nan.txt").write_text("3.3\nnan\n")
    (tmp_path / "words.txt").write_text("loss\n3.3\n")
    damaged = tmp_path / "results" / "campaigns" / "damaged"
    damaged.mkdir(parents=True)
    (damaged / "1.json").write_text('{"schema": 1')
    return tmp_path


def test_the_object_has_the_documented_keys(inputs: Path, ask: Ask) -> None:
    page = (Path(__file__).parents[2] / "docs" / "guide" / "judge.md").read_text()
    said = ask("judge", "study:a", "study:b:c", "--json", "--campaign", "c")
    assert (said.code, said.err) == (0, "")
    found = json.loads(said.out)
    assert (list(found), list(found["campaign"])) == (KEYS, OF_CAMPAIGN)
    assert (found["verdict"], found["metric"], found["margin"], found["runs"]) == ("worse", "test top-1", 0.5, 4)
    assert (found["baseline"], found["candidate"]) == ("study:a", "study:b:c")
    assert found["difference"] == pytest.approx(94.425 - 98)
    for key in (*KEYS, *OF_CAMPAIGN):
        assert f"`{key}`" in page, f"docs/guide/judge.md says nothing of {key}"


def test_one_run_is_no_runs(tmp_path: Path, ask: Ask) -> None:
    Study(tmp_path / "results", {"a": {0: 97.0}, "b": {0: 95.0, 1: 96.0}})
    said = ask("judge", "study:a", "study:b").out
    assert " 1 run " in said
    assert " 2 runs " in said


@pytest.mark.parametrize(
    ("arguments", "verdict"),
    [
        ("base.txt new.csv --better lower --column loss", "better"),
        ("base.txt new.csv --better higher --column loss", "worse"),
        ("new.csv --target 3.28 --better lower --column loss", "better"),
        ("base.txt base.txt --better lower --margin 1", "equivalent"),
        ("study:a --target 97.9", "undecided"),
        ("other:a --target 3", "too_few"),
        ("study:b:c study:a --margin 50", "better_small"),
        ("base.txt study:a", "better"),
    ],
)
def test_whatever_the_verdict_the_exit_code_is_0(inputs: Path, ask: Ask, arguments: str, verdict: str) -> None:
    said = ask("judge", *arguments.split(), "--json")
    assert (said.code, json.loads(said.out)["verdict"]) == (0, verdict)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("gone.txt base.txt --better lower", "gone.txt: no such file"),
        ("gone base.txt --better lower", "gone: neither a row nor a file; expected sweep:row, or a file"),
        ("gone:a study:a", "no sweep 'gone' in results; expected one of other, study"),
        ("study:a study:b", "study:b: study has no row 'b'; expected one of a, b:c"),
        ("study:a study:bc", "study:bc: study has no row 'bc'; did you mean 'b:c'?"),
        ("study study:a", "study: neither a row nor a file"),
        ("one.txt base.txt --better lower", "one.txt: 1 number"),
        ("nan.txt base.txt --better lower", "nan.txt:2:1: got 'nan'; expected a number, of 1e+50 at most"),
        ("words.txt base.txt --better lower", "words.txt:1:1: got 'loss'"),
        ("new.csv --target 3 --better lower", "new.csv: 2 columns; expected --column, one of seed, loss"),
        ("new.csv --target 3 --better lower --column los", "new.csv:1:1: no column 'los'; did you mean 'loss'?"),
        ("study:a --target 3 --column loss", "--column: rows have no columns"),
        ("study:a other:a", "two metrics: other:a has loss and study:a has top1; expected two groups of one metric"),
        ("study:a study:a", "study:a and study:a are the same runs and figures"),
        ("study:a study:b:c --better lower", "--better: got 'lower'; expected 'higher', as top1 has, or nothing"),
        ("base.txt base.txt", "nothing says which way the numbers are better; expected --better higher, or lower"),
        ("base.txt --target 1 --better up", "--better: 'up' is not one of 'higher', 'lower'"),
        ("study:a", "got 1 group; expected BASELINE CANDIDATE, or CANDIDATE --target X"),
        ("study:a study:b:c --target 3", "got 2 groups and a target; expected BASELINE CANDIDATE, or"),
        ("study:a study:a study:a", "got 3 groups; expected"),
        ("study:a --target nan", "--target: got nan; expected a number, of 1e+50 at most"),
        ("study:a study:b:c --margin 0", "--margin: got 0.0; expected a number above 0"),
        ("study:a study:b:c --margin -1", "--margin: got -1.0; expected a number above 0"),
        ("study:a study:b:c --margin inf", "--margin: got inf; expected a number above 0"),
        ("study:a study:b:c --campaign ../up", "--campaign: got '../up'; expected letters, digits"),
        ("study:a study:b:c --campaign damaged", "results/campaigns/damaged/1.json: damaged: not JSON, or cut short"),
    ],
)
def test_bad_input_is_one_error(inputs: Path, ask: Ask, arguments: str, says: str) -> None:
    before = sorted(inputs.rglob("*"))
    said = ask("judge", *arguments.split(), "--json")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"error: {says}"), said.err
    assert said.err.count("\n") == 1
    assert sorted(inputs.rglob("*")) == before


def test_for_people(inputs: Path, ask: Ask) -> None:
    lines = ask("judge", "study:a", "study:b:c", "--campaign", "c").out.splitlines()
    assert lines[0] == "worse"
    assert lines[2].split() == ["study:b:c", "4", "runs", "94.425"]
    assert lines[3].split() == ["study:a", "3", "runs", "98"]
    assert lines[5].startswith("difference -3.575 ± ")
    assert "points (95%), p 0.0" in lines[5]
    assert lines[6].startswith("campaign c, try 1: not kept, one-sided p ")
    assert "nothing is spent" in ask("judge", "study:a", "study:b:c", "--campaign", "c").out


def test_no_sweep_may_take_the_campaigns_place(command: Command) -> None:
    (command.folder / "campaigns.yaml").write_text("profile: digits\nvariants: {a: {}}\n")
    assert "campaigns" in command("plan", "campaigns.yaml", code=2).stderr
