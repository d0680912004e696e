"""A teacher's answers are kept: the same students, bit for bit, for fewer forward passes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import STEPS, Recording, tiny

from deit_ablate.recipe import Recipe
from deit_ablate.train import answers, checkpoint
from deit_ablate.train.loop import Outcome, Parent, train
from deit_ablate.train.teachers import Teacher

STUDENT: dict[str, Any] = {"augment": {"auto_augment": "rand-m9-mstd0.5-inc1", "mixup": 0.8, "cutmix": 1.0}}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Parent:
    journal = Recording()
    recipe = tiny(model={"name": "small_convnet", "options": {}}, schedule={"epochs": 1, "warmup_epochs": 0})
    train(recipe, journal=journal)
    path = tmp_path_factory.mktemp("teacher") / "ckpt.pt"
    assert journal.state is not None
    checkpoint.save(path, journal.state)
    return Parent(recipe, path)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps at which the teacher was asked."""
    steps: list[int] = []
    real = Teacher.__call__

    def ask(self: Teacher, images: torch.Tensor, step: int = 0) -> torch.Tensor:
        steps.append(step)
        return real(self, images, step)

    monkeypatch.setattr(Teacher, "__call__", ask)
    return steps


def student(parent: Parent, cache: Path | None, recipe: Recipe | None = None, **distill: Any) -> Outcome:
    recipe = recipe or tiny(distill={"type": "hard", **distill}, **STUDENT)
    return train(recipe, parents={"teacher": parent}, cache=cache)


def test_students_are_the_same_with_and_without(parent: Parent, tmp_path: Path, asked: list[int]) -> None:
    alone = [student(parent, None, type=kind) for kind in ("hard", "soft")]
    asked.clear()
    cache = tmp_path / "cache"
    first = student(parent, cache, type="hard")
    assert asked == list(range(2 * STEPS))
    asked.clear()
    second = student(parent, cache, type="soft")
    assert asked == [], "it sees the same batches"
    assert [first.weights_sha256, second.weights_sha256] == [each.weights_sha256 for each in alone]
    assert [first.metrics, second.metrics] == [each.metrics for each in alone]
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    "changed",
    [{"seed": 1}, {"augment": {"mixup": 0.4}}, {"data": {"train_images": 80}}, {"schedule": {"batch_size": 8}}],
    ids=str,
)
def test_other_batches_have_answers_of_their_own(
    parent: Parent, tmp_path: Path, asked: list[int], changed: dict[str, Any]
) -> None:
    student(parent, tmp_path)
    asked.clear()
    blocks = {**STUDENT, **changed, "augment": {**STUDENT["augment"], **changed.get("augment", {})}}
    student(parent, tmp_path, tiny(distill={"type": "hard"}, **blocks))
    assert asked
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_torn_or_damaged_is_computed(parent: Parent, tmp_path: Path, asked: list[int]) -> None:
    whole = student(parent, tmp_path)
    (file,) = tmp_path.iterdir()
    size = file.stat().st_size // (2 * STEPS)
    with open(file, "r+b") as opened:
        opened.seek(3 * size + 20)
        opened.write(b"\xff\xff\xff\xff")
        opened.truncate(5 * size + 7)
    asked.clear()
    assert student(parent, tmp_path).weights_sha256 == whole.weights_sha256
    assert asked == [3, *range(5, 2 * STEPS)]


def test_a_folder_that_cannot_be_had_costs_nothing_but_the_answers(parent: Parent, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert student(parent, tmp_path / "cache").status == "done"


def test_an_augmentation_of_ones_own_may_change_and_so_nothing_is_kept(parent: Parent, tmp_path: Path) -> None:
    student(parent, tmp_path, tiny(distill={"type": "hard"}, augment={"custom": ["tiny:noise"]}))
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_with_a_model_of_ones_own_may_change_and_so_nothing_is_kept(tmp_path: Path) -> None:
    journal = Recording()
    recipe = tiny(model={"name": "planted:net", "options": {}}, schedule={"epochs": 1, "warmup_epochs": 0})
    train(recipe, journal=journal)
    assert journal.state is not None
    checkpoint.save(tmp_path / "ckpt.pt", journal.state)
    assert student(Parent(recipe, tmp_path / "ckpt.pt"), tmp_path / "cache").status == "done"
    assert not (tmp_path / "cache").exists()


def test_files_used_longest_ago_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "ALL", 1000)
    (tmp_path / "ones own").write_bytes(bytes(5000))
    os.utime(tmp_path / "ones own", (1, 1))
    (tmp_path / "answers-folder").mkdir()
    for age, name in enumerate(["answers-new", "answers-old", "answers-oldest"]):
        (tmp_path / name).write_bytes(bytes(300))
        os.utime(tmp_path / name, (10_000 - age, 10_000 - age))
    answers.make_room(tmp_path, 100)
    assert len(list(tmp_path.iterdir())) == 5
    answers.make_room(tmp_path, 500)
    assert {path.name for path in tmp_path.iterdir()} == {"answers-new", "answers-folder", "ones own"}
