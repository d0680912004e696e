"""Rows that combine changes: which combinations, which effects they tell apart, which orders of steps."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from support import Command, planned

from deit_ablate.errors import InputError
from deit_ablate.sweep.designs import GENERATORS, Design, cumulative, factorial


def write(folder: Path, text: str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text)
    return path


FACTORS = """
profile: digits
seeds: 2
factorial:
  mixup: {augment: {mixup: 0, mix_prob: 0.1}}
  +lamb: {optimizer: {name: lamb, base_lr: 0.05}}
  erasing: {augment.erasing: 0}
"""
ROAD = """
profile: digits
seeds: 2
recipe: {augment: {erasing: 0, mixup: 0, repeats: 1}}
cumulative:
  erasing: {augment.erasing: 0.1}
  repeats: {augment.repeats: 2}
  mixup: {augment.mixup: 0.1}
"""


@pytest.mark.parametrize(
    ("factors", "part", "resolution"),
    [
        *((3, 2, 3), (4, 2, 4), (5, 2, 5), (5, 4, 3), (6, 2, 6), (6, 4, 4), (6, 8, 3)),
        *((7, 2, 7), (7, 4, 4), (7, 8, 4), (7, 16, 3)),
    ],
)
def test_fractions_have_the_resolution_of_the_books(factors: int, part: int, resolution: int) -> None:
    made = factorial([f"no {letter}" for letter in "abcdefg"[:factors]], f"1/{part}")
    assert len(made.rows) == 2**factors // part
    assert made.resolution == resolution
    assert next(iter(made.rows.items())) == ("baseline", ()), "the recipe as it is"
    for factor in range(factors):
        assert sum(made.has(row, factor) for row in made.rows) == len(made.rows) / 2, "each level equally often"
    effects = made.effects()
    assert all(
        sum(one * other for one, other in zip(a.signs, b.signs, strict=True)) == 0
        for a, b in itertools.combinations(effects, 2)
    ), "effects that are not aliased are orthogonal"
    clear = [len(effect.aliases) == 1 for effect in effects]
    if resolution >= 5:
        assert all(clear)
    if resolution == 4:
        assert all(clear[:factors])
        assert not all(clear)
    assert (factors, part) in GENERATORS


def test_aliases_of_a_half_of_four_factors() -> None:
    """Box, Hunter and Hunter: with D = ABC, AB = CD, AC = BD and BC = AD; a factor that is added turns signs."""
    made = factorial(["no A", "no B", "no C", "no D"], "1/2")
    names = [made.name(found) for found in made.effects()]
    assert names == ["A", "B", "C", "D", "A × B = C × D", "A × C = B × D", "A × D = B × C"]
    turned = factorial(["no A", "no B", "no C", "+D"], "1/2")
    assert [turned.name(found) for found in turned.effects()][4] == "A × B = −C × D"
    assert made.words()[0] == (
        "factorial: 8 of 16 combinations of 4 factors, resolution IV; aliased, found only in their sum:"
    )
    assert Design.of(made.document()) == made


def test_all_combinations_are_rows_named_by_what_is_changed(tmp_path: Path) -> None:
    plan = planned(write(tmp_path, FACTORS))
    rows = {row.name: row.recipe for row in plan.rows}
    assert list(rows) == [
        "baseline",
        "no mixup",
        "+lamb",
        "no erasing",
        "no mixup +lamb",
        "no mixup + no erasing",
        "+lamb + no erasing",
        "no mixup +lamb + no erasing",
    ]
    assert len(plan.runs) == 16, "each row as often as the baseline: every effect takes all of them alike"
    last = rows["no mixup +lamb + no erasing"]
    assert (last.augment.mixup, last.augment.mix_prob, last.augment.erasing) == (0, 0.1, 0)
    assert (last.optimizer.name, last.optimizer.base_lr) == ("lamb", 0.05)


def test_what_a_profile_makes_of_a_factor_holds_in_all_its_rows(tmp_path: Path) -> None:
    plan = planned(write(tmp_path, FACTORS + "by_profile: {digits: {no mixup: {augment.mix_prob: 0.3}}}"))
    assert {row.recipe.augment.mix_prob for row in plan.rows if "no mixup" in row.name} == {0.3}
    assert {row.recipe.augment.mix_prob for row in plan.rows if "no mixup" not in row.name} == {0.2}


def test_a_factor_may_be_the_figure_that_is_shown(tmp_path: Path) -> None:
    plan = planned(write(tmp_path, "profile: digits\nfactorial: {+EMA: {shows: ema}, mixup: {augment.mixup: 0}}"))
    assert {row.name: row.shows for row in plan.rows} == {
        "baseline": None,
        "+EMA": "ema",
        "no mixup": None,
        "+EMA + no mixup": "ema",
    }
    assert len(plan.runs) == 2 * 3


def test_orders_share_rows_and_the_given_one_keeps_its_runs(tmp_path: Path) -> None:
    alone = planned(write(tmp_path, ROAD))
    plan = planned(write(tmp_path, ROAD + "orders: 3"))
    assert [row.name for row in plan.rows] == [
        *(row.name for row in alone.rows),
        "baseline +mixup",
        "baseline +repeats +mixup",
        "baseline +erasing +mixup",
    ]
    assert set(alone.runs) < set(plan.runs)
    rows = {row.name: row.recipe.augment for row in plan.rows}
    assert (rows["+mixup"].erasing, rows["+mixup"].repeats, rows["+mixup"].mixup) == (0.1, 2, 0.1)
    assert (rows["baseline +repeats +mixup"].erasing, rows["baseline +repeats +mixup"].repeats) == (0, 2)
    given = planned(write(tmp_path, ROAD + "orders: [[mixup, repeats, erasing], [mixup, erasing, repeats]]"))
    assert {row.name for row in given.rows} == {row.name for row in plan.rows}


def test_orders_are_the_given_one_its_reverse_and_then_always_the_same() -> None:
    steps = [f"+{letter}" for letter in "abcd"]
    made = cumulative(steps, 24).orders
    assert made[:2] == ((0, 1, 2, 3), (3, 2, 1, 0))
    assert set(made) == set(itertools.permutations(range(4)))
    assert cumulative(steps, 5).orders == made[:5] == ((0, 1, 2, 3), (3, 2, 1, 0), *BY_LOT)
    assert cumulative(steps, None).orders == ()


BY_LOT = ((3, 2, 0, 1), (2, 3, 0, 1), (2, 1, 3, 0))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("factorial: [augment.mixup]", "2:1: factorial: 1 factor; expected 2 to 7"),
        ("factorial: [augment.mixup, augment.erasing]\nfraction: 1/2", "3:1: fraction: a fraction of 1/2 of 2 factors"),
        (
            "factorial: [augment.mixup, augment.erasing, augment.repeats]\nfraction: 1/4",
            "3:1: fraction: a fraction of 1/4 of 3 factors tells nothing apart; expected 1/2, or no fraction",
        ),
        ("factorial: [augment.mixup, augment.erasing]\nfraction: 0.5", "3:11: fraction: got 0.5"),
        ("variants: {a: {}}\nfraction: 1/2", "3:1: fraction: got fraction beside variants"),
        ("factorial: [augment.mixup, augment.erasing]\norders: 2", "3:1: orders: got orders beside factorial"),
        (
            "factorial: {a: {augment.mixup: 0}, b: {augment.mixup: 0.3}}",
            "2:36: factorial: 'no a' and 'no b' both change augment.mixup, and differently",
        ),
        (
            "factorial: {b: {optimizer.options.momentum: 0.3}, c: {optimizer: {name: sgd, base_lr: 1}}}",
            "'no b' and 'no c' both change optimizer.options.momentum, and differently",
        ),
        ("factorial: [augment.mixup, augment.erasing]\nseeds: 6\nlooks: [3, 6]", "4:1: looks: looks at a factorial"),
        (
            "cumulative: {a: {augment.mixup: 0}, b: {augment.erasing: 0}}\nlooks: [3, 6]\norders: 2",
            "3:1: looks: looks at several orders",
        ),
        ("factorial: 3", "2:12: factorial: got 3; expected a mapping or a list"),
        ("factorial: [augment.mixup, {b: {augment.erasing: 0}}]", "2:28: factorial.1: got a mapping; expected a valid"),
        ("factorial: {factors: [augment.mixup]}", "factorial.no factors: got ['augment.mixup']"),
        (
            "factorial: {x: {augment.mixup: 0}, x + no y: {augment.erasing: 0}, y: {augment.repeats: 1}}",
            "2:1: factorial: two rows would be called 'no x + no y'",
        ),
        ("cumulative: {a: {augment.mixup: 0}, b: {augment.erasing: 0}}\norders: 3", "3:1: orders: 3 orders of 2 steps"),
        ("cumulative: {a: {augment.mixup: 0}, b: {augment.erasing: 0}}\norders: [[b]]", "3:1: orders: got ['b']"),
        ("cumulative: {a: {augment.mixup: 0}, b: {augment.erasing: 0}}\norders: two", '3:9: orders: got "two"'),
        (
            "cumulative: {a: {augment.mixup: 0}, b: {augment.mixup: 0.3}}\norders: 2",
            "2:37: cumulative: '+a' and '+b' both change augment.mixup",
        ),
    ],
)
def test_what_combines_no_changes_is_refused_at_its_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError) as error:
        planned(write(tmp_path, "profile: digits\n" + text))
    assert says in str(error.value)


@pytest.mark.parametrize(
    "of",
    [
        "factorial: [augment.mixup, augment.erasing]",
        "orders: 2\ncumulative: {a: {augment.mixup: 0}, b: {augment.erasing: 0}}",
    ],
)
def test_what_many_rows_tell_is_not_looked_at(command: Command, of: str) -> None:
    (command.folder / "many.yaml").write_text(f"profile: digits\n{of}\n")
    for how in (["--until-decided"], ["--budget", "1h"]):
        refused = command("run", "many.yaml", *how, code=2)
        assert (
            "expected no looks (--until-decided, --budget): what is told of a change takes many rows" in refused.stderr
        )
    assert not (command.folder / "results").exists()


def test_a_step_that_repeats_the_name_of_its_base_keeps_the_steps_before(tmp_path: Path) -> None:
    changes = "{shallow: {model.options.depth: 3}, wider: {model: {name: deit, options: {embed_dim: 96}}}}"
    for kind, last in (("cumulative", "+wider"), ("factorial", "no shallow + no wider")):
        rows = {row.name: row for row in planned(write(tmp_path, f"profile: digits\n{kind}: {changes}\n")).rows}
        options = rows[last].recipe.model.options
        assert (options["depth"], options["embed_dim"]) == (3, 96)
