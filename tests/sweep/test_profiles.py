"""Profiles, and what a sweep file changes under one of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import planned

from deit_ablate.errors import InputError
from deit_ablate.sweep.comparisons import LOOKS


def written(folder: Path, text: str) -> Path:
    path = folder / "x.yaml"
    path.write_text(text)
    return path


def test_a_profile_has_the_last_word_on_a_single_stage_of_a_row(tmp_path: Path) -> None:
    text = """
profile: digits
seeds: 1
baseline: a
stages: {pretrain: {}, finetune: {from: pretrain, recipe: {data: {resolution: 24}}}}
variants:
  a: {}
  b: {finetune: {optimizer: {name: sgd, base_lr: 0.5, options: {momentum: 0.9}}}}
  c: {finetune.data.resolution: 12}
by_profile:
  fashion-mnist:
    b: {finetune.optimizer.base_lr: 0.2}
    c: {finetune: {data: {resolution: 21}}, augment.mixup: 0}
    finetune: {data.resolution: 42}
"""
    path = written(tmp_path, text)
    digits, fashion = (
        {row.name: row.recipe for row in planned(path, profile=p).rows} for p in ("digits", "fashion-mnist")
    )
    assert [row.data.resolution for row in digits.values()] == [24, 24, 12]
    assert [row.data.resolution for row in fashion.values()] == [42, 42, 21]
    assert (digits["b"].optimizer.base_lr, fashion["b"].optimizer.base_lr) == (0.5, 0.2)
    assert fashion["b"].optimizer.options == {"momentum": 0.9}
    assert (digits["c"].augment.mixup, fashion["c"].augment.mixup) == (0.1, 0)
    assert len(planned(path, profile="fashion-mnist").runs) == 2 + 3
    with pytest.raises(InputError, match=r"b\.finetune\.optimizer: unknown key 'bas_lr'|unknown key 'bas_lr'"):
        planned(written(tmp_path, text.replace("b: {finetune.optimizer.base_lr", "b: {finetune.optimizer.bas_lr")))


def test_a_sweep_may_end_earlier_under_a_profile(tmp_path: Path) -> None:
    """Without the rows that differ in later stages alone, and without what other rows change there."""
    text = """
profile: digits
seeds: 1
baseline: a
stages: {pretrain: {}, finetune: {from: pretrain, recipe: {data: {resolution: 24}}}}
resources: {finetune: {threads: 1}, tuned by sgd: {threads: 1}}
labels: {tuned by sgd: SGD}
groups: {tuned: [tuned by sgd, both]}
variants:
  a: {}
  tuned by sgd: {finetune: {optimizer: {name: sgd, base_lr: 0.5}}}
  shorter: {finetune: {schedule.epochs: 8}}
  both: {augment.mixup: 0, finetune.data.resolution: 12}
by_profile:
  glyphs: {last_stage: pretrain, shorter: {finetune: {schedule.epochs: 7}}}
"""
    path = written(tmp_path, text)
    assert [(row.name, row.recipe.data.resolution) for row in planned(path).rows] == [
        ("a", 24),
        ("tuned by sgd", 24),
        ("shorter", 24),
        ("both", 12),
    ]
    ended = planned(path, profile="glyphs")
    assert [(row.name, row.recipe.data.resolution) for row in ended.rows] == [("a", 20), ("both", 20)]
    assert ({cell.stage for cell in ended.cells}, len(ended.runs)) == ({"pretrain"}, 2)
    with pytest.raises(
        InputError, match="finetune: under this profile the sweep ends with 'pretrain', before 'finetune'"
    ):
        planned(path, profile="glyphs", sets=["finetune.schedule.epochs=2"])
    with pytest.raises(
        InputError, match=r"by_profile\.glyphs\.last_stage: no stage 'pretrian'; did you mean 'pretrain'"
    ):
        planned(written(tmp_path, text.replace("stage: pretrain,", "stage: pretrian,")))


TWO_OF_THREE = "{a: {augment.mixup: 0}, b: {augment.cutmix: 0}, c: {last: {augment.erasing: 0}}}"


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("baseline: a\nvariants: {a: {last: {augment.mixup: 0}}, b: {augment.cutmix: 0}}", ["a", "b"]),
        (f"cumulative: {TWO_OF_THREE}\norders: [[c, b, a]]", ["baseline", "+a", "+b", "baseline +b"]),
        (f"cumulative: {TWO_OF_THREE}\norders: 3\nlabels: {{c: X}}", ["baseline", "+a", "+b", "baseline +b"]),
        (f"cumulative: {TWO_OF_THREE}\nlabels: {{c: X, +c: Y}}\ngroups: {{G: [+b, +c]}}", ["baseline", "+a", "+b"]),
        (f"factorial: {TWO_OF_THREE}\nfraction: 1/2", ["baseline", "no a", "no b", "no a + no b"]),
        (
            f"factorial: {TWO_OF_THREE}\nlabels: {{c: X, no a + no c: Y}}\nresources: {{no a + no c: {{threads: 1}}}}",
            ["baseline", "no a", "no b", "no a + no b"],
        ),
        (
            "variants: {a: {}, c: {last: {augment.erasing: 0}}}\n"
            "search: {space: {augment.mixup: [0, 1]}, spaces: {c: {augment.cutmix: [0, 1]}}}",
            ["a"],
        ),
    ],
)
def test_what_a_last_stage_leaves_out_leaves_the_rest_of_the_file_as_it_is(
    tmp_path: Path, text: str, rows: list[str]
) -> None:
    head = "profile: digits\nstages: {first: {}, last: {from: first}}\nby_profile: {digits: {last_stage: first}}\n"
    assert [row.name for row in planned(written(tmp_path, head + text)).rows] == rows


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"factorial: {TWO_OF_THREE}\nbaseline: no a + no c", "baseline: the profile's last_stage leaves out the row"),
        (f"factorial: {TWO_OF_THREE}\nlabels: {{d: X}}", "labels.d: no row 'd'"),
        ("factorial: {a: {augment.mixup: 0}, c: {last: {augment.mixup: 0}}}", "factorial: 1 factor that changes a sta"),
        ("variants: {c: {last: {augment.erasing: 0}}}", "no row is left; expected a row that changes a stage up to"),
    ],
)
def test_what_no_longer_is_a_sweep_with_a_last_stage_is_refused(tmp_path: Path, text: str, says: str) -> None:
    head = "profile: digits\nstages: {first: {}, last: {from: first}}\nby_profile: {digits: {last_stage: first}}\n"
    with pytest.raises(InputError) as refusal:
        planned(written(tmp_path, head + text))
    assert says in str(refusal.value)


@pytest.mark.parametrize("name", ["seeds", "margin", "search", "last_stage"])
def test_no_row_is_called_as_what_a_profile_changes(tmp_path: Path, name: str) -> None:
    text = f"profile: digits\nvariants: {{{name}: {{}}, b: {{augment.mixup: 0}}}}\n"
    assert [row.name for row in planned(written(tmp_path, text)).rows] == [name, "b"]
    with pytest.raises(
        InputError, match=f"x.yaml:2:12: variants: '{name}' is the name of a stage or a block, or a key"
    ):
        planned(written(tmp_path, text + "by_profile: {digits: {b: {augment.cutmix: 0}}}"))


def test_seeds_and_margin_are_those_of_the_profile(tmp_path: Path) -> None:
    text = """
profile: digits
seeds: 2
margin: 0.5
baseline: a
baseline_seeds: 1
variants: {a: {}, b: {augment.mixup: 0}}
by_profile:
  digits: {seeds: 3, margin: 1}
  imagenet: {margin: null}
"""
    path = written(tmp_path, text)
    for profile, seeds, margin in (("digits", 3, 1), ("glyphs", 2, 0.5), ("imagenet", 2, None)):
        plan = planned(path, profile=profile)
        assert (len(plan.runs), plan.sweep.margin) == (2 * seeds, margin)
    assert len(planned(path, seeds=4).runs) == 2 * 4
    assert {cell.seed for cell in planned(path, until_decided=True).cells} == set(range(LOOKS[-1]))


def test_a_profile_beside_the_sweep_comes_first(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "digits.yaml").write_text("recipe: {data.name: digits, schedule.epochs: 7}\n")
    assert planned(written(tmp_path, "profile: digits\nvariants: {a: {}}")).rows[0].recipe.schedule.epochs == 7


@pytest.mark.parametrize(
    ("by_profile", "message"),
    [
        (
            "{digit: {a: {}}}",
            "x.yaml:3:14: profile: no profile 'digit'; did you mean 'digits'?; expected one of digits",
        ),
        ("{digits: {b: {}}}", "x.yaml:3:23: by_profile.digits.b: no row or stage 'b'; expected one of a, recipe"),
        ("{digits: {search: {}}}", "x.yaml:3:23: by_profile.digits.search: no row or stage 'search'"),
        ("{imagenet: {a: {augment: {mixpu: 1}}}}", "x.yaml:3:39: by_profile.imagenet.a.augment.mixpu: unknown key"),
        ("{imagenet: {seeds: 0}}", "x.yaml:3:32: by_profile.imagenet.seeds: "),
        ("{digits: {seeds: null}}", "x.yaml:3:30: by_profile.digits.seeds: "),
        ("{imagenet: {last_stage: a}}", "x.yaml:3:37: by_profile.imagenet.last_stage: no stage 'a'"),
        ("{imagenet: {last_stage: [a]}}", "x.yaml:3:37: by_profile.imagenet.last_stage: no stage \"['a']\""),
        ("{digits: {recipe: {seed: 1}}}", "x.yaml:3:32: by_profile.digits.recipe.seed: unknown key 'seed'"),
    ],
)
def test_every_profile_is_checked_whichever_is_chosen(tmp_path: Path, by_profile: str, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        planned(written(tmp_path, f"profile: digits\nvariants: {{a: {{}}}}\nby_profile: {by_profile}"))
    assert str(refusal.value).removeprefix(f"{tmp_path}/").startswith(message)
