"""A grid as a heat map, with the means along both of its sides. Imports matplotlib."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from deit_ablate.report.figures import style as drawing
from deit_ablate.report.summary import Summary
from deit_ablate.report.tables.pivot import Grid
from deit_ablate.report.tables.table import measure


def pivot_figure(summary: Summary) -> Figure:
    """Mean metric of each row: the last axis across, the others down; beside and below the means along them. Darker is
    better; a cell without a mean is empty."""
    grid, metric = Grid.of(summary), summary.metric
    means = np.array([[grid.cells[down, value][metric.mean] for value in grid.across] for down in grid.down])
    with drawing.style():
        if np.isnan(means).all():
            return drawing.nothing("no finished runs")
        figure, (axes,) = drawing.new_figure(1, 0.3 * len(grid.down) + 0.95)
        low, high = float(np.nanmin(means)), float(np.nanmax(means))
        shade = (means - low) / ((high - low) or 1.0)
        axes.imshow(shade if metric.sign > 0 else 1 - shade, cmap="Blues", vmin=-0.1, vmax=2.0, aspect="auto")
        said = partial(measure, digits=metric.digits)
        for (y, x), mean in np.ndenumerate(means):
            axes.text(x, y, said(float(mean)), ha="center", va="center", fontsize=6.5)
        right = len(grid.across) - 0.35
        side: Any = {"color": drawing.GREY, "fontsize": 6.5, "clip_on": False}
        for y, down in enumerate(grid.down):
            axes.text(right, y, said(grid.mean(down)), va="center", **side)
        axes.text(right, -0.75, "mean", va="center", **side)

        def name(text: str) -> str:
            return drawing.text_of(summary.say(text))

        names = [f"{name(value)}\n({said(grid.mean(across=value))})" for value in grid.across]
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(grid.down)), [name(", ".join(down)) for down in grid.down])
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_xlabel(f"{name(grid.axes[-1])} (mean over the others)", parse_math=True)
        axes.set_ylabel(", ".join(map(name, grid.axes[:-1])), parse_math=True)
        axes.set_title(metric.header, loc="left")
        return figure
