"""A grid with its last axis across and the others down, and the means along each axis (main effects).

``deit-ablate table --pivot`` and ``deit-ablate figure`` show it of a sweep with ``grid``.
"""

from deit_ablate.report.tables.pivot import pivot_table
from deit_ablate.report.write import run_as_script

SWEEPS = ()


def table(summary):
    """A value of the other axes a row, a value of the last axis a column."""
    return pivot_table(summary)


def figures(summary):
    """A heat map."""
    from deit_ablate.report.figures.pivot import pivot_figure

    return {"pivot": pivot_figure(summary)}


if __name__ == "__main__":
    run_as_script(table)
