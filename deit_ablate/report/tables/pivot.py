"""A grid as its axes have it: the last one across, the others down, with the means along each. Imports pandas."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import pandas as pd

from deit_ablate.errors import InputError
from deit_ablate.report.summary import Summary
from deit_ablate.report.tables.footnotes import short_notes
from deit_ablate.report.tables.table import Column, Table, measure, study_title, unique
from deit_ablate.sweep.labels import labels_of, words
from deit_ablate.sweep.rows import short_keys


@dataclass(frozen=True)
class Grid:
    """A grid's rows by the values of its axes: ``down`` (a line each) and ``across`` (a column each)."""

    axes: tuple[str, ...]
    """What each axis is called: its label, or its key's last part where no other axis ends so too."""
    down: tuple[tuple[str, ...], ...]
    across: tuple[str, ...]
    cells: Mapping[tuple[tuple[str, ...], str], Mapping[str, Any]]
    """(down, across) -> the row of the summary."""
    metric: str
    """The column of means."""

    @classmethod
    def of(cls, summary: Summary) -> Grid:
        """Raises InputError for a sweep that is no grid, or whose plan was made before plans had axes."""
        axes = summary.plan.get("axes") or []
        if not axes:
            expected = "a sweep with `grid` (of an early plan: `deit-ablate run` with its file, which trains nothing)"
            raise InputError(f"{summary.sweep} has no axes", where=("--pivot", 0, 0), expected=expected)
        labels, rows = labels_of(summary.plan), {row["variant"]: row for row in summary.rows}
        values = list(itertools.product(*(axis["values"] for axis in axes)))
        names, keys = [row["name"] for row in summary.plan["variants"]], [axis["key"] for axis in axes]
        return cls(
            tuple(labels.get(key, short) for key, short in zip(keys, short_keys(keys), strict=True)),
            tuple(dict.fromkeys(value[:-1] for value in values)),
            tuple(axes[-1]["values"]),
            {(value[:-1], value[-1]): rows[name] for value, name in zip(values, names, strict=True)},
            summary.metric.mean,
        )

    def mean(self, down: tuple[str, ...] | None = None, across: str | None = None) -> float:
        """Of the rows' means along a line, a column, or everywhere; NaN where one of them is missing."""
        found = [
            row[self.metric] for (own, at), row in self.cells.items() if down in (None, own) and across in (None, at)
        ]
        return statistics.fmean(found)


def is_grid(summary: Summary) -> bool:
    """Whether there are two axes or more to show, and a run that has ended."""
    return len(summary.plan.get("axes") or ()) > 1 and summary.has_results


def pivot_table(summary: Summary) -> Table:
    """A grid's means with their intervals, and the main effect of each axis as the means along it."""
    grid, metric = Grid.of(summary), summary.metric
    number = partial(measure, digits=metric.digits)
    heads, across = grid.axes[:-1], grid.across
    place, mean, *others = unique(["line", "mean", *across, *heads])  # an axis, or a value, may be called "mean"
    named = others[: len(across)], others[len(across) :]

    def line(number: int, down: tuple[str, ...] | None) -> list[Any]:
        if down is None:
            said = ["mean", *[""] * len(heads)][: len(heads)]
            return [number, *said, *(grid.mean(across=value) for value in across), grid.mean()]
        return [number, *down, *(grid.cells[down, value][metric.mean] for value in across), grid.mean(down)]

    lines = [*grid.down, None] if heads else [()]
    names = [place, *named[1], *named[0], mean]
    frame = pd.DataFrame([line(*numbered) for numbered in enumerate(lines)], columns=names)

    def cell(name: str, value: str, row: Mapping[str, Any]) -> str:
        down = lines[row[place]]
        return number(row[name], math.nan if down is None else grid.cells[down, value][metric.half_width])

    columns = [Column(head, itemgetter(name), math=True) for head, name in zip(heads, named[1], strict=True)]
    columns += [
        Column(f"{grid.axes[-1]} = {value}", partial(cell, name, value), right=True, name=name, math=True)
        for value, name in zip(across, named[0], strict=True)
    ]
    columns.append(Column("mean", lambda row: number(row[mean]), right=True))
    notes = [
        f"{metric.words[0].upper()}{metric.words[1:]}; along each axis the mean of the rows' means.",
        *_effects(grid, number),
        *short_notes(summary),
    ]
    return Table(summary.sweep, study_title(summary.plan), frame, tuple(columns), tuple(notes))


def _effects(grid: Grid, number: Callable[[float], str]) -> Iterator[str]:
    """The means along each of several axes that stand below one another: lines are of all of them together."""
    for place, name in enumerate(grid.axes[:-1] if len(grid.axes) > 2 else ()):
        found: dict[str, list[float]] = {}
        for down in grid.down:
            found.setdefault(down[place], []).append(grid.mean(down))
        said = ", ".join(f"{value}: {number(statistics.fmean(own))}" for value, own in found.items())
        yield f"Mean over all other axes, {words(name)}: {said}."
