"""A table: typed values, how they are said, and how a sweep's are made. Imports pandas.

Renderers (``render``) write what is here; a table that an analysis shows is a Table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from deit_ablate.report.frame import rows
from deit_ablate.report.summary import Summary
from deit_ablate.report.tables.footnotes import footnotes
from deit_ablate.sweep.metrics import Metric

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
    """Long text, which LaTeX should wrap."""


@dataclass(frozen=True)
class Table:
    """What a table says. ``frame`` holds the raw values (what CSV gets), one row a row; ``columns`` words them."""

    name: str
    title: str
    frame: pd.DataFrame
    columns: tuple[Column, ...]
    footnotes: tuple[str, ...]

    def rows(self) -> list[list[str]]:
        """The body as plain text, a list a row."""
        return [[column.text(row) for column in self.columns] for row in rows(self.frame)]


def sweep_table(summary: Summary) -> Table:
    """The default table of any sweep: rows are variants, in the plan's order.

    The metric with 95% t intervals over seeds, the difference from the baseline, the verdict, and further metrics.
    """
    plan, frame, metric = summary.plan, summary.frame, summary.metric
    signed = partial(measure, signed=True, digits=metric.digits)
    unit, seconds = _time_unit(frame["train_seconds"])
    long_names = any(len(row["name"]) > LONG_NAME for row in plan["variants"])
    columns = [
        Column("variant", lambda row: row["variant"] + (" (baseline)" if row["baseline"] else ""), long=long_names),
        Column("differs in", lambda row: row["differs_in"] or NOTHING, long=True),
        Column(metric.header, partial(_mean, metric), right=True),
        Column("difference", lambda row: signed(row["difference"], row["difference_half_width"]), right=True),
        Column("verdict", lambda row: row["verdict_words"] or NOTHING, long=True),
        *(Column(further.header, partial(_mean, further), right=True) for further in summary.metrics[1:]),
        Column(f"time ({unit})", lambda row: _time(row["train_seconds"] / seconds), right=True),
        Column(f"{device_of(summary)}-hours", lambda row: _hours(row["hours"]), right=True),
        Column("seeds", lambda row: _of(row["seeds"], row["seeds_planned"]), right=True),
    ]
    if plan["kind"] == "cumulative":
        columns.insert(3, Column("step", lambda row: signed(row["step"], row["step_half_width"]), right=True))
    if not plan["baseline"]:
        columns = [column for column in columns if column.header not in ("differs in", "difference", "verdict")]
    return Table(summary.sweep, study_title(plan), frame, tuple(columns), tuple(footnotes(summary, timed=True)))


def study_title(plan: Mapping[str, Any]) -> str:
    """Of a table: what is studied, at which scale, and what the command line set beside the file."""
    parts = [plan["title"] or plan["sweep"], f"profile {plan['profile']}" if plan["profile"] else ""]
    return ", ".join([part for part in parts if part] + list((plan.get("asked") or {}).get("sets") or []))


def measure(mean: float, half_width: float, *, signed: bool = False, digits: int = 2) -> str:
    """``97.31 ± 0.42``; without an interval where there is none, ``–`` where there is no mean."""
    if math.isnan(mean):
        return NOTHING
    text = f"{mean:+.{digits}f}" if signed else f"{mean:.{digits}f}"
    if not float(text):
        text = text.lstrip("+-")
    text = text.replace("-", "\N{MINUS SIGN}")
    return text if math.isnan(half_width) else f"{text} ± {half_width:.{digits}f}"


def short_verdict(words: str) -> str:
    """A verdict's words without what would be needed to reach one, and without its evidence."""
    return words.partition(";")[0].partition(":")[0].partition(" (")[0]


def _mean(metric: Metric, row: Mapping[str, Any]) -> str:
    if row["diverged"] and row["diverged"] == row["seeds_planned"]:
        return "did not train"
    text = measure(row[metric.mean], row[metric.half_width], digits=metric.digits)
    return text + "*" if row["diverged"] and row["seeds"] else text


def _of(part: int, whole: int) -> str:
    return str(part) if part == whole else f"{part} of {whole}"


def _time_unit(seconds: Iterable[float]) -> tuple[str, float]:
    longest = max((value for value in seconds if not math.isnan(value)), default=0.0)
    return ("s", 1.0) if longest < 120 else ("min", 60.0) if longest < 7200 else ("h", 3600.0)


def _time(value: float) -> str:
    if math.isnan(value):
        return NOTHING
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _hours(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}" if value else NOTHING


def device_of(summary: Summary) -> str:
    """What did the work, by the records of the stage."""
    devices = {record["device"] for record in summary.final if record["device"]}
    return "GPU" if devices == {"cuda"} else "CPU" if devices <= {"cpu"} else "device"
