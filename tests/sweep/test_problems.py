"""What is wrong in a sweep file is told at once, each thing at its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deit_ablate.errors import InputErrors
from deit_ablate.sweep.load import load_sweep
from deit_ablate.sweep.plan import make_plan

WRONG = """profile: digits
seeds: x
margin: wide
recipe: {regularize: {drop_path: none}, augment: {auto_augment: 0, mixpu: 1}}
variants:
  a: {label_smoothing: 0.1}
  b: {optimizer.lr: 1.0, model.dim: 192}
  c: {augment: {erasing: false}, optimizr: {}}
"""


def test_all_that_is_wrong_in_a_file_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(WRONG)
    with pytest.raises(InputErrors) as refusal:
        load_sweep(path)
    told = [re.sub(r"^\S*:(\d+):\d+: ", r"\1: ", str(error)) for error in refusal.value.errors]
    expected = [
        ('2: seeds: got "x"', "how many seeds"),
        ('3: margin: got "wide"', ""),
        ('4: recipe.regularize.drop_path: got "none"', ""),
        ("4: recipe.augment.auto_augment: got 0", "null switches it off"),
        ("4: recipe.augment.mixpu: unknown key", "did you mean 'mixup'?"),
        ("6: variants.a.label_smoothing: unknown key", "did you mean 'regularize.label_smoothing'?"),
        ("7: variants.b.optimizer.lr: unknown key", "did you mean 'optimizer.base_lr'?"),
        ("7: variants.b.model.dim: unknown key", "did you mean 'model.options.embed_dim'?"),
        ("8: variants.c.augment.erasing: got false", ""),
        ("8: variants.c.optimizr: unknown key", "did you mean 'optimizer'?"),
    ]
    assert len(told) == len(expected), told
    for line, (begins, says) in zip(told, expected, strict=True):
        assert line.startswith(begins)
        assert says in line


OF_ALL_ROWS = """profile: digits
recipe: {optimizer: {name: sdg}}
stages: {first: {recipe: {schedule: {epochs: 0}}}, last: {from: first}}
grid:
  optimizer.base_lr: [0.1, -1, x]
  optimizer.nmae: [adamw, sgd]
"""
OF_A_PROGRAM = """command: [run, "{run}", "{lrr}"]
parameters: {lr: 0.5, steps: 3}
metrics: {file: "{run}/m.txt", primary: top1, better: higher}
margin: -1
variants: {a: {lr: x, stpes: 1}, b: {steps: 0.5}}
"""
NOT_TAUGHT = """profile: digits
variants:
  a: {distill.type: soft}
  b: {}
  c: {distill.type: hard}
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            OF_ALL_ROWS,
            [
                "2: recipe.optimizer.name: no optimizer is called 'sdg'",
                "3: stages.first.recipe.schedule.epochs: got 0",
                "5: grid.optimizer.base_lr: got -1",
                '5: grid.optimizer.base_lr: got "x"',
                "6: grid.optimizer.nmae: unknown key 'nmae'",
            ],
        ),
        (
            OF_A_PROGRAM,
            [
                "4: margin: got -1",
                "5: variants.a.lr: got 'x'",
                "5: variants.a.stpes: unknown parameter 'stpes'",
                "5: variants.b.steps: got 0.5",
            ],
        ),
        (
            OF_A_PROGRAM.replace("margin: -1\n", ""),
            [
                "1: command: no parameter 'lrr'",
                "1: command: the command is not told the seed",
                "3: metrics.file: '{run}/m.txt' is none of",
                "4: variants.a.lr: got 'x'",
                "4: variants.a.stpes: unknown parameter 'stpes'",
                "4: variants.b.steps: got 0.5",
            ],
        ),
        (NOT_TAUGHT, ["3: distill.type: 'soft' needs a teacher", "5: distill.type: 'hard' needs a teacher"]),
    ],
)
def test_of_every_row_value_and_parameter(tmp_path: Path, text: str, expected: list[str]) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(InputErrors) as refusal:
        make_plan(load_sweep(path))
    told = [re.sub(r"^\S*:(\d+):\d+: ", r"\1: ", str(error)) for error in refusal.value.errors]
    assert len(told) == len(expected), told
    for line, begins in zip(told, expected, strict=True):
        assert line.startswith(begins)
