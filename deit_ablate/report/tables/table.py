"""A table: typed values, how they are said, and how a sweep's are made. Imports pandas.

Renderers (``render``) write what is here; a table that an analysis shows is a Table.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd

from deit_ablate.errors import unknown_name
from deit_ablate.report.frame import rows
from deit_ablate.report.pairs import best_row
from deit_ablate.report.summary import Summary
from deit_ablate.report.tables.footnotes import footnotes, short_notes
from deit_ablate.sweep.labels import words
from deit_ablate.sweep.metrics import OF_PROGRAMS, Metric

NOTHING = "–"
LONG_NAME = 22
"""Characters of a variant's name from which LaTeX should wrap it."""


@dataclass(frozen=True)
class Column:
    """One column as it is read: ``text`` turns a row of the frame into plain Unicode, which renderers escape."""

    header: str
    text: Callable[[Mapping[str, Any]], str]
    right: bool = False
    long: bool = False
    """Long text, which may break within words."""
    name: str = ""
    """What ``table --columns`` calls it; its header where this is empty."""
    math: bool = False
    """Whether its texts, and its header, are labels, which may have mathematics in them."""
    brief: Callable[[Mapping[str, Any]], str] | None = None
    """What LaTeX has in place of ``text``."""
    extra: bool = False
    """Whether a table in a paper's column goes without it, unless it is asked for."""
    bold: Callable[[Mapping[str, Any]], bool] = lambda row: False

    def words(self, cell: str) -> str:
        """A text of this column without mathematics."""
        return words(cell) if self.math else cell


@dataclass(frozen=True)
class Table:
    """What a table says. ``frame`` holds the raw values (what CSV gets), one row a row; ``columns`` words them."""

    name: str
    title: str
    frame: pd.DataFrame
    columns: tuple[Column, ...]
    footnotes: tuple[str, ...]
    short: tuple[str, ...] | None = None
    """What a paper needs of the footnotes; None: all of them."""
    headings: tuple[str, ...] = ()
    """The heading of each row's group, empty for none; nothing where rows are in no groups."""
    caption: str | None = None
    """In place of the title; may have mathematics."""
    label: str | None = None
    """What LaTeX refers to it by; ``tab:<name>`` where there is none."""
    wide: bool = False
    """Whether LaTeX sets it across the page (``table*``), with all columns."""

    def rows(self) -> list[list[str]]:
        """The body as plain text, a list a row."""
        return [[column.text(row) for column in self.columns] for row in rows(self.frame)]

    def begins(self) -> list[str]:
        """For each row the heading to be set above it, or an empty text."""
        begins = (now if now != last else "" for last, now in itertools.pairwise(("", *self.headings)))
        return list(begins) or [""] * len(self.frame)

    def _repr_html_(self) -> str:
        from deit_ablate.report.tables.render import to_html

        return to_html(self)


@dataclass(frozen=True)
class Printed:
    """How a table is to be printed: options of ``deit-ablate table``."""

    columns: tuple[str, ...] = ()
    """Names of columns, or of statistics; nothing: the table's own."""
    notes: str = "full"
    """full, short or none."""
    caption: str | None = None
    label: str | None = None
    wide: bool = False

    def of(self, table: Table) -> Table:
        """The table so printed. Raises InputError for a column that there is not."""
        known = {column.name or column.header: column for column in table.columns}
        statistics = {str(name): _statistic(table.frame, str(name)) for name in table.frame if str(name) not in known}
        bare = {name.removeprefix(OF_PROGRAMS): column for name, column in known.items()}
        found = {**bare, **statistics, **known}
        for name in self.columns:
            if name not in found:
                raise unknown_name("no column", name, [*known, *statistics], where=("--columns", 0, 0))
        chosen = [replace(found[name], extra=False) for name in self.columns]
        notes = {"full": table.footnotes, "short": table.short or table.footnotes, "none": ()}[self.notes]
        shown = replace(table, columns=tuple(chosen) or table.columns, footnotes=notes, short=notes)
        return replace(shown, caption=self.caption, label=self.label, wide=self.wide)


def _statistic(frame: pd.DataFrame, name: str) -> Column:
    """A column of the frame as it is, four digits of a number."""

    def text(row: Mapping[str, Any]) -> str:
        value = row[name]
        if isinstance(value, float):
            return NOTHING if math.isnan(value) else f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
        return str(value) or NOTHING

    right = pd.api.types.is_numeric_dtype(frame[name])
    return Column(name, text, right=right, long=not right, name=name, math=name in ("label", "group"))


def sweep_table(summary: Summary, digits: int | None = None) -> Table:
    """The default table of any sweep: rows are variants, in the plan's order or that of its groups. ``digits``: those
    after the point of the metric and differences.

    The metric with 95% t intervals over seeds, the difference from the baseline, the verdict, and further metrics.
    """
    plan, frame, metric = summary.plan, summary.frame, summary.metric
    if digits is not None:
        metric = replace(metric, digits=digits)
    signed = partial(measure, signed=True, digits=metric.digits)
    unit, seconds = _time_unit(frame["train_seconds"])
    long_names = any(len(label) > LONG_NAME for label in frame["label"])
    best = best_row(summary)
    number = partial(Column, right=True)
    columns = [
        Column("variant", _label, long=long_names, name="row", math=True),
        Column("differs in", lambda row: row["differs_in"] or NOTHING, long=True, name="differs", extra=True),
        number(metric.header, partial(mean_words, metric), name=metric.name, bold=lambda row: row["variant"] == best),
        number("difference", lambda row: signed(row["difference"], row["difference_half_width"])),
        Column("verdict", lambda row: row["verdict_words"] or NOTHING, long=True, brief=_brief_verdict),
        *(number(own.header, partial(mean_words, own), name=own.name, extra=True) for own in summary.metrics[1:]),
        number(f"time ({unit})", lambda row: _rounded(row["train_seconds"] / seconds, ".1f"), name="time", extra=True),
        number(f"{device_of(summary)}-hours", lambda row: _rounded(row["hours"], ".2g"), name="hours", extra=True),
        number("seeds", _seeds, extra=True),
    ]
    if plan["kind"] == "cumulative":
        columns.insert(3, number("step", lambda row: signed(row["step"], row["step_half_width"])))
    if not plan["baseline"]:
        columns = [column for column in columns if column.header not in ("differs in", "difference", "verdict")]
    return Table(
        summary.sweep,
        study_title(plan),
        frame,
        tuple(columns),
        tuple(footnotes(summary, timed=True)),
        short=tuple(short_notes(summary, best)),
        headings=tuple(frame["group"]) if any(frame["group"]) else (),
    )


def _label(row: Mapping[str, Any]) -> str:
    return f"{row['label']} (baseline)" if row["baseline"] else str(row["label"])


def unique(names: Sequence[str]) -> list[str]:
    """The names, a ``_`` added to each until none before it has it: users' keys stand beside our columns."""
    found: list[str] = []
    for name in names:
        while name in found:
            name += "_"
        found.append(name)
    return found


def study_title(plan: Mapping[str, Any]) -> str:
    """Of a table: what is studied, at which scale, and what the command line set beside the file."""
    parts = [plan["title"] or plan["sweep"], f"profile {plan['profile']}" if plan["profile"] else ""]
    return ", ".join([part for part in parts if part] + list((plan.get("asked") or {}).get("sets") or []))


def measure(mean: float, half_width: float = math.nan, *, signed: bool = False, digits: int = 2) -> str:
    """``97.31 ± 0.42``; without an interval where there is none, ``–`` where there is no mean."""
    if math.isnan(mean):
        return NOTHING
    text = f"{mean:+.{digits}f}" if signed else f"{mean:.{digits}f}"
    if not float(text):
        text = text.lstrip("+-")
    text = text.replace("-", "\N{MINUS SIGN}")
    return text if math.isnan(half_width) else f"{text} ± {half_width:.{digits}f}"


def short_verdict(words: str) -> str:
    """A verdict's words without what would be needed to reach one, without its evidence, and without the look."""
    return re.split(r";|:| \(|, at | (?:at|after the last) look", words, maxsplit=1)[0]


def _brief_verdict(row: Mapping[str, Any]) -> str:
    return (
        "too few runs" if row["verdict"] in ("too_few", "one_seed") else short_verdict(row["verdict_words"]) or NOTHING
    )


def mean_words(metric: Metric, row: Mapping[str, Any]) -> str:
    """A row's mean of a metric with its interval; a star where runs diverged, and are in no mean."""
    if row["diverged"] and row["diverged"] == row["seeds_planned"]:
        return "did not train"
    text = measure(row[metric.mean], row[metric.half_width], digits=metric.digits)
    return text + "*" if row["diverged"] and row["seeds"] else text


def _seeds(row: Mapping[str, Any]) -> str:
    return f"{row['seeds']}" if row["seeds"] == row["seeds_planned"] else f"{row['seeds']} of {row['seeds_planned']}"


def _time_unit(seconds: Iterable[float]) -> tuple[str, float]:
    longest = max((value for value in seconds if not math.isnan(value)), default=0.0)
    return ("s", 1.0) if longest < 120 else ("min", 60.0) if longest < 7200 else ("h", 3600.0)


def _rounded(value: float, form: str) -> str:
    """Of 100 and more whole."""
    return NOTHING if math.isnan(value) or not value else f"{value:.0f}" if value >= 100 else f"{value:{form}}"


def device_of(summary: Summary) -> str:
    """What did the work, by the records of the stage."""
    devices = {record["device"] for record in summary.final if record["device"]}
    return "GPU" if devices == {"cuda"} else "CPU" if devices <= {"cpu"} else "device"
