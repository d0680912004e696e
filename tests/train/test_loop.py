"""A whole training: what it reports, how it can end, and that every field of the recipe does something."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import STEPS, Recording, Stopping, tiny

from deit_ablate.errors import TrainError
from deit_ablate.train import checkpoint
from deit_ablate.train.distill import DISTILLATIONS
from deit_ablate.train.loop import Journal, Outcome, Parent, train

ONE: dict[str, Any] = {"schedule": {"epochs": 1, "warmup_epochs": 0.5, "batch_size": 16}}


def test_what_a_training_reports() -> None:
    journal = Recording()
    outcome = train(tiny(), journal=journal, evaluate_every=1)
    assert journal.facts["train"] == 96
    assert journal.facts["validation"] == 120
    assert journal.facts["test"] == 599
    assert len(journal.facts["fingerprint"]) == 64
    assert journal.seen == [(epoch, step, STEPS) for epoch in range(2) for step in range(1, STEPS + 1)]
    assert [(line["epoch"], line["step"]) for line in journal.lines] == [(0, STEPS), (1, 2 * STEPS)]
    for line in journal.lines:
        assert set(line) == {
            "epoch",
            "step",
            "lr",
            "train_loss",
            "loss_parts",
            "validation",
            "seconds",
            "images_per_second",
        }
        assert line["train_loss"] == pytest.approx(line["loss_parts"]["base"])
        assert line["validation"]["images"] == 120
    assert outcome.metrics["validation"] == journal.lines[-1]["validation"]
    assert outcome.metrics["train_loss"] == journal.lines[-1]["train_loss"]
    test = outcome.metrics["test"]
    assert set(test) == {"images", "classes", "loss", "top1", "top5", "top1_class", "top1_ema"}
    right = outcome.arrays["test_pred_class"] == outcome.arrays["test_targets"]
    assert test["top1"] == test["top1_class"] == pytest.approx(100 * right.mean())
    assert outcome.arrays["test_confidence_class"].dtype == np.float16
    assert set(outcome.arrays) == {"test_targets", "test_pred_class", "test_pred_ema", "test_confidence_class"}
    assert outcome.cost["parameters"] > 1000
    assert outcome.cost["flops"] > 10000
    assert outcome.cost["peak_memory_bytes"] > 10**7
    assert outcome.cost["device"] == "cpu"
    assert outcome.cost["images_per_second"] > 0


def test_it_learns() -> None:
    easy = {
        "augment": {
            "crop": "none",
            "hflip": 0.0,
            "auto_augment": None,
            "color_jitter": 0.0,
            "erasing": 0.0,
            "mixup": 0.0,
            "cutmix": 0.0,
            "repeats": 1,
        }
    }
    recipe = tiny(
        **easy,
        model={"name": "small_convnet", "options": {"width": 16}},
        data={"train_images": 400},
        regularize={"dropout": 0.0, "drop_path": 0.0},
        schedule={"epochs": 4},
    )
    outcome = train(recipe)
    assert outcome.status == "done"
    assert outcome.metrics["validation"]["top1"] > 70


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_without_a_gpu_one_is_not_found(device: str) -> None:
    with pytest.raises(TrainError, match=f"there is no GPU that can be used here .{device}.: device 'cpu' trains"):
        train(tiny(), device=device)


def test_without_validation_nothing_is_scored_before_the_end() -> None:
    journal = Recording()
    outcome = train(tiny(**ONE, data={"validation": 0.0}), journal=journal)
    assert journal.lines[0]["validation"] is None
    assert outcome.metrics["validation"] is None
    assert outcome.metrics["test"]["images"] == 599


# -- how it ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("journal", "status"), [(Journal(), "done"), (Stopping(1), "stopped")])
def test_the_model_that_is_handed_out_draws_anew_at_every_step(journal: Journal, status: str) -> None:
    small = {"train_images": 32, "validation": 0.0, "test": False}
    outcome = train(tiny(**ONE, data=small, regularize={"dropout": 0.5}), journal=journal)
    assert outcome.status == status
    assert outcome.model
    model, images = outcome.model.model.train(), torch.ones(4, 1, 16, 16)
    assert not torch.equal(model(images), model(images)), "as any other that is trained on"


def test_a_non_finite_loss_ends_it_at_once_and_the_numbers_are_kept() -> None:
    journal = Recording()
    recipe = tiny(
        optimizer={"name": "sgd", "base_lr": 1e25, "clip_grad": None},
        schedule={"epochs": 3, "warmup_epochs": 1.2, "warmup_lr": 0.0},
    )
    outcome = train(recipe, journal=journal)
    assert outcome.status == "diverged"
    assert outcome.reason == "non-finite loss at step 3"  # the rate is 0 at first, so two losses are sound
    assert journal.seen == [(0, 1, STEPS), (0, 2, STEPS)]
    assert outcome.metrics == {"test": None, "validation": None, "train_loss": None}
    assert outcome.arrays == {}


# -- parents --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Parent:
    """A convnet, trained for an epoch, as a run leaves it."""
    path = tmp_path_factory.mktemp("teacher") / "ckpt.pt"
    return trained(tiny(**ONE, model={"name": "small_convnet", "options": {"width": 8}}), path)


def trained(recipe: Any, path: Path, **more: Any) -> Parent:
    journal = Journal()
    train(recipe, journal=journal, **more)
    assert journal.state is not None
    checkpoint.save(path, journal.state)
    return Parent(recipe, path, "last")


@pytest.mark.parametrize("kind", [kind for kind, entry in DISTILLATIONS.items() if entry.teacher])
def test_every_distillation_type_trains_and_reports_its_heads(kind: str, teacher: Parent) -> None:
    journal = Recording()
    outcome = train(tiny(**ONE, distill={"type": kind}), journal=journal, parents={"teacher": teacher})
    parts, alpha = journal.lines[0]["loss_parts"], DISTILLATIONS[kind].alpha
    assert journal.lines[0]["train_loss"] == pytest.approx((1 - alpha) * parts["base"] + alpha * parts["distillation"])
    test, arrays = outcome.metrics["test"], outcome.arrays
    if DISTILLATIONS[kind].heads == 2:
        assert {"top1_class", "top1_distillation", "top1_fused_softmax", "top1_fused_logits", "top1_ema"} <= set(test)
        assert test["top1"] == test["top1_fused_softmax"]
        assert {"test_pred_class", "test_pred_distillation", "test_pred_fused_softmax", "token_similarity"} <= set(
            arrays
        )
        assert arrays["token_similarity"].shape == (3,)
        right = arrays["test_pred_distillation"] == arrays["test_targets"]
        assert test["top1_distillation"] == pytest.approx(100 * right.mean())
    else:
        assert "top1_distillation" not in test
        assert test["top1"] == test["top1_class"]


def test_the_teacher_stays_as_it_is_and_may_have_another_resolution(tmp_path: Path) -> None:
    small = trained(
        tiny(**ONE, data={"resolution": 8}, model={"name": "small_convnet", "options": {"width": 8}}), tmp_path / "8.pt"
    )
    before = small.weights.read_bytes()
    outcome = train(tiny(**ONE, distill={"type": "hard"}), parents={"teacher": small})
    assert outcome.metrics["train_loss"] > 0
    assert small.weights.read_bytes() == before
    two_headed = trained(tiny(**ONE, distill={"type": "hard-token"}), tmp_path / "two.pt", parents={"teacher": small})
    assert train(tiny(**ONE, distill={"type": "soft"}), parents={"teacher": two_headed}).metrics["train_loss"] > 0


def test_which_weights_of_the_parent_matter(teacher: Parent) -> None:
    soft = tiny(**ONE, distill={"type": "soft", "alpha": 0.9})
    last = train(soft, parents={"teacher": teacher})
    average = train(soft, parents={"teacher": dataclasses.replace(teacher, which="ema")})
    assert last.weights_sha256 != average.weights_sha256


def test_parents_that_are_missing_or_do_not_fit_are_said(teacher: Parent, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"distill\.type hard needs a teacher"):
        train(tiny(**ONE, distill={"type": "hard"}))
    other = dataclasses.replace(teacher, recipe=tiny(model={"name": "small_convnet", "options": {"width": 12}}))
    with pytest.raises(TrainError, match=r"the teacher's weights .* do not fit"):
        train(tiny(**ONE, distill={"type": "hard"}), parents={"teacher": other})
    gone = dataclasses.replace(teacher, weights=tmp_path / "gone.pt")
    with pytest.raises(TrainError, match=r"gone.pt does not exist"):
        train(tiny(**ONE, distill={"type": "hard"}), parents={"teacher": gone})


def test_fine_tuning_starts_from_the_parent_at_another_resolution(tmp_path: Path) -> None:
    recipe = tiny(schedule={"epochs": 2})
    parent = trained(recipe, tmp_path / "parent.pt")
    still = {"optimizer": {"base_lr": 1e-12}, "regularize": {"ema_decay": None}}
    same = train(tiny(**ONE, **still), parents={"from": parent})
    assert same.metrics["test"]["loss"] == pytest.approx(train(recipe).metrics["test"]["loss"], abs=1e-5)
    larger = train(tiny(**ONE, **still, data={"resolution": 24}), parents={"from": parent})
    average = train(tiny(**ONE, **still), parents={"from": dataclasses.replace(parent, which="ema")})
    assert len({same.weights_sha256, larger.weights_sha256, average.weights_sha256}) == 3
    assert larger.metrics["test"]["images"] == 599


# -- the moving average ---------------------------------------------------------------------------------------------


def test_the_average_is_scored_beside_the_raw_weights_and_does_not_touch_them() -> None:
    with_average, without = train(tiny()), train(tiny(regularize={"ema_decay": None}))
    assert with_average.weights_sha256 == without.weights_sha256
    assert "top1_ema" not in without.metrics["test"]
    still = train(tiny(regularize={"ema_decay": 0.999999}))
    assert still.metrics["test"]["top1_ema"] != still.metrics["test"]["top1"]


# -- every field ----------------------------------------------------------------------------------------------------

FIELDS: list[dict[str, Any]] = [
    {"data": {"resolution": 24}},
    {"data": {"validation": 0.2}},
    {"data": {"train_images": 100}},
    {"model": {"options": {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}}},
    {"augment": {"crop": "none"}},
    {"augment": {"crop": "random-resized"}},
    {"augment": {"hflip": 0.0}},
    {"augment": {"auto_augment": None}},
    {"augment": {"auto_augment": "rand-m9-mstd0.5-inc1"}},
    {"augment": {"erasing": 0.0}},
    {"augment": {"mixup": 0.0}},
    {"augment": {"cutmix": 0.0}},
    {"augment": {"mix_prob": 0.5}},
    {"augment": {"mix_switch": 0.9}},
    {"augment": {"repeats": 1}},
    {"regularize": {"label_smoothing": 0.0}},
    {"regularize": {"drop_path": 0.0}},
    {"regularize": {"dropout": 0.0}},
    {"optimizer": {"name": "sgd"}},
    {"optimizer": {"base_lr": 0.02}},
    {"optimizer": {"weight_decay": 0.5}},
    {"optimizer": {"clip_grad": None}},
    {"optimizer": {"options": {"betas": [0.8, 0.9]}}},
    {"schedule": {"epochs": 2}},
    {"schedule": {"batch_size": 8}},
    {"schedule": {"warmup_epochs": 0.0}},
    {"schedule": {"warmup_lr": 1e-4}},
    {"schedule": {"min_lr": 1e-4}},
    {"schedule": {"stepping": "epoch"}},
    {"seed": 1},
]


def one_epoch(blocks: dict[str, Any]) -> Outcome:
    """The whole of one epoch's training."""
    schedule = {**ONE["schedule"], **blocks.get("schedule", {})}
    return train(tiny(**{**blocks, "schedule": schedule}))


def weights_of(blocks: dict[str, Any]) -> str:
    """The weights after an epoch's steps (stopped there, because scoring would take longer)."""
    schedule = {**ONE["schedule"], **blocks.get("schedule", {})}
    return train(tiny(**{**blocks, "schedule": schedule}), journal=Stopping(STEPS)).weights_sha256


@functools.cache
def baseline() -> str:
    return weights_of({})


@pytest.mark.parametrize("blocks", FIELDS, ids=str)
def test_every_field_changes_the_weights(blocks: dict[str, Any]) -> None:
    assert weights_of(blocks) != baseline()


JITTER: dict[str, Any] = {"auto_augment": None, "color_jitter": 0.4}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (JITTER, {**JITTER, "color_jitter": 0.0}),
        ({"crop": "random-resized"}, {"crop": "random-resized", "crop_scale": (0.5, 1.0)}),
        ({"crop": "random-resized"}, {"crop": "random-resized", "crop_ratio": (1.0, 1.0)}),
    ],
)
def test_fields_that_act_where_another_is_set(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert weights_of({"augment": before}) != weights_of({"augment": after})


def test_the_evaluation_crop_changes_the_scores_alone() -> None:
    cropped, whole = one_epoch({"data": {"eval_crop": 0.5}}), one_epoch({})
    assert cropped.weights_sha256 == whole.weights_sha256
    assert cropped.metrics["test"]["loss"] != whole.metrics["test"]["loss"]


def test_temperature_and_alpha_change_the_weights(teacher: Parent) -> None:
    def weights(**distill: Any) -> str:
        recipe = tiny(**ONE, distill={"type": "soft", **distill})
        return train(recipe, journal=Stopping(STEPS), parents={"teacher": teacher}).weights_sha256

    assert len({weights(), weights(tau=1.0), weights(alpha=0.5)}) == 3


def test_colour_images_train_too(tmp_path: Path) -> None:
    from tiny import write_tree

    write_tree(tmp_path, {"cat": 12, "dog": 12})
    data = {"name": "imagefolder", "id": "pets", "train_images": None, "validation": 0.25, "eval_crop": 0.875}
    recipes = tiny(
        data=data,
        augment={"crop": "random-resized", "auto_augment": "rand-m9-mstd0.5-inc1"},
        schedule={"batch_size": 8},
    )
    alone, helped = train(recipes, data_dir=tmp_path), train(recipes, data_dir=tmp_path, loaders=2)
    assert alone.metrics["test"]["images"] == 24
    assert "top5" not in alone.metrics["test"]
    assert (alone.weights_sha256, alone.metrics) == (helped.weights_sha256, helped.metrics)
