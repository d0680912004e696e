"""The table and the figures of any sweep: means over seeds, differences from the baseline, learning curves.

    python analysis/sweep_table.py SWEEP [--results DIR] [--format md|csv|tex|html]

Every file here has ``table(summary)`` and ``figures(summary)`` and is run in this way; ``deit-ablate`` shows what they
return. ``SWEEPS`` names the sweep files that a file is for (this one is for all).
"""

from deit_ablate.report.tables.table import sweep_table
from deit_ablate.report.write import run_as_script


def table(summary):
    """A variant a row: the metric with its 95% interval, the difference from the baseline, the verdict, cost, seeds."""
    return sweep_table(summary)


def figures(summary):
    """Differences from the baseline (a forest plot); values of the metric with intervals and seeds; learning curves."""
    from deit_ablate.report.figures.accuracy import sweep_figure
    from deit_ablate.report.figures.curves import curves_figure
    from deit_ablate.report.figures.forest import forest_figure

    values = "top1" if summary.metric.name == "top1" else "values"
    return {"effects": forest_figure(summary), values: sweep_figure(summary), "curves": curves_figure(summary)}


if __name__ == "__main__":
    run_as_script(table)
