"""The training loop: one recipe in, one outcome out. It reads from top to bottom, and runs alone.

    outcome = train(Recipe(...))          # in a notebook: nothing is written, nothing outside is needed

All that a process must know about the world (files, signals, heartbeats) it asks of its ``Journal``. A training
that is stopped anywhere and resumed by another process ends with the same bits as one left alone, because every
random draw is a function of (seed, purpose, position) and the journal's checkpoint holds the rest.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deit_ablate.errors import TrainError
from deit_ablate.identity import HUB
from deit_ablate.recipe import Recipe
from deit_ablate.train import precision
from deit_ablate.train.answers import keep_answers
from deit_ablate.train.checkpoint import Position, Training
from deit_ablate.train.data.loader import loaders_of, steps_per_epoch, training_batches
from deit_ablate.train.data.sets import DATASETS, Splits, load_data
from deit_ablate.train.distill import build_loss, recipe_model
from deit_ablate.train.distributed import Group, Share
from deit_ablate.train.initial import fit, freeze, read_weights
from deit_ablate.train.losses import Losses
from deit_ablate.train.mixing import build_mixing
from deit_ablate.train.optim import Ema, build_optimizer, build_schedule
from deit_ablate.train.outcome import Examiner, Outcome
from deit_ablate.train.streams import ModelDraws, seed_generators, stream
from deit_ablate.train.teachers import Parent, build_teacher, hub_weights, parent_weights

__all__ = ["Journal", "Outcome", "Parent", "TrainError", "train"]


ASK_EVERY = 16
"""Steps after which several ranks ask the first whether to stop or to save: each time they all wait for it."""


class Journal:
    """What a training tells the world, and asks of it. This one lives in memory; the worker's writes files."""

    def __init__(self) -> None:
        self.state: dict[str, Any] | None = None

    def data(self, facts: dict[str, Any]) -> None:
        """Once, before anything is trained: name, fingerprint, classes and counts of the data."""

    def resume(self) -> dict[str, Any] | None:
        """The newest checkpoint's state that verifies, or None to begin."""
        return copy.deepcopy(self.state)

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Keep this state: its tensors are the live ones, so copy or write them before returning."""
        self.state = copy.deepcopy(state)

    def checkpoint_due(self) -> bool:
        """Asked after each step: whether to save in mid-epoch."""
        return False

    def epoch_checkpoint_due(self, last: bool) -> bool:
        """Asked after each epoch. After the last one a checkpoint is always kept: a record's weights are in it."""
        return True

    def epoch(self, line: dict[str, Any]) -> None:
        """One finished epoch's metrics."""

    def progress(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """After each step, cheap: ``step`` of the epoch's ``steps`` is done, counted from 1; epochs from 0."""

    def stop(self) -> bool:
        """Asked after each step: True saves a checkpoint and returns with status "stopped"."""
        return False


class Quiet(Journal):
    """The journal that keeps nothing: of all ranks but the first, which do as the first does."""

    def checkpoint(self, state: dict[str, Any]) -> None:
        pass


def train(
    recipe: Recipe,
    *,
    journal: Journal | None = None,
    data_dir: Path | None = None,
    device: str = "cpu",
    loaders: int | None = None,
    parents: Mapping[str, Parent] | None = None,
    teacher_weights: Path | None = None,
    group: Group | None = None,
    accumulation: int = 1,
    compile: bool | str = False,
    channels_last: bool = False,
    deterministic: bool = False,
    evaluate_every: int | None = None,
    cache: Path | None = None,
) -> Outcome:
    """Train by the recipe, from the journal's checkpoint where it has one, and evaluate on the test split once.

    ``parents``: "teacher" for a distillation type that has one, "from" to start from a run's weights.
    ``cache``: a folder in which a teacher's answers are kept for other students; the same ones, bit for bit.
    ``teacher_weights``: the checkpoint file of a teacher that the recipe names. ``data_dir``, ``device`` and
    ``loaders`` (processes that prepare batches, see ``loaders_of``) change nothing in the result on a CPU, and
    ``evaluate_every`` (see ``Examiner``) only which epochs have scores on the validation part; the rest of the
    execution (and the number of torch threads, which is the caller's) changes bits. ``compile``: True, or a mode of
    torch.compile. ``group``: the ranks that train together.
    Raises TrainError for what the user can put right.
    """
    group, where = group or Group(), precision.numbered(device)
    journal = (journal or Journal()) if group.first else Quiet()
    parents, share = parents or {}, Share(group, accumulation)
    precision.set_up(where, deterministic, recipe.precision)
    data = _data(recipe, data_dir, group)
    loaders = loaders_of(loaders, recipe, data, where)
    share.check(recipe.schedule.batch_size, paired=recipe.mixes)
    journal.data(data.facts())
    steps = steps_per_epoch(recipe, data)

    model = initial_model(recipe, data, parents.get("from")).to(where)
    model = model.to(memory_format=torch.channels_last) if channels_last else model
    teacher = build_teacher(recipe, data, parents.get("teacher"), teacher_weights, where)
    ema = Ema(model, recipe.regularize.ema_decay) if recipe.regularize.ema_decay else None
    optimizer = build_optimizer(recipe, model)
    scaler = precision.build_scaler(recipe, where)
    set_lr = build_schedule(recipe, optimizer, steps)
    mix = build_mixing(recipe, len(data.dataset.classes))
    loss_of = build_loss(recipe)
    examiner = Examiner(recipe, data, model, ema, where, loaders, group, evaluate_every)
    half = precision.autocast(recipe, where)

    training, saved = Training(data, model, ema, optimizer, scaler), group.from_first(journal.resume())
    at = training.restore(saved) if saved is not None else Position()
    draws = ModelDraws(model, recipe.seed, where, apart=not compile)
    shared = group.wrap(precision.HeadsOf(model), where)
    student = precision.compiled(shared, compile)  # around the meeting of ranks, which it then overlaps
    if teacher:
        teacher.prepare(compile, channels_last)
    usual = where.type == "cpu" and share.chunks == 1 and not (compile or channels_last)
    kept_in, parent = cache if usual else None, parents.get("teacher")
    answers_of = keep_answers(teacher, parent, kept_in, recipe, data, steps * recipe.schedule.epochs)
    batches = training_batches(recipe, data, at.step, loaders, where, share, fused=bool(compile))
    losses = Losses(where, group)
    keep = precision.keeps_gradients(model, compile, accumulation)

    for epoch in draws.during(range(len(at.history), recipe.schedule.epochs)):
        model.train()
        clock = time.perf_counter() - at.seconds
        while at.step < (epoch + 1) * steps:
            batch = [part.chunk(accumulation) for part in next(batches)]
            set_lr(at.step)
            optimizer.zero_grad(set_to_none=not keep)
            chunks = []
            for part, (images, targets) in enumerate(zip(*batch, strict=True)):
                images, targets = mix(images, targets, at.step)
                images = images.contiguous(memory_format=torch.channels_last) if channels_last else images
                precision.begin_pass(compile)
                with half(), draws.at(share.position(at.step, part)):
                    outputs, answers = student(images), answers_of(images, at.step) if answers_of else None
                chunks.append(loss_of(outputs, targets, answers))
                with group.accumulating(shared, more=part + 1 < accumulation):
                    scaler.scale(chunks[-1]["total"] / accumulation).backward()

            losses.add(at.step, chunks)
            if losses.due(last=at.step + 1 == (epoch + 1) * steps):
                at.sums, diverged = losses.read(at.sums)
                if diverged:
                    return examiner.diverged(at, diverged)
            precision.update(model, optimizer, scaler, recipe.optimizer.clip_grad)
            if ema:
                ema.update()

            at.step += 1
            at.seconds = time.perf_counter() - clock
            journal.progress(epoch, at.step - epoch * steps, steps, losses.last)
            request = _request(journal, group, at.step, last=at.step == (epoch + 1) * steps)
            if request:
                at.sums, diverged = losses.read(at.sums)
                if diverged:
                    return examiner.diverged(at, diverged)
                journal.checkpoint(training.state(at))
            if request == "stop":
                return examiner.stopped(at)

        means = {name: total / steps for name, total in at.sums.items()}
        line = {
            "epoch": epoch,
            "step": at.step,
            "lr": set_lr(at.step - 1),
            "train_loss": means.pop("total"),
            "loss_parts": means,
            "validation": examiner.validate(epoch),
            "seconds": at.seconds,
            "images_per_second": steps * recipe.schedule.batch_size / at.seconds,
        }
        at.history, at.sums, at.seconds = [*at.history, line], {}, 0.0
        journal.epoch(line)
        if journal.epoch_checkpoint_due(last=epoch + 1 == recipe.schedule.epochs):
            journal.checkpoint(training.state(at))

    return examiner.finished(at)


def _request(journal: Journal, group: Group, step: int, last: bool) -> str:
    """What all ranks do after this step: "stop", "save", or "" to go on."""
    if group.ranks > 1 and step % ASK_EVERY and not last:
        return ""
    return str(group.from_first("stop" if journal.stop() else "save" if journal.checkpoint_due() else ""))


def _data(recipe: Recipe, data_dir: Path | None, group: Group) -> Splits:
    """The recipe's data. Of an image folder the first rank alone lists, hashes and checks the files, for all who have
    the same folder: a million files are a minute's work for a file system."""
    entry = DATASETS.get(recipe.data.name)
    if group.ranks == 1 or entry is None or not entry.files:
        return load_data(recipe, data_dir)
    data, folder = group.once(lambda: (load_data(recipe, data_dir), data_dir))
    return data if folder == data_dir else load_data(recipe, data_dir)


def initial_model(recipe: Recipe, data: Splits, parent: Parent | None) -> nn.Module:
    """The model before the first step: fresh weights from the stream "init", or those of a file or a model of timm's
    (``model.init``), or of the run it starts from, fitted to the recipe and the data; with what ``model.train_only``
    freezes."""
    seed_generators(stream(recipe.seed, "init"))
    model, init = recipe_model(recipe, data.dataset), recipe.model.init
    if init is not None:
        if parent is not None:
            raise TrainError("model.init and the stage's parent both give the weights to start from: set init to null")
        weights = hub_weights(init.removeprefix(HUB)) if init.startswith(HUB) else read_weights(Path(init))[0]
        fit(model, weights, f"{init} (model.init)")
    if parent is not None:
        fit(model, parent_weights(parent), "the parent's checkpoint", antialias=False)
    if recipe.model.train_only:
        freeze(model, recipe.model.train_only)
    return model
