"""Whether a profile's workload is one on which DeiT's questions can have answers, from its baseline alone.

    python benchmarks/workload.py [glyphs [KEY=VALUE ...]]

A handful of trainings at seeds that no sweep uses, and no row of an ablation among them: how far the baseline is from
its ceiling beside its scatter over seeds, whether a student without any augmentation fits its training images, and how
much better the convnet teacher is. It prints a table in Markdown; forty minutes for the glyphs profile on one core.
"""

from __future__ import annotations

import statistics
import sys

import torch

from deit_ablate import Recipe, profile, train
from deit_ablate.train.data.sets import load_data
from deit_ablate.train.outcome import Outcome

SEEDS = range(4000, 4010)
"""Ten: by four, a standard deviation is known to a factor of two (four called one 0.46 that is 0.80 over ten)."""
PLAIN = [
    "augment.auto_augment=null",
    "augment.erasing=0",
    "augment.mixup=0",
    "augment.cutmix=0",
    "augment.repeats=1",
    "regularize.label_smoothing=0",
    "regularize.drop_path=0",
]
TEACHER = ["model.name=small_convnet", "model.options={}", "regularize.drop_path=0", "schedule.epochs=40"]


def seeded(seed: int, *of_profile: str) -> Recipe:
    return profile(*of_profile).model_copy(update={"seed": seed})


def trained(recipe: Recipe) -> Outcome:
    return train(recipe, progress=False)


def top1(outcome: Outcome) -> float:
    return float(outcome.metrics["test"]["top1"])


@torch.inference_mode()
def training_top1(recipe: Recipe, outcome: Outcome) -> float:
    """Of the images that it was trained on, as the test split is seen, in percent."""
    data, model = load_data(recipe, None), outcome.model
    assert model is not None
    images = torch.stack([model.transform(data.dataset.train[int(index)]) for index in data.train])
    found = torch.cat([model(batch) for batch in images.split(500)]).argmax(1)
    return 100 * (found == torch.from_numpy(data.dataset.train.targets[data.train])).double().mean().item()


def main(name: str, *sets: str) -> None:
    torch.set_num_threads(1)
    plain = seeded(SEEDS[0], name, *PLAIN, *sets)
    without = trained(plain)
    teacher = top1(trained(seeded(SEEDS[0], name, *TEACHER, *sets)))
    baseline = [top1(trained(seeded(seed, name, *sets))) for seed in SEEDS]
    mean, scatter = statistics.mean(baseline), statistics.stdev(baseline)
    print(f"| {name} | |\n| --- | ---: |")
    print(f"| test images | {without.metrics['test']['images']:,} |")
    print(f"| baseline, test top-1 of {len(SEEDS)} seeds | {mean:.2f}% |")
    print(f"| its standard deviation over seeds | {scatter:.2f} points |")
    print(f"| test error over that | {(100 - mean) / scatter:.0f} |")
    print(f"| without augmentation and regularization, test top-1 | {top1(without):.2f}% |")
    print(f"| the same on its training images | {training_top1(plain, without):.2f}% |")
    print(f"| convnet teacher, test top-1 | {teacher:.2f}% |")
    print(f"| teacher over baseline | {teacher - mean:+.2f} points |")


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["glyphs"]))
