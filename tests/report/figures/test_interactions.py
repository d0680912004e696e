"""The figure of a factorial has a panel for each two factors; that of orders a row for each step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from studies import Shipped

from deit_ablate.report.figures.interactions import interactions_figure
from deit_ablate.report.figures.style import save

NOISE = (0.1, -0.1, 0.0, 0.05, -0.05)
ROAD = """
profile: digits
seeds: 3
recipe: {augment: {erasing: 0, mixup: 0}}
cumulative: {erasing: {augment.erasing: 0.1}, mixup: {augment.mixup: 0.1}}
orders: 2
"""


def test_lines_are_where_the_means_are(shipped_sweep: Callable[..., Shipped], tmp_path: Path) -> None:
    def top1(cell):
        helps = "no mixup" not in cell.variant and "no RandAugment" not in cell.variant
        return 90 + NOISE[cell.seed] + 2 * helps

    summary = shipped_sweep("interactions", top1).summary()
    figure = interactions_figure(summary)
    assert len(figure.axes) == 3
    axes = figure.axes[0]
    assert axes.get_xlabel() == "RandAugment"
    with_mixup, without = (line for line in axes.lines if line.get_marker() == "o")
    assert list(with_mixup.get_ydata()) == pytest.approx([90, 92])
    assert list(without.get_ydata()) == pytest.approx([90, 90])
    for suffix in ("png", "svg"):
        save(figure, tmp_path / f"one.{suffix}")
        save(interactions_figure(summary), tmp_path / f"two.{suffix}")
        assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()


def test_the_axis_is_of_the_metric(tmp_path: Path) -> None:
    path = tmp_path / "road.yaml"
    path.write_text("profile: digits\nseeds: 3\nmetric: loss\nfactorial: [augment.mixup, augment.erasing]\n")
    made = Shipped(
        tmp_path / "results", path, lambda cell: {"top1": 50.0, "test": {"loss": 1 + NOISE[cell.seed % 5] / 10}}
    )
    (axes,) = interactions_figure(made.summary()).axes
    assert axes.get_ylabel() == "test loss (nats)"
    low, high = axes.get_ylim()
    assert 0.8 < low < high < 1.2
    path.write_text(ROAD + "metric: loss\n")
    made = Shipped(
        tmp_path / "others", path, lambda cell: {"top1": 50.0, "test": {"loss": 1 + NOISE[cell.seed % 5] / 10}}
    )
    (axes,) = interactions_figure(made.summary()).axes
    assert axes.get_xlabel().startswith("what the step adds to test loss (nats)\n")


def test_a_step_stands_at_what_it_adds_at_each_place(tmp_path: Path) -> None:
    path = tmp_path / "road.yaml"
    path.write_text(ROAD)
    only = {"baseline": 0, "+erasing": 1, "+mixup": 1.5, "baseline +mixup": 3}
    made = Shipped(tmp_path / "results", path, lambda cell: 90 + NOISE[cell.seed % 5] + only[cell.variant])
    (axes,) = interactions_figure(made.summary()).axes
    places = {(text.get_text(), round(text.get_position()[0], 1)) for text in axes.texts if text.get_text() in "12"}
    assert places >= {("1", 1.0), ("2", -1.5), ("2", 0.5), ("1", 3.0)}


def test_without_runs_of_all_rows_it_says_so(shipped_sweep: Callable[..., Shipped]) -> None:
    made = shipped_sweep("interactions", lambda cell: "missing" if cell.variant == "baseline" else 90.0)
    figure = interactions_figure(made.summary())
    assert not figure.axes
    assert figure.texts[0].get_text() == "not all rows have finished runs"
