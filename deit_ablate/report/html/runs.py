"""Where a page's numbers come from, as data for its template: rows and their runs, what they were made with, how to
make them again, and what failed."""

from __future__ import annotations

import hashlib
import math
import posixpath
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from deit_ablate.report.html import words
from deit_ablate.report.html.content import Content, Ended
from deit_ablate.report.html.markup import Cell, Grid
from deit_ablate.report.html.parts import changed
from deit_ablate.report.records import number
from deit_ablate.report.tables.search import has_rows, is_search, of_search, place, searched_row
from deit_ablate.report.tables.table import NOTHING

DIFF_LINES = 300
MADE_WITH = (
    "version",
    "commit",
    "packages",
    "cpu",
    "gpu",
    "host",
    "device",
    "ranks",
    "threads",
    "compile",
    "deterministic",
    "command",
)
NUMBERS = ("seed", "trial or seed", "test top-1 (%)", "validation top-1 (%)", "time (s)", "attempts")
"""Columns of runs that are numbers."""


def command(plan: Mapping[str, Any], row: str | None = None) -> str:
    """What trains a sweep, or a row of it, from the folder that holds ``results``.

    A shipped sweep goes by its name: where the package lies differs from machine to machine.
    """
    source = plan["source"].replace("\\", "/")
    stem = posixpath.basename(source)
    if "/shipped/sweeps/" in source:
        source = stem.rpartition(".")[0] or stem
    elif not source.startswith("/"):
        source = posixpath.normpath(posixpath.join("results", source))
    asked = plan.get("asked") or {}
    parts = ["deit-ablate", "run", source]
    profile = asked.get("profile")
    parts += ["--profile", profile] if profile else []
    for value in asked.get("sets") or ():
        parts += ["--set", value]
    parts += ["--seeds", str(asked["seeds"])] if asked.get("seeds") else []
    parts += ["--name", asked["name"]] if asked.get("name") else []
    if is_search(plan):
        parts += ["--confirm"] if plan["search"]["confirm"] else []
        row = searched_row(plan, row)
    parts += ["--only", row] if row is not None else []
    return shlex.join(parts)


class Box(NamedTuple):
    """A row: its place in the plan, its verdict's class and words, its recipe's difference, the command, its runs."""

    row: Mapping[str, Any]
    kind: str
    verdict: str
    leaks: str
    changed: Grid
    runs: Grid
    command: str


def boxes(page: Content) -> list[Box]:
    """A box a row; none while the candidates of a search are not confirmed."""
    judged = {row["variant"]: row for row in page.rows}
    by_row: dict[str, list[Mapping[str, Any]]] = {}
    for cell in page.cells:
        if not of_search(page.plan, cell["stage"]):
            by_row.setdefault(cell["variant"], []).append(cell)
    letters = _letters(page)
    found = []
    for row in page.plan["variants"] if has_rows(page.plan) else ():
        name = row["name"]
        found.append(
            Box(
                row,
                words.group(judged[name]["verdict"]),
                str(judged[name]["verdict_words"]).partition(";")[0].partition(":")[0],
                judged[name]["leaks"],
                changed(row["differs"]),
                _runs(page, by_row.get(name, []), letters, f"Runs of {page.say(name)}"),
                command(page.plan, name),
            )
        )
    return found


def trials(page: Content) -> Grid | None:
    """Of a search: its trials and candidates."""
    tried = [cell for cell in page.cells if of_search(page.plan, cell["stage"])]
    return _runs(page, tried, _letters(page), "Trials and candidates") if is_search(page.plan) else None


def _runs(
    page: Content, cells: Sequence[Mapping[str, Any]], letters: Mapping[tuple[str, ...], str], caption: str
) -> Grid:
    """A line a run."""
    tried = any(of_search(page.plan, cell["stage"]) for cell in cells)
    staged = len(page.plan["stages"]) > 1 or tried
    lines: list[dict[str, str | Cell]] = []
    columns = _columns(tried, staged)
    for cell in cells:
        letter = letters.get(_environment_of(cell), "")
        lines.append(
            {
                "run": Cell(cell["run"], "code"),
                "row": cell["variant"],
                "trial or seed": str(cell["seed"]),
                "seed": str(cell["seed"]),
                "stage": cell["stage"],
                "state": cell["state"] + (f" ({page.say(cell['detail'])})" if cell["detail"] else ""),
                "validation top-1 (%)": _number(cell["validation_top1"], 2),
                "test top-1 (%)": _number(cell["top1"], 2),
                "time (s)": _number(cell["train_seconds"], 0),
                "attempts": str(cell["attempts"]),
                "commit": Cell(_commit(cell["commit"]), "code"),
                "made with": Cell(letter, href=f"#made-{letter}") if letter else NOTHING,
            }
        )
    right = [i for i, title in enumerate(columns) if title in NUMBERS]
    return Grid(caption, columns, [[line[title] for title in columns] for line in lines], right, "sortable")


def _columns(tried: bool, staged: bool) -> list[str]:
    first = ["run", "row", "trial or seed"] if tried else ["run", "seed"]
    figure = "validation top-1 (%)" if tried else "test top-1 (%)"
    return [*first, *(["stage"] if staged else []), "state", figure, "time (s)", "attempts", "commit", "made with"]


def _number(value: Any, digits: int) -> str:
    return NOTHING if math.isnan(number(value)) else f"{value:.{digits}f}"


def _commit(commit: str) -> str:
    return commit[:10] + (" + changes" if commit.endswith("+ changes") else "") or NOTHING


# -- what runs were made with --------------------------------------------------------------------------------------


def _environment_of(cell: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple("" if str(cell[key]) in ("<NA>", "None", "nan") else str(cell[key]) for key in MADE_WITH)


def _letters(page: Content) -> dict[tuple[str, ...], str]:
    """What runs were made with -> A, B, … Z, AA, in the order of the runs."""
    found: dict[tuple[str, ...], str] = {}
    for cell in page.cells:
        key = _environment_of(cell)
        if cell["state"] in ("done", "diverged") and key not in found:
            found[key] = _letter(len(found))
    return found


def _letter(number: int) -> str:
    return (_letter(number // 26 - 1) if number >= 26 else "") + chr(ord("A") + number % 26)


def made_with(page: Content) -> list[tuple[str, list[tuple[str, str]]]]:
    """(letter, [(name, value)]): what is equal for all runs once, as "all", then by letter what is not."""
    made = _letters(page)
    shown = [i for i, key in enumerate(MADE_WITH) if not (page.redacted and key == "host")]
    equal = [i for i in shown if len(made) > 1 and len({values[i] for values in made}) == 1]
    blocks = [("all", next(iter(made)), equal)] if len(made) > 1 else []
    blocks += [(letter, values, [i for i in shown if i not in equal]) for values, letter in made.items()]
    return [(title, [(MADE_WITH[i], values[i]) for i in which if values[i]]) for title, values, which in blocks]


class Diff(NamedTuple):
    digest: str
    runs: int
    lines: Sequence[str]
    more: int


def diffs(page: Content) -> list[Diff]:
    """Changes of the code that no commit has, each once. They may hold anything: the template leaves them out of a
    page that is redacted."""
    runs_of: dict[str, list[str]] = {}
    for run, outcome in page.outcomes.items():
        git = (outcome.get("provenance") or {}).get("git") or {}
        if git.get("dirty") and git.get("diff"):
            runs_of.setdefault(str(git["diff"]), []).append(run)
    found = []
    for diff, runs in runs_of.items():
        lines = [] if page.redacted else diff.split("\n")
        digest = hashlib.sha256(diff.encode()).hexdigest()[:10]
        found.append(Diff(digest, len(runs), lines[:DIFF_LINES], len(lines) - DIFF_LINES))
    return found


# -- what failed ---------------------------------------------------------------------------------------------------


class Failure(NamedTuple):
    """A run that failed or diverged: its record, how it ended, and the places of the sweep that need it."""

    cell: Mapping[str, Any]
    ended: Ended
    places: Sequence[str]


def failures(page: Content) -> list[Failure]:
    cells_of: dict[str, list[Mapping[str, Any]]] = {run: [] for run in page.ended}
    for cell in page.cells:
        if cell["run"] in cells_of:
            cells_of[cell["run"]].append(cell)
    return [
        Failure(
            cells[-1],
            page.ended[run],
            [place(page.plan, cell["variant"], cell["seed"], cell["stage"]) for cell in cells],
        )
        for run, cells in cells_of.items()
    ]
