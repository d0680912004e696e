"""The parts of a sweep's page that say where its numbers come from: rows and their runs, what they were made with,
how to make them again, and what failed."""

from __future__ import annotations

import hashlib
import math
import posixpath
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from deit_ablate.report.html import words
from deit_ablate.report.html.content import LOG_LINES, Content
from deit_ablate.report.html.markup import details, grid, tag
from deit_ablate.report.html.parts import changed, chip, section
from deit_ablate.report.records import number
from deit_ablate.report.tables.search import has_rows, is_search, of_search, place, searched_row
from deit_ablate.report.tables.table import NOTHING

OPEN = 12
"""Rows up to which each has a box of its own that is open."""
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


def provenance(page: Content) -> str:
    """A box a row: its recipe's difference, the command, its runs; then what runs were made with."""
    made = _made_with(page.cells)
    lines = [
        tag("h2", "Where the numbers come from"),
        tag(
            "p",
            "The whole sweep, from the folder that holds <code>results</code> (what is trained already is not trained again):",
        ),
        _command(page, None),
    ]
    by_row: dict[str, list[dict[str, Any]]] = {}
    tried = [cell for cell in page.cells if of_search(page.plan, cell["stage"])]
    for cell in page.cells:
        if not of_search(page.plan, cell["stage"]):
            by_row.setdefault(cell["variant"], []).append(cell)
    shown = page.plan["variants"] if has_rows(page.plan) else []
    judged = {row["variant"]: row for row in page.rows}
    boxes = [_row(page, row, judged[row["name"]], by_row.get(row["name"], []), made) for row in shown]
    if is_search(page.plan):
        title = f"Trials and candidates of the search: {len({cell['run'] for cell in tried})} runs"
        boxes.append(details(title, _runs(page, tried, made, "Trials and candidates"), class_="row print"))
    if len(boxes) > OPEN:
        lines.append(details(f"{len(boxes)} rows, each with its recipe, command and runs", "\n".join(boxes)))
    else:
        lines += boxes
    lines.append(tag("h3", "Made with", id_="made"))
    lines.append(
        tag(
            "p",
            "What runs were made with: what is equal for all of them, then by the letter that their lines name what is not.",
        )
    )
    lines += _environments(page, made)
    lines += _diffs(page)
    return section("runs", "\n".join(lines))


def _command(page: Content, row: str | None) -> str:
    return tag("pre", tag("code", page.say(command(page.plan, row), 2000)), tabindex=0) + "\n"


def _row(
    page: Content,
    row: Mapping[str, Any],
    judged: Mapping[str, Any],
    cells: Sequence[Mapping[str, Any]],
    made: Mapping[tuple[str, ...], str],
) -> str:
    say, plan = page.say, page.plan
    name = row["name"]
    kind = words.group(judged["verdict"])
    label = say(name) + (" (baseline)" if name == plan["baseline"] else "")
    if kind:
        label += " " + chip(kind, say(str(judged["verdict_words"]).partition(";")[0].partition(":")[0]))
    parts = [changed(page, row["differs"])]
    if not row["differs"]:
        same = (
            "This is the baseline: its recipe is what others are compared with."
            if name == plan["baseline"]
            else "Its recipe is the baseline's."
        )
        parts.append(tag("p", same) if plan["baseline"] else "")
    if row.get("shows"):
        parts.append(tag("p", f"Shows the figure of: {say(row['shows'])}."))
    if judged["leaks"]:
        parts.append(tag("p", f"Also differs: {say(judged['leaks'], 2000)}.", class_="warn"))
    parts.append(_runs(page, cells, made, f"Runs of {say(name)}"))
    parts.append(tag("p", "This row alone:", class_="small") + _command(page, name))
    return details(label, "\n".join(parts), class_="row print")


def _runs(page: Content, cells: Sequence[Mapping[str, Any]], made: Mapping[tuple[str, ...], str], caption: str) -> str:
    """A line a run."""
    say, plan = page.say, page.plan
    tried = any(of_search(plan, cell["stage"]) for cell in cells)
    staged = len(plan["stages"]) > 1 or tried
    head = [
        "run",
        *(["row", "trial or seed"] if tried else ["seed"]),
        *(["stage"] if staged else []),
        "state",
        "validation top-1 (%)" if tried else "test top-1 (%)",
        "time (s)",
        "attempts",
        "commit",
        "made with",
    ]
    body = []
    for cell in cells:
        state = cell["state"] + (f" ({say(cell['detail'])})" if cell["detail"] else "")
        letter = made.get(_environment_of(cell), "")
        body.append(
            [
                tag("code", say(cell["run"])),
                *([say(cell["variant"])] if tried else []),
                str(cell["seed"]),
                *([say(cell["stage"])] if staged else []),
                state,
                _number(cell["validation_top1" if tried else "top1"], 2),
                _number(cell["train_seconds"], 0),
                str(cell["attempts"]),
                tag("code", say(_commit(cell["commit"]))),
                tag("a", letter, href=f"#made-{letter}") if letter else NOTHING,
            ]
        )
    right = [
        i
        for i, title in enumerate(head)
        if title in ("seed", "trial or seed", "test top-1 (%)", "validation top-1 (%)", "time (s)", "attempts")
    ]
    return grid(head, body, right=right, class_="sortable", caption=caption)


def _number(value: Any, digits: int) -> str:
    return NOTHING if math.isnan(number(value)) else f"{value:.{digits}f}"


def _commit(commit: str) -> str:
    return commit[:10] + (" + changes" if commit.endswith("+ changes") else "") or NOTHING


def _environment_of(cell: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple("" if str(cell[key]) in ("<NA>", "None", "nan") else str(cell[key]) for key in MADE_WITH)


def _made_with(cells: Sequence[Mapping[str, Any]]) -> dict[tuple[str, ...], str]:
    """What runs were made with -> A, B, … Z, AA, in the order of the runs."""
    found: dict[tuple[str, ...], str] = {}
    for cell in cells:
        key = _environment_of(cell)
        if cell["state"] in ("done", "diverged") and key not in found:
            found[key] = _letters(len(found))
    return found


def _letters(number: int) -> str:
    return (_letters(number // 26 - 1) if number >= 26 else "") + chr(ord("A") + number % 26)


def _environments(page: Content, made: Mapping[tuple[str, ...], str]) -> list[str]:
    """What is equal for all runs once, then by letter what is not."""
    if not made:
        return [tag("p", "No run has finished.")]
    shown = [i for i, key in enumerate(MADE_WITH) if not (page.redacted and key == "host")]
    equal = [i for i in shown if len({values[i] for values in made}) == 1]
    lines = [_values(page, "all", next(iter(made)), equal, None)] if len(made) > 1 else []
    for values, letter in made.items():
        lines.append(
            _values(page, letter, values, [i for i in shown if len(made) == 1 or i not in equal], f"made-{letter}")
        )
    return lines


def _values(page: Content, title: str, values: Sequence[str], shown: Sequence[int], id_: str | None) -> str:
    listed = "".join(f"<dt>{MADE_WITH[i]}</dt><dd>{page.say(values[i], 2000)}</dd>" for i in shown if values[i])
    return tag("div", tag("h4", title) + tag("dl", listed), id_=id_, class_="made") + "\n"


def _diffs(page: Content) -> list[str]:
    """Changes of the code that no commit has, each once. They may hold anything: redacted, they stay out."""
    runs_of: dict[str, list[str]] = {}
    for run, outcome in page.outcomes.items():
        git = (outcome.get("provenance") or {}).get("git") or {}
        if git.get("dirty") and git.get("diff"):
            runs_of.setdefault(str(git["diff"]), []).append(run)
    if not runs_of:
        return []
    if page.redacted:
        return [tag("p", "Some runs were made by code with uncommitted changes, which are left out here.")]
    boxes = []
    for diff, runs in runs_of.items():
        lines = diff.split("\n")
        text = "\n".join(page.say(line) for line in lines[:DIFF_LINES])
        rest = f"\n… {len(lines) - DIFF_LINES} more lines" if len(lines) > DIFF_LINES else ""
        digest = hashlib.sha256(diff.encode()).hexdigest()[:10]
        boxes.append(
            details(
                f"Uncommitted changes <code>{digest}</code> in the code of {len(runs)} runs",
                tag("pre", text + rest, tabindex=0),
            )
        )
    return boxes


# -- what failed ---------------------------------------------------------------------------------------------------


def failures(page: Content) -> str:
    """Every run that failed or diverged, with the end of its log; those that wait for it are counted."""
    if not page.ended:
        return ""
    say = page.say
    places: dict[str, list[str]] = {}
    found: dict[str, Mapping[str, Any]] = {}
    for cell in page.cells:
        if cell["run"] in page.ended:
            where = say(place(page.plan, cell["variant"], cell["seed"], cell["stage"]))
            places.setdefault(cell["run"], []).append(where)
            found[cell["run"]] = cell
    lines = [
        tag("h2", f"Runs that failed or diverged ({len(page.ended)})"),
        tag(
            "p",
            "A run that diverged is a result: its row says so. One that failed is none: <code>deit-ablate retry</code> runs it again.",
        ),
    ]
    boxes = []
    for run, ended in page.ended.items():
        own = found[run]
        kind = own["state"] + (f": {say(own['detail'])}" if own["detail"] else "")
        title = f"{places[run][0]} {tag('span', kind, class_='chip v-failed')}"
        parts = [tag("p", f"Run <code>{say(run)}</code>, {own['epochs']} epochs, attempt {own['attempts']}.")]
        if places[run][1:]:
            parts.append(tag("p", f"Also: {'; '.join(places[run][1:10])}{' …' if places[run][10:] else ''}."))
        if ended.message:
            parts.append(tag("p", f"It said: {say(ended.message)}"))
        if ended.log:
            first = "…\n" if ended.more else ""
            parts.append(tag("p", f"The last lines of its log (at most {LOG_LINES}):", class_="small"))
            parts.append(tag("pre", first + "\n".join(say(line) for line in ended.log), tabindex=0, class_="log"))
        boxes.append(details(title, "\n".join(parts), class_="row print", open_=len(page.ended) <= 3))
    return section("failures", "\n".join(lines + boxes))
