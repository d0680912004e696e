"""What an analysis shows, written under ``results/<sweep>/``. The files in ``analysis/`` decide what that is."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from deit_ablate import files, shipped
from deit_ablate.report.tables.render import RENDERERS
from deit_ablate.report.tables.search import has_rows, is_search
from deit_ablate.report.tables.table import Table
from deit_ablate.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def analysis(name: str = "sweep_table") -> ModuleType:
    """The analysis file of that name, with ``table(results, sweep)`` and ``figures(results, sweep)``.

    Raises FileNotFoundError where there is none.
    """
    path = shipped.folder("analysis") / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"deit_ablate_analysis_{name}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"no analysis {name!r}: {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def paper_analysis(results: Path | str, sweep: str) -> ModuleType | None:
    """The analysis that sets this sweep beside the paper: the one whose ``SWEEPS`` name its file. None where none does."""
    stem = Path((Store(results).sweeps.plan(sweep) or {}).get("source") or sweep).stem
    for path in sorted(shipped.folder("analysis").glob("*.py")):
        if path.stem != "sweep_table":
            module = analysis(path.stem)
            if stem in module.SWEEPS:
                return module
    return None


def write_paper(results: Path | str, sweep: str, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write paper.md, .csv, .tex and .html of a sweep that has a table in the paper, and its figures; returns their paths.

    A study without any finished run has none. Raises NoSweep.
    """
    module = paper_analysis(results, sweep)
    plan = Store(results).sweeps.plan(sweep) or {"cells": []}
    if module is None or not has_rows(plan) or not any(Store(results).outcome(run) for *_, run in plan["cells"]):
        return []
    folder = Store(results).sweeps.folder(sweep)
    paths = _save_table(module.table(results, sweep), folder / "paper")
    figures = {f"paper_{name}": figure for name, figure in module.figures(results, sweep).items()}
    return paths + _save_figures(figures, folder, formats)


def markdown(results: Path | str, sweep: str, strict: bool = False) -> str:
    """What table.md holds: the sweep's table; of a search the best trials before it, and alone until one is confirmed.

    Raises NoSweep.
    """
    plan = Store(results).sweeps.plan(sweep) or {}
    parts = ["search"] if is_search(plan) else []
    parts += ["sweep_table"] if has_rows(plan) else []
    return "\n".join(RENDERERS["md"](analysis(part).table(results, sweep, strict)) for part in parts)


def write_table(results: Path | str, sweep: str, strict: bool = False) -> list[Path]:
    """Write table.md, .csv, .tex and .html of a sweep, table.md last; returns their paths. Raises NoSweep."""
    text = markdown(results, sweep, strict)
    return _save_table(analysis().table(results, sweep, strict), Store(results).sweeps.folder(sweep) / "table", text)


def write_figures(results: Path | str, sweep: str, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write figures/<name>.<format> of a sweep; returns their paths. Raises NoSweep. Imports matplotlib.

    A search has none before something is confirmed (``write_search`` writes its own).
    """
    if not has_rows(Store(results).sweeps.plan(sweep) or {}):
        return []
    return _save_figures(analysis().figures(results, sweep), Store(results).sweeps.folder(sweep), formats)


def write_search(results: Path | str, sweep: str, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write search.md, .csv, .tex and .html of a sweep that is a search, and its figures; returns their paths.

    Nothing for any other sweep. Imports matplotlib and Optuna.
    """
    if not is_search(Store(results).sweeps.plan(sweep) or {}):
        return []
    module, folder = analysis("search"), Store(results).sweeps.folder(sweep)
    paths = _save_table(module.table(results, sweep), folder / "search")
    return paths + _save_figures(module.figures(results, sweep), folder, formats)


def _save_table(table: Table, stem: Path, markdown: str | None = None) -> list[Path]:
    """``stem`` with each renderer's suffix, Markdown's last. ``markdown``: in place of what its renderer makes."""
    paths = {suffix: stem.with_name(f"{stem.name}.{suffix}") for suffix in RENDERERS}
    for suffix, path in reversed(paths.items()):
        text = markdown if suffix == "md" and markdown is not None else RENDERERS[suffix](table)
        files.replace(path, text.encode())
    return list(paths.values())


def _save_figures(figures: Mapping[str, Figure], folder: Path, formats: Sequence[str]) -> list[Path]:
    if not figures:
        return []
    from deit_ablate.report.figures.style import save

    paths = []
    for name, figure in figures.items():
        for form in formats:
            paths.append(files.make_folder(folder / "figures") / f"{name}.{form}")
            save(figure, paths[-1])
    return paths


def write_report(results: Path | str, sweep: str) -> list[Path]:
    """Write a sweep's tables and figures; returns their paths. Raises NoSweep.

    table.md comes last, so that where it is newer than the records all else is.
    """
    others = write_search(results, sweep) + write_figures(results, sweep) + write_paper(results, sweep)
    return write_table(results, sweep) + others
