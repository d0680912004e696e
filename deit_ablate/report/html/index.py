"""An index over all sweeps of a store; it writes the pages that are missing or older than their records."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deit_ablate import files
from deit_ablate.report.html import content
from deit_ablate.report.html.findings import GROUPS, group
from deit_ablate.report.html.markup import Say, render, stamp
from deit_ablate.report.html.page import NAME, written
from deit_ablate.report.html.redaction import Redactor
from deit_ablate.report.summary import summarize
from deit_ablate.report.tables.search import has_rows
from deit_ablate.store import Store


@dataclass(frozen=True)
class Written:
    """What ``write_index`` did: the index, the pages that it wrote, and the sweeps that it could not read, with why."""

    index: Path
    pages: tuple[Path, ...]
    unreadable: Mapping[str, str]


def write_index(store: Store, *, redact: bool = False) -> Written:
    """Write results/index.html, and report.html of every sweep where it is missing, older than the sweep's records,
    made by another version, or made with other things left out."""
    lines, pages, unreadable = [], [], {}
    say = Say(Redactor() if redact else None)
    for sweep in store.sweeps.names():
        try:
            made = content.read(summarize(store, sweep), redact=redact)
            path = store.sweeps.folder(sweep) / NAME
            if not _fresh(store, sweep, path, redact):
                files.replace(path, written(made).encode())
                pages.append(path)
            lines.append(_line(made))
        except (LookupError, ValueError, TypeError, AttributeError, OSError) as error:
            # One damaged sweep must not hide all others; the caller says it aloud.
            unreadable[sweep] = f"{type(error).__name__}: {error}"
            lines.append({"sweep": sweep, "unreadable": unreadable[sweep]})
    path = store.root / "index.html"
    files.replace(path, render("index", say, sweeps=lines, page_name=NAME).encode())
    return Written(path, tuple(pages), unreadable)


def _line(made: content.Content) -> dict[str, Any]:
    verdicts = Counter(map(group, made.summary.frame["verdict"]))
    return {
        "sweep": made.summary.sweep,
        "unreadable": "",
        "plan": {key: made.plan[key] for key in ("title", "profile", "baseline")},
        "rows": len(made.plan["variants"]),
        "runs": made.state_words(),
        "judged": has_rows(made.plan),
        "verdicts": [(name, verdicts[name]) for name, *_ in GROUPS if verdicts[name]],
    }


def _fresh(store: Store, sweep: str, path: Path, redact: bool) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            if f'content="{stamp(redact)}"' not in handle.read(2000):
                return False
        return path.stat().st_mtime > max(_times(store, sweep, store.sweeps.plan(sweep) or {"cells": []}))
    except OSError:
        return False


def _times(store: Store, sweep: str, plan: Mapping[str, Any]) -> Iterable[float]:
    """When the files changed that a page is made of. A run that is over has one that matters."""
    yield (store.sweeps.folder(sweep) / "plan.json").stat().st_mtime
    for run in {run for *_, run in plan["cells"]}:
        outcome = store.run(run) / "outcome.json"
        if outcome.exists():
            yield outcome.stat().st_mtime
        elif store.run(run).exists():
            for folder, _, names in os.walk(store.run(run)):
                yield os.stat(folder).st_mtime
                yield from (os.stat(os.path.join(folder, name)).st_mtime for name in names if name != "beat")
