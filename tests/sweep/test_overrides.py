"""From layers to a recipe: keys that are checked, layers that are merged, weights that are named by their content."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import NAMED, files_of, planned, run_of

from deit_ablate import files
from deit_ablate.errors import InputError
from deit_ablate.sweep import names
from deit_ablate.sweep.overrides import check_layer, files_named, layer, to_recipe
from deit_ablate.sweep.plan import single_run
from deit_ablate.sweep.yaml import Node, assignment, parse

HEAD = "title: t\nprofile: digits\n"


def test_another_optimizer_takes_nothing_from_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "reset.yaml"
    path.write_text(
        HEAD + "recipe: {optimizer: {options: {betas: [0.9, 0.95]}, weight_decay: 0.07}}\n"
        "variants: {sgd: {optimizer: {name: sgd, base_lr: 0.8}}}"
    )
    optimizer = planned(path).rows[0].recipe.optimizer
    assert (optimizer.options, optimizer.base_lr, optimizer.weight_decay) == ({}, 0.8, 0.07)


def test_a_name_resets_what_belongs_to_another_name_and_only_that() -> None:
    lower = parse("optimizer: {name: sgd, base_lr: 0.5, options: {momentum: 0.9}, weight_decay: 0.1}", "low.yaml")
    other = layer(lower, parse("optimizer: {name: lamb}", "x.yaml"))
    assert other.plain() == {"optimizer": {"name": "lamb", "weight_decay": 0.1}}
    same = layer(lower, parse("optimizer: {name: sgd, options: {nesterov: true}}", "x.yaml"))
    assert same.plain()["optimizer"]["options"] == {"momentum": 0.9, "nesterov": True}
    default = parse("optimizer: {options: {betas: [0.9, 0.95]}}", "low.yaml")
    assert layer(default, parse("optimizer: {name: adamw}", "x.yaml")).plain()["optimizer"]["options"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "optimizr: {}",
            "x.yaml:1:1: optimizr: unknown key 'optimizr'; did you mean 'optimizer'?; expected one of data",
        ),
        (
            "augment: {mixpu: 1}",
            "x.yaml:1:11: augment.mixpu: unknown key 'mixpu'; did you mean 'mixup'?; expected one of",
        ),
        ("augment: 3", "x.yaml:1:10: augment: got 3; expected a mapping with some of "),
        ("seed: 1", "x.yaml:1:1: seed: unknown key 'seed'; did you mean 'seeds, at the top of the sweep'?"),
    ],
)
def test_keys_that_no_recipe_has(text: str, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        check_layer(parse(text, "x.yaml"))
    assert str(refusal.value).startswith(message)


def test_weights_are_named_by_their_content(tmp_path: Path) -> None:
    file = tmp_path / "teacher.pth"
    file.write_bytes(b"weights")
    text = "distill: {type: soft, teacher: test_vit, teacher_weights: teacher.pth}"
    node = parse(text, str(tmp_path / "x.yaml"))
    sha256 = f"sha256:{files.sha256(file)}"
    assert files_named(node) == {sha256: file}, "beside the YAML file"
    assert to_recipe(node).distill.teacher_weights == sha256
    assert files_named(parse(text.replace("teacher.pth", f"'{sha256}'"), "x.yaml")) == {}
    with pytest.raises(InputError, match=r"no such file: a/b\.pth"):
        files_named(assignment("distill.teacher_weights=a/b.pth"))  # from the working folder
    assert files_named(Node({}, ("x.yaml", 1, 1))) == {}
    file.write_bytes(b"other weights")
    assert to_recipe(parse(text, str(tmp_path / "x.yaml"))).distill.teacher_weights != sha256
    file.unlink()
    with pytest.raises(InputError, match=r"x.yaml:1:59: distill.teacher_weights: no such file: .*teacher.pth"):
        to_recipe(parse(text, str(tmp_path / "x.yaml")))


# -- weights files ----


def test_a_path_becomes_its_contents_hash(sweep: Callable[..., Path], weights: Path, tmp_path: Path) -> None:
    made = planned(sweep(NAMED % "files/teacher.pth"))
    sha256 = f"sha256:{files.sha256(weights)}"
    hard, none = run_of(made, "hard"), run_of(made, "none")
    assert hard.recipe["distill"]["teacher_weights"] == sha256
    assert hard.weights == files_of(made) == {sha256: weights}
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


def test_a_file_that_options_name_counts_by_its_content(
    sweep: Callable[..., Path], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    asked: list[dict[str, Any]] = []
    answer = {"ok": True, "sources": {}, "facts": {}}
    monkeypatch.setattr(names, "ask_worker", lambda requests: asked.extend(requests) or [answer for _ in requests])
    text = "seeds: 1\nvariants: {a: {model: {name: 'mylab:stored', options: {file: %s}}}}"
    sha256 = f"sha256:{files.sha256(weights)}"
    first = run_of(planned(sweep(text % "files/teacher.pth")), "a")
    assert first.recipe["model"]["options"] == {"file": sha256}
    assert first.weights == {sha256: weights}
    assert asked[-1]["options"] == {"file": str(weights.resolve())}, "who builds the model gets the path"
    shutil.copy(weights, tmp_path / "renamed.pth")
    assert run_of(planned(sweep(text % "./renamed.pth")), "a").id == first.id
    (tmp_path / "renamed.pth").write_bytes(b"other weights")
    assert run_of(planned(sweep(text % "./renamed.pth")), "a").id != first.id


def test_weights_to_start_from_count_by_their_content(sweep: Callable[..., Path], weights: Path) -> None:
    text = "seeds: 1\nvariants: {none: {}, init: {model.init: %s}}"
    made = planned(sweep(text % "files/teacher.pth"))
    sha256 = f"sha256:{files.sha256(weights)}"
    assert run_of(made, "init").recipe["model"]["init"] == sha256
    assert run_of(made, "init").weights == {sha256: weights}
    assert run_of(made, "none").id == run_of(planned(sweep("seeds: 1\nvariants: {none: {}}")), "none").id
    with pytest.raises(InputError, match=r"model.init: no such file: .*gone.pth; expected a checkpoint file"):
        planned(sweep(text % "gone.pth"))


@pytest.mark.parametrize("option", ["pretrained: true", "checkpoint_path: files/teacher.pth"])
def test_timms_own_roads_to_weights_are_refused(sweep: Callable[..., Path], weights: Path, option: str) -> None:
    text = "seeds: 1\nvariants: {a: {model: {name: vit_tiny_patch16_224, options: {%s}}}}"
    with pytest.raises(InputError, match=r"tiny.yaml:10:\d+: model.options.\w+: .*expected model: {init: FILE}"):
        planned(sweep(text % option))


def test_a_path_is_relative_to_the_file_it_stands_in(
    sweep: Callable[..., Path], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "mine.yaml").write_text(
        "recipe: {distill: {type: hard, teacher: test_vit, teacher_weights: ../files/teacher.pth}}"
    )
    own = tmp_path / "of_a_profile.yaml"
    own.write_text("profile: mine\nrecipe: {data: {name: digits}}\nvariants: {a: {}}")
    assert list(files_of(planned(own))) == [f"sha256:{files.sha256(weights)}"]
    plain = sweep("variants: {hard: {distill: {type: hard, teacher: test_vit}}}")
    monkeypatch.chdir(tmp_path / "files")
    made = planned(plain, sets=["distill.teacher_weights=teacher.pth"])
    assert list(files_of(made)) == [f"sha256:{files.sha256(weights)}"]
    assert planned(plain, sets=[f"distill.teacher_weights={weights}"]).runs.keys() == made.runs.keys()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "files/gone.pth",
            r"tiny.yaml:9:\d+: distill.teacher_weights: no such file: .*gone.pth; expected a checkpoint",
        ),
        ("files", r"tiny.yaml:9:\d+: distill.teacher_weights: not a file: .*files; expected a checkpoint file"),
        ("''", r"tiny.yaml:9:\d+: distill.teacher_weights: not a file: "),
        ("sha256:123", r"tiny.yaml:9:\d+: variants.hard.distill.teacher_weights: got"),
        ("3", r"tiny.yaml:9:\d+: variants.hard.distill.teacher_weights: got 3"),
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
    run, _ = single_run(path, ())
    assert run.weights == {f"sha256:{files.sha256(weights)}": weights}
    with pytest.raises(InputError, match=r"'soft' needs a teacher; expected distill.teacher, or a stage that teaches"):
        single_run(path, ("distill.teacher=null", "distill.teacher_weights=null"))


def test_an_alias_is_read_as_the_block_in_which_it_stands(sweep: Callable[..., Path]) -> None:
    """One YAML value under two keys is still two blocks of a recipe."""
    path = sweep("variants: {a: {model: {options: &x {depth: 1}}}, b: {regularize: &y {dropout: 0.2}, augment: *y}}\n")
    with pytest.raises(InputError, match=r"augment.dropout: unknown key"):
        planned(path)
