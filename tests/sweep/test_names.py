"""Teachers by name, checked at their line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support import VIT, planned

from deit_ablate.errors import InputError
from deit_ablate.sweep import names as planned_names


def test_teachers_names_are_checked_with_their_line(
    sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from deit_ablate.train import names

    monkeypatch.setattr(
        planned_names, "ask_worker", names.ask
    )  # in this process: a worker imports torch for each question
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
    tuned = "stages:\n  student: {}\n  tuned: {from: student, recipe: {data: {resolution: 24}, distill: {teacher_resolution: 32}}}\n"
    made = planned(sweep(f"{tuned}variants: {{two: {{distill: {{type: hard, teacher: test_vit}}}}}}"))
    taught = {cell.stage: made.runs[cell.run].recipe["distill"] for cell in made.cells}
    assert {stage: (part["teacher"], part["teacher_resolution"]) for stage, part in taught.items()} == {
        "student": ("test_vit", None),
        "tuned": ("test_vit", 32),
    }
