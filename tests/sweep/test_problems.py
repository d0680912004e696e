"""What is wrong in a sweep file is told at once, each thing at its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deit_ablate.errors import InputErrors
from deit_ablate.sweep.load import load_sweep

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
        ("4: recipe.augment.mixpu: unknown key", "did you mean 'mixup'?"),
        ("4: recipe.augment.auto_augment: got 0", "null switches it off"),
        ("6: variants.a.label_smoothing: unknown key", "did you mean 'regularize.label_smoothing'?"),
        ("7: variants.b.optimizer.lr: unknown key", "did you mean 'optimizer.base_lr'?"),
        ("7: variants.b.model.dim: unknown key", "did you mean 'model.options.embed_dim'?"),
        ("8: variants.c.optimizr: unknown key", "did you mean 'optimizer'?"),
        ("8: variants.c.augment.erasing: got false", ""),
    ]
    assert len(told) == len(expected), told
    for line, (begins, says) in zip(told, expected, strict=True):
        assert line.startswith(begins)
        assert says in line
