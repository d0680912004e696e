"""A grid by its axes: cells, means along both, labels of axes, and sweeps that are none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from studies import Study

from deit_ablate.errors import InputError
from deit_ablate.report.figures.pivot import pivot_figure
from deit_ablate.report.html import page
from deit_ablate.report.tables.pivot import pivot_table
from deit_ablate.report.tables.render import to_latex, to_markdown

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


def test_what_is_no_grid_is_refused(study: Callable[..., Study]) -> None:
    with pytest.raises(InputError, match="has no axes"):
        pivot_table(study({"a": {0: 1.0}}).summary())
