"""What a notebook calls: the names of the package, a DeiT with its teacher, training with a bar, recipes of records."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from tiny import tiny
from torch import nn
from torchvision.models import resnet50

import deit_ablate
from deit_ablate import DeiT, DistillWrapper, Recipe, distillation_loss, profile, train
from deit_ablate.errors import InputError, TrainError
from deit_ablate.identity import canonical
from deit_ablate.train.model import heads


def small(**more: int) -> nn.Module:
    return DeiT(image_size=32, patch_size=16, num_classes=10, dim=24, depth=1, heads=2, mlp_dim=48, **more)


def test_the_example_of_the_readme() -> None:
    of_student = {"dim": 1024, "depth": 6, "heads": 8, "mlp_dim": 2048, "dropout": 0.1, "emb_dropout": 0.1}
    student = DeiT(image_size=256, patch_size=32, num_classes=1000, **of_student)
    teacher = resnet50()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    distiller = DistillWrapper(student, teacher, temperature=3.0, alpha=0.5, hard=False)
    images, labels = torch.randn(2, 3, 256, 256), torch.randint(0, 1000, (2,))
    loss = distiller(images, labels)
    loss.backward()
    assert loss.shape == ()
    assert all(value.grad is not None for value in student.parameters())
    assert all(value.grad is None for value in teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items()), "its statistics too"
    assert student.eval()(images).shape == (2, 1000)


@pytest.mark.parametrize("hard", [False, True])
def test_the_loss_is_that_of_the_type(hard: bool) -> None:
    student, teacher = small(), nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([1, 2, 3, 4])
    found = DistillWrapper(student, teacher, temperature=2.0, alpha=0.3, hard=hard)(images, labels)
    of_class, of_teacher = heads(student, images)
    assert of_teacher is not None
    taught = teacher(images)
    if hard:
        term = nn.functional.cross_entropy(of_teacher, taught.argmax(1))
    else:
        soft = (taught / 2).softmax(1)
        term = 4 * (soft * (soft.log() - (of_teacher / 2).log_softmax(1))).sum(1).mean()
    assert found.item() == pytest.approx(
        (0.7 * nn.functional.cross_entropy(of_class, labels) + 0.3 * term).item(), rel=1e-5
    )


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(TrainError, match="not a multiple of the patch size"):
        DeiT(image_size=30, patch_size=16)
    with pytest.raises(TrainError, match="2 head"):
        DistillWrapper(nn.Flatten(), small())(torch.randn(1, 3, 32, 32), torch.tensor([1]))


def test_the_package_lists_what_it_offers_and_imports_it_when_used() -> None:
    assert {"Recipe", "train", "load", "load_curves", "profile", "DeiT", "DistillWrapper"} <= set(dir(deit_ablate))
    code = "import sys; from deit_ablate import Recipe, profile, train; Recipe(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert deit_ablate.distillation_loss is distillation_loss


def test_a_recipe_reads_its_own_record() -> None:
    recipe = Recipe(seed=3)
    assert Recipe(**recipe.model_dump(mode="json")) == recipe
    assert canonical(Recipe(**canonical(recipe))) == canonical(recipe)


def test_a_profile_is_a_recipe() -> None:
    assert profile("digits", "schedule.epochs=10").schedule.epochs == 10
    with pytest.raises(InputError, match="no profile 'digit'"):
        profile("digit")


def test_training_shows_its_progress_and_ends_with_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    outcome = train(tiny())
    assert "epoch " in capfd.readouterr().err
    assert len(repr(outcome)) < 100
    assert repr(outcome).startswith("Outcome(done, top1=")
