"""How the pages are made of text: escaping, elements, and a document that may load and run nothing but its own."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from deit_ablate import __version__
from deit_ablate.report.html.redaction import Redactor
from deit_ablate.report.tables.render import plain

LONGEST = 600
"""Characters of one text of a user's: a page is no place for a megabyte on one line."""


class Say:
    """``say(text)``: what others wrote, as HTML that shows just that; redacted where that was asked for."""

    def __init__(self, redactor: Redactor | None = None):
        self.redactor = redactor

    def plain(self, value: object, longest: int = LONGEST) -> str:
        # Unprintable characters go first: one in the middle of a name would hide it from the redactor.
        text = plain(str(value))
        if self.redactor is not None:
            text = self.redactor(text)
        return text if len(text) <= longest else text[: longest - 1] + "…"

    def __call__(self, value: object, longest: int = LONGEST) -> str:
        return html.escape(self.plain(value, longest))


def tag(name: str, content: str = "", **attributes: object) -> str:
    """An element around HTML. Attributes are escaped; ``class_`` and the like lose their underscore, False is left out."""
    written = ""
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        written += f" {key}" if value is True else f' {key}="{html.escape(str(value))}"'
    return f"<{name}{written}>{content}</{name}>"


def details(
    summary: str, content: str, *, open_: bool = False, class_: str | None = None, id_: str | None = None
) -> str:
    return tag("details", tag("summary", summary) + "\n" + content, open=open_, class_=class_, id_=id_) + "\n"


def grid(
    head: Sequence[str],
    body: Iterable[Sequence[str]],
    *,
    right: Sequence[int] = (),
    class_: str = "",
    caption: str = "",
) -> str:
    """A table of cells that are HTML, within a box of its own that scrolls. The first column names the row."""
    number = [("num" if i in right else None) for i in range(len(head))]
    heads = "".join(tag("th", cell, scope="col", class_=number[i]) for i, cell in enumerate(head))
    lines = [
        "<tr>"
        + "".join(
            tag("th", cell, scope="row", class_=number[i]) if i == 0 else tag("td", cell, class_=number[i])
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in body
    ]
    inside = f"<caption>{caption}</caption>" if caption else ""
    table = tag(
        "table",
        f"{inside}<thead><tr>{heads}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody>",
        class_=class_ or None,
    )
    # Focusable, so that a keyboard can scroll it.
    return tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=caption or "table") + "\n"


@cache
def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def stamp(redacted: bool) -> str:
    """What made a page: one by another version, or with other things left out, is to be written anew."""
    return f"deit-ablate {__version__}{', redacted' if redacted else ''}"


def document(title: str, body: str, *, redacted: bool = False) -> str:
    """A whole page. ``title`` and ``body`` are HTML."""
    css, script = "\n" + _asset("page.css"), "\n" + _asset("page.js")
    policy = (
        f"default-src 'none'; style-src {_hash(css)}; script-src {_hash(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="generator" content="{stamp(redacted)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<meta name="color-scheme" content="light dark">\n'
        f'<link rel="icon" href="data:,">\n<title>{title}</title>\n<style>{css}</style>\n</head>\n<body>\n{body}\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )
