"""Labels and groups of rows: what they show in plain text, where they are refused, and that no id has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import planned

from deit_ablate.errors import InputError
from deit_ablate.sweep.labels import parts, rows_of, words

HEAD = "profile: digits\nseeds: 1\n"
ROWS = 'variants: {a: {}, "b": {augment.mixup: 0}, c: {augment.cutmix: 0}}\n'


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        (r"$\beta_2$ = 0.99", "β₂ = 0.99"),
        ("LAMB (ours) †", "LAMB (ours) †"),
        (r"$\Lambda^{-1}_{max} \times 10^{-4}$", "Λ⁻¹ₘₐₓ×10⁻⁴"),
        (r"$\hat{x}_\tau$, $\mathrm{EMA}$", "x̂_τ, EMA"),
        (r"\$5, and one $", "$5, and one $"),
        (r"$\input{x}$", r"$\input{x}$"),
        ("$x_a_b$", "$x_a_b$"),
        ("$x^{a$", "$x^{a$"),
        ("$x_$ $$", "$x_$ $$"),
        (r"$\hat x$", r"$\hat x$"),
        ("$a%b$", "$a%b$"),
    ],
)
def test_formulas_in_plain_text(label: str, shown: str) -> None:
    assert words(label) == shown


def test_a_formula_is_kept_as_it_is_written() -> None:
    assert list(parts(r"a $\beta_2$")) == [("a ", None), (r"\beta_2", "β₂")]


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("labels:\n  d: x\n", 4, "no row 'd'"),
        ("labels:\n  a: '$\\input{x}$'\n", 4, r"\\input in mathematics"),
        ("labels:\n  a: '$x_a_b$'\n", 4, "two _ after one symbol"),
        ("labels:\n  a: ' '\n", 4, "an empty label"),
        ("groups:\n  One: [a, d]\n", 4, "no row 'd'"),
        ("groups:\n  One: [a]\n  Two: [b, a]\n", 5, "'a' is in 'One' already"),
    ],
)
def test_what_cannot_be_shown_is_refused_at_its_line(text: str, line: int, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(HEAD + text + ROWS)
    with pytest.raises(InputError, match=problem) as caught:
        planned(path)
    assert caught.value.where is not None
    assert caught.value.where[1] == line


def test_ids_are_those_without_labels_and_groups(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(HEAD + ROWS)
    plain = planned(path)
    path.write_text(HEAD + "labels: {a: ours}\ngroups: {Mixing: [c, b]}\n" + ROWS)
    labelled = planned(path)
    assert labelled.cells == plain.cells
    document = labelled.document("s.yaml")
    assert rows_of(document) == [("a", ""), ("c", "Mixing"), ("b", "Mixing")]
    assert rows_of(plain.document("s.yaml")) == [("a", ""), ("b", ""), ("c", "")]


def test_rows_and_axes_of_a_grid_have_labels(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    grid = "grid: {augment.mixup: [0, 0.5], augment.cutmix: [0, 1]}\n"
    path.write_text(HEAD + grid + "labels: {augment.mixup: $\\alpha$, 'mixup=0,cutmix=0': none}\n")
    assert planned(path).document("s.yaml")["labels"] == {"augment.mixup": "$\\alpha$", "mixup=0,cutmix=0": "none"}


def test_the_baseline_of_one_switch_at_a_time_is_called_what_the_paper_calls_it(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(HEAD + "leave_one_out: [augment.mixup]\nlabels: {baseline: 'DeiT-S, full recipe'}\n")
    assert planned(path).document("s.yaml")["labels"]["baseline"] == "DeiT-S, full recipe"


def test_steps_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    steps = "cumulative: {one: {augment.mixup: 0}, two: {augment.cutmix: 0}}\n"
    path.write_text(HEAD + steps + "groups: {Late: [+two], Early: [+one]}\n")
    with pytest.raises(InputError, match="keep their order"):
        planned(path)
    path.write_text(HEAD + steps + "groups: {Early: [+one], Late: [+two]}\n")
    planned(path)
