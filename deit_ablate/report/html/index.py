"""An index over all sweeps of a store; it writes the pages that are missing or older than their records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from deit_ablate import files
from deit_ablate.errors import InputError
from deit_ablate.report.frame import NoSweep
from deit_ablate.report.fresh import is_current, made_from, note
from deit_ablate.report.html import content, words
from deit_ablate.report.html.markup import Cell, Grid, Say, render, stamp
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
    """Write results/index.html, and report.html of every sweep where it is missing, made from other records than there
    are now, by another version, or with other things left out."""
    lines: list[Sequence[str | Cell]] = []
    pages, unreadable = [], {}
    say = Say(Redactor() if redact else None)
    for sweep in store.sweeps.names():
        try:
            now = made_from(store, sweep)
            made = content.read(summarize(store, sweep), redact=redact)
            path = store.sweeps.folder(sweep) / NAME
            if not (_same_stamp(path, redact) and is_current(store, sweep, NAME, now)):
                files.replace(path, written(made).encode())
                note(store, sweep, NAME, now)
                pages.append(path)
            lines.append(_line(made))
        except (NoSweep, InputError, OSError) as error:
            # One damaged sweep must not hide all others; the caller says it aloud.
            unreadable[sweep] = str(error)
            lines.append([sweep, "", "", "", Cell(f"cannot be read: {say(unreadable[sweep])}", "warn")])
    path = store.root / "index.html"
    head = ("sweep", "profile", "rows", "runs", "against the baseline")
    files.replace(path, render("index", say, sweeps=Grid("Sweeps", head, lines, (2,), "sortable main")).encode())
    return Written(path, tuple(pages), unreadable)


def _line(made: content.Content) -> Sequence[str | Cell]:
    plan = made.plan
    short = {"few": "too few runs", "failed": "did not train"}
    verdicts = Counter(words.group(verdict) for verdict in made.summary.frame["verdict"])
    chips = [(name, f"{verdicts[name]} {short.get(name, name)}") for name, _, _ in words.GROUPS if verdicts[name]]
    return [
        Cell(plan["title"] or made.sweep, href=f"{quote(made.sweep)}/{NAME}", small=made.sweep),
        plan["profile"] or "–",
        str(len(plan["variants"])),
        made.state_words(),
        "a search, not confirmed" if not has_rows(plan) else Cell(chips=chips) if plan["baseline"] else "no baseline",
    ]


def _same_stamp(path: Path, redact: bool) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return f'content="{stamp(redact)}"' in handle.read(2000)
    except OSError:
        return False
