"""A paper's table beside ours: published number, ours, the difference, and what may be concluded. Imports pandas.

The published numbers are data (``analysis/paper/*.csv``, with their source). At another scale than the paper's the
numbers themselves cannot match: then it is the study that is compared, by the signs and the order of its effects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from deit_ablate import files
from deit_ablate.report.stats.agreement import agreement
from deit_ablate.report.stats.verdicts import Rules, judge
from deit_ablate.report.summary import Summary
from deit_ablate.report.tables.footnotes import diverged_notes, footnotes
from deit_ablate.report.tables.table import NOTHING, Column, Table, device_of, measure
from deit_ablate.sweep.metrics import TOP1

PAPER_SCALE = "imagenet"
"""The profile under which our numbers may be compared with the paper's one by one."""
TOLERANCE = 0.2
"""Points of top-1: "within noise (~0.2)", an author of the reference code on repeating DeiT-S (its issue 32)."""
NOT_RUN = "not run"
REMARKED = "†"
"""Marks a number on which the paper remarks (there a star, which is ours for a mean without the runs that diverged)."""


@dataclass(frozen=True)
class Cell:
    """One published number. ``value`` is NaN where the paper has words instead."""

    value: float
    text: str
    unit: str
    note: str
    source: str


NO_CELL = Cell(math.nan, "", "", "", "")
NO_ROW = {"top1_mean": math.nan, "top1_half_width": math.nan, "diverged": 0, "seeds": 0, "seeds_planned": 0}


def read_published(name: str) -> dict[tuple[str, str], Cell]:
    """(row, column) -> the cell, of ``analysis/paper/<name>.csv``, in its order. Raises FileNotFoundError."""
    read = pd.read_csv(files.shipped("analysis") / "paper" / f"{name}.csv", dtype=str, keep_default_na=False)
    read["value"] = pd.to_numeric(read["published"], errors="coerce")
    read["text"] = read["published"] + read["note"].str.startswith("*").map({True: REMARKED, False: ""})
    cells = map(Cell, read["value"], read["text"], read["unit"], read["note"], read["source"])
    return dict(zip(zip(read["row"], read["column"], strict=True), cells, strict=True))


def published(cells: Mapping[tuple[str, str], Cell], column: str) -> Callable[[Mapping[str, Any]], str]:
    """What the paper has in that column for a row of a table; nothing for a row of one's own."""
    return lambda row: cells.get((row["row"], column), NO_CELL).text or NOTHING


@dataclass(frozen=True)
class Beside:
    """One column of the paper and what of ours stands beside it: a stage of the sweep, or nothing where we run none."""

    column: str
    header: str
    stage: str | None
    ours: bool = True


def paper_table(
    summary: Summary,
    name: str,
    beside: Sequence[Beside],
    *,
    title: str,
    first: Sequence[Column] = (),
    baselines: Mapping[str, str] | None = None,
    stand_ins: Mapping[str, str] | None = None,
) -> Table:
    """The sweep's rows with, for each column, the published number, ours and what to make of the two.

    ``first``: columns that say what a row is. ``baselines``: row -> the row that it is compared with, where that is not
    the sweep's baseline for all. ``stand_ins``: our row -> the paper's, where ours only stands for it.
    """
    published = read_published(name)
    ours = {theirs: own for own, theirs in (stand_ins or {}).items()}
    published = {(ours.get(row, row), column): cell for (row, column), cell in published.items()}
    stages = dict.fromkeys(part.stage for part in beside if part.ours)
    summaries = {stage: summary.at(stage) for stage in stages}
    last = summaries[list(stages)[-1]]
    comparable = last.plan["profile"] == PAPER_SCALE and "+" not in last.plan["sweep"]
    frame = _frame(published, beside, summaries, comparable)
    columns = [*(first or [Column("row", lambda row: row["label"], math=True)])]
    for part in beside:
        columns += _columns(part, comparable)
    columns.append(
        Column(f"{device_of(last)}-hours", lambda row: f"{row['hours']:.2g}" if row["hours"] else NOTHING, right=True)
    )
    notes = _agreements(published, beside, summaries, baselines)
    notes += _scale(last, comparable, next(iter(published.values())).source)
    called = [(last.label(own), theirs) for own, theirs in (stand_ins or {}).items() if own != theirs]
    notes += [f"{own} stands for the paper's {theirs}." for own, theirs in called]
    remarks = [cell.note.lstrip("*: ") for cell in published.values() if cell.text.endswith(REMARKED)]
    notes += [f"{REMARKED} The paper's remark: {remark}." for remark in dict.fromkeys(remarks)]
    notes += footnotes(last)
    for stage, earlier in summaries.items():
        if earlier is not last:
            notes += [f"{note.removesuffix('.')}, in the stage {stage}." for note in diverged_notes(earlier)]
    return Table(name, title, frame, tuple(columns), tuple(dict.fromkeys(notes)))


def _frame(
    published: Mapping[tuple[str, str], Cell],
    beside: Sequence[Beside],
    summaries: Mapping[str | None, Summary],
    comparable: bool,
) -> pd.DataFrame:
    """One row a variant; for each column: published, ours, its half-width, ours - published, and the verdict."""
    by_row = {stage: {row["variant"]: row for row in summary.rows} for stage, summary in summaries.items()}
    made = []
    for variant in next(iter(by_row.values())):
        label = next(iter(by_row.values()))[variant]["label"]
        line: dict[str, Any] = {"row": variant, "label": label}
        for part in beside:
            cell = published.get((variant, part.column), NO_CELL)
            own = by_row[part.stage][variant] if part.ours else NO_ROW
            off = own["top1_mean"] - cell.value
            line |= {
                f"published_{part.column}": cell.value,
                f"published_text_{part.column}": cell.text,
                f"ours_{part.column}": own["top1_mean"],
                f"half_width_{part.column}": own["top1_half_width"],
                f"diverged_{part.column}": bool(own["diverged"] and own["diverged"] == own["seeds_planned"]),
                f"some_diverged_{part.column}": bool(own["diverged"] and own["seeds"]),
                f"off_{part.column}": off,
                f"verdict_{part.column}": _verdict(off, comparable) if part.ours else NOT_RUN,
            }
        line["hours"] = sum(rows[variant]["hours"] for rows in by_row.values())
        made.append(line)
    return pd.DataFrame(made)


def _verdict(off: float, comparable: bool) -> str:
    """What to make of one number beside another."""
    if not comparable:
        return "not comparable"
    if math.isnan(off):
        return NOTHING
    if abs(off) <= TOLERANCE:
        return f"reproduced (±{TOLERANCE:g})"
    return f"off by {measure(off, signed=True)}"


def _columns(part: Beside, comparable: bool) -> list[Column]:
    def ours(row: Mapping[str, Any]) -> str:
        if row[f"diverged_{part.column}"]:
            return "did not train"
        text = measure(row[f"ours_{part.column}"], row[f"half_width_{part.column}"])
        return text + "*" if row[f"some_diverged_{part.column}"] else text

    made = [Column(f"{part.header} paper", lambda row: row[f"published_text_{part.column}"] or NOTHING, right=True)]
    if not part.ours:
        return [*made, Column(f"{part.header} ours", lambda row: NOT_RUN, right=True)]
    made.append(Column(f"{part.header} ours", ours, right=True))
    if comparable:
        made.append(Column("verdict", lambda row: row[f"verdict_{part.column}"]))
    return made


def _agreements(
    published: Mapping[tuple[str, str], Cell],
    beside: Sequence[Beside],
    summaries: Mapping[str | None, Summary],
    baselines: Mapping[str, str] | None,
) -> list[str]:
    """How far the study agrees with the paper's, for each column that we run."""
    notes = []
    for part in beside:
        if not part.ours or not summaries[part.stage].plan["baseline"]:
            continue
        summary = summaries[part.stage]
        values, resolution = summary.values_of(TOP1), summary.resolution
        column = {row: cell.value for (row, name), cell in published.items() if name == part.column}
        for own in dict.fromkeys((baselines or {}).values()) or [summary.plan["baseline"]]:
            compared = [name for name in values if name != own and (not baselines or baselines.get(name) == own)]
            known = [name for name in compared if values[name] and name in column and own in column]
            theirs = {name: column[name] - column[own] for name in known}
            ours = {name: values[name] for name in known}
            if not ours or not values[own]:
                continue
            alike = summary.lineages.paired
            # What the sweep's own table says, looks and all, where that is of the same figure and the same baseline.
            said_there = (own, summary.metric, summary.population.judged) == (summary.plan["baseline"], TOP1, False)
            rules, paired = Rules(summary.plan["margin"], summary.strict), [row for row in ours if alike(row, own)]
            judged = (
                summary.effects
                if said_there
                else judge(ours, values[own], rules, paired=paired, resolution=resolution).effects({})
            )
            said = agreement(ours, values[own], theirs, judged, paired=alike, resolution=resolution)
            label = f"{part.header}, against {summary.label(own)}" if baselines else part.header
            label += ", by training noise alone" if summary.population.judged else ""
            notes.append(f"Agreement with the paper's study, {label}: {'; '.join(said.words)}.")
    return notes


def _scale(summary: Summary, comparable: bool, source: str) -> list[str]:
    if comparable:
        return [f"Published: {source}. Reproduced: within ±{TOLERANCE:g} points, which an author calls noise."]
    profile = summary.plan["profile"] or "no profile"
    return [
        f"Published: {source}. The numbers themselves are not comparable: ours are a small model's on other data "
        f"(profile {profile}), the paper's DeiT's on ImageNet-1k. What can be compared is the study."
    ]
