"""Weights files: named by path in a sweep, by content in a recipe."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support import NAMED, planned, run_of

from deit_ablate import files
from deit_ablate.errors import InputError
from deit_ablate.sweep.plan import single_run


def test_a_path_becomes_its_contents_hash(sweep: Callable[..., Path], weights: Path, tmp_path: Path) -> None:
    made = planned(sweep(NAMED % "files/teacher.pth"))
    sha256 = f"sha256:{files.sha256(weights)}"
    hard, none = run_of(made, "hard"), run_of(made, "none")
    assert hard.recipe["distill"]["teacher_weights"] == sha256
    assert hard.weights == made.weights == {sha256: weights}
    assert none.weights == {}
    assert "files/" not in json.dumps(made.document("x")), "where a file lies is no part of a plan"

    (tmp_path / "elsewhere").mkdir()
    shutil.copy(weights, tmp_path / "elsewhere" / "renamed.bin")
    moved = planned(sweep(NAMED % "elsewhere/renamed.bin"))
    assert run_of(moved, "hard").id == hard.id
    assert run_of(planned(sweep(NAMED % sha256)), "hard").id == hard.id
    weights.write_bytes(b"other weights")
    os.utime(weights, ns=(1, 1))
    assert run_of(planned(sweep(NAMED % "files/teacher.pth")), "hard").id != hard.id


def test_a_path_is_relative_to_the_file_it_stands_in(
    sweep: Callable[..., Path], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "mine.yaml").write_text(
        "recipe: {distill: {type: hard, teacher: test_vit, teacher_weights: ../files/teacher.pth}}"
    )
    own = tmp_path / "of_a_profile.yaml"
    own.write_text("profile: mine\nrecipe: {data: {name: digits}}\nvariants: {a: {}}")
    assert list(planned(own).weights) == [f"sha256:{files.sha256(weights)}"]
    plain = sweep("variants: {hard: {distill: {type: hard, teacher: test_vit}}}")
    monkeypatch.chdir(tmp_path / "files")
    made = planned(plain, sets=["distill.teacher_weights=teacher.pth"])
    assert list(made.weights) == [f"sha256:{files.sha256(weights)}"]
    assert planned(plain, sets=[f"distill.teacher_weights={weights}"]).runs.keys() == made.runs.keys()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "files/gone.pth",
            r"tiny.yaml:9:\d+: distill.teacher_weights: no such file: .*gone.pth; expected a checkpoint",
        ),
        ("files", r"tiny.yaml:9:\d+: distill.teacher_weights: is no file: .*files; expected a checkpoint file"),
        ("''", r"tiny.yaml:9:\d+: distill.teacher_weights: is no file: "),
        ("sha256:123", r"tiny.yaml:9:\d+: distill.teacher_weights: got"),
        ("3", r"tiny.yaml:9:\d+: distill.teacher_weights: got 3"),
    ],
)
def test_a_file_that_is_not_there_is_said_with_its_line(
    given: str, said: str, sweep: Callable[..., Path], weights: Path
) -> None:
    with pytest.raises(InputError, match=said):
        planned(sweep(NAMED % given))


def test_a_recipe_file_may_name_a_teacher(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("profile: digits\ndistill: {type: soft, teacher: test_vit, teacher_weights: files/teacher.pth}")
    run = single_run(path, ())
    assert run.weights == {f"sha256:{files.sha256(weights)}": weights}
    with pytest.raises(InputError, match=r"'soft' needs a teacher; expected distill.teacher, or a sweep"):
        single_run(path, ("distill.teacher=null", "distill.teacher_weights=null"))
