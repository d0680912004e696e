"""Where a page's numbers come from, as data for its template: rows and their runs, what they were made with, how to
make them again, and what failed."""

from __future__ import annotations

import hashlib
import posixpath
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from deit_ablate.report.html.content import Content, Ended
from deit_ablate.report.tables.search import has_rows, is_search, of_search, place, searched_row
from deit_ablate.store.datafacts import data_lines
from deit_ablate.store.named import asked_options

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
    parts = ["deit-ablate", "run", source, *asked_options(plan.get("asked") or {})]
    if is_search(plan):
        parts += ["--confirm"] if plan["search"]["confirm"] else []
        row = searched_row(plan, row)
    parts += ["--only", row] if row is not None else []
    return shlex.join(parts)


def boxes(page: Content) -> list[tuple[Mapping[str, Any], Mapping[str, Any], list[Mapping[str, Any]]]]:
    """(row of the plan, row of the summary, records of its runs); none while a search's candidates are not
    confirmed."""
    judged = {row["variant"]: row for row in page.summary.rows}
    by_row: dict[str, list[Mapping[str, Any]]] = {}
    for cell in page.cells:
        if not of_search(page.plan, cell["stage"]):
            by_row.setdefault(cell["variant"], []).append(cell)
    rows = page.plan["variants"] if has_rows(page.plan) else ()
    return [(row, judged[row["name"]], by_row.get(row["name"], [])) for row in rows]


def trials(page: Content) -> list[Mapping[str, Any]]:
    """Of a search: the records of its trials and candidates."""
    return [cell for cell in page.cells if of_search(page.plan, cell["stage"])]


# -- what runs were made with --------------------------------------------------------------------------------------


def environment(cell: Mapping[str, Any]) -> tuple[str, ...]:
    """What a run was made with, in the order of MADE_WITH; empty where that is not recorded."""
    return tuple("" if str(cell[key]) in ("<NA>", "None", "nan") else str(cell[key]) for key in MADE_WITH)


def letters(page: Content) -> dict[tuple[str, ...], str]:
    """What runs were made with -> A, B, … Z, AA, in the order of the runs."""
    made = (environment(cell) for cell in page.cells if cell["state"] in ("done", "diverged"))
    return {key: _letter(number) for number, key in enumerate(dict.fromkeys(made))}


def _letter(number: int) -> str:
    return (_letter(number // 26 - 1) if number >= 26 else "") + chr(ord("A") + number % 26)


def made_with(page: Content) -> list[tuple[str, list[tuple[str, str]]]]:
    """(letter, [(name, value)]): what is equal for all runs once, as "all", then by letter what is not."""
    made = letters(page)
    shown = [i for i, key in enumerate(MADE_WITH) if not (page.redacted and key == "host")]
    equal = [i for i in shown if len(made) > 1 and len({values[i] for values in made}) == 1]
    blocks = [("all", next(iter(made)), equal)] if len(made) > 1 else []
    blocks += [(letter, values, [i for i in shown if i not in equal]) for values, letter in made.items()]
    return [(title, [(MADE_WITH[i], values[i]) for i in which if values[i]]) for title, values, which in blocks]


def data(page: Content) -> list[tuple[str, list[str]]]:
    """(the data's id, lines about them) of data of one's own, each once, in the order of the runs."""
    found: dict[tuple[str, tuple[str, ...]], None] = {}
    for run, outcome in page.outcomes.items():
        facts = outcome.get("data") or {}
        if lines := data_lines(facts):
            recipe = (page.summary.store.sound_recipe(run) or {}).get("recipe") or {}
            found[str((recipe.get("data") or {}).get("id") or facts.get("name")), tuple(lines)] = None
    return [(name, [*lines]) for name, lines in found]


def diffs(page: Content) -> list[tuple[str, int, Sequence[str]]]:
    """(digest, number of runs, lines): changes of the code that no commit has, each once. They may hold anything: of a
    page that is redacted there are no lines."""
    count = Counter[str]()
    for outcome in page.outcomes.values():
        git = (outcome.get("provenance") or {}).get("git") or {}
        if git.get("dirty") and git.get("diff"):
            count[str(git["diff"])] += 1
    return [
        (hashlib.sha256(diff.encode()).hexdigest()[:10], runs, [] if page.redacted else diff.split("\n"))
        for diff, runs in count.items()
    ]


def failures(page: Content) -> list[tuple[Mapping[str, Any], Ended, list[str]]]:
    """(record, how it ended, the places of the sweep that need it) of each run that failed or diverged."""
    cells_of: dict[str, list[Mapping[str, Any]]] = {run: [] for run in page.ended}
    for cell in page.cells:
        if cell["run"] in cells_of:
            cells_of[cell["run"]].append(cell)
    return [
        (cells[-1], page.ended[run], [place(page.plan, cell["variant"], cell["seed"], cell["stage"]) for cell in cells])
        for run, cells in cells_of.items()
    ]
