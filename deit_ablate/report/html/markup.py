"""What templates are given, and the one place that renders them: all text is escaped unless a template wrote it."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from deit_ablate import __version__
from deit_ablate.report.html.findings import KINDS
from deit_ablate.report.redaction import Redactor
from deit_ablate.report.tables.render import plain

if TYPE_CHECKING:
    from jinja2 import Environment

LONGEST = 600
"""Characters of one text of a user's: a page is no place for a megabyte on one line."""


class Say:
    """``say(text)``: what others wrote, shortened and printable; redacted where that was asked for. Not escaped."""

    def __init__(self, redactor: Redactor | None = None):
        self.redactor = redactor

    def __call__(self, value: object, longest: int = LONGEST) -> str:
        # Unprintable characters go first: one in the middle of a name would hide it from the redactor.
        text = plain(str(value))
        if self.redactor is not None:
            text = self.redactor(text)
        return text if len(text) <= longest else text[: longest - 1] + "…"


@cache
def environment() -> Environment:
    """For the templates here, and for Markdown's in the folder above, which escape by themselves."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    folder = Path(__file__).parent
    made = Environment(
        loader=FileSystemLoader([folder, folder.parent]),
        autoescape=lambda name: name is None or not name.endswith(".md.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    made.filters["sha256"] = lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    made.globals["marks"] = {name: kind.mark for name, kind in KINDS.items()}
    for name, asset in (("css", "page.css"), ("script", "page.js")):
        made.globals[name] = Markup("\n" + (folder / asset).read_text(encoding="utf-8"))
    return made


def stamp(redacted: bool) -> str:
    """What made a page: one by another version, or with other things left out, is to be written anew."""
    return f"deit-ablate {__version__}{', redacted' if redacted else ''}"


def render(template: str, say: Say, **values: object) -> str:
    """A whole page. Raises LookupError where a record lacks what the template names."""
    from jinja2 import UndefinedError

    given = {"say": say, "stamp": stamp(say.redactor is not None), **values}
    try:
        return environment().get_template(f"{template}.html.j2").render(given)
    except UndefinedError as error:
        raise LookupError(str(error)) from error
