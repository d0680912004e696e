"""What a sweep file says of a search's space: read, refused at its line, and changed by a profile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from searches import EASY

from deit_ablate.errors import InputError
from deit_ablate.sweep.load import load_sweep
from deit_ablate.sweep.space import Parameter, Range

WHERE = ("x.yaml", 1, 1)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("search: {trials: 2, space: {optimizer.base_lr: {low: 1, high: 0.1}}}", 8, "low below high"),
        ("search: {trials: 2, space: {optimizer.base_lr: {low: 0, high: 1, log: true}}}", 8, "low above 0"),
        ("search: {trials: 2, space: {optimizer.base_rl: [1, 2]}}", 8, "base_rl"),
        ("search: {trials: 2, space: {optimizer.base_lr: [1]}}", 8, "two or more different values"),
        ("search: {trials: 2, space: {optimizer.base_lr: 3}}", 8, "neither a range nor choices"),
        ("search: {trials: 2, space: {data.validation: [0.1, 0.2]}}", 8, "cannot vary"),
        ("search: {trials: 2, space: {data: [{validation: 0.1}, {validation: 0.2}]}}", 8, "cannot vary"),
        ("search: {trials: 2, space: {optimizer.base_lr: [.nan, 1]}}", 8, "finite"),
        ("search: {trials: 2, space: {optimizer.base_lr: {low: .nan, high: 1}}}", 8, "finite number"),
        ("search: {trials: 2, space: {optimizer.base_lr: {low: a, high: 1}}}", 8, "search.space.optimizer.base_lr.low"),
        ("search: {trials: 2, space: {optimizer.base_lr: {low: 0.1, high: 0.2, step: 5}}}", 8, "larger than the range"),
        ("search: {trials: 2, space: {augment.repeats: [1, 1.0]}}", 8, "two or more different values"),
        ("search: {trials: 2, space: {optimizer.name: {low: 1, high: 2}}}", 8, "list of values"),
        ("search: {trials: 2, objective: [top1, top1], space: {augment.repeats: [1, 2]}}", 8, "different ones"),
        ("search: [1]", 8, "expected a mapping"),
        ("search:\nvariants: {a: {}}", 8, "an empty search"),
        ("search: {trials: 2}", 8, "nothing is varied"),
        ("search: {trials: 2, samplr: tpe, space: {augment.repeats: [1, 2]}}", 8, "did you mean 'sampler'"),
        ("search: {trials: 2, sampler: tpee, space: {augment.repeats: [1, 2]}}", 8, "one of tpe"),
        ("search: {trials: 2, spaces: {b: {augment.repeats: [1, 2]}}}", 8, "no row 'b'"),
        ("search: {trials: 2, seed: 0, space: {augment.repeats: [1, 2]}}", 8, "selects by seed 0"),
        ("search: {trials: 2, objective: [top1, top2], space: {augment.repeats: [1, 2]}}", 8, "top1, loss"),
        ("search: {trials: 2, space: {augment.repeats: [1, 2]}}\ngrid: {seed: [1]}", 9, "beside grid"),
    ],
)
def test_bad_spaces_are_refused_at_their_line(sweep: Callable[..., Path], text: str, line: int, problem: str) -> None:
    with pytest.raises(InputError) as refusal:
        load_sweep(sweep(text + "\n", base=EASY))
    assert f"tiny.yaml:{line}:" in str(refusal.value)
    assert problem in str(refusal.value)


def test_a_profile_changes_single_parts_of_a_search(sweep: Callable[..., Path]) -> None:
    text = """
search:
  {trials: 3, space: {optimizer.base_lr: {low: 0.1, high: 0.3}, augment: {repeats: [1, 2]}},
   spaces: {b: {augment.mixup: [0, 0.1]}}}
variants: {a: {}, b: {}}
by_profile:
  digits:
    search: {trials: 7, space: {optimizer: {base_lr: {low: 0.2}}}, spaces: {b: {augment: {mixup: [0, 0.2]}}}}
  imagenet: {search: {sampler: random}}
"""
    digits, imagenet = (load_sweep(sweep(text, base=EASY), profile=name).search for name in ("digits", "imagenet"))
    assert digits
    assert imagenet
    assert (digits.file.trials, digits.file.sampler, imagenet.file.trials, imagenet.file.sampler) == (
        *(7, "tpe"),
        *(3, "random"),
    )
    rate = {name: found.spaces["a"]["optimizer.base_lr"].range for name, found in (("d", digits), ("i", imagenet))}
    assert rate == {"d": Range(low=0.2, high=0.3), "i": Range(low=0.1, high=0.3)}
    assert digits.spaces["b"]["augment.mixup"].choices == (0, 0.2)
    assert imagenet.spaces["b"]["augment.mixup"].choices == (0, 0.1)
    assert set(digits.spaces["a"]) == {"optimizer.base_lr", "augment.repeats"}
    seeds = text.replace("digits:\n", "digits:\n    seeds: 12\n").replace("{trials: 7,", "{seed: 7,")
    load_sweep(sweep(seeds.replace("12", "3"), base=EASY), profile="digits")
    load_sweep(sweep(seeds + "seeds: 9\n", base=EASY), profile="imagenet")
    with pytest.raises(InputError, match="the search selects by seed 7, which is one of `seeds:`"):
        load_sweep(sweep(seeds, base=EASY), profile="digits")
    bad = text.replace("{trials: 7,", "{trials: 0,")
    with pytest.raises(InputError, match=r"by_profile.digits.search.trials"):
        load_sweep(sweep(bad, base=EASY), profile="imagenet")


@pytest.mark.parametrize(
    ("range_", "inside", "outside", "points", "words"),
    [
        (Range(low=0.0, high=0.4, step=0.1), [0.0, 0.1, 0.3, 0.4], [0.05, 0.5, -0.1], 5, "0 to 0.4 in steps of 0.1"),
        (Range(type="int", low=1, high=4), [1, 4], [2.5, 5], 4, "1 to 4 (whole)"),
        (Range(type="int", low=1, high=6, step=2), [1, 3, 5], [2, 6], 3, "1 to 6 in steps of 2 (whole)"),
        (Range(low=1e-3, high=0.1, log=True), [0.001, 0.0123], [0.2], None, "0.001 to 0.1 (log)"),
        (Range(low=0.5, high=1), [0.5, 0.77], [0.4], None, "0.5 to 1"),
    ],
)
def test_a_range(range_: Range, inside: list[float], outside: list[float], points: int | None, words: str) -> None:
    parameter = Parameter("k", WHERE, range_)
    assert [value for value in [*inside, *outside] if parameter.holds(value)] == inside
    assert (parameter.points(), parameter.words()) == (points, words)
    assert Parameter.of_facts("k", parameter.facts()).range == range_


def test_choices() -> None:
    parameter = Parameter("k", WHERE, choices=(1, None, [1, 2]))
    assert [parameter.holds(value) for value in (1.0, None, [1.0, 2], 2, "1")] == [True, True, True, False, False]
    assert (parameter.points(), parameter.values()) == (3, [1, None, [1, 2]])
    assert Parameter.of_facts("k", parameter.facts()).choices == parameter.choices
