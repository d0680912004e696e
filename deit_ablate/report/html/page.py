"""A sweep's page, put together and written."""

from __future__ import annotations

from pathlib import Path

from deit_ablate import files
from deit_ablate.report.html import content, paper, parts, runs, search
from deit_ablate.report.html.figures import figures
from deit_ablate.report.html.markup import document, tag
from deit_ablate.report.summary import Summary
from deit_ablate.report.tables.search import has_rows

NAME = "report.html"


def page(summary: Summary, *, redact: bool = False) -> str:
    """The page of a sweep. ``redact`` leaves out hosts, accounts, user names, absolute paths and uncommitted changes."""
    return written(content.read(summary, redact=redact))


def written(made: content.Content) -> str:
    drawn = figures(made) if has_rows(made.plan) else ""
    body = [
        parts.header(made),
        "<main>",
        parts.findings(made),
        parts.how_to_read(made),
        parts.table(made) if has_rows(made.plan) else "",
        search.section(made.plan, made.search, made.say) if made.search else "",
        paper.section(made.paper, made.say) if made.paper else "",
        parts.section("figures", tag("h2", "Figures") + "\n" + drawn) if drawn else "",
        runs.failures(made),
        runs.provenance(made),
        "</main>",
        tag(
            "footer",
            "Made by deit-ablate from the records of the runs; the same records give the same file."
            + (" Hosts, accounts, user names, paths and uncommitted changes are left out." if made.redacted else ""),
        ),
    ]
    title = made.say(made.plan["title"] or made.sweep)
    return document(title, "\n".join(part for part in body if part), redacted=made.redacted)


def write_page(summary: Summary, *, redact: bool = False, output: Path | None = None) -> Path:
    """Write the page of a sweep, whole, to results/<sweep>/report.html or to ``output``; returns where."""
    text = page(summary, redact=redact)
    path = output or summary.store.sweeps.folder(summary.sweep) / NAME
    files.replace(path, text.encode())
    return path
