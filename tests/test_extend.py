"""Each row of "How to extend" (docs/architecture.md), done literally: on a copy of the package, and from another one.

Every addition changes one file of the copy, by text; ``make names`` is not run. (The rows of executors and of
trackers are tested with them.)
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import TINY, Command

from deit_ablate.store import Store

ROOT = Path(__file__).parents[1]
ADDED = {
    "train/optim.py": (
        "OPTIMIZERS: dict[str, OptimizerEntry] = {",
        '    "plain": OptimizerEntry(plain, base_lr=0.3),',
        """
def plain(groups: Groups, *, lr: float, weight_decay: float, strength: float = 1.0) -> Optimizer:
    return torch.optim.SGD(groups, lr=lr * strength, weight_decay=weight_decay)
""",
    ),
    "train/augment.py": (
        "AUGMENTATIONS: dict[str, Augmentation] = {",
        '    "noise": Augmentation(noise, AddedField("Deviation of noise, in grey levels.", type="NonNegative")),',
        """
def noise(deviation: float, recipe: Recipe, dataset: Dataset) -> Operation:
    def add(picture: Image.Image) -> Image.Image:
        pixels = np.asarray(picture) + np.random.normal(0, deviation, np.asarray(picture).shape)
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))

    return add
""",
    ),
    "train/mixing.py": (
        "MIXINGS: dict[str, Mixer] = {",
        '    "blend": Mixer(blend, AddedField("Share of the partner in every image.")),',
        """
def blend(share: float, recipe: Recipe, classes: int) -> Mixing:
    def mix(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        shares = targets if targets.ndim == 2 else targets[:, None].eq(targets.new_tensor(range(classes))).float()
        return images.lerp(images.flip(0), share), shares.lerp(shares.flip(0), share)

    return mix
""",
    ),
    "train/distill.py": (
        "DISTILLATIONS: dict[str, Distillation] = {",
        '    "squares": Distillation(squares, alpha=0.3),',
        """
def squares(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    return F.mse_loss(student, teacher)
""",
    ),
    "train/data/sets.py": (
        "DATASETS: dict[str, DatasetEntry] = {",
        '    "stripes": DatasetEntry(stripes, None, classes=2, train=96, test=40, channels=1, resolution=16),',
        """
def stripes(data: Data, folder: Path | None) -> Dataset:
    targets = np.arange(136) % 2
    pixels = np.random.RandomState(0).randint(0, 90, (136, data.resolution, data.resolution)).astype(np.uint8)
    pixels[targets == 1, ::2] += 90
    train, test = ArrayImages(pixels[:96], targets[:96]), ArrayImages(pixels[96:], targets[96:])
    return Dataset("stripes", ("plain", "striped"), 1, (0.2,), (0.2,), train, test, arrays_sha256(pixels))
""",
    ),
    "train/model.py": (
        "MODELS: dict[str, Callable[..., nn.Module]] = {",
        '    "pixels": pixels,',
        """
def pixels(shape: Shape, *, width: int = 8) -> nn.Module:
    inputs = shape.channels * shape.resolution**2
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, shape.classes))
""",
    ),
    "sweep/rows.py": (
        "KINDS: dict[str, Kind] = {",
        '    "doubled": Kind(_doubled, "One key of Table 9 doubled.", "rows or keys", from_baseline=True),',
        """
def _doubled(node: Node) -> Iterator[Row]:
    table9 = Recipe().model_dump()
    return _switches(node, lambda key, where: 2 * table9[key.partition(".")[0]][key.partition(".")[2]], "2x ")
""",
    ),
    "sweep/metrics.py": ("RECORDED = (", '    Metric("pictures", "test pictures", "higher", "images", digits=0),', ""),
    "sweep/fields.py": ("SAMPLERS = {", '    "brute": "BruteForceSampler",', ""),
}
"""By file: the registry's first line, the line that is put below it, and what is put above."""

STAGES = """
seeds: 1
stages:
  teacher: {recipe: {model: {name: small_convnet, options: {width: 4}}, regularize: {drop_path: 0}}, seeds: [0]}
  student: {teacher: teacher}
execution: {device: cpu, parallel: 2}
baseline: base
"""
BUILT_IN = """
variants:
  base: {}
  optimizer: {optimizer: {name: plain, options: {strength: 0.5}}}
  augmentation: {augment: {noise: 8}}
  mixing: {augment: {mixup: 0, cutmix: 0, blend: 0.25}}
  distillation: {distill: {type: squares}}
  data set: {data: {name: stripes}}
  model: {model: {name: pixels, options: {width: 6}}}
"""
CUSTOM = """
variants:
  base: {}
  optimizer: {optimizer: {name: "mylab.more:plain", base_lr: 0.3, options: {strength: 0.5}}}
  augmentation: {augment: {custom: ["mylab.more:jump", {name: "mylab.more:noise", options: {deviation: 8}}]}}
  distillation: {distill: {type: "mylab.more:SQUARES", alpha: 0.3}}
  data set: {data: {name: "mylab.more:stripes"}}
  model: {model: {name: "mylab.more:pixels", options: {width: 6}}}
"""
MYLAB = """
import numpy as np
import torch
from PIL import Image
from torch import nn

from deit_ablate.train.data.images import ArrayImages
from deit_ablate.train.data.sets import Dataset
from deit_ablate.train.distill import Distillation


def plain(groups, *, lr, weight_decay, strength=1.0):
    return torch.optim.SGD(groups, lr=lr * strength, weight_decay=weight_decay)


def noise(image, rng, *, deviation: float):
    pixels = np.asarray(image) + rng.normal(0, deviation, np.asarray(image).shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def jump(tensor, rng):
    return tensor + rng.normal()


SQUARES = Distillation(lambda student, teacher, tau: (student - teacher).square().mean())


def stripes(data, folder):
    targets = np.arange(136) % 2
    pixels = np.random.RandomState(0).randint(0, 90, (136, data.resolution, data.resolution)).astype(np.uint8)
    pixels[targets == 1, ::2] += 90
    train, test = ArrayImages(pixels[:96], targets[:96]), ArrayImages(pixels[96:], targets[96:])
    return Dataset("stripes", ("plain", "striped"), 1, (0.2,), (0.2,), train, test, "stripes of 136")


def pixels(shape, *, width=8):
    inputs = shape.channels * shape.resolution**2
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, shape.classes))
"""
ROWS = ("optimizer", "augmentation", "mixing", "distillation", "data set", "model")


def add(package: Path, file: str) -> None:
    """One entry to one file. A function stands before the (undecorated) statement or class that the registry needs."""
    head, entry, code = ADDED[file]
    text = (package / file).read_text()
    assert text.count(f"\n{head}\n") == 1
    (package / file).write_text(text.replace(f"\n{head}\n", f"\n{code}\n\n{head}\n{entry}\n"))


def copy_with_additions(folder: Path) -> Path:
    for part in ("deit_ablate", "sweeps", "analysis"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ADDED:
        add(folder / "deit_ablate", file)
    return folder


class Extended(Command):
    """The real command of the copy, in its folder."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(self.folder))
            patch.setenv("XDG_CACHE_HOME", str(self.folder / "cache"))
            return super().__call__(*arguments, **options)


def outcomes(store: Store, sweep: str) -> dict[str, dict[str, Any]]:
    """By row, the outcome of its student."""
    plan = json.loads((store.root / sweep / "plan.json").read_text())
    found = {row: store.outcome(run) for row, _, stage, run in plan["cells"] if stage == "student"}
    assert all(found.values())
    return {row: outcome for row, outcome in found.items() if outcome is not None}


def test_every_row_on_a_copy(tmp_path: Path, warm_python: list[str]) -> None:
    """One test, for a copy is made once, asks its worker for names once, and trains what was added in one go."""
    copy = copy_with_additions(tmp_path)
    command = Extended(copy, warm_python)
    (copy / "built_in.yaml").write_text(TINY + STAGES + BUILT_IN)
    command("run", "built_in.yaml", "--yes")
    trained = Store(copy / "results")
    found = outcomes(trained, "built_in")
    for row in ROWS:
        assert found[row]["status"] in ("done", "diverged")
        assert found[row]["weights_sha256"] != found["base"]["weights_sha256"]
    has_its_facts(trained)
    mistakes_in_a_new_field_are_refused_at_their_line(copy, command)
    a_new_field_is_a_switch_and_a_new_kind_of_sweep_is_a_key(copy, command)
    a_new_sampler_asks(copy, command)
    a_new_table_is_a_new_file(copy, command)
    a_new_metric_is_a_column(copy, command)


def has_its_facts(trained: Store) -> None:
    """Its learning rate, its weight of the teacher, its size: from the entry, without ``make names``."""
    plan = json.loads((trained.root / "built_in" / "plan.json").read_text())
    recipes = {row: trained.recipe(run) for row, _, stage, run in plan["cells"] if stage == "student"}
    recipe = {row: stored["recipe"] for row, stored in recipes.items() if stored}
    assert recipe["optimizer"]["optimizer"]["base_lr"] == 0.3
    assert recipe["distillation"]["distill"]["alpha"] == 0.3
    assert recipe["augmentation"]["augment"]["noise"] == 8
    assert "noise" not in recipe["base"]["augment"], "an addition changes no id that exists"
    runs = {row: run for row, _, stage, run in plan["cells"] if stage == "student"}
    assert plan["parents"][runs["distillation"]]
    assert runs["optimizer"] not in plan["parents"]
    assert outcomes(trained, "built_in")["data set"]["data"]["train"] == 86, "96 less a tenth"


def mistakes_in_a_new_field_are_refused_at_their_line(copy: Path, command: Command) -> None:
    rows = "  a: {augment: {noise: -1}}\n  b: {augment: {noise: loud}}\n  c: {augment: {noize: 1}}\n"
    (copy / "wrong.yaml").write_text(f"profile: digits\nvariants:\n{rows}")
    said = command("plan", "wrong.yaml", code=2).stderr
    assert "wrong.yaml:3:24: variants.a.augment.noise: got -1; expected" in said
    assert 'wrong.yaml:4:24: variants.b.augment.noise: got "loud"; expected' in said
    assert "did you mean 'noise'" in said


def a_new_field_is_a_switch_and_a_new_kind_of_sweep_is_a_key(copy: Path, command: Command) -> None:
    recipe = "profile: digits\nseeds: 1\nrecipe: {augment: {noise: 8}}\n"
    (copy / "off.yaml").write_text(f"{recipe}leave_one_out: [augment.noise, augment.erasing]\n")
    assert "no noise" in command("plan", "off.yaml").stdout
    (copy / "doubled.yaml").write_text(f"{recipe}doubled: [schedule.warmup_epochs, optimizer.weight_decay]\n")
    shown = command("plan", "doubled.yaml").stdout
    assert "2x warmup_epochs" in shown
    assert "2x weight_decay" in shown
    schema = json.loads(command("schema", "sweep").stdout)
    assert schema["$defs"]["Augment"]["properties"]["noise"]["minimum"] == 0
    assert schema["properties"]["doubled"]["description"] == "One key of Table 9 doubled."


def a_new_sampler_asks(copy: Path, command: Command) -> None:
    search = "seeds: 1\nsearch: {sampler: brute, trials: 2, pruner: none, space: {optimizer.base_lr: [0.01, 0.02]}}\n"
    (copy / "brute.yaml").write_text(TINY + "execution: {device: cpu, parallel: 2}\n" + search)
    command("run", "brute.yaml", "--yes")
    plan = json.loads((copy / "results" / "brute" / "plan.json").read_text())
    rates = [trial["params"]["optimizer.base_lr"] for trial in plan["search"]["asked"]]
    assert sorted(rates) == [0.01, 0.02]


def a_new_metric_is_a_column(copy: Path, command: Command) -> None:
    (copy / "built_in.yaml").write_text(f"{TINY}{STAGES}{BUILT_IN}metrics: [pictures]\n")
    assert "test pictures" in command("run", "built_in.yaml", "--yes").stdout


def a_new_table_is_a_new_file(copy: Path, command: Command) -> None:
    text = (copy / "analysis" / "sweep_table.py").read_text()
    titled = """
SWEEPS = ("built_in",)


def titled(table):
    import dataclasses

    return dataclasses.replace(table, title="What was added")


def table("""
    text = re.sub(r"return sweep_table\((.*)\)", r"return titled(sweep_table(\1))", text)
    (copy / "analysis" / "additions.py").write_text(text.replace("\ndef table(", titled, 1))
    done = subprocess.run(
        [sys.executable, "analysis/additions.py", "built_in"],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
    )
    assert "What was added" in done.stdout, done.stderr
    assert "What was added" in command("table", "built_in", "--paper").stdout


def test_the_same_from_a_package_of_ones_own(command: Command, tmp_path: Path, custom_models: Path) -> None:
    """Nothing is changed in deit_ablate: names of the form ``mylab.more:function``."""
    package = tmp_path / "site" / "mylab"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "more.py").write_text(MYLAB)
    (tmp_path / "custom.yaml").write_text(TINY + STAGES + CUSTOM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path / "site"))
        command("run", "custom.yaml", "--yes")
        store = Store(tmp_path / "results")
        found = outcomes(store, "custom")
        assert {row for row in found if found[row]["weights_sha256"] != found["base"]["weights_sha256"]} == {
            row for row in ROWS if row != "mixing"
        }
        before = json.loads((store.root / "custom" / "plan.json").read_text())["cells"]
        (package / "more.py").write_text(MYLAB + "\n# a comment changes nothing\n")
        assert "missing" not in command("plan", "custom.yaml").stdout
        (package / "more.py").write_text(MYLAB + "\nCHANGED = True\n")
        assert "missing since the source of mylab.more changed: " in command("plan", "custom.yaml").stdout
    changed = store.recipe(next(run for row, _, stage, run in before if (row, stage) == ("augmentation", "student")))
    assert changed is not None
    assert set(changed["sources"]) == {"mylab", "mylab.more"}
