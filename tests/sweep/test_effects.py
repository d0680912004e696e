"""Which rows must not be the same training as another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support import planned

from deit_ablate.sweep.effects import pairs


def named(path: Path) -> list[tuple[str, str]]:
    return [(pair.row, pair.other) for pair in pairs(planned(path))]


def test_each_row_goes_with_the_baseline_but_not_a_figure_of_its_runs(sweep: Callable[..., Path]) -> None:
    path = sweep(
        "baseline: a\nvariants:\n  a: {}\n  b: {augment.hflip: 0.5}\n  average: {shows: ema}\n"
        "  c: {augment.hflip: 0.4, shows: ema}\n  d: {distill.type: two-class-tokens}\n"
    )
    assert named(path) == [("b", "a"), ("d", "a")]
    (pair, _) = pairs(planned(path))
    assert pair.changed[1] == {"augment.hflip": (0, 0.5)}
    assert len(pair.ends) == len(planned(path).sweep.final.seeds)


def test_without_a_baseline_and_in_a_search_none_does(sweep: Callable[..., Path]) -> None:
    assert named(sweep("variants:\n  a: {}\n  b: {augment.hflip: 0.5}\n")) == []
    space = "search: {trials: 3, space: {optimizer.base_lr: {low: 0.001, high: 0.1, log: true}}}\n"
    assert named(sweep(f"baseline: a\n{space}variants:\n  a: {{}}\n  b: {{augment.hflip: 0.5}}\n", name="found")) == []


def test_in_a_cumulative_sweep_also_the_row_before(sweep: Callable[..., Path]) -> None:
    path = sweep("cumulative:\n  b: {augment.hflip: 0.5}\n  c: {augment.erasing: 0.3}\n")
    assert named(path) == [("+b", "baseline"), ("+c", "baseline"), ("+c", "+b")]


def test_of_stages_those_that_differ_and_not_where_only_one_has_a_teacher(sweep: Callable[..., Path]) -> None:
    stages = (
        "baseline: a\nstages:\n  teacher: {recipe: {model: {name: small_convnet, options: {width: 8}}}, seeds: [0]}\n"
        "  student: {teacher: teacher}\n"
    )
    path = sweep(
        f"{stages}variants:\n  a: {{distill.type: soft}}\n  b: {{distill.type: hard}}\n  none: {{}}\n"
        "  other teacher: {distill.type: soft, teacher: {model.options.width: 9}}\n"
    )
    assert named(path) == [("b", "a"), ("other teacher", "a")]
    one, two = pairs(planned(path))
    assert [len(one.runs), len(two.runs)] == [1, 2]
    assert list(two.changed[1]) == ["model.options.width"]
