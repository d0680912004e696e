"""A sweep's page, put together and written."""

from __future__ import annotations

from pathlib import Path

from deit_ablate import files
from deit_ablate.report.html import content, parts, runs, search
from deit_ablate.report.html.figures import figures
from deit_ablate.report.html.markup import render
from deit_ablate.report.summary import Summary
from deit_ablate.report.tables.search import has_rows, is_search, not_confirmed_words
from deit_ablate.report.tables.table import measure

NAME = "report.html"


def page(summary: Summary, *, redact: bool = False) -> str:
    """The page of a sweep.

    ``redact`` leaves out hosts, accounts, user names, absolute paths and uncommitted changes.
    """
    return written(content.read(summary, redact=redact))


def written(made: content.Content) -> str:
    plan, judged = made.plan, has_rows(made.plan)
    return render(
        "page",
        made.say,
        page=made,
        measure=measure,
        log_lines=content.LOG_LINES,
        plan=plan,
        facts=parts.facts(made),
        found=parts.findings(made) if judged else None,
        not_confirmed=None if judged else not_confirmed_words(plan),
        table=parts.table(made) if judged else None,
        any_two=parts.any_two(made) if judged else None,
        search={"facts": search.facts(plan["search"]), "space": search.space(plan["search"]["spaces"])}
        if is_search(plan)
        else None,
        figures=figures(made) if judged else [],
        failures=runs.failures(made),
        command=runs.command(plan),
        boxes=runs.boxes(made),
        trials=runs.trials(made),
        made_with=runs.made_with(made),
        diffs=runs.diffs(made),
    )


def write_page(summary: Summary, *, redact: bool = False, output: Path | None = None) -> Path:
    """Write the page of a sweep, whole, to results/<sweep>/report.html or to ``output``; returns where."""
    text = page(summary, redact=redact)
    path = output or summary.store.sweeps.folder(summary.sweep) / NAME
    files.replace(path, text.encode())
    return path
