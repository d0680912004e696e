"""The figure of how alike two tokens are, layer by layer. Imports matplotlib."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from deit_ablate.report.figures.style import GREY, OKABE_ITO, new_figure, shortened, style
from deit_ablate.report.tables.tokens import Similarities, published
from deit_ablate.sweep.labels import words


def tokens_figure(found: Similarities) -> Figure:
    """Cosine similarity by layer: a line a row, of several seeds the mean with its standard deviation as bars.

    The published numbers are marks: the input's at 0, the last block's at that of the deepest model. Rows beyond the
    sixth are grey.
    """
    palette, paper = OKABE_ITO[:-1], published()
    shown, others = found.rows[: len(palette)], found.rows[len(palette) :]
    with style():
        figure, (axes,) = new_figure(1, 2.1 + 0.14 * (len(shown) + bool(others) + len(paper)))
        axes.axhline(0, color=GREY, linewidth=0.4, zorder=0)
        for i, (row, colour, name) in enumerate(
            zip(shown, palette, shortened([words(row.label or row.name) for row in shown], width=40), strict=False)
        ):
            # Beside one another, where bars would hide each other.
            places = np.arange(len(row.mean)) + min(0.1, 0.02 * found.layers) * (i - (len(shown) - 1) / 2)
            seeds = f" (mean ± sd of {len(row.values)} seeds)" if len(row.values) > 1 else ""
            axes.plot(
                places, row.mean, "o-", color=colour, markersize=2.8, markeredgewidth=0, zorder=3, label=name + seeds
            )
            axes.vlines(places, row.mean - row.sd, row.mean + row.sd, color=colour, linewidth=0.8, zorder=2)
        for i, row in enumerate(others):
            label = f"{len(others)} other rows" if not i else None
            axes.plot(row.mean, color=GREY, linewidth=0.5, alpha=0.6, zorder=1, label=label)
        for number in paper:
            axes.plot(
                [0 if number["at"] == "input" else found.layers],
                [number["cosine"]],
                "s" if "two" in number["tokens"] else "D",
                markersize=4.5,
                markerfacecolor="white",
                markeredgecolor="black",
                markeredgewidth=0.8,
                clip_on=False,
                zorder=5,
                label="DeiT paper: {cosine:g}, {tokens}, {at}".format(**number),
            )
        lowest = min(float(np.nanmin(row.mean - np.nan_to_num(row.sd))) for row in found.rows)
        axes.set_ylim(max(-1.05, min(0.0, lowest) - 0.05), 1.05)
        axes.margins(x=0.03)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=12, steps=[1, 2, 5, 10], integer=True))
        axes.set_xlabel("transformer block (0: the learned input tokens)")
        axes.set_ylabel("cosine similarity (−1 to 1)")
        figure.legend(loc="outside lower left", fontsize=6, frameon=False, handlelength=1.6)
        return figure
