"""Stages: in order of dependence, with the seeds and the teacher of those that they start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deit_ablate.errors import InputError
from deit_ablate.sweep.load import load_sweep
from deit_ablate.sweep.sweep import Sweep


def read(folder: Path, stages: str, **options: Any) -> Sweep:
    path = folder / "x.yaml"
    path.write_text(f"profile: digits\nseeds: 2\nstages: {stages}\nvariants: {{a: {{}}}}\n")
    return load_sweep(path, **options)


def test_stages_come_in_order_of_dependence_and_keep_their_teacher(tmp_path: Path) -> None:
    sweep = read(
        tmp_path,
        "{last: {from: student, weights: ema}, student: {from: pre, teacher: t}, pre: {}, t: {seeds: [7]}}",
    )
    names = [stage.name for stage in sweep.stages]
    assert names[-1] == sweep.final.name == "last"
    assert names.index("pre") < names.index("student")
    assert names.index("t") < names.index("student")
    found = {stage.name: stage for stage in sweep.stages}
    assert {name: stage.teacher for name, stage in found.items()} == {
        "t": None,
        "pre": None,
        "student": "t",
        "last": "t",
    }
    assert {name: stage.seeds for name, stage in found.items()} == {
        "t": (7,),
        "pre": (0, 1),
        "student": (0, 1),
        "last": (0, 1),
    }
    assert (found["last"].weights, found["last"].parents) == ("ema", ["t", "student"])
    assert sweep.lineage() == ["pre", "student", "last"]


def test_a_sweep_without_stages_has_one_without_a_name(tmp_path: Path) -> None:
    (stage,) = read(tmp_path, "null").stages
    assert (stage.name, stage.seeds, stage.parents) == ("", (0, 1), [])


def test_more_seeds_than_the_last_stage_has_of_its_own_are_refused(tmp_path: Path) -> None:
    stages = "{pre: {}, last: {from: pre, seeds: 2}}"
    assert [stage.seeds for stage in read(tmp_path, stages, seeds=2).stages] == [(0, 1), (0, 1)]
    with pytest.raises(
        InputError, match=r"x.yaml:3:\d+: stages.last.seeds: the last stage has seeds of its own, and --s"
    ):
        read(tmp_path, stages, seeds=5)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("{A: {}}", "x.yaml:3:10: stages.A: 'A' cannot name a stage; expected lower-case letters, digits, - and _"),
        ("{augment: {}}", "x.yaml:3:10: stages.augment: 'augment' cannot name a stage"),
        (
            "{t: {}, s: {teacher: tt}}",
            "x.yaml:3:30: stages.s.teacher: no stage 'tt'; did you mean 't'?; expected one of",
        ),
        ("{seeds: {}}\nby_profile: {digits: {seeds: 2}}", "x.yaml:3:10: stages.seeds: 'seeds' cannot name a stage"),
        ("{a: {from: a}}", "x.yaml:3:1: stages: the stages depend on one another in a circle: a -> a"),
    ],
)
def test_bad_stages(tmp_path: Path, stages: str, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        read(tmp_path, stages)
    assert str(refusal.value).removeprefix(f"{tmp_path}/").startswith(message)
