"""A sweep's page, put together and written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deit_ablate import files
from deit_ablate.report.declared import before_running
from deit_ablate.report.frame import rows
from deit_ablate.report.html import content, findings, provenance
from deit_ablate.report.html.markup import render
from deit_ablate.report.pairs import any_two
from deit_ablate.report.records import number
from deit_ablate.report.summary import Summary
from deit_ablate.report.tables.search import UNITS, has_rows, is_search, not_confirmed_words, setting
from deit_ablate.report.tables.table import NOTHING, measure
from deit_ablate.report.write import analysis
from deit_ablate.sweep.confounds import value_words

if TYPE_CHECKING:
    from markupsafe import Markup

    from deit_ablate.report.figures.curves import Reading

NAME = "report.html"
TITLES = {
    "effects": "Differences from the baseline",
    "top1": "Accuracies",
    "values": "Values of the metric",
    "curves": "Learning curves",
}


def page(summary: Summary, *, redact: bool = False) -> str:
    """The page of a sweep.

    ``redact`` leaves out hosts, accounts, user names, absolute paths and uncommitted changes.
    """
    return written(content.read(summary, redact=redact))


def written(made: content.Content) -> str:
    summary, plan, judged = made.summary, made.plan, has_rows(made.plan)
    return render(
        "page",
        made.say,
        page=made,
        plan=plan,
        declared_before=before_running(summary.declared, "margin"),
        found=findings.findings(summary) if judged else None,
        not_confirmed=None if judged else not_confirmed_words(plan),
        kinds=[findings.group(str(row.get("verdict", ""))) for row in rows(made.table.frame)],
        any_two=any_two(summary) if judged else [],
        figures=figures(made) if judged else [],
        failures=provenance.failures(made),
        boxes=provenance.boxes(made),
        trials=provenance.trials(made) if is_search(plan) else None,
        letters=provenance.letters(made),
        made_with=provenance.made_with(made),
        diffs=provenance.diffs(made),
        data=provenance.data(made),
        # What templates word values with.
        label=summary.label,
        command=provenance.command,
        environment=provenance.environment,
        figure_of=summary.figure,
        group=findings.group,
        log_lines=content.LOG_LINES,
        measure=measure,
        metric=summary.metric,
        nothing=NOTHING,
        number=_number,
        p_value=findings.p_value,
        range_of=_range,
        sentence=findings.sentence,
        units=UNITS,
        value_words=value_words,
    )


def write_page(summary: Summary, *, redact: bool = False, output: Path | None = None) -> Path:
    """Write the page of a sweep, whole, to results/<sweep>/report.html or to ``output``; returns where."""
    text = page(summary, redact=redact)
    path = output or summary.store.sweeps.folder(summary.sweep) / NAME
    files.replace(path, text.encode())
    return path


@dataclass(frozen=True)
class Drawing:
    """A figure, and for each panel of curves its values, from which the page's script reads what the pointer shows."""

    name: str
    title: str
    svg: Markup
    readings: Sequence[Reading]


def figures(page: content.Content) -> list[Drawing]:
    """Every figure of the sweep's analysis that shows something."""
    from deit_ablate.report.figures.curves import readings
    from deit_ablate.report.html.svg import inline

    # Names are redacted before they are drawn: what is drawn cannot be.
    summary = page.summary.saying(page.say)
    found = []
    for name, figure in analysis().figures(summary).items():
        if not figure.axes:
            continue  # it says only that there is nothing to draw
        title = TITLES.get(name, name.replace("_", " ").capitalize())
        # The SVG first: it is what lays the panels out.
        svg = inline(name, figure, title)
        found.append(Drawing(name, title, svg, readings(summary, figure)))
    return found


def _number(value: Any, digits: int | None = None) -> str:
    """A number as the page shows it; without ``digits`` two, of what is below 1 three."""
    value = number(value)
    if math.isnan(value):
        return NOTHING
    if digits is None:
        return f"{value:.{2 if abs(value) >= 1 else 3}f}".replace("-", "\N{MINUS SIGN}")
    return f"{value:.{digits}f}"


def _range(parameter: Mapping[str, Any]) -> str:
    """What a search varies a parameter over."""
    if parameter["type"] == "categorical":
        return ", ".join(map(setting, parameter["choices"]))
    more = ", logarithmic" if parameter["log"] else ""
    more += f", in steps of {parameter['step']:g}" if parameter["step"] else ""
    more += ", whole numbers" if parameter["type"] == "int" else ""
    return f"{parameter['low']:g} to {parameter['high']:g}{more}"
