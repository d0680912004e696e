"""An index over all sweeps of a store, beside them; it writes the pages that are missing or older than their records."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from deit_ablate import files
from deit_ablate.report.html import content, words
from deit_ablate.report.html.markup import Say, document, grid, stamp, tag
from deit_ablate.report.html.page import NAME, written
from deit_ablate.report.html.parts import chip
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
    """Write results/index.html, and report.html of every sweep where it is missing, older than the sweep's records, made
    by another version, or made with other things left out."""
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
            lines.append(
                [say(sweep), "", "", "", tag("span", f"cannot be read: {say(unreadable[sweep])}", class_="warn")]
            )
    path = store.root / "index.html"
    files.replace(path, _index(lines, redact).encode())
    return Written(path, tuple(pages), unreadable)


def _index(lines: list[list[str]], redact: bool) -> str:
    head = ("sweep", "profile", "rows", "runs", "against the baseline")
    sweeps = f"{len(lines)} {'sweep' if len(lines) == 1 else 'sweeps'}"
    body = [
        tag("header", tag("p", "Ablation reports", class_="kicker") + tag("h1", sweeps)),
        "<main>",
        grid(head, lines, right=(2,), class_="sortable main", caption="Sweeps")
        if lines
        else tag("p", "No sweep was run into this store."),
        "</main>",
        tag(
            "footer",
            "Made by deit-ablate from the records of the runs."
            + (" Hosts, accounts, user names, paths and uncommitted changes are left out." if redact else ""),
        ),
    ]
    return document("Ablation reports", "\n".join(body), redacted=redact)


def _line(made: content.Content) -> list[str]:
    plan, say = made.plan, made.say
    link = tag("a", say(plan["title"] or made.sweep), href=f"{quote(made.sweep)}/{NAME}")
    verdicts = Counter(words.group(verdict) for verdict in made.summary.frame["verdict"] if words.group(verdict))
    told = {name: heading for name, _, heading in words.GROUPS}
    shown = " ".join(chip(name, f"{verdicts[name]} {_short(name)}") for name in told if verdicts[name])
    return [
        link + tag("span", say(made.sweep), class_="small"),
        say(plan["profile"] or "–"),
        str(len(plan["variants"])),
        _counts(made.states()),
        "a search, not confirmed" if not has_rows(plan) else shown if plan["baseline"] else "no baseline",
    ]


def _short(name: str) -> str:
    return {"few": "too few runs", "failed": "did not train"}.get(name, name)


def _counts(states: Mapping[str, int]) -> str:
    return ", ".join(
        f"{count} {state}" for state, count in sorted(states.items(), key=lambda item: (item[0] != "done", item[0]))
    )


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
