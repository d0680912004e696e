"""Sweeps over a command or a function of one's own: what they plan, and what is refused at its line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from deit_ablate.errors import InputError
from deit_ablate.execution import Execution
from deit_ablate.program import arguments
from deit_ablate.sweep.load import load_sweep
from deit_ablate.sweep.plan import Plan, make_plan

SWEEP = """\
title: t
command: python train.py --data {data} --opt {opt} --lr {lr} --mixup {mixup} --seed {seed} --output {run} {flags}
parameters: {opt: adamw, lr: 1.0e-3, mixup: 0.8, flags: []}
sources: [mylab/**/*.py]
data: {id: flowers-v1, path: flowers}
metrics: {file: "{run}/summary.csv", primary: eval_top1, better: higher, unit: "%", columns: [eval_loss]}
seeds: 2
margin: 0.3
baseline: base
variants: {base: {}, no mixup: {mixup: 0}, sgd: {opt: sgd, lr: 0.1}}
"""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A folder with a training script, its modules, its data and a sweep over it."""
    (tmp_path / "train.py").write_text("import mylab.nets  # how it trains\nprint(1)\n")
    (tmp_path / "mylab").mkdir()
    (tmp_path / "mylab" / "nets.py").write_text("WIDTH = 8\n")
    (tmp_path / "flowers").mkdir()
    (tmp_path / "x.yaml").write_text(SWEEP)
    return tmp_path


def planned(folder: Path, **changes: Any) -> Plan:
    return make_plan(load_sweep(written(folder, **changes)))


def written(folder: Path, **changes: Any) -> Path:
    """The sweep with some keys changed; None removes one."""
    content = {**yaml.safe_load(SWEEP), **changes}
    path = folder / "y.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}, width=1000))
    return path


def ids(plan: Plan) -> dict[tuple[str, int], str]:
    return {(cell.variant, cell.seed): cell.run for cell in plan.cells}


def test_rows_vary_parameters_and_are_runs_of_the_command(lab: Path) -> None:
    plan = planned(lab)
    by_name = {row.name: row for row in plan.rows}
    assert by_name["no mixup"].differs == {"mixup": (0.8, 0)}
    assert by_name["sgd"].differs == {"opt": ("adamw", "sgd"), "lr": (0.001, 0.1)}
    assert not any(row.undeclared for row in plan.rows)
    run = plan.runs[ids(plan)["sgd", 1]]
    assert run.recipe["parameters"] == {"opt": "sgd", "lr": 0.1, "mixup": 0.8, "flags": []}
    assert (run.recipe["seed"], run.recipe["data"]) == (1, {"id": "flowers-v1"})
    assert set(run.sources) == {"./train.py", "./mylab/nets.py"}
    told = plan.executions(plan.sweep.execution)[run.id]
    assert told.data_dir == str(lab / "flowers")
    assert told.program is not None
    assert (told.program.folder, told.program.metrics.primary) == (str(lab), "eval_top1")
    assert Execution.from_json(told.to_json()).program == told.program
    assert "program" not in told.record()


def test_a_run_is_known_by_what_is_run_and_by_no_path_label_or_metric(lab: Path, tmp_path: Path) -> None:
    before = ids(planned(lab))
    same: list[dict[str, Any]] = [
        {"title": "another", "margin": 2.0},
        {"data": {"id": "flowers-v1", "path": "/elsewhere"}},
        {"metrics": {"file": "{run}/other.jsonl", "primary": "loss", "better": "lower"}},
        {"command": ["python", *yaml.safe_load(SWEEP)["command"].split()[1:]]},
        {"parameters": {"lr": 0.001, "mixup": 0.8, "opt": "adamw", "flags": []}},
    ]
    for changes in same:
        assert ids(planned(lab, **changes)) == before, changes
    shutil.copytree(lab, tmp_path / "copy")
    assert ids(planned(tmp_path / "copy")) == before
    (lab / "mylab" / "nets.py").write_text('"""Networks."""\n\nWIDTH = 8  # a comment\n')
    assert ids(planned(lab)) == before
    other: list[dict[str, Any]] = [
        {"data": {"id": "flowers-v2"}},
        {"command": yaml.safe_load(SWEEP)["command"] + " --amp"},
        {"parameters": {"opt": "adamw", "lr": 2e-3, "mixup": 0.8, "flags": []}},
    ]
    for changes in other:
        assert set(ids(planned(lab, **changes)).values()).isdisjoint(
            set(before.values()) - {before["sgd", 0], before["sgd", 1]}
        )
    (lab / "mylab" / "nets.py").write_text("WIDTH = 16\n")
    assert set(ids(planned(lab)).values()).isdisjoint(before.values())
    (lab / "requirements.txt").write_text("timm==1.0\n")
    locked = ids(planned(lab, lock="requirements.txt"))
    (lab / "requirements.txt").write_text("timm==1.1\n")
    assert set(ids(planned(lab, lock="requirements.txt")).values()).isdisjoint(locked.values())


def test_a_pattern_takes_nothing_of_results_and_of_hidden_folders(lab: Path) -> None:
    before = planned(lab, sources=["**/*.py"])
    for folder in (".venv/lib", ".git", "results/runs/0123456789abcdef/attempts/1/output", "mylab/__pycache__"):
        (lab / folder).mkdir(parents=True)
        (lab / folder / "train.py").write_text("print(2)\n")
    assert ids(planned(lab, sources=["**/*.py"])) == ids(before)
    (run, *_) = planned(lab, sources=[".git/*.py", "mylab/*.py"]).runs.values()
    assert set(run.sources) == {"./train.py", "./mylab/nets.py", "./.git/train.py"}, "but where it is named"


def test_stages_give_their_output_to_others_and_share_what_their_command_is_not_told(lab: Path) -> None:
    plan = planned(
        lab,
        command="python train.py --lr {lr} --seed {seed} --from {parent} --by {teacher} --output {run} {flags} {opt}",
        parameters={"opt": "adamw", "lr": 1e-3, "flags": []},
        data=None,
        stages={
            "pre": {"command": "python train.py --lr {lr} --seed {seed} --output {run}", "parameters": {"lr": 0.5}},
            "big": {"command": "python train.py --seed {seed} --output {run}", "seeds": [0]},
            "tune": {"from": "pre", "teacher": "big"},
        },
        variants={"base": {}, "sgd": {"opt": "sgd"}, "slow": {"pre": {"lr": 0.1}}},
    )
    of = {(cell.variant, cell.seed, cell.stage): plan.runs[cell.run] for cell in plan.cells}
    tune, pre, big = of["sgd", 1, "tune"], of["sgd", 1, "pre"], of["sgd", 0, "big"]
    assert tune.parents == {"from": {"run": pre.id, "weights": "last"}, "teacher": {"run": big.id, "weights": "last"}}
    assert pre.recipe["parameters"] == {"lr": 0.5}
    assert big.recipe["parameters"] == {}
    assert of["base", 1, "pre"].id == pre.id, "the optimizer is none of its arguments"
    assert of["slow", 1, "pre"].recipe["parameters"] == {"lr": 0.1}
    told = plan.executions(plan.sweep.execution)
    required = {stage: told[run.id].program for (_, _, stage), run in of.items()}
    assert {stage: program is not None and program.required for stage, program in required.items()} == {
        "pre": False,
        "big": False,
        "tune": True,
    }


def test_a_teacher_that_continues_from_a_stage_takes_over_its_parameters(lab: Path) -> None:
    given = "python train.py --lr {lr} --seed {seed} --output {run} {flags} {opt} {mixup}"
    stages = {
        "pre": {"parameters": {"lr": 0.5}},
        "big": {"from": "pre", "command": f"{given} --from {{parent}}", "parameters": {"mixup": 0.2}},
        "last": {"teacher": "big", "command": f"{given} --by {{teacher}}"},
    }
    plan = planned(lab, command=given, stages=stages)
    (big,) = {cell.run for cell in plan.cells if (cell.seed, cell.stage) == (0, "big")}
    parameters = plan.runs[big].recipe["parameters"]
    assert (parameters["lr"], parameters["mixup"]) == (0.5, 0.2)


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ({"grid": {"lr": [0.1, 0.2], "opt": ["adamw", "sgd"]}}, 4),
        ({"zip": {"lr": [0.1, 0.2], "mixup": [0, 0.5]}}, 2),
        ({"leave_one_out": {"mixup": {"mixup": 0}}, "baseline": "baseline"}, 2),
        ({"add_one": {"flag": {"flags": ["--amp"]}}, "baseline": "baseline"}, 2),
        ({"cumulative": {"a": {"mixup": 0}, "b": {"opt": "sgd"}}, "baseline": "baseline", "orders": 2}, 4),
        ({"factorial": {"a": {"mixup": 0}, "b": {"opt": "sgd"}}, "baseline": "baseline"}, 4),
    ],
)
def test_every_kind_of_sweep_varies_parameters(lab: Path, kind: dict[str, Any], rows: int) -> None:
    plan = planned(lab, **{"variants": None, "baseline": None, **kind})
    assert len(plan.rows) == rows
    assert len({run.recipe["parameters"].__repr__() for run in plan.runs.values()}) == rows


def test_set_changes_a_parameter_of_all_rows(lab: Path) -> None:
    plan = make_plan(load_sweep(lab / "x.yaml", sets=["mixup=0.4"]))
    assert {run.recipe["parameters"]["mixup"] for run in plan.runs.values()} == {0.4, 0}


@pytest.mark.parametrize(
    ("values", "given"),
    [
        ({"lr": 1e-3, "flags": None}, ["a", "--lr=0.001"]),
        ({"lr": 1.0, "flags": ["--amp", "x y"]}, ["a", "--lr=1", "--amp", "x y"]),
        ({"lr": "; rm -rf $HOME", "flags": True}, ["a", "--lr=; rm -rf $HOME", "true"]),
        ({"lr": "{seed}", "flags": []}, ["a", "--lr={seed}"]),
        ({"lr": None, "flags": ["--amp"]}, ["a", "--amp"]),
    ],
)
def test_values_are_arguments_whatever_is_in_them(values: dict[str, Any], given: list[str]) -> None:
    assert arguments(["a", "--lr={lr}", "{flags}"], values) == given


METRICS = {"file": "{run}/s.csv", "primary": "top1", "better": "higher"}
BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "an unknown parameter in the command": (
        {"command": "x {seed} {lrr} {lr} {opt} {mixup} {flags}"},
        "command",
        "'lr'",
    ),
    "a parameter that no command is told": (
        {"command": "x {seed} {lr} {mixup} {flags}"},
        "parameters.opt",
        "no command is told it",
    ),
    "no seed": ({"command": "x {lr} {opt} {mixup} {flags}"}, "command", "not told the seed"),
    "a parent where there is none": ({"command": "x {seed} {lr} {opt} {mixup} {flags} {parent}"}, "command", "parent"),
    "a stage called like a parameter": ({"stages": {"lr": {}}}, "stages.lr", "'lr' cannot name a stage"),
    "an empty command of a stage": ({"stages": {"s": {"command": ""}}}, "stages.s.command", "an empty command"),
    "a column twice": (
        {"metrics": {**METRICS, "columns": ["loss", "loss"]}},
        "metrics.columns.1",
        "'loss' twice; expected each once",
    ),
    "an open quote": ({"command": "x 'y {seed}"}, "command", "No closing quotation"),
    "an open brace": ({"command": "x {seed} {lr"}, "command", "template"),
    "nothing to run": ({"command": "' '"}, "command", "is no"),
    "both": ({"trainer": "mylab.nets:main"}, "trainer", "both"),
    "an unknown key of a row": ({"variants": {"base": {}, "b": {"mixpu": 0}}}, "variants.b.mixpu", "'mixup'"),
    "a text for a number": ({"variants": {"base": {}, "b": {"lr": "fast"}}}, "variants.b.lr", "a number"),
    "a number for a text": ({"variants": {"base": {}, "b": {"opt": 3}}}, "variants.b.opt", "a text"),
    "true for a number": ({"variants": {"base": {}, "b": {"mixup": True}}}, "variants.b.mixup", "a number"),
    "a mapping for a value": ({"variants": {"base": {}, "b": {"opt": {"a": 1}}}}, "variants.b.opt.a", "unknown"),
    "not a number": ({"variants": {"base": {}, "b": {"lr": float("nan")}}}, "variants.b.lr", "finite"),
    "a list in a list": (
        {"variants": {"base": {}, "b": {"flags": [["--amp"]]}}},
        "variants.b.flags",
        "a list of plain",
    ),
    "not a number in a list": (
        {"variants": {"base": {}, "b": {"flags": [float("nan")]}}},
        "variants.b.flags",
        "finite",
    ),
    "a list in a list to choose": (
        {"metrics": {**METRICS, "validation": "val"}, "search": {"space": {"flags": [["--amp"], [["--amp"]]]}}},
        "search.space.flags",
        "a list of plain",
    ),
    "the same training twice": ({"variants": {"base": {}, "b": {"mixup": 0.8}}}, "variants", "same training"),
    "shows": ({"variants": {"base": {}, "b": {"shows": "ema"}}}, "variants.b.shows", "unknown parameter"),
    "switches by name": (
        {"variants": None, "baseline": None, "leave_one_out": ["mixup"]},
        "leave_one_out",
        "off value",
    ),
    "a recipe": ({"recipe": {"schedule.epochs": 3}}, "recipe", "a program trains"),
    "a profile": ({"profile": "digits"}, "profile", "a program trains"),
    "a metric of ours": ({"metric": "top1"}, "metric", "metrics: {primary"),
    "missing sources": ({"sources": ["nothing/*.py"]}, "sources.0", "names no file"),
    "sources elsewhere": ({"sources": ["../x.py"]}, "sources.0", "not below"),
    "a missing lock": ({"lock": "none.txt"}, "lock", "cannot be read"),
    "a parameter called seed": ({"parameters": {"seed": 1}}, "parameters.seed", "another name"),
    "no metrics": ({"metrics": None}, "metrics", "nothing says"),
    "a list of metrics": ({"metrics": ["top1"]}, "metrics", "nothing says"),
    "no primary": ({"metrics": {"file": "{run}/s.csv", "better": "higher"}}, "metrics.primary", "'primary'"),
    "no direction": ({"metrics": {"file": "{run}/s.csv", "primary": "x"}}, "metrics.better", "'better'"),
    "no file": ({"metrics": {"primary": "x", "better": "higher"}}, "metrics", "'file'"),
    "a file elsewhere": ({"metrics": METRICS | {"file": "s.csv"}}, "metrics.file", "{run}"),
    "an unknown form": ({"metrics": METRICS | {"file": "{run}/s.txt"}}, "metrics.file", "a pattern"),
    "a pattern without groups": (
        {"metrics": METRICS | {"file": "{log}", "pattern": "acc [0-9]"}},
        "metrics.pattern",
        "named groups",
    ),
    "a pattern without the metric": (
        {"metrics": METRICS | {"file": "{log}", "pattern": "acc (?P<top2>[0-9])"}},
        "metrics.primary",
        "'top2'",
    ),
    "an infinite default": (
        {"parameters": {"opt": "adamw", "lr": float("inf"), "mixup": 0.8, "flags": []}},
        "parameters.lr",
        "finite",
    ),
    "an option that null would leave without its value": (
        {"variants": {"base": {}, "b": {"opt": None}}},
        "opt",
        "expected --opt={opt} in the command",
    ),
    "a list within an argument": (
        {"command": "x {seed} {lr} {mixup} --opt={opt} --f={flags}"},
        "flags",
        "cannot stand within '--f={flags}'",
    ),
    "a fact of no parameter": ({"derived": {"f": ["lrr"]}}, "derived.f", "'lr'"),
    "a search without validation": ({"search": {"space": {"lr": [0.1, 1]}}}, "metrics", "metrics.validation"),
    "population without predictions": ({"population": True}, "population", "in `metrics`"),
    "ranks": ({"execution": {"ranks": 2}}, "execution.ranks", "starts its processes itself"),
    "ranks of a row": ({"resources": {"sgd": {"ranks": 4}}}, "resources.sgd.ranks", "starts its processes itself"),
    "execution by hand": ({"execution": {"program": {"folder": "/"}}}, "execution.program", "command"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_at_its_line(lab: Path, name: str) -> None:
    changes, key, words = BAD[name]
    with pytest.raises(InputError) as refused:
        planned(lab, **changes)
    text = str(refused.value)
    assert "y.yaml:" in text, text
    assert f": {key}: " in text, text
    assert words in text, text
    assert "\n" not in text


def test_keys_of_programs_are_refused_beside_none(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("profile: digits\nparameters: {a: 1}\nvariants: {a: {}}\n")
    with pytest.raises(InputError, match=r"x.yaml:2:1: parameters: .*beside no program"):
        load_sweep(path)
    path.write_text("profile: digits\nstages: {pre: {command: x}}\nvariants: {a: {}}\n")
    with pytest.raises(InputError, match=r"x.yaml:2:25: stages.pre.command: a command beside no command of the sweep"):
        load_sweep(path)


def test_choosing_by_the_metric_of_the_tables_is_warned_of(lab: Path) -> None:
    metrics = yaml.safe_load(SWEEP)["metrics"]
    with pytest.warns(UserWarning, match=r"y.yaml:\d+:\d+: metrics.validation: the metric that tables report, too"):
        planned(lab, metrics={**metrics, "validation": metrics["primary"]})
