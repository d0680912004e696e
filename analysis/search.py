"""A search: its best trials with their intervals, and how it went.

``deit-ablate`` shows it beside the sweep's own table, which has the confirmed rows.
"""

from deit_ablate.report.tables.search import search_table
from deit_ablate.report.write import run_as_script

SWEEPS = ()


def table(summary):
    """The best trials of each row: parameters, search value, mean on fresh seeds, the confirmed value."""
    return search_table(summary)


def figures(summary):
    """History, importances by fANOVA, slices, a contour, and the front of two objectives; of each row."""
    from deit_ablate.report.figures.search import search_figures

    return search_figures(summary)


if __name__ == "__main__":
    run_as_script(table)
