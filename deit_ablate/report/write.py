"""What an analysis shows, written under ``results/<sweep>/``. The files in ``analysis/`` decide what that is."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from deit_ablate import files
from deit_ablate.errors import InputError, print_anything
from deit_ablate.report.summary import Summary, summarize
from deit_ablate.report.tables.pivot import is_grid
from deit_ablate.report.tables.render import RENDERERS
from deit_ablate.report.tables.search import has_rows, is_search
from deit_ablate.report.tables.table import Table
from deit_ablate.store import Store
from deit_ablate.sweep.metrics import TOP1

if TYPE_CHECKING:
    from matplotlib.figure import Figure


PARTS = frozenset({"table", "search", "interactions", "pivot", "paper"})
FIGURES = frozenset({"effects", "top1", "values", "curves", "interactions", "pivot"})
"""What our figures are called, beside those of a search and the paper's."""
PAGE = "-page"
"""Ends the name of a figure that is as wide as a page."""
Made = TypeVar("Made")


def analysis(name: str = "sweep_table") -> ModuleType:
    """The analysis file of that name, with ``table(summary)`` and ``figures(summary)``.

    Raises FileNotFoundError where there is none.
    """
    path = files.shipped("analysis") / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"deit_ablate_analysis_{name}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"no analysis {name!r}: {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def paper_analysis(summary: Summary) -> ModuleType | None:
    """The analysis that sets this sweep beside the paper: the one whose ``SWEEPS`` name its file. None where none
    does, and of a sweep that measures something else than the paper's tables do."""
    if summary.metric.name != TOP1.name:
        return None
    stem = Path(summary.plan.get("source") or summary.sweep).stem
    for path in sorted(files.shipped("analysis").glob("*.py")):
        if path.stem != "sweep_table":
            module = analysis(path.stem)
            if stem in module.SWEEPS:
                return module
    return None


def run_as_script(table: Callable[[Summary], Table]) -> None:
    """What an analysis file does when it is run: print its table of the sweep that the command line names."""
    parser = argparse.ArgumentParser(description=table.__doc__)
    parser.add_argument("sweep", help="a sweep's name under the results folder")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--format", choices=RENDERERS, default="md")
    arguments = parser.parse_args()
    print_anything()
    made = table(summarize(Store(arguments.results), arguments.sweep))
    print(RENDERERS[arguments.format](made), end="")


def parts(summary: Summary) -> dict[str, ModuleType]:
    """What there is of a sweep: the name of its files -> the analysis that makes them. Its own table is always there;
    the paper's once a run has finished."""
    there = {"search": is_search(summary.plan), "interactions": summary.design, "pivot": is_grid(summary)}
    found = {name: analysis(name) for name in there if there[name]}
    ended = summary.has_results and has_rows(summary.plan)
    paper = paper_analysis(summary) if ended else None
    return {"table": analysis(), **found, **({"paper": paper} if paper else {})}


def write_report(summary: Summary) -> list[Path]:
    """Write a sweep's tables and figures; returns their paths."""
    return write_tables(summary) + write_figures(summary)


def each(summary: Summary, make: Callable[[str, ModuleType], Made]) -> tuple[dict[str, Made], list[str]]:
    """What ``make(name, module)`` makes of each of a sweep's ``parts``, by name, and notes for its own table.

    The paper's part is left out, with a note, where it needs what is not there (a student that is done, what runs
    predicted): the sweep's own table needs none of that.
    """
    made, notes = {}, []
    for name, module in parts(summary).items():
        try:
            made[name] = make(name, module)
        except InputError as error:
            if name != "paper":
                raise
            notes.append(f"There is no table beside the paper's: {error.problem}.")
    return made, notes


def write_tables(summary: Summary) -> list[Path]:
    """Write <name>.md, .csv, .tex and .html of each of a sweep's ``parts``, table.md last, and remove those of parts
    that it has no longer; returns their paths."""
    paths: list[Path] = []
    folder = summary.store.sweeps.folder(summary.sweep)
    made, notes = each(summary, lambda _, module: module.table(summary))
    made["table"] = replace(made["table"], footnotes=(*made["table"].footnotes, *notes))
    for name in reversed(made):
        for suffix in reversed(RENDERERS):
            paths.append(folder / f"{name}.{suffix}")
            text = markdown(summary, made) if paths[-1].name == "table.md" else RENDERERS[suffix](made[name])
            files.replace(paths[-1], text.encode())
    for name, suffix in itertools.product(PARTS - made.keys(), RENDERERS):
        (folder / f"{name}.{suffix}").unlink(missing_ok=True)
    return paths[::-1]


def markdown(summary: Summary, made: Mapping[str, Table] = {}) -> str:
    """What table.md holds: the sweep's table, and that of interactions after it; of a search the best trials before
    it, and alone until one is confirmed. ``made``: tables of its ``parts``, where they are there already."""
    shown = [name for name in ("search", "table", "interactions") if name != "table" or has_rows(summary.plan)]
    tables = {name: made.get(name) or module.table(summary) for name, module in parts(summary).items() if name in shown}
    return "\n".join(RENDERERS["md"](tables[name]) for name in shown if name in tables)


def write_figures(summary: Summary, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write figures/<name>.<format> of a sweep's ``parts``, and remove those that it has no longer, of any format;
    returns their paths. Imports matplotlib, and Optuna for a search, which has none of its table before something is
    confirmed."""
    from deit_ablate.report.figures.style import PAGE_WIDTH, save

    def drawn(part: str, module: ModuleType) -> Mapping[str, Figure]:
        return module.figures(summary) if part != "table" or has_rows(summary.plan) else {}

    paths, folder = [], summary.store.sweeps.folder(summary.sweep) / "figures"
    made = {
        f"{'paper_' * (part == 'paper')}{name}": figure
        for part, own in each(summary, drawn)[0].items()
        for name, figure in own.items()
    }
    for name, figure in made.items():
        for form in formats:
            paths.append(
                files.make_folder(folder) / f"{name}{PAGE if figure.get_figwidth() == PAGE_WIDTH else ''}.{form}"
            )
            save(figure, paths[-1])
    for path in folder.glob("*.*"):
        name = path.stem.removesuffix(PAGE)
        if (name in FIGURES or name.startswith(("paper_", "search-"))) and name not in made:
            path.unlink()
    return paths
