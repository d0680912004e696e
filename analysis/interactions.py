"""What changes are worth beside one another: effects and interactions of a factorial, or steps in several orders.

``deit-ablate`` shows it after the sweep's own table, where a sweep is one of these.
"""

from deit_ablate.report.tables.interactions import interactions_table
from deit_ablate.report.write import run_as_script

SWEEPS = ()


def table(summary):
    """An effect (or a step) a row: estimates with intervals, verdict, and what each adds with and without the other."""
    return interactions_table(summary)


def figures(summary):
    """Means by the levels of each two factors; or steps by their places in the orders."""
    from deit_ablate.report.figures.interactions import interactions_figure

    return {"interactions": interactions_figure(summary)}


if __name__ == "__main__":
    run_as_script(table)
