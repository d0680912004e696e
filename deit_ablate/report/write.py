"""What an analysis shows, written under ``results/<sweep>/``. The files in ``analysis/`` decide what that is."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from deit_ablate import files
from deit_ablate.errors import print_anything
from deit_ablate.report.summary import Summary, summarize
from deit_ablate.report.tables.pivot import is_grid
from deit_ablate.report.tables.render import RENDERERS
from deit_ablate.report.tables.search import has_rows, is_search
from deit_ablate.report.tables.table import Table
from deit_ablate.store import Store
from deit_ablate.sweep.metrics import TOP1

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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


def write_report(summary: Summary) -> list[Path]:
    """Write a sweep's tables and figures; returns their paths."""
    written = write_table(summary) + write_search(summary) + write_figures(summary)
    return written + write_interactions(summary) + write_pivot(summary) + write_paper(summary)


def write_table(summary: Summary) -> list[Path]:
    """Write table.md, .csv, .tex and .html of a sweep; returns their paths."""
    table = analysis().table(summary)
    return _save_table(table, _folder(summary) / "table", markdown(summary, table))


def markdown(summary: Summary, table: Table | None = None) -> str:
    """What table.md holds: the sweep's table, and that of interactions after it; of a search the best trials before
    it, and alone until one is confirmed."""
    tables = [analysis("search").table(summary)] if is_search(summary.plan) else []
    tables += [table or analysis().table(summary)] if has_rows(summary.plan) else []
    tables += [analysis("interactions").table(summary)] if summary.design else []
    return "\n".join(RENDERERS["md"](table) for table in tables)


def write_figures(summary: Summary, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write figures/<name>.<format> of a sweep; returns their paths. Imports matplotlib.

    A search has none before something is confirmed (``write_search`` writes its own).
    """
    return _save_figures(analysis().figures(summary), summary, formats) if has_rows(summary.plan) else []


def write_paper(summary: Summary, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write paper.md, .csv, .tex and .html of a sweep that has a table in the paper, and its figures; returns their
    paths.

    A study without any finished run has none.
    """
    module = paper_analysis(summary)
    if module is None or not has_rows(summary.plan) or not summary.has_results:
        return []
    paths = _save_table(module.table(summary), _folder(summary) / "paper")
    figures = {f"paper_{name}": figure for name, figure in module.figures(summary).items()}
    return paths + _save_figures(figures, summary, formats)


def write_search(summary: Summary, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write search.md, .csv, .tex and .html of a sweep that is a search, and its figures; returns their paths.

    Nothing for any other sweep. Imports matplotlib and Optuna.
    """
    if not is_search(summary.plan):
        return []
    module = analysis("search")
    paths = _save_table(module.table(summary), _folder(summary) / "search")
    return paths + _save_figures(module.figures(summary), summary, formats)


def write_interactions(summary: Summary, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write interactions.md, .csv, .tex and .html of a factorial, or of a cumulative sweep of several orders, and its
    figure; returns their paths. Nothing for any other sweep. Imports matplotlib."""
    if not summary.design:
        return []
    module = analysis("interactions")
    paths = _save_table(module.table(summary), _folder(summary) / "interactions")
    return paths + _save_figures(module.figures(summary), summary, formats)


def write_pivot(summary: Summary, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write pivot.md, .csv, .tex and .html of a grid of two axes or more, and its heat map; returns their paths."""
    if not is_grid(summary):
        return []
    module = analysis("pivot")
    paths = _save_table(module.table(summary), _folder(summary) / "pivot")
    return paths + _save_figures(module.figures(summary), summary, formats)


def _folder(summary: Summary) -> Path:
    return summary.store.sweeps.folder(summary.sweep)


def _save_table(table: Table, stem: Path, markdown: str | None = None) -> list[Path]:
    """``stem`` with each renderer's suffix, Markdown's last. ``markdown``: in place of what its renderer makes."""
    paths = {suffix: stem.with_name(f"{stem.name}.{suffix}") for suffix in RENDERERS}
    for suffix, path in reversed(paths.items()):
        text = markdown if suffix == "md" and markdown is not None else RENDERERS[suffix](table)
        files.replace(path, text.encode())
    return list(paths.values())


def _save_figures(figures: Mapping[str, Figure], summary: Summary, formats: Sequence[str]) -> list[Path]:
    if not figures:
        return []
    from deit_ablate.report.figures.style import PAGE_WIDTH, save

    folder = files.make_folder(_folder(summary) / "figures")
    paths = []
    for name, figure in figures.items():
        for form in formats:
            suffix = "-page" if figure.get_figwidth() == PAGE_WIDTH else ""
            paths.append(folder / f"{name}{suffix}.{form}")
            save(figure, paths[-1])
    return paths
