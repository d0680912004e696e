"""A search: its best trials with their intervals, and how it went.

    python analysis/search.py SWEEP [--results DIR] [--format md|csv|tex|html]

``deit-ablate`` shows it beside the sweep's own table, which has the confirmed rows.
"""

import argparse
from pathlib import Path

from deit_ablate.report.tables import render

SWEEPS = ()


def table(results, sweep, strict=False):
    """The best trials of each row: parameters, search value, mean on fresh seeds, the confirmed value."""
    from deit_ablate.report.tables.search import search_table

    return search_table(results, sweep)


def figures(results, sweep):
    """History, importances by fANOVA, slices, a contour, and the front of two objectives; of each row."""
    from deit_ablate.report.figures.search import search_figures

    return search_figures(results, sweep)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print the table of a search.")
    parser.add_argument("sweep")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--format", choices=render.RENDERERS, default="md")
    arguments = parser.parse_args()
    print(render.RENDERERS[arguments.format](table(arguments.results, arguments.sweep)), end="")
