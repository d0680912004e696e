"""Names in a sweep file are checked at their line, and the sources of custom ones are part of their runs' ids."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import VIT, planned

from deit_ablate.errors import InputError
from deit_ablate.sweep import names

MYLAB = """
def noise(image, rng, *, sigma: float = 1.0):
    return image


def blur(tensor, rng):
    return tensor
"""


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The worker's own function answers: a worker imports torch for each question."""
    from deit_ablate.train.names import ask

    monkeypatch.setattr(names, "ask_worker", ask)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mylab_pictures", raising=False)
    (tmp_path / "mylab_pictures.py").write_text(MYLAB)


@pytest.mark.parametrize(
    ("custom", "said"),
    [
        ('["mylab_pictures:noize"]', r"augment.custom.0: mylab_pictures:noize: 'mylab_pictures' has no 'noize'"),
        ('["mylab_pictures:noise", "no_lab:noise"]', "augment.custom.1: no_lab:noise: cannot find 'no_lab'"),
        ('[{name: "mylab_pictures:noise", options: {sgima: 2}}]', "has no option 'sgima'; did you mean 'sigma'?"),
        ('[{name: "mylab_pictures:noise", options: {sigma: wide}}]', "option 'sigma': got .wide.; expected a number"),
    ],
)
def test_custom_augmentations_are_checked(sweep: Callable[..., Path], custom: str, said: str) -> None:
    with pytest.raises(InputError, match=rf"tiny.yaml:11:\d+: .*{said}"):
        planned(sweep(f"variants:\n  a: {{}}\n  b: {{augment: {{custom: {custom}}}}}\n"))


def test_a_model_is_tried_at_the_shape_of_the_data(sweep: Callable[..., Path], tmp_path: Path) -> None:
    """Digits have one channel; what a shipped data set has is known before it is read."""
    (tmp_path / "mylab_nets.py").write_text(
        "from torch import nn\n\n\ndef net(shape):\n"
        "    if (shape.channels, shape.classes, shape.heads) != (1, 10, 1):\n"
        "        raise ValueError(f'for one channel, not {shape.channels}, and 10 classes, not {shape.classes}')\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(shape.resolution**2, 10))\n"
    )
    path = sweep('seeds: 1\nvariants: {a: {model: {name: "mylab_nets:net"}}}\n')
    assert len(planned(path).runs) == 1
    with pytest.raises(InputError, match="for one channel, not 3, and 10 classes, not 100"):
        planned(path, sets=["data.name=cifar100"])


def test_the_source_of_a_custom_augmentation_is_part_of_the_id(sweep: Callable[..., Path], tmp_path: Path) -> None:
    path = sweep('seeds: 1\nvariants:\n  a: {}\n  b: {augment: {custom: ["mylab_pictures:noise"]}}\n')
    before, after = {}, {}
    for found, text in ((before, MYLAB), (after, MYLAB + "\nSIGMA = 2\n")):
        (tmp_path / "mylab_pictures.py").write_text(text)
        plan = planned(path)
        found |= {cell.variant: cell.run for cell in plan.cells}
        assert list(plan.runs[found["b"]].sources) == ["mylab_pictures"]
        assert plan.runs[found["a"]].sources == {}
    assert before["a"] == after["a"]
    assert before["b"] != after["b"]


def test_teachers_names_are_checked_with_their_line(sweep: Callable[..., Path]) -> None:
    text = "variants:\n  hard: {distill: {type: hard, teacher: %s}}"
    assert len(planned(sweep(text % VIT)).runs) == 3
    for name, said in (
        ("regnety_16x", r"tiny.yaml:10:\d+: distill.teacher: no model is called 'regnety_16x'"),
        ("test_vit.mine", r"tiny.yaml:10:\d+: distill.teacher: test_vit.mine cannot be built: Invalid pretrained tag"),
        ("mylab:exploding", r"tiny.yaml:10:\d+: distill.teacher: 'mylab:exploding' is no pretrained model of timm's"),
        ("small_convnet", r"tiny.yaml:10:\d+: distill.teacher: 'small_convnet' is no pretrained model of timm's"),
    ):
        with pytest.raises(InputError, match=said):
            planned(sweep(text % name))


def test_one_teacher_is_needed_and_one_is_enough(sweep: Callable[..., Path]) -> None:
    with pytest.raises(
        InputError, match=r"'hard' needs a teacher; expected distill.teacher, or a stage that teaches: "
    ):
        planned(sweep("variants: {hard: {distill.type: hard}}"))
    stages = "stages:\n  teacher: {recipe: {model: {name: small_convnet}}}\n  student: {teacher: teacher}\n"
    rows = "variants:\n  one: {distill.type: hard}\n  two: {distill: {type: hard, teacher: test_vit}}"
    with pytest.raises(InputError, match=r"tiny.yaml:14:\d+: distill.teacher: the stage 'teacher' teaches already"):
        planned(sweep(stages + rows))
    tuned = "stages:\n  student: {}\n"
    tuned += "  tuned: {from: student, recipe: {data: {resolution: 24}, distill: {teacher_resolution: 32}}}\n"
    made = planned(sweep(f"{tuned}variants: {{two: {{distill: {{type: hard, teacher: test_vit}}}}}}"))
    taught = {cell.stage: made.runs[cell.run].recipe["distill"] for cell in made.cells}
    assert {stage: (part["teacher"], part["teacher_resolution"]) for stage, part in taught.items()} == {
        "student": ("test_vit", None),
        "tuned": ("test_vit", 32),
    }


def test_a_good_answer_about_unchanged_code_is_not_asked_for_again(
    sweep: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sweep('seeds: 1\nvariants: {b: {augment: {custom: ["mylab_pictures:noise"]}}}\n')
    asked: list[object] = []
    answer = names.ask_worker
    monkeypatch.setattr(names, "ask_worker", lambda requests: asked.extend(requests) or answer(requests))
    first = planned(path)
    (tmp_path / "mylab_pictures.py").write_text(MYLAB + "# a comment\n")
    assert planned(path).runs.keys() == first.runs.keys()
    assert len(asked) == 1
    (kept,) = (tmp_path / "cache" / "deit-ablate" / "answers").iterdir()
    kept.write_text("{")
    assert planned(path).runs.keys() == first.runs.keys()
    (tmp_path / "mylab_pictures.py").write_text(MYLAB + "SIGMA = 2\n")
    assert planned(path).runs.keys() != first.runs.keys()
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model: {name: vit_tinny_patch16_224}", r"model.name: no model is called .*; did you mean 'vit_tiny_patch16_"),
        (
            "optimizer: {name: adamx, base_lr: 0.1}",
            r"optimizer.name: no optimizer is called 'adamx'; did you mean 'adam",
        ),
        (
            "distill: {type: hrad, alpha: 0.5, teacher: test_vit}",
            r"distill.type: no distillation type is called 'hrad'; did you mean 'hard'",
        ),
        ("data: {name: digit}", r"data.name: no data set is called 'digit'; did you mean 'digits'"),
    ],
)
def test_a_name_that_does_not_exist_needs_no_worker(
    sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, override: str, said: str
) -> None:
    monkeypatch.setattr(names, "ask_worker", lambda requests: pytest.fail("the worker was asked"))
    with pytest.raises(InputError, match=rf"tiny.yaml:10:\d+: {said}"):
        planned(sweep(f"seeds: 1\nvariants: {{b: {{{override}}}}}\n"))
