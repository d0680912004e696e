"""Whether what a row changes does anything, told before it is trained.

Of two recipes each part of a training that reads a key in which they differ is built twice and compared bit for bit:
not for a few steps alone, in which a warm-up, a threshold or a rare draw need not show, but as a function. The learning
rate over the whole schedule, the loss over logits of many sizes, the optimizer over gradients of many sizes, the images
over so many views that a change of one in a hundred would be seen, the model over steps of its own. Equal parts make an
equal training. What this cannot tell counts as an effect, and so does a key that no part here reads.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deit_ablate.identity import difference
from deit_ablate.recipe import Recipe, flatten
from deit_ablate.train.augment import Augmenter, Normalise, to_pixels
from deit_ablate.train.data.images import ArrayImages
from deit_ablate.train.data.loader import TrainingImages, evaluation_batches, steps_per_epoch
from deit_ablate.train.data.sets import Splits
from deit_ablate.train.distill import build_loss, distillation_of
from deit_ablate.train.loop import initial_model
from deit_ablate.train.mixing import build_mixing
from deit_ablate.train.model import heads
from deit_ablate.train.optim import build_optimizer, build_schedule, effective_lr
from deit_ablate.train.streams import ModelDraws

CHANCE = 1e-6
"""Of taking a key that acts now and then for one that does nothing."""
VIEWS = 1400
"""Views of training images, and mixed batches: 0.99^1400 is below CHANCE."""
STEPS, BATCH = 10, 32
"""Of a model."""
UPDATES = 40
"""Of an optimizer, on gradients of each kind."""
SIDE = 4
"""Of its weights, at most."""
LARGEST = 10_000_000
"""Parameters of a model up to which it is tried out."""
SECONDS = 20.0
"""Of a CPU, after which two recipes are left undecided: only where none of it has shown a difference."""

Part = Callable[[Recipe, Splits], Iterator[Any]]
"""What a part of a training does with a recipe, piece by piece, what is quick and telling first."""


class Undecided(Exception):
    """A part does what a few steps do not tell of."""


def data(recipe: Recipe, splits: Splits) -> Iterator[Any]:
    yield {**splits.facts(), "name": None}
    yield splits.train
    yield splits.validation
    for part in (splits.dataset.train, splits.dataset.test):  # a fingerprint of one's own may not be of all of it
        yield part.targets
        yield part.pixels if isinstance(part, ArrayImages) else len(part)
    few = np.arange(min(8, len(splits.dataset.test)))
    yield next(evaluation_batches(recipe, splits.dataset, splits.dataset.test, few))
    if ":" in recipe.data.name and not isinstance(splits.dataset.test, ArrayImages):
        raise Undecided("not all pictures of a data set of one's own are looked at")


def images(recipe: Recipe, splits: Splits) -> Iterator[Any]:
    """What comes when, how it is changed and mixed: functions of the seed and of the view, whatever the epoch."""
    yield recipe.augment.repeats, recipe.schedule.batch_size, steps_per_epoch(recipe, splits)
    made = TrainingImages(splits.dataset.train, Augmenter(recipe, splits.dataset))
    mix = build_mixing(recipe, len(splits.dataset.classes))
    some = splits.train[:VIEWS].tolist()
    views = [(number // min(100, len(some)), some[number % len(some)], 0) for number in range(VIEWS)]  # all different
    for start in range(0, VIEWS, 20):
        yield made.finished(*made.__getitems__(views[start : start + 20]))[0]
        for step in range(start, start + 20):
            yield mix(torch.arange(4.0).view(4, 1, 1, 1).repeat(1, 1, 16, 16), torch.arange(4) % 2, step)


def model(recipe: Recipe, splits: Splits) -> Iterator[Any]:
    """Its first weights, and some steps of gradient descent on random targets, with its own draws."""
    with torch.device("meta"):
        blank = initial_model(recipe, splits, None)
    yield [(name, tuple(value.shape)) for name, value in blank.state_dict().items()]
    if (size := sum(parameter.numel() for parameter in blank.parameters())) > LARGEST:
        yield str(blank)
        raise Undecided(f"a model of {size / 1e6:.0f} million parameters is not tried out")
    built = initial_model(recipe, splits, None)
    yield built.state_dict()
    indices = np.resize(splits.train, BATCH).tolist()
    side = recipe.data.resolution
    pictures = [splits.dataset.train[index].resize((side, side)) for index in indices]
    batch = Normalise(splits.dataset)(to_pixels(map(np.asarray, pictures)))
    before = _counters(built)
    yield _outputs(built.eval(), batch)
    draws = ModelDraws(built.train(), recipe.seed, torch.device("cpu"))
    for step in range(STEPS):
        built.zero_grad()
        with draws.at((step,)):
            outputs = _outputs(built, batch)
        yield outputs
        aims = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(step))
        (outputs * aims).mean().backward()
        with torch.no_grad():
            for parameter in built.parameters():
                if parameter.grad is not None:
                    parameter.sub_(0.1 * parameter.grad)
        yield built.state_dict()
    yield _outputs(built.eval(), batch)
    if _counters(built) != before:
        raise Undecided("the model counts its steps, so that it may act later")


def _outputs(built: nn.Module, batch: Tensor) -> Tensor:
    return torch.stack([each for each in heads(built, batch) if each is not None])


def _counters(built: nn.Module) -> dict[str, Any]:
    """A model's own numbers beside its weights; batch norm's count of batches is read by nothing."""
    numbers = {
        f"{name}.{key}": value
        for name, module in built.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, (int, float)) and key != "training"
    }
    whole = {name: buffer.tolist() for name, buffer in built.named_buffers() if not buffer.is_floating_point()}
    return {**numbers, **{name: value for name, value in whole.items() if not name.endswith("num_batches_tracked")}}


def loss(recipe: Recipe, splits: Splits) -> Iterator[Any]:
    """Its value and gradients, on logits from nearly equal to far apart."""
    loss_of, classes = build_loss(recipe), len(splits.dataset.classes)
    two = distillation_of(recipe.distill.type).heads == 2
    for number, scale in enumerate((1, 0.01, 0.1, 10, 100) * 4):
        generator = torch.Generator().manual_seed(number)
        first, second, teacher = (torch.randn(8, classes, generator=generator) * scale for _ in range(3))
        logits = [each.requires_grad_() for each in ((first, second) if two else (first,))]
        shares = torch.randn(8, classes, generator=generator).softmax(1)
        targets = shares if recipe.mixes else shares.argmax(1)
        total = loss_of((first, second if two else None), targets, teacher)["total"]
        yield total, torch.autograd.grad(total, logits, allow_unused=True)


def schedule(recipe: Recipe, splits: Splits) -> Iterator[Any]:
    """The learning rate of every step; of a long training that of 5,000, its first and last thousand among them."""
    steps = steps_per_epoch(recipe, splits)
    total = steps * recipe.schedule.epochs
    yield total
    some = np.linspace(0, total - 1, 3000, dtype=int).tolist()
    chosen = range(total) if total <= 5000 else sorted({*range(1000), *some, *range(total - 1000, total)})
    weights = nn.Parameter(torch.zeros(1))
    set_lr = build_schedule(recipe, torch.optim.SGD([weights], lr=effective_lr(recipe)), steps)
    yield np.array([set_lr(step) for step in chosen])


def optimizer(recipe: Recipe, splits: Splits) -> Iterator[Any]:
    """Its updates of parameters with the names of the model's and sides of at most SIDE, at the schedule's highest rate
    and then at half of it: on gradients of one size, of small and of large weights, and on gradients from none to huge,
    across the weights and along them."""
    for deviation, sizes in ((0.1, [0.01]), (0.1, [1, 0, 1e-6, 100, 1e-3, 1e-9]), (10.0, [0.01])):
        with torch.device("meta"):
            built = initial_model(recipe, splits, None)
        generator = torch.Generator().manual_seed(0)
        small: dict[int, nn.Parameter] = {}
        for module in built.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                sides = [min(SIDE, side) for side in parameter.shape]
                value = torch.randn(sides, generator=generator) * deviation
                module.register_parameter(
                    name, small.setdefault(id(parameter), nn.Parameter(value, parameter.requires_grad))
                )
        updated = build_optimizer(recipe, built)
        for step in range(UPDATES):
            for group in updated.param_groups if step == UPDATES // 2 else ():
                group["lr"] *= 0.5
            for parameter in small.values():
                noise = torch.randn(parameter.shape, generator=generator)
                along = step % 4 == 3 and len(sizes) > 1
                parameter.grad = (parameter.detach() if along else noise) * sizes[step % len(sizes)]
            updated.step()
            yield list(small.values())


READ_BY: dict[str, tuple[Part, ...]] = {
    "data.name": (data, images, model),
    "data.id": (data,),
    "data.resolution": (data, images, model),
    "data.eval_crop": (data,),
    "data.validation": (data,),
    "data.train_images": (data,),
    "data.file": (data,),
    "data.options": (data,),
    "model": (model, optimizer),
    "augment": (images, loss),
    "regularize.loss": (loss,),
    "regularize.target_threshold": (loss,),
    "regularize.label_smoothing": (loss, images),
    "regularize.smoothing_over": (loss, images),
    "regularize.drop_path": (model,),
    "regularize.dropout": (model,),
    "optimizer.name": (optimizer,),
    "optimizer.options": (optimizer,),
    "optimizer.weight_decay": (optimizer,),
    "optimizer.layer_decay": (optimizer,),
    "optimizer.base_lr": (schedule,),
    "schedule": (schedule,),
    "schedule.batch_size": (schedule, images),
    "distill.type": (loss, model),
    "distill.alpha": (loss,),
    "distill.tau": (loss,),
    "distill.normalisation": (loss,),
}
"""Key, or block, of the recipe -> the parts that read it, all of them. What is not here acts outside these parts (the
average of the weights, clipping, a teacher, precision), or on what only the whole training meets."""
DRAWS = {images: VIEWS, model: STEPS * BATCH}
"""How often a part draws at random."""


class Comparison:
    """Compares recipes; what the parts of one do is kept for the next comparison with it."""

    def __init__(self, splits_of: Callable[[Recipe], Splits]) -> None:
        self.splits_of = splits_of
        self._seen: dict[tuple[str, Part], Observed] = {}

    def same(self, here: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
        """Whether two canonical recipes make the same training. Raises Undecided where no difference has shown, and one
        may come yet."""
        changed = difference(here, there)
        parts = {key: next((READ_BY[name] for name in _names(key) if name in READ_BY), None) for key in changed}
        if None in parts.values():
            return False
        until = time.process_time() + SECONDS
        for part in dict.fromkeys(part for found in parts.values() for part in found or ()):
            if not self._equal(part, here, there, until):
                return False
        for key, pair in changed.items():
            for part in parts[key] or ():
                _refuse_rare(key, pair, part)
        return True

    def _equal(self, part: Part, here: Mapping[str, Any], there: Mapping[str, Any], until: float) -> bool:
        ours, theirs = (self._observed(part, recipe) for recipe in (here, there))
        for number in itertools.count():
            one, two = ours.piece(number), theirs.piece(number)
            if one != two or one is None:
                return one == two
            if time.process_time() > until:
                raise Undecided(f"no difference in {SECONDS:g} s of computing, and no end of it")
        raise AssertionError("unreachable")

    def _observed(self, part: Part, values: Mapping[str, Any]) -> Observed:
        known = (repr(values), part)
        if known not in self._seen:
            recipe = Recipe.model_validate_json(json.dumps(values))
            self._seen[known] = Observed(part(recipe, self.splits_of(recipe)))
        return self._seen[known]


class Observed:
    """The pieces of what a part does, as hashes, computed when they are asked for."""

    def __init__(self, pieces: Iterator[Any]) -> None:
        self._pieces, self._hashes = pieces, list[bytes | None]()
        self._error: Exception | None = None

    def piece(self, number: int) -> bytes | None:
        """None after the last. Raises what the part has raised, each time."""
        while len(self._hashes) <= number:
            if self._error is not None:
                raise self._error
            try:
                digest = hashlib.blake2b(digest_size=16)
                for part in _bytes(next(self._pieces)):
                    digest.update(part)
                self._hashes.append(digest.digest())
            except StopIteration:
                self._hashes.append(None)
            except Exception as error:
                self._error = error
        return self._hashes[number]


def _bytes(value: Any) -> Iterator[bytes]:
    if isinstance(value, Tensor):
        value = value.detach().contiguous().numpy()
    if isinstance(value, np.ndarray):
        yield f"{value.dtype}{value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, (dict, list, tuple)):
        yield f"{type(value).__name__}{len(value)}".encode()
        for child in itertools.chain.from_iterable(value.items()) if isinstance(value, dict) else value:
            yield from _bytes(child)
    else:
        yield repr(value).encode()


def effects(
    pairs: Mapping[str, Any], recipes: Mapping[str, Any], splits_of: Callable[[Recipe], Splits]
) -> dict[str, str]:
    """By row: "same", "differs", or why neither is known. ``pairs``: row -> [[run, run], ...], which make the row's
    training and the other's; ``recipes``: run -> its canonical recipe; ``splits_of`` loads the data of one."""
    comparison, found = Comparison(splits_of), {}
    for row, runs in pairs.items():
        try:
            same = all(comparison.same(recipes[here], recipes[there]) for here, there in runs)
            found[row] = "same" if same else "differs"
        except Undecided as undecided:
            found[row] = str(undecided)
        except Exception:
            found[row] = "differs"  # custom code, which may need what is not on this machine: its run will tell
    return found


def _names(key: str) -> Iterable[str]:
    """A dotted key and what it is part of, the longest first."""
    parts = key.split(".")
    return (".".join(parts[:length]) for length in range(len(parts), 0, -1))


def _refuse_rare(key: str, pair: tuple[Any, Any], part: Part) -> None:
    """Raises Undecided for a number that may be a probability so small, a step so late or a side of weights so long
    that it did not show."""
    here, there = (dict(_numbers(value)) for value in pair)
    for name in here.keys() | there.keys():
        one, two = here.get(name, 0.0), there.get(name, 0.0)
        rare = part in DRAWS and 0 < abs(one - two) < 1 and (1 - abs(one - two)) ** DRAWS[part] > CHANCE
        beyond = key.startswith("optimizer.options") and max(one, two) > SIDE
        if one != two and min(one, two) >= 0 and (beyond or (rare and max(one, two) <= 1)):
            raise Undecided(f"{key} may act more rarely or later than was tried, or on larger weights")


def _numbers(value: Any, place: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        value = dict(flatten(value))
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _numbers(child, f"{place}.{key}")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield place, float(value)
