"""An index over all sweeps of a store; it writes the pages that are missing or older than their records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deit_ablate import files
from deit_ablate.errors import InputError
from deit_ablate.report.frame import NoSweep
from deit_ablate.report.fresh import is_current, made_from, note
from deit_ablate.report.html import content
from deit_ablate.report.html.findings import KINDS, group
from deit_ablate.report.html.markup import Say, render, stamp
from deit_ablate.report.html.page import NAME, written
from deit_ablate.report.redaction import Redactor
from deit_ablate.report.summary import Summary, summarize
from deit_ablate.report.tables.search import has_rows
from deit_ablate.store import Store


@dataclass(frozen=True)
class Written:
    """What ``write_index`` did: the index, the pages that it wrote, and the sweeps that it could not read, with why."""

    index: Path
    pages: tuple[Path, ...]
    unreadable: Mapping[str, str]


def write_index(store: Store, *, redact: bool = False) -> Written:
    """Write results/index.html, and report.html of every sweep where it is missing, made from other records than there
    are now, by another version, or with other things left out. An error of this program is raised once the index is
    there, with the other sweeps' pages."""
    lines, pages, unreadable, bugs = [], [], {}, []
    say = Say(Redactor() if redact else None)
    for sweep in store.sweeps.names():
        try:
            now = made_from(store, sweep)
            made = content.read(summarize(store, sweep), redact=redact)
            path = store.sweeps.folder(sweep) / NAME
            if not (_same_stamp(path, redact) and is_current(store, sweep, NAME, now)):
                pages.append(_write(made, now))
            lines.append(_line(made))
        except Exception as error:
            # One sweep must not hide all others; the caller says it aloud.
            bugs += [error] * (not isinstance(error, (NoSweep, InputError, OSError)))
            unreadable[sweep] = str(error)
            lines.append({"sweep": sweep, "unreadable": unreadable[sweep]})
    path = store.root / "index.html"
    files.replace(path, render("index", say, sweeps=lines, page_name=NAME).encode())
    if bugs:
        raise bugs[0]
    return Written(path, tuple(pages), unreadable)


def renew(summary: Summary, now: Mapping[str, Any] | None) -> None:
    """Write a sweep's page anew where there is one: with hosts, users and paths left out where that one has them not.
    ``now``: what it is made from."""
    path = summary.store.sweeps.folder(summary.sweep) / NAME
    if path.exists():
        _write(content.read(summary, redact=_same_stamp(path, redact=True)), now)


def _write(made: content.Content, now: Mapping[str, Any] | None) -> Path:
    path = made.summary.store.sweeps.folder(made.summary.sweep) / NAME
    files.replace(path, written(made).encode())
    note(made.summary.store, made.summary.sweep, NAME, now)
    return path


def _line(made: content.Content) -> dict[str, Any]:
    verdicts = Counter(map(group, made.summary.frame["verdict"]))
    return {
        "sweep": made.summary.sweep,
        "unreadable": "",
        "plan": {key: made.plan[key] for key in ("title", "profile", "baseline")},
        "rows": len(made.plan["variants"]),
        "runs": made.state_words(),
        "judged": has_rows(made.plan),
        "verdicts": [(name, verdicts[name]) for name in KINDS if verdicts[name]],
    }


def _same_stamp(path: Path, redact: bool) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return f'content="{stamp(redact)}"' in handle.read(2000)
    except OSError:
        return False
