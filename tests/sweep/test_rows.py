"""The kinds of sweep enumerate the rows that they should."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import planned

from deit_ablate.errors import InputError
from deit_ablate.sweep.rows import grid_axes
from deit_ablate.sweep.yaml import placed

HEAD = "title: t\nprofile: digits\n"


def names(text: str, tmp_path: Path) -> list[str]:
    path = tmp_path / "kind.yaml"
    path.write_text(HEAD + text)
    return [row.name for row in planned(path).rows]


def test_each_kind_names_its_rows(tmp_path: Path) -> None:
    assert names("grid: {optimizer.base_lr: [1e-3, 2e-3], augment: {mixup: [0, 0.5]}}", tmp_path) == [
        "base_lr=0.001,mixup=0",
        "base_lr=0.001,mixup=0.5",
        "base_lr=0.002,mixup=0",
        "base_lr=0.002,mixup=0.5",
    ]
    assert names("zip: {optimizer.base_lr: [1e-3, 2e-3], augment.mixup: [0, 0.5]}", tmp_path) == [
        "base_lr=0.001,mixup=0",
        "base_lr=0.002,mixup=0.5",
    ]
    assert names("grid: {optimizer: [{name: adamw, base_lr: 1}, {name: lamb, base_lr: 1}]}", tmp_path) == [
        "optimizer=adamw base_lr=1",
        "optimizer=lamb base_lr=1",
    ]
    assert names("grid: {optimizer: [{name: lamb, base_lr: 1}, {name: lamb, base_lr: 2}]}", tmp_path) == [
        "optimizer=lamb base_lr=1",
        "optimizer=lamb base_lr=2",
    ]
    assert names("grid: {model.options.init_values: [-2, -1, 1, 1.0e-5, null]}", tmp_path) == [
        f"init_values={value}" for value in ("-2", "-1", "1", "1e-05", "off")
    ]
    assert names("leave_one_out: [augment.erasing, regularize.drop_path]", tmp_path) == [
        "baseline",
        "no erasing",
        "no drop_path",
    ]
    assert names("leave_one_out: {warm-up: {schedule.warmup_epochs: 0}}", tmp_path) == ["baseline", "no warm-up"]
    assert names("recipe: {augment.erasing: 0}\nadd_one: [augment.erasing]", tmp_path) == ["baseline", "+erasing"]


def test_values_whose_short_names_are_one_have_their_whole_ones(tmp_path: Path) -> None:
    policies = [f"rand-m9-mstd0.5-inc1-n2-p0.5-w1-mmax10-{end}" for end in ("bb0", "bb1")]
    assert names(f"grid: {{augment.auto_augment: [{', '.join(policies)}, null]}}", tmp_path) == [
        *(f"auto_augment={policy}" for policy in policies),
        "auto_augment=off",
    ]
    assert names("grid: {optimizer.base_lr: [0.1234561, 0.1234562, 0.1], augment.mixup: [0.1]}", tmp_path) == [
        f"base_lr={value},mixup=0.1" for value in ("0.1234561", "0.1234562", "0.1")
    ]
    assert names("zip: {optimizer.base_lr: [0.1234561, 0.1234562], augment.mixup: [0, 0.5]}", tmp_path) == [
        "base_lr=0.123456,mixup=0",
        "base_lr=0.123456,mixup=0.5",
    ]
    signs = grid_axes(placed({"optimizer": {"options": [{"foo": [-1]}, {"foo": [1]}]}}, ("", 0, 0)))
    assert signs == (("optimizer.options", ("foo=-1", "foo=1")),)
    with pytest.raises(InputError, match="two rows are called 'base_lr=0.1234561'"):
        names("grid: {optimizer.base_lr: [0.1234561, 0.1234562, 0.1234561]}", tmp_path)


def test_switches_go_to_their_off_value_and_to_table_9s(tmp_path: Path) -> None:
    path = tmp_path / "kind.yaml"
    path.write_text(HEAD + "leave_one_out: [augment.auto_augment, augment.repeats]")
    rows = {row.name: row for row in planned(path).rows}
    assert rows["no auto_augment"].recipe.augment.auto_augment is None
    assert rows["no repeats"].recipe.augment.repeats == 1
    path.write_text(HEAD + "recipe: {augment.mixup: 0}\nadd_one: [augment.mixup]")
    assert {row.name: row.recipe.augment.mixup for row in planned(path).rows} == {"baseline": 0, "+mixup": 0.8}
    for key, says in (("dropout", "has on; expected"), ("dropot", "has on; did you mean 'regularize.dropout'?")):
        path.write_text(HEAD + f"add_one: [regularize.{key}]")
        with pytest.raises(InputError, match=re.escape(f"'regularize.{key}' is no switch that Table 9 {says}")):
            planned(path)


def test_a_cumulative_sweep_adds_one_change_after_another(tmp_path: Path) -> None:
    path = tmp_path / "road.yaml"
    path.write_text("""
profile: digits
seeds: 1
cumulative:
  erasing: {augment: {erasing: 0}}
  longer: {schedule: {epochs: 40}}
  erasing again: {augment: {erasing: 0.1}}
""")
    plan = planned(path)
    assert plan.sweep.baseline == "baseline", "by default the recipe that the road starts from"
    assert [row.name for row in plan.rows] == ["baseline", "+erasing", "+longer", "+erasing again"]
    before = plan.rows[0].recipe
    assert [(row.recipe.augment.erasing, row.recipe.schedule.epochs) for row in plan.rows] == [
        (before.augment.erasing, before.schedule.epochs),
        (0, before.schedule.epochs),
        (0, 40),
        (0.1, 40),
    ]
    assert [row.undeclared for row in plan.rows] == [[]] * 4
    assert set(plan.rows[2].differs) == {"augment.erasing", "schedule.epochs"}, "from the baseline"
