"""A row that does nothing is refused before anything is written; one that acts late, rarely or elsewhere is not."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import Command, planned
from test_every_field import ROWS
from tiny import tiny

from deit_ablate.files import shipped as folder
from deit_ablate.identity import canonical
from deit_ablate.sweep.effects import pairs
from deit_ablate.train.data.sets import data_loader
from deit_ablate.train.effects import READ_BY, effects

Told = dict[tuple[str, str], str]


def told(path: Path, profile: str | None = None) -> Told:
    """Of a sweep's rows: (row, the other) -> whether it does anything."""
    found = list(pairs(planned(path, profile=profile)))
    recipes = {run.id: run.recipe for pair in found for both in pair.runs for run in both}
    by_number = {str(number): [[a.id, b.id] for a, b in pair.runs] for number, pair in enumerate(found)}
    answers = effects(by_number, recipes, data_loader(None))
    return {(found[int(number)].row, found[int(number)].other): answer for number, answer in answers.items()}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


OWN = """
baseline: plain
recipe:
  data: {train_images: 96}
  model: {name: "planted:net"}
  augment: {custom: ["planted:noise"], mixup: 0, cutmix: 0}
  regularize: {drop_path: 0, dropout: 0}
  optimizer: {name: "planted:plain_sgd", base_lr: 0.1}
  schedule: {epochs: 2, warmup_epochs: 0}
variants:
  plain: {}
  width: {model.options.width: 64}
  fancy: {model.options.fancy: true}
  norm: {model.options.norm: batch}
  drop: {model.options.drop: 0.5}
  another net: {model: {name: "planted:another"}}
  drop path: {regularize.drop_path: 0.3}
  dropout: {regularize.dropout: 0.3}
  idle: {augment.custom: ["planted:noise", "planted:idle"]}
  idle level: {augment.custom: ["planted:noise", {name: "planted:idle", options: {level: 20}}]}
  idle draws: {augment.custom: ["planted:draws", "planted:noise"]}
  idle tensor: {augment.custom: ["planted:noise", "planted:idle_tensor"]}
  noise of a shape: {augment.custom: [{name: "planted:noise", options: {shape: square}}]}
  flavour: {optimizer.options.flavour: hot}
  decay: {optimizer.weight_decay: 0.5}
  another optimizer: {optimizer: {name: "planted:same_sgd", base_lr: 0.1}}
  two at once: {regularize.drop_path: 0.3, optimizer.weight_decay: 0.5}
"""
BUILT_IN = """
baseline: plain
recipe:
  model: {options: {patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2, mlp_ratio: 2}}
  augment: {auto_augment: rand-m3, repeats: 1}
  schedule: {epochs: 3, warmup_epochs: 0, min_lr: 10}
variants:
  plain: {}
  depth 1: {regularize.drop_path: 0.3}
  two layers: {augment.auto_augment: rand-m3-n2}
  half: {augment.auto_augment: rand-m3-p0.5}
  no deviation: {augment.auto_augment: rand-m3-mstd0}
  no increase: {augment.auto_augment: rand-m3-inc0}
  a short warm-up: {schedule.warmup_epochs: 0.001}
  the last rate: {schedule.min_lr: 20}
  stepping: {schedule.stepping: epoch}
  another id: {data.id: others}
  rounded: {data.validation: 0.1001}
  hardly cropped: {data.eval_crop: 0.99}
  mlp: {model.options.mlp_ratio: 2.01}
  bias: {model.options.qkv_bias: true}
  betas: {optimizer.options.betas: [0.9, 0.999]}
  eps: {optimizer.options.eps: 1.0e-8}
  amsgrad: {optimizer.options.amsgrad: false}
  all of it: {augment: {crop: random-resized, crop_scale: [1, 1], crop_ratio: [1, 1]}}
"""
TAUGHT = """
baseline: plain
stages:
  teacher: {recipe: {model: {name: small_convnet, options: {width: 8}}}, seeds: [0]}
  student: {teacher: teacher}
recipe:
  data: {train_images: 96}
  augment: {mixup: 0, cutmix: 0}
  optimizer: {name: sgd, base_lr: 0.1, options: {momentum: 0, nesterov: false}}
  schedule: {epochs: 3, warmup_epochs: 1, warmup_lr: 30}
  distill: {type: "planted:deaf", alpha: 1}
variants:
  plain: {}
  temperature: {distill.tau: 1}
  by element: {distill.normalisation: element}
  labels unread: {regularize.label_smoothing: 0.3}
  another loss: {distill.type: "planted:deaf_too"}
  dampening: {optimizer.options.dampening: 0.5}
  the first rate: {schedule.warmup_lr: 40}
  taught alike: {teacher: {model.options.width: 8, optimizer.options.dampening: 0.5}}
"""


@pytest.fixture(autouse=True)
def planted_code(custom_models: Path) -> None:
    """``planted``, where workers find it."""
    shutil.copy(Path(__file__).with_name("planted.py"), custom_models)


@pytest.mark.parametrize("text", [OWN, BUILT_IN, TAUGHT], ids=["own", "built-in", "taught"])
def test_each_planted_row_is_found_and_nothing_is_written(
    command: Command, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (command.folder / "planted.yaml").write_text(f"profile: digits\nseeds: 3\n{text.lstrip()}")
    refused = command("run", "planted.yaml", code=2)
    rows = re.findall(r"^  ([^:]+): ", text.partition("variants:")[2], re.MULTILINE)[1:]
    assert refused.stderr.startswith("error: planted.yaml:")
    assert f"the row {rows[0]!r} changes nothing: with " in refused.stderr
    assert {row for row in rows if f"{row!r} " not in refused.stderr.replace('"', "'")} == set()
    assert refused.stdout == ""
    assert not (command.folder / "results").exists()


def test_forty_rows_are_planted() -> None:
    assert sum(text.partition("variants:")[2].count("\n  ") - 1 for text in (OWN, BUILT_IN, TAUGHT)) == 40


ACTS = """
profile: digits
seeds: 1
baseline: plain
recipe:
  model: {name: deit, options: {patch_size: 8, embed_dim: 16, depth: 2, num_heads: 2}}
  schedule: {epochs: 40, warmup_epochs: 5}
variants:
  plain: {}
  warm-up: {schedule.warmup_epochs: 4.9}
  first rate: {schedule.warmup_lr: 1.001e-6}
  last rate: {schedule.min_lr: 1.1e-5}
  one epoch more: {schedule.epochs: 41}
  clip never: {optimizer.clip_grad: 1.0e+9}
  average: {regularize.ema_decay: 0.99996}
  no average: {regularize.ema_decay: null}
  not tested: {data.test: false}
  seldom flipped: {augment.hflip: 0.0001}
  seldom erased: {augment.erasing: 0.1001}
  seldom not mixed: {augment.mix_prob: 0.2001}
  another mixer, seldom: {augment.mix_switch: 0.5001}
  hardly dropped: {regularize.drop_path: 0.0501}
  hardly at all: {regularize.dropout: 0.0001}
  views: {augment.repeats: 3}
  half precision: {precision: bf16}
  decay: {optimizer.weight_decay: 0.0501}
  eps: {optimizer.options.eps: 1.1e-8}
  second moment: {optimizer.options.betas: [0.9, 0.9991]}
  amsgrad: {optimizer.options.amsgrad: true}
  smoothing: {regularize.label_smoothing: 0.1001}
  seldom inverted: {augment.custom: [{name: "planted:invert", options: {p: 0.0001}}]}
  inverted now and then: {augment.custom: [{name: "planted:invert", options: {p: 0.01}}]}
"""
LATER = """
profile: digits
seeds: 1
baseline: plain
recipe:
  model: {name: "%s", options: {%s}}
  optimizer: {name: "planted:later", base_lr: 0.1, options: {begin: 1000}}
variants:
  plain: {}
  later: {%s}
"""


def test_what_acts_late_or_seldom_is_not_refused(sweep: Callable[..., Path]) -> None:
    answers = told(sweep(ACTS, base=""))
    assert len(answers) == 23
    assert {pair for pair, answer in answers.items() if answer == "same"} == set()


@pytest.mark.parametrize(
    ("name", "options", "row"),
    [
        ("planted:counting", "begin: 500", "model.options.begin: 600"),
        ("planted:now_and_then", "rate: 0.0", "model.options.rate: 0.00001"),
        ("planted:now_and_then", "", "regularize.drop_path: 0.051"),
        ("planted:net", "", "optimizer.options.begin: 2000"),
        ("vit_small_patch16_224", "", "model.options.qkv_bias: true"),
    ],
)
def test_what_cannot_be_told_in_so_few_steps_is_left_undecided(
    sweep: Callable[..., Path], name: str, options: str, row: str
) -> None:
    ((_, answer),) = told(sweep(LATER % (name, options, row), base="")).items()
    assert re.search("may act|not tried out", answer), answer


@pytest.mark.parametrize(
    ("recipe", "row", "answer"),
    [
        ("optimizer: {name: nadamw, base_lr: 0.01}", "optimizer.options.corrected_weight_decay: true", "differs"),
        ("optimizer: {name: lamb, base_lr: 0.01}", "optimizer.options.trust_clip: true", "differs"),
        ("optimizer: {name: adafactorbv, base_lr: 0.01}", "optimizer.options.min_dim_size_to_factor: 8", "may act"),
        ('data: {name: "planted:digits_again"}', 'data.name: "planted:other_tests"', "differs"),
    ],
    ids=[
        "with the rate's decrease",
        "on large weights",
        "by the sides of weights",
        "on images of the test split alone",
    ],
)
def test_what_acts_on_some_of_a_training_alone_is_not_refused(
    sweep: Callable[..., Path], recipe: str, row: str, answer: str
) -> None:
    head = f"profile: digits\nseeds: 1\nbaseline: plain\nrecipe: {{{recipe}}}\n"
    ((_, found),) = told(sweep(f"{head}variants:\n  plain: {{}}\n  row: {{{row}}}\n", base="")).items()
    assert answer in found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.field}={row.value}".replace(" ", ""))
def test_every_field_of_the_recipe_that_changes_something_does_something(row: Any) -> None:
    block, _, leaf = row.field.partition(".")
    blocks = {name: dict(values) for name, values in row.before.items()}
    before = canonical(tiny(**blocks))
    after = canonical(tiny(**{**blocks, block: {**blocks.get(block, {}), leaf: row.value} if leaf else row.value}))
    answer = effects({"row": [["a", "b"]]}, {"a": after, "b": before}, data_loader(None))["row"]
    assert answer == ("differs" if row.changes or row.field == "data.test" else "same")


def test_the_parts_name_keys_that_exist() -> None:
    blocks = canonical(tiny())
    assert all(name in blocks or name.partition(".")[2] in blocks[name.partition(".")[0]] for name in READ_BY)


@pytest.mark.parametrize("name", sorted(path.name for path in folder("sweeps").glob("*.yaml")))
def test_no_row_of_a_shipped_sweep_is_refused(name: str) -> None:
    assert set(told(folder("sweeps") / name, profile="digits").values()) <= {"differs"}
