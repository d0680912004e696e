"""A step of our training beside a step of the loop that one would write with timm, for the same recipe."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from timm.data import Mixup
from timm.data.auto_augment import rand_augment_transform
from timm.data.distributed_sampler import RepeatAugSampler
from timm.data.random_erasing import RandomErasing
from timm.loss import SoftTargetCrossEntropy
from timm.optim import param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms

from deit_ablate.identity import recipe_of_record
from deit_ablate.recipe import Recipe
from deit_ablate.sweep.load import load_sweep
from deit_ablate.sweep.plan import make_plan
from deit_ablate.train.data.loader import training_batches
from deit_ablate.train.data.sets import Splits, load_data
from deit_ablate.train.distill import base_loss
from deit_ablate.train.loop import Journal, initial_model, train
from deit_ablate.train.mixing import build_mixing
from deit_ablate.train.optim import build_optimizer


def recipe_of(profile: str, folder: Path, row: str = "{}") -> Recipe:
    """The recipe of a profile, which a row's overrides may change."""
    path = folder / f"{profile}.yaml"
    path.write_text(f"profile: {profile}\nvariants: {{row: {row}}}\n")
    run = next(iter(make_plan(load_sweep(path, seeds=1)).runs.values()))
    return recipe_of_record(run.recipe, lambda sha256: None)


def timed(function: Callable[[], Any]) -> float:
    """CPU seconds of this process."""
    begun = time.process_time()
    function()
    return time.process_time() - begun


class Pictures:
    """The training part as a loader of timm's would have it: PIL images through the recipe's transforms."""

    def __init__(self, recipe: Recipe, data: Splits) -> None:
        augment, dataset = recipe.augment, data.dataset
        grey = round(255 * dataset.mean[0])
        assert augment.auto_augment is not None
        policy = rand_augment_transform(
            augment.auto_augment,
            {
                "translate_const": int(recipe.data.resolution * 0.45),
                "img_mean": grey,
                "interpolation": Image.Resampling.BICUBIC,
            },
        )
        self.images: Any = dataset.train
        self.indices = data.train
        self.transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(augment.hflip),
                policy,
                transforms.ToTensor(),
                transforms.Normalize(dataset.mean, dataset.std),
                RandomErasing(augment.erasing, mode="pixel", device="cpu"),
            ]
        )

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        index = self.indices[number]
        return self.transform(Image.fromarray(self.images.pixels[index])), int(self.images.targets[index])


class PlainLoop:
    """The rival: timm's transforms, sampler, mixing, schedule and average, torch's loader and fused AdamW."""

    def __init__(self, recipe: Recipe, data: Splits) -> None:
        classes, plan = len(data.dataset.classes), recipe.schedule
        pictures: Any = Pictures(recipe, data)
        self.sampler = RepeatAugSampler(
            pictures, num_replicas=1, rank=0, num_repeats=recipe.augment.repeats, selected_round=0
        )
        self.loader: Any = DataLoader(
            pictures, batch_size=plan.batch_size, sampler=self.sampler, num_workers=0, drop_last=True
        )
        self.mixup = Mixup(
            mixup_alpha=recipe.augment.mixup,
            cutmix_alpha=recipe.augment.cutmix,
            prob=recipe.augment.mix_prob,
            switch_prob=recipe.augment.mix_switch,
            label_smoothing=recipe.regularize.label_smoothing,
            num_classes=classes,
        )
        model: Any = initial_model(recipe, data, None).train()
        model.patch_embed.proj.__class__ = nn.Conv2d  # as timm has it
        self.model = model
        lr = recipe.optimizer.base_lr * plan.batch_size / 512
        weight_decay = recipe.optimizer.weight_decay
        groups = param_groups_weight_decay(self.model, weight_decay, no_weight_decay_list=("cls_token", "pos_embed"))
        self.optimizer = torch.optim.AdamW(groups, lr=lr, fused=True)
        steps = len(self.loader)
        self.scheduler = CosineLRScheduler(
            self.optimizer,
            t_initial=plan.epochs * steps,
            lr_min=plan.min_lr,
            warmup_t=round(plan.warmup_epochs * steps),
            warmup_lr_init=plan.warmup_lr,
            t_in_epochs=False,
        )
        assert recipe.regularize.ema_decay is not None, "a profile's baseline averages its weights"
        self.average = ModelEmaV3(self.model, decay=recipe.regularize.ema_decay)
        self.loss = SoftTargetCrossEntropy()
        self.done = 0
        self.batches = self._endless()

    def _endless(self) -> Iterator[Any]:
        epoch = 0
        while True:
            self.sampler.set_epoch(epoch)
            yield from self.loader
            epoch += 1

    def steps(self, count: int) -> None:
        for _ in range(count):
            images, targets = next(self.batches)
            images, targets = self.mixup(images, targets)
            loss = self.loss(self.model(images), targets)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.average.update(self.model)
            self.done += 1
            self.scheduler.step_update(self.done)


class Interleaved(Journal):
    """Lets the rival do as many steps as we have just done, and so on; keeps what each such chunk took.

    Between an epoch's last step and its checkpoint lies an evaluation, which is no part of a step.
    """

    def __init__(self, rival: Callable[[int], None], chunk: int, chunks: int) -> None:
        super().__init__()
        self.rival, self.chunk, self.chunks = rival, chunk, chunks
        self.ours: list[float] = []
        self.theirs: list[float] = []
        self.count, self.spent, self.clock = 0, 0.0, 0.0

    def data(self, facts: dict[str, Any]) -> None:
        self.clock = time.process_time()

    def checkpoint(self, state: dict[str, Any]) -> None:
        self.clock = time.process_time()

    def progress(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self.spent += time.process_time() - self.clock
        self.count += 1
        if self.count == self.chunk:
            self.ours.append(self.spent)
            self.theirs.append(timed(lambda: self.rival(self.chunk)))
            self.count, self.spent = 0, 0.0
        self.clock = time.process_time()

    def stop(self) -> bool:
        return len(self.ours) > self.chunks


@dataclass(frozen=True)
class Steps:
    """Medians of CPU milliseconds of a step: ours, the rival's, and of ours what its parts take alone."""

    profile: str
    batch: int
    ours: float
    theirs: float
    parts: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        return self.theirs / self.ours

    @property
    def limit(self) -> float:
        """The ratio if all but the model and its optimizer cost nothing."""
        return self.theirs / (self.parts["forward"] + self.parts["backward"] + self.parts["optimizer"])


def model_alone(recipe: Recipe, data: Splits, count: int) -> dict[str, float]:
    """Milliseconds of the parts of a step of the model on one mixed batch that stays the same."""
    model = initial_model(recipe, data, None).train()
    optimizer = build_optimizer(recipe, model)
    loss_of: nn.Module | Any = base_loss(recipe.regularize, recipe.mixes)
    images, targets = next(training_batches(recipe, data, 0, 0))
    images, targets = build_mixing(recipe, len(data.dataset.classes))(images, targets, 0)
    found: dict[str, list[float]] = {"forward": [], "backward": [], "optimizer": []}
    for _ in range(count):
        times = [time.process_time()]
        loss = loss_of(model(images), targets)
        times.append(time.process_time())
        loss.backward()
        times.append(time.process_time())
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.process_time())
        for name, before, after in zip(found, times, times[1:], strict=False):
            found[name].append(1000 * (after - before))
    return {name: statistics.median(times) for name, times in found.items()}


def data_alone(recipe: Recipe, data: Splits, chunk: int, chunks: int) -> float:
    """Milliseconds of fetching a batch, over whole blocks."""
    batches = training_batches(recipe, data, 0, 0)
    times = [timed(lambda: [next(batches) for _ in range(chunk)]) for _ in range(chunks + 1)]
    return 1000 * statistics.median(times[1:]) / chunk


def mixing_alone(recipe: Recipe, data: Splits, count: int) -> float:
    """Milliseconds of mixing a batch, on average over its chances."""
    mix = build_mixing(recipe, len(data.dataset.classes))
    images, targets = next(training_batches(recipe, data, 0, 0))
    return 1000 * timed(lambda: [mix(images.clone(), targets, step) for step in range(count)]) / count


def measure(profile: str, folder: Path, quick: bool) -> Steps:
    """Both loops, interleaved by chunks that are whole blocks of our batches."""
    recipe = recipe_of(profile, folder)
    data = load_data(recipe, None)
    chunk = 40 if profile == "digits" else 10
    chunks = 1 if quick else 400 // chunk
    rival = PlainLoop(recipe, data)
    journal = Interleaved(rival.steps, chunk, chunks)
    train(recipe, journal=journal)
    ours, theirs = (1000 * statistics.median(times[1:]) / chunk for times in (journal.ours, journal.theirs))
    count = 3 if quick else 100
    parts = {"data": data_alone(recipe, data, chunk, 1 if quick else 10)}
    parts |= {"mixing": mixing_alone(recipe, data, count), **model_alone(recipe, data, count)}
    parts["rest"] = ours - sum(parts.values())
    return Steps(profile, recipe.schedule.batch_size, ours, theirs, parts)


if __name__ == "__main__":
    import sys
    import tempfile

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        for name in sys.argv[1:]:
            found = measure(name, Path(made), False)
            print(name, found, found.ratio, found.limit)
