"""The table and the figures of any sweep: means over seeds, differences from the baseline, learning curves.

    python analysis/sweep_table.py SWEEP [--results DIR] [--format md|csv|tex]

Every file here has ``table(results, sweep)`` and ``figures(results, sweep)``; ``deit-ablate`` shows what they return.
"""

import argparse
from pathlib import Path

from deit_ablate.report.tables import render
from deit_ablate.report.tables.table import sweep_table


def table(results, sweep, strict=False):
    """A variant a row: test top-1 with its 95% interval, the difference paired by seed, the verdict, cost, seeds."""
    return sweep_table(results, sweep, strict)


def figures(results, sweep):
    """Differences from the baseline (a forest plot); accuracies with intervals and seeds; learning curves."""
    from deit_ablate.report.figures.accuracy import sweep_figure
    from deit_ablate.report.figures.curves import curves_figure
    from deit_ablate.report.figures.forest import forest_figure

    return {
        "effects": forest_figure(results, sweep),
        "top1": sweep_figure(results, sweep),
        "curves": curves_figure(results, sweep),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print the table of a sweep.")
    parser.add_argument("sweep")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--format", choices=render.RENDERERS, default="md")
    arguments = parser.parse_args()
    print(render.RENDERERS[arguments.format](table(arguments.results, arguments.sweep)), end="")
