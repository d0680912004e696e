"""A grid by its axes: cells, means along both, labels of axes, and sweeps that are none."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable

import pytest
from studies import Study

from deit_ablate.errors import InputError
from deit_ablate.report.figures.pivot import pivot_figure
from deit_ablate.report.html import page
from deit_ablate.report.tables.pivot import pivot_table
from deit_ablate.report.tables.render import to_csv, to_latex, to_markdown

TOP1 = {("0.01", "0"): 80.0, ("0.01", "1"): 82.0, ("0.02", "0"): 90.0, ("0.02", "1"): 96.0}


def grid(study: Callable[..., Study]) -> Study:
    rows = {f"base_lr={lr},mixup={mixup}": {0: top1, 1: top1 + 1} for (lr, mixup), top1 in TOP1.items()}
    axes = [("optimizer.base_lr", ["0.01", "0.02"]), ("augment.mixup", ["0", "1"])]
    return study(rows, kind="grid", axes=axes, labels={"optimizer.base_lr": r"$\eta$"})


def test_cells_and_the_means_along_each_axis(study: Callable[..., Study]) -> None:
    table = pivot_table(grid(study).summary())
    assert table.rows() == [
        ["0.01", "80.50 ± 6.35", "82.50 ± 6.35", "81.50"],
        ["0.02", "90.50 ± 6.35", "96.50 ± 6.35", "93.50"],
        ["mean", "85.50", "89.50", "87.50"],
    ]
    assert [column.header for column in table.columns] == [r"$\eta$", "mixup = 0", "mixup = 1", "mean"]
    assert r"$\eta$" in to_latex(table)
    assert r"$\eta$" in to_markdown(table)


def test_the_heat_map_says_the_same(study: Callable[..., Study]) -> None:
    (axes,) = pivot_figure(grid(study).summary()).axes
    texts = [text.get_text() for text in axes.texts]
    assert texts[:4] == ["80.50", "82.50", "90.50", "96.50"]
    assert texts[4:] == ["81.50", "93.50", "mean"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0\n(85.50)", "1\n(89.50)"]
    assert axes.get_ylabel() == r"$\eta$"


def test_of_three_axes_each_has_its_means(study: Callable[..., Study]) -> None:
    values = [(a, b, c) for a in "12" for b in "12" for c in "12"]
    rows = {f"a={a},b={b},c={c}": {0: 80.0 + 4 * (a == "2") + 2 * (b == "2")} for a, b, c in values}
    made = study(rows, kind="grid", axes=[(axis, ["1", "2"]) for axis in "abc"], labels={"a": r"$\eta$"})
    notes = pivot_table(made.summary()).footnotes
    assert "Mean over all other axes, η: 1: 81.00, 2: 85.00." in notes
    assert "Mean over all other axes, b: 1: 82.00, 2: 84.00." in notes
    text = page(made.summary())
    assert 'id="pivot"' in text
    assert "darker is better" in text


@pytest.mark.parametrize(
    ("axes", "heads"),
    [
        ({"lr": ["1", "2"], "pool": ["cls", "mean"]}, ["lr", "pool = cls", "pool = mean", "mean"]),
        ({"mean": ["1", "2"], "pool": ["cls", "avg"]}, ["mean", "pool = cls", "pool = avg", "mean"]),
        ({"line": ["1", "2"], "pool": ["line", "avg"]}, ["line", "pool = line", "pool = avg", "mean"]),
        ({"pool": ["1", "2"], "x": ["pool", "pool_"]}, ["pool", "x = pool", "x = pool_", "mean"]),
    ],
)
def test_axes_and_values_may_be_called_as_our_columns_are(
    study: Callable[..., Study], axes: dict[str, list[str]], heads: list[str]
) -> None:
    cells = list(itertools.product(*axes.values()))
    made = study({f"{a},{b}": {0: 80.0 + 3 * i} for i, (a, b) in enumerate(cells)}, kind="grid", axes=axes.items())
    table = pivot_table(made.summary())
    assert [column.header for column in table.columns] == heads
    assert table.rows() == [
        ["1", "80.00", "83.00", "81.50"],
        ["2", "86.00", "89.00", "87.50"],
        ["mean", "83.00", "86.00", "84.50"],
    ]
    lines = list(csv.reader(io.StringIO(to_csv(table))))
    assert len(set(lines[0])) == len(lines[0]) == 5
    assert [float(cell) for cell in lines[1][2:]] == [80.0, 83.0, 81.5]


def test_axes_whose_last_parts_are_alike_have_their_whole_keys(study: Callable[..., Study]) -> None:
    cells = itertools.product(("deit", "convnet"), ("digits", "glyphs"), ("0", "1"))
    axes = [("model.name", ["deit", "convnet"]), ("data.name", ["digits", "glyphs"]), ("augment.mixup", ["0", "1"])]
    made = study({",".join(cell): {0: 80.0 + i} for i, cell in enumerate(cells)}, kind="grid", axes=axes)
    table = pivot_table(made.summary())
    assert [column.header for column in table.columns][:3] == ["model.name", "data.name", "mixup = 0"]
    assert table.rows()[1][:3] == ["deit", "glyphs", "82.00"]


def test_what_is_no_grid_is_refused(study: Callable[..., Study]) -> None:
    with pytest.raises(InputError, match="has no axes"):
        pivot_table(study({"a": {0: 1.0}}).summary())
