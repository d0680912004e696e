"""Whether a row differs from the baseline in what it declares, and in nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support import Command, planned

from deit_ablate import files
from deit_ablate.sweep.confounds import RECORDED, recorded_undeclared, value_words

PROFILES = ("digits", "fashion-mnist-small", "fashion-mnist", "imagenet")
NOT_ISOLATED = {
    "table8_as_run": ["no mixup", "no cutmix", "no mixup, no cutmix"],  # as the reference code runs them
}
"""Shipped sweep -> its rows that are not isolated, at whatever profile."""


@pytest.fixture
def undeclared(tmp_path: Path) -> Callable[[str], dict[str, list[str]]]:
    """Row -> its undeclared changes, of a sweep over the paper's recipe."""

    def of(text: str) -> dict[str, list[str]]:
        path = tmp_path / "x.yaml"
        path.write_text("profile: imagenet\nbaseline: base\n" + text)
        return {row.name: [str(change) for change in row.undeclared] for row in planned(path).rows}

    return of


def test_the_papers_rows_as_the_reference_code_runs_them(undeclared: Callable[[str], dict[str, list[str]]]) -> None:
    found = undeclared("""
variants:
  base: {}
  no RandAugment: {augment: {auto_augment: null}}
  no mixup: {augment: {mixup: 0}}
  no cutmix: {augment: {cutmix: 0}}
  neither: {augment: {mixup: 0, cutmix: 0}}
  no erasing: {augment: {erasing: 0}}
  no repeats: {augment: {repeats: 1}}
  no smoothing: {regularize: {label_smoothing: 0}}
""")
    assert found == {
        "base": [],
        "no RandAugment": ["colour jitter 0 → 0.4"],
        "no mixup": ["share of batches with CutMix 0.5 → 1"],
        "no cutmix": ["share of batches with mixup 0.5 → 1"],
        "neither": ["loss soft-target cross-entropy → label-smoothing cross-entropy"],
        "no erasing": [],
        "no repeats": [],
        "no smoothing": [],
    }


def test_the_same_rows_isolated(undeclared: Callable[[str], dict[str, list[str]]]) -> None:
    found = undeclared("""
variants:
  base: {}
  no RandAugment: {augment: {auto_augment: null, color_jitter: 0}}
  no mixup: {augment: {mixup: 0, mix_prob: 0.5}}
  no cutmix: {augment: {cutmix: 0, mix_prob: 0.5}}
  neither: {augment: {mixup: 0, cutmix: 0}, regularize: {label_smoothing: 0.1}}
  half the batch: {schedule: {batch_size: 512, warmup_epochs: 2.5}, optimizer: {base_lr: 1.0e-3}}
""")
    assert found == {name: [] for name in found}


def test_another_batch_size_is_another_rate_and_another_warm_up(
    undeclared: Callable[[str], dict[str, list[str]]],
) -> None:
    found = undeclared("variants: {base: {}, half: {schedule: {batch_size: 512}}, short: {schedule: {epochs: 100}}}")
    # ImageNet has 1,281,167 training images: 1,251 batches of 1,024, 2,502 of 512; 5 epochs of warm-up.
    assert found["half"] == ["effective learning rate 0.001 → 0.0005", "warm-up steps 6255 → 12510"]
    assert found["short"] == [], "fewer steps are what fewer epochs mean"


def test_what_a_name_changes_beside_itself(undeclared: Callable[[str], dict[str, list[str]]]) -> None:
    found = undeclared("""
stages: {teacher: {seeds: [0], recipe: {model: {name: small_convnet}}}, student: {teacher: teacher}}
recipe: {distill: {type: hard}, optimizer: {name: sgd, base_lr: 0.5, options: {momentum: 0.9}}}
variants:
  base: {}
  soft: {distill: {type: soft}}
  adamw: {optimizer: {name: adamw}}
  adamw, tuned: {optimizer: {name: adamw, base_lr: 1.0e-3}}
""")
    assert found["soft"] == [], "a distillation type comes with its own weight of the teacher"
    assert found["adamw"] == ["optimizer.base_lr 0.5 → 0.0005"], "the registry's rate, which nobody asked for"
    assert found["adamw, tuned"] == [], "options belong to their optimizer"


def test_a_table_declares_the_data_that_it_is(
    undeclared: Callable[[str], dict[str, list[str]]], tmp_path: Path
) -> None:
    for name in ("clean", "noisy"):
        (tmp_path / f"{name}.csv").write_text(f"path,label\n{name}.png,0\n")
    rows = "{base: {}, noisy: {data.file: noisy.csv}, folder: {data.name: imagefolder, data.id: x}}"
    found = undeclared(f"recipe: {{data: {{name: csv, file: clean.csv}}}}\nvariants: {rows}\n")
    assert found == {"base": [], "noisy": [], "folder": []}
    for key in ("data_fingerprint", "parameters", "flops"):
        for declared in ("data.file", "data.options.test_share"):
            assert recorded_undeclared("a", [declared], {key: ["x"]}, {key: ["y"]}) == []


@pytest.mark.parametrize("sweep", sorted(path.stem for path in files.shipped("sweeps").glob("*.yaml")))
def test_shipped_sweeps_are_isolated_at_every_profile(sweep: str) -> None:
    path = files.shipped("sweeps") / f"{sweep}.yaml"
    for profile in PROFILES:
        rows = planned(path, profile=profile).rows
        assert [row.name for row in rows if row.undeclared] == NOT_ISOLATED.get(sweep, []), profile


def test_strict_refuses_at_the_rows_line_and_writes_nothing(command: Command) -> None:
    path = command.folder / "x.yaml"
    path.write_text(
        "profile: digits\nseeds: 1\nbaseline: base\nvariants:\n  base: {}\n  no mixup: {augment: {mixup: 0}}\n"
    )
    for name in ("plan", "run"):
        done = command(name, "x.yaml", "--strict", code=2)
        assert (
            "x.yaml:6:3: variants: the row 'no mixup' has undeclared changes: share of batches with CutMix"
            in done.stderr
        )
        assert done.stdout == ""
    assert [file.name for file in command.folder.iterdir()] == ["x.yaml"]
    path.write_text(path.read_text().replace("mixup: 0}", "mixup: 0, mix_prob: 0.1}"))
    assert "no mixup" in command("plan", "x.yaml", "--strict").stdout


def test_undeclared_changes_of_records() -> None:
    known = {key: ["x"] for key in RECORDED}
    assert recorded_undeclared("a", [], known, known) == []
    assert recorded_undeclared("a", [], {**known, "gpu": [None]}, known) == [], "what is not known is no difference"
    (change,) = recorded_undeclared("a", [], {**known, "gpu": ["T4", "T4"]}, known)
    assert str(change) == "GPU x → T4"
    assert recorded_undeclared("a", ["model.options.depth"], {**known, "parameters": [9]}, known) == [], (
        "a deeper model has more"
    )
    (change,) = recorded_undeclared("a", ["augment.mixup"], {**known, "parameters": [9]}, known)
    assert str(change) == "parameters x → 9"
    one, changed = "1234567890" * 4, "1234567890" * 4 + " + changes"
    (change,) = recorded_undeclared("a", [], {"commit": [changed]}, {"commit": [one]})
    assert str(change) == "git commit 1234567890 → 1234567890 + changes"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "none"),
        ({}, "none"),
        (True, "on"),
        (False, "off"),
        ("", '""'),
        (0.1 + 0.2, "0.3"),
        (3, "3"),
        ([0.08, 1], "[0.08, 1]"),
        ("sha256:0123456789abcdef", "sha256:0123456…"),
    ],
)
def test_values_in_words(value: object, words: str) -> None:
    assert value_words(value) == words
